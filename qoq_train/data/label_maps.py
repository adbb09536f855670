"""The label maps of a corpus's rows, where its recipe stored them: one a picture, with every structure marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image import decode_label_map
from qoq_train.data.shards import Kept, read_group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from qoq_data.corpus.manifest import ShardEntry
    from qoq_data.formats.storage import Store


def read_label_maps(store: Store, shard: ShardEntry, group: int, kept: Kept | None) -> pa.ChunkedArray:
    """``masks`` of a row group as stored; raises ``CorpusError``."""
    return read_group(store, shard, group, "masks", kept)["masks"]


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
