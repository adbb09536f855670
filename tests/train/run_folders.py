"""Run folders as the trainer leaves them, with figures that a test can work out."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from qoq_data.licence import Redistribution
from qoq_data.record import AnswerType, Split
from qoq_train.answers import AnswerKey, ReadAnswer, Unreadable
from qoq_train.evaluation.outcomes import EvaluatedRows, Outcome, evaluation_path, write_rows

LABELS = ("a", "b", "c")
CORPUS = "c0" * 32


def outcome(row: int, named: str | None, domain: str = "ct", group: str = "", **more: Any) -> Outcome:
    """Row ``row`` of a domain, whose true label follows from its number, answered ``named``."""
    read = ReadAnswer((named,)) if named else ReadAnswer(unreadable=Unreadable.NO_BOX)
    key = AnswerKey(LABELS, (LABELS[row % 3],), AnswerType.ONE)
    place: dict[str, Any] = {"dataset": f"{domain}-1", "domain": domain, "task": "t", "group": group or f"p{row // 2}"}
    return Outcome(**{**place, "key": key, "read": read, "row_id": f"{domain}/{row}"} | more)


def answered(share_right: float, seed: int, rows: int = 24, domains: Sequence[str] = ("ct", "mri")) -> list[Outcome]:
    """Rows of each domain, of which about a share is right."""
    draw = random.Random(seed)
    return [
        outcome(row, LABELS[row % 3] if draw.random() < share_right else draw.choice(LABELS), domain)
        for domain in domains
        for row in range(rows)
    ]


def line(step: int, **figures: float) -> dict[str, float]:
    """A step of 2 questions with 10 tokens a completion, 3 s long."""
    return {
        "step": step,
        "questions": 2.0,
        "tokens": 10.0,
        "reward": 0.5,
        "reward/domain/ct": 0.25,
        "reward/domain/mri": 0.75,
        "rollout_gap/mean": 1e-7,
        "rollout_gap/max": 1e-6,
        "seconds/generate": 2.0,
        "seconds/update": 1.0,
    } | figures


def write_run(
    folder: Path,
    *,
    settings: dict[str, Any] | None = None,
    corpus: dict[str, str] | None = None,
    steps: int = 4,
    evaluations: Sequence[dict[str, float]] = (),
    rows: dict[tuple[Split, int], list[Outcome]] | None = None,
) -> Path:
    """A run of ``rollout.completions: 5``; ``settings`` are sections of its recipe."""
    folder.mkdir(parents=True)
    recipe: dict[str, Any] = {
        "name": folder.name, "data": {"corpus": "/home/someone/corpus"}, "method": {"advantage": "drpo"},
        "rollout": {"completions": 5}, "run": {"steps": 4},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | (settings or {})))
    (folder / "versions.json").write_text(json.dumps({"torch": "2.13.0", "numpy": "2.3.5"}))
    told = {"manifest_sha256": CORPUS} if corpus is None else corpus
    (folder / "corpus.json").write_text(json.dumps(told))
    write_lines(folder / "metrics.jsonl", [line(step) for step in range(1, steps + 1)])
    if evaluations:
        write_lines(folder / "evaluations.jsonl", evaluations)
    for (split, step), outcomes in (rows or {}).items():
        kept = EvaluatedRows(split, step, CORPUS, "CC-BY-4.0", Redistribution.OPEN, tuple(outcomes))
        write_rows(evaluation_path(folder, split, step, ".parquet"), kept)
    return folder


def write_lines(file: Path, lines: Sequence[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))


def write_completions(folder: Path, step: int, texts: Sequence[str], rewards: Sequence[float]) -> None:
    (folder / "completions").mkdir(exist_ok=True)
    table = pl.DataFrame(
        {
            "row": [f"busi/{i}" for i in range(len(texts))],
            "completion": texts,
            "reward": rewards,
            "reward_answer": rewards,
            "reward_box": [None] * len(texts),
        }
    )
    table.write_parquet(folder / "completions" / f"step-{step:06d}.parquet")
