"""How well answers agree with the truth, by task, dataset and domain and over all: figures, intervals, baselines.

A task's figures are over its rows, a dataset's the mean over its tasks, a domain's over its datasets, the overall
ones over domains, each over those that have the figure at all. With one task a dataset that is the published scheme.
An unreadable answer names no label; it is counted in ``unreadable_rate`` and as nothing else.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from qoq_train.evaluation.levels import Measured, measure
from qoq_train.evaluation.outcomes import Outcome
from qoq_train.evaluation.task_figures import FIGURE_TITLES, FIGURES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "FIGURES", "FIGURE_TITLES", "Difference", "Differences", "Figure", "Outcome", "Report", "Scores",
    "at_most_per_class", "differences", "report",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, its 95 % bootstrap interval, and the best that any one constant answer reaches on the same rows.

    The interval is None where none was asked for. There is no baseline of unreadable answers.
    """

    value: float
    low: float | None = None
    high: float | None = None
    constant: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """The figures of some rows by name; a figure that does not apply is not there. ``unreadable`` counts reasons."""

    rows: int
    figures: Mapping[str, Figure]
    unreadable: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """Scores over all, by domain, by (domain, dataset) and by (domain, dataset, task), each sorted by name."""

    overall: Scores
    domains: Mapping[str, Scores]
    datasets: Mapping[tuple[str, str], Scores]
    tasks: Mapping[tuple[str, str, str], Scores]


def report(outcomes: Sequence[Outcome], *, replicates: int = 1000, seed: int = 0) -> Report:
    """Every figure of an evaluation.

    Intervals resample whole patients, with replacement, within each dataset; a patient's rows of several tasks of it
    go together, those of other datasets do not. They depend on ``seed`` and the rows, not on their order. Without
    ``replicates`` there are none. Raises ``ValueError`` for no rows, a row without a group, and a task that asks for
    one answer in some rows and several in others.
    """
    levels = measure(outcomes, replicates=replicates, seed=seed)
    return Report(
        _scores(levels.overall),
        MappingProxyType({name: _scores(measured) for name, measured in levels.domains.items()}),
        MappingProxyType({name: _scores(measured) for name, measured in levels.datasets.items()}),
        MappingProxyType({name: _scores(measured) for name, measured in levels.tasks.items()}),
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """How much the second is above the first, with the paired 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Differences:
    """Differences by figure, over all, by domain and by (domain, dataset), on ``rows`` rows that both answered."""

    rows: int
    overall: Mapping[str, Difference]
    domains: Mapping[str, Mapping[str, Difference]]
    datasets: Mapping[tuple[str, str], Mapping[str, Difference]]


def differences(
    first: Sequence[Outcome], second: Sequence[Outcome], *, replicates: int = 1000, seed: int = 0
) -> Differences:
    """The second evaluation's figures less the first's, paired: each replicate draws the same patients for both.

    Rows are matched by id, and the two have to be of the same rows. Boxes are compared where the same rows were asked
    for them. Raises ``ValueError`` where they are not, where a
    row's question, patient or place differs between them, without replicates, and as ``report``.
    """
    if replicates < 1:
        raise ValueError("a paired difference needs replicates")
    sides = [{outcome.row_id: outcome for outcome in side} for side in (first, second)]
    if "" in sides[0] or len(sides[0]) != len(first) or len(sides[1]) != len(second):
        raise ValueError("an outcome has no row's id, or a row two outcomes")
    if sides[0].keys() != sides[1].keys():
        raise ValueError("the two evaluations are not of the same rows")
    for row_id, one in sides[0].items():
        if _asked(one) != _asked(sides[1][row_id]):
            raise ValueError(f"{row_id} was another question, or another patient's, in the two evaluations")
    if any((one.box_iou is None) != (sides[1][row_id].box_iou is None) for row_id, one in sides[0].items()):
        sides = [{row_id: replace(one, box_iou=None) for row_id, one in side.items()} for side in sides]
    a, b = (measure([side[row_id] for row_id in sorted(side)], replicates=replicates, seed=seed) for side in sides)
    return Differences(
        len(first),
        _differences(a.overall, b.overall),
        MappingProxyType({name: _differences(a.domains[name], b.domains[name]) for name in a.domains}),
        MappingProxyType({name: _differences(a.datasets[name], b.datasets[name]) for name in a.datasets}),
    )


def at_most_per_class(
    ids: Sequence[str], tasks: Sequence[str], answers: Sequence[Sequence[str]], *, limit: int = 24, seed: int = 0
) -> list[int]:
    """Positions, rising, of a seeded subset in which no true answer of a task stands in more than ``limit`` rows.

    The published evaluation used such a one, of 24. ``tasks`` names each row's dataset and task. Rows are taken in
    an order drawn from seed and id, so whatever order they come in, the same are taken; a row with several answers
    is taken while all of them have room. Rows in which nothing is true are a class of their own.
    """
    drawn = sorted(range(len(ids)), key=lambda i: hashlib.blake2b(f"{seed}/{ids[i]}".encode()).digest())
    taken: Counter[tuple[str, str | None]] = Counter()
    kept = []
    for i in drawn:
        classes: list[tuple[str, str | None]] = [(tasks[i], answer) for answer in answers[i] or (None,)]
        if all(taken[one] < limit for one in classes):
            taken.update(classes)
            kept.append(i)
    return sorted(kept)


def _scores(measured: Measured) -> Scores:
    figures = {}
    for name in FIGURES:
        if name in measured.values:
            low, high = _interval(measured.draws.get(name))
            figures[name] = Figure(measured.values[name], low, high, measured.constants.get(name))
    reasons = MappingProxyType(dict(sorted(measured.unreadable.items())))
    return Scores(measured.rows, MappingProxyType(figures), reasons)


def _interval(draws: NDArray[np.float64] | None) -> tuple[float, float] | tuple[None, None]:
    """The middle 95 % of the draws in which the figure is defined."""
    if draws is None or np.isnan(draws).all():
        return None, None
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return float(low), float(high)


def _asked(outcome: Outcome) -> tuple[object, ...]:
    return outcome.domain, outcome.dataset, outcome.task, outcome.group, outcome.key


def _differences(first: Measured, second: Measured) -> Mapping[str, Difference]:
    """A figure that one of them lacks, as boxes where one prompt asked for none, has no difference."""
    found = {}
    for name in FIGURES:
        if name in first.values and name in second.values:
            low, high = _interval(second.draws[name] - first.draws[name])
            if low is not None and high is not None:
                found[name] = Difference(second.values[name] - first.values[name], low, high)
    return MappingProxyType(found)
