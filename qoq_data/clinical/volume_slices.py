"""Which slices of a volume become pictures: a stated policy over where its labelled instances lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Reach", "SlicePolicy", "choose_slices"]

SlicePolicy = Literal["largest", "every", "all"]


@dataclass(frozen=True, slots=True)
class Reach:
    """Where one instance lies along the axis on which slices are counted: ``first`` to ``last``, both in it, and the
    slice of its ``largest`` cross-section. A connected instance stands on every slice between."""

    first: int
    last: int
    largest: int


def choose_slices(reaches: Sequence[Reach], policy: SlicePolicy, every: int = 1, key: str = "") -> list[int]:
    """Slices in rising order, each once.

    ``largest``: that of each instance's largest cross-section. ``every``: each ``every``-th slice of the annotated
    range, from a start that ``key`` draws; ``all``: each slice of it. The annotated range goes from the first slice on
    which any instance stands to the last. No policy leaves it: beyond it nothing says that anybody looked, so that a
    slice without a label there is not a slice without a finding. Without instances there are no slices.
    """
    if not reaches:
        return []
    if policy == "largest":
        return sorted({one.largest for one in reaches})
    first, last = min(one.first for one in reaches), max(one.last for one in reaches)
    step = every if policy == "every" else 1
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % min(step, last - first + 1)
    return list(range(first + start, last + 1, step))
