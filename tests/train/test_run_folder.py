"""A run's folder after kills at bad moments, and its curves."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from qoq_data.licence import Redistribution
from qoq_data.record import Split
from qoq_train.evaluation.outcomes import evaluation_path, read_rows
from qoq_train.training.curves import Curves
from qoq_train.training.run_folder import RunFolder


def folder_of(path: Path) -> RunFolder:
    return RunFolder(path, "name: a\n", "0")


def test_a_line_that_a_kill_cut_short_is_none(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for step in (1, 2):
        folder.log("metrics", {"step": step, "reward": 0.5})
        folder.log("left_out", {"step": step, "row": f"row {step}", "tokens": 9})
    folder.save(1, {"step": 1, "weights": {"a": torch.ones(2)}}, keep=2)
    folder.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    again = folder_of(tmp_path)
    assert [line["step"] for line in again.lines("metrics")] == [1, 2]
    state = again.latest()
    assert state is not None
    assert torch.equal(state["weights"]["a"], torch.ones(2))
    for name in ("metrics", "left_out"):
        assert [line["step"] for line in again.lines(name)] == [1]
    again.log("metrics", {"step": 2, "reward": 1.0})
    again.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_what_led_to_a_failure_is_kept_as_a_table(tmp_path: Path) -> None:
    import polars as pl

    folder = folder_of(tmp_path)
    rows = [{"row": "a", "token_ids": [1, 2], "old": [-0.5, float("nan")], "reference": None}]
    assert folder.write_failure(3, rows) == "failed/step-000003.parquet"
    (kept,) = pl.read_parquet(tmp_path / "failed" / "step-000003.parquet").to_dicts()
    assert kept["row"] == "a"
    assert kept["token_ids"] == [1, 2]
    assert kept["old"][0] == -0.5


def curves_of(folder: Path, name: str, figure: str) -> list[tuple[int, float]]:
    pytest.importorskip("tensorboard", reason="curves are written where tensorboard is installed")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    read: Any = EventAccumulator(str(folder / name))
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars(figure)]


def test_a_run_killed_before_its_first_checkpoint_keeps_nothing_of_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    corpus = SimpleNamespace(manifest_sha256="0", licence="MIT", redistribution=Redistribution.OPEN)
    for step in (0, 1):
        folder.log("evaluations", {"step": step})
        folder.write_evaluation(step, Split.VALIDATION, corpus, ())  # type: ignore[arg-type]
    assert read_rows(evaluation_path(tmp_path, Split.VALIDATION, 1, ".parquet")).licence == "MIT"
    again = folder_of(tmp_path)
    assert again.latest() is None
    assert again.lines("evaluations") == []
    assert list((tmp_path / "evaluations").iterdir()) == []


def test_a_run_keeps_the_evaluations_up_to_its_checkpoint(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    corpus = SimpleNamespace(manifest_sha256="0", licence="MIT", redistribution=Redistribution.OPEN)
    for step in (0, 1, 2):
        folder.write_evaluation(step, Split.VALIDATION, corpus, ())  # type: ignore[arg-type]
    folder.save(1, {"step": 1}, 2)
    assert folder_of(tmp_path).latest() == {"step": 1}
    kept = sorted(path.name for path in (tmp_path / "evaluations").iterdir())
    assert kept == [evaluation_path(tmp_path, Split.VALIDATION, step, ".parquet").name for step in (0, 1)]


def test_a_resumed_run_shows_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="curves are written where tensorboard is installed")
    files = importlib.import_module("tensorboard.summary.writer.event_file_writer")
    # Files of one process and second are told apart by a count, read as text: 10 would come before 9.
    monkeypatch.setattr(files, "_global_uid", files.AtomicCounter(0))
    first = Curves(tmp_path)
    for step in (1, 2, 3):
        first.add("metrics", {"step": step, "reward": float(step), "note": "text", "gap": float("nan")})
    first.add("evaluations", {"step": 2, "overall/macro_f1": 0.5})
    first.close()
    second = Curves(tmp_path)
    for step in (3, 4):
        second.add("metrics", {"step": step, "reward": 10.0 * step})
    second.flush()
    second.close()
    assert curves_of(tmp_path, "metrics", "reward") == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]
    assert curves_of(tmp_path, "evaluations", "overall/macro_f1") == [(2, 0.5)]


def test_without_tensorboard_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qoq_train.training.curves.find_spec", lambda name: None)
    curves = Curves(tmp_path / "tensorboard")
    curves.add("metrics", {"step": 1, "reward": 0.5})
    curves.flush()
    curves.close()
    assert not (tmp_path / "tensorboard").exists()
