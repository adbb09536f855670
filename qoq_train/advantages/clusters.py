"""Clusters of a domain's questions by difficulty: k-means over their reward vectors, k by the elbow rule.

``difficulty_clusters`` is deterministic and does not depend on the order of questions. It adds one centre at a time,
at the vector that lowers the inertia most (the fast global k-means of Likas, Vlassis and Verbeek, 2003), beside it
tries equal slices of the mean reward, and lets Lloyd's iteration settle after each. The elbow rule wants the inertia
at 1, 2, 3 ... anyway, each solution starts the next, and the search ends at the elbow. Measured beside scikit-learn on
128 sorted vectors of 5 binary, graded or continuous rewards, k from 2 to 10: inertia 0 to 3 % above the best of ten
starts, where ``KMeans(n_init="auto")`` is 0 to 13 % above, in a seventh of the time of its fits at 1 to 10.
``published_clusters`` is scikit-learn's, as the released code calls it: what it returns depends on that
library's generator and on the order of questions.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qoq_data.errors import MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CANDIDATES: Final = 256
"""Vectors tried as a new centre; more distinct ones are thinned evenly in sorted order."""

_SLICED: Final = 5
"""Up to this k the slices are tried too: sorted rewards differ most in their mean, but beyond it they never won."""

_ITERATIONS: Final = 100


def distinct_rows(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The distinct rows in lexicographic order, and for each row its number among them."""
    order = np.lexsort(vectors.T[::-1])
    ordered = vectors[order]
    begins = np.ones(len(ordered), dtype=bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = np.empty(len(ordered), dtype=np.int64)
    numbers[order] = np.cumsum(begins) - 1
    return ordered[begins], numbers


def elbow(inertias: list[float], tolerance: float) -> int | None:
    """The k at which the elbow rule stops, given the inertia at k = 1, 2, ...; None if it does not stop there.

    The first drop (from k to k + 1) that is under ``tolerance`` times the drop before it ends the search at k.
    """
    drops = [before - after for before, after in pairwise(inertias)]
    for i in range(1, len(drops)):
        if drops[i] < tolerance * drops[i - 1]:
            return i + 1
    return None


def difficulty_clusters(
    vectors: NDArray[np.float64], weights: NDArray[np.float64], max_clusters: int, tolerance: float
) -> NDArray[np.int64]:
    """The cluster of each reward vector (rows), numbered from 0 without gaps, easiest last.

    ``weights`` are the vectors' positive shares in inertia and centres. At most ``max_clusters``, and never more than
    there are distinct vectors.
    """
    points, numbers = distinct_rows(vectors)
    if max_clusters == 1 or len(points) == 1:
        return np.zeros(len(vectors), dtype=np.int64)
    masses = np.bincount(numbers, weights, len(points)).astype(np.float64)
    labels = _fit(points, masses, min(max_clusters, len(points)), tolerance)
    return _ranked(points, masses, labels)[numbers]


def _fit(
    points: NDArray[np.float64], masses: NDArray[np.float64], max_clusters: int, tolerance: float
) -> NDArray[np.int64]:
    # Lloyd's step only needs distances up to a constant of the point, so points are centred and their norms left out.
    points = points - masses @ points / masses.sum()
    norms = np.einsum("ij,ij->i", points, points)
    candidates = points
    if len(points) > _CANDIDATES:
        candidates = points[np.linspace(0, len(points) - 1, _CANDIDATES).round().astype(np.int64)]
    pairs = norms[:, None] - 2 * points @ candidates.T + np.einsum("ij,ij->i", candidates, candidates)
    means = points.mean(axis=1)
    weighted = np.column_stack([points * masses[:, None], masses])  # one product gives a cluster's sums and its size
    centres = np.zeros((1, points.shape[1]))
    nearest = norms
    labels = np.zeros(len(points), dtype=np.int64)
    inertias = [float(masses @ nearest)]
    solutions = [labels]
    while len(inertias) < max_clusters and elbow(inertias, tolerance) is None:
        gains = masses @ np.maximum(nearest[:, None] - pairs, 0.0)
        starts = [np.vstack([centres, candidates[gains.argmax()]])]
        if len(inertias) < _SLICED:
            starts += _slices(points, masses, means, len(inertias) + 1)
        tried = [_lloyd(points, weighted, start) for start in starts]
        centres, labels, nearest = min(tried, key=lambda found: float(masses @ found[2]))
        inertias.append(float(masses @ nearest))
        solutions.append(labels)
    return solutions[(elbow(inertias, tolerance) or len(inertias)) - 1]


def _slices(
    points: NDArray[np.float64], masses: NDArray[np.float64], means: NDArray[np.float64], k: int
) -> list[NDArray[np.float64]]:
    """Centres of k slices of equal mass along the mean reward; none if one vector's mass leaves a slice empty."""
    order = means.argsort(kind="stable")
    middles = masses[order].cumsum() - masses[order] / 2
    members = np.zeros((k, len(points)))
    members[np.minimum((middles / masses.sum() * k).astype(np.int64), k - 1), order] = masses[order]
    sizes = members.sum(axis=1, keepdims=True)
    return [members @ points / sizes] if sizes.min() > 0 else []


def _lloyd(
    points: NDArray[np.float64], weighted: NDArray[np.float64], centres: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Centres, labels and squared distances once the labels no longer change; an empty cluster keeps its centre.

    ``weighted`` has the points times their masses, and the masses as its last column.
    """
    n_rewards = points.shape[1]
    names = np.arange(len(centres))[:, None]
    labels = np.full(len(points), -1, dtype=np.int64)
    for _ in range(_ITERATIONS):
        gaps = points @ (-2 * centres.T)
        gaps += np.einsum("ij,ij->i", centres, centres)
        previous, labels = labels, gaps.argmin(axis=1)
        if bytes(labels) == bytes(previous):
            break
        sums = (labels == names).astype(np.float64) @ weighted
        sizes = sums[:, n_rewards:]
        if sizes.min() > 0:
            centres = sums[:, :n_rewards] / sizes
        else:
            filled = sizes[:, 0] > 0
            centres = centres.copy()
            centres[filled] = sums[filled, :n_rewards] / sizes[filled]
    differences = points - centres[labels]
    return centres, labels, np.einsum("ij,ij->i", differences, differences)


def _ranked(points: NDArray[np.float64], masses: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same clusters numbered by their mean reward, lowest first, without the empty ones."""
    sizes = np.bincount(labels, masses)
    means = np.bincount(labels, masses * points.mean(axis=1)) / np.where(sizes > 0, sizes, 1.0)
    filled = np.flatnonzero(sizes > 0)
    ranks = np.empty(len(sizes), dtype=np.int64)
    ranks[filled[np.argsort(means[filled], kind="stable")]] = np.arange(len(filled))
    return ranks[labels]


def published_clusters(
    vectors: NDArray[np.float32], max_clusters: int, tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels and centres as the released code finds them: scikit-learn's k-means, its order and its generator.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train", "drpo with statistics 'history'") from error

    def fit(k: int) -> Any:
        return KMeans(n_clusters=k, n_init="auto", random_state=0).fit(vectors)

    fits = [fit(1)]
    limit = min(max_clusters, len(np.unique(vectors, axis=0)))
    while len(fits) < limit and elbow([float(f.inertia_) for f in fits], tolerance) is None:
        fits.append(fit(len(fits) + 1))
    best = fits[(elbow([float(f.inertia_) for f in fits], tolerance) or len(fits)) - 1]
    return best.labels_.astype(np.int64), best.cluster_centers_
