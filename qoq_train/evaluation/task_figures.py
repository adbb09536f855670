"""The figures of one task: what each patient adds to its sums, the figures that follow, and what a constant reaches."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import sparse

from qoq_data.record import AnswerType
from qoq_train.answers import is_exact, is_within_tolerance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from qoq_train.evaluation.outcomes import Outcome

FIGURES: Final = (
    "macro_f1", "accuracy_one_vs_rest", "exact_match", "within_tolerance", "box_iou", "unreadable_rate"
)  # fmt: skip
"""The figures by name.

``macro_f1``: F1 of each label against the rest, averaged over the labels that are true of some row. ``accuracy_one_
vs_rest``: (TP + TN) / rows, averaged likewise: the paper's accuracy, .68 for a constant guess at 5 equal classes.
``exact_match``: rows with exactly the true answers, so plain top-1 where one is asked for. ``within_tolerance``: of
number questions. ``box_iou``: mean over rows with known boxes. ``unreadable_rate``: of all rows.
"""

FIGURE_TITLES: Final = {
    "macro_f1": "macro-F1",
    "accuracy_one_vs_rest": "accuracy, one label against the rest",
    "exact_match": "top-1 (exact answer)",
    "within_tolerance": "number within tolerance",
    "box_iou": "box IoU",
    "unreadable_rate": "unreadable answers",
}
"""How the figures are called where a person reads them; the second is what the paper calls accuracy."""


@dataclass(frozen=True, slots=True)
class TaskTable:
    """What each group adds to the sums of a task, sparse [groups, columns], from which its figures follow.

    Columns: TP, named and true rows of each label, label by label; then rows, rows about choices, exact ones, rows
    with numbers, those within tolerance, rows with boxes, sum of their IoU, unreadable rows.
    """

    task: str
    rows: list[Outcome]
    labels: tuple[str, ...]
    counts: sparse.csr_array[Any, Any]

    @classmethod
    def of(cls, task: str, rows: list[Outcome], groups: Mapping[str, int]) -> TaskTable:
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

    def values(self) -> dict[str, float]:
        """The figures of all rows by name; one that does not apply is not there."""
        sums = np.asarray(self.counts.sum(axis=0)).reshape(1, -1)
        return {name: float(v) for name, v in zip(FIGURES, self.figures(sums)[0], strict=True) if not math.isnan(v)}

    def unreadable(self) -> Counter[str]:
        """How many rows could not be read, by reason."""
        return Counter(str(row.read.unreadable) for row in self.rows if row.read.unreadable is not None)

    def constants(self) -> dict[str, float]:
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
