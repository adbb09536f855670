"""Evaluation: one completion a row of a split, read and judged as in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qoq_train.evaluation.judging import outcome_of
from qoq_train.evaluation.metrics import Outcome, Report, report
from qoq_train.prompts import LeftOut
from qoq_train.rollout import Prompt, Sampling
from qoq_train.training.assembly import facts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoq_data.record import Split
    from qoq_train.data.corpus import Example, SplitRows
    from qoq_train.rollout import Completion, RolloutEngine
    from qoq_train.training.assembly import Assembly

ROWS_AT_ONCE = 256


def evaluate(
    assembly: Assembly, engine: RolloutEngine, split: Split, *, most: int | None = None, replicates: int = 1000
) -> tuple[Report, list[LeftOut]]:
    """The figures of the policy as the engine has it, and the rows whose prompt was too long to be asked.

    Of what ``evaluate_outcomes`` gives. Raises ``ValueError`` where no row is left.
    """
    outcomes, left_out = evaluate_outcomes(assembly, engine, split, most=most)
    return report(outcomes, replicates=replicates, seed=assembly.recipe.seed), left_out


def evaluate_outcomes(
    assembly: Assembly, engine: RolloutEngine, split: Split, *, most: int | None = None
) -> tuple[list[Outcome], list[LeftOut]]:
    """What was answered of each row, and the rows whose prompt was too long to be asked.

    At most ``most`` rows, which ones following from the recipe's seed. Several ranks ask a part of the rows each, and
    all have the whole.
    """
    recipe, ranks = assembly.recipe, assembly.ranks
    rows = assembly.corpus.rows(split)
    places = rows.sample(most, recipe.seed).tolist()
    own = places[ranks.rank * len(places) // ranks.world : (ranks.rank + 1) * len(places) // ranks.world]
    shares = ranks.shares(ranks.each(lambda: _outcomes(assembly, engine, rows, own)))
    outcomes = [outcome for found, _ in shares for outcome in found]
    return outcomes, [prompt for _, missed in shares for prompt in missed]


def _outcomes(
    assembly: Assembly, engine: RolloutEngine, rows: SplitRows, places: Sequence[int]
) -> tuple[list[Outcome], list[LeftOut]]:
    recipe = assembly.recipe
    sampling = Sampling(1, recipe.rollout.max_tokens, recipe.run.evaluation_temperature, 1.0, recipe.seed)
    outcomes: list[Outcome] = []
    left_out: list[LeftOut] = []
    for start in range(0, len(places), ROWS_AT_ONCE):
        asked: list[tuple[Example, Prompt]] = []
        for place in places[start : start + ROWS_AT_ONCE]:
            example = rows.example(place)
            prompt = assembly.writer.prompt(example)
            if isinstance(prompt, LeftOut):
                left_out.append(prompt)
            else:
                asked.append((example, prompt))
        drawn = engine.generate([prompt for _, prompt in asked], sampling)
        outcomes += [
            outcome_of(example, facts_of(example, assembly.writer), text_of(assembly, group[0]))
            for (example, _), group in zip(asked, drawn, strict=True)
        ]
    return outcomes, left_out


def text_of(assembly: Assembly, completion: Completion) -> str:
    """A completion's text without what ended it."""
    ids = completion.token_ids[:-1] if completion.stopped else completion.token_ids
    return str(assembly.policy.tokenizer.decode(list(ids)))
