"""Boxes from masks and label maps.

A box is half-open ``(x0, y0, x1, y1)`` in pixels of the image as stored: ``x1 - x0`` is its width, a single pixel is
``(x, y, x + 1, y + 1)`` and the right edge of a full mask is the width. Nothing is merged, dropped for its size or
taken for a repetition of another box unless the caller asks, and what is dropped is counted. Boxes come in the raster
order of the first pixel of their component.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from qoq_data.clinical.transform import Transform
from qoq_data.errors import Reason, RecordError
from qoq_data.record import BoxOnImage as Box

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "Box", "FoundBoxes", "Region", "align_mask", "boxes_from_labels", "boxes_from_mask",
    "boxes_from_masks", "components", "regions_from_labels", "resize_boxes", "scale_labels",
]  # fmt: skip

ASPECT_TOLERANCE: Final = 0.01
"""Largest relative difference of width over height at which a mask still counts as a scaled copy of its image."""

Scalar = TypeVar("Scalar", bound=np.generic)

_DENSE_LABELS: Final = 1 << 16  # up to here a list over all values is shorter than a sort of all voxels


@dataclass(frozen=True, slots=True)
class FoundBoxes:
    """Boxes, and how many components were left out because they were smaller than the caller's minimum."""

    boxes: tuple[Box, ...]
    dropped: int


@dataclass(frozen=True, slots=True)
class Region:
    """One connected component of one value of a label map: its bounding slices and its number of pixels or voxels."""

    value: int
    slices: tuple[slice, ...]
    size: int


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], list[tuple[slice, ...]]]:
    """Label the connected components of a mask of any dimension: (labels 1..n, 0 elsewhere; bounding slices of each).

    Connectivity is full: pixels that touch by a corner belong together (8 neighbours in 2-D, 26 in 3-D). Numbers
    follow the raster order of each component's first voxel: so scipy numbers into a C-ordered array.
    """
    from scipy import ndimage  # here, as it takes half a second that a worker on signals does not have to wait

    labelled = np.empty(mask.shape, np.int32)
    count = int(ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim), output=labelled))
    return labelled, list(ndimage.find_objects(labelled, max_label=count)) if count else []


def boxes_from_mask(
    mask: NDArray[np.bool_],
    label: str,
    *,
    min_area_px: float = 0,
    min_area_mm2: float = 0,
    spacing_mm: tuple[float, float] | None = None,
    union: bool = False,
    image: int = 0,
) -> FoundBoxes:
    """Boxes of the components of a mask [height, width]; with ``union`` the one box that encloses those kept.

    A component under ``min_area_px`` pixels, or under ``min_area_mm2`` at ``spacing_mm`` (row, column), is left out
    and counted. An empty mask has no box. Raises ``RecordError`` (UNIT_UNKNOWN) for an area in mm² without spacing.
    """
    minimum = float(min_area_px)
    if min_area_mm2 > 0:
        if spacing_mm is None or not min(spacing_mm) > 0:
            raise RecordError(Reason.UNIT_UNKNOWN, "a smallest area in mm² needs the pixel spacing, which is not known")
        minimum = max(minimum, min_area_mm2 / (spacing_mm[0] * spacing_mm[1]))
    labelled, slices = components(_two_dimensional(mask))
    kept = slices
    if minimum > 0:
        sizes = np.bincount(labelled.ravel(), minlength=len(slices) + 1)[1:]
        kept = [found for found, size in zip(slices, sizes, strict=True) if size >= minimum]
    boxes = [_box(found, label, image) for found in kept]
    if union and boxes:
        x0, y0, x1, y1 = zip(*(box.xyxy for box in boxes), strict=True)
        boxes = [Box(label, image, (min(x0), min(y0), max(x1), max(y1)))]
    return FoundBoxes(tuple(boxes), len(slices) - len(kept))


def boxes_from_masks(
    masks: Sequence[NDArray[np.bool_]],
    label: str,
    *,
    instances: bool,
    min_area_px: float = 0,
    min_area_mm2: float = 0,
    spacing_mm: tuple[float, float] | None = None,
    image: int = 0,
) -> FoundBoxes:
    """Boxes of several masks of one image and one label; the smallest area as for ``boxes_from_mask``.

    ``instances``: the components of each mask in turn, so that masks that touch, overlap or repeat each other keep
    their own boxes. Otherwise the masks are united first. Raises ``RecordError`` where the masks differ in size.
    """
    for mask in masks:
        if mask.shape != masks[0].shape:
            detail = f"two masks of one image have shapes {masks[0].shape} and {mask.shape}"
            raise RecordError(Reason.MASK_SHAPE_MISMATCH, detail)
    parts = masks if instances or not masks else [np.logical_or.reduce(masks)]
    found = [
        boxes_from_mask(
            part, label, min_area_px=min_area_px, min_area_mm2=min_area_mm2, spacing_mm=spacing_mm, image=image
        )
        for part in parts
    ]
    return FoundBoxes(tuple(box for each in found for box in each.boxes), sum(each.dropped for each in found))


