"""The tables of VinDr-Mammo 1.0.0, read into images with what is said of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from qoq_data.clinical.reader_boxes import Edges, has_area
from qoq_data.errors import LayoutError, Reason, TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.sources._item_rows import refuse_rows

IMAGES, BREASTS, FINDINGS, METADATA = (
    "images",
    "breast-level_annotations.csv",
    "finding_annotations.csv",
    "metadata.csv",
)
NO_FINDING = "No Finding"
CATEGORIES = (
    "Mass", "Suspicious Calcification", "Asymmetry", "Focal Asymmetry", "Global Asymmetry", "Architectural Distortion",
    "Skin Thickening", "Skin Retraction", "Nipple Retraction", "Suspicious Lymph Node", NO_FINDING,
)  # fmt: skip
BIRADS = tuple(f"BI-RADS {grade}" for grade in range(1, 6))
DENSITIES = tuple(f"DENSITY {letter}" for letter in "ABCD")
SIDES = {"L": "left", "R": "right"}
VIEWS = ("CC", "MLO")
SPLITS = {"training": "train", "test": "test"}
EDGES = ("xmin", "ymin", "xmax", "ymax")
BREAST_COLUMNS = (
    "study_id", "image_id", "laterality", "view_position", "height", "width", "breast_birads", "breast_density",
    "split",
)  # fmt: skip
FINDING_COLUMNS = ("study_id", "image_id", "finding_categories", *EDGES)
_UID, _INTENT = "SOP Instance UID", "Presentation Intent Type"
_PLAIN_ID = r"^[0-9A-Za-z]+$"
_LIST = re.compile(r"\['[^'\[\]]+'(?:, '[^'\[\]]+')*\]")


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table of findings: its categories, and its box where it has one."""

    categories: tuple[str, ...]
    edges: Edges | None


