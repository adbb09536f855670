"""Runs as tables: means over seeds with intervals, and paired differences to GRPO on the same seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.drpo_vs_grpo import results
from benchmarks.drpo_vs_grpo.bandit import ADAM_RATE
from benchmarks.drpo_vs_grpo.intervals import Estimate, estimate, holm
from benchmarks.drpo_vs_grpo.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.drpo_vs_grpo.results import Line

ADAM: Final = {"rate": ADAM_RATE, "optimiser": "adam"}
"""The bandit's runs at the rate of the first trials."""


@dataclass(frozen=True, slots=True)
class Table:
    """A heading, column names and rows of texts."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The heading as a line of its own over the table."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return f"{self.heading}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def mean_accuracy(line: Line) -> float:
    """The mean over domains of a run's accuracy at its end, of either task."""
    return float(np.mean(_by_domain(line, "accuracy")))


def mean_macro_f1(line: Line) -> float:
    """The mean over domains of a run's macro-F1 at its end, of either task."""
    return float(np.mean(_by_domain(line, "macro_f1")))


def last_domain_accuracy(line: Line) -> float:
    """The accuracy of the bandit's last domain, which is the rare or the noisy one."""
    return _by_domain(line, "accuracy")[-1]


def _by_domain(line: Line, figure: str) -> list[float]:
    if line["task"] == "tiny":
        name = {"accuracy": "exact_match", "macro_f1": "macro_f1"}[figure]
        return [float(line["domains"][domain][name]) for domain in sorted(line["domains"])]
    last = line["checks"][max(line["checks"], key=int)]
    return [float(value) for value in last[figure]]


def present(lines: Iterable[Line]) -> list[str]:
    """The methods of the lines, in the order of ``METHODS``, then others by name."""
    names = {line["method"] for line in lines}
    return [name for name in METHODS if name in names] + sorted(names - set(METHODS))


def title(method: str) -> str:
    """What a method is called in a table; ``grpo@2`` is GRPO at twice the rate."""
    name, at, factor = method.partition("@")
    if name not in METHODS:
        return method
    return METHODS[name].title + (f", rate × {factor}" if at else "")


def of_method(lines: Sequence[Line], figure: Callable[[Line], float], **wanted: Any) -> Estimate | None:
    """The estimate over the seeds of one method; None where it did not run."""
    runs = results.by_seed(lines, **wanted)
    return estimate([figure(runs[seed]) for seed in sorted(runs)]) if runs else None


def difference(
    lines: Sequence[Line], figure: Callable[[Line], float], ours: dict[str, Any], peer: dict[str, Any]
) -> Estimate | None:
    """Ours less the peer's, seed by seed, over the seeds that both have; None where there is none."""
    first, second = results.by_seed(lines, **ours), results.by_seed(lines, **peer)
    seeds = sorted(set(first) & set(second))
    return estimate([figure(first[seed]) - figure(second[seed]) for seed in seeds]) if seeds else None


def matrix(
    heading: str, lines: Sequence[Line], figure: Callable[[Line], float], key: str, values: Sequence[str]
) -> Table:
    """Methods × settings: the estimates of a figure."""
    rows = []
    for method in present(lines):
        found = [of_method(lines, figure, method=method, **{key: value}) for value in values]
        rows.append((title(method), *("" if one is None else one.text() for one in found)))
    return Table(heading, ("method", *values), tuple(rows))


def differences(
    heading: str, lines: Sequence[Line], figure: Callable[[Line], float], key: str, values: Sequence[str]
) -> Table:
    """Methods × settings: differences to GRPO, with * where p is under 0.05 after Holm over the whole table."""
    names = [name for name in present(lines) if name not in ("grpo", "supervised")]
    cells: dict[tuple[str, str], Estimate] = {}
    for method in names:
        for value in values:
            at = {key: value}
            found = difference(lines, figure, {"method": method, **at}, {"method": "grpo", **at})
            if found is not None:
                cells[method, value] = found
    corrected = dict(zip(cells, holm([cell.p for cell in cells.values()]), strict=True))
    rows = []
    for method in names:
        texts = [
            cells[method, value].text(signed=True) + (" *" if corrected[method, value] < 0.05 else "")
            if (method, value) in cells
            else ""
            for value in values
        ]
        rows.append((title(method), *texts))
    return Table(heading, ("less GRPO", *values), tuple(rows))


def rates(lines: Sequence[Line], setting: str) -> Table:
    """Rate × method: accuracy, that of the last domain, and the mean length of a step, in one setting."""
    own = [line for line in lines if line["setting"] == setting and line["optimiser"] == "adam"]
    swept = [name for name in present(own) if len({line["rate"] for line in own if line["method"] == name}) > 1]
    rows = []
    for rate in sorted({line["rate"] for line in own if line["method"] in swept}):
        cells = []
        for method in swept:
            found = [
                of_method(own, figure, method=method, rate=rate)
                for figure in (mean_accuracy, last_domain_accuracy, _step_length)
            ]
            cells.append("" if None in found else " / ".join(f"{one.mean:.3f}" for one in found if one))
        rows.append((f"{rate:g}", *cells))
    heading = f"Setting “{setting}”: mean accuracy / the last domain's / mean length of a step."
    return Table(heading, ("Adam's rate", *(title(name) for name in swept)), tuple(rows))


def best_rates(lines: Sequence[Line], settings: Sequence[str]) -> Table:
    """Each method at its own best rate, and how far that is above GRPO at its best."""
    rows = []
    for setting in settings:
        own = [line for line in lines if line["setting"] == setting and line["optimiser"] == "adam"]
        best = {name: _best_rate(own, name) for name in present(own)}
        swept = [name for name in best if len({line["rate"] for line in own if line["method"] == name}) > 1]
        if "grpo" not in swept:
            continue
        peer = {"method": "grpo", "rate": best["grpo"]}
        for name in swept:
            at = {"method": name, "rate": best[name]}
            found, last = of_method(own, mean_accuracy, **at), of_method(own, last_domain_accuracy, **at)
            gap = difference(own, mean_accuracy, at, peer)
            if found and last and gap:
                told = "" if name == "grpo" else gap.text(signed=True)
                rows.append((setting, title(name), f"{best[name]:g}", found.text(), last.text(), told))
    columns = ("setting", "method", "its best rate", "mean accuracy", "last domain", "less GRPO at its best")
    return Table(
        "Each method at the rate that is best for its mean accuracy, picked on these seeds.", columns, tuple(rows)
    )


def _best_rate(lines: Sequence[Line], method: str) -> float:
    rates_run = sorted({line["rate"] for line in lines if line["method"] == method})

    def mean(rate: float) -> float:
        found = of_method(lines, mean_accuracy, method=method, rate=rate)
        return found.mean if found else 0.0

    return float(max(rates_run, key=mean))


def _step_length(line: Line) -> float:
    return float(line["step_length"])


def domain_figure(domain: str, name: str) -> Callable[[Line], float]:
    """A figure of one domain of the tiny model's runs."""
    return lambda line: float(line["domains"][domain][name])
