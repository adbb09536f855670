"""What the stored words of a DICOM image mean: bits, sign, padding, rescale, tables and windows (PS3.3 C.7.6.3, C.11).

Read, not judged: which of it is applied, and in which order, is ``clinical.dicom_picture``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_elements import DataSet

_MONOCHROME: Final = ("MONOCHROME1", "MONOCHROME2")
_SMALLEST: Final = 1e-15
"""Numbers beyond this and its inverse leave no picture in double precision."""


@dataclass(frozen=True, slots=True)
class WordLayout:
    """Where in a stored word of ``allocated`` bits its value stands, and whether it has a sign (PS3.5 8.1.1)."""

    allocated: int
    stored: int
    high: int
    signed: bool


@dataclass(frozen=True, slots=True, eq=False)
class LookUpTable:
    """Integer ``entries`` for input values from ``first`` on, of ``bits`` bits each (C.11.1.1.1)."""

    first: int
    entries: NDArray[np.int64]
    bits: int


@dataclass(frozen=True, slots=True)
class FileWindow:
    """A window as the file has it; ``function`` is its VOI LUT function, LINEAR where it names none."""

    centre: float
    width: float
    function: str


@dataclass(frozen=True, slots=True, eq=False)
class GreyDescription:
    """How stored values become modality values and what is to be seen of them.

    ``modality_table`` stands in place of slope and intercept; ``rescaled`` says that the file has one of them, and
    ``unit`` what they lead to (HU, OD, US or empty). ``padding`` is the range of stored values that stands for no
    tissue. ``inverse`` says that the lowest value is white.
    """

    slope: float
    intercept: float
    modality_table: LookUpTable | None
    rescaled: bool
    unit: str
    windows: tuple[FileWindow, ...]
    voi_table: LookUpTable | None
    padding: tuple[int, int] | None
    inverse: bool


def word_values(words: NDArray[Any], layout: WordLayout) -> NDArray[np.int64]:
    """Values of stored words: bits outside of those stored are not looked at, the sign is the high bit's."""
    shift = layout.high + 1 - layout.stored
    values = (np.asarray(words).astype(np.int64) >> shift) & ((1 << layout.stored) - 1)
    if layout.signed:
        values -= (values >> (layout.stored - 1)) << layout.stored
    return values


def word_layout(data_set: DataSet) -> WordLayout:
    """Raises FORMAT_UNSUPPORTED for words of other than 1, 8, 16 or 32 bits, HEADER_INVALID for impossible ones."""
    allocated = data_set.integer("BitsAllocated")
    if allocated not in (1, 8, 16, 32):
        raise RecordError(Reason.FORMAT_UNSUPPORTED, f"words of {allocated} bits are not read", data_set.path)
    stored = data_set.integer("BitsStored", allocated)
    high = data_set.integer("HighBit", stored - 1)
    sign = data_set.integer("PixelRepresentation", 0)
    if not (1 <= stored <= allocated and stored - 1 <= high < allocated and sign in (0, 1)):
        detail = f"{stored} bits up to bit {high} of {allocated}, representation {sign}, cannot be"
        raise RecordError(Reason.HEADER_INVALID, detail, data_set.path)
    return WordLayout(allocated, stored, high, sign == 1)


def grey_description(data_set: DataSet, frame: int, layout: WordLayout) -> GreyDescription:
    """Of one frame: its own functional group comes before the shared one, and this before the data set (C.7.6.16)."""
    photometric = data_set.text("PhotometricInterpretation")
    if photometric not in _MONOCHROME:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, "the picture is not grey", data_set.path)
    transformed = functional_group(data_set, frame, "PixelValueTransformationSequence") or data_set
    voi = functional_group(data_set, frame, "FrameVOILUTSequence") or data_set
    table = _look_up_table(transformed, "ModalityLUTSequence")
    slope, intercept = transformed.number("RescaleSlope"), transformed.number("RescaleIntercept")
    if slope == 0:
        raise RecordError(Reason.HEADER_INVALID, "a rescale slope of 0 leaves no picture", data_set.path)
    inverse = photometric == "MONOCHROME1" or data_set.text("PresentationLUTShape") == "INVERSE"
    holder = table_holder(transformed, "ModalityLUTSequence")
    windows = _windows(voi)
    used = [slope or 1.0, intercept or 1.0]
    for number in used + [value for window in windows for value in (window.centre, window.width)]:
        if number and not _SMALLEST <= abs(number) <= 1 / _SMALLEST:
            raise RecordError(Reason.HEADER_INVALID, "a rescale or window is beyond all measure", data_set.path)
    return GreyDescription(
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        modality_table=table,
        rescaled=table is not None or slope is not None or intercept is not None,
        unit=holder.text("ModalityLUTType") if holder is not None else transformed.text("RescaleType"),
        windows=windows,
        voi_table=_look_up_table(voi, "VOILUTSequence"),
        padding=_padding(data_set, layout),
        inverse=inverse,
    )


