"""LC25000: 25,000 pictures of lung and colon tissue (H&E, 768 x 768), five classes of 5,000, made from 1,250 originals.

The authors took 250 originals a class from slides of the Tampa VA hospital and let Augmentor make copies of them: every
one turned left or right by up to 25 degrees, half of them flipped left to right, half upside down. The originals are
not published, nor which copy is of which; names (``lungaca1.jpeg``) are numbered without regard to it. A turned copy is
zoomed in up to 2.5 times, and stretched upright by up to 1.7 (``qoq_data.clinical.rotated_copies`` says why).

What the published conversion does, and what this source does instead:

* it draws a random quarter of each class for testing, so that of 20 copies of an original some 5 stand in test and the
  other 15 are trained on: nearly every test picture has been seen. Here a group is an original: copies are found by
  their content, and all of them stand on one side. There is no official split;
* it flattens the tree into five folders, so that the path of a picture is its answer. Here ids are digests of paths.

How well copies are found was measured on pictures made in the same way, and is said in ``rotated_copies``. What is
missed there is missed here: pictures whose middle is blank may stand apart from their original's other copies. A
published grouping of this release, checked by hand (LC25000-clean, MICCAI DEMI 2024), has 1,246 groups of 1 to 53
pictures. It is not used; its sizes say what to expect of ours.

Not known: patients, slides, magnification, and how many originals come from one slide or overlap.

Licence: none is stated. The authors' words are "freely available for download". Only ids may be passed on.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from qoq_data.clinical.ring_spectra import share_shown
from qoq_data.clinical.rotated_copies import MAX_ANGLE
from qoq_data.errors import Reason
from qoq_data.formats.storage import Store
from qoq_data.licence import Access, Licence, Redistribution
from qoq_data.record import AnswerType, Domain
from qoq_data.source import (
    Choice,
    ExpectedFile,
    SourceOptions,
    SourceSpec,
    SourceVersion,
    SyntheticTask,
    Task,
)
from qoq_data.sources._class_folders import ClassFolder, folder_items, folder_rows, list_class_folders

ROOT = "lung_colon_image_set"
_NAMES = {
    "colon_aca": "colonca",
    "colon_n": "colonn",
    "lung_aca": "lungaca",
    "lung_n": "lungn",
    "lung_scc": "lungscc",
}
FOLDERS = tuple(ClassFolder(f"{ROOT}/{label.partition('_')[0]}_image_sets/{label}", label) for label in _NAMES)
_NAME = re.compile(rf"({'|'.join(_NAMES.values())})([1-9][0-9]{{0,4}})\.jpeg")
_PAGE = "https://github.com/tampapath/lung_colon_image_set"
_TERMS = Licence("LicenseRef-LC25000", "No licence stated; 'freely available for download'", _PAGE, Redistribution.IDS)

SPEC = SourceSpec(
    name="lc25000",
    title="LC25000, Lung and Colon Cancer Histopathological Image Dataset",
    domain=Domain.PATHOLOGY,
    modality="H&E histology picture",
    homepage=_PAGE,
    citation="Borkowski AA, Bui MM, Thomas LB, Wilson CP, DeLand LA, Mastorides SM. Lung and Colon Cancer "
    "Histopathological Image Dataset (LC25000). arXiv:1912.12142, 2019",
    licences={"media": _TERMS, "labels": _TERMS},
    access=Access.OPEN,
    access_steps=(
        f"Open {_PAGE}, follow its link to Academic Torrents and fetch LC25000.zip (1.85 GB).",
        f"Unpack it into an empty folder, which then holds {ROOT}/. Give that folder, not the one in it, as --raw.",
        "Count the pictures: each of the five class folders has 5,000.",
    ),
    identity_group="lc25000",
    grouping="Neither patients nor originals are published, so copies of one original (turned, flipped, zoomed) are "
    "found by content and kept on one side, while two different originals of one slide or patient may stand on two.",
    versions=(SourceVersion("2019", 25_000, None),),
    expected_files=tuple(ExpectedFile(f"{folder.path}/") for folder in FOLDERS),
    tasks=(
        Task(
            "diagnosis",
            AnswerType.ONE,
            (
                "Which tissue, and in which state, is on this H&E picture?",
                "Read this histology picture: which of the listed findings fits it?",
                "A pathologist has to name what this stained section shows. Which option is right?",
                "You see one field of view of a haematoxylin and eosin slide. What is it of?",
                "Choose the description that this microscope picture deserves.",
            ),
            (
                Choice("colon_aca", "colon adenocarcinoma"),
                Choice("colon_n", "normal colon tissue"),
                Choice("lung_aca", "lung adenocarcinoma"),
                Choice("lung_n", "normal lung tissue"),
                Choice("lung_scc", "lung squamous cell carcinoma"),
            ),
        ),
    ),
    published_items=18_750,
    inspectors=("picture_content", "picture_originals"),
    rows_per_shard=256,
    bytes_per_row=150_000,
    skip_limit=0.001,  # 25 pictures: the release was made by one program in one run, and nothing is known to be broken
    synthetic=(SyntheticTask("diagnosis", ("mean_intensity", "redness", "texture_contrast")),),
)


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a picture of the five class folders; raises ``LayoutError`` where one is absent or empty.

    A picture that is named after another class than its folder's has no answer: neither is known to be right.
    """
    rows = folder_rows(list_class_folders(tree, SPEC.name, FOLDERS), "diagnosis")
    for row in rows:
        if _is_named_otherwise(row["label_file"]):
            detail = "its folder and its name disagree on the class"
            row |= {"answer.diagnosis": None, "skip_reason": str(Reason.LABEL_CONFLICT), "skip_detail": detail}
    return folder_items(rows, "diagnosis")


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """Pictures a folder, and those that are not named as the publisher names them."""
    listing = list_class_folders(tree, SPEC.name, FOLDERS)
    paths = [f"{folder.path}/{name}" for folder, names in listing.pictures.items() for name in names]
    return {
        **{f"{folder.label}_pictures": len(names) for folder, names in listing.pictures.items()},
        "files_that_are_no_picture": listing.other_files,
        "pictures_of_unknown_name": sum(not _NAME.fullmatch(path.rpartition("/")[2]) for path in paths),
        "pictures_named_after_another_class": sum(map(_is_named_otherwise, paths)),
    }


