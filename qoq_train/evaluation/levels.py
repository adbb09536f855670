"""Figures of tasks, put together: a data set is the mean of its tasks, a domain of its data sets, all of domains.

Each level is the mean over those parts that have the figure at all, and so is each of its bootstrap replicates.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qoq_train.evaluation.task_figures import FIGURES, TaskTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qoq_train.evaluation.outcomes import Outcome

_DRAWS_AT_ONCE: Final = 1 << 22  # cells of the table of draws held at a time


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Of some rows, each figure's value, its replicates and its constant baseline."""

    rows: int
    values: Mapping[str, float]
    draws: Mapping[str, NDArray[np.float64]]
    constants: Mapping[str, float]
    unreadable: Counter[str]

    @classmethod
    def mean(cls, parts: Iterable[Measured]) -> Measured:
        """The mean of what is below; rows and reasons are summed."""
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
        return cls(sum(part.rows for part in parts), values, draws, constants, unreadable)


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Over all, by domain, by (domain, data set) and by (domain, data set, task), each sorted by name."""

    overall: Measured
    domains: Mapping[str, Measured]
    datasets: Mapping[tuple[str, str], Measured]
    tasks: Mapping[tuple[str, str, str], Measured]


def measure(outcomes: Sequence[Outcome], *, replicates: int, seed: int) -> Levels:
    """Every figure of an evaluation with its replicates.

    A replicate draws whole patients, with replacement, within each data set. Which ones follows from ``seed``, the
    data set's name and its patients alone: two evaluations of the same rows have the same draws, so that their
    replicates are paired. Raises ``ValueError`` for no rows, a row without a group, and a task that asks for one
    answer in some rows and several in others.
    """
    if not outcomes:
        raise ValueError("there is nothing to evaluate")
    if any(not outcome.group for outcome in outcomes):
        raise ValueError("a row has no patient group, so no interval can be given")
    by_dataset: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_dataset[outcome.domain, outcome.dataset].append(outcome)
    tasks: dict[tuple[str, str, str], Measured] = {}
    datasets: dict[tuple[str, str], Measured] = {}
    for name, rows in sorted(by_dataset.items()):
        of_tasks = _dataset(rows, replicates, _generator(seed, *name))
        tasks |= {(*name, task): measured for task, measured in of_tasks.items()}
        datasets[name] = Measured.mean(of_tasks.values())
    domains = {
        domain: Measured.mean(measured for (of, _), measured in datasets.items() if of == domain)
        for domain in sorted({domain for domain, _ in datasets})
    }
    return Levels(Measured.mean(domains.values()), domains, datasets, tasks)


def _generator(seed: int, *names: str) -> np.random.Generator:
    """A dataset's own stream, so that its interval does not depend on what else is evaluated."""
    digest = hashlib.blake2b("\x1f".join((str(seed), *names)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _dataset(rows: list[Outcome], replicates: int, generator: np.random.Generator) -> dict[str, Measured]:
    groups = {group: i for i, group in enumerate(sorted({row.group for row in rows}))}
    by_task: dict[str, list[Outcome]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(row)
    tables = {task: TaskTable.of(task, by_task[task], groups) for task in sorted(by_task)}
    draws: dict[str, list[NDArray[np.float64]]] = {task: [] for task in tables}
    at_once = max(1, _DRAWS_AT_ONCE // len(groups))
    for start in range(0, replicates, at_once):
        count = min(at_once, replicates - start)
        weights = np.empty((count, len(groups)))
        for i in range(count):
            weights[i] = np.bincount(generator.integers(len(groups), size=len(groups)), minlength=len(groups))
        for task, table in tables.items():
            draws[task].append(table.figures(np.asarray(table.counts.T @ weights.T).T))
    return {task: _measured(table, draws[task]) for task, table in tables.items()}


def _measured(table: TaskTable, draws: list[NDArray[np.float64]]) -> Measured:
    values = table.values()
    drawn = np.concatenate(draws) if draws else None
    by_name = {} if drawn is None else {name: drawn[:, FIGURES.index(name)] for name in values}
    return Measured(len(table.rows), values, by_name, table.constants(), table.unreadable())
