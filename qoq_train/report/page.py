"""A run as one page that stands alone: no script, nothing from the net, and no row that may not be passed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, Final

import yaml

from qoq_data.errors import MissingExtraError, UsageError
from qoq_data.formats.new_file import write_whole
from qoq_data.record import Split
from qoq_train.evaluation.metrics import FIGURE_TITLES
from qoq_train.evaluation.text import SHOWN, figure_text, place_title
from qoq_train.report import pictures
from qoq_train.report.canvas import inline
from qoq_train.report.comparison_text import places_of
from qoq_train.report.evaluations import Evaluation, best, evaluations_of, with_intervals
from qoq_train.report.logs import clean
from qoq_train.report.record import RunRecord, read_run
from qoq_train.report.samples import Sample, samples_of
from qoq_train.report.series import MOST_POINTS, smoothing_window
from qoq_train.report.terms import Terms, terms_of

PAGE: Final = "report.html"
_HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin: 0; }} h2 {{ font-size: 1.2rem; margin: 2.2rem 0 .6rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem; }}
th, td {{ padding: .22rem .7rem .22rem 0; text-align: left; border-bottom: 1px solid #e5e5e5; vertical-align: top; }}
.wide {{ overflow-x: auto; }} figure {{ margin: 0; overflow-x: auto; }} figcaption, .quiet {{ color: #666; }}
svg {{ max-width: 100%; height: auto; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f7f8; padding: .7rem; font-size: .82rem; }}
summary {{ cursor: pointer; }}
</style>
</head>
<body>
"""


@dataclass(frozen=True, slots=True)
class _Picture:
    name: str
    title: str
    caption: str
    svg: bytes


