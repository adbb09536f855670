"""How well answers agree with the truth, by task, dataset and domain and over all: figures, intervals, baselines.

A task's figures are over its rows, a dataset's the mean over its tasks, a domain's over its datasets, the overall
ones over domains, each over those that have the figure at all. With one task a dataset that is the published scheme.
An unreadable answer names no label; it is counted in ``unreadable_rate`` and as nothing else.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import sparse

from qoq_data.record import AnswerType
from qoq_train.answers import AnswerKey, ReadAnswer, is_exact, is_within_tolerance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["FIGURES", "Figure", "Outcome", "Report", "Scores", "at_most_per_class", "report"]

FIGURES: Final = (
    "macro_f1", "accuracy_one_vs_rest", "exact_match", "within_tolerance", "box_iou", "unreadable_rate"
)  # fmt: skip
"""The figures by name.

``macro_f1``: F1 of each label against the rest, averaged over the labels that are true of some row. ``accuracy_one_
vs_rest``: (TP + TN) / rows, averaged likewise: the paper's accuracy, .68 for a constant guess at 5 equal classes.
``exact_match``: rows with exactly the true answers, so plain top-1 where one is asked for. ``within_tolerance``: of
number questions. ``box_iou``: mean over rows with known boxes. ``unreadable_rate``: of all rows.
"""

_DRAWS_AT_ONCE: Final = 1 << 22  # cells of the table of draws held at a time


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row and what was answered: ``group`` is its patient, ``dataset`` its source.

    ``box_iou`` is what the stated boxes earn, ``constant_box_iou`` what the whole picture would; None without boxes.
    """

    dataset: str
    domain: str
    task: str
    group: str
    key: AnswerKey
    read: ReadAnswer
    box_iou: float | None = None
    constant_box_iou: float | None = None


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
    if not outcomes:
        raise ValueError("there is nothing to evaluate")
    if any(not outcome.group for outcome in outcomes):
        raise ValueError("a row has no patient group, so no interval can be given")
    by_dataset: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_dataset[outcome.domain, outcome.dataset].append(outcome)
    tasks: dict[tuple[str, str, str], _Measured] = {}
    datasets: dict[tuple[str, str], _Measured] = {}
    for name, rows in sorted(by_dataset.items()):
        of_tasks = _dataset(rows, replicates, _generator(seed, *name))
        tasks |= {(*name, task): measured for task, measured in of_tasks.items()}
        datasets[name] = _mean(of_tasks.values())
    domains = {
        domain: _mean(measured for (of, _), measured in datasets.items() if of == domain)
        for domain in sorted({domain for domain, _ in datasets})
    }
    return Report(
        _mean(domains.values()).scores(),
        MappingProxyType({name: measured.scores() for name, measured in domains.items()}),
        MappingProxyType({name: measured.scores() for name, measured in datasets.items()}),
        MappingProxyType({name: measured.scores() for name, measured in tasks.items()}),
    )


