"""``qoq-train`` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from qoq_data.record import AnswerType
from qoq_train import cli
from qoq_train.answers import AnswerKey, read_answer
from qoq_train.cli import progress as lines
from qoq_train.cli.progress import step_line, tokens_a_second
from qoq_train.evaluation.outcomes import Outcome
from qoq_train.evaluation.subset import few_per_class
from qoq_train.recipe import parse_train_recipe, train_recipe_text
from tests.train.test_publish import FakeHub
from tests.train.test_trainer import recipe_of

HEAVY = {
    "torch",
    "transformers",
    "peft",
    "vllm",
    "accelerate",
    "huggingface_hub",
    "polars",
    "pyarrow",
    "numpy",
    "scipy",
}


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["qoq-train", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def modules_after(*arguments: str) -> set[str]:
    """Top-level modules that a command has imported by its end, in a process of its own."""
    script = (
        f"import sys\nsys.argv = ['qoq-train', *{list(arguments)!r}]\nfrom qoq_train.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100)
    return {name.split(".")[0] for name in done.stderr.split()}


@pytest.fixture
def recipe_file(corpus_folder: Path, tmp_path: Path) -> Path:
    recipe = recipe_of(corpus_folder, tmp_path / "tiny", run__steps=2, supervised__steps=2)
    file = tmp_path / "mine.yaml"
    file.write_text(train_recipe_text(recipe))
    return file


@pytest.mark.parametrize("arguments", [("--help",), ("drpo", "--help"), ("recipe",), ("--version",)])
def test_help_and_recipes_pull_in_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not modules_after(*arguments) & HEAVY


def test_it_starts_as_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qoq_train.cli", "recipe", "tiny"],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert yaml.safe_load(done.stdout)["name"] == "tiny"


def test_a_recipe_prints_every_key_and_is_read_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tiny", "qoq-med-7b-grpo"):
        assert typed(monkeypatch, "recipe", name) == 0
        printed = capsys.readouterr().out
        assert train_recipe_text(parse_train_recipe(printed, "printed")) == printed
        assert set(yaml.safe_load(printed)) == set(parse_train_recipe(printed, "printed").model_dump())


def test_recipes_are_listed_with_what_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "recipe") == 0
    printed = capsys.readouterr().out
    assert "The published 7B run" in printed
    assert typed(monkeypatch, "recipe", "--json") == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["qoq-med-7b-lora"]["base"] == "qoq-med-7b"
    assert typed(monkeypatch, "recipe", "tiny", "--set", "run.steps=7", "--json") == 0
    assert json.loads(capsys.readouterr().out)["run"]["steps"] == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("recipe", "tini"), "There is no training recipe 'tini'. Did you mean 'tiny'?"),
        (("drpo", "tiny", "--out", "run", "--set", "method.advantages=grpo"), "Did you mean 'advantage'?"),
        (("drpo", "tiny", "--out", "run", "--set", "steps"), "--set 'steps' is not key=value."),
        (("drpo", "tiny", "--out", "run", "--set", "rollout.questions=5"), "rollout.questions is no whole multiple"),
        (("eval", "tiny", "--split", "dev"), "there is no split 'dev'"),
        (("eval", "tiny", "--allow-remote"), "belong to an --endpoint"),
        (("eval", "tiny", "--endpoint", "ftp://host"), "address must be http"),
        (("sft", "tiny", "--out", "run", "--set", "data.corpus=nowhere"), "There is no corpus here"),
        (("push", "nowhere", "lab/model"), "nowhere has no finished model"),
        (("compare", "nowhere"), "two runs or more"),
        (("report", "nowhere"), "nowhere"),
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
    run = tmp_path / "run"
    assert typed(monkeypatch, "tiny-model", str(recipe_file), "--out", str(tmp_path / "tiny")) == 0
    assert typed(monkeypatch, "doctor", str(recipe_file), "--out", str(run)) == 0
    assert "Nothing was found that will fail." in capsys.readouterr().out
    assert typed(monkeypatch, "drpo", str(recipe_file), "--out", str(run)) == 0
    files = {path.name for path in run.iterdir()}
    assert {"recipe.yaml", "versions.json", "metrics.jsonl", "completions", "checkpoints", "model"} <= files
    told = capsys.readouterr().err
    assert "supervised step 1  loss" in told
    assert "step 2  reward" in told
    assert "dermatology" in told
    assert "tokens/s" in told
    assert "\x1b" not in told
    model = ("--set", f"model.path={run / 'model'}")
    rows = ("--split", "train", "--rows", "12", "--per-class", "2")
    assert typed(monkeypatch, "eval", str(recipe_file), *model, *rows, "--json", "--out", str(tmp_path / "tables")) == 0
    printed = capsys.readouterr().out
    found = json.loads(printed[printed.index("{") :])
    assert found["overall"]["rows"] == 12
    assert found["left_out"] == []
    assert found["per_class"]["limit"] == 2
    assert found["per_class"]["overall"]["rows"] <= 12
    assert json.loads((tmp_path / "tables" / "evaluation.json").read_text()) == found
    text = (tmp_path / "tables" / "evaluation.md").read_text()
    assert "at most 2 a class, a seeded subset" in text
    assert "all: mean of domains" in text
    gained = ("--split", "train", "--rows", "12", "--before", str(run / "supervised"), "--out", str(tmp_path / "gain"))
    assert typed(monkeypatch, "eval", str(recipe_file), *model, *gained) == 0
    assert "| macro-F1 | rows | before | after | after less before |" in capsys.readouterr().out
    tree = json.loads((tmp_path / "gain" / "evaluation.json").read_text())
    assert tree["overall"] == found["overall"]
    alone = ("--set", f"model.path={run / 'supervised'}", "--split", "train", "--rows", "12", "--json")
    assert typed(monkeypatch, "eval", str(recipe_file), *alone) == 0
    printed = capsys.readouterr().out
    assert tree["before"]["overall"] == json.loads(printed[printed.index("{") :])["overall"]
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    assert typed(monkeypatch, "push", str(run), "lab/model", "--public", "--vouch-private") == 3
    assert "Refused" in capsys.readouterr().err


@pytest.mark.parametrize("more", [("--per-class", "2"), ("--endpoint", "http://127.0.0.1/v1")])
def test_what_was_gained_is_of_the_recipes_own_model_and_all_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: tuple[str, str]
) -> None:
    assert typed(monkeypatch, "eval", "tiny", "--before", "run/supervised", *more) == 2
    assert "--before goes with neither" in capsys.readouterr().err


def test_the_doctor_ends_with_1_where_something_will_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--set", "data.corpus=nowhere", "--set", "model.path=/nowhere/model")
    assert typed(monkeypatch, "doctor", "tiny", *settings, "--devices", "8", "--json") == 1
    tree = json.loads(capsys.readouterr().out)
    assert tree["healthy"] is False
    assert tree["findings"][0]["verdict"] == "fails"


STEP = {
    "step": 3.0, "reward": 0.5, "reward/domain/fundus": 0.25, "reward/domain/ecg": 0.75, "reward/answer": 0.4,
    "loss": 0.0125, "unreadable": 0.1, "tokens": 20.0, "questions": 16.0, "rollout_gap/max": 0.002,
    "seconds/generate": 1.5, "seconds/update": 0.5,
}  # fmt: skip


def test_a_line_of_a_step_by_hand() -> None:
    assert step_line(STEP, 8) == (
        "step 3  reward 0.500 (ecg 0.750, fundus 0.250)  loss 0.0125  unreadable 0.100  gap 0.002  1,280 tokens/s  "
        "2.0 s (generate 1.5, update 0.5)"
    )
    assert tokens_a_second(STEP, 8) == 20 * 16 * 8 / 2.0
    assert tokens_a_second({"step": 1.0}, 8) is None
    assert step_line({"step": 1.0}, 8) == "step 1  "


def test_a_line_of_an_evaluation_and_of_supervised_steps() -> None:
    figures = {"step": 20.0, "left_out": 0, "overall/macro_f1": 0.5, "overall/exact_match": 0.25, "ecg/macro_f1": 0.75}
    assert step_line(figures, 8) == (
        "step 20  evaluated  macro F1 0.500  exact match 0.250  macro F1 by domain: ecg 0.750"
    )
    supervised = [step_line({"supervised": 1.0, "step": float(step), "loss": 2.0}, 8) for step in range(1, 51)]
    assert [number + 1 for number, line in enumerate(supervised) if line] == [1, 25, 50]
    assert supervised[24] == "supervised step 25  loss 2.0000"


def test_a_terminal_gets_a_bold_step_and_a_pipe_plain_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for is_terminal in (True, False):
        monkeypatch.setattr(lines.sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        lines.progress(8)(STEP)
        assert ("\x1b[1mstep 3\x1b[0m" in capsys.readouterr().err) is is_terminal


def outcome(number: int, answer: str) -> Outcome:
    key = AnswerKey(("yes", "no"), (answer,), AnswerType.ONE)
    read = read_answer("\\boxed{yes}", key.choices, key.answer_type)
    return Outcome("busi", "ultrasound", "finding", f"p{number}", key, read, row_id=f"busi/{number}/finding")


def test_a_subset_holds_at_most_so_many_of_a_class_whatever_the_order() -> None:
    every = [outcome(number, "yes" if number % 4 else "no") for number in range(40)]
    few = few_per_class(every, 3, seed=1)
    answers = [one.key.answer[0] for one in few]
    assert (answers.count("yes"), answers.count("no")) == (3, 3)
    assert {one.row_id for one in few_per_class(every[::-1], 3, seed=1)} == {one.row_id for one in few}
    assert {one.row_id for one in few_per_class(every, 3, seed=2)} != {one.row_id for one in few}
    assert few_per_class(every, 40, seed=1) == every
    with pytest.raises(ValueError, match="no row is left"):
        few_per_class([], 3, seed=1)
