"""BUSI: breast ultrasound pictures of Baheya Hospital, Cairo, in three class folders, each with its lesion masks.

Published as 437 benign, 210 malignant and 133 normal pictures of about 600 women. ``benign (1).png`` has its mask in
``benign (1)_mask.png`` and further lesions in ``_mask_1`` and ``_mask_2``; a normal's mask is all black and makes no
box. Class and name stand in paths only: boxes of both classes are called ``lesion``.

What the published conversion does, and what this source does instead:

* it takes the first 75 % of each class in string order for training, so that copies cross. Here there is no official
  split: groups are hashed, and pictures of the same content are one group;
* it looks for no copies, though a published check (PMC10293973) found many, and 8 lesions that stand in both benign
  and malignant. Here decoded pixels are compared exactly and nearly, mirrored and turned too;
* it skips every name that has ``mask`` in it and takes whatever is left for a picture, so that masks are lost,
  ``_mask_1`` with them, and ``benign (3) - Copy.png`` counts as another picture. Here names are matched whole: all
  masks belong to their picture, and what is named otherwise is counted by ``statistics``.

The same check counts about 70 pictures of the axilla and 295 with marks or text drawn in; they are kept as published.

A picture without its mask, or a mask without its picture, stays an item with the path that is missing, for the ledger.
A picture named after another class than its folder's, or standing in two folders, has no answer: neither label wins.

Licence: the authors' page asks for citation and names no licence. The CC0 label on the Kaggle page comes from whoever
uploaded the files there, who cannot give away rights of others. So pictures and masks are fetched by each user, and
only ids may be passed on.
"""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image, ImageOps

from qoq_data.errors import LayoutError, Reason
from qoq_data.formats.storage import Store
from qoq_data.licence import Access, Licence, Redistribution
from qoq_data.record import AnswerType, Domain
from qoq_data.source import (
    ITEM_COLUMNS,
    SKIP_COLUMNS,
    Choice,
    ExpectedFile,
    SourceOptions,
    SourceSpec,
    SourceVersion,
    SyntheticTask,
    Task,
)

ROOT = "Dataset_BUSI_with_GT"
LABELS = ("normal", "benign", "malignant")
_NAME = re.compile(r"(normal|benign|malignant) \(([1-9][0-9]{0,5})\)(?:(_mask)(?:_([1-9][0-9]?))?)?\.png")
_PICTURE = -1
Drawing = tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]
_PAGE = "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset"
_TERMS = Licence("LicenseRef-BUSI", "No licence named by the authors, who ask for citation", _PAGE, Redistribution.IDS)

