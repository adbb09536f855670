"""Runs side by side, from their folders alone: what differs in what they were, and in what came of them.

A difference has an interval only where both runs kept the outcome of each row of the same corpus; it is then paired,
patient by patient. Where they did not, only the figures stand there, and it is said why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from qoq_data.errors import UsageError
from qoq_data.record import Split
from qoq_train.evaluation.metrics import FIGURE_TITLES, Differences, differences
from qoq_train.report.comparison_text import comparison_json, comparison_markdown
from qoq_train.report.evaluations import Evaluation, best, evaluations_of, rows_of, with_intervals
from qoq_train.report.logs import clean
from qoq_train.report.record import RunRecord, read_run

__all__ = ["Changed", "Comparison", "Paired", "SplitComparison", "Summary", "compare", "comparison_json",
           "comparison_markdown"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in a line: ``planned`` steps are the recipe's, ``sampled_tokens`` those of all completions drawn."""

    name: str
    steps: int
    planned: int | None
    seconds: Mapping[str, float]
    sampled_tokens: float | None
    corpus_sha256: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """A key of the recipe, or a library, with its value in each run; None where a run has it not."""

    key: str
    values: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Paired:
    """A run's evaluation less the first run's on the rows of both; or ``unpaired``, why there is no such thing.

    ``alone`` counts rows that only one of the two had.
    """

    run: str
    found: Differences | None
    alone: int = 0
    unpaired: str = ""


@dataclass(frozen=True, slots=True)
class SplitComparison:
    """The evaluations on a split, one a run: after the last step evaluated, and after the step that was best on
    validation; None where there is none.

    ``final_paired`` and ``best_paired`` are of each run but the first, against the first.
    """

    split: Split
    final: tuple[Evaluation | None, ...]
    best: tuple[Evaluation | None, ...]
    final_paired: tuple[Paired, ...]
    best_paired: tuple[Paired, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side; ``best_by`` is the overall figure that chose the best, ``warnings`` are to be read first."""

    runs: tuple[Summary, ...]
    recipe: tuple[Changed, ...]
    versions: tuple[Changed, ...]
    splits: tuple[SplitComparison, ...]
    best_by: str
    warnings: tuple[str, ...]


def compare(folders: Sequence[Path], *, best_by: str = "macro_f1", replicates: int = 1000, seed: int = 0) -> Comparison:
    """The runs in the folders, all against the first of them.

    Raises ``UsageError`` for fewer than two folders, one that stands twice, one that is no run's, and a ``best_by``
    that is no figure.
    """
    if len(folders) < 2:
        raise UsageError("A comparison takes the folders of two runs or more.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("A folder stands twice: a run is not compared with itself.")
    if best_by not in FIGURE_TITLES:
        raise UsageError(f"There is no figure {best_by!r}. There are: {', '.join(FIGURE_TITLES)}.")
    runs = [read_run(folder) for folder in folders]
    names = [clean(name) for name in short_names([str(folder.resolve()) for folder in folders])]
    notes = [list(run.notes) for run in runs]
    evaluations: list[tuple[Evaluation, ...]] = []
    for run, told in zip(runs, notes, strict=True):
        found, unread = evaluations_of(run)
        evaluations.append(found)
        told.extend(unread)
    splits = sorted({one.split for each in evaluations for one in each}, key=list(Split).index)
    validated = [best(tuple(one for one in each if one.split is Split.VALIDATION), best_by) for each in evaluations]
    choice = _Choice(tuple(one.step if one else None for one in validated), replicates, seed)
    compared = []
    for split in splits:
        of_split = [tuple(one for one in each if one.split is split) for each in evaluations]
        compared.append(_split(split, of_split, names, _why_unpaired(runs), notes, choice))
    return Comparison(
        tuple(_summary(*each) for each in zip(runs, names, notes, strict=True)),
        _changes([_shown(run.settings, runs) for run in runs]),
        _changes([dict(run.versions or {}) for run in runs]),
        tuple(compared),
        best_by,
        (*_corpus_warnings(runs, names), *_place_warnings(compared, names)),
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    best_steps: tuple[int | None, ...]
    replicates: int
    seed: int


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of each path, as few as tell them all apart."""
    parts = [PurePath(path).parts for path in paths]
    distinct = len(set(paths))
    for last in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(one[-last:]) for one in parts]
        if len(set(names)) == distinct:
            return names
    return list(paths)


def _summary(run: RunRecord, name: str, notes: Sequence[str]) -> Summary:
    planned = run.settings.get("run.steps", "")
    return Summary(
        name,
        run.steps,
        int(planned) if planned.isdigit() else None,
        run.seconds,
        run.sampled_tokens,
        run.corpus_sha256,
        tuple(notes),
    )


def _shown(settings: Mapping[str, str], runs: Sequence[RunRecord]) -> dict[str, str]:
    """Settings in which a folder is named by as much as tells it from the other runs'."""
    shown = dict(settings)
    for key, value in settings.items():
        if value.startswith(("/", "~")):
            others = sorted({other for run in runs if (other := run.settings.get(key)) is not None})
            shown[key] = dict(zip(others, short_names(others), strict=True))[value]
    return shown


