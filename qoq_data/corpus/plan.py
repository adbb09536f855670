"""The plan: every row to be, in keys and not in prose, cut into shards by content.

Nothing here opens a medium, so a plan of a million rows is counted and cut in seconds. A shard ends after a row whose
hash says so, which makes the cuts the same whatever the worker count, and lets a new record touch one shard only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl

from qoq_data.corpus.draws import draws
from qoq_data.record import Split

_TEXT = "\x1f"
_BLANK = "\x00"


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The rows of one shard. ``name`` is the digest of all that the plan knows of them."""

    source: str
    split: str
    name: str
    rows: pl.DataFrame

    @property
    def path(self) -> str:
        return f"data/{self.source}/{self.split}-{self.name}.parquet"


def cut_into_shards(rows: pl.DataFrame, source: str, target: int) -> list[ShardPlan]:
    """Shards of about ``target`` rows of one source, split by split; none is smaller than a quarter of it or larger
    than twice, but for the last of a split."""
    plans: list[ShardPlan] = []
    rows = rows.sort("split", "item", "task")
    for split in Split:
        side = rows.filter(pl.col("split") == str(split))
        if not side.height:
            continue
        text = _row_texts(side)
        ends = _cuts(draws(0, "cut", side["item"].to_list()), target)
        for start, end in zip((0, *ends[:-1]), ends, strict=True):
            digest = hashlib.blake2b("\n".join(text[start:end]).encode(), digest_size=8)
            plans.append(ShardPlan(source, str(split), digest.hexdigest(), side.slice(start, end - start)))
    return plans


def _cuts(hashes: np.ndarray[tuple[int, ...], np.dtype[np.uint64]], target: int) -> list[int]:
    """Ends of the shards: content-defined chunking with a least and a greatest length.

    Rows of one item have one hash and so could end a shard between them, which does no harm.
    """
    least, greatest = max(1, target // 4), target * 2
    marks = np.flatnonzero(hashes % np.uint64(max(1, target - least)) == 0) + 1
    ends: list[int] = []
    start = 0
    while start < hashes.size:
        after = int(np.searchsorted(marks, start + least))
        end = min(int(marks[after]) if after < marks.size else hashes.size, start + greatest, int(hashes.size))
        ends.append(end)
        start = end
    return ends


def _row_texts(rows: pl.DataFrame) -> list[str]:
    """Each row as one line of text, for the digest: independent of polars' own hash and memory layout.

    Blanks are written out at every level: joined as they are, one blank field would take its neighbours out of the
    text, and a change of them would not change the shard's name.
    """
    parts = []
    for name, dtype in rows.schema.items():
        column = pl.col(name)
        if isinstance(dtype, pl.List):
            element = pl.element()
            if isinstance(dtype.inner, pl.Struct):
                fields = [
                    element.struct.field(field.name).cast(pl.String).fill_null(_BLANK) for field in dtype.inner.fields
                ]
                element = pl.concat_str(fields, separator="\x1e")
            # Each element ends in a mark of its own, so that no element and one empty element differ.
            ended = element.cast(pl.String).fill_null(_BLANK) + "\x1d"
            column = column.list.eval(ended).list.join("")
        parts.append(column.cast(pl.String).fill_null(_BLANK))
    return rows.select(pl.concat_str(parts, separator=_TEXT)).to_series().to_list()
