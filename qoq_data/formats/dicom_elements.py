"""Values of a DICOM data set by keyword, as pydicom decodes them, every fault a ``RecordError``.

pydicom decodes an element when it is asked for, so that no text of a patient ever is. It is lenient where it can be and
raises what its parts raise, warns, logs, and takes as much memory as a file asks for: what surrounds it here is one
guard for its faults and one budget for what it reads. The texts of its errors may hold values, and are not passed on.
"""

from __future__ import annotations

import logging
import struct
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from qoq_data.errors import Reason, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.dataset import Dataset

MAX_PIECES: Final = 1 << 22
"""Most pieces that are read of a header: two or three an element, three or four an item. An enhanced series of 10,000
frames has a million; of empty items, which are the worst, so many take a gigabyte."""

UNDEFINED: Final = 0xFFFFFFFF
_WHOLE_LIMIT: Final = 1 << 31


@contextmanager
def guarded(path: str, what: str = "the header", reason: Reason = Reason.HEADER_INVALID) -> Iterator[None]:
    """pydicom at work: without a warning or a line in the log, and with a ``RecordError`` for whatever it raises.

    OVER_BUDGET, FILE_TRUNCATED where bytes end too early, FILE_UNREADABLE, else ``reason``. The settings are pydicom's
    and Python's globals: use processes, not threads.
    """
    from pydicom.config import disable_value_validation

    log = logging.getLogger("pydicom")
    propagates, log.propagate = log.propagate, False
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # noqa: BLE001 - a damaged file was seen to raise a dozen kinds
        raise _fault(error, path, what, reason) from None
    finally:
        log.propagate = propagates


