"""The pictures of the page. They need matplotlib (``pip install matplotlib``), which nothing else here does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from benchmarks.drpo_vs_grpo import tables
from benchmarks.drpo_vs_grpo.bandit import ADAM_RATE
from benchmarks.drpo_vs_grpo.grid import CORE, SETTINGS
from qoq_data.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.drpo_vs_grpo.intervals import Estimate
    from benchmarks.drpo_vs_grpo.results import Line

COLOURS: Final = {
    "grpo": "#555555", "domain_only": "#4c9be8", "clusters_only": "#e0a030", "bins": "#9b6fd0", "drpo": "#c8372d",
    "reinforce_plus_plus": "#3a9a5b", "dr_grpo": "#8c6d4f", "supervised": "#bbbbbb",
}  # fmt: skip


def draw_bandit(lines: Sequence[Line], path: Path) -> None:
    """Accuracy by learning rate in the central settings, and by setting at one rate."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    for axis, setting in zip(axes[0], CORE, strict=True):
        _rates(axis, [one for one in lines if one["setting"] == setting and one["optimiser"] == "adam"])
        axis.set_title(f"“{setting}” by Adam's rate: all domains (—) and the last (- -)", fontsize=10)
    at = [one for one in lines if one["rate"] == ADAM_RATE and one["optimiser"] == "adam"]
    chosen = [name for name in COLOURS if any(one["method"] == name for one in at)]
    for axis, figure_of, what in (
        (axes[1][0], tables.mean_accuracy, "mean over domains"),
        (axes[1][1], tables.last_domain_accuracy, "the last domain"),
    ):
        found = {
            name: [tables.of_method(at, figure_of, method=name, setting=setting) for setting in SETTINGS]
            for name in chosen
        }
        _dots(axis, list(SETTINGS), found)
        axis.set_title(f"Accuracy at rate {ADAM_RATE:g}: {what}", fontsize=10)
    _save(pyplot, figure, path)


def draw_tiny(lines: Sequence[Line], domains: Sequence[str], path: Path) -> None:
    """Accuracy and macro-F1 by domain, the most frequent in training to the left."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(2, 1, figsize=(11, 7.5), layout="constrained")
    rows: dict[str, int] = next((line["rows"] for line in lines if "rows" in line), {})
    names = [f"{domain}\n{rows[domain]} rows" if domain in rows else domain for domain in domains]
    for axis, name, whole, what in (
        (axes[0], "exact_match", tables.mean_accuracy, "Accuracy"),
        (axes[1], "macro_f1", tables.mean_macro_f1, "Macro-F1"),
    ):
        figures: list[Callable[[Line], float]] = [whole, *(tables.domain_figure(domain, name) for domain in domains)]
        found = {
            method: [tables.of_method(lines, one, method=method) for one in figures] for method in tables.present(lines)
        }
        _dots(axis, ["mean", *names], found)
        axis.set_title(f"{what} on held-out patients", fontsize=10)
    _save(pyplot, figure, path)


def _rates(axis: Any, lines: Sequence[Line]) -> None:
    for name in ("grpo", "domain_only", "bins", "drpo"):
        rates = sorted({line["rate"] for line in lines if line["method"] == name})
        for figure_of, style in ((tables.mean_accuracy, "-"), (tables.last_domain_accuracy, "--")):
            found = [tables.of_method(lines, figure_of, method=name, rate=rate) for rate in rates]
            means = [one.mean if one else float("nan") for one in found]
            halves = [one.half_width or 0.0 if one else 0.0 for one in found]
            label = tables.title(name) if style == "-" else None
            axis.errorbar(
                rates, means, yerr=halves, color=COLOURS[name], linestyle=style, marker="o", markersize=3, capsize=2,
                linewidth=1.2, label=label,
            )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(sorted({line["rate"] for line in lines}))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.minorticks_off()
    low, high = axis.get_ylim()
    axis.set_ylim(low - 0.15 * (high - low), high)  # for the legend
    axis.legend(fontsize=8, ncols=2, loc="lower center")
    axis.grid(alpha=0.3)


def _dots(axis: Any, places: Sequence[str], found: dict[str, list[Estimate | None]]) -> None:
    """A group of dots with intervals at each place, one a method."""
    width = 0.7 / max(1, len(found))
    for number, (name, estimates) in enumerate(found.items()):
        offset = (number - (len(found) - 1) / 2) * width
        known = [(place + offset, one) for place, one in enumerate(estimates) if one is not None]
        axis.errorbar(
            [x for x, _ in known], [one.mean for _, one in known], yerr=[one.half_width or 0.0 for _, one in known],
            fmt="o", markersize=4, capsize=2, linewidth=1.2, color=COLOURS.get(name), label=tables.title(name),
        )  # fmt: skip
    axis.set_xticks(range(len(places)), places, fontsize=8)
    axis.set_xlim(-0.5, len(places) - 0.5)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.35 * (high - low))
    axis.legend(fontsize=8, ncols=2, loc="upper right")
    axis.grid(axis="y", alpha=0.3)


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UsageError("The pictures need matplotlib: pip install matplotlib.") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def _save(pyplot: Any, figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