def write_report(
    folder: Path,
    *,
    out: Path | None = None,
    samples: int = 6,
    with_restricted_completions: bool = False,
    replicates: int = 1000,
) -> Path:
    """Write the run's page to ``out`` (``report.html`` in its folder) and its pictures beside it; give the page's path.

    ``samples`` completions of the first and of the last step stand on it where the corpus is open, and of any corpus
    ``with_restricted_completions``: then the page may go no further than the corpus. Raises ``UsageError`` for a
    folder that is no run's, and ``MissingExtraError`` without matplotlib.
    """
    run = read_run(folder)
    target = out or folder / PAGE
    evaluations, unread = evaluations_of(run)
    notes = [*run.notes, *unread]
    terms = terms_of(run)
    shown: tuple[Sample, ...] = ()
    if not terms.reason or with_restricted_completions:
        shown, more = samples_of(folder, samples)
        notes += more
    chosen = _chosen(evaluations, replicates, notes)
    drawn = list(_pictures(run, chosen, notes))
    withheld = "" if with_restricted_completions else terms.reason
    text = "".join(_page(run, terms, chosen, drawn, shown, withheld, notes))
    pictures = target.parent / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for one in drawn:
        write_whole(pictures / f"{one.name}.svg", one.svg)
    write_whole(target, text.encode())
    return target


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Of a split, the first evaluation, the last, and the best on validation."""

    split: Split
    first: Evaluation
    last: Evaluation
    best: Evaluation | None

    @property
    def columns(self) -> dict[str, Evaluation]:
        """The evaluations that differ, by what they are called."""
        named = {_after(self.first): self.first, _after(self.last): self.last}
        if self.best is not None and self.best.step not in (self.first.step, self.last.step):
            named[f"{_after(self.best)} (best macro-F1)"] = self.best
        return named


def _after(one: Evaluation) -> str:
    return f"after {one.step:,} steps" if one.step else "before training"


def _chosen(evaluations: Sequence[Evaluation], replicates: int, notes: list[str]) -> list[_Chosen]:
    def whole(one: Evaluation) -> Evaluation:
        try:
            return with_intervals(one, replicates=replicates)
        except UsageError as error:
            notes.append(str(error))
            return one

    found = []
    for split in Split:
        of_split = tuple(one for one in evaluations if one.split is split and one.scores)
        if of_split:
            highest = best(of_split, "macro_f1") if split is Split.VALIDATION else None
            steps = {one.step: whole(one) for one in (of_split[0], of_split[-1], *([highest] if highest else []))}
            found.append(
                _Chosen(
                    split, steps[of_split[0].step], steps[of_split[-1].step], steps[highest.step] if highest else None
                )
            )
    return found


def _pictures(run: RunRecord, chosen: Sequence[_Chosen], notes: list[str]) -> Iterator[_Picture]:
    names = sorted({name for line in run.metrics for name in line.figures})
    domains = [name for name in names if name.startswith("reward/domain/")]
    rewards = {"all": run.column("reward")} | {
        name.removeprefix("reward/domain/"): run.column(name) for name in domains
    }
    phases = {name.removeprefix("seconds/"): run.column(name) for name in names if name.startswith("seconds/")}
    window = smoothing_window(len(run.metrics))
    thin = (
        f" Each point stands for {-(-len(run.metrics) // MOST_POINTS)} steps." if len(run.metrics) > MOST_POINTS else ""
    )
    wanted: list[tuple[str, str, str, Callable[[], bytes]]] = []
    for one in chosen:
        before = one.first if one.first.step != one.last.step else None
        wanted.append((
            f"domains-{one.split}", f"Figures by domain on {one.split}", "",
            partial(pictures.domain_bars, before, one.last),
        ))  # fmt: skip
    wanted += [
        ("reward", "Reward by domain", f"Pale: mean of each step. Dark: mean over {window} steps round it.{thin}",
         partial(pictures.reward_curves, rewards)),
        ("gap", "Gap between the engine and the trainer", f"Differences of log-probability of the tokens drawn.{thin}",
         partial(pictures.gap_curve, run.column("rollout_gap/mean"), run.column("rollout_gap/max"))),
        ("time", "Time by phase", thin.strip(), partial(pictures.phase_times, phases)),
    ]  # fmt: skip
    for name, title, caption, draw in wanted:
        try:
            yield _Picture(name, title, caption, draw())
        except MissingExtraError:
            raise
        except ValueError as error:
            notes.append(f"{title}: no picture, for {error}.")


def _page(
    run: RunRecord,
    terms: Terms,
    chosen: Sequence[_Chosen],
    drawn: Sequence[_Picture],
    shown: Sequence[Sample],
    withheld: str,
    notes: Sequence[str],
) -> Iterator[str]:
    settings = run.settings
    title = settings.get("name") or run.name
    yield _HEAD.format(title=escape(title))
    yield f"<h1>{escape(title)}</h1>\n"
    yield f'<p class="quiet">{escape(_summary(run, settings))}</p>\n'
    by_name = {picture.name: picture for picture in drawn}
    for one in chosen:
        yield f"<h2>Evaluation on {one.split}</h2>\n"
        picture = by_name.pop(f"domains-{one.split}", None)
        yield _figure(picture) if picture else ""
        yield from _evaluation(one)
    for picture in by_name.values():
        yield f"<h2>{escape(picture.title)}</h2>\n{_figure(picture)}"
    yield "<h2>Completions</h2>\n"
    yield from _completions(shown, withheld, terms)
    yield "<h2>What the run was</h2>\n"
    corpus = {"manifest": run.corpus_sha256, "licence": terms.licence, "may be passed on": terms.redistribution}
    yield _pairs("Corpus", {name: str(value) for name, value in corpus.items() if value})
    yield _pairs("Versions", run.versions or {})
    if run.recipe is not None:
        text = yaml.safe_dump(_without_folders(run.recipe), sort_keys=False, allow_unicode=True, width=100)
        yield f"<details><summary>Recipe</summary><pre>{escape(clean(text, None))}</pre></details>\n"
    yield "<h2>What was left out</h2>\n<ul>\n"
    for line in _left_out(run, notes, withheld):
        yield f"<li>{escape(line)}</li>\n"
    yield "</ul>\n</body>\n</html>\n"


def _summary(run: RunRecord, settings: Mapping[str, str]) -> str:
    planned = settings.get("run.steps", "")
    told = [f"{run.steps:,}" + (f" of {planned}" if planned.isdigit() and int(planned) != run.steps else "") + " steps"]
    method = settings.get("method.advantage")
    told += [method] if method else []
    if run.seconds:
        told.append(f"{sum(run.seconds.values()):,.0f} s in its phases")
    if run.sampled_tokens is not None:
        told.append(f"{run.sampled_tokens:,.0f} tokens drawn")
    return " · ".join(told)


def _evaluation(one: _Chosen) -> Iterator[str]:
    columns = one.columns
    if one.first.step:
        yield f'<p class="quiet">The earliest evaluation is that after {one.first.step:,} steps; there is none of the '
        yield "model before training.</p>\n"
    asked = ", ".join(f"{name}: {found.rows:,} rows" for name, found in columns.items() if found.rows)
    yield "<p>A figure, its 95 % interval by patient where the outcome of each row was kept, and in brackets what the "
    yield f"best constant answer reaches. {escape(asked)}</p>\n"
    for figure in SHOWN:
        rows = []
        for place in places_of(list(columns.values())):
            figures = [found.scores.get(place, {}).get(figure) for found in columns.values()]
            if any(figures):
                rows.append([place_title(place), *map(figure_text, figures)])
        if rows:
            yield _table([FIGURE_TITLES[figure], *columns], rows)


def _completions(shown: Sequence[Sample], withheld: str, terms: Terms) -> Iterator[str]:
    if withheld:
        yield f"<p>Not shown: {escape(withheld)}.</p>\n"
        return
    if not shown:
        yield "<p>The run kept none that can be read.</p>\n"
        return
    if terms.reason:
        yield f"<p><strong>Not to be passed on: {escape(terms.reason)}.</strong></p>\n"
    yield "<p>Of the first and the last step that were kept, from the lowest to the highest reward.</p>\n"
    for one in shown:
        parts = "".join(f", {name} {value:.3f}" for name, value in one.parts.items() if value is not None)
        yield f"<p>Step {one.step:,}, {escape(one.row)}: reward {one.reward:.3f}{escape(parts)}</p>\n"
        yield f"<pre>{escape(one.text)}</pre>\n"


def _left_out(run: RunRecord, notes: Sequence[str], withheld: str) -> Iterator[str]:
    if run.left_out:
        yield f"{run.left_out:,} rows of training whose prompts were longer than data.max_prompt_tokens."
    if withheld:
        yield f"Completions of the model: {withheld}."
    yield "Folders of the recipe's files, of which the last part stands here alone."
    yield from dict.fromkeys(notes)


def _without_folders(value: Any) -> Any:
    """A recipe's values with each path cut down to its last part."""
    if isinstance(value, Mapping):
        return {str(key): _without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return f"…/{Path(value).name}"
    return value


def _figure(picture: _Picture) -> str:
    svg = inline(picture.svg, picture.name, picture.title)
    return f"<figure>{svg}<figcaption>{escape(picture.caption)}</figcaption></figure>\n"


def _pairs(title: str, values: Mapping[str, str]) -> str:
    return _table([title, ""], [[name, value] for name, value in values.items()]) if values else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table>\n<tr>{top}</tr>\n{body}</table></div>\n'
