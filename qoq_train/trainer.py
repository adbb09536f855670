"""On-policy training: draw completions, judge them, weigh them, move the policy, hand its weights to the engine.

A step is one batch of questions. What it did is in its log line; what it needs to go on is in the checkpoint. All
draws follow from the recipe's seed, the step and the row, so a run that was killed goes on to the same numbers.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qoq_data.record import Split
from qoq_train.advantages import DrpoState, filter_groups
from qoq_train.assembly import Assembly, facts_of
from qoq_train.evaluate import evaluate, scalars, text_of
from qoq_train.losses import Denominators
from qoq_train.method import MicroBatch, kl_of_completions, micro_loss, needs_reference, padded, step_advantages
from qoq_train.models.inputs import EncodedPrompt, Row
from qoq_train.models.scoring import Scorer, ScoringChoice, encode_rows, iterate_batches, score_rows
from qoq_train.models.weights import state_for_engine
from qoq_train.optimiser import TrainingError, learning_rate_share, make_optimiser, trained_parameters, update
from qoq_train.prompts import LeftOut
from qoq_train.rewards import Reward, RowFacts, rewards_of
from qoq_train.rollout import Completion, Prompt, RolloutEngine, Sampling

if TYPE_CHECKING:
    from qoq_train.data import Example
    from qoq_train.run_folder import RunFolder

Log = Callable[[dict[str, float]], None]


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The questions of a step with their completions and what each is worth."""

    prompts: tuple[Prompt, ...]
    facts: tuple[RowFacts, ...]
    completions: tuple[tuple[Completion, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    rewards: tuple[tuple[Reward, ...], ...]
    left_out: int

    @property
    def totals(self) -> torch.Tensor:
        """Rewards (questions × completions)."""
        return torch.tensor([[reward.total for reward in group] for group in self.rewards], dtype=torch.float64)


class Trainer:
    """A run: its assembly, its engine and its folder. ``run`` starts it, or goes on where it was."""

    def __init__(self, assembly: Assembly, engine: RolloutEngine, folder: RunFolder, log: Log) -> None:
        recipe = assembly.recipe
        self._assembly, self._engine, self._folder, self._log = assembly, engine, folder, log
        self._policy = assembly.policy
        self._scorer = Scorer(assembly.policy)
        self._optimiser = make_optimiser(
            assembly.policy.model,
            recipe.optimiser.learning_rate,
            recipe.optimiser.betas,
            recipe.optimiser.weight_decay,
        )
        self._rows = assembly.corpus.rows(Split.TRAIN)
        self._state = DrpoState()
        self._reference = self._reference_scorer() if needs_reference(recipe.method) else None
        self._choice = ScoringChoice(recipe.rollout.temperature, assembly.policy.banned_ids)
        self._seconds: dict[str, float] = {}

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        run, questions = self._assembly.recipe.run, self._assembly.recipe.rollout.questions
        return run.steps or self._rows.steps(questions, run.epochs)

    def run(self) -> None:
        """Train to the end, from the folder's last checkpoint where there is one.

        Raises ``TrainingError`` for a loss or gradient that is not finite; the step before it is kept.
        """
        recipe = self._assembly.recipe
        first = self._resume()
        questions = recipe.rollout.questions
        batches = self._rows.batches(questions, first, seed=recipe.seed)
        for step, examples in zip(range(first, self.steps), batches, strict=False):
            figures = self.step(step, examples)
            self._folder.log("metrics", figures)
            self._log(figures)
            last = step + 1 == self.steps
            if last or (step + 1) % recipe.run.evaluate_every == 0:
                self._evaluate(step + 1)
            if last or (step + 1) % recipe.run.checkpoint_every == 0:
                self._save(step + 1)

    def step(self, step: int, examples: Sequence[Example]) -> dict[str, float]:
        """One step on a batch of rows, and its figures for the log."""
        recipe = self._assembly.recipe
        self._seconds = {}
        with self._timed("generate"):
            drawn = self._draw(step, examples)
        if not drawn.prompts:
            raise TrainingError(f"step {step + 1}: every prompt is too long. Raise data.max_prompt_tokens.")
        with self._timed("score"):
            ids = [[one.token_ids for one in group] for group in drawn.completions]
            encoded, rows = encode_rows(self._policy, drawn.prompts, ids)
            old = self._scores(self._scorer, encoded, rows)
            reference = self._reference_scores(encoded, rows)
        totals = drawn.totals
        kl = None if reference is None else kl_of_completions(old, reference, "k3").reshape(totals.shape)
        lengths = torch.tensor([len(row.token_ids) for row in rows]).reshape(totals.shape)
        key = recipe.method.domain_key
        advantages, self._state, figures = step_advantages(
            recipe.method,
            totals,
            [getattr(facts, key) for facts in drawn.facts],
            self._state,
            kl=kl,
            greedy_rewards=self._greedy_rewards(drawn) if recipe.method.advantage == "remax" else None,
            lengths=lengths,
        )
        with self._timed("update"):
            figures |= self._update(step, drawn, encoded, rows, advantages, old, reference)
        with self._timed("weights"):
            self._engine.load_weights(state_for_engine(self._policy.model))
        self._keep_completions(step, drawn)
        return {"step": step + 1, **_reward_figures(drawn), **_mismatch(drawn, old), **figures, **self._seconds}

    def _draw(self, step: int, examples: Sequence[Example]) -> Drawn:
        recipe, writer = self._assembly.recipe.rollout, self._assembly.writer
        asked = [(example, writer.prompt(example)) for example in examples]
        kept = [(example, prompt) for example, prompt in asked if not isinstance(prompt, LeftOut)]
        for _, prompt in asked:
            if isinstance(prompt, LeftOut):
                self._folder.log("left_out", {"step": step + 1, "row": prompt.row_id, "tokens": prompt.tokens})
        prompts = tuple(prompt for _, prompt in kept)
        facts = tuple(facts_of(example, writer) for example, _ in kept)
        seed = self._assembly.recipe.seed * 1_000_003 + step
        sampling = Sampling(recipe.completions, recipe.max_tokens, recipe.temperature, recipe.top_p, seed)
        completions = tuple(tuple(group) for group in self._engine.generate(prompts, sampling))
        self._engine.sleep()
        texts = tuple(tuple(text_of(self._assembly, one) for one in group) for group in completions)
        rewards = rewards_of(texts, facts, self._assembly.rewards, self._assembly.user_rewards)
        return Drawn(prompts, facts, completions, texts, tuple(map(tuple, rewards)), len(asked) - len(kept))

    def _greedy_rewards(self, drawn: Drawn) -> torch.Tensor:
        recipe = self._assembly.recipe.rollout
        greedy = self._engine.generate(drawn.prompts, Sampling(1, recipe.max_tokens, 0.0))
        texts = [[text_of(self._assembly, group[0])] for group in greedy]
        rewards = rewards_of(texts, drawn.facts, self._assembly.rewards, self._assembly.user_rewards)
        return torch.tensor([group[0].total for group in rewards], dtype=torch.float64)

    def _scores(self, scorer: Scorer, encoded: Sequence[EncodedPrompt], rows: Sequence[Row]) -> list[torch.Tensor]:
        budget = self._assembly.recipe.optimiser.micro_tokens
        return score_rows(scorer, self._policy, encoded, rows, token_budget=budget, choice=self._choice)

    def _reference_scorer(self) -> Scorer | None:
        """A scorer of a frozen copy; None where the reference is the policy without its adapters."""
        if hasattr(self._policy.model, "disable_adapter"):
            return None
        frozen = copy.deepcopy(self._policy.model).requires_grad_(False)  # noqa: FBT003
        return Scorer(_with_model(self._policy, frozen))

    def _reference_scores(self, encoded: Sequence[EncodedPrompt], rows: Sequence[Row]) -> list[torch.Tensor] | None:
        if not needs_reference(self._assembly.recipe.method):
            return None
        if self._reference is not None:
            return self._scores(self._reference, encoded, rows)
        budget = self._assembly.recipe.optimiser.micro_tokens
        return score_rows(
            self._scorer, self._policy, encoded, rows, token_budget=budget, choice=self._choice, reference=True
        )

    def _update(
        self,
        step: int,
        drawn: Drawn,
        encoded: Sequence[EncodedPrompt],
        rows: Sequence[Row],
        advantages: torch.Tensor,
        old: Sequence[torch.Tensor],
        reference: Sequence[torch.Tensor] | None,
    ) -> dict[str, float]:
        recipe = self._assembly.recipe
        per_update, figures = recipe.optimiser.questions_per_update, _Means()
        live = filter_groups(drawn.totals) if recipe.method.filter_zero_variance else torch.arange(len(drawn.prompts))
        kept = set(live.tolist())
        rollout = [torch.tensor(one.log_probabilities) for group in drawn.completions for one in group]
        flat = advantages.reshape(-1).float()
        self._scorer.train()
        for start in range(0, len(drawn.prompts), per_update):
            numbers = [
                i for i, row in enumerate(rows) if start <= row.prompt < start + per_update and row.prompt in kept
            ]
            if not numbers:
                continue
            chosen = [rows[i] for i in numbers]
            denominators = Denominators(
                sum(len(row.token_ids) for row in chosen), len(chosen), recipe.rollout.max_tokens
            )
            whole = 0.0
            for batch in iterate_batches(self._policy, encoded, chosen, recipe.optimiser.micro_tokens):
                values = self._scorer(batch, self._choice).log_probabilities
                parts = values.split(list(batch.completion_lengths))
                of = [numbers[i] for i in batch.rows]
                micro = MicroBatch(
                    log_probs=padded(parts),
                    old=padded([old[i] for i in of]),
                    rollout=padded([rollout[i] for i in of]).to(values.device),
                    reference=None if reference is None else padded([reference[i] for i in of]),
                    advantages=flat[of].to(values.device),
                    mask=padded([torch.ones_like(part) for part in parts]).bool(),
                )
                loss, told = micro_loss(recipe.method, micro, denominators)
                loss.backward()  # type: ignore[no-untyped-call]
                whole += loss.item()
                figures.add(told)
            if not math.isfinite(whole):
                raise TrainingError(
                    f"step {step + 1}: the loss is not finite. The last checkpoint is the one to go on from."
                )
            share = learning_rate_share(step, recipe.optimiser.warmup_steps, self.steps, recipe.optimiser.schedule)
            rate = share * recipe.optimiser.learning_rate
            norm = update(self._policy.model, self._optimiser, rate, recipe.optimiser.max_grad_norm, f"step {step + 1}")
            figures.add({"loss": whole, "grad_norm": norm, "learning_rate": rate})
        return figures.means()

    def _keep_completions(self, step: int, drawn: Drawn) -> None:
        most = self._assembly.recipe.run.sampled_completions
        kept: list[dict[str, object]] = []
        for facts, texts, rewards in zip(drawn.facts, drawn.texts, drawn.rewards, strict=True):
            for text, reward in zip(texts, rewards, strict=True):
                if len(kept) == most:
                    break
                parts = {f"reward_{name}": value for name, value in reward.parts.items()}
                kept.append({"row": facts.id, "completion": text, "reward": reward.total, **parts})
        if kept:
            self._folder.write_completions(step + 1, kept)

    def _evaluate(self, step: int) -> None:
        run = self._assembly.recipe.run
        found, left_out = evaluate(
            self._assembly, self._engine, Split.VALIDATION, most=run.evaluation_rows, replicates=0
        )
        figures = {"step": step, "left_out": len(left_out), **scalars(found)}
        self._folder.log("evaluations", figures)
        self._log(figures)

    def _save(self, step: int) -> None:
        state = {
            "step": step,
            "weights": {name: tensor.detach().cpu() for name, tensor in trained_parameters(self._policy.model).items()},
            "optimiser": self._optimiser.state_dict(),
            "drpo": self._state.to_dict(),
            "random": torch.get_rng_state(),
        }
        self._folder.save(step, state, self._assembly.recipe.run.keep_checkpoints)

    def _resume(self) -> int:
        state = self._folder.latest()
        if state is None:
            return 0
        with torch.no_grad():
            for name, parameter in trained_parameters(self._policy.model).items():
                parameter.copy_(state["weights"][name])
        self._optimiser.load_state_dict(state["optimiser"])
        self._state = DrpoState.from_dict(state["drpo"])
        torch.set_rng_state(state["random"])
        self._engine.load_weights(state_for_engine(self._policy.model))
        return int(state["step"])

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[f"seconds/{phase}"] = time.perf_counter() - start


class _Means:
    """Means of figures by name over what was added."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self._values.items()}


def _with_model(policy: Any, model: torch.nn.Module) -> Any:
    from dataclasses import replace

    return replace(policy, model=model)


def _reward_figures(drawn: Drawn) -> dict[str, float]:
    means = _Means()
    for facts, group, completions in zip(drawn.facts, drawn.rewards, drawn.completions, strict=True):
        for reward, completion in zip(group, completions, strict=True):
            parts = {f"reward/{name}": value for name, value in reward.parts.items() if value is not None}
            means.add(
                {
                    "reward": reward.total,
                    f"reward/domain/{facts.domain}": reward.total,
                    "unreadable": float(reward.answer.unreadable is not None),
                    "tokens": float(len(completion.token_ids)),
                    "cut": float(not completion.stopped),
                    **parts,
                }
            )
    return {"questions": float(len(drawn.prompts)), "left_out": float(drawn.left_out), **means.means()}


def _mismatch(drawn: Drawn, old: Sequence[torch.Tensor]) -> dict[str, float]:
    """How far the engine's log-probabilities are from the trainer's; top-p alone adds up to −log p to a token's."""
    said = torch.cat([torch.tensor(one.log_probabilities) for group in drawn.completions for one in group])
    gap = (said - torch.cat([values.cpu() for values in old])).abs()
    return {"rollout_gap/mean": gap.mean().item(), "rollout_gap/max": gap.max().item()}
