"""The four tables of VinDr-CXR 1.0.0, read into films."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import polars as pl

from qoq_data.clinical.reader_boxes import Edges, ReaderBox
from qoq_data.errors import LayoutError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.sources._item_rows import refuse_rows
from qoq_data.sources._vindr_cxr_labels import LABELS, OTHER_DISEASE, OTHER_NAMES, Film

SIDES = ("train", "test")
EDGES = ("x_min", "y_min", "x_max", "y_max")
CONSENSUS = "consensus"
HEADINGS: Mapping[str, tuple[str, ...]] = {
    side: tuple(other if label == OTHER_DISEASE else label for label in LABELS)
    for side, other in (("train", "Other diseases"), ("test", OTHER_DISEASE))
}
"""The columns of labels as each side's table heads them, in the order of ``LABELS``."""
_PLAIN_ID = r"^[0-9A-Za-z]+$"


def labels_path(side: str) -> str:
    return f"annotations/image_labels_{side}.csv"


def boxes_path(side: str) -> str:
    return f"annotations/annotations_{side}.csv"


def film_path(side: str, image: str) -> str:
    return f"{side}/{image}.dicom"


def read_films(tree: Store) -> list[Film]:
    """Every film of the tables, a side after the other, by image; raises ``SourceError``."""
    _check_layout(tree)
    return [film for side in SIDES for film in _films_of(tree, side)]


def _check_layout(tree: Store) -> None:
    for side in SIDES:
        if not tree.is_folder(side):
            other = ""
            if tree.exists("train.csv") and not tree.is_folder("annotations"):
                other = " It looks like the competition's form, which lacks most labels and is not read."
            raise LayoutError(
                f"vindr-cxr: {side}/ is not in the raw folder, which has to hold train/, test/ and annotations/.{other}"
            )


def _films_of(tree: Store, side: str) -> list[Film]:
    stated, blanks = _labels(tree, side)
    boxes, placeless = _boxes(tree, side, set(stated))
    return [
        Film(
            image,
            side == "test",
            stated[image],
            tuple(boxes[image]),
            tuple(placeless[image]),
            "a label of it is blank" if image in blanks else "",
        )
        for image in sorted(stated)
    ]


def _labels(tree: Store, side: str) -> tuple[dict[str, dict[str, frozenset[str]]], set[str]]:
    """(what each reader states, by image; the images that have a blank label)."""
    path = labels_path(side)
    ids = ("image_id", *(["rad_id"] if side == "train" else []))
    columns = {**dict.fromkeys(ids, pl.String), **dict.fromkeys(HEADINGS[side], pl.Float64)}
    table = _with_reader(read_table(tree, path, columns).rename(dict(zip(HEADINGS[side], LABELS, strict=True))))
    twice = "the image_id stands twice" if side == "test" else "the reader has a row above for the image_id"
    refuse_rows(
        table,
        path,
        {
            "image_id is no plain id": ~pl.col("image_id").str.contains(_PLAIN_ID).fill_null(value=False),
            "rad_id is blank": pl.col("rad_id").is_null(),
            **{f"{label} is neither 0 nor 1": ~pl.col(label).is_in([0.0, 1.0]) for label in LABELS},
            twice: ~pl.struct("image_id", "rad_id").is_first_distinct(),
        },
    )
    stated: dict[str, dict[str, frozenset[str]]] = defaultdict(dict)
    blanks = set()
    for image, name, *cells in table.select("image_id", "rad_id", *LABELS).iter_rows():
        stated[image][name] = frozenset(label for label, cell in zip(LABELS, cells, strict=True) if cell == 1)
        if None in cells:
            blanks.add(image)
    return stated, blanks


def _boxes(tree: Store, side: str, images: set[str]) -> tuple[dict[str, list[ReaderBox]], dict[str, list[str]]]:
    """(boxes, labels of rows without one), each by image, in the order of the table."""
    path = boxes_path(side)
    names = ("image_id", "class_name", *(["rad_id"] if side == "train" else []))
    table = read_table(tree, path, {**dict.fromkeys(names, pl.String), **dict.fromkeys(EDGES, pl.Float64)})
    table = _with_reader(table).with_columns(pl.col("class_name").replace(dict(OTHER_NAMES)))
    given = pl.sum_horizontal(pl.col(edge).is_not_null() for edge in EDGES)
    refuse_rows(
        table,
        path,
        {
            f"the image_id has no row in {labels_path(side)}": ~pl.col("image_id")
            .is_in(list(images))
            .fill_null(value=False),
            "rad_id is blank": pl.col("rad_id").is_null(),
            "class_name is none of the 28 labels": ~pl.col("class_name").is_in(list(LABELS)).fill_null(value=False),
            "one edge of its box is blank and another is not": (given > 0) & (given < len(EDGES)),
        },
    )
    boxes: dict[str, list[ReaderBox]] = defaultdict(list)
    placeless: dict[str, list[str]] = defaultdict(list)
    for image, name, label, *cells in table.select("image_id", "rad_id", "class_name", *EDGES).iter_rows():
        if cells[0] is None:
            placeless[image].append(label)
        else:
            edges: Edges = (cells[0], cells[1], cells[2], cells[3])
            boxes[image].append(ReaderBox(label, edges, name))
    return boxes, placeless


def _with_reader(table: pl.DataFrame) -> pl.DataFrame:
    """The table with ``rad_id``, which on the test side is the consensus."""
    return table if "rad_id" in table.columns else table.with_columns(pl.lit(CONSENSUS).alias("rad_id"))
