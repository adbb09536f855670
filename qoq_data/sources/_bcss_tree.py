"""The layout of a BCSS release: its code table, its bounds, its pictures and masks; and a generated tree of it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from qoq_data.clinical.synthetic_image import Scene, draw_scene
from qoq_data.errors import LayoutError, TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.sources._published_files import csv_bytes

CODES_TABLE, BOUNDS_TABLE = "meta/gtruth_codes.tsv", "meta/roiBounds.csv"
CODES = (
    "outside_roi", "tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris", "glandular_secretions", "blood",
    "exclude", "metaplasia_NOS", "fat", "plasma_cells", "other_immune_infiltrate", "mucoid_material",
    "normal_acinus_or_duct", "lymphatics", "undetermined", "nerve", "skin_adnexa", "blood_vessel", "angioinvasion",
    "dcis", "other",
)  # fmt: skip
"""Meanings of the codes 0 to 21, in the publisher's words."""
_SLIDE = r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}-DX[0-9]+"
_ROI = re.compile(rf"({_SLIDE})_xmin([0-9]+)_ymin([0-9]+)_MPP-[0-9.]+\.png")
_FOLDERS = (re.compile(r"images/"), re.compile(r"rgbs_colorNormalized(?: \([0-9]+\))?/"))


def check_codes(tree: Store) -> None:
    """Raise ``TableError`` where the publisher's table of codes is not the one that is written here."""
    table = read_table(tree, CODES_TABLE, {"label": pl.String, "GT_code": pl.Int32}, separator="\t")
    found = dict(table.select("GT_code", "label").iter_rows())
    for code, meaning in enumerate(CODES):
        if found.get(code) != meaning or table.height != len(CODES):
            raise TableError(
                f"{CODES_TABLE}: the code {code} does not mean {meaning!r} in it, or it has not {len(CODES)} codes. "
                "Its masks are of a release whose codes this source does not know."
            )


def read_bounds(tree: Store) -> dict[str, tuple[int, int]]:
    """Left and upper edge of each slide's ROI on the slide."""
    table = read_table(tree, BOUNDS_TABLE, {"": pl.String, "xmin": pl.Int64, "ymin": pl.Int64})
    places: dict[str, tuple[int, int]] = {}
    for line, (slide, left, top) in enumerate(table.iter_rows(), 2):
        known = slide is not None and left is not None and top is not None and re.fullmatch(_SLIDE, slide)
        if not known or slide in places:
            raise TableError(f"{BOUNDS_TABLE}, row {line}: a blank, no slide's name, or one that stands twice.")
        places[slide] = (left, top)
    return places


def _pictures(tree: Store) -> Iterator[tuple[str, str]]:
    """Name and path of every ROI picture: of ``images/`` where it is there, else of the normalised folders."""
    folders = [name for name in tree.names() if name.endswith("/")]
    kinds = [found for kind in _FOLDERS if (found := [name for name in folders if kind.fullmatch(name)])]
    for folder in sorted(kinds[0], key=lambda name: (len(name), name)) if kinds else ():
        for name in tree.names(folder[:-1]):
            if _ROI.fullmatch(name):
                yield name, f"{folder}{name}"


def list_rois(tree: Store) -> tuple[dict[str, str], set[str], int]:
    """Path of each ROI's picture by its name, the names of all masks, and how many pictures stand a second time."""
    every = list(_pictures(tree))
    pictures = dict(reversed(every))
    masks = {name for name in tree.names("masks") if _ROI.fullmatch(name)}
    for path, found in (("images/ (or rgbs_colorNormalized/)", pictures), ("masks/", masks)):
        if not found:
            raise LayoutError(
                f"bcss: {path} is not in the raw folder, or holds no picture named like "
                "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500.png. 'qoq-data info bcss' says how to get the files."
            )
    return pictures, masks, len(every) - len(pictures)


def slide_of(name: str) -> str:
    """The slide in a picture's name."""
    return name.split("_", maxsplit=1)[0]


def place_of(name: str) -> tuple[int, int]:
    """Left and upper edge on the slide, from a picture's name."""
    match = _ROI.fullmatch(name)
    return (int(match[2]), int(match[3])) if match else (-1, -1)


_SITES = ("A1", "OL", "BH", "E2", "D8", "EW", "AR", "GM", "A2", "S3", "LL", "C8")
_CELL, _EDGE = 240, 6
_DISC = np.hypot(*(np.mgrid[0:200, 0:200] - 99.5)) < 100
_SCENES = {
    1: Scene(0.48, (0.95, 0.7, 1.1), texture=0.2),
    2: Scene(0.75, (1.15, 0.8, 0.95), texture=0.05),
    3: Scene(0.3, (0.8, 0.75, 1.3), texture=0.35),
    4: Scene(0.62, (1.3, 0.85, 0.8), texture=0.1),
}
"""What each tissue looks like in the generated pictures; 10 and 20 look like 3 and 1, and 21 is empty glass."""


def write_tree(folder: Path, seed: int, patients: int) -> None:
    """A ROI of 492 x 480 a patient, its sites train and test in turn: a disc of each tissue in a drawn order.

    A strip is outside the ROI. A lymph follicle in the stroma is too small to fill its tile. In every third ROI tumour
    and inflammation have codes that only the challenge's list counts as such.
    """
    bounds = []
    for patient in range(max(1, patients)):
        rng = np.random.default_rng([seed, patient])
        slide = f"TCGA-{_SITES[patient % len(_SITES)]}-Z{patient:03d}-DX1"
        left, top = (int(one) for one in rng.integers(2_000, 90_000, 2))
        labels = np.full((2 * _CELL, 2 * _CELL + 2 * _EDGE), 21, np.uint8)
        pixels = np.full((*labels.shape, 3), 230, np.uint8)
        for cell, code in enumerate(rng.permutation([1, 2, 3, 4]).tolist()):
            y, x = cell // 2 * _CELL + 20, cell % 2 * _CELL + _EDGE + 20
            inside = np.s_[y : y + 200, x : x + 200]
            shown = {1: 20, 3: 10}.get(code, code) if patient % 3 == 2 else code
            pixels[inside][_DISC] = draw_scene(_SCENES[code], 200, 200, rng)[0][_DISC]
            labels[inside][_DISC] = shown
            if code == 2:
                follicle = np.s_[y + 100 : y + 140, x + 110 : x + 150]
                pixels[follicle] = draw_scene(_SCENES[3], 40, 40, rng)[0]
                labels[follicle] = 3
        labels[:, -2 * _EDGE :] = 0
        name = f"{slide}_xmin{left}_ymin{top}_MPP-0.2500.png"
        _save(folder / "images" / name, pixels)
        _save(folder / "masks" / name, labels)
        bounds.append((slide, left, top, left + labels.shape[1], top + labels.shape[0], "https://example.org/mask"))
    (folder / "meta").mkdir(exist_ok=True)
    codes = "".join(f"{meaning}\t{code}\r\n" for code, meaning in enumerate(CODES))
    (folder / CODES_TABLE).write_bytes(f"label\tGT_code\r\n{codes}".encode())
    header = ("", "xmin", "ymin", "xmax", "ymax", "mask_link")
    (folder / BOUNDS_TABLE).write_bytes(csv_bytes(header, bounds))


def _save(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG", compress_level=1)
    path.write_bytes(buffer.getvalue())
