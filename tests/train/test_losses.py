"""Losses by hand, their gradients by finite differences, beside formulas in TRL's form, and however they are cut."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from qoq_train.losses import (
    MAX_LOG_RATIO,
    Aggregation,
    Denominators,
    PolicyLoss,
    aggregate,
    cispo,
    gspo,
    kl_penalty,
    ppo_clip,
    rollout_weight,
)

if TYPE_CHECKING:
    from collections.abc import Callable

torch.set_num_threads(1)

LOSSES = (ppo_clip, gspo, cispo)
MODES: tuple[Aggregation, ...] = ("token_mean", "sequence_mean", "constant")


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def case(seed: int = 0, rows: int = 8, tokens: int = 6, spread: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities, old ones, an advantage a completion and a ragged mask."""
    g = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(rows, tokens, generator=g, dtype=torch.float64) - 0.1
    new = old + spread * torch.randn(rows, tokens, generator=g, dtype=torch.float64)
    lengths = torch.randint(1, tokens + 1, (rows, 1), generator=g)
    mask = torch.arange(tokens) < lengths
    return new, old, torch.randn(rows, generator=g, dtype=torch.float64), mask


def counts(mask: Tensor) -> Denominators:
    return Denominators(int(mask.sum()), mask.shape[0], mask.shape[1])


def log_ratios(*ratios: float) -> tuple[Tensor, Tensor]:
    old = torch.full((1, len(ratios)), -1.0, dtype=torch.float64)
    return old + double([[math.log(r) for r in ratios]]), old


def test_ppo_clip_by_hand() -> None:
    new, old = log_ratios(0.5, 0.9, 1.25, 2.0)
    mask = torch.ones(1, 4)
    up = ppo_clip(new, old, double([2.0]), mask, clip_low=0.2, clip_high=0.3)
    torch.testing.assert_close(up.per_token, double([[-1.0, -1.8, -2.5, -2.6]]))
    assert (float(up.clipped_low), float(up.clipped_high)) == (0.0, 0.25)
    assert float(up.mean_ratio) == pytest.approx(4.65 / 4)
    down = ppo_clip(new, old, double([-2.0]), mask, clip_low=0.2, clip_high=0.3)
    torch.testing.assert_close(down.per_token, double([[1.6, 1.8, 2.5, 4.0]]))
    assert (float(down.clipped_low), float(down.clipped_high)) == (0.25, 0.0)
    token = ppo_clip(new, old, double([[1.0, -1.0, 0.0, 3.0]]), mask)
    torch.testing.assert_close(token.per_token, double([[-0.5, 0.9, 0.0, -3.6]]))


def test_dual_clip_by_hand() -> None:
    new, old = log_ratios(2.0, 3.5, 20.0, 20.0)
    advantages = double([[-1.0, -1.0, -0.5, 0.5]])
    loss = ppo_clip(new, old, advantages, torch.ones(1, 4), dual_clip=3.0)
    torch.testing.assert_close(loss.per_token, double([[2.0, 3.0, 1.5, -0.6]]))
    assert float(loss.dual_clipped) == 0.5


def test_gspo_by_hand() -> None:
    new, old = log_ratios(2.0, 8.0, 1e5)
    mask = torch.tensor([[1, 1, 0]])
    loss = gspo(new, old, double([-1.0]), mask)
    torch.testing.assert_close(loss.per_token, double([[4.0, 4.0, 0.0]]))  # √(2 · 8) at each token
    torch.testing.assert_close(gspo(new, old, double([1.0]), mask, clip_high=0.5).per_token, double([[-1.5, -1.5, 0]]))


def test_cispo_by_hand() -> None:
    new, old = log_ratios(0.5, 2.0, 9.0)
    new.requires_grad_()
    loss = cispo(new, old, double([2.0]), torch.ones(1, 3), clip_low=0.2, clip_high=4.0)
    weights = double([[0.8, 2.0, 5.0]])
    torch.testing.assert_close(loss.per_token, -weights * 2 * new)
    (gradient,) = torch.autograd.grad(loss.per_token.sum(), new)
    torch.testing.assert_close(gradient, -2 * weights)  # a clipped token keeps its gradient
    assert float(loss.clipped_low) == float(loss.clipped_high) == pytest.approx(1 / 3)


