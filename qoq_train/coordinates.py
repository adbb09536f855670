"""Where a model's coordinates lie on the stored picture: the one place in which boxes change frame, either way.

Boxes are edges ``(x0, y0, x1, y1)``, half-open, so a change of frame is one factor a side and nothing is added or
taken off by one. Qwen2.5-VL speaks in pixels of the picture after its own resize, Qwen3-VL and Qwen2-VL in
thousandths of the sides, ``pixels`` in the stored picture's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from qoq_data.errors import UnknownNameError

__all__ = [
    "QWEN2_5_VL", "QWEN3_VL", "STORED_PIXELS", "Convention", "CoordinateRule", "ModelFrame", "Xyxy", "rule_of_model",
    "smart_resize",
]  # fmt: skip

Xyxy = tuple[float, float, float, float]

_MOST_ASPECT: Final = 200
_THOUSAND: Final = 1000


class Convention(StrEnum):
    """In what a model states a box."""

    RESIZED_PIXELS = "resized_pixels"
    THOUSANDTHS = "thousandths"
    PIXELS = "pixels"


def smart_resize(size: tuple[int, int], *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size (width, height) to which the processors of Qwen2-VL to Qwen3-VL bring a picture of ``size``.

    Both sides are multiples of ``factor``, their product lies between the limits wherever the factor allows it, and
    the aspect is kept as well as that goes. Raises ``ValueError`` for an empty picture, limits that exclude each
    other, and an aspect over 200, as the processors do.
    """
    width, height = size
    if min(width, height) < 1 or max(width, height) > _MOST_ASPECT * min(width, height):
        raise ValueError(f"a picture of {width} x {height} is empty or longer than {_MOST_ASPECT} times its width")
    if factor < 1 or not 0 < min_pixels <= max_pixels:
        raise ValueError(f"no size has {min_pixels} to {max_pixels} pixels in steps of {factor}")
    # Python's round takes halves to the even side, and so do the processors.
    across, down = (round(side / factor) * factor for side in size)
    if across * down > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        across, down = (max(factor, math.floor(side / shrink / factor) * factor) for side in size)
    elif across * down < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        across, down = (math.ceil(side * grow / factor) * factor for side in size)
    return across, down


@dataclass(frozen=True, slots=True)
class ModelFrame:
    """One stored picture in the eyes of a model: ``model_size`` units of the model span ``picture_size`` pixels."""

    picture_size: tuple[int, int]
    model_size: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.picture_size) < 1 or min(self.model_size) < 1:
            raise ValueError(f"a frame of {self.picture_size} pixels and {self.model_size} units is empty")

    @classmethod
    def of_grid(cls, picture_size: tuple[int, int], grid_thw: tuple[int, int, int], patch_size: int) -> ModelFrame:
        """The frame that a processor really used: its ``image_grid_thw`` (frames, rows, columns) of patches."""
        return cls(picture_size, (grid_thw[2] * patch_size, grid_thw[1] * patch_size))

    def to_pixels(self, xyxy: Xyxy) -> Xyxy:
        """The model's box in pixels of the stored picture, neither rounded nor clipped."""
        across = self.picture_size[0] / self.model_size[0]
        down = self.picture_size[1] / self.model_size[1]
        return xyxy[0] * across, xyxy[1] * down, xyxy[2] * across, xyxy[3] * down

    def to_model(self, xyxy: Xyxy) -> Xyxy:
        """A box of the stored picture in the model's units, not rounded: the inverse of ``to_pixels``."""
        across = self.model_size[0] / self.picture_size[0]
        down = self.model_size[1] / self.picture_size[1]
        return xyxy[0] * across, xyxy[1] * down, xyxy[2] * across, xyxy[3] * down

    def to_model_integers(self, xyxy: Xyxy) -> tuple[int, int, int, int]:
        """As ``to_model``, to the nearest whole units, as models write boxes; never empty where ``xyxy`` is not.

        Back in pixels each edge is off by at most half of a unit, or less than one whole unit where a box narrower
        than a unit had to stay open. So it is within one pixel wherever a unit is no longer than one pixel.
        """
        x0, y0, x1, y1 = self.to_model(xyxy)
        (left, right), (top, bottom) = _whole(x0, x1), _whole(y0, y1)
        return left, top, right, bottom


def _whole(low: float, high: float) -> tuple[int, int]:
    near = math.floor(low + 0.5), math.floor(high + 0.5)
    return (math.floor(low), math.floor(low) + 1) if near[0] == near[1] and low < high else near


@dataclass(frozen=True, slots=True)
class CoordinateRule:
    """How a model family states boxes; the last three are its processor's, of ``RESIZED_PIXELS`` only."""

    convention: Convention
    factor: int = 0
    min_pixels: int = 0
    max_pixels: int = 0

    def frame(self, picture_size: tuple[int, int]) -> ModelFrame:
        """The frame of a stored picture of ``picture_size`` (width, height); ``ValueError`` as ``smart_resize``."""
        if self.convention is Convention.PIXELS:
            return ModelFrame(picture_size, picture_size)
        if self.convention is Convention.THOUSANDTHS:
            return ModelFrame(picture_size, (_THOUSAND, _THOUSAND))
        resized = smart_resize(picture_size, factor=self.factor, min_pixels=self.min_pixels, max_pixels=self.max_pixels)
        return ModelFrame(picture_size, resized)


QWEN2_5_VL: Final = CoordinateRule(Convention.RESIZED_PIXELS, factor=28, min_pixels=3136, max_pixels=12_845_056)
QWEN3_VL: Final = CoordinateRule(Convention.THOUSANDTHS)
STORED_PIXELS: Final = CoordinateRule(Convention.PIXELS)

_RULES: Final = {
    "qwen2_vl": CoordinateRule(Convention.THOUSANDTHS),
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen3_vl": QWEN3_VL,
    "qwen3_vl_moe": QWEN3_VL,
    "pixels": STORED_PIXELS,
}


def rule_of_model(
    model_type: str, *, factor: int | None = None, min_pixels: int | None = None, max_pixels: int | None = None
) -> CoordinateRule:
    """The rule of a ``model_type`` of transformers, with the limits its processor was given in place of the usual.

    Raises ``UnknownNameError`` for a model whose convention is not known: a box in a guessed frame looks right.
    """
    rule = _RULES.get(model_type)
    if rule is None:
        raise UnknownNameError(
            f"How {model_type!r} states boxes is not known. Set the coordinates to one of: {', '.join(_RULES)}."
        )
    if rule.convention is not Convention.RESIZED_PIXELS:
        return rule
    return CoordinateRule(
        rule.convention,
        rule.factor if factor is None else factor,
        rule.min_pixels if min_pixels is None else min_pixels,
        rule.max_pixels if max_pixels is None else max_pixels,
    )
