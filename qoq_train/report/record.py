"""What a run's folder says, however far the run came: nothing is taken for granted, and what is unreadable is said.

A run may be going on, or have been killed in the middle of a line; its folder may be of another version of the
package. So each file is read on its own, and what could not be read is a note and never a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qoq_data.errors import RecipeError, UsageError
from qoq_data.recipe_text import recipe_tree
from qoq_train.report.logs import Line, clean, lines_of, read_log

_FILE_BYTES: Final = 1 << 22  # of recipe, versions and corpus, each some kilobytes
_KEPT: Final = (  # of a step's figures, of which the clusters' are the most by far
    "reward", "seconds/", "rollout_gap/", "questions", "tokens", "left_out", "unreadable", "cut", "loss", "grad_norm",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its folder tells it; what is None could not be read, and ``notes`` say why.

    ``recipe`` is the tree of its keys. ``licence`` and ``redistribution`` are those of the corpus, where the folder
    has them. ``left_out`` counts the distinct rows whose prompts were too long. ``metrics`` and ``evaluations`` have
    one line a step, in order.
    """

    path: Path
    recipe: Mapping[str, Any] | None
    versions: Mapping[str, str] | None
    corpus_sha256: str | None
    licence: str | None
    redistribution: str | None
    metrics: tuple[Line, ...]
    evaluations: tuple[Line, ...]
    left_out: int
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return clean(self.path.resolve().name)

    @property
    def settings(self) -> dict[str, str]:
        """The recipe's keys, dotted, with their values as text; empty where it could not be read."""
        return dict(_flat(self.recipe or {}))

    @property
    def steps(self) -> int:
        """Steps that were done."""
        return self.metrics[-1].step if self.metrics else 0

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by phase over all steps in the log; what a kill threw away is not in it."""
        names = sorted({name for line in self.metrics for name in line.figures if name.startswith("seconds/")})
        return {name.removeprefix("seconds/"): math.fsum(self.column(name).values()) for name in names}

    @property
    def sampled_tokens(self) -> float | None:
        """Tokens of all completions drawn in training; None where a step or the recipe does not say."""
        completions = self.settings.get("rollout.completions", "")
        questions, tokens = self.column("questions"), self.column("tokens")
        if not self.metrics or not completions.isdigit() or not len(questions) == len(tokens) == len(self.metrics):
            return None
        return int(completions) * math.fsum(questions[step] * tokens[step] for step in questions)

    def column(self, name: str) -> dict[int, float]:
        """A figure by step, of those steps that have it."""
        return {line.step: line.figures[name] for line in self.metrics if name in line.figures}


def read_run(folder: Path) -> RunRecord:
    """The folder as it stands; raises ``UsageError`` where it is absent or is no run's."""
    if not folder.is_dir():
        raise UsageError(f"There is no run folder {folder.name!r}.")
    if not any((folder / name).exists() for name in ("recipe.yaml", "corpus.json", "metrics.jsonl")):
        raise UsageError(f"{folder.name!r} is no run's folder: it has no recipe.yaml, corpus.json or metrics.jsonl.")
    notes: list[str] = []
    notes += [
        f"A step failed: what led to it is in failed/{clean(file.name)}." for file in sorted(folder.glob("failed/*"))
    ]
    corpus = _json(folder / "corpus.json", notes)
    versions = _json(folder / "versions.json", notes)
    return RunRecord(
        path=folder,
        recipe=_recipe(folder / "recipe.yaml", notes),
        versions=None if versions is None else {clean(name): clean(str(value)) for name, value in versions.items()},
        corpus_sha256=_word(corpus, "manifest_sha256"),
        licence=_word(corpus, "licence"),
        redistribution=_word(corpus, "redistribution"),
        metrics=read_log(folder / "metrics.jsonl", notes, _KEPT),
        evaluations=read_log(folder / "evaluations.jsonl", notes, ("",)),
        left_out=len({line.get("row") for _, line in lines_of(folder / "left_out.jsonl", notes)}),
        notes=tuple(notes),
    )


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = f"{above}{clean(str(key))}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, clean(value if isinstance(value, str) else json.dumps(value, default=str), 400)


def _bytes(file: Path, notes: list[str]) -> bytes | None:
    try:
        if file.stat().st_size > _FILE_BYTES:
            notes.append(f"{file.name} is larger than such a file can be and was not read.")
            return None
        return file.read_bytes()
    except FileNotFoundError:
        notes.append(f"There is no {file.name}.")
    except OSError:
        notes.append(f"{file.name} may not be read.")
    return None


def _json(file: Path, notes: list[str]) -> dict[str, Any] | None:
    data = _bytes(file, notes)
    if data is None:
        return None
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        notes.append(f"{file.name} is damaged.")
        return None
    return tree


def _word(tree: Mapping[str, Any] | None, key: str) -> str | None:
    value = (tree or {}).get(key)
    return clean(value, 400) if isinstance(value, str) else None


def _recipe(file: Path, notes: list[str]) -> dict[str, Any] | None:
    data = _bytes(file, notes)
    if data is None:
        return None
    try:
        return recipe_tree(data.decode(), file.name, {})
    except (RecipeError, UnicodeDecodeError):
        notes.append(f"{file.name} is damaged.")
        return None
