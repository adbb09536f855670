"""``qoq-train`` as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from qoq_train import cli
from qoq_train.recipe import parse_train_recipe, train_recipe_text
from tests.train.test_trainer import recipe_of


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["qoq-train", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def recipe_file(corpus_folder: Path, tmp_path: Path) -> Path:
    recipe = recipe_of(corpus_folder, tmp_path / "tiny", run__steps=2, supervised__steps=2)
    file = tmp_path / "mine.yaml"
    file.write_text(train_recipe_text(recipe))
    return file


def test_a_recipe_prints_every_key_and_is_read_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "recipe", "tiny") == 0
    printed = capsys.readouterr().out
    assert train_recipe_text(parse_train_recipe(printed, "printed")) == printed
    assert set(yaml.safe_load(printed)) == set(parse_train_recipe(printed, "printed").model_dump())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("recipe", "tini"), "There is no training recipe 'tini'. Did you mean 'tiny'?"),
        (("drpo", "tiny", "--out", "run", "--set", "method.advantages=grpo"), "Did you mean 'advantage'?"),
        (("drpo", "tiny", "--out", "run", "--set", "steps"), "--set 'steps' is not key=value."),
        (("drpo", "tiny", "--out", "run", "--set", "rollout.questions=5"), "rollout.questions is no whole multiple"),
        (("eval", "tiny", "--split", "dev"), "there is no split 'dev'"),
        (("sft", "tiny", "--out", "run", "--set", "data.corpus=nowhere"), "There is no corpus here"),
    ],
)
def test_a_mistake_is_one_paragraph(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert typed(monkeypatch, *arguments) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_from_a_corpus_to_an_evaluated_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recipe_file: Path, tmp_path: Path
) -> None:
    assert typed(monkeypatch, "tiny-model", str(recipe_file), "--out", str(tmp_path / "tiny")) == 0
    assert typed(monkeypatch, "drpo", str(recipe_file), "--out", str(tmp_path / "run")) == 0
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"recipe.yaml", "versions.json", "metrics.jsonl", "completions", "checkpoints", "model"} <= files
    capsys.readouterr()
    model = f"model.path={tmp_path / 'run' / 'model'}"
    assert (
        typed(monkeypatch, "eval", str(recipe_file), "--set", model, "--split", "train", "--rows", "8", "--json") == 0
    )
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["overall"]["rows"] == 8
    assert found["left_out"] == []
