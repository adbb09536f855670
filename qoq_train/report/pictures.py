"""A run in pictures, as SVG: figures by domain, reward by domain over steps, the gap to the engine, time by phase.

The same run gives the same bytes. Colours are Okabe and Ito's, which those who are colour-blind can tell apart; text
stays text. A long run is drawn in means over neighbouring steps, so that a picture stays small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qoq_train.evaluation.metrics import FIGURE_TITLES, Figure
from qoq_train.evaluation.text import OVERALL
from qoq_train.report.canvas import BLUE, GREY, INK, ORANGE, PHASES, SKY, canvas_of, powers_axis, spoken, steps_axis
from qoq_train.report.evaluations import Evaluation
from qoq_train.report.series import smoothed, smoothing_window, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS: Final = ("macro_f1", "exact_match", "accuracy_one_vs_rest", "box_iou")
_COLUMNS: Final = 3
_MOST_DOMAINS: Final = 48


def domain_bars(before: Evaluation | None, after: Evaluation, format_: str = "svg") -> bytes:
    """Figures by domain after training, and before it where that is known, with intervals and constant answers."""
    names = [name for name in _BARS if any(name in figures for figures in after.scores.values())]
    if not names:
        raise ValueError("the evaluation has none of the figures that are drawn")
    if len(after.domains) > _MOST_DOMAINS:
        raise ValueError(f"there are more than {_MOST_DOMAINS} domains")
    places = [OVERALL, *after.domains]
    sides = [one for one in (before, after) if one is not None]
    with canvas_of(3.2 * len(names) + 1.4, 0.46 * len(places) + 1.25) as (canvas, rendered):
        axes = canvas.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axis, name in zip(axes, names, strict=True):
            _bars(axis, name, places, sides)
        axes[0].set_yticks(range(len(places)), ["mean of domains", *map(spoken, after.domains)])
        axes[0].set_ylim(len(places) - 0.4, -0.6)
        handles = _bar_legend(sides)
        canvas.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        return rendered(format_)


def reward_curves(by_domain: Mapping[str, Mapping[int, float]], format_: str = "svg") -> bytes:
    """A panel a domain: the mean reward of each step, and over it the mean over neighbouring steps."""
    drawn = {name: values for name, values in by_domain.items() if values}
    if not drawn:
        raise ValueError("there is no reward to draw")
    if len(drawn) > _MOST_DOMAINS:
        raise ValueError(f"there are more than {_MOST_DOMAINS} domains")
    steps = sorted({step for values in drawn.values() for step in values})
    window = smoothing_window(len(steps))
    columns = min(_COLUMNS, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    lowest = min(0.0, *(min(values.values()) for values in drawn.values()))
    highest = max(1.0, *(max(values.values()) for values in drawn.values()))
    with canvas_of(3.0 * columns + 0.8, 1.75 * rows + 0.8) as (canvas, rendered):
        grid = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        axes = list(grid.flat)
        for axis, (name, values) in zip(axes, drawn.items(), strict=False):
            at, raw = thinned(values)
            marked = {"marker": "o", "markersize": 2.5} if len(at) < 3 else {}
            axis.plot(at, raw, color=SKY, linewidth=0.8, **marked)
            axis.plot(*smoothed(values, window), color=BLUE, linewidth=1.8, **marked)
            axis.set_title(spoken(name))
        for axis in axes[len(drawn) :]:
            axis.set_visible(False)
        for i in range(max(0, len(drawn) - columns), len(drawn)):
            axes[i].xaxis.set_tick_params(labelbottom=True)
        steps_axis(axes[0], steps)
        axes[0].set_ylim(lowest, highest)
        canvas.supxlabel("step", fontsize=9)
        canvas.supylabel("reward", fontsize=9)
        return rendered(format_)


def gap_curve(mean: Mapping[int, float], largest: Mapping[int, float], format_: str = "svg") -> bytes:
    """How far the engine's log-probabilities are from the trainer's, a step, on a logarithmic axis."""
    lines = [("largest of a step", largest, ORANGE, np.maximum), ("mean of a step", mean, BLUE, np.add)]
    positive = [(title, {s: v for s, v in each.items() if v > 0}, hue, by) for title, each, hue, by in lines]
    if not any(values for _, values, _, _ in positive):
        raise ValueError("there is no gap above 0 to draw")
    with canvas_of(7.2, 2.7) as (canvas, rendered):
        axis = canvas.subplots()
        axis.set_yscale("log")
        for title, values, colour, by in positive:
            at, raw = thinned(values, by)
            axis.plot(at, raw, color=colour, linewidth=1.0, label=title, marker="o" if len(at) < 3 else None)
        steps_axis(axis, sorted(step for _, values, _, _ in positive for step in values))
        powers_axis(axis, [value for _, values, _, _ in positive for value in values.values()])
        axis.set_ylabel("|log p engine − log p trainer|")
        axis.set_xlabel("step")
        canvas.legend(loc="outside lower center", ncols=2)
        return rendered(format_)


def phase_times(seconds: Mapping[str, Mapping[int, float]], format_: str = "svg") -> bytes:
    """Seconds of each step by phase, one on the other; the legend has what each took in all."""
    phases = {name: values for name, values in seconds.items() if values}
    steps = sorted({step for values in phases.values() for step in values})
    if not steps:
        raise ValueError("there is no time to draw")
    whole = sum(math.fsum(values.values()) for values in phases.values())
    columns = {name: {step: values.get(step, 0.0) for step in steps} for name, values in phases.items()}
    with canvas_of(7.2, 2.9) as (canvas, rendered):
        axis = canvas.subplots()
        at, _ = thinned(dict.fromkeys(steps, 0.0))
        middles = (at[1:] + at[:-1]) / 2
        edges = np.concatenate(([at[0] - 0.5], middles, [at[-1] + 0.5]))
        below = np.zeros_like(at)
        for i, (name, values) in enumerate(columns.items()):
            _, height = thinned(values)
            total = math.fsum(values.values())
            share = f" ({total / whole:.0%})" if whole > 0 else ""
            label = f"{spoken(name)} {total:,.0f} s{share}"
            axis.stairs(below + height, edges, baseline=below, fill=True, color=PHASES[i % len(PHASES)], label=label)
            below = below + height
        steps_axis(axis, steps)
        axis.grid(visible=False, axis="x")
        axis.set_ylim(bottom=0)
        axis.set_ylabel("seconds a step")
        axis.set_xlabel("step")
        canvas.legend(loc="outside lower center", ncols=min(4, len(columns)))
        return rendered(format_)


def _bars(axis: Axes, name: str, places: Sequence[str], sides: Sequence[Evaluation]) -> None:
    height = 0.8 / len(sides)
    for i, one in enumerate(sides):
        colour = BLUE if i == len(sides) - 1 else SKY
        for row, place in enumerate(places):
            figure = one.scores.get(place, {}).get(name)
            if figure is None:
                continue
            middle = row + (i - (len(sides) - 1) / 2) * height
            axis.barh(middle, figure.value, height * 0.92, color=colour)
            if figure.low is not None and figure.high is not None:
                axis.hlines(middle, figure.low, figure.high, color=INK, linewidth=1.0)
    for row, place in enumerate(places):
        constant = _constant([one.scores.get(place, {}).get(name) for one in sides])
        if constant is not None:
            axis.vlines(constant, row - 0.46, row + 0.46, color=ORANGE, linewidth=2.0)
    axis.axhline(0.5, color=GREY, linewidth=0.8)
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axis.grid(visible=False, axis="y")
    axis.set_title(FIGURE_TITLES[name])


def _constant(figures: Sequence[Figure | None]) -> float | None:
    """The baseline of the last evaluation that has one; it follows from the rows, and they are the same in all."""
    known = [figure.constant for figure in figures if figure is not None and figure.constant is not None]
    return known[-1] if known else None


def _bar_legend(sides: Sequence[Evaluation]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for i, one in enumerate(sides):
        colour = BLUE if i == len(sides) - 1 else SKY
        handles.append(Patch(color=colour, label=f"after {one.step:,} steps" if one.step else "before training"))
    figures = [figure for one in sides for each in one.scores.values() for figure in each.values()]
    if any(figure.low is not None for figure in figures):
        handles.append(Line2D([], [], color=INK, linewidth=1.0, label="95 % interval by patient"))
    if any(figure.constant is not None for figure in figures):
        handles.append(Line2D([], [], color=ORANGE, linewidth=2.0, label="best constant answer"))
    return handles
