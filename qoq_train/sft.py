"""The supervised stage: right completions in the format that rewards and evaluation read."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import torch

from qoq_data.record import Split
from qoq_train.models.inputs import Row, encode_prompt, make_batch
from qoq_train.models.scoring import Scorer, ScoringChoice
from qoq_train.optimiser import learning_rate_share, make_optimiser, update
from qoq_train.prompts import LeftOut
from qoq_train.targets import Target, supervised_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qoq_train.assembly import Assembly
    from qoq_train.data import Example
    from qoq_train.models.loading import Policy
    from qoq_train.rollout import Prompt


def supervise(assembly: Assembly, log: Callable[[dict[str, float]], None]) -> None:
    """Train the policy in place for the recipe's supervised steps; ``log`` is given each step's figures.

    Which thought a target holds is drawn from the seed and the row. Rows whose prompt is too long are left out.
    Raises ``TrainingError`` where a gradient is not finite.
    """
    recipe = assembly.recipe.supervised
    if not recipe.steps:
        return
    policy, scorer = assembly.policy, Scorer(assembly.policy)
    scorer.train()
    optimiser = make_optimiser(policy.model, recipe.learning_rate, recipe.betas, 0.0)
    seed = assembly.recipe.seed
    batches = assembly.corpus.rows(Split.TRAIN).batches(recipe.batch, seed=seed)
    for step, examples in zip(range(recipe.steps), batches, strict=False):
        pairs = supervised_pairs(assembly, examples, step)
        if not pairs:
            continue
        loss = _loss(policy, scorer, pairs, recipe.answer_weight)
        loss.backward()  # type: ignore[no-untyped-call]
        share = learning_rate_share(step, recipe.warmup_steps, recipe.steps, "linear")
        norm = update(policy.model, optimiser, share * recipe.learning_rate, 1.0, f"supervised step {step + 1}")
        log({"step": step + 1, "loss": loss.item(), "grad_norm": norm, "rows": len(pairs)})


def supervised_pairs(assembly: Assembly, examples: Sequence[Example], step: int) -> list[tuple[Prompt, Target]]:
    """Prompts and targets of a batch, without the rows that are too long."""
    pairs = (
        supervised_pair(assembly.writer, example, Random(f"{assembly.recipe.seed}/{step}/{example.row_id}"))  # noqa: S311
        for example in examples
    )
    return [pair for pair in pairs if not isinstance(pair, LeftOut)]


def target_ids(policy: Policy, target: Target, answer_weight: float) -> tuple[tuple[int, ...], list[float]]:
    """A target's token ids with the end of turn, and the weight of each in the loss."""
    encoded = policy.tokenizer(target.text, add_special_tokens=False, return_offsets_mapping=True)
    weights = [
        answer_weight if any(start < stop and first < end for first, stop in target.answer_spans) else 1.0
        for start, end in encoded["offset_mapping"]
    ]
    return (*encoded["input_ids"], policy.end_ids[0]), [*weights, 1.0]


def _loss(policy: Policy, scorer: Scorer, pairs: Sequence[tuple[Prompt, Target]], answer_weight: float) -> torch.Tensor:
    """Weighted mean of the negative log-probabilities of all targets' tokens."""
    encoded = [encode_prompt(policy, prompt) for prompt, _ in pairs]
    targets = [target_ids(policy, target, answer_weight) for _, target in pairs]
    rows = [Row(index, ids) for index, (ids, _) in enumerate(targets)]
    device = next(policy.model.parameters()).device
    batch = make_batch(encoded, rows, range(len(rows)), pad_id=policy.pad_id).to(device)
    values: torch.Tensor = scorer(batch, ScoringChoice()).log_probabilities
    weights = torch.tensor([weight for _, of_row in targets for weight in of_row], device=device)
    return -(values * weights).sum() / weights.sum()