def _is_named_otherwise(path: str) -> bool:
    *_, label, name = path.split("/")
    match = _NAME.fullmatch(name)
    return match is not None and match[1] != _NAMES[label]


@dataclass(frozen=True, slots=True)
class SyntheticCopy:
    """One file of the synthetic tree and what it is of; ``original`` counts within its class."""

    path: str
    label: str
    original: int
    angle: int
    flips: tuple[Image.Transpose, ...]


def synthetic_copies(seed: int, patients: int) -> Iterator[SyntheticCopy]:
    """What ``synthesize`` writes: an original a patient, three to five copies each, numbered in no order."""
    rng = np.random.default_rng([seed, 25_000])
    for place, (label, name) in enumerate(_NAMES.items()):
        originals = max(1, len(range(place, patients, len(_NAMES))))
        of = np.repeat(np.arange(originals), rng.integers(3, 6, originals))
        for number, original in enumerate(rng.permutation(of).tolist(), 1):
            drawn = rng.integers(0, 2, 3)
            flips = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)
            yield SyntheticCopy(
                f"{FOLDERS[place].path}/{name}{number}.jpeg",
                label,
                original,
                int(rng.integers(0, MAX_ANGLE + 1)) * (1 if drawn[0] else -1),
                tuple(flip for flip, taken in zip(flips, drawn[1:], strict=True) if taken),
            )


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A tree of the published layout, copies made as Augmentor makes them from originals that are not written."""
    originals: dict[tuple[str, int], Image.Image] = {}
    for copy in synthetic_copies(seed, patients):
        key = (copy.label, copy.original)
        if key not in originals:
            originals[key] = _draw(seed, *key)
        picture = turned_copy(originals[key], copy.angle)
        for flip in copy.flips:
            picture = picture.transpose(flip)
        picture.save(encoded := io.BytesIO(), "JPEG", quality=75)
        path = folder / copy.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.getvalue())


def turned_copy(original: Image.Image, angle: int) -> Image.Image:
    """The original turned by ``angle`` degrees, the middle without corners scaled to its size."""
    turned = original.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    sides = [share * side for share, side in zip(share_shown(angle), original.size, strict=True)]
    left, top = ((whole - side) / 2 for whole, side in zip(turned.size, sides, strict=True))
    box = (round(left), round(top), round(turned.width - left), round(turned.height - top))
    return turned.crop(box).resize(original.size, Image.Resampling.BICUBIC)


@dataclass(frozen=True, slots=True)
class _Tissue:
    """How a class is drawn: its ground and nuclei (red, green, blue), their number and radius, and its white holes."""

    ground: tuple[int, int, int]
    nucleus: tuple[int, int, int]
    nuclei: int
    radius: float
    holes: int


_TISSUES = {
    "colon_aca": _Tissue((196, 150, 200), (80, 50, 130), 230, 4.2, 1),
    "colon_n": _Tissue((214, 186, 214), (104, 74, 150), 110, 3.2, 5),
    "lung_aca": _Tissue((206, 140, 178), (96, 58, 126), 120, 4.6, 2),
    "lung_n": _Tissue((230, 206, 222), (120, 84, 150), 60, 3.0, 7),
    "lung_scc": _Tissue((232, 128, 152), (112, 56, 110), 90, 6.0, 0),
}
_SIDE = 160


def _draw(seed: int, label: str, original: int) -> Image.Image:
    """Nuclei and holes strewn over a stained ground; the same for the same arguments."""
    rng = np.random.default_rng([seed, list(_NAMES).index(label), original])
    tissue = _TISSUES[label]
    coarse = Image.fromarray(rng.integers(96, 160, (10, 10), dtype=np.uint8)).resize(
        (_SIDE, _SIDE), Image.Resampling.BICUBIC
    )
    shade = np.asarray(coarse, np.float64)[..., None] / 128
    ground = np.clip(np.array(tissue.ground) * (0.75 + 0.25 * shade), 0, 255).astype(np.uint8)
    picture = Image.fromarray(ground)
    pen = ImageDraw.Draw(picture)
    for _ in range(tissue.holes):
        pen.polygon(_outline(rng, rng.uniform(9, 16)), (242, 238, 244))
    for _ in range(tissue.nuclei):
        tone = rng.uniform(0.8, 1.25)
        pen.polygon(_outline(rng, tissue.radius * rng.uniform(0.7, 1.3)), tuple(int(tone * c) for c in tissue.nucleus))
    return picture.filter(ImageFilter.GaussianBlur(0.6))


def _outline(rng: np.random.Generator, radius: float) -> list[tuple[float, float]]:
    """Corners of an ellipse anywhere on the picture, of any slant."""
    centre = rng.uniform(0, _SIDE, 2)
    long, short = radius * rng.uniform(1, 1.6), radius * rng.uniform(0.6, 1)
    slant = rng.uniform(0, np.pi)
    around: NDArray[np.float64] = np.linspace(0, 2 * np.pi, 13)[:-1]
    x, y = long * np.cos(around), short * np.sin(around)
    across = centre[0] + x * np.cos(slant) - y * np.sin(slant)
    down = centre[1] + x * np.sin(slant) + y * np.cos(slant)
    return list(zip(across.tolist(), down.tolist(), strict=True))
