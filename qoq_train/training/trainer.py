"""On-policy training: draw completions, judge them, weigh them, move the policy, hand its weights to the engine.

A step is one batch of questions. What it did is in its log line; what it needs to go on is in the checkpoint. All
draws follow from the recipe's seed, the step and the row, so a run that was killed goes on to the same numbers.

On several processes each has its part of the questions and an engine of its own; rewards are weighed, denominators
counted and gradients added over all of them, so that a step is what it would be on one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import torch

from qoq_data.record import Split
from qoq_train.advantages import DrpoState
from qoq_train.evaluation.metrics import report
from qoq_train.evaluation.text import scalars
from qoq_train.training.assembly import Assembly
from qoq_train.training.checkpoint import gathered_state, take_state
from qoq_train.training.drawing import (
    Drawn,
    batches_of_rank,
    draw,
    greedy_rewards,
    reward_figures,
    sampled_completions,
    share_of_step,
)
from qoq_train.training.evaluate import evaluate_outcomes
from qoq_train.training.figures import Clock, largest
from qoq_train.training.memory_errors import Phase, memory_told
from qoq_train.training.method import kl_of_completions, step_advantages
from qoq_train.training.optimiser import NotFiniteError, TrainingError, learning_rate_share, make_optimiser
from qoq_train.training.scores import Scored, Scoring
from qoq_train.training.updating import Updating, failed_rows, rollout_gap

if TYPE_CHECKING:
    from qoq_train.data.corpus import Example
    from qoq_train.rollout import RolloutEngine
    from qoq_train.training.run_folder import RunFolder

Log = Callable[[dict[str, float]], None]


class Trainer:
    """A run: its assembly, its engine and its folder. ``run`` starts it, or goes on where it was.

    On several ranks each has one; the first alone writes into the folder and is heard by ``log``.
    """

    def __init__(self, assembly: Assembly, engine: RolloutEngine, folder: RunFolder, log: Log) -> None:
        recipe = assembly.recipe
        self._assembly, self._engine, self._folder, self._log = assembly, engine, folder, log
        self._ranks = assembly.ranks
        self._optimiser = make_optimiser(
            assembly.policy.model,
            recipe.optimiser.learning_rate,
            recipe.optimiser.betas,
            recipe.optimiser.weight_decay,
        )
        self._scoring = Scoring(assembly)
        self._updating = Updating(assembly, self._optimiser, self._scoring.choice)
        self._rows = assembly.corpus.rows(Split.TRAIN)
        self._state = DrpoState()
        self._clock = Clock()
        if self._ranks.world > 1:
            torch.manual_seed(recipe.seed * 1_000_003 + self._ranks.rank)  # of dropout alone, which is each rank's own

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        run, questions = self._assembly.recipe.run, self._assembly.recipe.rollout.questions
        return run.steps or self._rows.steps(questions, run.epochs)

    def run(self) -> None:
        """Train to the end, from the folder's last checkpoint where there is one.

        Raises ``TrainingError`` for a loss or gradient that is not finite, with what led to it in the folder, and where
        memory does not suffice; ``RolloutError`` where the engine does not hold the policy's weights; ``RankError``
        where another process failed.
        """
        recipe = self._assembly.recipe
        with self._ranks.joined():
            first = self._resume()
            batches = batches_of_rank(
                self._rows, recipe.rollout.questions, self._numbers(), first, self.steps, recipe.seed
            )
            with closing(batches), closing(self._folder):
                if not first:
                    self._evaluate(0)
                for step in range(first, self.steps):
                    examples = self._ranks.each(lambda: next(batches))
                    figures = self.step(step, examples)
                    self._tell("metrics", figures)
                    last = step + 1 == self.steps
                    if last or (step + 1) % recipe.run.evaluate_every == 0:
                        self._evaluate(step + 1)
                    if last or (step + 1) % recipe.run.checkpoint_every == 0:
                        self._save(step + 1)

    def step(self, step: int, examples: Sequence[Example]) -> dict[str, float]:
        """One step on a batch of rows, of which these are this rank's, and its figures for the log."""
        recipe, ranks = self._assembly.recipe, self._ranks
        self._clock = Clock()
        with self._phase("generate", step):
            drawn = ranks.each(lambda: self._draw(step, examples))
        for prompt in (prompt for share in ranks.shares(drawn.left_out) for prompt in share):
            self._folder.log("left_out", {"step": step + 1, "row": prompt.row_id, "tokens": prompt.tokens})
        if not ranks.any(bool(drawn.prompts)):
            raise TrainingError(f"step {step + 1}: every prompt is too long. Raise data.max_prompt_tokens.")
        with self._phase("score", step):
            scored = self._scoring.score(drawn)
        totals = drawn.totals(recipe.rollout.completions)
        kl = None
        if scored.reference is not None:
            kl = kl_of_completions(scored.old, scored.reference, "k3").reshape(totals.shape)
        greedy = None
        if recipe.method.advantage == "remax":
            with self._phase("generate", step):
                greedy = ranks.each(lambda: self._greedy(drawn))
        advantages, self._state, figures = step_advantages(
            recipe.method,
            totals,
            [getattr(facts, recipe.method.domain_key) for facts in drawn.facts],
            self._state,
            kl=kl,
            greedy_rewards=greedy,
            lengths=torch.tensor([len(row.token_ids) for row in scored.rows]).reshape(totals.shape),
            gather=ranks.gather,
        )
        with self._phase("update", step):
            figures |= self._update(step, drawn, scored, advantages)
        with self._phase("weights", step):
            figures |= self._hand_over(drawn)
        if kept := sampled_completions(drawn, recipe.run.sampled_completions):
            self._folder.write_completions(step + 1, kept)
        told = {**reward_figures(drawn, ranks), **self._gap(drawn, scored), **figures, **self._pace(drawn)}
        return {"step": step + 1, **told}

    def _numbers(self) -> list[int]:
        recipe = self._assembly.recipe
        return share_of_step(recipe.rollout.questions, recipe.optimiser.questions_per_update, self._ranks)

    def _draw(self, step: int, examples: Sequence[Example]) -> Drawn:
        numbers = self._numbers() if self._ranks.world > 1 else range(len(examples))
        try:
            return draw(self._assembly, self._engine, step, numbers, examples)
        finally:
            self._engine.sleep()

    def _greedy(self, drawn: Drawn) -> torch.Tensor:
        try:
            return greedy_rewards(self._assembly, self._engine, drawn)
        finally:
            self._engine.sleep()

    def _update(self, step: int, drawn: Drawn, scored: Scored, advantages: torch.Tensor) -> dict[str, float]:
        recipe = self._assembly.recipe.optimiser
        share = learning_rate_share(step, recipe.warmup_steps, self.steps, recipe.schedule)
        try:
            return self._updating.run(share * recipe.learning_rate, drawn, scored, advantages, f"step {step + 1}")
        except NotFiniteError as error:
            rows = [
                {"rank": rank, **row}
                for rank, share in enumerate(self._ranks.shares(failed_rows(drawn, scored, advantages)))
                for row in share
            ]
            name = self._folder.write_failure(step + 1, rows)
            raise NotFiniteError(f"{error} What led to it is in {name} of the run's folder.") from None

    def _hand_over(self, drawn: Drawn) -> dict[str, float]:
        """Give the engine the new weights, and have it say of a few completions what the policy says."""
        probes = self._assembly.recipe.rollout.probe_completions
        probe = self._scoring.probe(drawn) if probes else []
        self._assembly.load_engine(self._engine)
        return {"weights_gap/max": self._scoring.weights_gap(self._engine, drawn, probe)} if probes else {}

    def _gap(self, drawn: Drawn, scored: Scored) -> dict[str, float]:
        means, most = rollout_gap(drawn, scored)
        return {**means.means(self._ranks), **largest({"rollout_gap/max": most}, self._ranks)}

    def _pace(self, drawn: Drawn) -> dict[str, float]:
        """Seconds by phase, of the slowest rank in each, and completion tokens of all ranks a second of the step."""
        seconds = largest({f"seconds/{name}": value for name, value in self._clock.seconds.items()}, self._ranks)
        tokens = sum(len(one.token_ids) for group in drawn.completions for one in group)
        return {**seconds, "tokens_per_second": self._ranks.total(tokens)[0] / sum(seconds.values())}

    def _evaluate(self, step: int) -> None:
        run = self._assembly.recipe.run
        with memory_told("evaluate", f"evaluation after step {step}"):
            outcomes, left_out = evaluate_outcomes(
                self._assembly, self._engine, Split.VALIDATION, most=run.evaluation_rows
            )
        if not outcomes:
            raise TrainingError(
                f"evaluation after step {step}: of its split no row is left to ask, {len(left_out)} being too "
                "long. Raise data.max_prompt_tokens, or choose other sources and tasks."
            )
        self._folder.write_evaluation(step, Split.VALIDATION, self._assembly.corpus, outcomes)
        found = report(outcomes, replicates=0)
        self._tell("evaluations", {"step": step, "left_out": len(left_out), **scalars(found)})

    def _tell(self, name: str, figures: dict[str, float]) -> None:
        self._folder.log(name, figures)
        if self._ranks.is_first:
            self._log(figures)

    def _save(self, step: int) -> None:
        state = gathered_state(step, self._assembly.policy.model, self._optimiser, self._state, self._ranks)
        self._ranks.each(lambda: self._folder.save(step, state, self._assembly.recipe.run.keep_checkpoints))

    def _resume(self) -> int:
        state = self._ranks.each(self._folder.latest)
        if not self._ranks.from_first(state is not None):
            return 0
        step, self._state = take_state(state, self._assembly.policy.model, self._optimiser, self._ranks)
        self._assembly.load_engine(self._engine)
        return step

    @contextmanager
    def _phase(self, phase: Phase, step: int) -> Iterator[None]:
        with self._clock.phase(phase), memory_told(phase, f"step {step + 1}"):
            yield
