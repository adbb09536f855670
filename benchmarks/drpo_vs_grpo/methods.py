"""The methods that are compared, each a change of the recipe's ``method`` section, so that all run the product's code.

``BINS`` alone is not the product's: it is DRPO with equal bins of the mean reward in place of k-means, as the trials
had it that first showed the effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qoq_train.recipe import MethodRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

BASE: Final[dict[str, Any]] = {
    "kl_coefficient": 0.0, "kl_damping": False, "clip_high": 0.28, "dual_clip": None, "aggregation": "token_mean",
}  # fmt: skip
"""What all methods share: no KL, and the loss of the tiny recipe."""

BINS: Final = "bins"
BINS_A_DOMAIN: Final = 4


@dataclass(frozen=True, slots=True)
class Method:
    """A name, what it is in a table, and what it changes in the recipe's ``method`` section."""

    name: str
    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> MethodRecipe:
        """The section as the trainer reads it."""
        return MethodRecipe.model_validate(BASE | dict(self.changes))


def _drpo(**changes: Any) -> dict[str, Any]:
    return {"advantage": "drpo", **changes}


METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method("grpo", "GRPO", {"advantage": "grpo"}),
        Method("dr_grpo", "Dr. GRPO", {"advantage": "dr_grpo"}),
        Method("rloo", "RLOO", {"advantage": "rloo"}),
        Method("reinforce_plus_plus", "REINFORCE++", {"advantage": "reinforce_plus_plus"}),
        Method("remax", "ReMax", {"advantage": "remax"}),
        Method("gpg", "GPG", {"advantage": "gpg"}),
        Method("drpo", "DRPO as shipped", _drpo()),
        Method("unscaled", "DRPO without any scaling", _drpo(domain_scaling=False, cluster_scaling=False)),
        Method("domain_only", "DRPO, domains only", _drpo(cluster_scaling=False)),
        Method("clusters_only", "DRPO, clusters only", _drpo(domain_scaling=False)),
        Method(BINS, "DRPO, 4 bins for k-means"),
        Method("clusters_1", "DRPO, at most 1 cluster", _drpo(max_clusters=1)),
        Method("clusters_3", "DRPO, at most 3 clusters", _drpo(max_clusters=3)),
        Method("clusters_20", "DRPO, at most 20 clusters", _drpo(max_clusters=20)),
        Method("ratio_3", "DRPO, weights within 3", _drpo(max_weight_ratio=3.0)),
        Method("ratio_10", "DRPO, weights within 10", _drpo(max_weight_ratio=10.0)),
        Method("ratio_none", "DRPO, weights not bounded", _drpo(max_weight_ratio=None)),
        Method("floor_0", "DRPO, no floor of mean rewards", _drpo(mean_reward_floor=0.0)),
        Method("floor_02", "DRPO, floor of mean rewards 0.2", _drpo(mean_reward_floor=0.2)),
        Method("damped", "DRPO with KL damping", _drpo(kl_damping=True)),
        Method("batch", "DRPO, statistics of the batch", _drpo(statistics="batch")),
        Method(
            "paper", "DRPO as printed (batch, no bounds)",
            _drpo(statistics="batch", mean_reward_floor=0.0, max_weight_ratio=None),
        ),
        Method(
            "released", "DRPO as released (all history)",
            _drpo(statistics="history", mean_reward_floor=0.0, max_weight_ratio=None),
        ),
    )
}  # fmt: skip


@dataclass(slots=True)
class BinsState:
    """Questions seen of each domain, and the sum of their mean rewards."""

    counts: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)


def bins_advantages(
    rewards: NDArray[np.float64], domains: Sequence[str], state: BinsState, bins: int = BINS_A_DOMAIN
) -> NDArray[np.float64]:
    """DRPO's advantages (questions × completions) with T_g from all questions so far and clusters that are bins.

    The bins are of equal width in the mean reward, from the smallest to the largest of the domain in this batch.
    ``state`` is brought up to date in place.
    """
    means = rewards.mean(axis=1)
    deviations = rewards.std(axis=1, ddof=1)
    scores = (rewards - means[:, None]) / (deviations[:, None] + 1e-6)
    names = np.asarray(domains)
    for name in sorted(set(domains)):
        own = np.flatnonzero(names == name)
        state.counts[name] = state.counts.get(name, 0.0) + len(own)
        state.sums[name] = state.sums.get(name, 0.0) + float(means[own].sum())
        domain_temperature = max(state.sums[name] / math.sqrt(state.counts[name]), 1e-6)  # √N · μ
        low, high = means[own].min(), means[own].max()
        width = (high - low) / bins or 1.0
        labels = np.minimum(((means[own] - low) / width).astype(int), bins - 1)
        sizes = np.bincount(labels, minlength=bins)
        sums = np.bincount(labels, means[own], bins)
        temperatures = np.maximum(sums / np.sqrt(np.maximum(sizes, 1)), 1e-6)
        scores[own] /= (domain_temperature * temperatures[labels])[:, None]
    advantages: NDArray[np.float64] = scores / (scores.std(ddof=1) + 1e-12)
    return advantages
