"""What boxes are worth: stated boxes against true boxes or masks, one to one, by intersection over union.

Boxes are compared by their coordinates, a filled box and a mask by an integral image of the mask. No picture is ever
drawn. A stated box is taken as it is, so one that covers the picture, or reaches beyond it, earns its true overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from qoq_train.answers import fold
from qoq_train.coordinates import ModelFrame, Xyxy
from qoq_train.rewards.boxes_in_text import StatedBox, StatedBoxes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qoq_data.record import BoxOnImage

Overlap = Literal["matched", "mean", "max"]
Truth = Literal["boxes", "masks"]


@dataclass(frozen=True, slots=True)
class TrueBox:
    """A true box, half-open, in pixels of the stored picture ``image``; its label as ``fold`` gives it."""

    xyxy: Xyxy
    label: str = ""
    image: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class TrueMask:
    """A true mask of the stored picture ``image``: an integral image of the smallest rectangle that holds it.

    ``integral`` [height + 1, width + 1] counts the mask's pixels above and to the left; ``corner`` is where on the
    picture (x, y) it begins. Made once a row by ``of``, then a box costs four look-ups.
    """

    integral: NDArray[np.int64]
    corner: tuple[int, int]
    label: str = ""
    image: int = 0

    @classmethod
    def of(cls, mask: NDArray[np.bool_], label: str = "", image: int = 0) -> TrueMask:
        """From a mask [height, width]; raises ``ValueError`` for an empty one, which is no true mask."""
        if mask.ndim != 2 or not mask.any():
            raise ValueError(f"a mask of shape {mask.shape} is empty or not of two dimensions")
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, left = int(rows[0]), int(columns[0])
        inner = mask[top : rows[-1] + 1, left : columns[-1] + 1]
        integral = np.zeros((inner.shape[0] + 1, inner.shape[1] + 1), np.int64)
        np.cumsum(inner, axis=0, out=integral[1:, 1:])
        np.cumsum(integral[1:, 1:], axis=1, out=integral[1:, 1:])
        return cls(integral, (left, top), fold(label), image)


@dataclass(frozen=True, slots=True, eq=False)
class BoxTruth:
    """What is true of a row's boxes: ``regions``, none of them where the pictures are known to show nothing.

    ``frames`` says for each picture in which coordinates the model speaks of it. A row whose source has no boxes has
    no ``BoxTruth`` at all.
    """

    regions: tuple[TrueBox | TrueMask, ...]
    frames: tuple[ModelFrame, ...]

    def __post_init__(self) -> None:
        for region in self.regions:
            if not 0 <= region.image < len(self.frames):
                raise ValueError(f"a true box is of picture {region.image} of {len(self.frames)}")

    @classmethod
    def of_boxes(cls, boxes: Sequence[BoxOnImage], frames: Sequence[ModelFrame]) -> BoxTruth:
        """From the ``boxes`` of a corpus row."""
        return cls(tuple(TrueBox(box.xyxy, fold(box.label), box.image) for box in boxes), tuple(frames))

    @classmethod
    def of_masks(cls, masks: Sequence[NDArray[np.bool_]], frames: Sequence[ModelFrame]) -> BoxTruth:
        """From the mask [height, width] of each picture; an empty one is a picture that shows nothing."""
        return cls.of_row((), masks, frames)

    @classmethod
    def of_row(
        cls, boxes: Sequence[BoxOnImage], masks: Sequence[NDArray[np.bool_]], frames: Sequence[ModelFrame]
    ) -> BoxTruth:
        """From a corpus row: of each picture its mask [height, width], or its boxes where it has none or an empty one.

        A mask is one region without a label, as published: of two marked structures either alone meets half of it.
        Raises ``ValueError`` for masks that are not one a picture and of its size.
        """
        if masks and [mask.shape[::-1] for mask in masks] != [frame.picture_size for frame in frames]:
            raise ValueError(f"masks of shapes {[mask.shape for mask in masks]} are not those of the row's pictures")
        found = {i: TrueMask.of(mask, image=i) for i, mask in enumerate(masks) if mask.any()}
        kept = cls.of_boxes([box for box in boxes if box.image not in found], frames)
        return cls((*kept.regions, *found.values()), kept.frames)


def box_reward(
    stated: StatedBoxes, truth: BoxTruth, *, overlap: Overlap = "matched", match_labels: bool = False
) -> float:
    """The worth of a completion's boxes in [0, 1]; items without a box count as boxes that meet nothing.

    ``matched`` (ours): boxes and truths are paired one to one so that the sum of their IoU is largest; that sum over
    the number of pairs, truths without a box and boxes without a truth. ``mean`` (released code): over stated boxes,
    of the best IoU with any truth. ``max`` (paper): the largest IoU of all. With ``match_labels`` a box meets only
    truths of its label. Where nothing is to be found, an empty list earns 1, anything else 0.
    """
    if stated.too_many or not stated.stated:
        return 0.0
    count = len(stated.boxes) + stated.malformed
    if not truth.regions or not stated.boxes:
        return float(count == 0 and not truth.regions)
    if len(truth.regions) == 1:
        region, frames = truth.regions[0], truth.frames
        alone = [_iou(box, region, frames, match_labels) for box in stated.boxes]
        return sum(alone) / count if overlap == "mean" else max(alone) / (1 if overlap == "max" else count)
    found = [[_iou(box, region, truth.frames, match_labels) for region in truth.regions] for box in stated.boxes]
    if overlap == "max":
        return max(map(max, found))
    if overlap == "mean":
        return sum(map(max, found)) / count
    table = np.array(found)
    pairs = linear_sum_assignment(table, maximize=True)
    return float(table[pairs].sum()) / max(count, len(truth.regions))


def whole_picture_boxes(truth: BoxTruth) -> StatedBoxes:
    """The constant answer about boxes: each picture whole, in the model's coordinates."""
    boxes = (StatedBox(frame.to_model((0, 0, *frame.picture_size)), image=i) for i, frame in enumerate(truth.frames))
    return StatedBoxes(tuple(boxes), stated=True)