SPEC = SourceSpec(
    name="busi",
    title="BUSI, Dataset of Breast Ultrasound Images",
    domain=Domain.ULTRASOUND,
    modality="breast ultrasound",
    homepage=_PAGE,
    citation="Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of breast ultrasound images. "
    "Data in Brief 28:104863, 2020. doi:10.1016/j.dib.2019.104863",
    licences={"media": _TERMS, "labels": _TERMS},
    access=Access.OPEN,
    access_steps=(
        f"Open {_PAGE} (or kaggle.com/datasets/aryashah2k/breast-ultrasound-images-dataset) and fetch the archive.",
        f"Unpack it into an empty folder, which then holds {ROOT}/. Give that folder, not the one in it, as --raw.",
        "Count the pictures: benign/ has 437 of them, malignant/ 210 and normal/ 133, each with its mask.",
    ),
    identity_group="busi",
    grouping="No patient numbers are published (780 pictures of about 600 women), so sides are kept apart by content "
    "alone: equal pictures and near copies, mirrored or turned too, stay together, while two different pictures of "
    "one woman may stand on two sides.",
    versions=(SourceVersion("2020", 780, None),),
    expected_files=tuple(ExpectedFile(f"{ROOT}/{label}/") for label in LABELS),
    tasks=(
        Task(
            "diagnosis",
            AnswerType.ONE,
            (
                "Which of these describes the breast tissue in this ultrasound picture?",
                "How would you class what this breast ultrasound shows?",
                "Read this breast sonogram: what is the overall finding?",
                "You see one ultrasound picture of a breast. Which category does it belong to?",
                "Judge this ultrasound of the breast and name the category that fits best.",
            ),
            tuple(Choice(label, label.capitalize()) for label in LABELS),
        ),
    ),
    published_items=780,
    inspectors=("picture_content",),
    rows_per_shard=128,
    skip_limit=0.05,  # the 8 lesions of both classes are 16 pictures or more, which is 2 % and over
    synthetic=(
        SyntheticTask("diagnosis", ("dark_blob_area", "dark_blob_aspect", "dark_blob_solidity", "shadow_contrast")),
    ),
)


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a picture, by class and number, from file names alone; raises ``LayoutError`` for another layout."""
    found, _ = _listing(tree)
    named = Counter((label, number) for _, label, number in found)
    rows = []
    for folder, label, number in sorted(found, key=lambda key: (LABELS.index(key[0]), LABELS.index(key[1]), key[2])):
        item = f"{label}-{number}" if folder == label else f"{folder}-{label}-{number}"
        stem = f"{ROOT}/{folder}/{label} ({number})"
        numbers = range(max(0, *found[folder, label, number]) + 1)
        masks = [f"{stem}_mask_{mask}.png" if mask else f"{stem}_mask.png" for mask in numbers]
        certain = folder == label and named[label, number] == 1
        rows.append(
            {
                "item": item,
                "group": f"picture:{item}",
                "media": [{"role": "image", "kind": "image", "path": f"{stem}.png", "part": ""}]
                + [{"role": "mask", "kind": "mask", "path": path, "part": "lesion"} for path in masks],
                "label_file": f"{stem}.png",
                "label_row": f"folder {folder}",
                "answer.diagnosis": [label] if certain else None,
                "skip_reason": None if certain else str(Reason.LABEL_CONFLICT),
                "skip_detail": None if certain else "its folder and its name, or two folders, disagree on the class",
            }
        )
    answers = {"answer.diagnosis": pl.List(pl.String)}
    return pl.LazyFrame(rows, schema={**ITEM_COLUMNS, **answers, **dict.fromkeys(SKIP_COLUMNS, pl.String)})


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of what stands in the folders, and of what is not as published."""
    found, unknown = _listing(tree)
    counts = {f"{label}_pictures": sum(_PICTURE in found[key] for key in found if key[0] == label) for label in LABELS}
    return counts | {
        "pictures_with_several_masks": sum(len(files - {_PICTURE}) > 1 for files in found.values()),
        "pictures_without_mask": sum(files == {_PICTURE} for files in found.values()),
        "masks_without_picture": sum(len(files) for files in found.values() if _PICTURE not in files),
        "pictures_named_after_another_class": sum(_PICTURE in found[key] for key in found if key[0] != key[1]),
        "files_of_unknown_name": unknown,
    }


def _listing(tree: Store) -> tuple[dict[tuple[str, str, int], set[int]], int]:
    """Files by (folder, class in the name, number), a mask by its number, and the count of other names."""
    _check_layout(tree)
    found: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    unknown = 0
    for folder in LABELS:
        for name in tree.names(f"{ROOT}/{folder}"):
            if match := _NAME.fullmatch(name):
                found[folder, match[1], int(match[2])].add(int(match[4] or 0) if match[3] else _PICTURE)
            else:
                unknown += 1
        if not any(key[0] == folder for key in found):
            raise LayoutError(
                f"busi: {ROOT}/{folder}/ holds no picture named like '{folder} (1).png'. Unpack it again."
            )
    return found, unknown


