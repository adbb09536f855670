"""How a benchmark is measured and printed: candidates in turn in one process, medians, one line for machines."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark's outcome in ``unit``: our way, the peer's, and the least possible (the limit).

    ``ratio`` says how many times better we are than the peer. ``rows`` of ``columns`` are the table for people.
    """

    name: str
    ours: float
    peer: float
    limit: float
    ratio: float
    unit: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def table(self) -> str:
        """The rows under their column names, first column to the left, the rest to the right."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]])
            for line in lines
        )

    def json_line(self) -> str:
        """The figures as one JSON object on one line."""
        fields = {"name": self.name, "ours": self.ours, "peer": self.peer, "limit": self.limit}
        return json.dumps(fields | {"ratio": self.ratio, "unit": self.unit})


def seconds_in_turn(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each candidate over ``rounds``, run in turn (A B C A B C ...) after one unmeasured round.

    Taking turns spreads what else the machine does over all candidates alike.
    """
    for call in candidates.values():
        call()
    measured: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            measured[name].append(time.perf_counter() - start)
    return {name: median(seconds) for name, seconds in measured.items()}
