"""Means over seeds with their intervals, paired differences, and what many comparisons at once do to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its 95 % t interval, and the two-sided p of its being 0.

    With one seed the interval is None. ``p`` is 1 where nothing varies and the mean is 0, 0 where it is not.
    """

    mean: float
    half_width: float | None
    p: float

    def text(self, digits: int = 3, *, signed: bool = False) -> str:
        """``.683 ± .020`` as it stands in a table."""
        sign = "+" if signed else ""
        half = "" if self.half_width is None else f" ± {self.half_width:.{digits}f}"
        return f"{self.mean:{sign}.{digits}f}{half}"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of one value a seed; raises ``ValueError`` for none, or one that is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"an estimate needs finite values, one a seed, not {list(values)}")
    mean = float(array.mean())
    if array.size == 1:
        return Estimate(mean, None, 1.0)
    error = float(array.std(ddof=1)) / math.sqrt(array.size)
    if error == 0:
        return Estimate(mean, 0.0, 0.0 if mean else 1.0)
    half = float(stats.t.ppf(0.975, array.size - 1)) * error
    return Estimate(mean, half, float(2 * stats.t.sf(abs(mean) / error, array.size - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values after Holm's step-down correction for all of them together, in their order."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
