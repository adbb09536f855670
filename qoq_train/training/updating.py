"""The update of a step: its loss in micro-batches, the gradient over all ranks, and the weights moved along it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from qoq_train.advantages import filter_groups
from qoq_train.losses import Denominators
from qoq_train.models.scoring import iterate_batches
from qoq_train.training.figures import Means
from qoq_train.training.method import MicroBatch, micro_loss, padded
from qoq_train.training.optimiser import NotFiniteError, update

if TYPE_CHECKING:
    from qoq_train.models.inputs import Batch
    from qoq_train.models.scoring import ScoringChoice
    from qoq_train.training.assembly import Assembly
    from qoq_train.training.drawing import Drawn
    from qoq_train.training.scores import Scored


class Updating:
    """How a run moves its policy: its optimiser and what the recipe says of a step's updates."""

    def __init__(self, assembly: Assembly, optimiser: torch.optim.Optimizer, choice: ScoringChoice) -> None:
        self._assembly, self._optimiser, self._choice = assembly, optimiser, choice

    def run(
        self, learning_rate: float, drawn: Drawn, scored: Scored, advantages: torch.Tensor, what: str
    ) -> dict[str, float]:
        """All updates of a step, and their figures. ``advantages`` (questions × completions) are this rank's.

        An update takes the next ``questions_per_update`` of the questions that all ranks kept, in the step's order.
        Raises ``NotFiniteError`` and leaves the weights as the update before left them.
        """
        recipe, ranks = self._assembly.recipe, self._assembly.ranks
        figures = Means()
        self._assembly.scorer.train()
        for numbers in self._updates(drawn, scored):
            chosen = [scored.rows[i] for i in numbers]
            tokens, sequences = ranks.total(sum(len(row.token_ids) for row in chosen), len(chosen))
            if not sequences:
                continue
            denominators = Denominators(int(tokens), int(sequences), recipe.rollout.max_tokens)
            (loss,) = ranks.total(self._backward(numbers, scored, drawn, advantages, denominators, figures))
            if not math.isfinite(loss):
                self._optimiser.zero_grad(set_to_none=True)
                raise NotFiniteError(f"{what}: the loss is not finite. The last checkpoint is the one to go on from.")
            norm = update(
                self._assembly.policy.model, self._optimiser, learning_rate, recipe.optimiser.max_grad_norm, what
            )
            figures.add({"loss": loss, "grad_norm": norm, "learning_rate": learning_rate})
        return figures.means(ranks)

    def _updates(self, drawn: Drawn, scored: Scored) -> Iterator[list[int]]:
        """Numbers of this rank's rows in each update, the same count of updates on all ranks; some may be empty."""
        recipe = self._assembly.recipe
        per_update = recipe.optimiser.questions_per_update
        of_all = sorted(number for share in self._assembly.ranks.shares(drawn.numbers) for number in share)
        place = {number: place for place, number in enumerate(of_all)}
        live = set(range(len(drawn.prompts)))
        if recipe.method.filter_zero_variance and drawn.prompts:
            live = set(filter_groups(drawn.totals(recipe.rollout.completions)).tolist())
        for start in range(0, len(of_all), per_update):
            yield [
                i
                for i, row in enumerate(scored.rows)
                if row.prompt in live and start <= place[drawn.numbers[row.prompt]] < start + per_update
            ]

    def _backward(
        self,
        numbers: Sequence[int],
        scored: Scored,
        drawn: Drawn,
        advantages: torch.Tensor,
        denominators: Denominators,
        figures: Means,
    ) -> float:
        """Add this rank's part to the gradient, and give its part of the loss."""
        assembly, scorer = self._assembly, self._assembly.scorer
        chosen = [scored.rows[i] for i in numbers]
        flat, said, whole = advantages.reshape(-1).float(), drawn.said, 0.0
        for batch in iterate_batches(assembly.policy, scored.encoded, chosen, assembly.recipe.optimiser.micro_tokens):
            values = scorer(batch, self._choice).log_probabilities
            micro = _micro_batch(values, batch, [numbers[i] for i in batch.rows], scored, said, flat)
            loss, told = micro_loss(assembly.recipe.method, micro, denominators)
            # Gradients are averaged over ranks, and the parts of the loss are to be added up.
            (loss * assembly.ranks.world).backward()  # type: ignore[no-untyped-call]
            whole += loss.item()
            figures.add(told)
        scorer.finish()
        return whole


def failed_rows(drawn: Drawn, scored: Scored, advantages: torch.Tensor) -> list[dict[str, Any]]:
    """What this rank's part of a step was before the update that failed, a row a completion."""
    flat, said = advantages.reshape(-1).tolist(), drawn.said
    rewards = [reward.total for group in drawn.rewards for reward in group]
    return [
        {
            "row": scored.encoded[row.prompt].row_id,
            "prompt_token_ids": list(drawn.prompts[row.prompt].token_ids),
            "token_ids": list(row.token_ids),
            "reward": rewards[i],
            "advantage": flat[i],
            "old_log_probabilities": scored.old[i].tolist(),
            "rollout_log_probabilities": said[i].tolist(),
            "reference_log_probabilities": None if scored.reference is None else scored.reference[i].tolist(),
        }
        for i, row in enumerate(scored.rows)
    ]


def rollout_gap(drawn: Drawn, scored: Scored) -> tuple[Means, float]:
    """How far the engine's log-probabilities are from the trainer's; top-p alone adds up to −log p to a token's."""
    means, most = Means(), 0.0
    if scored.old:
        gap = (torch.cat(drawn.said) - torch.cat(scored.old)).abs()
        most = gap.max().item()
        means.add({"rollout_gap/mean": gap.mean().item()})
    return means, most


def _micro_batch(
    values: torch.Tensor,
    batch: Batch,
    of: Sequence[int],
    scored: Scored,
    said: Sequence[torch.Tensor],
    advantages: torch.Tensor,
) -> MicroBatch:
    parts = values.split(list(batch.completion_lengths))  # type: ignore[no-untyped-call]
    reference = scored.reference
    return MicroBatch(
        log_probs=padded(parts),
        old=padded([scored.old[i] for i in of]).to(values.device),
        rollout=padded([said[i] for i in of]).to(values.device),
        reference=None if reference is None else padded([reference[i] for i in of]).to(values.device),
        advantages=advantages[list(of)].to(values.device),
        mask=padded([torch.ones_like(part) for part in parts]).bool(),
    )
