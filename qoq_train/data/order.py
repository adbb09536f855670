"""The order in which training sees the rows of a split: mixed, the same for a seed, and known at any step at once.

Media are read by row group, so rows are mixed within windows of groups: each epoch draws an order of the groups, cuts
it into windows as even as can be, and mixes the rows of each window. Positions go on over the epochs, position ``n``
of ``n`` rows being the first of the second epoch, so that every step has as many rows as any other. The draws are raw
bits of a counter-seeded generator, which no version of numpy changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class TrainingOrder:
    """Which row stands at which position, for ``seed`` and rows that lie in groups of these sizes, one after the other.

    Raises ``ValueError`` where there is no row, a group is empty, or the window holds no group.
    """

    def __init__(self, group_sizes: Sequence[int], seed: int, window: int) -> None:
        sizes = np.asarray(group_sizes, np.int64)
        if sizes.size == 0 or sizes.min() < 1 or window < 1:
            raise ValueError("an order needs groups of at least one row and a window of at least one group")
        self._sizes = sizes
        self._starts = np.cumsum(sizes) - sizes
        self._seed = seed
        windows = -(-sizes.size // window)
        self._window_edges = np.arange(windows + 1) * sizes.size // windows
        self._epoch_drawn: tuple[int, Rows, Rows] | None = None
        self._window_drawn: tuple[tuple[int, int], Rows] | None = None

    def __len__(self) -> int:
        """Rows of an epoch."""
        return int(self._sizes.sum())

    def rows(self, first: int, last: int) -> Rows:
        """The rows at positions ``first`` to ``last - 1``, counted over all epochs; costs what lies in between."""
        if first < 0:
            raise ValueError(f"there is no position {first}")
        parts: list[Rows] = [np.empty(0, np.int64)]
        position = first
        while position < last:
            epoch, inside = divmod(position, len(self))
            groups, edges = self._epoch(epoch)
            window = int(np.searchsorted(edges, inside, side="right")) - 1
            mixed = self._window(epoch, window, groups)
            begin = inside - int(edges[window])
            part = mixed[begin : begin + last - position]
            parts.append(part)
            position += part.size
        return np.concatenate(parts)

    def batch(self, step: int, size: int, rank: int = 0, ranks: int = 1) -> Rows:
        """The share of ``rank`` in the batch of a step: those of all ranks, one after the other, are the batch."""
        if size < 1 or step < 0 or not 0 <= rank < ranks:
            raise ValueError(f"there is no share of rank {rank} of {ranks} in step {step} of {size} rows")
        first = step * size
        return self.rows(first + rank * size // ranks, first + (rank + 1) * size // ranks)

    def _epoch(self, epoch: int) -> tuple[Rows, Rows]:
        """The groups in the order of an epoch, and the position inside it at which each window begins, and its end."""
        if self._epoch_drawn is None or self._epoch_drawn[0] != epoch:
            groups = self._drawn_order(self._sizes.size, epoch, 0)
            ends = np.concatenate(([0], np.cumsum(self._sizes[groups])))
            self._epoch_drawn = epoch, groups, ends[self._window_edges]
        return self._epoch_drawn[1:]

    def _window(self, epoch: int, window: int, groups: Rows) -> Rows:
        if self._window_drawn is None or self._window_drawn[0] != (epoch, window):
            held = groups[self._window_edges[window] : self._window_edges[window + 1]]
            rows = np.concatenate([self._starts[g] + np.arange(self._sizes[g]) for g in held])
            mixed = rows[self._drawn_order(rows.size, epoch, window + 1)]
            self._window_drawn = (epoch, window), mixed
        return self._window_drawn[1]

    def _drawn_order(self, count: int, epoch: int, stream: int) -> Rows:
        bits = np.random.PCG64(np.random.SeedSequence((self._seed, epoch, stream))).random_raw(count)
        return np.argsort(bits, kind="stable").astype(np.int64)
