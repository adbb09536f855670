"""A comparison of runs as Markdown for a person and as plain values for a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qoq_data.publish.markdown import plain, table
from qoq_train.evaluation.metrics import FIGURE_TITLES
from qoq_train.evaluation.text import OVERALL, SHOWN, difference_text, differences_at, figure_text, place_title
from qoq_train.report.evaluations import Evaluation

if TYPE_CHECKING:
    from qoq_train.compare import Changed, Comparison, Paired, SplitComparison, Summary


def comparison_markdown(found: Comparison) -> str:
    """The comparison as Markdown: what to beware of first, then what differs, then the figures by split."""
    names = [plain(run.name) for run in found.runs]
    lines = [f"# {' / '.join(names)}", ""]
    for warning in found.warnings:
        lines += [f"**Beware: {plain(warning)}**", ""]
    lines += [
        "## Runs",
        "",
        *table(["run", "steps", "seconds", "by phase", "tokens drawn", "corpus"], _runs(found.runs)),
    ]
    lines += ["## Recipes", "", *_changes(found.recipe, names)]
    lines += ["## Versions", "", *_changes(found.versions, names)]
    if not found.splits:
        lines += ["No run has an evaluation.", ""]
    for one in found.splits:
        lines += [f"## Evaluation on {one.split}", "", *_split(one, names, found.best_by)]
    notes = [f"* {name}: {plain(note)}" for name, run in zip(names, found.runs, strict=True) for note in run.notes]
    if notes:
        lines += ["## What is not there, or could not be read", "", *notes, ""]
    return "\n".join(lines)


def comparison_json(found: Comparison) -> dict[str, Any]:
    """The comparison as plain values."""
    runs = [run.name for run in found.runs]
    return {
        "runs": [asdict(run) for run in found.runs],
        "warnings": list(found.warnings),
        "recipe": {one.key: dict(zip(runs, one.values, strict=True)) for one in found.recipe},
        "versions": {one.key: dict(zip(runs, one.values, strict=True)) for one in found.versions},
        "best_by": found.best_by,
        "splits": {
            str(one.split): {
                "final": dict(zip(runs, map(_evaluation, one.final), strict=True)),
                "best": dict(zip(runs, map(_evaluation, one.best), strict=True)),
                "final_difference": {paired.run: _paired(paired) for paired in one.final_paired},
                "best_difference": {paired.run: _paired(paired) for paired in one.best_paired},
            }
            for one in found.splits
        },
    }


def places_of(evaluations: Sequence[Evaluation | None]) -> list[str]:
    """Every place that any of them has figures of: overall, then each domain followed by its data sets."""
    found = {place for one in evaluations if one for place in one.scores}
    return sorted(found, key=lambda place: (place != OVERALL, place.split("/")))


def _runs(runs: Sequence[Summary]) -> Iterator[tuple[str | float | None, ...]]:
    for run in runs:
        steps = f"{run.steps:,}" + (f" of {run.planned:,}" if run.planned and run.planned != run.steps else "")
        phases = ", ".join(f"{plain(phase)} {seconds:,.0f}" for phase, seconds in run.seconds.items())
        tokens = None if run.sampled_tokens is None else f"{run.sampled_tokens:,.0f}"
        corpus = run.corpus_sha256[:12] if run.corpus_sha256 else None
        seconds = f"{sum(run.seconds.values()):,.0f}" if run.seconds else None
        yield plain(run.name), steps, seconds, phases, tokens, corpus


def _changes(changes: Sequence[Changed], names: Sequence[str]) -> Iterator[str]:
    if not changes:
        yield from ("The same in all that could be read.", "")
        return
    rows = [(plain(one.key), *("" if value is None else plain(value) for value in one.values)) for one in changes]
    yield from table(["key", *names], rows)


def _split(one: SplitComparison, names: Sequence[str], best_by: str) -> Iterator[str]:
    yield "A figure, its 95 % interval by patient where it is known, and in brackets what the best constant answer has."
    yield f"The best evaluation is that after the step with the highest overall {FIGURE_TITLES[best_by]} on validation;"
    yield "on validation itself it flatters, the more so the more evaluations there were to choose from."
    yield ""
    columns = [("final", one.final, one.final_paired)]
    if one.best != one.final and any(one.best):
        columns.append(("best", one.best, one.best_paired))
    for title, found, paired in columns:
        steps = ", ".join(
            f"{name} after {each.step:,} steps" if each else f"{name} has none"
            for name, each in zip(names, found, strict=True)
        )
        yield from (f"### {title}: {steps}", "")
        for pair in paired:
            yield from (_pairing(pair, names[0]), "")
        differing = [pair for pair in paired if pair.found]
        for figure in SHOWN:
            rows = list(_figure_rows(figure, found, differing))
            if rows:
                heads = [f"{plain(pair.run)} less {names[0]}" for pair in differing]
                yield from table([FIGURE_TITLES[figure], *names, *heads], rows)
    if one.best == one.final:
        yield from ("The final evaluations are the best ones.", "")


def _pairing(pair: Paired, first: str) -> str:
    if pair.found is None:
        why = plain(pair.unpaired)
        return f"{plain(pair.run)} and {first} are **not paired**, and their difference has no interval: {why}."
    alone = f"; {pair.alone:,} rows that only one of them had are not in it" if pair.alone else ""
    return f"{plain(pair.run)} less {first} is paired by patient on {pair.found.rows:,} rows{alone}."


def _figure_rows(
    name: str, found: Sequence[Evaluation | None], differing: Sequence[Paired]
) -> Iterator[tuple[str, ...]]:
    for place in places_of(found):
        figures = [one.scores.get(place, {}).get(name) if one else None for one in found]
        if any(figures):
            less = [difference_text(differences_at(pair.found, place).get(name)) for pair in differing if pair.found]
            yield plain(place_title(place)), *map(figure_text, figures), *less


def _evaluation(one: Evaluation | None) -> dict[str, Any] | None:
    if one is None:
        return None
    scores = {
        place: {name: asdict(figure) for name, figure in figures.items()} for place, figures in one.scores.items()
    }
    return {"step": one.step, "rows": one.rows, "scores": scores}


def _paired(pair: Paired) -> dict[str, Any]:
    if pair.found is None:
        return {"paired": False, "reason": pair.unpaired}
    places = [OVERALL, *pair.found.domains, *map("/".join, pair.found.datasets)]
    found = {place: {name: asdict(one) for name, one in differences_at(pair.found, place).items()} for place in places}
    return {"paired": True, "rows": pair.found.rows, "rows_of_one_alone": pair.alone, "differences": found}
