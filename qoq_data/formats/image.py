"""Pictures: the bytes of a publisher's file to an upright 8-bit array and back, within a budget, in full or refused.

Every fault of a file is a ``RecordError``; no warning and no library error leaves this module. Pillow keeps its
leniency in a module global, and Python its warnings, so a decode sets and restores both: use processes, not threads.
What Pillow cannot tell is a JPEG whose coded data was cut and closed again with an end marker: it decodes, with grey
where the data ended.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from PIL import Image

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image_container import has_foreign_metadata
from qoq_data.formats.image_pixels import MAX_PIXELS, Fit, eight_bit, hardened, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MAX_PIXELS", "DecodedImage", "Fit", "decode_image", "decode_label_map", "decode_mask", "encode_image", "fit_size",
    "has_foreign_metadata", "resize_image",
]  # fmt: skip

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
    with hardened(path):
        loaded = load(data, path, allowed, max_pixels, fit)
        image, changes = eight_bit(loaded.image, path, grey_bits)
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
    with hardened(path):
        loaded = load(data, path, allowed, max_pixels)
        image = loaded.image
        if image.mode in ("LA", "RGBA"):
            image = image.convert(image.mode[:-1]) if image.mode == "LA" else Image.merge("RGB", image.split()[:3])
        elif image.mode in ("P", "PA"):
            image = image.convert("RGB")
        image.info.pop("transparency", None)
        values = np.asarray(eight_bit(image, path, None)[0])
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
    with hardened(path):
        loaded = load(data, path, allowed, max_pixels)
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
