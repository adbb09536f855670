"""The figures of an evaluation, and what one is above another, as Markdown for a person and as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from qoq_data.publish.markdown import plain, table
from qoq_train.evaluation.metrics import FIGURE_TITLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qoq_train.evaluation.metrics import Difference, Differences, Figure, Report, Scores

OVERALL: Final = "overall"
SHOWN: Final = ("macro_f1", "exact_match", "accuracy_one_vs_rest", "within_tolerance", "box_iou", "unreadable_rate")


def scalars(found: Report) -> dict[str, float]:
    """The figures overall, by domain and by data set under flat names, for a log."""
    return {
        f"{place}/{name}": figure.value
        for place, scores in _places(found).items()
        for name, figure in scores.figures.items()
    }


def report_json(found: Report) -> dict[str, Any]:
    """The whole report as plain values."""
    return {
        "overall": _plain(found.overall),
        "domains": {name: _plain(scores) for name, scores in found.domains.items()},
        "datasets": {"/".join(name): _plain(scores) for name, scores in found.datasets.items()},
        "tasks": {"/".join(name): _plain(scores) for name, scores in found.tasks.items()},
    }


def report_table(found: Report) -> str:
    """The report as a Markdown table: each figure with its interval, and the best constant answer in brackets."""
    places = _places(found)
    shown = _shown(places.values())
    rows = [
        (plain(place_title(place)), f"{scores.rows:,}", *(figure_text(scores.figures.get(name)) for name in shown))
        for place, scores in places.items()
    ]
    return "\n".join(table(["", "rows", *(FIGURE_TITLES[name] for name in shown)], rows))


def gain_table(before: Report, after: Report, found: Differences) -> str:
    """Two evaluations of the same rows side by side, and the second less the first with its paired interval."""
    first, second = _places(before), _places(after)
    lines: list[str] = []
    for name in _shown([*first.values(), *second.values()]):
        rows = []
        for place, scores in second.items():
            figures = [first[place].figures.get(name), scores.figures.get(name)]
            if any(figures):
                gained = difference_text(differences_at(found, place).get(name))
                rows.append((plain(place_title(place)), f"{scores.rows:,}", *map(figure_text, figures), gained))
        lines += table([FIGURE_TITLES[name], "rows", "before", "after", "after less before"], rows)
    return "\n".join(lines)


def figure_text(figure: Figure | None) -> str:
    """A figure with its interval, and in brackets what the best constant answer reaches."""
    if figure is None:
        return ""
    interval = "" if figure.low is None or figure.high is None else f" ({figure.low:.3f} to {figure.high:.3f})"
    constant = "" if figure.constant is None else f" [{figure.constant:.3f}]"
    return f"{figure.value:.3f}{interval}{constant}"


def difference_text(one: Difference | None) -> str:
    """A difference with its sign and interval."""
    return "" if one is None else f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})"


def differences_at(found: Differences, place: str) -> Mapping[str, Difference]:
    """The differences of a place, by figure; none where it has none."""
    if place == OVERALL:
        return found.overall
    domain, _, dataset = place.partition("/")
    return found.datasets.get((domain, dataset), {}) if dataset else found.domains.get(domain, {})


def place_title(place: str) -> str:
    """A place as it is called in a table."""
    if place == OVERALL:
        return "all: mean of domains"
    domain, _, dataset = place.partition("/")
    return f"data set {dataset} ({domain})" if dataset else f"domain {domain}"


def _places(found: Report) -> dict[str, Scores]:
    """Overall, then the domains, then the data sets."""
    datasets = {"/".join(name): scores for name, scores in found.datasets.items()}
    return {OVERALL: found.overall, **found.domains, **datasets}


def _shown(places: Any) -> Sequence[str]:
    return [name for name in SHOWN if any(name in scores.figures for scores in places)]


def _plain(scores: Scores) -> dict[str, Any]:
    return {
        "rows": scores.rows,
        "figures": {name: asdict(figure) for name, figure in scores.figures.items()},
        "unreadable": dict(scores.unreadable),
    }