def _changes(sides: Sequence[Mapping[str, str]]) -> tuple[Changed, ...]:
    """Keys whose values are not the same in all runs that could be read, in the order in which they stand."""
    keys = list(dict.fromkeys(key for side in sides for key in side))
    rows = [Changed(key, tuple(side.get(key) for side in sides)) for key in keys]
    readable = [i for i, side in enumerate(sides) if side]
    return tuple(row for row in rows if len({row.values[i] for i in readable}) > 1)


def _why_unpaired(runs: Sequence[RunRecord]) -> list[str]:
    """For each run, why its rows cannot be set beside the first run's; empty where they can."""
    why = []
    for run in runs:
        if run.corpus_sha256 is None or runs[0].corpus_sha256 is None:
            why.append("it is not known whether they are of one corpus")
        else:
            why.append("" if run.corpus_sha256 == runs[0].corpus_sha256 else "they are of different corpora")
    return why


def _corpus_warnings(runs: Sequence[RunRecord], names: Sequence[str]) -> list[str]:
    told = [
        f"The corpus of {name} is not known." for run, name in zip(runs, names, strict=True) if not run.corpus_sha256
    ]
    groups = Counter(run.corpus_sha256 for run in runs if run.corpus_sha256)
    if len(groups) > 1:
        each = ", ".join(
            f"{name} {run.corpus_sha256[:12]}" for run, name in zip(runs, names, strict=True) if run.corpus_sha256
        )
        told.append(f"The runs are of different corpora ({each}): no figure of one can be held against another's.")
    return told


def _place_warnings(splits: Sequence[SplitComparison], names: Sequence[str]) -> list[str]:
    """Overall figures are means over domains, so they compare only where the places are the same."""
    told = []
    for one in splits:
        having_any = [(name, found) for name, found in zip(names, one.final, strict=True) if found]
        by_dataset = all(len(found.scores) > len(found.domains) + 1 for _, found in having_any)
        places = {name: set(found.scores if by_dataset else found.domains) for name, found in having_any}
        lacking = {name: sorted(set().union(*places.values()) - having) for name, having in places.items()}
        if any(lacking.values()):
            each = "; ".join(f"{name} has no {', '.join(places)}" for name, places in lacking.items() if places)
            told.append(f"On {one.split} the overall figures are means over different domains or data sets: {each}.")
        asked = {name: found.rows for name, found in zip(names, one.final, strict=True) if found and found.rows}
        if len(set(asked.values())) > 1:
            each = ", ".join(f"{name} {rows:,}" for name, rows in asked.items())
            told.append(f"On {one.split} the runs were asked different numbers of rows: {each}.")
    return told


def _split(
    split: Split,
    evaluations: Sequence[tuple[Evaluation, ...]],
    names: Sequence[str],
    why: Sequence[str],
    notes: Sequence[list[str]],
    choice: _Choice,
) -> SplitComparison:
    def chosen(steps: Sequence[int | None]) -> tuple[Evaluation | None, ...]:
        found = []
        for each, step, told in zip(evaluations, steps, notes, strict=True):
            one = next((one for one in each if one.step == step), None)
            try:
                found.append(one and with_intervals(one, replicates=choice.replicates, seed=choice.seed))
            except UsageError as error:
                found.append(one)
                told.append(str(error))
        return tuple(found)

    def paired(found: tuple[Evaluation | None, ...]) -> tuple[Paired, ...]:
        pairs = zip(names[1:], found[1:], why[1:], strict=True)
        return tuple(_paired(name, found[0], one, reason, choice) for name, one, reason in pairs)

    final = chosen([each[-1].step if each else None for each in evaluations])
    highest = chosen(choice.best_steps)
    return SplitComparison(split, final, highest, paired(final), paired(highest))


def _paired(name: str, first: Evaluation | None, second: Evaluation | None, reason: str, choice: _Choice) -> Paired:
    if first is None or second is None:
        return Paired(name, None, unpaired="one of the two has no such evaluation")
    if reason:
        return Paired(name, None, unpaired=reason)
    if first.rows_file is None or second.rows_file is None:
        return Paired(name, None, unpaired="the outcome of each row was not kept by both")
    try:
        sides = [{outcome.row_id: outcome for outcome in rows_of(one).outcomes} for one in (first, second)]
        common = sorted(sides[0].keys() & sides[1].keys())
        if not common:
            return Paired(name, None, unpaired="they have no row in common")
        each = [[side[row_id] for row_id in common] for side in sides]
        found = differences(each[0], each[1], replicates=choice.replicates, seed=choice.seed)
    except (UsageError, ValueError) as error:
        return Paired(name, None, unpaired=str(error).rstrip("."))
    return Paired(name, found, len(sides[0].keys() ^ sides[1].keys()))
