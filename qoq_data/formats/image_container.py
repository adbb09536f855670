"""The blocks of PNG and JPEG files: what is wrong with them that a decoder does not see, and what else they carry."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_OWN_PNG_CHUNKS: Final = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"bKGD", b"hIST")
)
_MAX_PNG_CHUNKS: Final = 1 << 17
_JPEG_NEXT_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)


def has_foreign_metadata(data: bytes, format: str) -> bool:  # noqa: A002
    """Whether a PNG or JPEG file holds anything but its pixels and what decoding them needs.

    Foreign are EXIF, XMP, comments, text, dates, colour profiles, thumbnails, unknown blocks, and bytes after the end.
    Other formats, and files whose blocks cannot be followed, count as foreign.
    """
    try:
        if format == "PNG":
            chunks = list(_png_chunks(data))
            return any(kind not in _OWN_PNG_CHUNKS for kind, _, _ in chunks) or chunks[-1][2] + 4 != len(data)
        return format != "JPEG" or not _jpeg_is_bare(data)
    except (IndexError, ValueError, struct.error):
        return True


def checked_png_depth(data: bytes) -> int:
    """Bits a sample, of a PNG file whose blocks can be followed from its header to its end; raises ``ValueError``.

    Pillow takes a file that stops anywhere behind its last row. The pixels' own check sum (Adler-32) it does check.
    """
    depth = 0
    for kind, start, end in _png_chunks(data):
        if start == len(PNG_SIGNATURE) + 8:
            if kind != b"IHDR" or end - start != 13:
                raise ValueError("the first block is not the header")
            depth = data[start + 8]
    return depth


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of the content of each block up to IEND; ``ValueError`` where the blocks do not add up."""
    position = len(PNG_SIGNATURE)
    for _ in range(_MAX_PNG_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            raise ValueError("a block reaches over the end of the file")
        yield kind, start, end
        if kind == b"IEND":
            return
        position = end + 4
    raise ValueError("more blocks than any writer makes")


def _jpeg_is_bare(data: bytes) -> bool:
    """Whether only JFIF, Adobe's colour block and coding tables stand between the start and the end of a JPEG file."""
    position = 2
    while True:
        if data[position] != 0xFF:
            return False
        marker = data[position + 1]
        if marker == 0xD9:  # end of image
            return position + 2 == len(data)
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        content = data[position + 4 : position + 2 + length]
        if marker == 0xE0:
            own = content.startswith(b"JFIF\0") and len(content) == 14  # longer: it holds a thumbnail
        elif marker == 0xEE:
            own = content.startswith(b"Adobe") and len(content) == 12
        else:  # tables, frame headers, restart interval, start of scan
            own = marker in (0xDB, 0xC4, 0xCC, 0xDC, 0xDD, 0xDA) or 0xC0 <= marker <= 0xCF
        if not own or length < 2:
            return False
        position += 2 + length
        if marker == 0xDA:
            found = _JPEG_NEXT_MARKER.search(data, position)
            if found is None:
                return False
            position = found.start()
