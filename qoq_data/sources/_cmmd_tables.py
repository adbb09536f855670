"""The two tables of CMMD: the workbook of breasts, and TCIA's of series by patient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from qoq_data.errors import LayoutError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.sources._item_rows import age_text, refuse_rows
from qoq_data.sources._mammography import SERIES_TABLE, Series, read_series

COLLECTION: Final = "CMMD"
TABLE: Final = "CMMD_clinicaldata_revision.xlsx"
IMAGES_A_SIDE: Final = 2
LABELS: Final[Mapping[str, Mapping[str, str]]] = {
    "classification": {"Benign": "benign", "Malignant": "malignant"},
    "abnormality": {"mass": "mass", "calcification": "calcification", "both": "both"},
    "subtype": {
        "Luminal A": "luminal_a",
        "Luminal B": "luminal_b",
        "HER2-enriched": "her2_enriched",
        "triple negative": "triple_negative",
    },
}
"""By column, the table's labels and their keys."""


def read_breasts(tree: Store) -> pl.DataFrame:
    """The workbook, a row a breast, with its labels as keys and the age as text in ``age``.

    Raises ``LayoutError``, and ``TableError`` for a row that is not as published.
    """
    columns = dict.fromkeys(("ID1", "LeftRight", *LABELS), pl.String) | {"Age": pl.Float64, "number": pl.Int64}
    table = read_table(tree, TABLE, columns).with_columns(
        pl.col("ID1", "LeftRight", *LABELS).str.strip_chars(), age_text(pl.col("Age")).alias("age")
    )
    required = ("ID1", "LeftRight", "number", "classification", "abnormality")
    refused = {f"its {column} is blank": pl.col(column).is_null() for column in required}
    refused |= {
        f"its {column} is none of {', '.join(labels)}": ~pl.col(column).is_in(list(labels))
        for column, labels in {"LeftRight": ("L", "R"), **LABELS}.items()
    }
    refused["its ID1 is of another form than D1-0001"] = ~pl.col("ID1").str.contains(r"^D[12]-[0-9]{4}$")
    refused["its Age is none"] = ~pl.col("Age").is_between(1, 120)
    refused[f"its number is not {IMAGES_A_SIDE}, a CC and an MLO view"] = pl.col("number") != IMAGES_A_SIDE
    refused["its patient has another row of the same side"] = pl.struct("ID1", "LeftRight").is_duplicated()
    refuse_rows(table, TABLE, refused)
    return table.with_columns(
        pl.col(column).replace_strict(labels, return_dtype=pl.String) for column, labels in LABELS.items()
    )


def series_of_patients(tree: Store) -> dict[str, list[Series]]:
    """Series by patient, by folder; raises ``LayoutError`` and ``TableError``."""
    series = read_series(tree)
    if not tree.is_folder(COLLECTION):
        raise LayoutError(f"cmmd: {COLLECTION}/ is not in the raw folder, where {SERIES_TABLE} stands beside it.")
    found: dict[str, list[Series]] = {}
    for one in sorted(series.values(), key=lambda one: one.folder):
        found.setdefault(one.subject, []).append(one)
    return found
