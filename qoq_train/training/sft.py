"""The supervised stage: right completions in the format that rewards and evaluation read."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import torch

from qoq_data.record import Split
from qoq_train.models.inputs import Row, encode_prompt, make_batch
from qoq_train.models.scoring import ScoringChoice
from qoq_train.prompts import LeftOut
from qoq_train.targets import Target, supervised_pair, with_drawn_answer
from qoq_train.training.memory_errors import memory_told
from qoq_train.training.optimiser import learning_rate_share, make_optimiser, update

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qoq_train.data.corpus import Example
    from qoq_train.models.loading import Policy
    from qoq_train.rollout import Prompt
    from qoq_train.training.assembly import Assembly


def supervise(assembly: Assembly, log: Callable[[dict[str, float]], None]) -> None:
    """Train the policy in place for the recipe's supervised steps; ``log`` is given each step's figures.

    Which thought a target holds is drawn from the seed and the row. Rows whose prompt is too long are left out. Of
    several ranks each has a part of the batch, and the first logs. Raises ``TrainingError`` where a gradient is not
    finite or memory does not suffice, and ``RankError`` where another process failed.
    """
    recipe, ranks = assembly.recipe.supervised, assembly.ranks
    if not recipe.steps:
        return
    assembly.scorer.train()
    optimiser = make_optimiser(assembly.policy.model, recipe.learning_rate, recipe.betas, 0.0)
    batches = assembly.corpus.rows(Split.TRAIN).batches(
        recipe.batch, seed=assembly.recipe.seed, rank=ranks.rank, ranks=ranks.world
    )
    with ranks.joined():
        for step in range(recipe.steps):
            what = f"supervised step {step + 1}"
            pairs = ranks.each(lambda: supervised_pairs(assembly, next(batches), step))  # noqa: B023  (called at once)
            (rows,) = ranks.total(len(pairs))
            if not rows:
                continue
            with memory_told("supervised", what):
                loss = _backward(assembly, pairs, recipe.answer_weight)
            share = learning_rate_share(step, recipe.warmup_steps, recipe.steps, "linear")
            norm = update(assembly.policy.model, optimiser, share * recipe.learning_rate, 1.0, what)
            if ranks.is_first:
                log({"step": step + 1, "loss": loss, "grad_norm": norm, "rows": int(rows)})


def supervised_pairs(assembly: Assembly, examples: Sequence[Example], step: int) -> list[tuple[Prompt, Target]]:
    """Prompts and targets of a batch, without the rows that are too long."""
    recipe = assembly.recipe.supervised
    form_alone = step >= recipe.steps - round(recipe.steps * recipe.drawn_answers)
    pairs = []
    for example in examples:
        rng = Random(f"{assembly.recipe.seed}/{step}/{example.row_id}")  # noqa: S311
        pair = supervised_pair(assembly.writer, with_drawn_answer(example, rng) if form_alone else example, rng)
        if not isinstance(pair, LeftOut):
            pairs.append(pair)
    return pairs


def target_ids(policy: Policy, target: Target, answer_weight: float) -> tuple[tuple[int, ...], list[float]]:
    """A target's token ids with the end of turn, and the weight of each in the loss."""
    encoded = policy.tokenizer(target.text, add_special_tokens=False, return_offsets_mapping=True)
    weights = [
        answer_weight if any(start < stop and first < end for first, stop in target.answer_spans) else 1.0
        for start, end in encoded["offset_mapping"]
    ]
    return (*encoded["input_ids"], policy.end_ids[0]), [*weights, 1.0]


def _backward(assembly: Assembly, pairs: Sequence[tuple[Prompt, Target]], answer_weight: float) -> float:
    """The gradient of the weighted mean of the negative log-probabilities of all targets' tokens, and that mean."""
    policy, ranks = assembly.policy, assembly.ranks
    encoded = [encode_prompt(policy, prompt) for prompt, _ in pairs]
    targets = [target_ids(policy, target, answer_weight) for _, target in pairs]
    (total,) = ranks.total(sum(weight for _, of_row in targets for weight in of_row))
    part = 0.0
    if pairs:
        rows = [Row(index, ids) for index, (ids, _) in enumerate(targets)]
        device = next(policy.model.parameters()).device
        batch = make_batch(encoded, rows, range(len(rows)), pad_id=policy.pad_id, packed=policy.packed).to(device)
        values: torch.Tensor = assembly.scorer(batch, ScoringChoice()).log_probabilities
        weights = torch.tensor([weight for _, of_row in targets for weight in of_row], device=device)
        loss = -(values * weights).sum() / total
        (loss * ranks.world).backward()  # type: ignore[no-untyped-call]  # gradients are averaged over ranks
        part = loss.item()
    assembly.scorer.finish()
    return ranks.total(part)[0]
