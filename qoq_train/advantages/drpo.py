"""Domain-aware relative policy optimisation (arXiv 2506.00711, section 3 and appendix B): the advantage step.

    s = (r − mean) / (std + ε)                in the group of one question
    w = 1 / (T_g · T_c)                       T = max(√N · μ, ε), of its domain and of its cluster
    z = s · w
    m = t / (t + max(z · KL, 0))              t: the 0.75 quantile of the positive products
    advantage = m · z / (std(m · z) + ε)      over the batch

Rarer (small N) and harder (small μ) domains and clusters weigh more. Only ratios of weights matter, since the last
line gives the batch unit variance; so w is taken relative to the median weight of the questions whose rewards differ.
The mean inside a group stays 0 unless the damping lowers some of its completions and not others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch

from qoq_train.advantages.groups import (
    EPSILON,
    centred,
    check_groups,
    exact_std,
    is_varied,
    normalised,
    refuse,
    to_array,
    to_tensor,
)
from qoq_train.advantages.metrics import ClusterMetrics, DomainMetrics, DrpoMetrics
from qoq_train.advantages.ranks import Gather, Share, merge
from qoq_train.advantages.state import DrpoState, Statistics
from qoq_train.advantages.statistics import (
    DomainStatistics,
    Population,
    batch_statistics,
    history_statistics,
    rows_by_domain,
    streaming_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DrpoConfig:
    """The switches of ``drpo``; ``paper`` and ``released`` give the published forms.

    statistics: where N and μ come from. "streaming": a decayed memory; "batch": this batch alone, as the paper prints
        it; "history": all questions ever seen, as the released code does it.
    domain_scaling, cluster_scaling, kl_damping: T_g, T_c and m; one that is off is 1. Damping needs a KL.
    max_clusters, elbow_tolerance: of the k-means inside a domain; the paper's 10 and 0.10.
    mean_reward_floor: least μ in a temperature; 0 is off. At 0.05 the temperature of a domain that always fails is 20
        times, and not a million times, under that of one at mean reward 1; a μ below it is noise in a few questions.
    max_weight_ratio: largest weight over smallest among the batch's questions, held evenly about the median; None is
        off. On a contextual bandit with a domain of 5 % (four seeds) that domain ends at an accuracy of .43 with a
        bound of 10, .50 with 30, .58 without one and .30 under GRPO; the mean over domains is .70, .70, .68 and .55
        (standard error .02). 30 keeps most of the gain, and at least 4·30/31² = 12 % of the questions effective, where
        without a bound one question can be the whole gradient.
    normalise_std: divide by the group's deviation (GRPO) or not (Dr. GRPO).
    unit_variance: the last step. Without it, and with all scaling off, the advantages are plain ``grpo``'s.
    kl_quantile: t in the damping; the paper's 0.75.
    half_life_questions: questions, of all domains, after which what streaming remembers counts half. At 4,096 (8 steps
        of the published 512) a domain with 1 % of the corpus still rests on 59 questions, so its μ is known to about
        0.05, and is a few steps behind the policy. On that bandit 512 does as well.
    window_questions: vectors remembered of each domain for its clusters. On that bandit 32 and 128 do equally well.
    """

    statistics: Statistics = "streaming"
    domain_scaling: bool = True
    cluster_scaling: bool = True
    kl_damping: bool = True
    max_clusters: int = 10
    elbow_tolerance: float = 0.10
    mean_reward_floor: float = 0.05
    max_weight_ratio: float | None = 30.0
    normalise_std: bool = True
    unit_variance: bool = True
    kl_quantile: float = 0.75
    half_life_questions: float = 4096.0
    window_questions: int = 64

    def __post_init__(self) -> None:
        ratio = math.inf if self.max_weight_ratio is None else self.max_weight_ratio
        for name, holds, asked in (
            ("statistics", self.statistics in get_args(Statistics), "batch, history or streaming"),
            ("max_clusters", self.max_clusters >= 1, "1 or more"),
            ("elbow_tolerance", 0 <= self.elbow_tolerance < 1, "from 0 to under 1"),
            ("mean_reward_floor", 0 <= self.mean_reward_floor <= 1, "from 0 (off) to 1"),
            ("max_weight_ratio", ratio >= 1, "1 or more, or None (off)"),
            ("kl_quantile", 0 < self.kl_quantile <= 1, "above 0, up to 1"),
            ("half_life_questions", 1 <= self.half_life_questions <= 1e12, "from 1 to 1e12"),
            ("window_questions", self.window_questions >= 1, "1 or more"),
        ):
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {asked}")

    @classmethod
    def paper(cls) -> DrpoConfig:
        """The paper's equations on the current batch, without bounds of our own."""
        return cls(statistics="batch", mean_reward_floor=0.0, max_weight_ratio=None)

    @classmethod
    def released(cls) -> DrpoConfig:
        """What the released code computes."""
        return cls(statistics="history", kl_damping=False, mean_reward_floor=0.0, max_weight_ratio=None)