def _fault(error: Exception, path: str, what: str, reason: Reason) -> RecordError:
    """pydicom turns some errors that come out of reading into others: the first one that is ours or a budget counts."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, RecordError):
            return link
        if isinstance(link, RecursionError):
            return RecordError(Reason.OVER_BUDGET, f"{what} has too many sequences within each other", path)
        if isinstance(link, MemoryError):
            return RecordError(Reason.OVER_BUDGET, "there is not enough memory for it", path)
        link = link.__context__
    if isinstance(error, OSError) and error.errno is not None:
        return RecordError(Reason.FILE_UNREADABLE, "the file cannot be read", path)
    if isinstance(error, (struct.error, EOFError, OSError)):
        return RecordError(Reason.FILE_TRUNCATED, f"{what} ends too early", path)
    return RecordError(reason, f"{what} cannot be read ({type(error).__name__})", path)


def is_cut(element: DataElement | RawDataElement) -> bool:
    """Whether the file ends within the value, which pydicom lets pass."""
    length = getattr(element, "length", UNDEFINED)
    return length != UNDEFINED and len(element.value or b"") < length


class Pieces:
    """A file of ``size`` bytes as pydicom reads it, no more than ``MAX_PIECES`` times and never beyond its end."""

    def __init__(self, file: BinaryIO, size: int, path: str) -> None:
        self.seek, self.tell = file.seek, file.tell
        self._read, self.size, self._path = file.read, size, path
        self._left = MAX_PIECES

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise RecordError(Reason.OVER_BUDGET, "the header has too many elements", self._path)
        return self._read(min(size, self.size) if size >= 0 else self.size)


class DataSet:
    """The values of a data set, or of an item of a sequence; each method raises ``RecordError``.

    FILE_TRUNCATED for a value that is longer than what there is of it, HEADER_INVALID for one that is not what it is
    asked for.
    """

    def __init__(self, elements: Dataset, path: str) -> None:
        self.elements = elements
        self.path = path
        self._items: dict[str, tuple[DataSet, ...]] = {}

    def __contains__(self, keyword: str) -> bool:
        """Whether the element is there and not empty."""
        element = self._stored(keyword)
        return element is not None and not getattr(element, "is_empty", not element.value)

    @property
    def order(self) -> str:
        """The byte order, as ``struct`` and numpy write it."""
        return ">" if self.elements.original_encoding[1] is False else "<"

    def raw(self, keyword: str) -> bytes:
        """The value's bytes, empty where there is none."""
        element = self._stored(keyword)
        value = b"" if element is None or element.value is None else element.value
        if not isinstance(value, bytes):
            raise RecordError(Reason.HEADER_INVALID, f"{keyword} holds no bytes", self.path)
        return value

    def text(self, keyword: str) -> str:
        """The first value of a text element without its padding (PS3.5 6.2), empty where there is none."""
        values = self._values(keyword)
        if not values:
            return ""
        if not isinstance(values[0], str):
            raise RecordError(Reason.HEADER_INVALID, f"{keyword} holds what is no text", self.path)
        return str(values[0]).strip(" \0\t\r\n")

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """The values of a number element."""
        values = self._values(keyword)
        sound = all(isinstance(value, int | float) and abs(value) <= sys.float_info.max for value in values)
        if not sound:
            raise RecordError(Reason.HEADER_INVALID, f"{keyword} holds what is no number", self.path)
        return tuple(float(value) for value in values)

    def number(self, keyword: str) -> float | None:
        """The first value of a number element."""
        values = self.numbers(keyword)
        return values[0] if values else None

    def integer(self, keyword: str, default: int | None = None) -> int:
        """The first value of a number element as a whole number below 2^31 either way."""
        value = self.number(keyword)
        if value is None and default is not None:
            return default
        if value is None or not value.is_integer() or abs(value) >= _WHOLE_LIMIT:
            what = "is missing" if value is None else "is no whole number, or beyond what one may be"
            raise RecordError(Reason.HEADER_INVALID, f"{keyword} {what}", self.path)
        return int(value)

    def items(self, keyword: str) -> tuple[DataSet, ...]:
        """The items of a sequence, none where it is not there."""
        if keyword not in self._items:
            with guarded(self.path):
                self._items[keyword] = self._read_items(keyword)
        return self._items[keyword]

    def item(self, keyword: str) -> DataSet | None:
        """The first item of a sequence."""
        items = self.items(keyword)
        return items[0] if items else None

    def _read_items(self, keyword: str) -> tuple[DataSet, ...]:
        """pydicom has read those of undefined length; the others it would decode without a budget if just asked."""
        from io import BytesIO

        from pydicom.dataelem import RawDataElement
        from pydicom.filereader import read_sequence
        from pydicom.sequence import Sequence

        element = self._stored(keyword)
        if element is None or not element.value:
            return ()
        found: Any = element.value
        if isinstance(element, RawDataElement) and element.VR in (None, "SQ", "UN"):
            size = len(found)
            pieces: Any = Pieces(BytesIO(found), size, self.path)
            found = read_sequence(pieces, element.is_implicit_VR, element.is_little_endian, size, "iso8859")
        if not isinstance(found, Sequence):
            raise RecordError(Reason.HEADER_INVALID, f"{keyword} is no sequence", self.path)
        self.elements.add_new(keyword, "SQ", found)  # which tells the items of the sign of the pixels
        return tuple(DataSet(item, self.path) for item in found)

    def _stored(self, keyword: str) -> DataElement | RawDataElement | None:
        """The element with its value as it stands in the file, or as pydicom has made it already."""
        element: DataElement | RawDataElement | None = self.elements.get_item(keyword)
        if element is not None and is_cut(element):
            raise RecordError(Reason.FILE_TRUNCATED, f"{keyword} is longer than the file", self.path)
        return element

    def _values(self, keyword: str) -> tuple[Any, ...]:
        from pydicom.multival import MultiValue

        if keyword not in self:
            return ()
        with guarded(self.path):
            value = self.elements[keyword].value
        if isinstance(value, list | MultiValue):
            return tuple(value)
        return () if value is None or value == "" else (value,)
