"""A DICOM file to its data set by pydicom: preamble, meta information, transfer syntax, what is true of it (PS3.10 7).

Real files leave out the preamble or the meta information, and name a transfer syntax that they are not written in; what
the bytes say is believed, and said in ``notes``. ``pydicom.dcmread`` does most of it; its parts are called one by
one, since between them it inflates a data set without a limit, takes a stated byte order without a look at the bytes,
reads any file at all as DICOM where it may go without a preamble, and drops pixels that have no end.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_elements import UNDEFINED, DataSet, Pieces, guarded, is_cut
from qoq_data.formats.storage import READ_LIMIT, Store

if TYPE_CHECKING:
    from pydicom.tag import BaseTag

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
NATIVE: Final = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)

MAX_INFLATED: Final = 1 << 29
"""Most bytes that a deflated data set may become."""

_PIXELS: Final = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}


@dataclass(frozen=True, slots=True)
class PixelElement:
    """The element of the pixels: its value is ``length`` bytes from ``start``, or fragments where that is undefined."""

    keyword: str
    vr: str
    start: int
    length: int

    @property
    def compressed(self) -> bool:
        return self.length == UNDEFINED


@dataclass(frozen=True, eq=False)
class DicomFile:
    """``syntax`` is the transfer syntax as claimed, empty where the file has none. ``body`` are the bytes that the
    places in ``pixels`` are of; ``whole`` says that no element before the pixels is cut short."""

    data_set: DataSet
    syntax: str
    notes: tuple[str, ...]
    body: bytes
    pixels: PixelElement | None
    whole: bool


def read_dicom_file(data: bytes, path: str) -> DicomFile:
    """The data set of a file up to its pixels.

    Raises ``RecordError``: FORMAT_UNSUPPORTED for what is no DICOM file, FILE_TRUNCATED, OVER_BUDGET, HEADER_INVALID.
    """
    with guarded(path):
        return _read(BytesIO(data), len(data), path, (), data)


def read_header(tree: Store, path: str, keywords: Sequence[str]) -> DataSet:
    """These values of a file in a raw tree, reading no more of a local file than needed; raises as
    ``read_dicom_file``, and FILE_UNREADABLE."""
    size = tree.identity(path).size
    full = Path(tree.full_path(path))
    if tree.folder is None or not full.is_file():
        return read_dicom_file(tree.read(path), path).data_set
    with guarded(path), full.open("rb") as file:
        found = _read(file, size, path, keywords, b"")
    if found.pixels is None and not found.whole:
        raise RecordError(Reason.FILE_TRUNCATED, "the file ends within its header", path)
    return found.data_set


def _read(file: BinaryIO, size: int, path: str, keywords: Sequence[str], body: bytes) -> DicomFile:
    from pydicom.filereader import data_element_offset_to_value, read_dataset, read_preamble
    from pydicom.tag import Tag

    source: Any = Pieces(file, size, path)
    _check_start(source.read(132), path)
    source.seek(0)
    notes = () if read_preamble(source, force=True) else ("no preamble",)
    meta = read_dataset(source, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag >> 16 != 2)
    syntax = DataSet(meta, path).text("TransferSyntaxUID")
    if syntax == DEFLATED:
        body = _inflated(source.read(READ_LIMIT), path)
        source = Pieces(BytesIO(body), len(body), path)
    start = source.tell()
    first = source.read(8)
    if len(first) < 8:
        raise RecordError(Reason.FILE_TRUNCATED, "the file ends before its data set", path)
    source.seek(start)
    claimed = (syntax == IMPLICIT, syntax != BIG_ENDIAN)
    met: list[tuple[BaseTag, str | None, int]] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag in _PIXELS:
            met.append((tag, vr, length))
        return tag in _PIXELS

    elements = read_dataset(
        source, claimed[0], _is_little_endian(first, claimed[1]), stop_when=at_pixels,
        specific_tags=[Tag(keyword) for keyword in keywords],
    )  # fmt: skip
    is_implicit, is_little_endian = elements.original_encoding
    if not syntax:
        notes = (*notes, "no transfer syntax")
    elif (is_implicit, is_little_endian) != claimed:
        notes = (*notes, "not written in the transfer syntax that it names")
    pixels = None
    if met:
        tag, vr, length = met[-1]
        place = source.tell() + data_element_offset_to_value(bool(is_implicit), vr)
        pixels = PixelElement(_PIXELS[tag], vr or "OW", place, length)
    is_read = len(elements) > 0 and source.tell() <= source.size
    whole = is_read and not any(is_cut(element) for element in elements.elements())
    return DicomFile(DataSet(elements, path), syntax, notes, body, pixels, whole)


def _check_start(head: bytes, path: str) -> None:
    """By the preamble, or by the group of the first element: meta information, or an identification."""
    if head[128:] == b"DICM" or head[:2] in (b"\2\0", b"\x08\0") or (head[:2] == b"\0\x08" and head[4:6].isalpha()):
        return
    if len(head) < 132:
        raise RecordError(Reason.FILE_TRUNCATED, f"a file of {len(head)} bytes is no DICOM file", path)
    raise RecordError(Reason.FORMAT_UNSUPPORTED, "the file does not begin as DICOM", path)


def _is_little_endian(first: bytes, claimed: bool) -> bool:
    """By the group of the first element, which is below 0100, where it says anything."""
    low, high = first[:2]
    return high == 0 if (low, high) != (0, 0) and 0 in (low, high) else claimed


def _inflated(data: bytes, path: str) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = inflater.decompress(data, MAX_INFLATED)
    except zlib.error as error:
        raise RecordError(Reason.HEADER_INVALID, "the deflated data set is damaged", path) from error
    if inflater.unconsumed_tail:
        raise RecordError(Reason.OVER_BUDGET, f"the data set inflates to more than {MAX_INFLATED} bytes", path)
    if len(body) < 8:
        raise RecordError(Reason.FILE_TRUNCATED, "the deflated data set is empty", path)
    return body
