"""Compressed frames of DICOM files as stored words; decoded in a process of their own (PS3.5 A.4).

The stream is believed on its kind, size and depth, and the data set on the sign: JPEG and JPEG-LS cannot tell it, and
in JPEG 2000 those who write it wrongly leave it out. Samples are read as that many bits, with or without a sign.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from struct import unpack, unpack_from
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_codestreams import StreamHeader, StreamKind, has_end, stream_header
from qoq_data.formats.dicom_elements import DataSet, guarded
from qoq_data.formats.dicom_file import NATIVE, DicomFile, PixelElement
from qoq_data.formats.dicom_shape import FrameShape, StoredWords
from qoq_data.formats.dicom_values import WordLayout
from qoq_data.formats.isolated import ChildError, Isolated

DECODING: Final = Isolated("qoq_data.formats.dicom_decoders")

_NO_TABLE: Final = b"\xfe\xff\0\xe0\0\0\0\0"
"""The item of an empty offset table."""


@cache
def stream_kinds() -> dict[str, tuple[StreamKind, ...]]:
    """Transfer syntaxes that are decoded, and what their streams are."""
    from pydicom import uid

    return {
        **dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit), ("jpeg", "jpeg_12bit")),
        **dict.fromkeys((uid.JPEGLossless, uid.JPEGLosslessSV1), ("jpeg_lossless",)),
        **dict.fromkeys(uid.JPEGLSTransferSyntaxes, ("jpeg_ls",)),
        **dict.fromkeys((uid.JPEG2000Lossless, uid.JPEG2000), ("jpeg_2000",)),
        **dict.fromkeys((uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K), ("htj2k",)),
        uid.RLELossless: ("rle",),
    }


def compressed_words(file: DicomFile, pixels: PixelElement, shape: FrameShape, frame: int) -> StoredWords:
    """The words of a frame counted from 0.

    Raises ``RecordError``: FORMAT_UNSUPPORTED, HEADER_MISMATCH, OVER_BUDGET, FILE_TRUNCATED, IMAGE_UNDECODABLE, and
    READER_CRASHED where the decoding process died or hung.
    """
    path = file.data_set.path
    if file.syntax and file.syntax not in stream_kinds() and file.syntax not in NATIVE:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, "pixels of this transfer syntax are not decoded", path)
    kinds = stream_kinds().get(file.syntax, ())
    data = compressed_frame(file.data_set, file.body, pixels.start, shape.frames, frame)
    if kinds == ("rle",):
        stream = StreamHeader("rle", shape.columns, shape.rows, shape.samples, shape.layout.allocated)
    else:
        stream = stream_header(data, path)
        _check(stream, shape, path)
        if not has_end(data, stream):
            raise RecordError(Reason.FILE_TRUNCATED, "the compressed frame has no end", path)
    notes: tuple[str, ...] = ()
    if stream.kind not in kinds:
        notes = (f"compressed as {stream.kind.replace('_', ' ')}, whatever the transfer syntax says",)
    layout = shape.layout
    if stream.kind != "rle":
        if stream.bits != layout.stored:
            notes = (*notes, f"samples of {stream.bits} bits where the header says {layout.stored}")
        layout = WordLayout(8 if stream.bits <= 8 else 16, stream.bits, stream.bits - 1, layout.signed)
    colour = _colour(stream, shape.photometric)
    words, decoder, used = _decoded(stream, data, layout, path)
    if decoder == "pillow" and stream.adobe_transform > 0 and colour != "RGB":  # which Pillow undoes, pydicom or not
        return StoredWords(words, layout, "RGB", (*notes, *used, "YBR to RGB"))
    return StoredWords(words, layout, colour, notes + used)


def compressed_frame(data_set: DataSet, body: bytes, start: int, frames: int, frame: int) -> bytes:
    """The bytes of a frame counted from 0; ``start`` is where the pixel data's items begin.

    pydicom finds it by an offset table, by the number of fragments or by the ends of streams; a table that points to
    where no fragment begins, or to fewer than there are frames, is kept from it. Raises ``RecordError``:
    FILE_TRUNCATED, HEADER_MISMATCH, IMAGE_UNDECODABLE.
    """
    from pydicom.encaps import get_frame, parse_basic_offsets, parse_fragments

    path = data_set.path
    extended: Any = (data_set.raw("ExtendedOffsetTable"), data_set.raw("ExtendedOffsetTableLengths"))
    with guarded(path, "the row of compressed frames", Reason.IMAGE_UNDECODABLE):
        stream: Any = BytesIO(body)
        stream.seek(start)
        offsets = parse_basic_offsets(stream)
        first = stream.tell()
        count, places = parse_fragments(stream)
        if all(extended):
            offsets = list(unpack(f"<{len(extended[0]) // 8}Q", extended[0]))
        if not count or places[-1] + 8 + unpack_from("<I", body, places[-1] + 4)[0] > len(body):
            raise RecordError(Reason.FILE_TRUNCATED, "the file ends within its pixels", path)
        if count < frames:
            detail = f"{count} compressed fragments are found, and {frames} frames are claimed"
            raise RecordError(Reason.HEADER_MISMATCH, detail, path)
        begins = {first + offset for offset in offsets}
        if begins <= set(places) and len(begins) >= frames and offsets == sorted(offsets):
            stream.seek(start)
            table = extended if all(extended) else None
            return get_frame(stream, frame, number_of_frames=frames, extended_offsets=table)
        return get_frame(_NO_TABLE + body[first:], frame, number_of_frames=frames)


def _decoded(
    stream: StreamHeader, data: bytes, layout: WordLayout, path: str
) -> tuple[NDArray[Any], str, tuple[str, ...]]:
    """(words without a sign, the plugin that decoded them, what was used in words)."""
    size = max(1, layout.allocated // 8)
    options = {
        "rows": stream.rows,
        "columns": stream.columns,
        "samples_per_pixel": stream.samples,
        "photometric_interpretation": "RGB" if stream.samples == 3 else "MONOCHROME2",
        "planar_configuration": 0,
        "bits_allocated": layout.allocated,
        "bits_stored": stream.bits,
    }
    expected = stream.rows * stream.columns * stream.samples * size
    try:
        reply, raw = DECODING.call({"kind": stream.kind, "options": options}, data, expected)
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
    return np.frombuffer(raw, f"<u{size}").reshape(shape), reply["decoder"], used


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