def test_kl_by_hand() -> None:
    policy, reference = double([[-1.0, -2.0]]), double([[-2.0, -1.5]])
    mask = torch.ones(1, 2)
    torch.testing.assert_close(kl_penalty(policy, reference, mask, "k1").per_token, double([[1.0, -0.5]]))
    torch.testing.assert_close(kl_penalty(policy, reference, mask, "k2").per_token, double([[0.5, 0.125]]))
    k3 = [[math.exp(-1) + 1 - 1, math.exp(0.5) - 0.5 - 1]]
    torch.testing.assert_close(kl_penalty(policy, reference, mask, "k3").per_token, double(k3))
    tiny = kl_penalty(double([[-1.0]]), double([[-1.0 + 1e-9]]), torch.ones(1, 1))
    assert float(tiny.per_token) == pytest.approx(5e-19, rel=0.5, abs=1e-16)


@pytest.mark.parametrize(("policy", "reference"), [(-100.0, -1.0), (-1.0, -100.0)])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_g02_kl_is_finite_for_any_pair_and_the_clamped_share_is_a_metric(
    policy: float, reference: float, estimator: Any, dtype: torch.dtype
) -> None:
    log_probs = torch.tensor([[policy, -1.0]], dtype=dtype, requires_grad=True)
    term = kl_penalty(log_probs, torch.tensor([[reference, -1.0]], dtype=dtype), torch.ones(1, 2), estimator)
    assert bool(torch.isfinite(term.per_token).all())
    assert term.per_token.dtype == torch.float32
    assert float(term.clamped) == 0.5
    (gradient,) = torch.autograd.grad(term.per_token.sum(), log_probs)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize(("new", "old"), [(-100.0, -1.0), (-1.0, -100.0), (-1.0, -1e4)])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_g02_policy_losses_are_finite_for_any_pair(
    new: float, old: float, loss: Callable[..., PolicyLoss], advantage: float
) -> None:
    log_probs = torch.tensor([[new, -1.0], [-1.0, -1.0]], dtype=torch.bfloat16, requires_grad=True)
    before = torch.tensor([[old, -1.0], [-1.0, -1.0]], dtype=torch.bfloat16)
    result = loss(log_probs, before, torch.tensor([advantage, advantage]), torch.ones(2, 2))
    (gradient,) = torch.autograd.grad(result.per_token.sum(), log_probs)
    assert bool(torch.isfinite(result.per_token).all())
    assert bool(torch.isfinite(gradient).all())
    assert float(result.clamped) == (0.5 if loss is gspo else 0.25)
    assert float(result.mean_ratio) <= math.exp(MAX_LOG_RATIO)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_stands_outside_the_mask_reaches_neither_loss_nor_gradient(loss: Callable[..., PolicyLoss]) -> None:
    new, old, advantages, mask = case()
    weight = torch.full_like(new, 0.5)
    clean = new.clone().requires_grad_()
    dirty = torch.where(mask, new, math.nan).requires_grad_()
    results = []
    for log_probs, before in ((clean, old), (dirty, torch.where(mask, old, math.inf))):
        result = loss(log_probs, before, advantages, mask, rollout_weight=torch.where(mask, weight, math.nan))
        kl = kl_penalty(log_probs, before, mask)
        total = aggregate(result.per_token + kl.per_token, mask, "token_mean", counts(mask))
        results.append((total.detach(), *torch.autograd.grad(total, log_probs), result.clipped_high, kl.clamped))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("loss", [ppo_clip, gspo])
