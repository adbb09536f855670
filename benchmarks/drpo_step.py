"""DRPO's advantage step, ours in streaming beside the published algorithm, over histories of 10 to 100,000 questions.

Both take the same step of 512 questions × 5 completions in 30 datasets (the published size). The published algorithm
is written down here in its own terms: every vector ever seen is kept, and at each step k-means runs over all of them,
for every dataset and every k up to 10. Neither prints anything. The limit is plain group normalisation, which needs no
statistics. Ours is measured after that many questions have really passed through its state.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.cluster import KMeans

from benchmarks.harness import Result
from qoq_train.advantages import DrpoConfig, DrpoState, drpo, grpo

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUESTIONS, COMPLETIONS, DATASETS = 512, 5, 30
PUBLISHED_STEP_S = 429.0
UNIT = "ms a step"
CONFIG = DrpoConfig(kl_damping=False)  # the released code has it commented out


class Published:
    """The published advantage step, with its process-wide history as an object's own."""

    def __init__(self) -> None:
        self.vectors: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
        self.ids: dict[str, list[int]] = defaultdict(list)
        self.seen = 0

    def remember(self, rewards: NDArray[np.float64], datasets: list[str]) -> list[int]:
        """Append every question; their ids, fresh each step."""
        first = self.seen
        for row, dataset in zip(rewards, datasets, strict=True):
            self.vectors[dataset].append(row.astype(np.float32))
            self.ids[dataset].append(self.seen)
            self.seen += 1
        return list(range(first, self.seen))

    def step(self, rewards: NDArray[np.float64], datasets: list[str]) -> NDArray[np.float64]:
        """Advantages of a batch, after all history has been clustered again."""
        ids = self.remember(rewards, datasets)
        clusters = {dataset: _cluster(np.stack(vectors)) for dataset, vectors in self.vectors.items()}
        scores = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, ddof=1, keepdims=True) + 1e-6)
        for i, dataset in enumerate(datasets):
            mean, labels, sizes, means = clusters[dataset]
            for j in range(rewards.shape[1]):
                cluster = labels[self.ids[dataset].index(ids[i])]
                domain_temperature = max(math.sqrt(len(labels)) * mean, 1e-6)
                scores[i, j] /= domain_temperature * math.sqrt(sizes[cluster]) * means[cluster]
        unit: NDArray[np.float64] = scores / (scores.std(ddof=1) + 1e-6)
        return unit


def _cluster(
    points: NDArray[np.float32],
) -> tuple[float, NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    def fit(k: int) -> KMeans:
        return KMeans(n_clusters=k, n_init="auto", random_state=0).fit(points)

    inertias = [fit(k).inertia_ for k in range(1, min(10, len(np.unique(points, axis=0))) + 1)]
    drops = -np.diff(inertias)
    elbows = [i + 1 for i in range(1, len(drops)) if drops[i] < 0.10 * drops[i - 1]]
    found = fit(elbows[0] if elbows else len(inertias))
    sizes = np.bincount(found.labels_).astype(np.float64)
    means = found.cluster_centers_.mean(axis=1).astype(np.float64)
    return float((means / sizes).sum() / (1 / sizes).sum()), found.labels_, sizes, means


def run(quick: bool) -> Result:
    """Time both steps at each length of history; the ratio is at the longest, which is 100,000 unless quick."""
    torch.set_num_threads(1)
    histories = (10, 1_000) if quick else (10, 100, 1_000, 10_000, 100_000)
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(0.1, 0.9, DATASETS)
    ours: dict[int, float] = {}
    peer: dict[int, float] = {}
    least: dict[int, float] = {}
    state, published, passed = DrpoState(), Published(), 0
    for history in histories:
        while passed < history:
            rewards, datasets = _batch(rng, difficulty, min(QUESTIONS, history - passed))
            passed += len(rewards)
            state = drpo(torch.from_numpy(rewards), datasets, state, CONFIG).state
            published.remember(rewards, datasets)
        rounds = 3 if quick else 15
        own, plain = [], []
        for _ in range(rounds):
            rewards, datasets = _batch(rng, difficulty, QUESTIONS)
            tensor = torch.from_numpy(rewards)
            start = time.perf_counter()
            advantages = drpo(tensor, datasets, state, CONFIG).advantages
            own.append(time.perf_counter() - start)
            assert bool(torch.isfinite(advantages).all())
            start = time.perf_counter()
            grpo(tensor)
            plain.append(time.perf_counter() - start)
        passed += len(rewards)
        state = drpo(tensor, datasets, state, CONFIG).state
        start = time.perf_counter()  # once: a second round would have another history
        theirs = published.step(rewards, datasets)
        peer[history] = 1e3 * (time.perf_counter() - start)
        assert np.isfinite(theirs).all()
        ours[history], least[history] = 1e3 * median(own), 1e3 * median(plain)
    rows = [
        (f"{history:,}", f"{ours[history]:.1f}", f"{peer[history]:.0f}", f"{peer[history] / ours[history]:.1f}",
         f"{ours[history] / 10 / PUBLISHED_STEP_S:.4f}", f"{peer[history] / 10 / PUBLISHED_STEP_S:.3f}")
        for history in histories
    ]  # fmt: skip
    columns = ("questions before", f"ours, {UNIT}", "published", "times ours", "ours, % of 429 s", "published, %")
    longest = histories[-1]
    ratio = peer[longest] / ours[longest]
    return Result("drpo_step", ours[longest], peer[longest], least[longest], ratio, UNIT, columns, tuple(rows))


def _batch(
    rng: np.random.Generator, difficulty: NDArray[np.float64], questions: int
) -> tuple[NDArray[np.float64], list[str]]:
    """Rewards as the published ones are made: 0.6 answer, 0.2 box where a question has one, 0.2 format; no zeros."""
    numbers = rng.integers(0, DATASETS, questions)
    chance = np.clip(difficulty[numbers] + rng.normal(0, 0.2, questions), 0.02, 0.98)[:, None]
    shape = (questions, COMPLETIONS)
    box = 0.2 * rng.beta(2, 2, shape) * (rng.random((questions, 1)) < 0.3)
    return 0.6 * (rng.random(shape) < chance) + box + 0.2, [f"dataset {i:02d}" for i in numbers]
