"""N and μ of domains and of their clusters: from the batch, from a decayed memory, or from all that was ever seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from qoq_train.advantages.clusters import difficulty_clusters, distinct_rows, published_clusters
from qoq_train.advantages.state import DomainState, DrpoState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from qoq_train.advantages.drpo import DrpoConfig

FORGOTTEN: Final = 1e-6
"""A remembered vector or domain that counts for less, which takes 20 half-lives, is let go."""


@dataclass(frozen=True, slots=True)
class Population:
    """N, the number of questions (decayed in streaming), and μ, their mean reward."""

    count: float
    mean_reward: float


@dataclass(frozen=True, slots=True)
class DomainStatistics:
    """A domain and its clusters; ``labels`` has the cluster of each of its questions in the batch."""

    domain: Population
    clusters: tuple[Population, ...]
    labels: NDArray[np.int64]


def rows_by_domain(domains: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The batch's rows of each domain, domains sorted by name."""
    rows: dict[str, list[int]] = {}
    for row, domain in enumerate(domains):
        rows.setdefault(domain, []).append(row)
    return {domain: np.asarray(rows[domain], dtype=np.int64) for domain in sorted(rows)}


def batch_statistics(
    config: DrpoConfig, rewards: NDArray[np.float64], rows: Mapping[str, NDArray[np.int64]]
) -> dict[str, DomainStatistics]:
    """N and μ of the current batch alone (paper, eq. 2).

    Vectors are sorted before they are clustered, since the paper leaves the order of completions open.
    """
    found = {}
    for name, own in rows.items():
        vectors = np.sort(rewards[own], axis=1)
        weights = np.ones(len(vectors))
        domain = Population(float(len(own)), math.fsum(vectors.mean(axis=1)) / len(own))
        clusters, labels = _clusters(config, vectors, weights, domain)
        found[name] = DomainStatistics(domain, clusters, labels)
    return found


def streaming_statistics(
    config: DrpoConfig, state: DrpoState, rewards: NDArray[np.float64], rows: Mapping[str, NDArray[np.int64]]
) -> tuple[dict[str, DomainStatistics], DrpoState]:
    """N and μ of the current batch and a memory that loses half its weight every ``half_life_questions``.

    Time is counted in questions of all domains together, so that in the long run a domain's N is its share of the
    corpus times the half-life over ln 2, however the corpus is batched. Clusters are found among the remembered
    vectors (at most ``window_questions`` a domain) and the batch's; a cluster's N is its share of their weight times
    the domain's N, so that the window's bound cannot make a frequent domain look rare.
    """
    decay = 0.5 ** (len(rewards) / config.half_life_questions)
    kept = {name: _aged(memory, decay) for name, memory in state.domains.items()}
    domains = {name: memory for name, memory in kept.items() if memory.count >= FORGOTTEN}
    nothing = DomainState(0.0, 0.0, torch.empty((0, rewards.shape[1]), dtype=torch.float64), torch.empty(0).double())
    found = {}
    for name, own in rows.items():
        memory = domains.get(name, nothing)
        new = np.sort(rewards[own], axis=1)
        count = memory.count + len(own)
        reward_sum = memory.reward_sum + math.fsum(new.mean(axis=1))
        vectors = np.concatenate([memory.vectors.numpy(), new])
        weights = np.concatenate([memory.weights.numpy(), np.ones(len(own))])
        domain = Population(count, reward_sum / count)
        clusters, labels = _clusters(config, vectors, weights, domain)
        found[name] = DomainStatistics(domain, clusters, labels[len(memory.weights) :])
        # the newest stand in sorted order, so that the state does not depend on the order of questions
        vectors[len(memory.weights) :] = new[np.lexsort(new.T[::-1])]
        stay = _newest(weights, config.window_questions)
        domains[name] = DomainState(count, reward_sum, torch.from_numpy(vectors[stay]), torch.from_numpy(weights[stay]))
    return found, DrpoState("streaming", rewards.shape[1], domains)


def history_statistics(
    config: DrpoConfig, state: DrpoState, rewards: NDArray[np.float64], rows: Mapping[str, NDArray[np.int64]]
) -> tuple[dict[str, DomainStatistics], DrpoState]:
    """N and μ of every question ever seen, as the released code takes them: cost and memory grow with each step.

    Vectors are in single precision and in the order they came in; μ of a domain is the mean of its clusters' means,
    each weighted by one over its number of questions.
    """
    domains = dict(state.domains)
    found = {}
    for name, own in rows.items():
        new = rewards[own].astype(np.float32)
        vectors = np.concatenate([domains[name].vectors.numpy(), new]) if name in domains else new
        labels, centres = published_clusters(vectors, config.max_clusters, config.elbow_tolerance)
        sizes = np.bincount(labels, minlength=len(centres)).astype(np.float64)
        means = centres.mean(axis=1)
        mean_reward = float((means / sizes).sum() / (1.0 / sizes).sum())
        clusters = tuple(Population(float(n), float(mean)) for n, mean in zip(sizes, means, strict=True))
        domain = Population(float(len(vectors)), mean_reward)
        found[name] = DomainStatistics(domain, clusters, labels[-len(own) :])
        domains[name] = DomainState(
            domain.count, float(vectors.mean(axis=1, dtype=np.float64).sum()), torch.from_numpy(vectors),
            torch.ones(len(vectors), dtype=torch.float64),
        )  # fmt: skip
    return found, DrpoState("history", rewards.shape[1], domains)


def _clusters(
    config: DrpoConfig, vectors: NDArray[np.float64], weights: NDArray[np.float64], domain: Population
) -> tuple[tuple[Population, ...], NDArray[np.int64]]:
    """The clusters of the vectors, each with its share of the domain's N and its weighted mean reward."""
    if not config.cluster_scaling:
        return (domain,), np.zeros(len(vectors), dtype=np.int64)
    labels = difficulty_clusters(vectors, weights, config.max_clusters, config.elbow_tolerance)
    # equal vectors are summed up in sorted order, so that the order of questions changes no bit
    points, numbers = distinct_rows(vectors)
    of_point = np.zeros(len(points), dtype=np.int64)
    of_point[numbers] = labels
    masses = np.bincount(numbers, weights)
    sizes = np.bincount(of_point, masses)
    means = np.bincount(of_point, masses * points.mean(axis=1)) / sizes
    counts = domain.count * sizes / sizes.sum()
    return tuple(Population(float(n), float(mean)) for n, mean in zip(counts, means, strict=True)), labels


def _aged(memory: DomainState, decay: float) -> DomainState:
    weights = memory.weights * decay
    stay = weights >= FORGOTTEN
    return DomainState(memory.count * decay, memory.reward_sum * decay, memory.vectors[stay], weights[stay])


def _newest(weights: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """Rows to remember, oldest first: the newest; of a step of which only some fit, an even choice in its order.

    The vectors of one step have one weight and stand together.
    """
    excess = len(weights) - limit
    if excess <= 0:
        return np.arange(len(weights))
    first = 0
    while True:
        size = int((weights[first:] == weights[first]).argmin()) or len(weights) - first
        if size > excess:
            break
        first, excess = first + size, excess - size
    chosen = first + (np.arange(size - excess) * size) // (size - excess)
    return np.concatenate([chosen, np.arange(first + size, len(weights))])