def functional_groups(data_set: DataSet, frame: int, keyword: str) -> tuple[DataSet, ...]:
    """The items of a functional group's sequence for a frame counted from 0: its own, or else those that all share."""
    per_frame = data_set.items("PerFrameFunctionalGroupsSequence")
    own = per_frame[frame].items(keyword) if frame < len(per_frame) else ()
    if own:
        return own
    shared = data_set.item("SharedFunctionalGroupsSequence")
    return shared.items(keyword) if shared is not None else ()


def functional_group(data_set: DataSet, frame: int, keyword: str) -> DataSet | None:
    """The first of ``functional_groups``."""
    groups = functional_groups(data_set, frame, keyword)
    return groups[0] if groups else None


def table_holder(data_set: DataSet, keyword: str) -> DataSet | None:
    """The first item of a sequence of look-up tables that has its table."""
    item = data_set.item(keyword)
    return item if item is not None and "LUTDescriptor" in item and "LUTData" in item else None


def table_entries(data_set: DataSet, keyword: str, count: int, bits: int) -> NDArray[np.int64]:
    """Entries of a table: in words, or two in a word where they have 8 bits and the length says so (C.7.6.3.1.6)."""
    data = data_set.raw(keyword)
    if len(data) >= 2 * count:
        return np.frombuffer(data, f"{data_set.order}u2", count).astype(np.int64)
    if bits <= 8 and len(data) >= count:
        return np.frombuffer(data, np.uint8, count).astype(np.int64)
    raise RecordError(Reason.HEADER_INVALID, f"{keyword} is shorter than its {count} entries", data_set.path)


def table_shape(data_set: DataSet, keyword: str) -> tuple[int, int, int]:
    """(entries, first input value, bits) of a table's descriptor, in which 0 entries are 65,536."""
    numbers = data_set.numbers(keyword)
    if len(numbers) != 3:
        raise RecordError(Reason.HEADER_INVALID, f"{keyword} has {len(numbers)} values and not 3", data_set.path)
    count, first, bits = (int(number) for number in numbers)
    return (count & 0xFFFF) or 1 << 16, first, bits & 0xFFFF


def _look_up_table(data_set: DataSet, keyword: str) -> LookUpTable | None:
    item = table_holder(data_set, keyword)
    if item is None:
        return None
    count, first, bits = table_shape(item, "LUTDescriptor")
    if not 1 <= bits <= 16:
        raise RecordError(Reason.HEADER_INVALID, f"a look-up table of {bits} bits cannot be", data_set.path)
    entries = table_entries(item, "LUTData", count, bits)
    return LookUpTable(first, entries, max(bits, int(entries.max()).bit_length()))


def _windows(data_set: DataSet) -> tuple[FileWindow, ...]:
    function = data_set.text("VOILUTFunction") or "LINEAR"
    centres, widths = data_set.numbers("WindowCenter"), data_set.numbers("WindowWidth")
    return tuple(FileWindow(centre, width, function) for centre, width in zip(centres, widths, strict=False))


def _padding(data_set: DataSet, layout: WordLayout) -> tuple[int, int] | None:
    """The range of stored values that is padding (C.7.5.1.1.2), read by the same bits and sign as the pixels."""
    found = data_set.numbers("PixelPaddingValue")
    if not found:
        return None
    limit = data_set.numbers("PixelPaddingRangeLimit") or found
    ends = sorted(int(value) for value in word_values(np.array([int(found[0]), int(limit[0])]), layout))
    return ends[0], ends[1]
