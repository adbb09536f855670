"""Which bytes are a frame in compressed pixel data (PS3.5 A.4)."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_codestreams import starts_stream
from qoq_data.formats.dicom_elements import ITEM, MAX_ELEMENTS, SEQUENCE_END, DataSet


def compressed_frame(data_set: DataSet, start: int, frames: int, frame: int, one_each: bool) -> bytes:
    """The bytes of a frame counted from 0; ``start`` is where the pixel data's items begin.

    By the extended or the basic offset table; else a fragment is a frame where their numbers agree or ``one_each``
    says so (RLE), and otherwise a frame begins where a fragment begins as a stream. Fragments after the last frame are
    left. Raises ``RecordError``: FILE_TRUNCATED, HEADER_MISMATCH, IMAGE_UNDECODABLE.
    """
    fragments = _fragments(data_set, start)
    table, fragments = fragments[0], fragments[1:]
    if not fragments:
        raise RecordError(Reason.IMAGE_UNDECODABLE, "the compressed pixels have no fragment", data_set.path)
    firsts = _by_offsets(data_set, table, fragments, frames)
    if firsts is None and (one_each or len(fragments) == frames):
        firsts = list(range(len(fragments)))
    if firsts is None:
        heads = [data_set.data[at : min(end, at + 12)] for at, end in fragments]
        firsts = [place for place, head in enumerate(heads) if starts_stream(head)]
        if frames == 1 and not firsts:
            firsts = [0]
    if len(firsts) < frames or firsts[0] != 0:
        detail = f"{len(firsts)} compressed frames are found, and {frames} are claimed"
        raise RecordError(Reason.HEADER_MISMATCH, detail, data_set.path)
    last = firsts[frame + 1] if frame + 1 < len(firsts) else len(fragments)
    return b"".join(data_set.data[at:end] for at, end in fragments[firsts[frame] : last])


def _fragments(data_set: DataSet, start: int) -> list[tuple[int, int]]:
    """(start, end) of the offset table's item and of each fragment."""
    header = struct.Struct(f"{data_set.encoding.order}HHI")
    data = data_set.data
    found: list[tuple[int, int]] = []
    at = start
    while at + 8 <= len(data) and len(found) < MAX_ELEMENTS:
        group, number, length = header.unpack_from(data, at)
        at += 8
        if group << 16 | number == SEQUENCE_END:
            break
        if group << 16 | number != ITEM:
            raise RecordError(Reason.IMAGE_UNDECODABLE, "the compressed pixels hold what is no fragment", data_set.path)
        if at + length > len(data):
            raise RecordError(Reason.FILE_TRUNCATED, "the file ends within its pixels", data_set.path)
        found.append((at, at + length))
        at += length
    if not found:
        raise RecordError(Reason.FILE_TRUNCATED, "the file ends before its pixels", data_set.path)
    return found


def _by_offsets(
    data_set: DataSet, table: tuple[int, int], fragments: list[tuple[int, int]], frames: int
) -> list[int] | None:
    """The fragments at which frames begin by an offset table; None where there is none, or one that cannot be."""
    order = data_set.encoding.order
    extended = data_set.raw("ExtendedOffsetTable")
    if extended:
        offsets = np.frombuffer(extended[: len(extended) // 8 * 8], f"{order}u8")
    else:
        size = (table[1] - table[0]) // 4
        offsets = np.frombuffer(data_set.data, f"{order}u4", size, table[0])
    if len(offsets) < frames:
        return None
    origin = fragments[0][0]
    places = {at - origin: place for place, (at, _) in enumerate(fragments)}
    firsts = [places.get(int(offset), -1) for offset in offsets]
    rising = all(one < other for one, other in pairwise(firsts))
    return firsts if firsts[0] == 0 and rising else None
