"""A few of the completions that a run kept, from the worst to the best of a step, with their rewards by part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from qoq_train.report.logs import clean

_NAMES: Final = ("row", "completion", "reward")
_PART: Final = "reward_"
MOST_CHARACTERS: Final = 4000
MOST_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class Sample:
    """A completion as a page shows it; ``parts`` are its rewards by name, None where a part did not apply."""

    step: int
    row: str
    text: str
    reward: float
    parts: Mapping[str, float | None]


def samples_of(folder: Path, most: int) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """At most so many of the first step that was kept, and of the last one; and notes of what could not be read."""
    files = sorted((folder / "completions").glob("step-*.parquet"))
    numbered = [(int(name), file) for file in files if (name := file.stem.removeprefix("step-")).isdecimal()]
    notes: list[str] = []
    found: list[Sample] = []
    for step, file in [numbered[0], numbered[-1]] if len(numbered) > 1 else numbered:
        try:
            found += _of_file(step, file, most)
        except (OSError, ValueError, TypeError, pl.exceptions.PolarsError):
            notes.append(f"completions/{file.name} is damaged, or holds no completions.")
    return tuple(found), tuple(notes)


def _of_file(step: int, file: Path, most: int) -> list[Sample]:
    table = pl.read_parquet(file, n_rows=MOST_ROWS, glob=False)
    parts = sorted(name for name in table.columns if name.startswith(_PART))
    rows = table.select(*_NAMES, *parts).unique(subset=["row", "completion"], keep="first", maintain_order=True)
    samples = [_sample(step, row, parts) for row in rows.to_dicts()]
    ordered = sorted(samples, key=lambda one: (one.reward, one.row, one.text))
    return [ordered[place] for place in spread(len(ordered), most)]


def spread(count: int, most: int) -> list[int]:
    """At most so many of the places 0 to ``count``, the first and the last among them, equally far apart."""
    if count <= most:
        return list(range(count))
    if most < 2:
        return [count - 1][:most]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _sample(step: int, row: Mapping[str, Any], parts: Sequence[str]) -> Sample:
    text, reward = row["completion"], row["reward"]
    if not isinstance(text, str) or not isinstance(row["row"], str) or not _is_number(reward):
        raise ValueError("a completion lacks its row, its text or its reward")
    values = {name: row[name] if _is_number(row[name]) else None for name in parts}
    return Sample(
        step,
        clean(row["row"], 200),
        clean(text, MOST_CHARACTERS),
        float(reward),
        {clean(name.removeprefix(_PART)): None if value is None else float(value) for name, value in values.items()},
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
