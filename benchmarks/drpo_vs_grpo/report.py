"""Finished runs as a page: tables between its marks, and pictures beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.drpo_vs_grpo import results, tables
from benchmarks.drpo_vs_grpo.bandit import ADAM_RATE
from benchmarks.drpo_vs_grpo.grid import CORE, SETTINGS
from benchmarks.drpo_vs_grpo.tables import Table
from qoq_data.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.drpo_vs_grpo.results import Line

PAGE = "drpo_vs_grpo.md"


def write_report(out: Path, folder: Path) -> list[Path]:
    """Tables and pictures of the runs in ``out``, into ``folder``; the files that were written.

    In a page ``drpo_vs_grpo.md`` that is there, what stands between ``<!-- bandit -->`` and ``<!-- /bandit -->``, and
    the same for ``tiny``, is replaced; without one a page of tables alone is written.

    Raises:
        UsageError: there are no runs, or the page lacks a mark.
    """
    bandit, tiny = results.read(out / "bandit.jsonl"), latest_sizes(results.read(out / "tiny.jsonl"))
    if not bandit and not tiny:
        raise UsageError(f"{out.name} holds no finished runs: neither bandit.jsonl nor tiny.jsonl.")
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    text = page.read_text(encoding="utf-8") if page.exists() else "".join(f"{a}\n{b}\n" for a, b in map(_marks, PARTS))
    written = [page]
    for part, lines, made in (("bandit", bandit, bandit_tables), ("tiny", tiny, tiny_tables)):
        if lines:
            picture = _picture(part, lines, folder)
            written.append(picture)
            shown = f"![Accuracy by method, with 95 % intervals over seeds]({picture.name})\n"
            text = replaced(text, part, "\n".join([shown, *(table.markdown() for table in made(lines))]))
    page.write_text(text, encoding="utf-8")
    return written


PARTS = ("bandit", "tiny")


def replaced(text: str, part: str, content: str) -> str:
    """The page with this content between the part's marks; raises ``UsageError`` where it has no such pair."""
    start, end = _marks(part)
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise UsageError(f"{PAGE} must have {start} once, and {end} once behind it.")
    return text[: text.index(start) + len(start)] + "\n\n" + content + "\n" + text[text.index(end) :]


def latest_sizes(lines: Sequence[Line]) -> list[Line]:
    """The runs of the last line's sizes and engine: runs of other sizes are no seeds of it."""
    return [line for line in lines if all(line[key] == lines[-1][key] for key in ("sizes", "engine"))]


def bandit_tables(lines: Sequence[Line]) -> list[Table]:
    """All tables of the bandit, without those that no run is for."""
    at = [line for line in lines if line["rate"] == ADAM_RATE and line["optimiser"] == "adam"]
    settings = [name for name in SETTINGS if any(line["setting"] == name for line in at)]
    counts = sorted({len(results.by_seed(at, setting=s, method=m)) for s in settings for m in tables.present(at)} - {0})
    seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "no"
    every = [
        tables.matrix(
            f"Mean accuracy over domains, Adam at {ADAM_RATE:g}, {seeds} seeds.",
            at, tables.mean_accuracy, "setting", settings,
        ),
        tables.differences(
            "The same less GRPO's, paired by seed; * p < 0.05 after Holm's correction over this table.",
            at, tables.mean_accuracy, "setting", settings,
        ),
        tables.matrix(
            "Accuracy of the last domain: the rare, the noisy, or the rare and noisy one.",
            at, tables.last_domain_accuracy, "setting", settings,
        ),
        tables.differences(
            "The same less GRPO's, paired by seed; * as above.", at, tables.last_domain_accuracy, "setting", settings
        ),
        tables.matrix("Mean over domains of macro-F1.", at, tables.mean_macro_f1, "setting", settings),
        *(tables.rates(lines, setting) for setting in CORE),
        tables.best_rates(lines, CORE),
        tables.matrix(
            "Steps all of one length, whatever the method, so that only directions differ: mean accuracy.",
            [line for line in lines if line["optimiser"] == "length"], tables.mean_accuracy, "setting", CORE,
        ),
        tables.differences(
            "The same less GRPO's.",
            [line for line in lines if line["optimiser"] == "length"], tables.mean_accuracy, "setting", CORE,
        ),
    ]  # fmt: skip
    return [table for table in every if table.rows]


def tiny_tables(lines: Sequence[Line]) -> list[Table]:
    """All tables of the tiny model: methods down, the mean over domains and each domain across."""
    domains = _domains(lines)
    every = []
    for name, called in (("exact_match", "Accuracy"), ("macro_f1", "Macro-F1")):
        whole = tables.mean_accuracy if name == "exact_match" else tables.mean_macro_f1
        long = [
            line | {"task": "of one domain", "domain": domain, "checks": {"0": {name: [value]}}}
            for line in lines
            for domain, value in [("mean", whole(line)), *((d, line["domains"][d][name]) for d in domains)]
        ]

        def figure(line: Line, name: str = name) -> float:
            return float(line["checks"]["0"][name][0])

        seeds = len({line["seed"] for line in lines})
        every += [
            tables.matrix(
                f"{called} on held-out patients, {seeds} seed(s).", long, figure, "domain", ["mean", *domains]
            ),
            tables.differences(
                "The same less GRPO's, paired by seed; * p < 0.05 after Holm's correction over this table.",
                long, figure, "domain", ["mean", *domains],
            ),
        ]  # fmt: skip
    return [table for table in every if table.rows]


def bandit_rows(lines: Sequence[Line], settings: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for a terminal: mean accuracy by method and setting."""
    table = tables.matrix("", lines, tables.mean_accuracy, "setting", settings)
    return table.columns, list(table.rows)


def tiny_rows(lines: Sequence[Line]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for a terminal: mean accuracy and macro-F1 by method, and the seconds of a run."""
    rows: list[tuple[str, ...]] = []
    for method in tables.present(lines):
        figures = (tables.mean_accuracy, tables.mean_macro_f1, lambda line: float(line["seconds"]))
        found = [tables.of_method(lines, figure, method=method) for figure in figures]
        if None not in found:
            accuracy, macro_f1, seconds = (one for one in found if one)
            rows.append((tables.title(method), accuracy.text(), macro_f1.text(), f"{seconds.mean:.0f}"))
    return ("method", "accuracy", "macro-F1", "s a run"), rows


def mean_accuracies(lines: Sequence[Line], method: str) -> list[float]:
    """Mean accuracy over domains of a method's runs, one a seed; raises ``UsageError`` where it did not run."""
    runs = results.by_seed(lines, method=method)
    if not runs:
        raise UsageError(f"there is no run of {method}, which the last line compares: name it among --methods.")
    return [tables.mean_accuracy(runs[seed]) for seed in sorted(runs)]


def _domains(lines: Sequence[Line]) -> list[str]:
    """The domains, the most frequent in training first where that is known."""
    rows: dict[str, int] = next((line["rows"] for line in lines if "rows" in line), {})
    return sorted({name for line in lines for name in line["domains"]}, key=lambda name: (-rows.get(name, 0), name))


def _marks(part: str) -> tuple[str, str]:
    return f"<!-- {part} -->", f"<!-- /{part} -->"


def _picture(part: str, lines: Sequence[Line], folder: Path) -> Path:
    from benchmarks.drpo_vs_grpo import pictures

    path = folder / f"drpo_vs_grpo_{part}.png"
    if part == "bandit":
        pictures.draw_bandit(lines, path)
    else:
        pictures.draw_tiny(lines, _domains(lines), path)
    return path
