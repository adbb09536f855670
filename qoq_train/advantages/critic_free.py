"""The critic-free methods that DRPO is compared with, under the names TRL and verl use.

All take rewards (questions × completions) and return advantages of that shape, one a completion, on the same device;
non-finite rewards are a ValueError. Those whose statistics span the batch take a ``Gather`` for several ranks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from qoq_train.advantages.groups import (
    LARGEST,
    centred,
    check_groups,
    exact_std,
    is_varied,
    normalised,
    refuse,
    to_array,
    to_tensor,
)
from qoq_train.advantages.ranks import Gather, Share, merge

if TYPE_CHECKING:
    from numpy.typing import NDArray


def grpo(rewards: torch.Tensor, *, normalise_std: bool = True) -> torch.Tensor:
    """Group relative advantages: (reward − mean of its group) / (unbiased std of its group + 1e-6).

    Without ``normalise_std`` they are Dr. GRPO's. Source: arXiv 2402.03300.
    """
    values = _checked(rewards)
    return to_tensor(normalised(values) if normalise_std else centred(values), rewards)


def dr_grpo(rewards: torch.Tensor) -> torch.Tensor:
    """Reward less the mean of its group, not divided by any deviation. Source: arXiv 2503.20783."""
    return grpo(rewards, normalise_std=False)


def rloo(rewards: torch.Tensor) -> torch.Tensor:
    """Reward less the mean of the group's other completions. Source: arXiv 2402.14740."""
    values = _checked(rewards)
    n_completions = values.shape[1]
    return to_tensor(centred(values) * (n_completions / (n_completions - 1)), rewards)


def reinforce_plus_plus(
    rewards: torch.Tensor, response_lengths: torch.Tensor | None = None, *, gather: Gather | None = None
) -> torch.Tensor:
    """Rewards whitened over the whole batch, without regard to groups. Source: arXiv 2501.03262.

    Whitening is over tokens, as verl does it, when ``response_lengths`` (of the rewards' shape, in tokens) are given:
    a completion then counts as often as it has tokens. Without them each counts once.
    """
    return _whitened(rewards, response_lengths, gather, baseline=False)


def reinforce_plus_plus_baseline(
    rewards: torch.Tensor, response_lengths: torch.Tensor | None = None, *, gather: Gather | None = None
) -> torch.Tensor:
    """Rewards less their group's mean, then whitened over the whole batch as ``reinforce_plus_plus`` does."""
    return _whitened(rewards, response_lengths, gather, baseline=True)


def remax(rewards: torch.Tensor, greedy_rewards: torch.Tensor) -> torch.Tensor:
    """Reward less that of the question's greedy completion. Source: arXiv 2310.10505.

    ``greedy_rewards`` has one value a question.
    """
    values = _checked(rewards, least_completions=1)
    greedy = to_array(greedy_rewards)
    if greedy.shape != values.shape[:1]:
        raise ValueError(f"greedy rewards of shape {greedy.shape} for {len(values)} question(s)")
    check_groups(greedy[:, None], "greedy rewards", least_completions=1)
    return to_tensor(values - greedy[:, None], rewards)


def gpg(rewards: torch.Tensor, *, gather: Gather | None = None) -> torch.Tensor:
    """Reward less its group's mean, times (questions / questions whose rewards differ). Source: arXiv 2504.02546.

    The factor makes up for the groups that give no gradient. verl counts completions with a reward other than 0
    instead, which equals this only by chance; the paper's count is used here.
    """
    whole, own = merge(Share(to_array(rewards)), gather)
    check_groups(whole.rewards, "rewards")
    n_varied = int(is_varied(whole.rewards).sum())
    return to_tensor(centred(whole.rewards)[own] * (len(whole.rewards) / max(n_varied, 1)), rewards)


def filter_groups(rewards: torch.Tensor) -> torch.Tensor:
    """Row numbers of the questions whose rewards differ, ascending: what DAPO's dynamic sampling keeps.

    Source: arXiv 2503.14476. The name is verl's recipe key.
    """
    return torch.from_numpy(np.flatnonzero(is_varied(_checked(rewards)))).to(rewards.device)


def _checked(rewards: torch.Tensor, least_completions: int = 2) -> NDArray[np.float64]:
    values = to_array(rewards)
    check_groups(values, "rewards", least_completions=least_completions)
    return values


def _whitened(
    rewards: torch.Tensor, response_lengths: torch.Tensor | None, gather: Gather | None, *, baseline: bool
) -> torch.Tensor:
    lengths = None if response_lengths is None else to_array(response_lengths)
    whole, own = merge(Share(to_array(rewards), beside=lengths), gather)
    check_groups(whole.rewards, "rewards", least_completions=2 if baseline else 1)
    values = centred(whole.rewards) if baseline else whole.rewards
    if whole.beside is None:
        if values.size < 2:
            raise ValueError("one completion has no deviation to be whitened by")
        mean, deviation = math.fsum(values.ravel()) / values.size, exact_std(values)
    else:
        refuse(whole.beside, ~((whole.beside >= 0) & (whole.beside <= LARGEST)), "response length", (), "not a count")
        n_tokens = math.fsum(whole.beside.ravel())
        if n_tokens < 2:
            raise ValueError(f"{n_tokens:g} token(s) have no deviation to be whitened by")
        mean = math.fsum((whole.beside * values).ravel()) / n_tokens
        deviation = math.sqrt(math.fsum((whole.beside * (values - mean) ** 2).ravel()) / (n_tokens - 1))
    if values.max() == values.min():
        return to_tensor(np.zeros_like(values)[own], rewards)
    # 1e-8 is added to the variance, as verl's whitening does
    return to_tensor((values[own] - mean) / math.sqrt(deviation**2 + 1e-8), rewards)
