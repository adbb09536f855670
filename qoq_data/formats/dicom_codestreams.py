"""What compressed frames say of themselves: kind, size, depth and colour, before a decoder sees them.

JPEG and JPEG-LS markers by ITU-T T.81 B.2 and T.87 C.2, JPEG 2000 main headers by T.800 A.5. The sizes are the budget:
a decoder takes its memory by them, not by the DICOM header. pydicom looks into a stream for depth and sign alone
(``get_j2k_parameters``), and takes its kind from the transfer syntax and its size from the data set: that the stream
agrees is what has to be seen to here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal

from qoq_data.errors import Reason, RecordError

StreamKind = Literal["jpeg", "jpeg_12bit", "jpeg_lossless", "jpeg_ls", "jpeg_2000", "htj2k", "rle"]

_SOF_KINDS: Final[dict[int, StreamKind]] = {
    0xC0: "jpeg",
    0xC1: "jpeg",
    0xC2: "jpeg",
    0xC3: "jpeg_lossless",
    0xF7: "jpeg_ls",
}
_OTHER_SOFS: Final = frozenset({0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_JP2_BOX: Final = b"\0\0\0\x0cjP  \r\n\x87\n"
_J2K_START: Final = b"\xff\x4f\xff\x51"


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """``bits`` is the precision of a sample.

    ``colour`` is RGB or YBR_FULL where the stream's own markers say which of them is coded, else empty. ``transformed``
    says that the colour transform of JPEG 2000 is used, which its decoders undo. ``adobe_transform`` is Adobe's flag of
    a JPEG, -1 where there is none, and ``frame_at`` where the marker of its frame stands.
    """

    kind: StreamKind
    columns: int
    rows: int
    samples: int
    bits: int
    colour: str = ""
    transformed: bool = False
    adobe_transform: int = -1
    frame_at: int = 0


def has_end(data: bytes, stream: StreamHeader) -> bool:
    """Whether the stream's end marker, the same in all of them, stands behind its header: no coded byte looks so."""
    return stream.kind == "rle" or data.rfind(b"\xff\xd9", stream.frame_at) >= 0


def stream_header(data: bytes, path: str) -> StreamHeader:
    """Raises IMAGE_UNDECODABLE for what is none of these streams, FORMAT_UNSUPPORTED for a process nobody decodes."""
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data, path)
        start = 0 if data[:4] == _J2K_START else data.find(_J2K_START) if data[:12] == _JP2_BOX else -1
        if start >= 0:
            return _jpeg_2000(data, start)
    except (struct.error, IndexError) as error:
        raise RecordError(Reason.IMAGE_UNDECODABLE, "the compressed frame ends within its header", path) from error
    raise RecordError(Reason.IMAGE_UNDECODABLE, "the compressed frame is no JPEG stream of any kind", path)


def _jpeg(data: bytes, path: str) -> StreamHeader:
    at = 2
    jfif, transform = False, -1
    while True:
        if data[at] != 0xFF:
            raise RecordError(Reason.IMAGE_UNDECODABLE, "the compressed frame has no marker where one should be", path)
        marker = data[at + 1]
        at += 1 if marker == 0xFF else 2  # a marker may be preceded by any number of FF
        if marker == 0xFF or marker in _ALONE:
            continue
        length = struct.unpack_from(">H", data, at)[0]
        segment = data[at + 2 : at + length]
        if marker in _OTHER_SOFS:
            raise RecordError(Reason.FORMAT_UNSUPPORTED, f"JPEG process {marker - 0xC0} is not decoded", path)
        if marker in _SOF_KINDS:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", segment)
            ids = bytes(segment[6 + 3 * place] for place in range(min(samples, 3)))
            colour = _jpeg_colour(ids, jfif, transform) if samples == 3 else ""
            kind = "jpeg_12bit" if _SOF_KINDS[marker] == "jpeg" and bits > 8 else _SOF_KINDS[marker]
            return StreamHeader(
                kind, columns, rows, samples, bits, colour=colour, adobe_transform=transform, frame_at=at - 2
            )
        if marker in (0xDA, 0xD9):
            raise RecordError(Reason.IMAGE_UNDECODABLE, "the compressed frame has no frame header", path)
        if marker == 0xE0 and segment[:5] == b"JFIF\0":
            jfif = True
        elif marker == 0xEE and segment[:5] == b"Adobe" and len(segment) >= 12:
            transform = segment[11]
        at += length


def _jpeg_colour(ids: bytes, jfif: bool, transform: int) -> str:
    """Component names are the coder's own word; then Adobe's flag for YBR (0 there often says only 'unknown')."""
    if ids in (b"RGB", b"rgb"):
        return "RGB"
    if jfif or transform == 1:
        return "YBR_FULL"
    return ""


def _jpeg_2000(data: bytes, start: int) -> StreamHeader:
    size = struct.unpack_from(">HHIIIIIIIIH", data, start + 4)
    samples = size[10]
    depth = data[start + 4 + 38]
    at = start + 4 + size[0]
    kind: StreamKind = "jpeg_2000"
    transformed = False
    while data[at] == 0xFF and data[at + 1] not in (0x90, 0x93, 0xD9):  # up to the first tile-part
        marker = data[at + 1]
        if marker == 0x50:  # CAP: high throughput
            kind = "htj2k"
        elif marker == 0x52:  # COD
            transformed = data[at + 8] != 0
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    columns, rows = size[2] - size[4], size[3] - size[5]
    return StreamHeader(kind, columns, rows, samples, (depth & 0x7F) + 1, transformed=transformed and samples == 3)
