"""The reader's benchmark runs, agrees with its peer, and ends with one line for machines."""

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import main, names
from benchmarks.harness import Result, seconds_in_turn


def test_ecg_read_runs_and_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ecg_read" in names()
    assert main(["ecg_read", "--quick"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(figures) == ["name", "ours", "peer", "limit", "ratio", "unit"]
    assert figures["ratio"] == figures["peer"] / figures["ours"]
    assert min(figures["ours"], figures["peer"], figures["limit"]) > 0


def test_candidates_take_turns() -> None:
    calls: list[str] = []
    seconds = seconds_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert list(seconds) == ["a", "b"]


def test_tables_line_up() -> None:
    result = Result("x", 1.0, 2.0, 0.5, 2.0, "ms", ("way", "ms"), (("ours", "1.0"), ("longer name", "12.5")))
    assert result.table().splitlines() == ["way            ms", "ours          1.0", "longer name  12.5"]
