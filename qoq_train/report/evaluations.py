"""The evaluations of a run, from wherever its folder has them, in one form: figures by place.

A place is ``overall``, a domain, or ``domain/data set``. The log has values alone; a report has intervals and constant
baselines; rows give both, and can be compared with another run's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from qoq_data.errors import UsageError
from qoq_data.record import Split
from qoq_train.evaluation.metrics import FIGURES, Figure, Report, report
from qoq_train.evaluation.outcomes import EvaluatedRows, read_rows
from qoq_train.evaluation.text import OVERALL
from qoq_train.report.logs import clean
from qoq_train.report.record import RunRecord

_NAME = re.compile(r"step-([0-9]{1,15})-([a-z]+)")
_REPORT_BYTES: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures by place and name after ``step`` steps; ``rows`` is how many were asked, where it is known.

    ``rows_file`` is the table of its rows, where the run kept it.
    """

    split: Split
    step: int
    scores: Mapping[str, Mapping[str, Figure]]
    rows: int | None = None
    rows_file: Path | None = None

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that it has figures of."""
        return tuple(sorted(place for place in self.scores if place != OVERALL and "/" not in place))

    @property
    def has_intervals(self) -> bool:
        """Whether any figure has its interval."""
        return any(figure.low is not None for figures in self.scores.values() for figure in figures.values())

    def value(self, name: str, place: str = OVERALL) -> float | None:
        """A figure's value; None where it does not apply."""
        figure = self.scores.get(place, {}).get(name)
        return None if figure is None else figure.value


def evaluations_of(run: RunRecord) -> tuple[tuple[Evaluation, ...], tuple[str, ...]]:
    """All evaluations, by split and step, and notes of what could not be read."""
    found = {(Split.VALIDATION, line.step): _of_line(line.step, line.figures) for line in run.evaluations}
    notes: list[str] = []
    files: dict[tuple[Split, int], Path] = {}
    folder = run.path / "evaluations"
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = _NAME.fullmatch(file.stem)
        if name is None or name[2] not in list(Split) or file.suffix not in (".json", ".parquet"):
            continue
        key = Split(name[2]), int(name[1])
        if file.suffix == ".parquet":
            files[key] = file
            continue
        try:
            found[key] = _of_report_file(file, *key)
        except UsageError as error:
            notes.append(str(error))
    for key, file in files.items():
        one = found.get(key)
        try:
            of_rows = Evaluation(*key, {}, None, file) if one is None else replace(one, rows_file=file)
            found[key] = with_intervals(of_rows, replicates=0) if one is None else of_rows
        except UsageError as error:
            notes.append(str(error))
    return tuple(found[key] for key in sorted(found)), tuple(notes)


def with_intervals(one: Evaluation, *, replicates: int = 1000, seed: int = 0) -> Evaluation:
    """The evaluation with intervals and constant baselines where its rows were kept; as it is where they were not.

    Raises ``UsageError`` for rows that are damaged, or of another split or step than their name says.
    """
    if one.rows_file is None or one.has_intervals:
        return one
    rows = rows_of(one)
    try:
        found = report(rows.outcomes, replicates=replicates, seed=seed)
    except ValueError as error:
        raise UsageError(f"{one.rows_file.name} cannot be evaluated: {error}.") from error
    return replace(one, scores=_places(found), rows=found.overall.rows)


def rows_of(one: Evaluation) -> EvaluatedRows:
    """The rows of an evaluation; raises ``UsageError`` where there are none, or they are not what they are named."""
    if one.rows_file is None:
        raise UsageError(f"The rows of the evaluation after step {one.step} were not kept.")
    rows = read_rows(one.rows_file)
    if (rows.split, rows.step) != (one.split, one.step):
        raise UsageError(f"{one.rows_file.name} holds rows of {rows.split} after step {rows.step}.")
    return rows


def best(evaluations: tuple[Evaluation, ...], name: str) -> Evaluation | None:
    """The first of those with the highest overall figure; None where none has it."""
    having = [(value, -one.step, one) for one in evaluations if (value := one.value(name)) is not None]
    return max(having, key=lambda each: each[:2])[2] if having else None


def _of_line(step: int, figures: Mapping[str, float]) -> Evaluation:
    places: dict[str, dict[str, Figure]] = {}
    for name, value in figures.items():
        place, _, figure = name.rpartition("/")
        if place and figure in FIGURES:
            places.setdefault(place, {})[figure] = Figure(value)
    return Evaluation(Split.VALIDATION, step, places)


def _places(found: Report) -> dict[str, Mapping[str, Figure]]:
    places: dict[str, Mapping[str, Figure]] = {OVERALL: found.overall.figures}
    places |= {domain: scores.figures for domain, scores in found.domains.items()}
    return places | {"/".join(name): scores.figures for name, scores in found.datasets.items()}


def _of_report_file(file: Path, split: Split, step: int) -> Evaluation:
    """An evaluation of what ``text.report_json`` wrote."""
    try:
        if file.stat().st_size > _REPORT_BYTES:
            raise ValueError("too large")
        tree = json.loads(file.read_bytes())
        levels = {OVERALL: tree["overall"], **tree["domains"], **tree["datasets"]}
        places = {clean(place): dict(_figures(scores["figures"])) for place, scores in levels.items()}
        return Evaluation(split, step, places, int(tree["overall"]["rows"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{file.name} is damaged, or no report of an evaluation.") from error


def _figures(tree: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Figure]]:
    for name in FIGURES:
        if name in tree:
            values = [tree[name].get(key) for key in ("value", "low", "high", "constant")]
            value, low, high, constant = (None if each is None else float(each) for each in values)
            if value is None or not all(each is None or math.isfinite(each) for each in (value, low, high, constant)):
                raise ValueError(f"{name} is not finite")
            yield name, Figure(value, low, high, constant)
