"""A picture's file opened and loaded by Pillow, in full or refused, and its pixels brought to 8 bits.

Pillow keeps its leniency in a module global, and Python its warnings, so ``hardened`` sets and restores both.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import ExifTags, Image, ImageFile

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image_container import PNG_SIGNATURE, checked_png_depth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAX_PIXELS: Final = 1 << 26
"""Most pixels a file may claim: three times the largest film mammogram, and 200 MB as RGB."""

Fit = Callable[[int, int], tuple[int, int]]
"""The size wanted of a picture of this width and height."""

_SIGNATURES: Final = {
    "PNG": (PNG_SIGNATURE,),
    "JPEG": (b"\xff\xd8\xff",),
    "TIFF": (b"II*\0", b"MM\0*"),
    "BMP": (b"BM",),
}
_FAULTS: Final = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, EOFError, ArithmeticError, AssertionError,
    RuntimeError, struct.error, zlib.error,
)  # fmt: skip  # all that Pillow's readers were seen to raise on damaged files
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING: Final = (5, 6, 7, 8)  # orientations in which a row of the file is a column of the picture


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """An upright picture in Pillow's mode for it; ``full_size`` (width, height) and ``bit_depth`` are the file's."""

    image: Image.Image
    full_size: tuple[int, int]
    format: str
    orientation: int
    bit_depth: int
    notes: tuple[str, ...]


@contextmanager
def hardened(path: str) -> Iterator[None]:
    """Pillow at work: strict, without warnings, and with a ``RecordError`` for whatever it raises."""
    truncated = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of (EXIF, odd palettes) is judged here by its outcome
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise RecordError(Reason.OVER_BUDGET, "the picture is larger than Pillow's limit", path) from error
    except _FAULTS as error:
        detail = f"the picture could not be decoded in full ({type(error).__name__})"
        raise RecordError(Reason.IMAGE_UNDECODABLE, detail, path) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated


def load(data: bytes, path: str, allowed: tuple[str, ...], max_pixels: int, fit: Fit | None = None) -> Loaded:
    """The whole picture, turned upright; ``fit`` as for ``image.decode_image``."""
    image = _open(data, path, allowed, max_pixels)
    name = "JPEG" if image.format == "MPO" else str(image.format)
    bit_depth = _bit_depth(image, data, path)
    notes = ("first picture of a multi-picture JPEG",) if image.format == "MPO" else ()
    if name == "TIFF":  # Pillow turns these files itself while it loads them, and forgets the tag
        orientation = _tiff_tag(image, ExifTags.Base.Orientation, 1)
        image.load()
        return Loaded(image, image.size, name, orientation if orientation in _TURNS else 1, bit_depth, notes)
    if name != "JPEG":
        image.load()  # a PNG may have its EXIF behind its pixels
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _FAULTS:
        orientation, notes = 1, (*notes, "EXIF unreadable, taken as upright")
    full_size = _turned(image.size, orientation)
    if fit is not None:
        image.draft(None, _turned(fit(*full_size), orientation))  # does nothing to a PNG
    image.load()
    if orientation not in _TURNS:
        return Loaded(image, full_size, name, 1, bit_depth, notes)
    return Loaded(image.transpose(_TURNS[orientation]), full_size, name, int(orientation), bit_depth, notes)


def _open(data: bytes, path: str, allowed: tuple[str, ...], max_pixels: int) -> Image.Image:
    """The file as Pillow opens it, no pixel decoded yet, refused where its kind or its claims are not allowed."""
    if len(data) < 8:
        raise RecordError(Reason.IMAGE_UNDECODABLE, f"a file of {len(data)} bytes is no picture", path)
    name = next((name for name in allowed if data.startswith(_SIGNATURES[name])), None)
    if name is None:
        raise RecordError(Reason.IMAGE_FORMAT_NOT_ALLOWED, f"the file does not begin as {' or '.join(allowed)}", path)
    image = Image.open(io.BytesIO(data), formats=(name,))
    if image.width * image.height > max_pixels:
        detail = f"{image.width} x {image.height} pixels are more than the limit of {max_pixels}"
        raise RecordError(Reason.OVER_BUDGET, detail, path)
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise RecordError(Reason.IMAGE_FORMAT_NOT_ALLOWED, "the file holds more than one frame", path)
    return image


def _turned(size: tuple[int, int], orientation: object) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in _SWAPPING else size


def _bit_depth(image: Image.Image, data: bytes, path: str) -> int:
    if image.format == "PNG":
        return checked_png_depth(data)
    if image.format != "TIFF":
        return 8
    if image.mode.startswith("I") and _tiff_tag(image, ExifTags.Base.PhotometricInterpretation, 1) == 0:
        raise RecordError(Reason.IMAGE_FORMAT_NOT_ALLOWED, "16-bit TIFF in which white is zero", path)
    return int(_tiff_tag(image, ExifTags.Base.BitsPerSample, 1))


def _tiff_tag(image: Image.Image, tag: int, default: int) -> Any:
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return value[0] if isinstance(value, tuple) and value else value


def eight_bit(image: Image.Image, path: str, grey_bits: int | None) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in mode L or RGB, and each change of its values in words."""
    mode = image.mode
    changes: tuple[str, ...] = ()
    if mode == "1":
        return image.convert("L"), ("1-bit to 0 and 255",)
    if mode in ("I", "I;16", "I;16B"):
        grey, change = _scaled_grey(np.asarray(image), path, grey_bits)
        return Image.fromarray(grey), (change,)
    if mode in ("P", "PA"):
        changes = ("palette to RGB",)
        image = image.convert("RGBA" if mode == "PA" or "transparency" in image.info else "RGB")
    elif mode in ("CMYK", "YCbCr", "RGBX"):
        changes = (f"{mode} to RGB",)
        image = image.convert("RGB")
    elif mode in ("L", "RGB") and "transparency" in image.info:
        image = image.convert("LA" if mode == "L" else "RGBA")
    if image.mode in ("L", "RGB"):
        return image, changes
    if image.mode not in ("LA", "RGBA"):
        raise RecordError(Reason.IMAGE_FORMAT_NOT_ALLOWED, f"pixels of mode {mode} are not read", path)
    values = np.asarray(image)
    colour, alpha = values[..., :-1], values[..., -1:]
    if int(alpha.min(initial=255)) == 255:
        changes = (*changes, "opaque alpha dropped")
    else:
        changes = (*changes, "alpha composited on black")
        colour = ((colour.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(colour[..., 0] if image.mode == "LA" else colour)), changes


def _scaled_grey(values: NDArray[Any], path: str, grey_bits: int | None) -> tuple[NDArray[np.uint8], str]:
    smallest, largest = int(values.min(initial=0)), int(values.max(initial=0))
    if smallest < 0 or largest > 65_535:
        detail = f"grey values from {smallest} to {largest} are not 16-bit"
        raise RecordError(Reason.IMAGE_FORMAT_NOT_ALLOWED, detail, path)
    bits = max(8, largest.bit_length()) if grey_bits is None else grey_bits
    top = (1 << bits) - 1
    if largest > top:
        raise RecordError(Reason.SAMPLES_OUT_OF_RANGE, f"grey value {largest} needs more than {bits} bits", path)
    table = ((np.arange(largest + 1, dtype=np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    return table[values], f"{bits}-bit grey to 8 bits: value x 255 / {top}"
