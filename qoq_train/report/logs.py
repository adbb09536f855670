"""A run's logs as read: JSON lines of figures by step, of which the last may be cut off where the run was killed."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_LINE_BYTES: Final = 1 << 22
_LATEST_STEP: Final = 1 << 53
_LARGEST: Final = 1e300


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a log: the step and its figures by name, all finite."""

    step: int
    figures: Mapping[str, float]


def clean(text: str, most: int | None = 80) -> str:
    """Text from a file as one that shows as it stands: no control, no mark of direction, no half of a pair."""
    shown = "".join("\N{REPLACEMENT CHARACTER}" if _is_unfit(one) else one for one in text)
    return shown if most is None or len(shown) <= most else shown[: most - 1] + "…"


def _is_unfit(character: str) -> bool:
    return unicodedata.category(character).startswith("C") and character not in "\n\t"


def lines_of(file: Path, notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a log that are whole, by number; of the others there is a note."""
    try:
        stream = file.open("rb")
    except OSError:
        if file.exists():
            notes.append(f"{file.name} may not be read.")
        return
    damaged: list[int] = []
    number = 0
    with stream:
        while data := stream.readline(_LINE_BYTES):
            number += 1
            try:
                tree = json.loads(data)
            except (ValueError, RecursionError):
                tree = None
            if isinstance(tree, dict):
                yield number, tree
            elif data.strip():
                damaged.append(number)
    if damaged == [number]:
        notes.append(f"The last line of {file.name}, {number}, is cut off and was left out.")
    elif damaged:
        notes.append(f"{len(damaged)} lines of {file.name} are damaged and were left out: {_some(damaged)}.")


def read_log(file: Path, notes: list[str], kept: Sequence[str]) -> tuple[Line, ...]:
    """The figures of a log whose names begin with any of ``kept``, one line a step, in order.

    Of a step that stands twice the later line counts. What is left out is said in ``notes``.
    """
    if not file.exists():
        notes.append(f"There is no {file.name}.")
        return ()
    found: dict[int, Line] = {}
    unusable, repeated, unfit = [], set(), set()
    for number, tree in lines_of(file, notes):
        step = _step(tree.get("step"))
        if step is None:
            unusable.append(number)
            continue
        wanted = {name: value for name, value in tree.items() if name != "step" and name.startswith(tuple(kept))}
        figures = {clean(name): float(value) for name, value in wanted.items() if _is_figure(value)}
        unfit |= {clean(name) for name, value in wanted.items() if not _is_figure(value)}
        if step in found:
            repeated.add(step)
        found[step] = Line(step, figures)
    if unusable:
        notes.append(f"{len(unusable)} lines of {file.name} name no step and were left out: {_some(unusable)}.")
    if repeated:
        notes.append(f"{file.name} has some steps twice, of which the later lines count: {_some(sorted(repeated))}.")
    if unfit:
        notes.append(f"{file.name} has values that are no finite numbers, left out, of: {_some(sorted(unfit))}.")
    return tuple(found[step] for step in sorted(found))


def _step(value: Any) -> int | None:
    """A count of steps, also where it was written as 20.0; None for anything else."""
    if not _is_figure(value) or value != int(value) or not 0 <= value < _LATEST_STEP:
        return None
    return int(value)


def _is_figure(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST  # false for NaN and infinity, and for whole numbers that no float holds


def _some(values: Sequence[object]) -> str:
    return ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")
