"""``statistics="history"`` beside the released computation, written down here on its own from its description."""

from __future__ import annotations

import sys
from collections import defaultdict

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from benchmarks.drpo_step import Published
from qoq_data.errors import MissingExtraError
from qoq_train.advantages import DrpoConfig, DrpoState, drpo

torch.set_num_threads(1)


class Released:
    """All questions ever seen, clustered anew for every domain at every step; NaN where it divides 0 by 0."""

    def __init__(self) -> None:
        self.seen: dict[str, list[np.ndarray]] = defaultdict(list)
        self.ids: dict[str, list[int]] = defaultdict(list)
        self.next_id = 0

    def step(self, rewards: np.ndarray, domains: list[str]) -> np.ndarray:
        ids = []
        for row, domain in zip(rewards, domains, strict=True):
            self.seen[domain].append(row.astype(np.float32))
            self.ids[domain].append(self.next_id)
            ids.append(self.next_id)
            self.next_id += 1
        found = {domain: self.cluster(np.stack(vectors)) for domain, vectors in self.seen.items()}
        scaled = np.empty_like(rewards)
        for i, domain in enumerate(domains):
            labels, sizes, centres, mean = found[domain]
            cluster = labels[self.ids[domain].index(ids[i])]
            domain_temperature = max(np.sqrt(len(labels)) * mean, 1e-6)
            factor = domain_temperature * np.sqrt(sizes[cluster]) * float(centres[cluster].mean())
            scores = (rewards[i] - rewards[i].mean()) / (rewards[i].std(ddof=1) + 1e-6)
            with np.errstate(invalid="ignore", divide="ignore"):
                scaled[i] = scores / np.float64(factor)
        return scaled / (scaled.std(ddof=1) + 1e-6)

    @staticmethod
    def cluster(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        def fit(k: int) -> KMeans:
            return KMeans(n_clusters=k, n_init="auto", random_state=0).fit(points)

        largest = min(10, len({tuple(p) for p in points}))
        inertias = [fit(k).inertia_ for k in range(1, largest + 1)]
        k = largest
        for i in range(1, largest - 1):
            if inertias[i] - inertias[i + 1] < 0.10 * (inertias[i - 1] - inertias[i]):
                k = i + 1
                break
        best = fit(k)
        sizes = np.array([(best.labels_ == c).sum() for c in range(k)], dtype=float)
        means = best.cluster_centers_.mean(axis=1)
        return best.labels_, sizes, best.cluster_centers_, float((means / sizes).sum() / (1 / sizes).sum())


def random_steps(seed: int) -> list[tuple[np.ndarray, list[str]]]:
    """One or two steps of binary, graded or continuous rewards of a few domains, now and then all zero.

    Rewards are multiples of 2^-20, on which the mean of equal ones is exact. Off such a grid the released computation
    can make of the mean's rounding an advantage of 1e-4 for a group of equal rewards, where ours is 0.
    """
    rng = np.random.default_rng(seed)
    completions = int(rng.integers(2, 6))
    least = [0.0, 0.05, 0.2][seed % 3]
    batches = []
    for _ in range(int(rng.integers(1, 3))):
        shape = (int(rng.integers(1, 5)), completions)
        right = rng.random(shape) < rng.random((shape[0], 1))
        kinds = (right * 0.8, right * 0.6 + rng.choice([0, 0.1, 0.2], shape), rng.random(shape))
        rewards = np.round((least + kinds[int(rng.integers(3))]) * 2**20) / 2**20
        batches.append((rewards, [f"d{i}" for i in rng.integers(0, 1 + seed % 2, shape[0])]))
    return batches


def test_equal_to_the_released_computation_over_200_random_sequences() -> None:
    compared = refused = clustered = 0
    for seed in range(200):
        released, state = Released(), DrpoState()
        for rewards, domains in random_steps(seed):
            theirs = released.step(rewards, domains)
            if not np.isfinite(theirs).all():
                with pytest.raises(ValueError, match="mean reward 0, and the released computation divides by it"):
                    drpo(torch.from_numpy(rewards), domains, state, DrpoConfig.released())
                refused += 1
                break
            step = drpo(torch.from_numpy(rewards), domains, state, DrpoConfig.released())
            state = DrpoState.from_dict(step.state.to_dict())
            np.testing.assert_allclose(step.advantages.numpy(), theirs, atol=1e-6, rtol=0)
            compared += 1
            clustered += any(len(d.clusters) > 2 for d in step.metrics.domains.values())
    assert compared > 250
    assert refused > 5
    assert clustered > 80


def test_single_precision_rewards_agree_too() -> None:
    released, state = Released(), DrpoState()
    for rewards, domains in random_steps(8):
        theirs = released.step(rewards.astype(np.float32).astype(np.float64), domains)
        step = drpo(torch.tensor(rewards, dtype=torch.float32), domains, state, DrpoConfig.released())
        state = step.state
        np.testing.assert_allclose(step.advantages.numpy(), theirs, atol=2e-6, rtol=0)


def test_the_benchmarks_peer_computes_the_same() -> None:
    peer, state = Published(), DrpoState()
    for rewards, domains in random_steps(11) + random_steps(11):
        step = drpo(torch.from_numpy(rewards), domains, state, DrpoConfig.released())
        state = step.state
        np.testing.assert_allclose(step.advantages.numpy(), peer.step(rewards, domains), atol=1e-6, rtol=0)


def test_a_floor_makes_it_defined_where_the_released_one_is_not() -> None:
    rewards = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.2, 0.8]], dtype=torch.float64)
    floored = DrpoConfig(statistics="history", kl_damping=False)
    step = drpo(rewards, ["zero", "zero", "fine"], None, floored)
    assert bool(torch.isfinite(step.advantages).all())
    assert step.advantages[:2].abs().max() == 0


def test_memory_grows_by_every_question() -> None:
    state = DrpoState()
    for rewards, domains in random_steps(5):
        state = drpo(torch.from_numpy(rewards), domains, state, DrpoConfig.released()).state
    total = sum(len(d) for _, d in random_steps(5))
    assert sum(len(d.vectors) for d in state.domains.values()) == total
    assert sum(d.count for d in state.domains.values()) == total


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn, which is not installed.*qoq-med\[train\]"):
        drpo(torch.tensor([[0.2, 0.4]]), ["a"], None, DrpoConfig.released())
    assert drpo(torch.tensor([[0.2, 0.4]]), ["a"], None, DrpoConfig(kl_damping=False)).state.domains
