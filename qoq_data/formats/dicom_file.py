"""A DICOM file to its data set: preamble, meta information, transfer syntax, and what is true of it (PS3.10 7).

Real files leave out the preamble or the meta information, and name a transfer syntax that they are not written in; what
the bytes say is believed, and said in ``notes``. Deflated files are inflated within a budget.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_elements import DataSet, Encoding, looks_explicit, read_data_set, read_meta
from qoq_data.formats.storage import READ_LIMIT, Store

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
NATIVE: Final = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)

MAX_INFLATED: Final = 1 << 29
"""Most bytes that a deflated data set may become."""

_FIRST_READ: Final = 1 << 16
"""Bytes that hold the header of nearly every file; where they do not, four times as many are tried."""


@dataclass(frozen=True, eq=False)
class DicomFile:
    """``syntax`` is the transfer syntax as claimed, empty where the file has none."""

    data_set: DataSet
    syntax: str
    notes: tuple[str, ...]


def read_dicom_file(data: bytes, path: str) -> DicomFile:
    """The data set of a file up to its pixels.

    Raises ``RecordError``: FORMAT_UNSUPPORTED for what is no DICOM file, FILE_TRUNCATED, OVER_BUDGET, HEADER_INVALID.
    """
    start, notes = _start(data, path)
    meta = read_meta(data, path, start)
    syntax = meta.text("TransferSyntaxUID")
    body, at = data, meta.end
    if at + 8 > len(data):
        raise RecordError(Reason.FILE_TRUNCATED, "the file ends before its data set", path)
    if syntax == DEFLATED:
        body, at = _inflated(data[at:], path), 0
    encoding, more = _encoding(body, at, syntax)
    return DicomFile(read_data_set(body, path, at, encoding), syntax, (*notes, *more))


def read_header(tree: Store, path: str) -> DataSet:
    """The data set of a file in a raw tree up to its pixels, reading no more of a local file than needed."""
    size = tree.identity(path).size
    if tree.folder is None or not Path(tree.full_path(path)).is_file():
        return read_dicom_file(tree.read(path), path).data_set
    wanted = _FIRST_READ
    try:
        with Path(tree.full_path(path)).open("rb") as file:
            while wanted < min(size, READ_LIMIT):
                file.seek(0)
                found = _whole_header(file.read(wanted), path)
                if found is not None:
                    return found
                wanted *= 4
    except OSError as error:
        raise RecordError(Reason.FILE_UNREADABLE, "the file cannot be read", path) from error
    return read_dicom_file(tree.read(path), path).data_set


def _whole_header(data: bytes, path: str) -> DataSet | None:
    """The data set if these first bytes of a file reach its pixels."""
    try:
        data_set = read_dicom_file(data, path).data_set
    except RecordError:
        return None  # what is cut anywhere may look like any fault: the whole file is judged then
    return data_set if any(keyword in data_set for keyword in ("PixelData", "FloatPixelData")) else None


def _start(data: bytes, path: str) -> tuple[int, tuple[str, ...]]:
    if data[128:132] == b"DICM":
        return 132, ()
    if data[:4] == b"DICM":
        return 4, ("no preamble",)
    group = int.from_bytes(data[:2], "little")
    if group in (2, 8) or (data[:2] == b"\0\x08" and looks_explicit(data, 0)):
        return 0, ("no preamble",)
    if len(data) < 132:
        raise RecordError(Reason.FILE_TRUNCATED, f"a file of {len(data)} bytes is no DICOM file", path)
    raise RecordError(Reason.FORMAT_UNSUPPORTED, "the file does not begin as DICOM", path)


def _encoding(data: bytes, at: int, syntax: str) -> tuple[Encoding, tuple[str, ...]]:
    """How the data set is written: by its first element where that contradicts the transfer syntax."""
    explicit = looks_explicit(data, at)
    low, high = data[at], data[at + 1]
    big = syntax == BIG_ENDIAN
    if (low, high) != (0, 0) and 0 in (low, high):  # the group of a first element is below 0100
        big = low == 0
    claimed = Encoding(syntax != IMPLICIT, syntax == BIG_ENDIAN)
    found = Encoding(explicit, big)
    if not syntax:
        return found, ("no transfer syntax",)
    return found, () if found == claimed else ("not written in the transfer syntax that it names",)


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