@dataclass(frozen=True, slots=True)
class DrpoStep:
    """Advantages of the rows given (questions × completions), the state for the next step, and what was done."""

    advantages: torch.Tensor
    state: DrpoState
    metrics: DrpoMetrics


def drpo(
    rewards: torch.Tensor,
    domains: Sequence[str],
    state: DrpoState | None = None,
    config: DrpoConfig | None = None,
    *,
    kl: torch.Tensor | None = None,
    gather: Gather | None = None,
) -> DrpoStep:
    """One advantage step over the whole batch, of which this rank may hold only some questions.

    ``rewards`` is (questions × completions), ``domains`` one name a question, ``kl`` of the rewards' shape the KL to
    the reference summed over each response. A question that is seen again counts again. Except for "history", neither
    the order of questions, nor that of completions, nor the cut over ranks changes any advantage by a bit, and finite
    rewards never give one that is not finite.

    Raises:
        ValueError: a reward or KL is not finite; a reward is negative while scaling is on (μ divides); damping is on
            and ``kl`` is absent; shapes do not fit; the state is of other statistics or another number of completions;
            "history" without a floor meets a cluster of mean reward 0, by which the released code divides.
        MissingExtraError: "history" without scikit-learn.
    """
    config, state = config or DrpoConfig(), state or DrpoState()
    if config.kl_damping and kl is None:
        raise ValueError("kl_damping is on and no kl was given: pass the KL of each completion, or switch it off")
    beside = to_array(kl) if kl is not None and config.kl_damping else None
    whole, own = merge(Share(to_array(rewards), tuple(domains), beside), gather)
    _check(whole, config, state)

    rows = rows_by_domain(whole.domains)
    statistics, new_state = _statistics(config, state, whole.rewards, rows)
    varied = is_varied(whole.rewards)
    log_weights = _log_weights(config, statistics, rows, len(varied))
    median = float(np.median(log_weights[varied] if varied.any() else log_weights))
    limit = math.inf if config.max_weight_ratio is None else math.log(config.max_weight_ratio) / 2
    relative = np.clip(log_weights - median, -limit, limit)
    weights = np.exp(relative)

    scores = normalised(whole.rewards) if config.normalise_std else centred(whole.rewards)
    scaled = scores * weights[:, None]
    damping = np.ones_like(scaled) if whole.beside is None else _damping(scaled * whole.beside, config.kl_quantile)
    damped = damping * scaled
    if config.unit_variance:
        # The released code adds ε to the deviation of weights as they are, not of weights relative to their median.
        unit = math.exp(median) if config.statistics == "history" else 1.0
        advantages = damped * unit / (exact_std(damped * unit) + EPSILON)
    else:
        advantages = damped
    metrics = DrpoMetrics(
        domains=_domain_metrics(statistics, rows, weights),
        zero_variance_share=1 - float(varied.mean()),
        bounded_share=float((np.abs(log_weights - median) > limit).mean()),
        damped_share=float((damping < 1).mean()),
        mean_damping=math.fsum(damping.ravel()) / damping.size,
        effective_sample_size=_effective_share(weights[varied]),
    )
    return DrpoStep(to_tensor(advantages[own], rewards), new_state, metrics)