def at_most_per_class(
    ids: Sequence[str], tasks: Sequence[str], answers: Sequence[Sequence[str]], *, limit: int = 24, seed: int = 0
) -> list[int]:
    """Positions, rising, of a seeded subset in which no true answer of a task stands in more than ``limit`` rows.

    The published evaluation used such a one, of 24. ``tasks`` names each row's dataset and task. Rows are taken in
    an order drawn from seed and id, so whatever order they come in, the same are taken; a row with several answers
    is taken while all of them have room.
    """
    drawn = sorted(range(len(ids)), key=lambda i: hashlib.blake2b(f"{seed}/{ids[i]}".encode()).digest())
    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for i in drawn:
        classes = [(tasks[i], answer) for answer in answers[i]]
        if all(taken[one] < limit for one in classes):
            taken.update(classes)
            kept.append(i)
    return sorted(kept)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Scores before they are put together: of each figure its value, its replicates and its constant baseline."""

    rows: int
    values: Mapping[str, float]
    draws: Mapping[str, NDArray[np.float64]]
    constants: Mapping[str, float]
    unreadable: Counter[str]

    def scores(self) -> Scores:
        figures = {}
        for name in FIGURES:
            if name not in self.values:
                continue
            interval: tuple[float | None, float | None] = None, None
            if name in self.draws and not np.isnan(self.draws[name]).all():
                low, high = np.nanquantile(self.draws[name], (0.025, 0.975))
                interval = float(low), float(high)
            figures[name] = Figure(self.values[name], *interval, self.constants.get(name))
        return Scores(self.rows, MappingProxyType(figures), MappingProxyType(dict(sorted(self.unreadable.items()))))


def _mean(parts: Iterable[_Measured]) -> _Measured:
    parts = list(parts)
    values, draws, constants = {}, {}, {}
    for name in FIGURES:
        having = [part for part in parts if name in part.values]
        if not having:
            continue
        values[name] = math.fsum(part.values[name] for part in having) / len(having)
        if all(name in part.draws for part in having):
            draws[name] = np.mean([part.draws[name] for part in having], axis=0)
        if all(name in part.constants for part in having):
            constants[name] = math.fsum(part.constants[name] for part in having) / len(having)
    unreadable = sum((part.unreadable for part in parts), Counter[str]())
    return _Measured(sum(part.rows for part in parts), values, draws, constants, unreadable)


def _generator(seed: int, *names: str) -> np.random.Generator:
    """A dataset's own stream, so that its interval does not depend on what else is evaluated."""
    digest = hashlib.blake2b("\x1f".join((str(seed), *names)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _dataset(rows: list[Outcome], replicates: int, generator: np.random.Generator) -> dict[str, _Measured]:
    groups = {group: i for i, group in enumerate(sorted({row.group for row in rows}))}
    by_task: dict[str, list[Outcome]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(row)
    tables = {task: _Table.of(task, by_task[task], groups) for task in sorted(by_task)}
    draws: dict[str, list[NDArray[np.float64]]] = {task: [] for task in tables}
    at_once = max(1, _DRAWS_AT_ONCE // len(groups))
    for start in range(0, replicates, at_once):
        count = min(at_once, replicates - start)
        weights = np.empty((count, len(groups)))
        for i in range(count):
            weights[i] = np.bincount(generator.integers(len(groups), size=len(groups)), minlength=len(groups))
        for task, table in tables.items():
            draws[task].append(table.figures(np.asarray(table.counts.T @ weights.T).T))
    return {task: table.measured(np.concatenate(draws[task]) if replicates else None) for task, table in tables.items()}


@dataclass(frozen=True, slots=True)
class _Table:
    """What each group adds to the sums of a task, sparse [groups, columns], from which its figures follow.

    Columns: TP, named and true rows of each label, label by label; then rows, rows about choices, exact ones, rows
    with numbers, those within tolerance, rows with boxes, sum of their IoU, unreadable rows.
    """

    task: str
    rows: list[Outcome]
    labels: tuple[str, ...]
    counts: sparse.csr_array[Any, Any]

    @classmethod
    def of(cls, task: str, rows: list[Outcome], groups: Mapping[str, int]) -> _Table:
        kinds = {row.key.answer_type for row in rows}
        if len(kinds) > 1:
            raise ValueError(f"the task {task!r} has rows of the kinds {', '.join(sorted(kinds))}")
        is_number = kinds == {AnswerType.NUMBER}
        labels = () if is_number else tuple(sorted({label for row in rows for label in row.key.answer}))
        position = {label: i for i, label in enumerate(labels)}
        n, first = len(labels), 3 * len(labels)
        at_group: list[int] = []
        at_column: list[int] = []
        values: list[float] = []
        for row in rows:
            named = [position[label] for label in row.read.labels if label in position]
            true = [] if is_number else [position[label] for label in row.key.answer]
            columns = [label for label in named if label in true]
            columns += [n + label for label in named]
            columns += [2 * n + label for label in true]
            columns += [first, first + (3 if is_number else 1)]
            if is_number and is_within_tolerance(row.read, row.key):
                columns.append(first + 4)
            if not is_number and is_exact(row.read, row.key):
                columns.append(first + 2)
            if row.read.unreadable is not None:
                columns.append(first + 7)
            values += [1.0] * len(columns)
            if row.box_iou is not None:
                columns += [first + 5, first + 6]
                values += [1.0, row.box_iou]
            at_column += columns
            at_group += [groups[row.group]] * len(columns)
        shape = len(groups), first + 8
        counts = sparse.coo_array((np.array(values), (np.array(at_group), np.array(at_column))), shape=shape)
        return cls(task, rows, labels, counts.tocsr())

    def figures(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums [replicates, columns] as figures [replicates, FIGURES]; NaN where no drawn row has the figure."""
        n = len(self.labels)
        both, named, true = (sums[:, i * n : (i + 1) * n] for i in range(3))
        rows, about_choices, exact, with_number, within, with_boxes, iou, unreadable = sums[:, 3 * n :].T
        seen = true > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            labels_seen = seen.sum(axis=1)
            f1 = np.where(seen, 2 * both / (named + true), 0).sum(axis=1) / labels_seen
            right = np.where(seen, 1 - (named + true - 2 * both) / rows[:, None], 0).sum(axis=1) / labels_seen
            return np.stack(
                (f1, right, exact / about_choices, within / with_number, iou / with_boxes, unreadable / rows), axis=1
            )

    def measured(self, draws: NDArray[np.float64] | None) -> _Measured:
        sums = np.asarray(self.counts.sum(axis=0)).reshape(1, -1)
        found = {name: float(v) for name, v in zip(FIGURES, self.figures(sums)[0], strict=True) if not math.isnan(v)}
        drawn = {} if draws is None else {name: draws[:, FIGURES.index(name)] for name in found}
        reasons = Counter(str(row.read.unreadable) for row in self.rows if row.read.unreadable is not None)
        return _Measured(len(self.rows), found, drawn, self._constants(), reasons)

    def _constants(self) -> dict[str, float]:
        """The best that a constant answer reaches in each figure, found exactly; another one may be best in each.

        Where one answer is asked for, it is a label that is true of some row: naming none, or nothing readable, has
        an accuracy of 1 - 1 / labels, more than any guess while no label is true of half of the rows.
        """
        found = {}
        boxes = [row.constant_box_iou for row in self.rows if row.box_iou is not None]
        stated = [iou for iou in boxes if iou is not None]
        if stated and len(stated) == len(boxes):
            found["box_iou"] = math.fsum(stated) / len(stated)
        kind, rows = self.rows[0].key.answer_type, len(self.rows)
        if kind is AnswerType.NUMBER:
            return found | {"within_tolerance": _most_within(self.rows) / rows}
        n = len(self.labels)
        true = np.asarray(self.counts.sum(axis=0)).ravel()[2 * n : 3 * n]
        commonest = Counter(frozenset(row.key.answer) for row in self.rows).most_common(1)[0][1]
        found["exact_match"] = commonest / rows
        if n == 0:
            return found
        f1 = 2 * true / (rows + true)
        if kind is AnswerType.ONE:
            best = float(true.max())
            found["macro_f1"] = float(f1.max()) / n
            found["accuracy_one_vs_rest"] = ((n - 1) * rows - (rows - best) + best) / (n * rows)
        else:
            # Labels are judged one by one: for F1 it is best to name them all, for accuracy those more often true.
            found["macro_f1"] = float(f1.mean())
            found["accuracy_one_vs_rest"] = float(np.maximum(true, rows - true).mean()) / rows
        return found


def _most_within(rows: Sequence[Outcome]) -> int:
    """The largest number of true numbers that one number is within the tolerance of."""
    ends = [(row.key.number + side * (row.key.tolerance or 0.0), side) for row in rows for side in (-1, 1)]
    inside = most = 0
    for _, side in sorted(ends):
        inside -= side
        most = max(most, inside)
    return most
