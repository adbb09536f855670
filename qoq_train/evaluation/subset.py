"""The rows of an evaluation that are at most so many of a class: the published evaluation was of such ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qoq_train.evaluation.metrics import at_most_per_class

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoq_train.evaluation.outcomes import Outcome


def few_per_class(outcomes: Sequence[Outcome], limit: int, *, seed: int) -> list[Outcome]:
    """Outcomes, in their order, of a seeded subset in which no true answer of a task stands more than ``limit`` times.

    Which ones follows from the seed and the rows' ids, and not from what was answered. Raises ``ValueError`` for an
    outcome without its row's id, and where the subset is empty.
    """
    if not all(outcome.row_id for outcome in outcomes):
        raise ValueError("an outcome lacks the id of its row, so no subset can be drawn")
    kept = at_most_per_class(
        [outcome.row_id for outcome in outcomes],
        [f"{outcome.dataset}/{outcome.task}" for outcome in outcomes],
        [outcome.key.answer for outcome in outcomes],
        limit=limit,
        seed=seed,
    )
    if not kept:
        raise ValueError("no row is left of the subset")
    return [outcomes[place] for place in kept]
