"""Figures of a step: means over what was added, here and on the other ranks, and seconds by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qoq_train.training.ranks import Ranks


class Means:
    """Means of figures by name over what was added."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        """Add a value of each figure; a figure may be absent at times."""
        for name, value in figures.items():
            self._values.setdefault(name, []).append(value)

    def means(self, ranks: Ranks) -> dict[str, float]:
        """The mean of each figure over all values of all ranks, which call it together."""
        shares = ranks.shares({name: (sum(values), len(values)) for name, values in self._values.items()})
        names = dict.fromkeys(name for share in shares for name in share)
        found = {}
        for name in names:
            parts = [share[name] for share in shares if name in share]
            found[name] = sum(total for total, _ in parts) / sum(count for _, count in parts)
        return found


class Clock:
    """Seconds by phase; a phase that comes again adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs inside as this phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def largest(values: Mapping[str, float], ranks: Ranks) -> dict[str, float]:
    """The largest value of each name over the ranks, which call it together."""
    found: dict[str, float] = {}
    for share in ranks.shares(dict(values)):
        for name, value in share.items():
            found[name] = max(value, found.get(name, value))
    return found
