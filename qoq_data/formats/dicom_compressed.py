"""Compressed frames of DICOM files as stored words; decoded in a process of their own (PS3.5 A.4).

The stream is believed on its kind, size and depth, and the data set on the sign: JPEG and JPEG-LS cannot tell it, and
in JPEG 2000 those who write it wrongly leave it out. Samples are read as that many bits, with or without a sign.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_codestreams import StreamHeader, StreamKind, has_end, stream_header
from qoq_data.formats.dicom_elements import PIXEL_DATA
from qoq_data.formats.dicom_file import NATIVE, DicomFile
from qoq_data.formats.dicom_fragments import compressed_frame
from qoq_data.formats.dicom_shape import FrameShape, StoredWords
from qoq_data.formats.dicom_values import WordLayout
from qoq_data.formats.isolated import ChildError, Isolated

RLE: Final = "1.2.840.10008.1.2.5"
_JPEG: Final = "1.2.840.10008.1.2.4."

KINDS: Final[dict[str, tuple[StreamKind, ...]]] = {
    **dict.fromkeys((f"{_JPEG}{number}" for number in (50, 51, 53, 55)), ("jpeg", "jpeg_12bit")),
    **dict.fromkeys((f"{_JPEG}{number}" for number in (57, 70)), ("jpeg_lossless",)),
    **dict.fromkeys((f"{_JPEG}{number}" for number in (80, 81)), ("jpeg_ls",)),
    **dict.fromkeys((f"{_JPEG}{number}" for number in (90, 91)), ("jpeg_2000",)),
    **dict.fromkeys((f"{_JPEG}{number}" for number in (201, 202, 203)), ("htj2k",)),
    RLE: ("rle",),
}
"""Transfer syntaxes that are decoded, and what their streams are."""

DECODING: Final = Isolated("qoq_data.formats.dicom_decoders")


def compressed_words(file: DicomFile, shape: FrameShape, frame: int) -> StoredWords:
    """The words of a frame counted from 0.

    Raises ``RecordError``: FORMAT_UNSUPPORTED, HEADER_MISMATCH, OVER_BUDGET, FILE_TRUNCATED, IMAGE_UNDECODABLE, and
    READER_CRASHED where the decoding process died or hung.
    """
    path = file.data_set.path
    if file.syntax and file.syntax not in KINDS and file.syntax not in NATIVE:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, "pixels of this transfer syntax are not decoded", path)
    stream, data = _stream(file, shape, frame)
    notes: tuple[str, ...] = ()
    if stream.kind not in KINDS.get(file.syntax, ()):
        notes = (f"compressed as {stream.kind.replace('_', ' ')}, whatever the transfer syntax says",)
    layout = shape.layout
    if stream.kind != "rle":
        if stream.bits != layout.stored:
            notes = (*notes, f"samples of {stream.bits} bits where the header says {layout.stored}")
        layout = WordLayout(8 if stream.bits <= 8 else 16, stream.bits, stream.bits - 1, layout.signed)
    colour = _colour(stream, shape.photometric)
    words, settled, more = _decoded(stream, data, colour, layout, path)
    if settled == "RGB" != colour:
        more = (*more, "YBR to RGB")
    return StoredWords(words, layout, settled or colour, notes + more)


def _stream(file: DicomFile, shape: FrameShape, frame: int) -> tuple[StreamHeader, bytes]:
    """The bytes of a frame and what they say of themselves, held against the data set."""
    path = file.data_set.path
    is_rle = file.syntax == RLE
    start = file.data_set.elements[PIXEL_DATA].start
    data = compressed_frame(file.data_set, start, shape.frames, frame, one_each=is_rle)
    if is_rle:
        return StreamHeader("rle", shape.columns, shape.rows, shape.samples, shape.layout.allocated), data
    stream = stream_header(data, path)
    _check(stream, shape, path)
    if not has_end(data, stream):
        raise RecordError(Reason.FILE_TRUNCATED, "the compressed frame has no end", path)
    return stream, data


def _decoded(
    stream: StreamHeader, data: bytes, colour: str, layout: WordLayout, path: str
) -> tuple[NDArray[Any], str, tuple[str, ...]]:
    """(words, the colour that the decoder settled or nothing, what was used in words)."""
    fields = asdict(replace(stream, colour=colour if stream.samples == 3 else ""))
    size = max(1, layout.allocated // 8)
    expected = stream.rows * stream.columns * stream.samples * size
    try:
        reply, raw = DECODING.call(fields, data, expected)
    except ChildError as error:
        raise RecordError(Reason.READER_CRASHED, str(error), path) from error
    if not reply["decoder"]:
        detail = f"no decoder reads the compressed frame ({', '.join(reply['failures'])})"
        raise RecordError(Reason.IMAGE_UNDECODABLE, detail, path)
    if len(raw) != expected or reply["size"] != size:
        raise RecordError(Reason.HEADER_MISMATCH, "the compressed frame decodes to another size than claimed", path)
    shape = (stream.rows, stream.columns, 3) if stream.samples == 3 else (stream.rows, stream.columns)
    used: tuple[str, ...] = (f"decoded by {reply['decoder']}",)
    if reply["failures"]:
        used = (*used, f"after {', '.join(reply['failures'])}")
    return np.frombuffer(raw, f"<u{size}").reshape(shape), reply["colour"], used


def _check(stream: StreamHeader, shape: FrameShape, path: str) -> None:
    """The budget was held against what the data set claims: a stream that claims otherwise is not decoded."""
    if (stream.rows, stream.columns, stream.samples) != (shape.rows, shape.columns, shape.samples):
        detail = (
            f"the stream is {stream.columns} x {stream.rows} with {stream.samples} samples, the header says "
            f"{shape.columns} x {shape.rows} with {shape.samples}"
        )
        raise RecordError(Reason.HEADER_MISMATCH, detail, path)
    if not 1 <= stream.bits <= 16:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, f"samples of {stream.bits} bits are not decoded", path)


def _colour(stream: StreamHeader, photometric: str) -> str:
    """What decoded samples stand for: the stream's own word, then the data set's (C.7.6.3.1.2, PS3.5 8.2)."""
    if stream.samples == 1:
        return photometric
    if stream.colour:
        return stream.colour
    if stream.transformed or photometric in ("YBR_ICT", "YBR_RCT"):
        return "RGB"
    return "YBR_FULL" if photometric == "YBR_FULL_422" else photometric
