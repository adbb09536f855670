"""One picture and its masks into what a row stores: upright, within the recipe's budget, boxes in the stored frame.

A window of a picture is cut out before anything is scaled, and from its masks and label maps too, so that a row's
boxes enclose what can be seen of a structure and nothing beyond the window. A picture whose pixels are not square is
stored with square ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qoq_data.clinical.boxes import FoundBoxes, boxes_from_mask, resize_boxes, scale_labels
from qoq_data.clinical.tiling import Window
from qoq_data.corpus.pictures import Layer, Mask, read_layers, read_picture, span
from qoq_data.corpus.references import GivenBox, MediaReference
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image import DecodedImage, encode_image, fit_size, resize_image
from qoq_data.formats.storage import Store
from qoq_data.recipe import BoxRecipe, ImageRecipe, Recipe
from qoq_data.record import BoxOnImage, Provenance, QualityFinding, View


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """``data`` is the stored picture; ``mask`` the label map as PNG, where the recipe asks for it and there is one."""

    data: bytes
    view: View
    boxes: tuple[BoxOnImage, ...]
    mask: bytes | None
    quality: tuple[QualityFinding, ...]
    provenance: tuple[Provenance, ...]


def render_image(
    tree: Store,
    reference: MediaReference,
    masks: Sequence[MediaReference],
    index: int,
    recipe: Recipe,
    boxes: Sequence[GivenBox] = (),
) -> RenderedImage:
    """Read, check and convert one picture, or a window of it; ``index`` is its place among the images of the row.

    Boxes are those of ``masks`` and then those given. Raises ``RecordError``: what the readers of pictures and masks
    raise, MASK_SHAPE_MISMATCH for a window that leaves its picture, MASK_CONFLICT for a given box that is outside.
    """

    def fit(width: int, height: int) -> tuple[int, int]:
        return fit_size(width, height, recipe.images.max_pixels, recipe.images.longest_side)

    read = read_picture(tree, reference, fit)
    decoded, window = read.decoded, reference.window
    full = decoded.full_size
    cut = window or (0, 0, *full)
    if not (0 <= cut[0] < cut[2] <= full[0] and 0 <= cut[1] < cut[3] <= full[1]):
        detail = f"the window {span(cut)} leaves the picture, which is {full[0]} x {full[1]}"
        raise RecordError(Reason.MASK_SHAPE_MISMATCH, detail, reference.path)
    size = (cut[2] - cut[0], cut[3] - cut[1])
    stored = fit(*_square(size, decoded.pixel_aspect))
    of_masks = [(mask, read_layers(tree, mask, full, window, reference)) for mask in masks]
    layers = [layer for _, of_mask in of_masks for layer in of_mask.layers]
    found = _boxes(layers, index, recipe.boxes, decoded.spacing_mm)
    given, clipped = _given_boxes(boxes, full, index, reference.path)
    untouched = read.original if stored == full else None
    spacing_mm = tuple(
        mm * (before / after) for mm, before, after in zip(decoded.spacing_mm, size[::-1], stored[::-1], strict=False)
    )
    codes = {"small_components_dropped": found.dropped, "box_cut_at_the_edge": clipped} | dict.fromkeys(
        decoded.findings, 1
    )
    return RenderedImage(
        data=untouched or _encoded(decoded, cut, stored, recipe.images),
        view=View(reference.part, index, spacing_mm, decoded.window, reference.laterality or decoded.laterality),
        boxes=resize_boxes(found.boxes + given, size, stored),
        mask=_label_map(layers, stored) if recipe.masks and masks else None,
        quality=tuple(QualityFinding(code, f"image {index}", float(value)) for code, value in codes.items() if value),
        provenance=(
            Provenance(reference.role, reference.path, read.sha256, _taken(decoded, window, size, stored)),
            *(Provenance("mask", mask.path, one.sha256, "; ".join(one.taken)) for mask, one in of_masks),
        ),
    )


def _square(size: tuple[int, int], pixel_aspect: float) -> tuple[int, int]:
    """The size at which pixels of this height over width are square, the shorter of their edges drawn out."""
    width, height = size
    if pixel_aspect > 1:
        return width, max(1, round(height * pixel_aspect))
    return max(1, round(width / pixel_aspect)), height


def _encoded(decoded: DecodedImage, cut: Window, stored: tuple[int, int], recipe: ImageRecipe) -> bytes:
    whole = cut == (0, 0, *decoded.full_size)  # which may have been decoded smaller
    picture = resize_image(decoded.image if whole else decoded.image.crop(cut), stored)
    return encode_image(picture, "JPEG" if recipe.encoding == "jpeg" else "PNG", recipe.quality)


def _taken(decoded: DecodedImage, window: Window | None, size: tuple[int, int], stored: tuple[int, int]) -> str:
    full = f"{decoded.full_size[0]} x {decoded.full_size[1]}"
    steps = [f"the window {span(window)} of {full}" if window else "the whole picture"]
    if decoded.orientation_applied != 1:
        steps.append(f"turned upright from EXIF orientation {decoded.orientation_applied}")
    steps += decoded.conversions
    if stored != size:
        steps.append(f"scaled from {size[0]} x {size[1]} to {stored[0]} x {stored[1]}")
    return "; ".join(steps)


def _given_boxes(
    boxes: Sequence[GivenBox], full: tuple[int, int], index: int, path: str
) -> tuple[tuple[BoxOnImage, ...], int]:
    """The publisher's boxes on whole pixels, their edges rounded outwards, and how many were cut at the picture's edge.

    A reader's click half a pixel beyond the edge is no finding.
    """
    placed, clipped = [], 0
    for box in boxes:
        x0, y0, x1, y1 = box.edges
        clipped += min(x0, y0) <= -1 or x1 >= full[0] + 1 or y1 >= full[1] + 1
        left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
        right, bottom = min(full[0], math.ceil(x1)), min(full[1], math.ceil(y1))
        if not (left < right and top < bottom):
            detail = f"a box of the publisher's is empty or outside its picture, which is {full[0]} x {full[1]}"
            raise RecordError(Reason.MASK_CONFLICT, detail, path)
        placed.append(BoxOnImage(box.label, index, (left, top, right, bottom), box.agreement))
    return tuple(placed), clipped


def _boxes(layers: Sequence[Layer], index: int, recipe: BoxRecipe, spacing_mm: tuple[float, ...]) -> FoundBoxes:
    """Boxes label by label, in the order in which labels first stand; see ``BoxRecipe.per``."""
    boxes: list[BoxOnImage] = []
    dropped = 0
    for label in dict.fromkeys(layer.label for layer in layers):
        of_label = [layer.mask for layer in layers if layer.label == label]
        instances = [one for layer in layers if layer.label == label for one in layer.instances]
        by_instance = recipe.per == "component" and bool(instances)
        parts: list[Mask] = of_label if recipe.per == "mask" else [np.logical_or.reduce(of_label)]
        for part in instances if by_instance else parts:
            found = boxes_from_mask(
                part,
                label,
                min_area_px=recipe.min_area_px,
                min_area_mm2=recipe.min_area_mm2 or 0,
                spacing_mm=(spacing_mm[0], spacing_mm[1]) if spacing_mm else None,
                union=by_instance or recipe.per != "component",
                image=index,
            )
            boxes += found.boxes
            dropped += found.dropped
    return FoundBoxes(tuple(boxes), dropped)


def _label_map(layers: Sequence[Layer], size: tuple[int, int]) -> bytes:
    """The masks as one picture of grey values: 0 nothing, k the k-th label; where two overlap the later one shows."""
    labels = list(dict.fromkeys(layer.label for layer in layers))
    values = np.zeros((size[1], size[0]), np.uint8)
    for layer in layers:
        values[scale_labels(layer.mask, size)] = labels.index(layer.label) + 1
    return encode_image(values, "PNG")
