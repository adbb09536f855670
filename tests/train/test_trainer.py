"""The trainer whole: supervised steps, on-policy steps, checkpoints, and what must stop it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from qoq_data.errors import UsageError
from qoq_data.record import Split
from qoq_train.data.corpus import Corpus
from qoq_train.evaluation.text import report_json, report_table
from qoq_train.models.tiny import write_tiny_model
from qoq_train.prompts import fixed_pieces
from qoq_train.recipe import TrainRecipe, train_recipe_text
from qoq_train.rewards import RowFacts
from qoq_train.rollout import RolloutError, Sampling
from qoq_train.rollout.transformers_copy import TransformersCopy
from qoq_train.training import updating as updating_module
from qoq_train.training.assembly import CONVENTIONS, Assembly, assemble, start_engine
from qoq_train.training.drawing import draw
from qoq_train.training.evaluate import evaluate
from qoq_train.training.memory_errors import memory_told
from qoq_train.training.optimiser import NotFiniteError, TrainingError, learning_rate_share
from qoq_train.training.run_folder import RunFolder
from qoq_train.training.scores import LARGEST_GAP, Scoring
from qoq_train.training.sft import supervise, supervised_pairs
from qoq_train.training.trainer import Trainer

VARIED = "tests.train.test_trainer:varied"


def varied(text: str, row: RowFacts) -> float:
    """A reward that differs between the completions of a model that knows nothing yet."""
    return (sum(map(ord, text)) + len(row.question)) % 8 / 8


def recipe_of(corpus: Path, model: Path, **changes: Any) -> TrainRecipe:
    tree: dict[str, Any] = {
        "name": "test",
        "model": {"path": str(model), "dtype": "float32", "gradient_checkpointing": False},
        "data": {"corpus": str(corpus), "min_pixels": 7056, "max_pixels": 12544, "max_prompt_tokens": 512,
                 "ecg_layout": "single"},
        "prompt": {"template": "short"},
        "method": {"kl_coefficient": 0.01},
        "rewards": {"custom": [VARIED], "weights": {"answer": 0.1, VARIED: 0.9}},
        "rollout": {"engine": "transformers", "completions": 4, "questions": 4, "max_tokens": 6, "top_p": 1.0},
        "optimiser": {"learning_rate": 1e-3, "questions_per_update": 2, "micro_tokens": 600},
        "supervised": {"steps": 3, "batch": 4, "warmup_steps": 1, "learning_rate": 2e-3},
        "run": {"steps": 4, "evaluate_every": 2, "evaluation_rows": 6, "checkpoint_every": 1, "keep_checkpoints": 2},
    }  # fmt: skip
    for dotted, value in changes.items():
        section, _, key = dotted.partition("__")
        if key:
            tree[section][key] = value
        else:
            tree[section] = value
    return TrainRecipe.model_validate(tree)


@pytest.fixture(scope="module")
def tiny(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus, and a tiny model that knows its words."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    data = recipe_of(corpus_folder, folder).data
    write_tiny_model(folder, answer_pieces=fixed_pieces(Corpus(data), "short", CONVENTIONS["qwen2_5_vl"]), seed=1)
    return corpus_folder, folder


def started(recipe: TrainRecipe, out: Path) -> tuple[Trainer, Assembly, RunFolder]:
    assembly = assemble(recipe)
    folder = RunFolder(out, train_recipe_text(recipe), assembly.corpus.manifest_sha256)
    return Trainer(assembly, start_engine(assembly), folder, lambda _: None), assembly, folder


def without_times(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = ("seconds/", "tokens_per_second")
    return [{name: value for name, value in line.items() if not name.startswith(timed)} for line in lines]


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = recipe_of(*tiny)
    whole, assembly, folder = started(recipe, tmp_path / "whole")
    whole.run()
    expected = without_times(folder.lines("metrics"))
    assert [line["step"] for line in expected] == [1, 2, 3, 4]
    assert [line["step"] for line in folder.lines("evaluations")] == [0, 2, 4]
    assert len(list((tmp_path / "whole" / "checkpoints").iterdir())) == 2
    weights = {name: value.clone() for name, value in assembly.policy.model.state_dict().items()}

    stopped, _, _ = started(recipe, tmp_path / "stopped")
    step = stopped.step

    def dies(number: int, examples: Any) -> dict[str, float]:
        if number == 2:
            raise KeyboardInterrupt
        return step(number, examples)

    stopped.step = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    (tmp_path / "stopped" / "checkpoints" / "step-000009.part").write_bytes(b"cut")
    again, resumed, same = started(recipe, tmp_path / "stopped")
    same.log("metrics", {"step": 3, "reward": -1})  # written after the last checkpoint, by the run that died
    again.run()
    assert without_times(same.lines("metrics")) == expected
    assert same.lines("evaluations") == folder.lines("evaluations")
    for name, value in resumed.policy.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    names = {path.name for path in (tmp_path / "whole" / "completions").iterdir()}
    assert names == {path.name for path in (tmp_path / "stopped" / "completions").iterdir()}
    kept = pl.read_parquet(tmp_path / "whole" / "completions" / "step-000001.parquet")
    assert kept.height == 16
    assert {"row", "completion", "reward", "reward_answer"} <= set(kept.columns)


def test_a_folder_of_another_recipe_is_refused(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    started(recipe_of(*tiny), tmp_path / "run")
    with pytest.raises(UsageError, match=r"run holds a run of another recipe or corpus \(recipe.yaml\)"):
        started(recipe_of(*tiny, seed=7), tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"advantage": "grpo", "loss": "cispo", "aggregation": "token_mean"},
        {"advantage": "dr_grpo", "aggregation": "constant", "kl_coefficient": 0.0},
        {"advantage": "rloo", "loss": "gspo", "importance_cap": None},
        {"advantage": "reinforce_plus_plus", "kl_estimator": "k1"},
        {"advantage": "remax"},
        {"advantage": "gpg", "filter_zero_variance": True},
        {"statistics": "batch", "max_clusters": 1, "kl_damping": False},
        {"domain_key": "source", "domain_scaling": False},
    ],
)
def test_every_method_of_a_recipe_runs(tiny: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = recipe_of(*tiny, method=changes, run__steps=1, run__evaluate_every=9)
    trainer, _, folder = started(recipe, tmp_path / "run")
    trainer.run()
    (line,) = folder.lines("metrics")
    assert line["step"] == 1
    assert all(math.isfinite(value) for value in line.values())
    assert line["rollout_gap/max"] < 1e-4
    assert line["grad_norm"] > 1e-4


def test_micro_batches_of_any_size_give_the_same_step(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    found = []
    for tokens in (100, 100_000):
        recipe = recipe_of(*tiny, optimiser__micro_tokens=tokens, run__steps=1, run__evaluate_every=9)
        trainer, assembly, folder = started(recipe, tmp_path / str(tokens))
        trainer.run()
        found.append((folder.lines("metrics")[0], dict(assembly.policy.model.named_parameters())))
    (small, of_small), (large, of_large) = found
    assert small["grad_norm"] > 0.01
    assert small["loss"] == pytest.approx(large["loss"], abs=1e-4)
    assert small["grad_norm"] == pytest.approx(large["grad_norm"], rel=1e-3)
    apart = [float((of_small[name] - of_large[name]).detach().abs().mean()) for name in of_small]
    assert max(apart) < 1e-4  # of steps of 1e-3: where a gradient is all but 0, Adam follows the sign of its rounding


def test_supervised_steps_teach_the_targets(tiny: tuple[Path, Path]) -> None:
    assembly = assemble(recipe_of(*tiny, supervised__steps=30, supervised__batch=8))
    lines: list[dict[str, float]] = []
    supervise(assembly, lines.append)
    assert [line["step"] for line in lines] == list(range(1, 31))
    losses = [line["loss"] for line in lines]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_the_last_supervised_steps_teach_the_form_alone_where_asked(tiny: tuple[Path, Path]) -> None:
    assembly = assemble(recipe_of(*tiny, supervised__steps=10, supervised__drawn_answers=0.3))
    examples = next(assembly.corpus.rows(Split.TRAIN).batches(16, 1, seed=0))
    right = {example.row_id: ", ".join(example.answer) for example in examples}
    for step in range(10):
        taught = [target.text for _, target in supervised_pairs(assembly, examples, step)]
        wrong = sum(answer not in text for text, answer in zip(taught, right.values(), strict=True))
        assert bool(wrong) == (step >= 7), step
        assert all("\\boxed{" in text for text in taught)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, assembly, folder = started(recipe_of(*tiny), tmp_path / "run")
    real, calls = updating_module.micro_loss, []

    def broken(*arguments: Any) -> Any:
        calls.append(1)
        loss, figures = real(*arguments)
        return (loss * math.nan if folder.lines("metrics") else loss), figures

    monkeypatch.setattr(updating_module, "micro_loss", broken)
    with pytest.raises(NotFiniteError, match=r"step 2: the loss is not finite.*failed/step-000002.parquet"):
        trainer.run()
    kept = pl.read_parquet(tmp_path / "run" / "failed" / "step-000002.parquet")
    assert kept.height == 16
    assert all(map(math.isfinite, kept["advantage"]))
    assert kept["token_ids"].list.len().to_list() == kept["old_log_probabilities"].list.len().to_list()
    assert kept["rollout_log_probabilities"].list.len().to_list() == kept["token_ids"].list.len().to_list()
    assert set(kept["row"]) <= set(pl.read_parquet(tmp_path / "run" / "completions" / "step-000001.parquet")["row"]) | {
        example.row_id for example in next(assembly.corpus.rows(Split.TRAIN).batches(4, 1, seed=42))
    }
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000001.pt"]
    assert all(bool(torch.isfinite(value).all()) for value in assembly.policy.model.parameters())


class StaleHead(TransformersCopy):
    """An engine that keeps its old head and says nothing, as engines do that take a tied head for granted."""

    def __init__(self, assembly: Assembly) -> None:
        super().__init__(assembly.policy, assembly.compute_dtype)
        model: Any = self._policy.model
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone(), requires_grad=False)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        own = self._policy.model.state_dict()
        super().load_weights((name, own[name] if name == "lm_head.weight" else value) for name, value in weights)


@pytest.mark.parametrize("stale", [False, True])
def test_an_engine_with_a_stale_head_is_caught_after_the_first_update(
    tiny: tuple[Path, Path], tmp_path: Path, stale: bool
) -> None:
    recipe = recipe_of(*tiny, run__steps=1, run__evaluate_every=9)
    assembly = assemble(recipe)
    folder = RunFolder(tmp_path / "run", train_recipe_text(recipe), assembly.corpus.manifest_sha256)
    engine = StaleHead(assembly) if stale else TransformersCopy(assembly.policy, assembly.compute_dtype)
    with pytest.raises(RolloutError, match="has not been given"):
        engine.generate([], Sampling(1, 1))
    assembly.load_engine(engine)
    trainer = Trainer(assembly, engine, folder, lambda _: None)
    if stale:
        with pytest.raises(RolloutError, match=r"from the trainer's .*rollout.max_weights_gap"):
            trainer.run()
        assert not folder.lines("metrics")
    else:
        trainer.run()
        assert folder.lines("metrics")[0]["weights_gap/max"] < 1e-4


def test_a_gap_is_measured_in_both_precisions_and_what_is_no_number_is_too_far(
    tiny: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly = assemble(recipe_of(*tiny))
    scoring, engine = Scoring(assembly), start_engine(assembly)
    example = next(assembly.corpus.rows(Split.TRAIN).batches(1, seed=1))
    drawn = draw(assembly, engine, 0, [0], example)
    probe = scoring.probe(drawn)
    assert scoring.weights_gap(engine, drawn, probe) < 1e-4
    for wrong in (0.02, math.nan):
        with pytest.raises(RolloutError, match="max_weights_gap"):
            scoring.weights_gap(engine, drawn, [values + wrong for values in probe])
    assert LARGEST_GAP[torch.float32] < 0.02 < LARGEST_GAP[torch.bfloat16]


def test_out_of_memory_says_what_to_lower(
    tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _, _ = started(recipe_of(*tiny, run__steps=1), tmp_path / "run")

    def full(*arguments: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(updating_module, "micro_loss", full)
    with pytest.raises(
        TrainingError, match=r"step 1: out of memory on the GPU \(update\). Lower optimiser.micro_tokens"
    ):
        trainer.run()
    said = r"out of memory on the host \(generate\). Lower rollout.gpu_memory"
    with pytest.raises(TrainingError, match=said), memory_told("generate", "step 1"):
        torch.empty(1 << 46)
    with pytest.raises(RuntimeError, match="another"), memory_told("generate", "step 1"):
        raise RuntimeError("another fault")


def test_prompts_that_are_too_long_are_told_and_left_out(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    trainer, _, folder = started(recipe_of(*tiny, data__max_prompt_tokens=20, run__steps=1), tmp_path / "run")
    with pytest.raises(TrainingError, match="no row is left to ask, 6 being too long"):
        trainer.run()
    trainer._evaluate = lambda step: None  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="every prompt is too long"):
        trainer.run()
    assert len(folder.lines("left_out")) == 4
    assert all(line["tokens"] > 20 for line in folder.lines("left_out"))


def test_evaluation_is_repeatable_and_prints(tiny: tuple[Path, Path]) -> None:
    assembly = assemble(recipe_of(*tiny))
    engine = start_engine(assembly)
    first, left_out = evaluate(assembly, engine, Split.TRAIN, most=12, replicates=50)
    second, _ = evaluate(assembly, engine, Split.TRAIN, most=12, replicates=50)
    assert report_json(first) == report_json(second)
    assert not left_out
    assert first.overall.rows == 12
    table = report_table(first)
    assert table.startswith("|  | rows | macro-F1 |")
    assert all(len(line.split("|")) == len(table.splitlines()[0].split("|")) for line in table.splitlines())


def test_learning_rates() -> None:
    shares = [learning_rate_share(step, 4, 14, "linear") for step in range(15)]
    assert shares[:4] == [0.25, 0.5, 0.75, 1.0]
    assert shares[4] == 1.0
    assert shares[14] == pytest.approx(0.1)
    assert [learning_rate_share(step, 0, 3, "constant") for step in range(3)] == [1.0] * 3
    assert dataclasses.is_dataclass(Assembly)
