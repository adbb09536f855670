"""The label maps of a corpus's rows, where its recipe stored them: one a picture, with every structure marked."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from qoq_data.corpus.reader import open_shard
from qoq_data.errors import CorpusError, Reason, RecordError
from qoq_data.formats.image import decode_label_map
from qoq_train.data.shards import DAMAGED, Kept

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from qoq_data.corpus.manifest import ShardEntry
    from qoq_data.formats.storage import Store


class LabelMapCache:
    """The ``masks`` of the row groups that were used last, as stored, of those rows only that pass the filters."""

    def __init__(self, store: Store, groups: int) -> None:
        self._store = store
        self._most = groups
        self._held: OrderedDict[tuple[str, int], pa.ChunkedArray] = OrderedDict()

    def get(self, shard: ShardEntry, group: int, kept: Kept | None) -> pa.ChunkedArray:
        """``masks`` of a row group; raises ``CorpusError``."""
        name = shard.path, group
        if name in self._held:
            self._held.move_to_end(name)
            return self._held[name]
        while len(self._held) >= self._most:
            self._held.popitem(last=False)
        try:
            table = open_shard(self._store, shard).read_row_group(group, columns=["masks"])
        except (OSError, pa.ArrowException) as error:
            raise CorpusError(f"Row group {group} of {shard.path} cannot be read. {DAMAGED}") from error
        found = (table if kept is None else table.take(kept))["masks"]
        self._held[name] = found
        return found


def marked_pixels(
    stored: Sequence[Mapping[str, Any] | None] | None, picture_sizes: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.bool_], ...]:
    """What the label maps of a row mark, [height, width] for each picture; nothing where the row has none.

    Which structure a pixel is of is not told: a row does not say what the values of its maps mean. Sizes are (width,
    height). Raises ``RecordError``: MASK_CONFLICT where there are fewer or more maps than pictures, since a map does
    not say which picture it is of; MASK_SHAPE_MISMATCH for another size; what ``decode_label_map`` raises.
    """
    if not stored:
        return ()
    if len(stored) != len(picture_sizes):
        detail = f"{len(stored)} label map(s) do not say which of {len(picture_sizes)} pictures they are of"
        raise RecordError(Reason.MASK_CONFLICT, detail)
    found = []
    for number, (entry, (width, height)) in enumerate(zip(stored, picture_sizes, strict=True), start=1):
        data = entry["bytes"] if entry else None
        if not data:
            raise RecordError(Reason.MASK_MISSING, f"label map {number} of {len(stored)} has no bytes")
        try:
            values = decode_label_map(data, "")
        except RecordError as error:
            raise RecordError(error.reason, f"label map {number} of {len(stored)}: {error.detail}") from error
        if values.shape != (height, width):
            detail = f"label map {number} is {values.shape[1]} x {values.shape[0]}, its picture {width} x {height}"
            raise RecordError(Reason.MASK_SHAPE_MISMATCH, detail)
        found.append(values > 0)
    return tuple(found)