@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_clipped_losses_by_finite_differences(loss: Callable[..., PolicyLoss], mode: Aggregation) -> None:
    new, old, advantages, mask = case(1, rows=4, tokens=3)
    options = {"dual_clip": 1.5} if loss is ppo_clip else {"clip_low": 0.1, "clip_high": 0.1}

    def total(log_probs: Tensor) -> Tensor:
        return aggregate(loss(log_probs, old, advantages, mask, **options).per_token, mask, mode, counts(mask))

    assert torch.autograd.gradcheck(total, new.requires_grad_())


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_gradients_of_kl_by_finite_differences(estimator: Any) -> None:
    new, ref, _, mask = case(2, rows=3, tokens=3)
    assert torch.autograd.gradcheck(lambda x: kl_penalty(x, ref, mask, estimator).per_token, new.requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
def test_at_the_old_policy_every_loss_has_the_policy_gradient(loss: Callable[..., PolicyLoss]) -> None:
    _, old, advantages, mask = case(3)
    new = old.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(new, old, advantages, mask).per_token.sum(), new)
    torch.testing.assert_close(gradient, -advantages[:, None] * mask)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mode", MODES)
def test_eight_micro_batches_of_one_equal_one_of_eight(loss: Callable[..., PolicyLoss], mode: Aggregation) -> None:
    new, old, advantages, mask = case(4)
    whole = counts(mask)
    gradients, totals = [], []
    for size in (8, 4, 1):
        log_probs = new.clone().requires_grad_()
        total = torch.zeros(())
        for start in range(0, 8, size):
            own = slice(start, start + size)
            # each micro-batch is cut to its own longest response
            width = int(mask[own].sum(1).max())
            part = loss(log_probs[own, :width], old[own, :width], advantages[own], mask[own, :width])
            kl = kl_penalty(log_probs[own, :width], old[own, :width], mask[own, :width])
            piece = aggregate(part.per_token + 0.1 * kl.per_token, mask[own, :width], mode, whole)
            piece.backward()
            total = total + piece.detach()
        gradients.append(log_probs.grad)
        totals.append(total)
    for gradient, total in zip(gradients[1:], totals[1:], strict=True):
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(total, totals[0], rtol=1e-6, atol=1e-8)


def trl_loss(
    kind: str, level: str, new: Tensor, old: Tensor, ref: Tensor, advantages: Tensor, mask: Tensor, longest: int
) -> Tensor:
    """The GRPO family as TRL states it: clip 0.2 and 0.28, β 0.04 on k3, CISPO bounded at 5."""
    m = mask.double()
    log_weight = new - old
    if level == "sequence":
        log_weight = ((log_weight * m).sum(-1) / m.sum(-1).clamp(min=1.0)).unsqueeze(-1)
    ratio = log_weight.exp()
    a = advantages.unsqueeze(1)
    if kind == "cispo":
        per_token = -ratio.clamp(max=5.0).detach() * a * new
    else:
        per_token = -torch.min(ratio * a, ratio.clamp(1 - 0.2, 1 + 0.28) * a)
    per_token = per_token + 0.04 * ((ref - new).exp() - (ref - new) - 1)
    if kind == "grpo":
        return ((per_token * m).sum(-1) / m.sum(-1).clamp(min=1.0)).mean()
    if kind == "dr_grpo":
        return (per_token * m).sum() / (per_token.size(0) * longest)
    return (per_token * m).sum() / m.sum()


