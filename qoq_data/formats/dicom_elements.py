"""Elements of a DICOM data set (PS3.5 7): found without copying, decoded when asked for, within budgets.

Only what is asked for is decoded, so that no text of a patient is ever read. Sequences are walked to a stated depth.
Every fault is a ``RecordError``; private and unknown elements are stepped over.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_tags import TAGS

MAX_DEPTH: Final = 24
"""Most sequences within each other: structured reports have ten; a reader that recurses ends at a few hundred."""

MAX_ELEMENTS: Final = 2_000_000
"""Most elements and items of a file: an enhanced series of 10,000 frames has a fifth of it."""

UNDEFINED: Final = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA: Final = 0x7FE00010
PIXEL_TAGS: Final = (PIXEL_DATA, 0x7FE00008, 0x7FE00009)
"""Pixel Data, Float Pixel Data, Double Float Pixel Data."""

_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_VRS: Final = _LONG_VRS | {
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
}  # fmt: skip
_WHOLE: Final = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i"}
_BINARY: Final = {**_WHOLE, b"FL": "f", b"FD": "d"}
_IS_LIMIT: Final = 1 << 31
_NUMBERS: Final = frozenset({*_BINARY, b"DS", b"IS"})


@dataclass(frozen=True, slots=True)
class Element:
    """Where a value stands: ``length`` bytes from ``start``, of this VR (empty: implicit); UNDEFINED as it is."""

    vr: bytes
    start: int
    length: int
    items: tuple[DataSet, ...] | None = None


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a data set is written (PS3.5 7.1, 7.3)."""

    explicit: bool
    big_endian: bool

    @property
    def order(self) -> str:
        return ">" if self.big_endian else "<"


IMPLICIT_LITTLE: Final = Encoding(explicit=False, big_endian=False)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set by tag, its values still in the bytes of the file. ``end`` is where reading it stopped."""

    data: bytes
    path: str
    encoding: Encoding
    depth: int
    elements: Mapping[int, Element] = field(repr=False)
    end: int
    walked: dict[str, tuple[DataSet, ...]] = field(default_factory=dict, repr=False)

    def __contains__(self, keyword: str) -> bool:
        """Whether the element is there and not empty."""
        element = self.elements.get(TAGS[keyword][0])
        return element is not None and element.length != 0

    def raw(self, keyword: str) -> bytes:
        """The value's bytes, empty where there is none; raises FILE_TRUNCATED for one that leaves the file."""
        element = self.elements.get(TAGS[keyword][0])
        if element is None or element.length in (0, UNDEFINED):
            return b""
        if element.start + element.length > len(self.data):
            raise RecordError(Reason.FILE_TRUNCATED, f"{keyword} is longer than the file", self.path)
        return self.data[element.start : element.start + element.length]

    def texts(self, keyword: str) -> tuple[str, ...]:
        """The values of a text element without their padding (PS3.5 6.2)."""
        return tuple(part.strip(" \0\t\r\n") for part in self.raw(keyword).decode("latin-1").split("\\"))

    def text(self, keyword: str) -> str:
        """The first value of a text element, empty where there is none."""
        return self.texts(keyword)[0]

    def numbers(self, keyword: str, signed: bool = False) -> tuple[float, ...]:
        """The values of a number element; ``signed`` says how words are meant where the dictionary leaves it open.

        Raises HEADER_INVALID where they are not numbers.
        """
        data = self.raw(keyword)
        if not data:
            return ()
        element = self.elements[TAGS[keyword][0]]
        expected = TAGS[keyword][1].encode()
        if expected == b"xs":
            expected = b"SS" if signed else b"US"
        vr = element.vr if element.vr in (_WHOLE if expected in _WHOLE else _NUMBERS) else expected
        try:
            if vr in _BINARY:
                order = "<" if element.vr == b"UN" else self.encoding.order
                code = _BINARY[vr]
                values = struct.unpack(f"{order}{len(data) // struct.calcsize(code)}{code}", data)
            else:
                parts = data.decode("ascii").strip(" \0").split("\\")
                values = tuple(float(part.strip(" \0")) for part in parts) if any(parts) else ()
        except (struct.error, ValueError) as error:
            raise RecordError(Reason.HEADER_INVALID, f"{keyword} holds what is no number", self.path) from error
        limit = _IS_LIMIT if vr == b"IS" else math.inf
        if not all(abs(value) < limit for value in values):
            raise RecordError(Reason.HEADER_INVALID, f"{keyword} holds a number beyond what it may be", self.path)
        return values

    def number(self, keyword: str) -> float | None:
        """The first value of a number element."""
        values = self.numbers(keyword)
        return values[0] if values else None

    def integer(self, keyword: str, default: int | None = None) -> int:
        """The first value of a number element as a whole number; raises HEADER_INVALID where there is none."""
        value = self.number(keyword)
        if value is None and default is not None:
            return default
        if value is None or value != int(value):
            what = "is missing" if value is None else "is no whole number"
            raise RecordError(Reason.HEADER_INVALID, f"{keyword} {what}", self.path)
        return int(value)

    def items(self, keyword: str) -> tuple[DataSet, ...]:
        """The items of a sequence, none where it is not there."""
        element = self.elements.get(TAGS[keyword][0])
        if element is None or element.length == 0:
            return ()
        if element.items is not None:
            return element.items
        if keyword in self.walked:
            return self.walked[keyword]
        encoding = IMPLICIT_LITTLE if element.vr == b"UN" else self.encoding  # PS3.5 6.2.2, note 2
        walk = _Walk(self.data, self.path, min(len(self.data), element.start + element.length))
        items, _ = walk.sequence(element.start, element.start + element.length, encoding, self.depth + 1)
        return self.walked.setdefault(keyword, items)

    def item(self, keyword: str) -> DataSet | None:
        """The first item of a sequence."""
        items = self.items(keyword)
        return items[0] if items else None


