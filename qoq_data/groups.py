"""Groups: what must stay on one side of a split, joined where two of them share something."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray


def join_groups(keys: pl.Series, links: Iterable[tuple[int, int]]) -> pl.Series:
    """Group of each item after items that share content are put together.

    ``links`` are pairs of row numbers. A joined group is named by the smallest key in it, so the result does not
    depend on the order of the links.
    """
    codes = keys.rank("dense").to_numpy().astype(np.int64) - 1
    parent = np.arange(int(codes.max(initial=-1)) + 1)
    linked = False
    for left, right in links:
        a, b = _root(parent, int(codes[left])), _root(parent, int(codes[right]))
        parent[max(a, b)] = min(a, b)
        linked = True
    if not linked:
        return keys
    names = keys.unique().sort()
    roots = np.array([_root(parent, code) for code in range(parent.size)])
    return names.gather(roots[codes]).rename(keys.name)


def _root(parent: NDArray[np.int64], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = int(parent[node])
    return node
