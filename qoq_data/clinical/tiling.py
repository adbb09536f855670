"""Pieces of a large picture: from a region's bounding rectangle to the windows that are cut out for it.

A window is half-open ``(x0, y0, x1, y1)`` in pixels of the picture, as boxes are.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["LARGEST_SIDE", "OVERLAP", "SMALLEST_SIDE", "Window", "tile_rectangle"]

Window = tuple[int, int, int, int]

SMALLEST_SIDE: Final = 224
LARGEST_SIDE: Final = 1024
OVERLAP: Final = 128
"""The published figures for histology: no side under 224 pixels or over 1024, and 128 shared by neighbours."""


def tile_rectangle(
    rectangle: Window,
    picture_size: tuple[int, int],
    *,
    smallest: int = SMALLEST_SIDE,
    largest: int = LARGEST_SIDE,
    overlap: int = OVERLAP,
) -> tuple[Window, ...]:
    """Windows that together cover a rectangle, row by row, all inside a picture of ``picture_size`` (width, height).

    A side under ``smallest`` is widened evenly to both sides, away from the picture's edge and to no more than the
    picture. A side over ``largest`` is covered by as few windows of that side as overlap by ``overlap`` pixels or
    more, evenly spaced. Raises ``ValueError`` for a rectangle that is empty or leaves the picture.
    """
    if not 0 <= overlap < largest or not 0 < smallest <= largest:
        raise ValueError(f"sides of {smallest} to {largest} that overlap by {overlap} cover nothing")
    x0, y0, x1, y1 = rectangle
    width, height = picture_size
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"the rectangle {rectangle} is empty, or not inside a picture of {width} x {height}")
    columns = _spans(x0, x1, width, smallest, largest, overlap)
    rows = _spans(y0, y1, height, smallest, largest, overlap)
    return tuple((left, top, right, bottom) for top, bottom in rows for left, right in columns)


def _spans(start: int, stop: int, limit: int, smallest: int, largest: int, overlap: int) -> list[tuple[int, int]]:
    length = min(max(stop - start, smallest), limit)
    start = min(max(0, start - (length - (stop - start)) // 2), limit - length)
    if length <= largest:
        return [(start, start + length)]
    gaps = math.ceil((length - overlap) / (largest - overlap)) - 1
    starts = [start + step * (length - largest) // gaps for step in range(gaps + 1)]
    return [(one, one + largest) for one in starts]
