"""Which side of the corpus a row stands on: the group decides before the official split does.

A group is a patient within an identity group, joined with whatever shares content. If any item of a group is
officially test the whole group is test, else if any is validation it is validation, else train. Groups without an
official side are hashed. A source whose publisher gives train and test only gets its validation hashed out of train.
"""

from __future__ import annotations

import polars as pl

from qoq_data.corpus.draws import fractions
from qoq_data.errors import SplitError
from qoq_data.record import Split

SEPARATOR = "\x1f"


def group_keys(items: pl.DataFrame, source: str, identity_group: str) -> pl.Series:
    """Name of each item's group across sources: patients join within the identity group, the rest within the source."""
    keys = items.select(
        pl.when(pl.col("patient").is_not_null())
        .then(pl.concat_str(pl.lit(identity_group), pl.col("group"), separator=SEPARATOR))
        .otherwise(pl.concat_str(pl.lit(source), pl.lit("no patient"), pl.col("group"), separator=SEPARATOR))
    )
    return keys.to_series().rename("group_key")


def sides_given(items: pl.DataFrame) -> pl.DataFrame:
    """A row a source: whether its publisher gives sides at all, and validation among them."""
    official = pl.col("official_split")
    return items.group_by("source").agg(
        (official == "validation").any().alias("has_validation"), official.is_not_null().any().alias("has_official")
    )


def assign_splits(
    items: pl.DataFrame, seed: int, validation: float, test: float, given: pl.DataFrame | None = None
) -> pl.Series:
    """Side of each item, from its columns ``group_key``, ``source`` and ``official_split``; all sources at once.

    ``given`` is ``sides_given`` of the whole sources where the items are a sample: that a sample happens to hold no
    validation item does not make its publisher give none.
    """
    official = pl.col("official_split")
    by_source = sides_given(items) if given is None else given
    groups = (
        items.lazy()
        .join(by_source.lazy(), on="source")
        .group_by("group_key")
        .agg(
            (official == "test").any().alias("test"),
            (official == "validation").any().alias("validation"),
            (official == "train").any().alias("train"),
            (pl.col("has_official") & ~pl.col("has_validation")).all().alias("validation_from_train"),
        )
        .sort("group_key")
        .collect()
    )
    drawn = pl.Series("drawn", fractions(seed, "split", groups["group_key"].to_list()))
    sides = groups.with_columns(drawn).select(
        "group_key",
        pl.when(pl.col("test").fill_null(value=False))
        .then(pl.lit(str(Split.TEST)))
        .when(pl.col("validation").fill_null(value=False))
        .then(pl.lit(str(Split.VALIDATION)))
        .when(pl.col("train").fill_null(value=False))
        .then(
            pl.when(pl.col("validation_from_train") & (pl.col("drawn") < validation))
            .then(pl.lit(str(Split.VALIDATION)))
            .otherwise(pl.lit(str(Split.TRAIN)))
        )
        .when(pl.col("drawn") < test)
        .then(pl.lit(str(Split.TEST)))
        .when(pl.col("drawn") < test + validation)
        .then(pl.lit(str(Split.VALIDATION)))
        .otherwise(pl.lit(str(Split.TRAIN)))
        .alias("split"),
    )
    return items.select("group_key").join(sides, on="group_key", how="left", maintain_order="left")["split"]


def check_splits(rows: pl.DataFrame) -> None:
    """Raise ``SplitError`` when a patient or a group of rows stands on two sides."""
    for column in ("group_key", "patient"):
        crossing = (
            rows.filter(pl.col(column).is_not_null()).group_by(column).agg(pl.col("split").n_unique().alias("sides"))
        )
        count = crossing.filter(pl.col("sides") > 1).height
        if count:
            raise SplitError(f"{count} {'patients' if column == 'patient' else 'groups'} would stand in two splits.")