def read_data_set(data: bytes, path: str, start: int, encoding: Encoding) -> DataSet:
    """The elements from ``start`` up to the pixels, or to the end; the element of the pixels is the last in it.

    Raises ``RecordError``: OVER_BUDGET for too many or too deeply nested elements, HEADER_INVALID where they cannot be
    told apart. What is cut short ends there; who asks for a value that is cut off is told so.
    """
    return _Walk(data, path, len(data)).data_set(start, len(data), encoding, 0, stop_at_pixels=True)


def read_meta(data: bytes, path: str, start: int) -> DataSet:
    """The file meta information (PS3.10 7.1): the elements of group 0002 from ``start``."""
    explicit = data[start + 4 : start + 6] in _VRS
    return _Walk(data, path, len(data)).data_set(
        start, len(data), Encoding(explicit, big_endian=False), 0, only_group=2
    )


def looks_explicit(data: bytes, start: int) -> bool:
    """Whether the element at ``start`` has a VR that the standard knows."""
    return data[start + 4 : start + 6] in _VRS


class _Walk:
    """One pass over the bytes of a file; counts what it meets."""

    def __init__(self, data: bytes, path: str, end: int) -> None:
        self.data = data
        self.path = path
        self.file_end = end
        self.met = 0

    def data_set(
        self,
        start: int,
        end: int,
        encoding: Encoding,
        depth: int,
        *,
        stop_at_pixels: bool = False,
        only_group: int | None = None,
    ) -> DataSet:
        data = self.data
        order = encoding.order
        tag_of, short, long = struct.Struct(f"{order}HH"), struct.Struct(f"{order}H"), struct.Struct(f"{order}I")
        elements: dict[int, Element] = {}
        at = start
        while at + 8 <= end:
            group, number = tag_of.unpack_from(data, at)
            tag = group << 16 | number
            if tag == ITEM_END:
                at += 8
                break
            if only_group is not None and group != only_group:
                break
            self._count()
            vr = data[at + 4 : at + 6] if encoding.explicit else b""
            if encoding.explicit and vr not in _VRS and not (vr.isalpha() and vr.isupper()):
                vr = b""  # written implicitly within an explicit data set, as some writers do
            if vr in _LONG_VRS:
                if at + 12 > end:
                    break
                length, value = long.unpack_from(data, at + 8)[0], at + 12
            elif vr:
                length, value = short.unpack_from(data, at + 6)[0], at + 8
            else:
                length, value = long.unpack_from(data, at + 4)[0], at + 8
            if stop_at_pixels and tag in PIXEL_TAGS:
                elements[tag] = Element(vr, value, length)
                return DataSet(data, self.path, encoding, depth, elements, at)
            items = None
            after = value + length
            if length == UNDEFINED:
                items, after = self._undefined(value, end, vr, encoding, depth)
            elements[tag] = Element(vr, value, length, items)
            at = after
        return DataSet(data, self.path, encoding, depth, elements, at)

    def sequence(self, start: int, end: int, encoding: Encoding, depth: int) -> tuple[tuple[DataSet, ...], int]:
        """Items from ``start``, and where they end (PS3.5 7.5)."""
        if depth > MAX_DEPTH:
            raise RecordError(Reason.OVER_BUDGET, f"more than {MAX_DEPTH} sequences within each other", self.path)
        header = struct.Struct(f"{encoding.order}HHI")
        items = []
        at = start
        end = min(end, self.file_end)
        while at + 8 <= end:
            group, number, length = header.unpack_from(self.data, at)
            tag = group << 16 | number
            at += 8
            if tag == SEQUENCE_END:
                break
            if tag != ITEM:
                raise RecordError(Reason.HEADER_INVALID, "a sequence holds what is no item", self.path)
            self._count()
            item = self.data_set(at, end if length == UNDEFINED else min(end, at + length), encoding, depth)
            at = item.end if length == UNDEFINED else at + length
            items.append(item)
        return tuple(items), at

    def _undefined(
        self, start: int, end: int, vr: bytes, encoding: Encoding, depth: int
    ) -> tuple[tuple[DataSet, ...] | None, int]:
        """Items of a sequence of undefined length, or None for fragments, and where it ends."""
        if vr in (b"OB", b"OW"):
            return None, self._past_fragments(start, end, encoding)
        inner = IMPLICIT_LITTLE if vr == b"UN" else encoding  # PS3.5 6.2.2, note 2
        return self.sequence(start, end, inner, depth + 1)

    def _past_fragments(self, start: int, end: int, encoding: Encoding) -> int:
        header = struct.Struct(f"{encoding.order}HHI")
        at = start
        while at + 8 <= end:
            group, number, length = header.unpack_from(self.data, at)
            at += 8
            if group << 16 | number != ITEM:
                break
            self._count()
            at += length
        return at

    def _count(self) -> None:
        self.met += 1
        if self.met > MAX_ELEMENTS:
            raise RecordError(Reason.OVER_BUDGET, f"more than {MAX_ELEMENTS} elements", self.path)
