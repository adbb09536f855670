"""One picture and its masks into what a row stores: upright, within the recipe's budget, boxes in the stored frame."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qoq_data.clinical.boxes import FoundBoxes, align_mask, boxes_from_mask, resize_boxes
from qoq_data.errors import RecordError
from qoq_data.formats.image import DecodedImage, decode_image, decode_mask, encode_image, fit_size, resize_image
from qoq_data.formats.storage import Store
from qoq_data.recipe import BoxRecipe, ImageRecipe, Recipe
from qoq_data.record import BoxOnImage, Provenance, QualityFinding

IMAGE_FILE_LIMIT = 1 << 29

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MaskFile:
    path: str
    label: str


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """``data`` is the stored picture; ``mask`` the label map as PNG, where the recipe asks for it and there is one."""

    data: bytes
    boxes: tuple[BoxOnImage, ...]
    mask: bytes | None
    quality: tuple[QualityFinding, ...]
    provenance: tuple[Provenance, ...]


def render_image(
    tree: Store, path: str, role: str, masks: Sequence[MaskFile], index: int, recipe: Recipe
) -> RenderedImage:
    """Read, check and convert one picture; ``index`` is its place among the images of the row."""
    data = tree.read(path, IMAGE_FILE_LIMIT)
    decoded = decode_image(data, path)
    full = (decoded.pixels.shape[1], decoded.pixels.shape[0])
    stored = fit_size(*full, recipe.images.max_pixels, recipe.images.longest_side)
    aligned = [_read_mask(tree, mask, full) for mask in masks]
    found = _boxes([mask for mask, _ in aligned], [mask.label for mask in masks], index, recipe.boxes)
    quality = (
        (QualityFinding("small_components_dropped", f"image {index}", float(found.dropped)),) if found.dropped else ()
    )
    return RenderedImage(
        data=_stored_bytes(data, decoded, full, stored, recipe.images),
        boxes=resize_boxes(found.boxes, full, stored),
        mask=_label_map([mask for mask, _ in aligned], masks, stored) if recipe.masks and masks else None,
        quality=quality,
        provenance=(
            Provenance(role, path, hashlib.sha256(data).hexdigest(), _taken(decoded, full, stored)),
            *(provenance for _, provenance in aligned),
        ),
    )


def _stored_bytes(
    data: bytes, decoded: DecodedImage, full: tuple[int, int], stored: tuple[int, int], recipe: ImageRecipe
) -> bytes:
    if decoded.untouched and stored == full:
        return data
    pixels = resize_image(decoded.pixels, stored)
    return encode_image(pixels, "JPEG" if recipe.encoding == "jpeg" else "PNG", recipe.quality)


def _taken(decoded: DecodedImage, full: tuple[int, int], stored: tuple[int, int]) -> str:
    steps = ["the whole picture"]
    if decoded.orientation_applied != 1:
        steps.append(f"turned upright from EXIF orientation {decoded.orientation_applied}")
    steps += decoded.conversions
    if stored != full:
        steps.append(f"scaled from {full[0]} x {full[1]} to {stored[0]} x {stored[1]}")
    return "; ".join(steps)


def _read_mask(tree: Store, mask: MaskFile, size: tuple[int, int]) -> tuple[Mask, Provenance]:
    data = tree.read(mask.path, IMAGE_FILE_LIMIT)
    try:
        aligned, note = align_mask(decode_mask(data, mask.path), size)
    except RecordError as error:
        raise RecordError(error.reason, error.detail, mask.path) from error
    return aligned, Provenance("mask", mask.path, hashlib.sha256(data).hexdigest(), note or "the whole mask")


def _boxes(masks: Sequence[Mask], labels: Sequence[str], index: int, recipe: BoxRecipe) -> FoundBoxes:
    """Boxes label by label, in the order in which labels first stand; see ``BoxRecipe.per``."""
    boxes: list[BoxOnImage] = []
    dropped = 0
    for label in dict.fromkeys(labels):
        of_label = [mask for mask, name in zip(masks, labels, strict=True) if name == label]
        parts = of_label if recipe.per == "mask" else [np.logical_or.reduce(of_label)]
        for part in parts:
            found = boxes_from_mask(
                part,
                label,
                min_area_px=recipe.min_area_px,
                min_area_mm2=recipe.min_area_mm2 or 0,
                union=recipe.per != "component",
                image=index,
            )
            boxes += found.boxes
            dropped += found.dropped
    return FoundBoxes(tuple(boxes), dropped)


def _label_map(masks: Sequence[Mask], files: Sequence[MaskFile], size: tuple[int, int]) -> bytes:
    """The masks as one picture of grey values: 0 nothing, k the k-th label; where two overlap the later one shows."""
    labels = list(dict.fromkeys(file.label for file in files))
    values = np.zeros((size[1], size[0]), np.uint8)
    for mask, file in zip(masks, files, strict=True):
        values[align_mask(mask, size)[0]] = labels.index(file.label) + 1
    return encode_image(values, "PNG")
