"""Advantages of critic-free policy optimisation: pure functions of reward tensors (questions × completions).

``drpo`` is the domain-aware method, with its state and its metrics; the others are those it is compared with, under
the names that TRL and verl use. ``over_ranks`` makes the ones whose statistics span the batch see all ranks' rewards.
"""

from qoq_train.advantages.critic_free import (
    dr_grpo,
    filter_groups,
    gpg,
    grpo,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
    remax,
    rloo,
)
from qoq_train.advantages.drpo import DrpoConfig, DrpoStep, drpo
from qoq_train.advantages.metrics import ClusterMetrics, DomainMetrics, DrpoMetrics
from qoq_train.advantages.ranks import Gather, over_ranks
from qoq_train.advantages.state import DomainState, DrpoState

__all__ = [
    "ClusterMetrics", "DomainMetrics", "DomainState", "DrpoConfig", "DrpoMetrics", "DrpoState", "DrpoStep", "Gather",
    "dr_grpo", "drpo", "filter_groups", "gpg", "grpo", "over_ranks", "reinforce_plus_plus",
    "reinforce_plus_plus_baseline", "remax", "rloo",
]  # fmt: skip
