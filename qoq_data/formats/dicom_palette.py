"""Palettes of DICOM images, whole or in segments (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6 and C.7.9.2).

``pydicom.pixels.apply_color_lut`` takes tables of big-endian files as little-endian, refuses 8-bit ones of odd length,
turns values beyond 255 round in them, and expands segments that refer to themselves without an end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_elements import DataSet
from qoq_data.formats.dicom_values import table_entries, table_shape


def palette_colours(data_set: DataSet, values: NDArray[Any]) -> NDArray[np.uint8]:
    """RGB uint8 [n, 3] of n stored values; those beyond an end of the palette have the colour of its end.

    Raises HEADER_INVALID for a palette that is missing, short, or of other than 8 or 16 bits.
    """
    colours = np.empty((len(values), 3), np.uint8)
    for place, colour in enumerate(("Red", "Green", "Blue")):
        keyword = f"{colour}PaletteColorLookupTable"
        count, first, bits = table_shape(data_set, f"{keyword}Descriptor")
        if bits not in (8, 16):
            raise RecordError(Reason.HEADER_INVALID, f"a palette of {bits} bits cannot be", data_set.path)
        if f"{keyword}Data" in data_set:
            entries = table_entries(data_set, f"{keyword}Data", count, bits)
        else:
            entries = _segments(data_set, f"Segmented{keyword}Data", count, bits)
        chosen = entries[np.clip(values - first, 0, count - 1)]
        colours[:, place] = (chosen >> (bits - 8)) & 0xFF
    return colours


def _segments(data_set: DataSet, keyword: str, count: int, bits: int) -> NDArray[np.int64]:
    """Discrete (0), linear (1) and indirect (2) segments, expanded to ``count`` entries (C.7.9.2)."""
    data = data_set.raw(keyword)
    order = data_set.order
    size = bits // 8
    numbers = np.frombuffer(data[: len(data) // size * size], np.uint8 if size == 1 else f"{order}u2")
    entries: list[int] = []
    at = 0
    while at + 2 < len(numbers) and len(entries) < count:
        at = _segment(numbers, at, entries, size, data_set.path)
    if len(entries) < count:
        raise RecordError(Reason.HEADER_INVALID, f"{keyword} is shorter than its {count} entries", data_set.path)
    return np.array(entries[:count], np.int64)


def _segment(numbers: NDArray[Any], at: int, entries: list[int], size: int, path: str) -> int:
    """Expand the segment at a place and say where the next one stands."""
    kind, length = int(numbers[at]), int(numbers[at + 1])
    if kind == 0 and at + 2 + length <= len(numbers):
        entries += [int(number) for number in numbers[at + 2 : at + 2 + length]]
        return at + 2 + length
    if kind == 1 and entries:
        start, stop = entries[-1], int(numbers[at + 2])
        entries += [round(start + (stop - start) * step / length) for step in range(1, length + 1)]
        return at + 3
    words = 4 // size  # of the offset of the segments that stand there for a second time
    if kind == 2 and at + 2 + words <= len(numbers):
        place = (
            int.from_bytes(
                np.ascontiguousarray(numbers[at + 2 : at + 2 + words]).astype(f"<u{size}").tobytes(), "little"
            )
            // size
        )
        for _ in range(length):
            if place + 2 >= at or int(numbers[place]) == 2:
                break
            place = _segment(numbers, place, entries, size, path)
        else:
            return at + 2 + words
    raise RecordError(Reason.HEADER_INVALID, "a segmented palette has a segment that cannot be", path)