def box_iou(a: Xyxy, b: Xyxy) -> float:
    """Intersection over union of two half-open boxes; 0 where either is empty or turned over."""
    ax0, ay0, ax1, ay1 = a
    bx0, by0, bx1, by1 = b
    width = (ax1 if ax1 < bx1 else bx1) - (ax0 if ax0 > bx0 else bx0)
    height = (ay1 if ay1 < by1 else by1) - (ay0 if ay0 > by0 else by0)
    if width <= 0 or height <= 0 or ax1 <= ax0 or ay1 <= ay0 or bx1 <= bx0 or by1 <= by0:
        return 0.0
    both = width * height
    return both / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - both)


def mask_iou(xyxy: Xyxy, mask: TrueMask) -> float:
    """Intersection over union in pixels of the filled box and the mask: a pixel is filled if its centre is inside."""
    x0, y0, x1, y1 = (math.ceil(edge - 0.5) for edge in xyxy)
    if x1 <= x0 or y1 <= y0:
        return 0.0
    (left, top), integral = mask.corner, mask.integral
    height, width = integral.shape[0] - 1, integral.shape[1] - 1
    inner_x0, inner_x1 = min(max(x0 - left, 0), width), min(max(x1 - left, 0), width)
    inner_y0, inner_y1 = min(max(y0 - top, 0), height), min(max(y1 - top, 0), height)
    both = (
        integral.item(inner_y1, inner_x1)
        - integral.item(inner_y0, inner_x1)
        - integral.item(inner_y1, inner_x0)
        + integral.item(inner_y0, inner_x0)
    )
    return both / ((x1 - x0) * (y1 - y0) + integral.item(height, width) - both)


def _iou(box: StatedBox, region: TrueBox | TrueMask, frames: Sequence[ModelFrame], match_labels: bool) -> float:
    if box.image != region.image or (match_labels and box.label != region.label):
        return 0.0
    xyxy = frames[box.image].to_pixels(box.xyxy)
    return box_iou(xyxy, region.xyxy) if isinstance(region, TrueBox) else mask_iou(xyxy, region)
