"""Figures by step made ready to be drawn: smoothed over neighbouring steps, and thinned to what a picture can show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_POINTS: Final = 240


def smoothing_window(steps: int) -> int:
    """Steps over which a curve is smoothed: a tenth of them, from 5 to 50."""
    return max(5, min(50, steps // 10))


def smoothed(values: Mapping[int, float], window: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At each step that has a value, the mean of those within half a window of it; at the ends of what there is."""
    at = np.array(sorted(values), dtype=np.float64)
    sums = np.concatenate(([0.0], np.cumsum([values[int(step)] for step in at])))
    first = np.searchsorted(at, at - window / 2, side="left")
    last = np.searchsorted(at, at + window / 2, side="right")
    means = (sums[last] - sums[first]) / (last - first)
    return thinned(dict(zip(at.astype(int).tolist(), means.tolist(), strict=True)))


def thinned(
    values: Mapping[int, float], of_several: np.ufunc = np.add
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values, in order; where there are more than ``MOST_POINTS``, runs of them are put together.

    Each run becomes its mean, or what ``of_several`` makes of it, and stands at its mean step.
    """
    at = np.array(sorted(values), dtype=np.float64)
    found = np.array([values[int(step)] for step in at], dtype=np.float64)
    size = math.ceil(len(at) / MOST_POINTS)
    if size <= 1:
        return at, found
    starts = np.arange(0, len(at), size)
    counts = np.diff(np.append(starts, len(at)))
    together = np.asarray(of_several.reduceat(found, starts), dtype=np.float64)
    return np.add.reduceat(at, starts) / counts, together / counts if of_several is np.add else together
