"""The contextual bandit: domains that share one small policy, so that they compete, and differ in share and noise.

A question of domain g is x ~ N(0, I₁₆) beside the domain's one-hot code; its right answer of 4 is argmax A_g x, A_g
fixed and random; a hard domain has noise added to the scores before the argmax. The policy is one hidden layer of 48.
A step draws 64 questions × 8 answers and moves once along the policy gradient (on-policy, so that clipping never acts),
its norm held at 1. All seeds of all cells of a setting are one batch of policies; every cell sees the same questions
and the same uniform draws, so that differences between methods are paired. Advantages are the product's own.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.drpo_vs_grpo.methods import BINS, METHODS, BinsState, bins_advantages
from qoq_train.advantages import DrpoState
from qoq_train.losses import kl_penalty
from qoq_train.training.method import step_advantages

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTIONS, COMPLETIONS, FEATURES, ANSWERS, HIDDEN = 64, 8, 16, 4, 48
HELD_OUT: Final = 1000
"""Questions of each domain that a policy is judged on."""

ADAM_RATE: Final = 3e-3
CHECKS: Final = 6
"""How often a run is judged, evenly over its steps."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Shares of the domains in training, and the noise of each; figures of one share and one noise a domain."""

    name: str
    shares: tuple[float, ...]
    noise: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A method with an optimiser: Adam at a learning rate, or steps along the gradient all of one length."""

    method: str
    rate: float = ADAM_RATE
    optimiser: Literal["adam", "length"] = "adam"


class Questions:
    """The questions of one setting, seed by seed: [seeds, questions]; the same for every cell and any other seeds."""

    def __init__(self, setting: Setting, seeds: Sequence[int], stream: int) -> None:
        self._setting = setting
        self._generators = [torch.Generator().manual_seed(1_000_003 * seed + stream) for seed in seeds]
        worlds = [torch.Generator().manual_seed(7_000_003 * seed + 1) for seed in seeds]
        shape = len(setting.shares), ANSWERS, FEATURES
        self._scores = torch.stack([torch.randn(shape, generator=world) for world in worlds])

    def uniform(self, *shape: int) -> Tensor:
        """Draws from [0, 1): [seeds, *shape]."""
        return torch.stack([torch.rand(shape, generator=one) for one in self._generators])

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws: [seeds, *shape]."""
        return torch.stack([torch.randn(shape, generator=one) for one in self._generators])

    def drawn_domains(self, count: int) -> Tensor:
        """Domains by their shares."""
        edges = torch.tensor(self._setting.shares).cumsum(0)[:-1].contiguous()
        return torch.bucketize(self.uniform(count), edges, right=True)

    def ask(self, domains: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a policy sees [seeds, questions, features + domains], right answers, and those without the noise."""
        x = self.normal(domains.shape[1], FEATURES)
        noise = self.normal(domains.shape[1], ANSWERS) * torch.tensor(self._setting.noise)[domains][..., None]
        seeds = torch.arange(len(domains))[:, None]
        scores = torch.einsum("sqax,sqx->sqa", self._scores[seeds, domains], x)
        seen = torch.cat([x, torch.nn.functional.one_hot(domains, len(self._setting.shares)).float()], dim=-1)
        return seen, (scores + noise).argmax(-1), scores.argmax(-1)


class Policies:
    """One small network a (cell, seed), all cells of a seed alike at the start; ``rates`` has one value a cell."""

    def __init__(self, cells: Sequence[Cell], seeds: Sequence[int], n_domains: int) -> None:
        generators = [torch.Generator().manual_seed(9_000_011 * seed + 2) for seed in seeds]
        width = FEATURES + n_domains
        first = torch.stack([torch.randn(width, HIDDEN, generator=g) / math.sqrt(width) for g in generators])
        last = torch.stack([torch.randn(HIDDEN, ANSWERS, generator=g) * 0.05 for g in generators])
        zero, nought = torch.zeros(len(seeds), 1, HIDDEN), torch.zeros(len(seeds), 1, ANSWERS)
        self.weights = [
            part.repeat(len(cells), 1, 1).requires_grad_() for part in (first, zero, last, nought)
        ]  # [cells · seeds, ...], cells outermost
        self.runs = len(cells) * len(seeds)
        self._cells = len(cells)
        self._rates = torch.tensor([cell.rate for cell in cells]).repeat_interleave(len(seeds)).view(-1, 1, 1)
        fixed = torch.tensor([cell.optimiser == "length" for cell in cells])
        self._of_one_length = fixed.repeat_interleave(len(seeds)).view(-1, 1, 1)
        self._moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in self.weights]
        self._step = 0

    def log_probabilities(self, seen: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        """Of the answers: [cells · seeds, questions, answers], from what the seeds see."""
        first, bias, last, shift = weights or self.weights
        inputs = seen.repeat(self._cells, 1, 1)
        return torch.baddbmm(shift, torch.baddbmm(bias, inputs, first).relu(), last).log_softmax(-1)

    def move(self, loss: Tensor) -> Tensor:
        """One optimiser step on the sum of the runs' losses; the length of each run's step."""
        gradients = torch.autograd.grad(loss, self.weights)
        norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt().view(-1, 1, 1)
        self._step += 1
        moved = torch.zeros(self.runs)
        with torch.no_grad():
            for weight, gradient, (mean, square) in zip(self.weights, gradients, self._moments, strict=True):
                held = gradient / norm.clamp(min=1)
                mean.lerp_(held, 0.1)
                square.lerp_(held * held, 0.001)
                unbiased = (square / (1 - 0.999**self._step)).sqrt() + 1e-8
                adam = mean / (1 - 0.9**self._step) / unbiased
                change = self._rates * torch.where(self._of_one_length, gradient / norm.clamp(min=1e-12), adam)
                weight.sub_(change)
                moved += change.flatten(1).square().sum(1)
        return moved.sqrt()


class Advantages:
    """The advantages of one run, with what its method remembers."""

    def __init__(self, method: str) -> None:
        self._recipe = None if method == BINS else METHODS[method].recipe
        self._state, self._bins = DrpoState(), BinsState()

    @property
    def needs_kl(self) -> bool:
        return self._recipe is not None and self._recipe.kl_damping

    def of(self, rewards: Tensor, domains: Sequence[str], greedy: Tensor, kl: Tensor | None) -> Tensor:
        """Advantages (questions × completions) of one step."""
        if self._recipe is None:
            return torch.from_numpy(bins_advantages(rewards.double().numpy(), domains, self._bins)).float()
        found, self._state, _ = step_advantages(
            self._recipe, rewards, domains, self._state, kl=kl, greedy_rewards=greedy
        )
        return found


def train(setting: Setting, cells: Sequence[Cell], seeds: Sequence[int], steps: int) -> list[dict[str, Any]]:
    """Every run of the cells: a plain line each, with accuracy and macro-F1 by domain at each check.

    ``step_length`` is the mean length of a step in the space of weights, ``seconds`` the batch's time over its runs.
    """
    start = time.perf_counter()
    questions = Questions(setting, seeds, stream=3)
    policies = Policies(cells, seeds, len(setting.shares))
    initial = [weight.detach().clone() for weight in policies.weights]
    advantages = [Advantages(cell.method) for cell in cells for _ in seeds]
    lengths = torch.zeros(policies.runs)
    checks: list[dict[str, Any]] = [{} for _ in advantages]
    for step in range(1, steps + 1):
        domains = questions.drawn_domains(QUESTIONS)
        seen, right, _ = questions.ask(domains)
        log_probs = policies.log_probabilities(seen)
        drawn = _drawn(log_probs.detach(), questions.uniform(QUESTIONS, COMPLETIONS).repeat(len(cells), 1, 1))
        right = right.repeat(len(cells), 1)
        rewards = 0.2 + 0.6 * (drawn == right[..., None]).float()
        greedy = 0.2 + 0.6 * (log_probs.detach().argmax(-1) == right).float()
        chosen = log_probs.gather(-1, drawn)
        kl = _kl(policies, seen, drawn, chosen, initial) if any(one.needs_kl for one in advantages) else None
        names = [[f"domain {d}" for d in row] for row in domains.tolist()]
        weights = torch.stack(
            [
                one.of(rewards[i], names[i % len(seeds)], greedy[i], None if kl is None else kl[i])
                for i, one in enumerate(advantages)
            ]
        )
        lengths += policies.move(-(weights * chosen).mean((1, 2)).sum())
        if step * CHECKS % steps < CHECKS:
            for of_run, figures in zip(checks, _judged(setting, policies, seeds, len(cells)), strict=True):
                of_run[str(step)] = figures
    seconds = (time.perf_counter() - start) / len(checks)
    return [
        {
            "task": "bandit", "setting": setting.name, **asdict(cell), "seed": seed, "steps": steps,
            "step_length": float(lengths[i] / steps), "checks": checks[i], "seconds": seconds,
        }
        for i, (cell, seed) in enumerate((cell, seed) for cell in cells for seed in seeds)
    ]  # fmt: skip


def limit(setting: Setting, seeds: Sequence[int]) -> list[float]:
    """The accuracy, by domain, of the answer that the noise-free scores give: what a policy can hope for."""
    questions = Questions(setting, seeds, stream=4)
    found = []
    for domain in range(len(setting.shares)):
        _, right, best = questions.ask(torch.full((len(seeds), HELD_OUT), domain))
        found.append(float((right == best).float().mean()))
    return found


def _drawn(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """Answers by their probabilities [runs, questions, completions], one uniform draw each."""
    edges = log_probs.exp().cumsum(-1)[..., :-1].contiguous()
    return torch.searchsorted(edges, uniform.contiguous(), right=True)


def _kl(policies: Policies, seen: Tensor, drawn: Tensor, chosen: Tensor, initial: Sequence[Tensor]) -> Tensor:
    """The k3 estimate of each answer's KL to the policy of the start."""
    with torch.no_grad():
        reference = policies.log_probabilities(seen, initial).gather(-1, drawn)
    flat, wanted = chosen.detach().flatten(0, 1), reference.flatten(0, 1)
    return kl_penalty(flat, wanted, torch.ones_like(flat, dtype=torch.bool)).per_token.reshape(chosen.shape)


def _judged(setting: Setting, policies: Policies, seeds: Sequence[int], n_cells: int) -> list[dict[str, list[float]]]:
    """Accuracy and macro-F1 by domain of each run, on questions that no step saw."""
    questions = Questions(setting, seeds, stream=4)
    accuracy, macro_f1 = [], []
    for domain in range(len(setting.shares)):
        seen, right, _ = questions.ask(torch.full((len(seeds), HELD_OUT), domain))
        with torch.no_grad():
            answered = policies.log_probabilities(seen).argmax(-1).numpy()
        truth = right.repeat(n_cells, 1).numpy()
        accuracy.append((answered == truth).mean(axis=1))
        macro_f1.append(_macro_f1(answered, truth))
    return [
        {"accuracy": a, "macro_f1": f}
        for a, f in zip(np.transpose(accuracy).tolist(), np.transpose(macro_f1).tolist(), strict=True)
    ]


def _macro_f1(answered: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mean F1 of the answers that are right of some question: one value a run (rows)."""
    answers = np.arange(ANSWERS)[:, None, None]
    named, true = answered == answers, truth == answers
    hits, both = (named & true).sum(-1), named.sum(-1) + true.sum(-1)
    asked = true.any(-1)
    scores: np.ndarray[Any, Any] = (np.where(asked, 2 * hits / np.maximum(both, 1), 0).sum(0)) / asked.sum(0)
    return scores
