"""Clusters of questions: the elbow by hand, and our k-means beside scikit-learn's and beside the best there is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import KMeans

from qoq_train.advantages.clusters import difficulty_clusters, distinct_rows, elbow


def inertia(vectors: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    total = 0.0
    for cluster in set(labels.tolist()):
        own = vectors[labels == cluster]
        mass = weights[labels == cluster][:, None]
        total += float((mass * (own - (mass * own).sum(0) / mass.sum()) ** 2).sum())
    return total


@pytest.mark.parametrize(
    ("inertias", "k"),
    [
        ([10.0], None), ([10, 4], None), ([10, 4, 3], None), ([10, 4, 3.5], 2), ([10, 4, 3.4], None),
        ([100, 40, 10, 8], 3), ([100, 40, 10, 7], None), ([5, 5, 5], None), ([8, 0, 0], 2), ([9, 3, 2.9, 0], 2),
    ],
)  # fmt: skip
def test_the_elbow_by_hand(inertias: list[float], k: int | None) -> None:
    assert elbow([float(i) for i in inertias], 0.10) == k


def test_distinct_rows_come_sorted_with_the_number_of_each() -> None:
    points, numbers = distinct_rows(np.array([[1.0, 0], [0, 2], [1, 0], [0, 1], [0.0, 2]]))
    assert points.tolist() == [[0, 1], [0, 2], [1, 0]]
    assert numbers.tolist() == [2, 1, 2, 0, 1]


def test_three_levels_of_difficulty_are_three_clusters_hardest_first() -> None:
    rng = np.random.default_rng(0)
    level = rng.integers(0, 3, 60)
    vectors = np.sort(np.array([0.1, 0.5, 0.9])[level][:, None] + rng.normal(0, 0.01, (60, 4)), axis=1)
    assert difficulty_clusters(vectors, np.ones(60), 10, 0.10).tolist() == level.tolist()


def test_a_weight_of_two_is_the_vector_twice() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.random((20, 3))
    weights = rng.integers(1, 4, 20)
    labels = difficulty_clusters(vectors, weights.astype(float), 6, 0.10)
    repeated = difficulty_clusters(np.repeat(vectors, weights, axis=0), np.ones(weights.sum()), 6, 0.10)
    assert np.repeat(labels, weights).tolist() == repeated.tolist()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(2, 4)), elements=st.floats(0, 1, width=16)),
    st.integers(1, 6), st.randoms(use_true_random=False),
)  # fmt: skip
def test_labels_are_gapless_bounded_shared_by_equals_and_free_of_order(
    vectors: np.ndarray, most: int, random: object
) -> None:
    labels = difficulty_clusters(vectors, np.ones(len(vectors)), most, 0.10)
    assert set(labels.tolist()) == set(range(int(labels.max()) + 1))
    assert labels.max() < min(most, len(np.unique(vectors, axis=0)))
    for (row, label), (other, other_label) in product(zip(vectors.tolist(), labels, strict=True), repeat=2):
        if row == other:
            assert label == other_label
    order = list(range(len(vectors)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert difficulty_clusters(vectors[order], np.ones(len(vectors)), most, 0.10).tolist() == labels[order].tolist()


@pytest.mark.parametrize("kind", ["binary", "graded", "continuous"])
def test_tighter_than_scikit_learn_at_the_same_k(kind: str) -> None:
    ours = theirs = 0.0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        right = rng.random((128, 5)) < rng.beta(1, 1, (128, 1))
        box = 0.2 * rng.beta(2, 2, (128, 5)) * (rng.random((128, 1)) < 0.5)
        rewards = {"binary": right * 1.0, "graded": 0.6 * right + box, "continuous": rng.random((128, 5)) * (1 - box)}
        vectors = np.sort(rewards[kind], axis=1)
        for k in (2, 3, 5):
            labels = difficulty_clusters(vectors, np.ones(128), k, 0.0)
            assert labels.max() == k - 1
            ours += inertia(vectors, labels, np.ones(128))
            theirs += float(KMeans(n_clusters=k, n_init="auto", random_state=seed).fit(vectors).inertia_)
    assert ours < theirs * 1.001


def test_near_the_best_of_all_partitions_of_few_points() -> None:
    partitions = [np.array((0, *p)) for p in product(range(3), repeat=5) if {0, *p} == {0, 1, 2}]
    ratios = []
    for seed in range(12):
        vectors = np.sort(np.random.default_rng(seed).random((6, 2)), axis=1)
        labels = difficulty_clusters(vectors, np.ones(6), 3, 0.0)
        best = min(inertia(vectors, partition, np.ones(6)) for partition in partitions)
        ratios.append(inertia(vectors, labels, np.ones(6)) / best)
    assert float(np.median(ratios)) < 1 + 1e-9
    assert max(ratios) < 1.5


def test_more_vectors_than_candidates_are_still_told_apart() -> None:
    rng = np.random.default_rng(0)
    level = rng.integers(0, 2, 3000)
    vectors = np.sort(np.where(level, 0.8, 0.2)[:, None] + rng.normal(0, 0.02, (3000, 5)), axis=1)
    assert difficulty_clusters(vectors, np.ones(3000), 2, 0.10).tolist() == level.tolist()
