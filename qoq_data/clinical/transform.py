"""The one way in which a point or a box follows its picture when that is turned, flipped, scaled or cut."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from qoq_data.record import BoxOnImage as Box


@dataclass(frozen=True, slots=True)
class Transform:
    """An axis-parallel change of frame: turns, flips, scales and shifts, alone or one after the other.

    ``x' = xx x + xy y + x0`` and ``y' = yx x + yy y + y0`` over continuous coordinates, in which pixel i covers
    [i, i + 1]. Fractions, so that edges on a pixel's edge stay there and going back is exact.
    """

    target_size: tuple[int, int]
    source_size: tuple[int, int]
    xx: Fraction = Fraction(1)
    xy: Fraction = Fraction(0)
    x0: Fraction = Fraction(0)
    yx: Fraction = Fraction(0)
    yy: Fraction = Fraction(1)
    y0: Fraction = Fraction(0)

    @classmethod
    def upright(cls, size: tuple[int, int], orientation: int) -> Transform:
        """From the stored frame of ``size`` (width, height) to the one in which EXIF ``orientation`` 1..8 is undone."""
        if orientation not in range(1, 9):
            raise ValueError(f"EXIF orientation is 1 to 8, not {orientation}")
        one, none = Fraction(1), Fraction(0)
        x_flipped, y_flipped = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
        swapped = orientation >= 5
        width, height = (size[1], size[0]) if swapped else size
        x, y = -one if x_flipped else one, -one if y_flipped else one
        x0, y0 = Fraction(width if x_flipped else 0), Fraction(height if y_flipped else 0)
        if swapped:
            return cls((width, height), size, none, x, x0, y, none, y0)
        return cls((width, height), size, x, none, x0, none, y, y0)

    @classmethod
    def scaled(cls, size: tuple[int, int], new_size: tuple[int, int]) -> Transform:
        """From a frame of ``size`` (width, height) to the same picture at ``new_size``."""
        return cls(new_size, size, xx=Fraction(new_size[0], size[0]), yy=Fraction(new_size[1], size[1]))

    @classmethod
    def cropped(cls, size: tuple[int, int], window: tuple[int, int, int, int]) -> Transform:
        """From a frame of ``size`` to the part of it in ``window`` (half-open xyxy)."""
        left, top, right, bottom = window
        return cls((right - left, bottom - top), size, x0=Fraction(-left), y0=Fraction(-top))

    def then(self, following: Transform) -> Transform:
        """This change and then another, as one."""
        if following.source_size != self.target_size:
            raise ValueError(f"a frame of {self.target_size} does not go into one of {following.source_size}")
        f = following
        return Transform(
            f.target_size,
            self.source_size,
            f.xx * self.xx + f.xy * self.yx,
            f.xx * self.xy + f.xy * self.yy,
            f.xx * self.x0 + f.xy * self.y0 + f.x0,
            f.yx * self.xx + f.yy * self.yx,
            f.yx * self.xy + f.yy * self.yy,
            f.yx * self.x0 + f.yy * self.y0 + f.y0,
        )

    def inverse(self) -> Transform:
        """The way back."""
        det = self.xx * self.yy - self.xy * self.yx
        xx, xy, yx, yy = self.yy / det, -self.xy / det, -self.yx / det, self.xx / det
        x0, y0 = -(xx * self.x0 + xy * self.y0), -(yx * self.x0 + yy * self.y0)
        return Transform(self.source_size, self.target_size, xx, xy, x0, yx, yy, y0)

    def apply_to_point(self, x: float | Fraction, y: float | Fraction) -> tuple[float, float]:
        """Where a point lies in the target; the centre of pixel (i, j) is (i + 0.5, j + 0.5)."""
        exact = self._map(Fraction(x), Fraction(y))
        return float(exact[0]), float(exact[1])

    def apply_to_box(self, box: Box) -> Box | None:
        """The smallest box of whole pixels that holds the box in the target, cut to the target's frame.

        Edges are rounded outwards, so what is not empty keeps at least one pixel. None where the box is empty or
        nothing of it lies in the target.
        """
        if box.xyxy[0] >= box.xyxy[2] or box.xyxy[1] >= box.xyxy[3]:
            return None
        a = self._map(Fraction(box.xyxy[0]), Fraction(box.xyxy[1]))
        b = self._map(Fraction(box.xyxy[2]), Fraction(box.xyxy[3]))
        x0, y0 = (max(0, math.floor(min(p, q))) for p, q in zip(a, b, strict=True))
        x1, y1 = (min(limit, math.ceil(max(p, q))) for p, q, limit in zip(a, b, self.target_size, strict=True))
        return replace(box, xyxy=(x0, y0, x1, y1)) if x0 < x1 and y0 < y1 else None

    def _map(self, x: Fraction, y: Fraction) -> tuple[Fraction, Fraction]:
        return self.xx * x + self.xy * y + self.x0, self.yx * x + self.yy * y + self.y0
