"""Shards as training reads them: the small columns of whole shards, compact; media by row group, the last ones kept.

Every shared text (a question, a list of choices, a licence) is held once, and a row has its number.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qoq_data.corpus.manifest import ShardEntry
from qoq_data.corpus.reader import open_shard
from qoq_data.corpus.shard import has_row_schema
from qoq_data.errors import CorpusError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution

DAMAGED: Final = "'qoq-data verify' says what else is not as it was built."
"""What to do about a corpus that is not what its manifest says."""

LISTS: Final = ("choices", "answer")
"""Columns that hold a list of texts, which a small table joins into one; ``split_texts`` parts it."""

_SHARED_TEXTS: Final = (
    "source", "domain", "task", "question", "answer_type", "context", "licence", "redistribution",
)  # fmt: skip
_OWN: Final = ("id", "patient", "tolerance", "boxes")
_ROLES: Final = "provenance.list.element.role"
_JOINT: Final = "\x1f"

T = TypeVar("T")

Kept = NDArray[np.int32]
"""Which rows of a row group pass the filters."""


def read_columns(store: Store, shard: ShardEntry, columns: list[str]) -> tuple[pa.Table, list[int]]:
    """Some columns of a whole shard, and how many rows each of its row groups has.

    Raises ``CorpusError`` for a shard that is absent, damaged, or not as large and as long as the manifest says.
    """
    file = open_shard(store, shard)
    as_built = (
        has_row_schema(file.schema_arrow)
        and file.metadata.num_rows == shard.rows
        and store.identity(shard.path).size == shard.bytes
    )
    if not as_built:
        raise CorpusError(f"{shard.path} is not as it was built. {DAMAGED}")
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    try:
        return file.read(columns=columns).combine_chunks(), sizes
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{shard.path} cannot be read. {DAMAGED}") from error


def read_small_columns(store: Store, shard: ShardEntry) -> tuple[pa.Table, list[int]]:
    """The small columns of a shard, compact, and how many rows each of its row groups has.

    Beside the row's own columns ``boxes_known`` is True where a mask was read for the row, or it has boxes. Raises
    ``CorpusError`` as ``read_columns``, and for a choice or an answer without text.
    """
    table, sizes = read_columns(store, shard, [*_OWN, *_SHARED_TEXTS, *LISTS, _ROLES])
    columns: dict[str, Any] = {name: table[name] for name in _OWN}
    columns |= {name: table[name].dictionary_encode() for name in _SHARED_TEXTS}
    columns |= {name: _joined(table, name).dictionary_encode() for name in LISTS}
    return pa.table(columns | {"boxes_known": pa.array(_boxes_known(table))}), sizes


@dataclass(frozen=True, slots=True)
class ShardSurvey:
    """What stands in the rows of a shard: licences with what may be passed on, and whether any knows of boxes."""

    terms: frozenset[tuple[str, Redistribution]]
    has_known_boxes: bool


def survey_shard(store: Store, shard: ShardEntry) -> ShardSurvey:
    """The survey of a shard; raises ``CorpusError`` as ``read_columns``, and for a redistribution that is none."""
    columns = ["licence", "redistribution", "boxes.list.element.image", _ROLES]
    table, _ = read_columns(store, shard, columns)
    distinct = table.select(columns[:2]).group_by(columns[:2]).aggregate([]).to_pylist()
    try:
        terms = frozenset((str(row["licence"]), Redistribution(row["redistribution"])) for row in distinct)
    except ValueError as error:
        raise CorpusError(f"{shard.path} has a redistribution that there is not. {DAMAGED}") from error
    return ShardSurvey(terms, bool(_boxes_known(table).any()))


def split_texts(joined: str | None) -> tuple[str, ...]:
    """The texts of a list as they were before they were joined."""
    return tuple(joined.split(_JOINT)) if joined else ()


class RowGroupCache(Generic[T]):
    """What ``read`` makes of the row groups that were used last, of those rows only that pass the filters."""

    def __init__(self, store: Store, groups: int, read: Callable[[Store, ShardEntry, int, Kept | None], T]) -> None:
        self._store = store
        self._most = groups
        self._read = read
        self._held: OrderedDict[tuple[str, int], T] = OrderedDict()

    def get(self, shard: ShardEntry, group: int, kept: Kept | None) -> T:
        """What ``read`` makes of a row group; raises as it does."""
        name = shard.path, group
        if name in self._held:
            self._held.move_to_end(name)
            return self._held[name]
        while len(self._held) >= self._most:
            self._held.popitem(last=False)
        found = self._read(self._store, shard, group, kept)
        self._held[name] = found
        return found


def read_media(store: Store, shard: ShardEntry, group: int, kept: Kept | None) -> pa.Table:
    """``images`` of a row group as stored, and its ``signals`` where a row has no image; raises ``CorpusError``."""
    media = read_group(store, shard, group, "images", kept)
    if pc.any(pc.equal(pc.fill_null(pc.list_value_length(media["images"]), 0), 0)).as_py():
        media = media.append_column("signals", read_group(store, shard, group, "signals", kept)["signals"])
    return media


def read_group(store: Store, shard: ShardEntry, group: int, column: str, kept: Kept | None) -> pa.Table:
    """A column of a row group as stored, of the rows ``kept``; raises ``CorpusError``."""
    try:
        media = open_shard(store, shard).read_row_group(group, columns=[column])
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"Row group {group} of {shard.path} cannot be read. {DAMAGED}") from error
    return (media if kept is None else media.take(kept)).combine_chunks()


def _boxes_known(table: pa.Table) -> NDArray[np.bool_]:
    known = np.asarray(pc.fill_null(pc.list_value_length(table["boxes"]), 0).to_numpy() > 0, np.bool_)
    roles = pc.struct_field(pc.list_flatten(table["provenance"]), "role")
    rows = pc.list_parent_indices(table["provenance"]).to_numpy()
    known[rows[pc.fill_null(pc.equal(roles, "mask"), fill_value=False).to_numpy()]] = True
    return known


def _joined(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of lists of texts as one text a row."""
    texts = pc.list_flatten(table[name])
    unfit = pc.fill_null(pc.or_(pc.equal(texts, ""), pc.match_substring(texts, _JOINT)), fill_value=True).to_numpy()
    if unfit.any():
        row = pc.list_parent_indices(table[name])[int(np.argmax(unfit))].as_py()
        what = "a text that is empty, or holds a control character, stands"
        raise CorpusError(f"{table['id'][row]}: {what} in its {name}. {DAMAGED}")
    return pc.binary_join(table[name], _JOINT)
