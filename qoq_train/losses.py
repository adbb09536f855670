"""Policy losses a token, the KL to a reference, and how both become one number.

Tensors are (completions × tokens); ``mask`` is True where a token was sampled by the policy. What stands outside the
mask, NaN included, reaches neither loss nor gradient. Log-probabilities in 16 bits are raised to single precision.
Log-ratios are clamped before they are exponentiated, and how often that happened is a metric. Advantages are one a
completion, or one a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

Aggregation = Literal["token_mean", "sequence_mean", "constant"]
KlEstimator = Literal["k1", "k2", "k3"]

MAX_LOG_RATIO: Final = 10.0
"""Log-ratios are held within ±10 before exp. A ratio of e^10 = 22,000 is far outside every clip range, and a k3 of
that size still has a term of order 1 at the published KL coefficient of 1e-4; at ±20 one token would weigh 50,000."""


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """Losses (completions × tokens; 0 outside the mask), and means over the masked tokens, detached.

    ``clipped_low`` and ``clipped_high``: share of tokens whose loss was taken at that end of the clip range;
    ``dual_clipped``: at the dual clip; ``clamped``: log-ratio held before exp; ``mean_ratio``: of policy over old.
    """

    per_token: Tensor
    clipped_low: Tensor
    clipped_high: Tensor
    dual_clipped: Tensor
    clamped: Tensor
    mean_ratio: Tensor


@dataclass(frozen=True, slots=True)
class KlTerm:
    """KL estimates (completions × tokens; 0 outside the mask), and the share of tokens held before exp."""

    per_token: Tensor
    clamped: Tensor


@dataclass(frozen=True, slots=True)
class RolloutWeight:
    """Weights (completions × tokens; detached), their mean and the share that was truncated."""

    per_token: Tensor
    mean: Tensor
    truncated: Tensor


@dataclass(frozen=True, slots=True)
class Denominators:
    """Counts over all that goes into one optimiser step: every micro-batch on every rank.

    ``tokens`` under the mask, ``sequences`` also those without any, ``max_tokens`` the longest a response may be.
    """

    tokens: int
    sequences: int
    max_tokens: int

    def __post_init__(self) -> None:
        for name in ("tokens", "sequences", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"a step with {name} = {getattr(self, name)} has no loss")


def ppo_clip(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    rollout_weight: Tensor | None = None,
) -> PolicyLoss:
    """The clipped surrogate −min(r·A, clip(r, 1 − low, 1 + high)·A), r the ratio of a token's probabilities.

    ``clip_high`` above ``clip_low`` is DAPO's clip-higher (the released code: 0.2, 0.3). ``dual_clip`` (above 1; the
    released code: 3) bounds the loss at −dual_clip·A where A is negative. Sources: arXiv 1707.06347, 2503.14476,
    1912.09729.
    """
    live = _mask(mask, log_probs, old_log_probs)
    log_ratio, clamped = _log_ratio(log_probs, old_log_probs, live)
    return _clipped(log_ratio.exp(), clamped, advantages, live, clip_low, clip_high, dual_clip, rollout_weight)


def gspo(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    rollout_weight: Tensor | None = None,
) -> PolicyLoss:
    """The clipped surrogate with one ratio a sequence: exp of the mean log-ratio of its tokens, at each of them.

    Source: arXiv 2507.18071, whose clip range stands as default.
    """
    live = _mask(mask, log_probs, old_log_probs)
    # the mean is clamped, not its tokens: one far token must not lose the sequence its gradient
    difference = torch.where(live, _wide(log_probs) - _wide(old_log_probs), 0.0)
    means = (difference.sum(-1, keepdim=True) / live.sum(-1, keepdim=True).clamp(min=1)).expand_as(difference)
    log_ratio = means.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    clamped = _share(means.detach().abs() > MAX_LOG_RATIO, live)
    return _clipped(log_ratio.exp(), clamped, advantages, live, clip_low, clip_high, None, rollout_weight)


def cispo(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float | None = None,
    clip_high: float = 4.0,
    rollout_weight: Tensor | None = None,
) -> PolicyLoss:
    """−sg(clip(r, 1 − low, 1 + high))·A·log π: the weight is clipped and has no gradient, every token keeps its own.

    Source: arXiv 2506.13585, without a lower bound as its authors used it. TRL's ``epsilon_high`` is 1 + clip_high.
    """
    live = _mask(mask, log_probs, old_log_probs)
    log_ratio, clamped = _log_ratio(log_probs.detach(), old_log_probs, live)
    ratio = log_ratio.exp()
    low = 0.0 if clip_low is None else 1 - clip_low
    held = ratio.clamp(low, 1 + clip_high)
    loss = -held * _a_token(advantages, live) * torch.where(live, _wide(log_probs), 0.0)
    return PolicyLoss(
        per_token=_weighted(loss, live, rollout_weight),
        clipped_low=_share(ratio < low, live),
        clipped_high=_share(ratio > 1 + clip_high, live),
        dual_clipped=torch.zeros_like(clamped),
        clamped=clamped,
        mean_ratio=_share(ratio, live),
    )


def kl_penalty(log_probs: Tensor, ref_log_probs: Tensor, mask: Tensor, estimator: KlEstimator = "k3") -> KlTerm:
    """The KL of the policy to the reference a token, estimated from the sampled token alone.

    With x = log π_ref − log π, clamped: k1 is −x, k2 is x²/2, k3 is e^x − x − 1 (unbiased, never negative). A clamped
    token has no gradient. Source: Schulman, Approximating KL divergence, 2020.
    """
    live = _mask(mask, log_probs, ref_log_probs)
    log_ratio, clamped = _log_ratio(ref_log_probs, log_probs, live)
    if estimator == "k1":
        return KlTerm(-log_ratio, clamped)
    if estimator == "k2":
        return KlTerm(log_ratio * log_ratio / 2, clamped)
    if estimator == "k3":
        return KlTerm(torch.expm1(log_ratio) - log_ratio, clamped)
    raise ValueError(f"KL estimator {estimator!r}; there are k1, k2 and k3")


def rollout_weight(
    old_log_probs: Tensor,
    rollout_log_probs: Tensor,
    mask: Tensor,
    *,
    cap: float = 2.0,
    level: Literal["token", "sequence"] = "token",
) -> RolloutWeight:
    """min(π_trainer / π_engine, cap): makes up for an engine that samples from slightly other probabilities.

    ``level`` "sequence" takes one ratio a completion, of the product over its tokens. Multiply the per-token policy
    loss by it (``rollout_weight`` of each loss does). Detached. Source: truncated importance sampling, Yao et al. 2025.
    """
    if level not in {"token", "sequence"}:
        raise ValueError(f"level {level!r}; there are token and sequence")
    if cap < 1:
        raise ValueError(f"cap is {cap}; below 1 it would lower the weight of completions that do not differ")
    live = _mask(mask, old_log_probs, rollout_log_probs)
    with torch.no_grad():
        difference = torch.where(live, _wide(old_log_probs) - _wide(rollout_log_probs), 0.0)
        if level == "sequence":
            difference = difference.sum(-1, keepdim=True).expand_as(difference)
        ratio = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        weights = torch.where(live, ratio.clamp(max=cap), 0.0)
        return RolloutWeight(weights, _share(weights, live), _share(ratio > cap, live))


def aggregate(per_token: Tensor, mask: Tensor, mode: Aggregation, denominators: Denominators) -> Tensor:
    """This micro-batch's part of the step's loss: over all micro-batches and ranks the parts add up to the whole.

    token_mean: sum over tokens / tokens of the step (DAPO). sequence_mean: the mean over each response's tokens, its
    sum over responses / responses of the step (GRPO). constant: sum over tokens / (responses × longest response)
    (Dr. GRPO). Where ranks' gradients are averaged and not added, multiply by the number of ranks.
    """
    live = _mask(mask, per_token, per_token)
    masked = torch.where(live, per_token, 0.0)
    if mode == "token_mean":
        return masked.sum() / denominators.tokens
    if mode == "sequence_mean":
        return (masked.sum(-1) / live.sum(-1).clamp(min=1)).sum() / denominators.sequences
    if mode == "constant":
        return masked.sum() / (denominators.sequences * denominators.max_tokens)
    raise ValueError(f"aggregation {mode!r}; there are token_mean, sequence_mean and constant")


def _wide(log_probs: Tensor) -> Tensor:
    return log_probs if log_probs.dtype == torch.float64 else log_probs.float()


def _mask(mask: Tensor, first: Tensor, second: Tensor) -> Tensor:
    if not mask.shape == first.shape == second.shape or mask.ndim != 2:
        shapes = [tuple(t.shape) for t in (mask, first, second)]
        raise ValueError(f"mask and log-probabilities must be of one shape (completions × tokens), not {shapes}")
    return mask.bool()


def _log_ratio(above: Tensor, below: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """log(above / below), 0 outside the mask, held within ±MAX_LOG_RATIO, and the share that was held."""
    ratio = torch.where(live, _wide(above) - _wide(below), 0.0)
    clamped = _share(ratio.detach().abs() > MAX_LOG_RATIO, live)
    return ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO), clamped


def _share(values: Tensor, live: Tensor) -> Tensor:
    """Mean over the masked tokens, detached; 0 if there are none."""
    with torch.no_grad():
        return torch.where(live, values.float(), 0.0).sum() / live.sum().clamp(min=1)


def _a_token(advantages: Tensor, live: Tensor) -> Tensor:
    spread = advantages[:, None] if advantages.ndim == 1 else advantages
    if spread.ndim != 2 or spread.shape[0] != live.shape[0] or spread.shape[1] not in {1, live.shape[1]}:
        raise ValueError(f"advantages of shape {tuple(advantages.shape)} for a mask of shape {tuple(live.shape)}")
    return torch.where(live, _wide(spread.detach()), 0.0)


def _weighted(loss: Tensor, live: Tensor, weight: Tensor | None) -> Tensor:
    masked = torch.where(live, loss, 0.0)
    return masked if weight is None else masked * torch.where(live, weight.detach(), 0.0)


def _clipped(
    ratio: Tensor,
    clamped: Tensor,
    advantages: Tensor,
    live: Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
    weight: Tensor | None,
) -> PolicyLoss:
    if not (0 <= clip_low <= 1 and clip_high >= 0):
        raise ValueError(f"clip range {clip_low}, {clip_high}: the low side is from 0 to 1, the high side 0 or more")
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(f"dual_clip is {dual_clip}; it must be above 1, or None")
    a_token = _a_token(advantages, live)
    loss = -torch.minimum(ratio * a_token, ratio.clamp(1 - clip_low, 1 + clip_high) * a_token)
    dual = torch.zeros_like(live)
    if dual_clip is not None:
        bound = -dual_clip * a_token
        dual = (a_token < 0) & (loss.detach() > bound)
        loss = torch.where(dual, bound, loss)
    return PolicyLoss(
        per_token=_weighted(loss, live, weight),
        clipped_low=_share((ratio < 1 - clip_low) & (a_token < 0), live),
        clipped_high=_share((ratio > 1 + clip_high) & (a_token > 0), live),
        dual_clipped=_share(dual, live),
        clamped=clamped,
        mean_ratio=_share(ratio, live),
    )
