"""One frame of a DICOM file's pixels as stored words, from native data here or from compressed data (PS3.5 8)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_compressed import compressed_words
from qoq_data.formats.dicom_elements import PIXEL_DATA, UNDEFINED, DataSet
from qoq_data.formats.dicom_file import NATIVE, DicomFile
from qoq_data.formats.dicom_shape import FrameShape, StoredWords


def stored_words(file: DicomFile, shape: FrameShape, frame: int) -> StoredWords:
    """The words of a frame counted from 0.

    Raises ``RecordError``: FILE_TRUNCATED, HEADER_MISMATCH, FORMAT_UNSUPPORTED, and what decoders raise.
    """
    if frame >= shape.frames:
        detail = f"frame {frame + 1} is asked for and there are {shape.frames}"
        raise RecordError(Reason.HEADER_MISMATCH, detail, file.data_set.path)
    if file.data_set.elements[PIXEL_DATA].length == UNDEFINED:
        return compressed_words(file, shape, frame)
    notes = () if file.syntax in NATIVE or not file.syntax else ("not compressed, whatever the transfer syntax says",)
    return _native(file.data_set, shape, frame, notes)


def _native(data_set: DataSet, shape: FrameShape, frame: int, notes: tuple[str, ...]) -> StoredWords:
    element = data_set.elements[PIXEL_DATA]
    needed = -(-shape.native_bits * shape.frames // 8)
    if element.start + element.length > len(data_set.data):
        raise RecordError(Reason.FILE_TRUNCATED, "the file ends within its pixels", data_set.path)
    if element.length < needed:
        detail = f"{element.length} bytes of pixels, and {needed} are needed"
        raise RecordError(Reason.HEADER_MISMATCH, detail, data_set.path)
    extra = element.length - needed
    if extra > 1:
        notes = (*notes, f"{extra} bytes after the last frame left out")
    if shape.layout.allocated == 1:
        words = _bits(data_set.data, element.start, shape, frame)
    else:
        words = _words(data_set, shape, frame)
    if shape.samples == 1:
        return StoredWords(words.reshape(shape.rows, shape.columns), shape.layout, shape.photometric, notes)
    if shape.photometric == "YBR_FULL_422":
        return StoredWords(_spread_422(words, shape, data_set.path), shape.layout, "YBR_FULL", notes)
    if shape.planar:
        words = np.moveaxis(words.reshape(3, shape.rows, shape.columns), 0, 2)
    return StoredWords(words.reshape(shape.rows, shape.columns, 3), shape.layout, shape.photometric, notes)


def _words(data_set: DataSet, shape: FrameShape, frame: int) -> NDArray[Any]:
    element = data_set.elements[PIXEL_DATA]
    size = shape.layout.allocated // 8
    count = shape.native_bits // shape.layout.allocated
    start = element.start + frame * count * size
    big = data_set.encoding.big_endian
    if big and size == 1 and element.vr == b"OW":  # bytes stand in words, and these are turned (PS3.5 8.1.1)
        at = np.arange(frame * count, (frame + 1) * count)
        swapped: NDArray[Any] = np.frombuffer(data_set.data, np.uint8, element.length, element.start)[at ^ 1]
        return swapped
    return np.frombuffer(data_set.data, f"{'>' if big else '<'}u{size}", count, start)


def _bits(data: bytes, start: int, shape: FrameShape, frame: int) -> NDArray[np.uint8]:
    """Words of one bit, the lowest bit of a byte first; frames follow each other within a byte (PS3.5 8.1.1)."""
    first, last = frame * shape.native_bits, (frame + 1) * shape.native_bits
    packed = np.frombuffer(data, np.uint8, -(-last // 8) - first // 8, start + first // 8)
    return np.unpackbits(packed, bitorder="little")[first % 8 :][: shape.native_bits]


def _spread_422(words: NDArray[Any], shape: FrameShape, path: str) -> NDArray[Any]:
    """Pairs of pixels that share their colour, Y1 Y2 Cb Cr, one by one (C.7.6.3.1.2)."""
    if shape.columns % 2:
        raise RecordError(Reason.HEADER_INVALID, "an odd number of columns cannot share colour in pairs", path)
    pairs = words.reshape(-1, 4)
    spread = np.empty((len(pairs), 2, 3), words.dtype)
    spread[:, :, 0] = pairs[:, :2]
    spread[:, :, 1] = pairs[:, 2:3]
    spread[:, :, 2] = pairs[:, 3:4]
    return spread.reshape(shape.rows, shape.columns, 3)