def _check_layout(tree: Store) -> None:
    absent = [label for label in LABELS if not tree.is_folder(f"{ROOT}/{label}")]
    if not absent:
        return
    names = tree.names()
    folders = [f"{ROOT}/"] if f"{ROOT}/" in names else [name for name in names if name.endswith("/")]
    above = next((name for name in folders if tree.is_folder(f"{name}{ROOT}")), None)
    if above:
        raise LayoutError(f"busi: the raw folder is one level too high. Type the same with /{above[:-1]} after it.")
    for below, up in (("benign", "/.."), ("", "/../..")):
        if any(_NAME.fullmatch(name) for name in tree.names(below)):
            where = f"inside {ROOT}/, which it has to hold"
            raise LayoutError(f"busi: the raw folder is {where}. Type the same with {up} after it.")
    if f"{ROOT}/" not in names:
        advice = "Is it another source's, or not unpacked yet? 'qoq-data info busi' says how to get the files"
        raise LayoutError(f"busi: {ROOT}/ is not in the raw folder. {advice}.")
    raise LayoutError(f"busi: {ROOT}/{absent[0]}/ is not in the raw folder. Unpack the whole archive again.")


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A tree of the published layout with a picture a patient, a third a class, and copies as the real set has them.

    From 6 patients on, one benign picture stands a second time byte for byte, across the published split, and one
    malignant picture a second time mirrored and re-encoded; from 40 on, one picture stands in both classes.
    """
    women = max(patients, len(LABELS))
    numbers = {label: (women - place - 1) // len(LABELS) + 1 for place, label in enumerate(LABELS)}
    for label, last in numbers.items():
        for number in range(1, last + 1):
            _write(folder, label, number, _draw(seed, label, number), alpha=number % 7 == 3)
    if women >= 6:
        original = 9 if numbers["benign"] >= 9 else 1
        _write(folder, "benign", numbers["benign"] + 1, _draw(seed, "benign", original))
        pixels, masks = _draw(seed, "malignant", 1)
        ImageOps.mirror(Image.fromarray(pixels)).save(coded := io.BytesIO(), "JPEG", quality=92)
        mirrored = np.asarray(Image.open(coded)), [mask[:, ::-1] for mask in masks]
        _write(folder, "malignant", numbers["malignant"] + 1, mirrored)
    if women >= 40:
        _write(folder, "malignant", numbers["malignant"] + 2, _draw(seed, "benign", 4), compress_level=9)


def _write(
    folder: Path, label: str, number: int, drawing: Drawing, *, alpha: bool = False, compress_level: int = 6
) -> None:
    """One picture and its masks: 1-bit for a lesion (4 channels beside a picture that has 4), RGB for a normal."""
    home = folder / ROOT / label
    home.mkdir(parents=True, exist_ok=True)
    stem = f"{label} ({number})"
    pixels, masks = drawing
    picture = Image.fromarray(pixels).convert("RGBA" if alpha else "RGB")
    picture.save(home / f"{stem}.png", compress_level=compress_level)
    for nth, mask in enumerate(masks):
        drawn = Image.fromarray(mask)
        mode = "RGB" if label == "normal" else "RGBA" if alpha else "1"
        drawn.convert(mode).save(home / (f"{stem}_mask_{nth}.png" if nth else f"{stem}_mask.png"))


def _draw(seed: int, label: str, number: int) -> Drawing:
    """Speckled layers uint8 [h, w] and a mask a lesion; a normal has one empty mask.

    A benign lesion is a smooth oval wider than tall with a brighter zone behind it, a malignant one is taller than
    wide with spicules and a shadow behind it. Every fifth benign picture has two.
    """
    rng = np.random.default_rng([seed, LABELS.index(label), number])
    height, width = rng.integers(160, 261, 2)
    side = min(height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = np.sin(2 * np.pi * (y / side * rng.uniform(3, 5) + 0.2 * np.sin(2 * np.pi * x / width)) + rng.uniform(0, 6))
    image = (rng.uniform(85, 115) + 14 * waves) * (1 - 0.2 * y / height)
    masks = [] if label != "normal" else [np.zeros((height, width), dtype=np.bool_)]
    several = label == "benign" and number % 5 == 2
    for centre in (0.27, 0.74) if several else () if label == "normal" else (rng.uniform(0.4, 0.6),):
        long, short = side * rng.uniform(0.15, 0.18), side * rng.uniform(0.09, 0.11)
        across, down = (long, short) if label == "benign" else (short, long)
        dx, dy = (x - centre * width) / across, (y - rng.uniform(0.3, 0.45) * height) / down
        spicules = 0.0 if label == "benign" else 0.3 * np.sin(rng.integers(9, 13) * np.arctan2(dy, dx))
        lesion = np.hypot(dx, dy) <= 1 + spicules
        behind = (np.abs(dx) < 0.9) & (dy > 0)
        image = np.where(behind, image * (1.4 if label == "benign" else 0.6), image)
        image[lesion] = 12
        masks.append(lesion)
    speckle = rng.gamma(10, 0.1, image.shape)
    return np.clip(image * speckle, 0, 255).astype(np.uint8), masks