@dataclass(frozen=True, slots=True)
class Mammogram:
    """One image. ``findings`` is empty where the table of findings has no row of it.

    ``view`` is empty where the table has the same view of that breast twice. ``breast_disagrees``: the images of the
    breast have different grades or densities, which are the breast's. ``is_raw``: meant for processing and not to be
    looked at, where the table of tags says so.
    """

    line: int
    study: str
    image: str
    laterality: str
    view: str
    size: tuple[int, int]
    birads: str
    density: str
    split: str
    breast_disagrees: bool
    is_raw: bool
    findings: tuple[Finding, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """Every category of its findings, once, in the publisher's order."""
        named = {category for finding in self.findings for category in finding.categories}
        return tuple(category for category in CATEGORIES if category in named)

    @property
    def boxes(self) -> list[tuple[str, Edges]]:
        """A box a category of a finding: a finding of two categories has its box under both names."""
        return [
            (category, finding.edges)
            for finding in self.findings
            if finding.edges is not None
            for category in finding.categories
        ]

    @property
    def refused(self) -> tuple[Reason, str] | None:
        """Why there can be no row of it."""
        boxed = [finding.edges for finding in self.findings if finding.edges is not None]
        empty = any((NO_FINDING in one.categories) == (one.edges is not None) for one in self.findings)
        told = (
            (self.is_raw, Reason.FORMAT_UNSUPPORTED, "it is meant for processing, and not to be looked at"),
            (self.breast_disagrees, Reason.LABEL_CONFLICT, "images of its breast have other grades or densities"),
            (
                NO_FINDING in self.categories and len(self.categories) > 1,
                Reason.LABEL_CONFLICT,
                "No Finding stands beside a finding",
            ),
            (empty, Reason.MASK_CONFLICT, "a finding has no box, or No Finding has one"),
            (not all(map(has_area, boxed)), Reason.MASK_CONFLICT, "a box of its findings has no area"),
            (any(map(self._is_outside, boxed)), Reason.MASK_CONFLICT, "a box of its findings is outside of it"),
        )
        return next(((reason, detail) for holds, reason, detail in told if holds), None)

    def _is_outside(self, edges: Edges) -> bool:
        return edges[0] >= self.size[0] or edges[1] >= self.size[1] or edges[2] <= 0 or edges[3] <= 0

    def overhangs(self, edges: Edges) -> bool:
        """Whether a box reaches a pixel or more out of the image: it is cut there when the row is made."""
        width, height = self.size
        return min(edges[0], edges[1]) <= -1 or edges[2] >= width + 1 or edges[3] >= height + 1


def read_mammograms(tree: Store) -> list[Mammogram]:
    """Every image, in the order of the table; raises ``SourceError``."""
    if not tree.is_folder(IMAGES):
        raise LayoutError(f"vindr-mammo: {IMAGES}/ is not in the raw folder, which has to hold it beside {BREASTS}.")
    breasts = _breasts(tree)
    of_study = dict(breasts.select("image_id", "study_id").iter_rows())
    findings, raw = _findings(tree, of_study), _meant_for_processing(tree)
    return [_mammogram(line, row, findings, raw) for line, row in enumerate(breasts.iter_rows(named=True), 2)]


def _mammogram(line: int, row: Mapping[str, Any], findings: Mapping[str, list[Finding]], raw: set[str]) -> Mammogram:
    return Mammogram(
        line=line,
        study=row["study_id"],
        image=row["image_id"],
        laterality=SIDES[row["laterality"]],
        view="" if row["view_twice"] else row["view_position"],
        size=(row["width"], row["height"]),
        birads=row["breast_birads"],
        density=row["breast_density"],
        split=SPLITS[row["split"]],
        breast_disagrees=row["breast_disagrees"],
        is_raw=row["image_id"] in raw,
        findings=tuple(findings.get(row["image_id"], ())),
    )


def _breasts(tree: Store) -> pl.DataFrame:
    sizes = ("height", "width")
    table = read_table(
        tree, BREASTS, {name: pl.Int64 if name in sizes else pl.String for name in BREAST_COLUMNS}
    ).with_columns(pl.col(name).str.strip_chars() for name in BREAST_COLUMNS if name not in sizes)
    known = {
        "laterality": SIDES,
        "view_position": VIEWS,
        "breast_birads": BIRADS,
        "breast_density": DENSITIES,
        "split": SPLITS,
    }
    refuse_rows(
        table,
        BREASTS,
        {
            **{f"{name} is no plain id": _is_none(name) for name in ("study_id", "image_id")},
            "the image_id stands twice": ~pl.col("image_id").is_first_distinct(),
            **{f"{name} is none of {', '.join(values)}": _is_not(name, values) for name, values in known.items()},
            **{f"{name} is blank or not over 0": ~(pl.col(name) > 0).fill_null(value=False) for name in sizes},
            "its study has another split above": pl.col("split") != pl.col("split").first().over("study_id"),
        },
    )
    breast = ("study_id", "laterality")
    differs = [pl.col(name).n_unique().over(breast) > 1 for name in ("breast_birads", "breast_density")]
    return table.with_columns(
        pl.any_horizontal(differs).alias("breast_disagrees"),
        (pl.len().over(*breast, "view_position") > 1).alias("view_twice"),
    )


def _findings(tree: Store, of_study: Mapping[str, str]) -> dict[str, list[Finding]]:
    columns = {name: pl.Float64 if name in EDGES else pl.String for name in FINDING_COLUMNS}
    table = read_table(tree, FINDINGS, columns)
    given = pl.sum_horizontal(pl.col(edge).is_not_null() for edge in EDGES)
    study = pl.col("image_id").replace_strict(dict(of_study), default=None, return_dtype=pl.String)
    refuse_rows(
        table,
        FINDINGS,
        {
            f"{BREASTS} has no such image_id, or another study for it": (study != pl.col("study_id")).fill_null(
                value=True
            ),
            "one edge of its box is blank and another is not": (given > 0) & (given < len(EDGES)),
        },
    )
    found: dict[str, list[Finding]] = defaultdict(list)
    for line, (image, text, *edges) in enumerate(table.select("image_id", "finding_categories", *EDGES).iter_rows(), 2):
        box: Edges | None = None if edges[0] is None else (edges[0], edges[1], edges[2], edges[3])
        found[image].append(Finding(categories_of(text or "", line), box))
    return found


def categories_of(text: str, line: int) -> tuple[str, ...]:
    """The names in a list as Python writes it, which is matched and never run; raises ``TableError``."""
    names = re.findall(r"'([^']+)'", text) if _LIST.fullmatch(text.strip()) else []
    if not names or not set(names) <= set(CATEGORIES):
        raise TableError(f"{FINDINGS}, row {line}: finding_categories is no list of the known categories.")
    return tuple(dict.fromkeys(names))


def _meant_for_processing(tree: Store) -> set[str]:
    """Images that the table of tags calls FOR PROCESSING; none where there is no such table or column."""
    if not tree.exists(METADATA):
        return set()
    table = read_table(tree, METADATA, {_UID: pl.String, _INTENT: pl.String}, optional=(_UID, _INTENT))
    raw = table.filter(pl.col(_INTENT).str.strip_chars().str.to_uppercase() == "FOR PROCESSING")
    return set(raw[_UID].drop_nulls())


def _is_none(name: str) -> pl.Expr:
    return ~pl.col(name).str.contains(_PLAIN_ID).fill_null(value=False)


def _is_not(name: str, values: Iterable[str]) -> pl.Expr:
    return ~pl.col(name).is_in(list(values)).fill_null(value=False)
