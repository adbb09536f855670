"""What several sources write alike into their item tables: media, ages, and the rows that cannot be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from qoq_data.errors import TableError
from qoq_data.source import ITEM_COLUMNS, SKIP_COLUMNS

OLDEST_STATED = 89
"""Ages above it are only said to be above it, as HIPAA's safe harbour asks (45 CFR 164.514(b)(2)(i)(C))."""


def image_medium(path: str, view: str = "", role: str = "image") -> dict[str, str]:
    """An entry of the ``media`` column for a picture; ``view`` says which view, plane or window it shows."""
    return {"role": role, "kind": "image", "path": path, "part": view}


def mask_medium(path: str, label: str) -> dict[str, str]:
    """An entry for a mask of the picture before it, whose foreground is called ``label``."""
    return {"role": "mask", "kind": "mask", "path": path, "part": label}


def item_of_path(path: str) -> str:
    """An item's id where the publisher's name for it holds the answer: 16 digits of the sha256 of its path."""
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def item_table(
    rows: Iterable[Mapping[str, Any]], answers: Mapping[str, pl.DataType], context: Iterable[str] = ()
) -> pl.LazyFrame:
    """Rows, each a mapping of the columns it has, as an item table; what a row does not have is null in it.

    ``answers`` maps a task to the type of its answer, ``context`` names the fields; both without their prefix.
    """
    schema = {
        **ITEM_COLUMNS,
        **{f"answer.{task}": dtype for task, dtype in answers.items()},
        **{f"context.{field}": pl.String for field in context},
        **dict.fromkeys(SKIP_COLUMNS, pl.String),
    }
    return pl.LazyFrame([dict(row) for row in rows], schema=schema)


def refuse_rows(table: pl.DataFrame, path: str, refused: Mapping[str, pl.Expr], first_line: int = 2) -> None:
    """Raise ``TableError`` for the first row that one of the expressions calls bad, by its line and what is wrong.

    ``first_line`` is the line of the table's first row in the file at ``path``.
    """
    for what, is_bad in refused.items():
        bad = table.select(is_bad.fill_null(value=False).arg_true()).to_series()
        if bad.len():
            raise TableError(f"{path}, row {int(bad[0]) + first_line}: {what}.")


def age_text(age: pl.Expr) -> pl.Expr:
    """An age in whole years as text for the context; null stays null."""
    whole = age.floor().cast(pl.Int64)
    unit = pl.when(whole == 1).then(pl.lit("year")).otherwise(pl.lit("years"))
    return (
        pl.when(age > OLDEST_STATED)
        .then(pl.lit(f"over {OLDEST_STATED} years"))
        .otherwise(pl.format("{} {}", whole, unit))
    )