def _check(whole: Share, config: DrpoConfig, state: DrpoState) -> None:
    check_groups(whole.rewards, "reward", whole.domains)
    if len(whole.domains) != len(whole.rewards):
        raise ValueError(f"{len(whole.domains)} domain(s) for {len(whole.rewards)} question(s)")
    if config.domain_scaling or config.cluster_scaling:
        reason = "negative, and DRPO's scaling divides by mean rewards: shift the reward, or switch the scaling off"
        refuse(whole.rewards, whole.rewards < 0, "reward", whole.domains, reason)
    if whole.beside is not None:
        check_groups(whole.beside, "kl", whole.domains)
    if state.statistics not in (None, config.statistics):
        raise ValueError(f"the state was gathered with statistics {state.statistics!r}, not {config.statistics!r}")
    if state.completions not in (0, whole.rewards.shape[1]):
        raise ValueError(
            f"the state was gathered at {state.completions} completions a question, this batch has "
            f"{whole.rewards.shape[1]}: keep their number, or start from an empty state"
        )


def _statistics(
    config: DrpoConfig, state: DrpoState, rewards: NDArray[np.float64], rows: Mapping[str, NDArray[np.int64]]
) -> tuple[dict[str, DomainStatistics], DrpoState]:
    if config.statistics == "batch":
        return batch_statistics(config, rewards, rows), DrpoState("batch", rewards.shape[1])
    if config.statistics == "history":
        return history_statistics(config, state, rewards, rows)
    return streaming_statistics(config, state, rewards, rows)


def _log_weights(
    config: DrpoConfig, statistics: Mapping[str, DomainStatistics], rows: Mapping[str, NDArray[np.int64]], size: int
) -> NDArray[np.float64]:
    """The logarithm of 1 / (T_g · T_c) for each question of the batch."""
    log_weights = np.zeros(size)
    for name, own in rows.items():
        found = statistics[name]
        if config.domain_scaling:
            log_weights[own] -= math.log(_temperature(found.domain, config.mean_reward_floor, EPSILON))
        if config.cluster_scaling:
            least = 0.0 if config.statistics == "history" else EPSILON
            temperatures = [_temperature(c, config.mean_reward_floor, least) for c in found.clusters]
            if min(temperatures[label] for label in set(found.labels.tolist())) <= 0:
                raise ValueError(
                    f"domain {name!r}: a cluster has mean reward 0, and the released computation divides by it: "
                    "set mean_reward_floor above 0, or take other statistics than 'history'"
                )
            log_weights[own] -= np.log(np.maximum(temperatures, np.finfo(float).tiny))[found.labels]
    return log_weights


def _temperature(population: Population, floor: float, least: float) -> float:
    """max(√N · max(μ, floor), least): the paper's T, with a floor under μ."""
    return max(math.sqrt(population.count) * max(population.mean_reward, floor), least)


def _damping(products: NDArray[np.float64], quantile: float) -> NDArray[np.float64]:
    """m for each completion from z · KL (paper, eq. 4 and 5): 1 where the product is not positive."""
    positive = products[products > 0]
    if not positive.size:
        return np.ones_like(products)
    threshold = float(np.quantile(positive, quantile))
    factors: NDArray[np.float64] = threshold / (threshold + np.maximum(products, 0.0))
    return factors


def _effective_share(weights: NDArray[np.float64]) -> float:
    if not weights.size:
        return 0.0
    scaled = weights / weights.max()
    return float(math.fsum(scaled) ** 2 / (math.fsum(scaled * scaled) * scaled.size))


def _domain_metrics(
    statistics: Mapping[str, DomainStatistics], rows: Mapping[str, NDArray[np.int64]], weights: NDArray[np.float64]
) -> dict[str, DomainMetrics]:
    metrics = {}
    for name, own in rows.items():
        found = statistics[name]
        sizes = np.bincount(found.labels, minlength=len(found.clusters))
        sums = np.bincount(found.labels, weights[own], len(found.clusters))
        clusters = tuple(
            ClusterMetrics(int(n), cluster.count, cluster.mean_reward, float(total / n) if n else 0.0)
            for cluster, n, total in zip(found.clusters, sizes, sums, strict=True)
        )
        domain = found.domain
        weight = math.fsum(weights[own]) / len(own)
        metrics[name] = DomainMetrics(len(own), domain.count, domain.mean_reward, weight, clusters)
    return metrics
