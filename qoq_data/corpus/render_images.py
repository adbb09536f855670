"""One picture and its masks into what a row stores: upright, within the recipe's budget, boxes in the stored frame.

A window of a picture is cut out before anything is scaled, and from its masks and label maps too, so that a row's
boxes enclose what can be seen of a structure and nothing beyond the window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qoq_data.clinical.boxes import FoundBoxes, align_mask, boxes_from_mask, resize_boxes
from qoq_data.clinical.label_maps import named_masks, parse_names
from qoq_data.clinical.tiling import Window
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image import (
    MAX_PIXELS,
    DecodedImage,
    decode_image,
    decode_label_map,
    decode_mask,
    encode_image,
    fit_size,
    resize_image,
)
from qoq_data.formats.storage import Store
from qoq_data.recipe import BoxRecipe, ImageRecipe, Recipe
from qoq_data.record import BoxOnImage, Provenance, QualityFinding

IMAGE_FILE_LIMIT = 1 << 29

TILED_PIXELS = 89_478_485
"""Most pixels of a picture that is read in windows, and of its label map: what Pillow allows at most."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask whose foreground is called ``label``, or a label map whose values ``label`` names."""

    path: str
    label: str
    label_map: bool = False


@dataclass(frozen=True, slots=True)
class _Layer:
    """Where one structure is in the window that is rendered."""

    label: str
    mask: Mask


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """``data`` is the stored picture; ``mask`` the label map as PNG, where the recipe asks for it and there is one."""

    data: bytes
    boxes: tuple[BoxOnImage, ...]
    mask: bytes | None
    quality: tuple[QualityFinding, ...]
    provenance: tuple[Provenance, ...]


def render_image(
    tree: Store,
    path: str,
    role: str,
    masks: Sequence[MaskFile],
    index: int,
    recipe: Recipe,
    window: Window | None = None,
) -> RenderedImage:
    """Read, check and convert one picture, or a window of it; ``index`` is its place among the images of the row.

    Raises ``RecordError``: what the readers of pictures and masks raise, and MASK_SHAPE_MISMATCH for a window that
    leaves its picture.
    """
    data = tree.read(path, IMAGE_FILE_LIMIT)

    def fit(width: int, height: int) -> tuple[int, int]:
        return fit_size(width, height, recipe.images.max_pixels, recipe.images.longest_side)

    decoded = decode_image(data, path, fit=fit) if window is None else _tiled_picture(data, path)
    full = decoded.full_size
    cut = window or (0, 0, *full)
    if not (0 <= cut[0] < cut[2] <= full[0] and 0 <= cut[1] < cut[3] <= full[1]):
        detail = f"the window {_span(cut)} leaves the picture, which is {full[0]} x {full[1]}"
        raise RecordError(Reason.MASK_SHAPE_MISMATCH, detail, path)
    size = (cut[2] - cut[0], cut[3] - cut[1])
    stored = fit(*size)
    read = [_read_mask(tree, mask, full, window) for mask in masks]
    layers = [layer for of_file, _ in read for layer in of_file]
    found = _boxes([layer.mask for layer in layers], [layer.label for layer in layers], index, recipe.boxes)
    quality = (
        (QualityFinding("small_components_dropped", f"image {index}", float(found.dropped)),) if found.dropped else ()
    )
    return RenderedImage(
        data=_stored_bytes(data, decoded, cut, stored, recipe.images),
        boxes=resize_boxes(found.boxes, size, stored),
        mask=_label_map(layers, stored) if recipe.masks and masks else None,
        quality=quality,
        provenance=(
            Provenance(role, path, hashlib.sha256(data).hexdigest(), _taken(decoded, window, size, stored)),
            *(provenance for _, provenance in read),
        ),
    )


@lru_cache(maxsize=1)
def _tiled_picture(data: bytes, path: str) -> DecodedImage:
    """The last picture that was read in windows: those of one stand one after the other in a shard."""
    return decode_image(data, path, max_pixels=max(MAX_PIXELS, TILED_PIXELS))


def read_tiled_labels(data: bytes, path: str) -> NDArray[np.integer[Any]]:
    """Values [height, width] of a label map as large as a tiled picture, in a byte each where they fit."""
    labels = decode_label_map(data, path, max_pixels=max(MAX_PIXELS, TILED_PIXELS))
    return labels.astype(np.uint8) if labels.max(initial=0) <= 255 else labels


_tiled_labels = lru_cache(maxsize=1)(read_tiled_labels)


def _span(window: Window) -> str:
    return f"{window[0]},{window[1]} to {window[2]},{window[3]}"


def _stored_bytes(
    data: bytes, decoded: DecodedImage, cut: Window, stored: tuple[int, int], recipe: ImageRecipe
) -> bytes:
    if decoded.untouched and stored == decoded.full_size:
        return data
    whole = cut == (0, 0, *decoded.full_size)  # which may have been decoded smaller
    picture = resize_image(decoded.image if whole else decoded.image.crop(cut), stored)
    return encode_image(picture, "JPEG" if recipe.encoding == "jpeg" else "PNG", recipe.quality)


def _taken(decoded: DecodedImage, window: Window | None, size: tuple[int, int], stored: tuple[int, int]) -> str:
    full = f"{decoded.full_size[0]} x {decoded.full_size[1]}"
    steps = [f"the window {_span(window)} of {full}" if window else "the whole picture"]
    if decoded.orientation_applied != 1:
        steps.append(f"turned upright from EXIF orientation {decoded.orientation_applied}")
    steps += decoded.conversions
    if stored != size:
        steps.append(f"scaled from {size[0]} x {size[1]} to {stored[0]} x {stored[1]}")
    return "; ".join(steps)


def _read_mask(
    tree: Store, file: MaskFile, full: tuple[int, int], window: Window | None
) -> tuple[list[_Layer], Provenance]:
    """The structures of a mask or of a label map in the picture's window, and where they come from."""
    data = tree.read(file.path, IMAGE_FILE_LIMIT)
    cut = window or (0, 0, *full)
    part = np.s_[cut[1] : cut[3], cut[0] : cut[2]]
    notes = [f"the window {_span(window)}" if window else "the whole mask"]
    if file.label_map:
        labels = decode_label_map(data, file.path) if window is None else _tiled_labels(data, file.path)
        if labels.shape != full[::-1]:
            detail = f"the label map is {labels.shape[1]} x {labels.shape[0]}, its picture {full[0]} x {full[1]}"
            raise RecordError(Reason.MASK_SHAPE_MISMATCH, detail, file.path)
        layers = [_Layer(name, mask) for name, mask in named_masks(labels[part], parse_names(file.label))]
        notes.append(f"values {file.label}")
    else:
        try:
            aligned, note = align_mask(decode_mask(data, file.path), full)
        except RecordError as error:
            raise RecordError(error.reason, error.detail, file.path) from error
        layers = [_Layer(file.label, aligned[part])]
        notes = [note, *notes[:1]] if note and window else [note] if note else notes
    return layers, Provenance("mask", file.path, hashlib.sha256(data).hexdigest(), "; ".join(notes))


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


def _label_map(layers: Sequence[_Layer], size: tuple[int, int]) -> bytes:
    """The masks as one picture of grey values: 0 nothing, k the k-th label; where two overlap the later one shows."""
    labels = list(dict.fromkeys(layer.label for layer in layers))
    values = np.zeros((size[1], size[0]), np.uint8)
    for layer in layers:
        values[align_mask(layer.mask, size)[0]] = labels.index(layer.label) + 1
    return encode_image(values, "PNG")
