"""The recipe's method as functions of a step: advantages of all questions, and the loss of a micro-batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qoq_train import advantages, losses
from qoq_train.advantages import DrpoConfig, DrpoState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from qoq_train.advantages.ranks import Gather
    from qoq_train.recipe import MethodRecipe


def drpo_config(recipe: MethodRecipe) -> DrpoConfig:
    """The recipe's switches of ``drpo``."""
    return DrpoConfig(
        statistics=recipe.statistics,
        domain_scaling=recipe.domain_scaling,
        cluster_scaling=recipe.cluster_scaling,
        kl_damping=recipe.kl_damping,
        max_clusters=recipe.max_clusters,
        elbow_tolerance=recipe.elbow_tolerance,
        mean_reward_floor=recipe.mean_reward_floor,
        max_weight_ratio=recipe.max_weight_ratio,
        normalise_std=recipe.normalise_std,
    )


def needs_reference(recipe: MethodRecipe) -> bool:
    """Whether anything in the method compares with a reference model."""
    return recipe.kl_coefficient > 0 or (recipe.advantage == "drpo" and recipe.kl_damping)


def step_advantages(
    recipe: MethodRecipe,
    rewards: Tensor,
    domains: Sequence[str],
    state: DrpoState,
    *,
    kl: Tensor | None,
    greedy_rewards: Tensor | None = None,
    lengths: Tensor | None = None,
    gather: Gather | None = None,
) -> tuple[Tensor, DrpoState, dict[str, float]]:
    """Advantages (questions × completions), the state for the next step, and figures for the log.

    ``kl`` is that of each completion to the reference, ``greedy_rewards`` (questions) are ReMax's baseline, ``lengths``
    the completions' tokens. Of several ranks each gives its share, which may have no question; then ``gather`` is
    theirs, and what is given back is as it would be for the whole, less the rows of others.
    """
    if recipe.advantage == "drpo":
        step = advantages.drpo(rewards, domains, state, drpo_config(recipe), kl=kl, gather=gather)
        return step.advantages, step.state, step.metrics.scalars()
    if recipe.advantage == "reinforce_plus_plus":
        found = advantages.reinforce_plus_plus(rewards, lengths, gather=gather)
    elif recipe.advantage == "gpg":
        found = advantages.gpg(rewards, gather=gather)
    else:
        found = _by_group(recipe, rewards, greedy_rewards) if len(rewards) else rewards
    return found, state, {}


def _by_group(recipe: MethodRecipe, rewards: Tensor, greedy_rewards: Tensor | None) -> Tensor:
    if recipe.advantage == "remax":
        if greedy_rewards is None:
            raise ValueError("remax needs the reward of each question's greedy completion")
        return advantages.remax(rewards, greedy_rewards)
    if recipe.advantage == "grpo":
        return advantages.grpo(rewards, normalise_std=recipe.normalise_std)
    return advantages.rloo(rewards) if recipe.advantage == "rloo" else advantages.dr_grpo(rewards)


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """One forward pass: values (completions × tokens), padded, and the mask of what is not padding.

    ``log_probs`` have gradients; ``old``, ``rollout`` and ``reference`` are the trainer's before the step, the
    engine's, and the reference model's.
    """

    log_probs: Tensor
    old: Tensor
    rollout: Tensor
    reference: Tensor | None
    advantages: Tensor
    mask: Tensor


def micro_loss(
    recipe: MethodRecipe, batch: MicroBatch, denominators: losses.Denominators
) -> tuple[Tensor, dict[str, float]]:
    """This micro-batch's part of the step's loss, policy and KL, and figures for the log."""
    weight = None
    figures: dict[str, float] = {}
    if recipe.importance_cap is not None:
        made = losses.rollout_weight(batch.old, batch.rollout, batch.mask, cap=recipe.importance_cap)
        weight = made.per_token
        figures |= {"importance/mean": made.mean.item(), "importance/truncated": made.truncated.item()}
    common: dict[str, Any] = {"clip_low": recipe.clip_low, "clip_high": recipe.clip_high, "rollout_weight": weight}
    arguments = (batch.log_probs, batch.old, batch.advantages, batch.mask)
    if recipe.loss == "ppo_clip":
        policy = losses.ppo_clip(*arguments, dual_clip=recipe.dual_clip, **common)
    elif recipe.loss == "gspo":
        policy = losses.gspo(*arguments, **common)
    else:
        policy = losses.cispo(*arguments, clip_high=recipe.clip_high, rollout_weight=weight)
    figures |= {
        f"policy/{name}": getattr(policy, name).item()
        for name in ("clipped_low", "clipped_high", "dual_clipped", "clamped", "mean_ratio")
    }
    total = losses.aggregate(policy.per_token, batch.mask, recipe.aggregation, denominators)
    if batch.reference is not None and recipe.kl_coefficient > 0:
        kl = losses.kl_penalty(batch.log_probs, batch.reference, batch.mask, recipe.kl_estimator)
        total = total + recipe.kl_coefficient * losses.aggregate(
            kl.per_token, batch.mask, recipe.aggregation, denominators
        )
    return total, figures


def kl_of_completions(policy: Sequence[Tensor], reference: Sequence[Tensor], estimator: losses.KlEstimator) -> Tensor:
    """The KL to the reference of each completion, summed over its tokens: float32 [completions]; there may be none."""
    if not policy:
        return torch.zeros(0)
    lengths = [len(values) for values in policy]
    mask = padded([torch.ones(length) for length in lengths]).bool()
    terms = losses.kl_penalty(padded(policy), padded(reference), mask, estimator)
    return terms.per_token.sum(dim=1)


def padded(values: Sequence[Tensor]) -> Tensor:
    """Rows of different lengths as one tensor (rows × longest), 0 where there is nothing."""
    return torch.nn.utils.rnn.pad_sequence(list(values), batch_first=True)
