"""From scanned items to the items that are asked about, where a source makes many of one: regions, tiles, windows."""

from __future__ import annotations

import polars as pl

from qoq_data.corpus.items import checked_items, set_aside
from qoq_data.corpus.ledger import Skip
from qoq_data.errors import SourceError
from qoq_data.source import Source, SourceOptions

_INHERITED = ("patient", "group", "study", "official_split")
_OF_THE_FRAME = ("group_key", "split")


def expand_items(
    source: Source, items: pl.DataFrame, facts: pl.DataFrame, options: SourceOptions
) -> tuple[pl.DataFrame, list[Skip]]:
    """The items that the source's ``expand`` makes of the scanned ones, and ledger lines of those that it sets aside.

    ``items`` have their ``group_key`` and ``split`` already: each part gets those of its item, so that whatever was
    found to belong together stays together. Raises ``SourceError`` for a table that breaks the contract of an item
    table, that loses an item, or in which a part is of no scanned item or of another patient than its item.
    """
    if source.expand is None or not items.height:
        return items, []
    name = source.name
    scanned = items.drop(_OF_THE_FRAME)
    known = facts.join(scanned.select("item"), on="item", how="semi").sort("item")
    try:
        parts = source.expand(scanned, known, options)
    except pl.exceptions.PolarsError as error:
        raise SourceError(f"{name}: its expand failed inside polars ({type(error).__name__}).") from error
    parts = checked_items(source, parts)
    wholes = set(scanned["item"])
    of = [item if item in wholes else item.rpartition("/")[0] for item in parts["item"]]
    strangers = sorted(set(of) - wholes)
    if strangers:
        raise SourceError(f"{name}: its expand made an item whose id does not begin with a scanned item's and a slash.")
    lost = sorted(wholes - set(of))
    if lost:
        raise SourceError(f"{name}: its expand made nothing of {len(lost)} items, {lost[0]} first, not a ledger line.")
    parts = parts.with_columns(pl.Series("of", of, dtype=pl.String))
    inherited = items.select(pl.col("item").alias("of"), *(pl.col(one).alias(f"{one} of") for one in _INHERITED))
    compared = parts.join(inherited, on="of", how="left", maintain_order="left")
    for column in _INHERITED:
        if not compared[column].equals(compared[f"{column} of"].alias(column)):
            raise SourceError(f"{name}: its expand changed the column {column!r}: a part has that of its item.")
    sides = items.select(pl.col("item").alias("of"), *_OF_THE_FRAME)
    return set_aside(parts.join(sides, on="of", how="left", maintain_order="left").drop("of"), name)
