"""Pictures: the bytes of a publisher's file to an upright 8-bit array and back, within a budget, in full or refused.

Every fault of a file is a ``RecordError``; no warning and no library error leaves this module. Pillow keeps its
leniency in a module global, and Python its warnings, so a decode sets and restores both: use processes, not threads.
What Pillow cannot tell is a JPEG whose coded data was cut and closed again with an end marker: it decodes, with grey
where the data ended.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from PIL import ExifTags, Image, ImageFile

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image_container import PNG_SIGNATURE, checked_png_depth, has_foreign_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "MAX_PIXELS", "DecodedImage", "decode_image", "decode_label_map", "decode_mask", "encode_image", "fit_size",
    "has_foreign_metadata", "resize_image",
]  # fmt: skip

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
_MASK_NOISE: Final = 32
"""Grey levels that JPEG's ringing may leave in the black of a mask."""


@dataclass(frozen=True, eq=False)  # no slots: the array is made when it is asked for, and then kept
class DecodedImage:
    """An upright picture: ``image`` is a Pillow image of mode L or RGB, ``pixels`` the same as an array.

    ``full_size`` is the (width, height) that the file holds, upright; ``image`` is smaller where it was asked for so.
    ``orientation_applied`` is the EXIF orientation that was undone (1: none, or none that could be read),
    ``bit_depth`` the bits a sample has in the file. ``conversions`` names each change of values, in words for
    provenance. ``untouched`` says that the file's own bytes may stand for the pixels: nothing was changed, and it
    holds no metadata beyond what its format needs.

    Formats that know more of a picture say so: ``pixel_aspect`` is a pixel's height over its width, ``spacing_mm`` the
    (row, column) distance of pixels, ``window`` the grey window in words, ``findings`` codes for the row's quality.
    """

    image: Image.Image
    full_size: tuple[int, int]
    orientation_applied: int
    source_mode: str
    source_format: str
    bit_depth: int
    conversions: tuple[str, ...]
    untouched: bool
    pixel_aspect: float = 1.0
    spacing_mm: tuple[float, ...] = ()
    window: str = ""
    laterality: str = ""
    findings: tuple[str, ...] = ()

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [height, width] or [height, width, 3], read-only."""
        return np.asarray(self.image)


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    image: Image.Image
    full_size: tuple[int, int]
    format: str
    orientation: int
    bit_depth: int
    notes: tuple[str, ...]


def decode_image(
    data: bytes,
    path: str,
    *,
    allowed: tuple[str, ...] = ("PNG", "JPEG"),
    max_pixels: int = MAX_PIXELS,
    grey_bits: int | None = None,
    fit: Fit | None = None,
) -> DecodedImage:
    """The whole picture, upright, 8 bits a sample; ``allowed`` is drawn from PNG, JPEG, TIFF and BMP.

    With ``fit``, which gives the size wanted of a full size, both (width, height) upright, a JPEG of twice that size
    or more comes at a half, a quarter or an eighth, and never smaller than wanted: every coefficient is read all the
    same, but squares of pixels are only worked out as their mean.

    16-bit grey is scaled by its depth, so that 256 levels stay: ``grey_bits`` where the source states it, else the
    fewest bits, 8 to 16, that hold the largest value. Palettes and CMYK become RGB; opaque alpha is dropped, other
    alpha composited on black. Raises ``RecordError``: IMAGE_FORMAT_NOT_ALLOWED (also for float pixels and several
    frames), IMAGE_UNDECODABLE, OVER_BUDGET, and SAMPLES_OUT_OF_RANGE for values over ``grey_bits``.
    """
    with _hardened(path):
        loaded = _load(data, path, allowed, max_pixels, fit)
        image, changes = _eight_bit(loaded.image, path, grey_bits)
    if loaded.bit_depth == 16 and image.mode == "RGB":
        changes = (*changes, "16-bit colour kept by its high byte")
    elif loaded.bit_depth < 8 and loaded.image.mode == "L":
        changes = (*changes, f"{loaded.bit_depth}-bit grey spread over 8 bits")
    conversions = loaded.notes + changes
    return DecodedImage(
        image=image,
        full_size=loaded.full_size,
        orientation_applied=loaded.orientation,
        source_mode=loaded.image.mode,
        source_format=loaded.format,
        bit_depth=loaded.bit_depth,
        conversions=conversions,
        untouched=not conversions and loaded.orientation == 1 and not has_foreign_metadata(data, loaded.format),
    )


def decode_mask(
    data: bytes,
    path: str,
    *,
    threshold: int = 127,
    allowed: tuple[str, ...] = ("PNG", "JPEG"),
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.bool_]:
    """Set pixels [height, width] of a mask of 1, 3 or 4 channels: any colour channel over ``threshold`` of 255.

    Alpha is ignored; of a 1-bit mask the set bits count. A file that has values, but none over the threshold, is a
    label map and no mask: FORMAT_UNSUPPORTED, never an empty mask. Otherwise raises as ``decode_image``.
    """
    with _hardened(path):
        loaded = _load(data, path, allowed, max_pixels)
        image = loaded.image
        if image.mode in ("LA", "RGBA"):
            image = image.convert(image.mode[:-1]) if image.mode == "LA" else Image.merge("RGB", image.split()[:3])
        elif image.mode in ("P", "PA"):
            image = image.convert("RGB")
        image.info.pop("transparency", None)
        values = np.asarray(_eight_bit(image, path, None)[0])
    highest = values.max(axis=2) if values.ndim == 3 else values
    largest = int(highest.max(initial=0))
    if (0 if loaded.format != "JPEG" else min(_MASK_NOISE, threshold)) < largest <= threshold:
        detail = f"the mask's largest value is {largest}, not over {threshold}: it is a label map or scaled otherwise"
        raise RecordError(Reason.FORMAT_UNSUPPORTED, detail, path)
    return np.asarray(highest > threshold, np.bool_)


def decode_label_map(
    data: bytes, path: str, *, allowed: tuple[str, ...] = ("PNG",), max_pixels: int = MAX_PIXELS
) -> NDArray[np.int32]:
    """Values [height, width] of a label map as stored: grey values or palette indices, up to 16 bits.

    Colour pictures are refused as FORMAT_UNSUPPORTED; otherwise raises as ``decode_image``.
    """
    with _hardened(path):
        loaded = _load(data, path, allowed, max_pixels)
        if loaded.image.mode not in ("1", "L", "P", "I", "I;16", "I;16B") or (
            loaded.image.mode == "L" and loaded.bit_depth < 8  # Pillow spreads these over 0 to 255
        ):
            detail = f"pixels of mode {loaded.image.mode}, {loaded.bit_depth} bits, hold no label values"
            raise RecordError(Reason.FORMAT_UNSUPPORTED, detail, path)
        return np.asarray(loaded.image).astype(np.int32)


def fit_size(width: int, height: int, max_pixels: int = 524_288, longest_side: int = 1024) -> tuple[int, int]:
    """The largest (width, height) of the same aspect within both limits: never enlarged, at least one pixel a side.

    Integer arithmetic rounded down, so the limits hold exactly and the answer is the same on every machine.
    """
    longest = max(width, height)
    if longest <= longest_side and width * height <= max_pixels:
        return width, height
    side = min(longest, longest_side)
    new_width = min(width, width * side // longest, math.isqrt(max_pixels * width // height))
    new_height = max(1, min(height, height * side // longest, math.isqrt(max_pixels * height // width), max_pixels))
    return max(1, min(new_width, max_pixels // new_height)), new_height


def resize_image(picture: NDArray[np.uint8] | Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at ``size`` (width, height), each pixel a weighted mean of the area that it covers.

    Hamming's kernel: it has no negative lobe, so no halo and no level that the picture did not have appears beside
    overlays and lesion margins as with Lanczos, and it does not take one source pixel here and two there as Pillow's
    box does at ratios that are not whole.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    return image if image.size == size else image.resize(size, Image.Resampling.HAMMING)


def encode_image(
    picture: NDArray[np.uint8] | Image.Image,
    format: Literal["JPEG", "PNG"],  # noqa: A002
    quality: int = 95,
) -> bytes:
    """The picture as a file without metadata, the same bytes for the same pixels.

    JPEG keeps colour at full resolution (4:4:4), since overlays and stains are thin; PNG is at level 1, which
    costs a tenth more bytes than level 6 and a fifth of its time. Raises OVER_BUDGET for a side the format has not.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    if max(image.size) > 65_500:
        detail = f"a picture of {image.width} x {image.height} has a side over 65500 pixels"
        raise RecordError(Reason.OVER_BUDGET, detail)
    buffer = io.BytesIO()
    if format == "JPEG":
        image.save(buffer, "JPEG", quality=quality, subsampling=0)
    else:
        image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@contextmanager
def _hardened(path: str) -> Iterator[None]:
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


def _load(data: bytes, path: str, allowed: tuple[str, ...], max_pixels: int, fit: Fit | None = None) -> _Loaded:
    image = _open(data, path, allowed, max_pixels)
    name = "JPEG" if image.format == "MPO" else str(image.format)
    bit_depth = _bit_depth(image, data, path)
    notes = ("first picture of a multi-picture JPEG",) if image.format == "MPO" else ()
    if name == "TIFF":  # Pillow turns these files itself while it loads them, and forgets the tag
        orientation = _tiff_tag(image, ExifTags.Base.Orientation, 1)
        image.load()
        return _Loaded(image, image.size, name, orientation if orientation in _TURNS else 1, bit_depth, notes)
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
        return _Loaded(image, full_size, name, 1, bit_depth, notes)
    return _Loaded(image.transpose(_TURNS[orientation]), full_size, name, int(orientation), bit_depth, notes)


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


def _eight_bit(image: Image.Image, path: str, grey_bits: int | None) -> tuple[Image.Image, tuple[str, ...]]:
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