def regions_from_labels(labels: NDArray[np.integer[Any]]) -> list[Region]:
    """Components of each value other than 0 of a label map of any dimension, by value, then in raster order.

    Values of any size stay distinct. Neighbours of different values are never joined.
    """
    regions = []
    for value, outer in _outer_slices(labels):
        labelled, slices = components(labels[outer] == value)
        sizes = np.bincount(labelled.ravel())[1:]
        for inner, size in zip(slices, sizes, strict=True):
            placed = tuple(slice(o.start + i.start, o.start + i.stop) for o, i in zip(outer, inner, strict=True))
            regions.append(Region(value, placed, int(size)))
    return regions


def boxes_from_labels(
    labels: NDArray[np.integer[Any]], names: Mapping[int, str | None], *, image: int = 0
) -> tuple[Box, ...]:
    """Boxes of a label map [height, width], one a component; ``names`` gives each value's label, None to leave it out.

    0 is background. A value that ``names`` does not know is a ``RecordError`` (MASK_CONFLICT), not a lost structure.
    """
    boxes = []
    for region in regions_from_labels(_two_dimensional(labels)):
        if region.value not in names:
            raise RecordError(Reason.MASK_CONFLICT, f"value {region.value} of the label map has no name")
        name = names[region.value]
        if name is not None:
            boxes.append(_box(region.slices, name, image))
    return tuple(boxes)


def align_mask(mask: NDArray[np.bool_], image_size: tuple[int, int]) -> tuple[NDArray[np.bool_], str]:
    """The mask [height, width] in the frame of an image of ``image_size`` (width, height), and a note for provenance.

    Of equal size: as it is, and no note. Of another size and the same aspect within ``ASPECT_TOLERANCE``: taken to
    the image's size by nearest neighbour; the note says so, and counts components too small to survive. Of another
    aspect, or where nothing would be left: ``RecordError`` (MASK_SHAPE_MISMATCH).
    """
    height, width = _two_dimensional(mask).shape
    new_width, new_height = image_size
    if (width, height) == image_size:
        return mask, ""
    sizes = f"mask {width} x {height}, image {new_width} x {new_height}"
    if min(width, height) == 0 or abs(width * new_height / (height * new_width) - 1) > ASPECT_TOLERANCE:
        raise RecordError(Reason.MASK_SHAPE_MISMATCH, f"{sizes}: of another aspect, so not one picture scaled")
    labelled, slices = components(mask)
    scaled = scale_labels(labelled, image_size)
    lost = len(slices) - np.unique(scaled[scaled > 0]).size
    if slices and lost == len(slices):
        raise RecordError(Reason.MASK_SHAPE_MISMATCH, f"{sizes}: nothing of the mask is left at that size")
    note = f"mask scaled from {width} x {height} to {new_width} x {new_height}, nearest neighbour"
    return scaled > 0, f"{note}, {lost} of {len(slices)} components too small to survive" if lost else note


def scale_labels(labels: NDArray[Scalar], size: tuple[int, int]) -> NDArray[Scalar]:
    """Values [height, width] at ``size`` (width, height), each pixel that in which its centre lies."""
    height, width = labels.shape
    rows = (2 * np.arange(size[1]) + 1) * height // (2 * size[1])
    columns = (2 * np.arange(size[0]) + 1) * width // (2 * size[0])
    return labels[np.ix_(rows, columns)]


def resize_boxes(boxes: Sequence[Box], size: tuple[int, int], new_size: tuple[int, int]) -> tuple[Box, ...]:
    """The boxes of an image of ``size`` (width, height) after it was resized to ``new_size``: as many, in order.

    Raises ``RecordError`` (MASK_CONFLICT) for a box that is empty or lies outside its image.
    """
    change = Transform.scaled(size, new_size)
    moved = [change.apply_to_box(box) for box in boxes]
    kept = tuple(box for box in moved if box is not None)
    if len(kept) != len(moved):
        raise RecordError(Reason.MASK_CONFLICT, "a box is empty or lies outside its image")
    return kept


def _outer_slices(labels: NDArray[np.integer[Any]]) -> list[tuple[int, tuple[slice, ...]]]:
    """Each value other than 0, rising, and the bounding slices of all of it."""
    from scipy import ndimage

    if labels.size == 0:
        return []
    if labels.min() >= 0 and labels.max() <= _DENSE_LABELS:
        found = ndimage.find_objects(labels.astype(np.int32, copy=False))
        return [(value, outer) for value, outer in enumerate(found, start=1) if outer is not None]
    values, compact = np.unique(labels, return_inverse=True)
    found = ndimage.find_objects(compact.reshape(labels.shape).astype(np.int32) + 1)
    return [(int(value), outer) for value, outer in zip(values, found, strict=True) if value != 0]


def _box(slices: tuple[slice, ...], label: str, image: int) -> Box:
    rows, columns = slices
    return Box(label, image, (int(columns.start), int(rows.start), int(columns.stop), int(rows.stop)))


def _two_dimensional(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 2:
        raise ValueError(f"boxes are of arrays [height, width], not of shape {array.shape}")
    return array