@pytest.mark.parametrize(
    ("kind", "level", "mode"),
    [
        ("grpo", "token", "sequence_mean"), ("bnpo", "token", "token_mean"), ("dapo", "token", "token_mean"),
        ("dr_grpo", "token", "constant"), ("cispo", "token", "token_mean"),
        ("grpo", "sequence", "sequence_mean"), ("dapo", "sequence", "token_mean"),
    ],
)  # fmt: skip
def test_value_and_gradient_equal_trls_formulas(kind: str, level: str, mode: Aggregation) -> None:
    for seed in range(5):
        new, old, advantages, mask = case(seed, spread=0.4)
        ref = case(seed + 50)[0]
        theirs, ours = new.clone().requires_grad_(), new.clone().requires_grad_()
        expected = trl_loss(kind, level, theirs, old, ref, advantages, mask, longest=32)
        if kind == "cispo":
            part = cispo(ours, old, advantages, mask)
        else:
            method = gspo if level == "sequence" else ppo_clip
            part = method(ours, old, advantages, mask, clip_low=0.2, clip_high=0.28)
        per_token = part.per_token + 0.04 * kl_penalty(ours, ref, mask).per_token
        result = aggregate(per_token, mask, mode, Denominators(int(mask.sum()), len(mask), 32))
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
        expected.backward()
        result.backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_aggregation_by_hand() -> None:
    per_token = double([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0], [7.0, 7.0, 7.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])  # the last one, cut off, is still counted as a sequence
    whole = Denominators(tokens=4, sequences=3, max_tokens=8)
    assert float(aggregate(per_token, mask, "token_mean", whole)) == 4.0
    assert float(aggregate(per_token, mask, "sequence_mean", whole)) == 4.0
    assert float(aggregate(per_token, mask, "constant", whole)) == pytest.approx(16 / 24)
    assert float(aggregate(per_token, torch.zeros(3, 3), "sequence_mean", whole)) == 0


def test_rollout_weight_by_hand() -> None:
    trainer, engine = log_ratios(0.5, 1.5, 8.0)
    mask = torch.ones(1, 3)
    token = rollout_weight(trainer, engine, mask, cap=2.0)
    torch.testing.assert_close(token.per_token, double([[0.5, 1.5, 2.0]]))
    assert float(token.truncated) == pytest.approx(1 / 3)
    assert float(token.mean) == pytest.approx(4 / 3)
    sequence = rollout_weight(trainer, engine, mask, cap=3.0, level="sequence")
    torch.testing.assert_close(sequence.per_token, double([[3.0, 3.0, 3.0]]))  # 0.5 · 1.5 · 8 = 6
    far = rollout_weight(torch.tensor([[-1.0]]), torch.tensor([[-1e30]]), torch.ones(1, 1))
    assert far.per_token.tolist() == [[2.0]]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_rollout_weight_multiplies_each_tokens_loss(loss: Callable[..., PolicyLoss]) -> None:
    new, old, advantages, mask = case(5)
    weights = rollout_weight(old, old + 0.1, mask).per_token
    torch.testing.assert_close(
        loss(new, old, advantages, mask, rollout_weight=weights).per_token,
        loss(new, old, advantages, mask).per_token * weights,
    )


def test_only_the_new_log_probs_get_a_gradient() -> None:
    new, old, advantages, mask = case(6)
    old.requires_grad_()
    advantages.requires_grad_()
    for loss in (gspo, cispo):
        result = loss(new.clone().requires_grad_(), old.detach(), advantages, mask).per_token.sum()
        with pytest.raises(RuntimeError, match="not have been used"):
            torch.autograd.grad(result, advantages)
    assert not rollout_weight(old, new, mask).per_token.requires_grad


def test_misuse_is_named() -> None:
    new, old, advantages, mask = case(7)
    whole = counts(mask)
    for call, match in (
        (lambda: ppo_clip(new, old[:, 1:], advantages, mask), "one shape"),
        (lambda: ppo_clip(new, old, advantages[1:], mask), "advantages of shape"),
        (lambda: gspo(new, old, torch.zeros(8, 3), mask), "advantages of shape"),
        (lambda: ppo_clip(new, old, advantages, mask, clip_low=1.5), "clip range"),
        (lambda: ppo_clip(new, old, advantages, mask, dual_clip=1.0), "dual_clip"),
        (lambda: kl_penalty(new, old, mask, "k4"), "k1, k2 and k3"),  # type: ignore[arg-type]
        (lambda: rollout_weight(new, old, mask, cap=0.5), "cap"),
        (lambda: rollout_weight(new, old, mask, level="batch"), "level"),  # type: ignore[arg-type]
        (lambda: aggregate(new, mask, "mean", whole), "aggregation"),  # type: ignore[arg-type]
        (lambda: Denominators(0, 1, 1), "tokens = 0"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
