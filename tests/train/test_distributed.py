"""Training on two processes: what one would do, to float32's precision, whatever the shares; and no rank left waiting.

One launch of two processes runs every case, since their start costs more than the cases; what they found is in files.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from qoq_train.data.corpus import Corpus
from qoq_train.models.inputs import EncodedPrompt, Row, make_batch
from qoq_train.models.scoring import ScoringChoice
from qoq_train.models.tiny import write_tiny_model
from qoq_train.models.weights import whole
from qoq_train.prompts import fixed_pieces
from qoq_train.recipe import TrainRecipe, train_recipe_text
from qoq_train.rewards import RowFacts
from qoq_train.training import runs, updating
from qoq_train.training.assembly import CONVENTIONS, assemble
from qoq_train.training.drawing import share_of_step
from qoq_train.training.method import micro_loss
from qoq_train.training.optimiser import trained_parameters, update
from qoq_train.training.ranks import ALONE, RankError, Ranks, start_ranks
from qoq_train.training.run_folder import RunFolder
from qoq_train.training.trainer import Trainer
from tests.train.test_trainer import VARIED, recipe_of, varied, without_times

REPOSITORY = Path(__file__).resolve().parents[2]
FAILING = "tests.train.test_distributed:failing"

CASES: dict[str, dict[str, Any]] = {
    # one question and two, three passes or more and some: shares are uneven
    "whole": {"run__steps": 3, "supervised__steps": 2, "rollout__questions": 3, "optimiser__questions_per_update": 3},
    # the first rank has nothing at all
    "none": {
        "run__steps": 1,
        "rollout__questions": 1,
        "optimiser__questions_per_update": 1,
        "method": {"advantage": "remax", "loss": "cispo", "aggregation": "token_mean"},
    },
    "lora": {"run__steps": 1, "model__lora": {"rank": 4}, "model__gradient_checkpointing": True},
}


def failing(text: str, row: RowFacts) -> float:
    """A reward that only the second process cannot give."""
    if os.environ.get("RANK") == "1":
        raise ValueError("this reward does not like it here")
    return varied(text, row)


def case(name: str, corpus: Path, model: Path) -> TrainRecipe:
    return recipe_of(corpus, model, **{"supervised__steps": 0, "run__evaluate_every": 2, **CASES[name]})


def trained(recipe: TrainRecipe, out: Path) -> list[dict[str, torch.Tensor]]:
    """Run a recipe whole; gives the whole gradient of every on-policy update."""
    kept = []

    def keeping(model: torch.nn.Module, *rest: Any) -> float:
        found = {name: value.grad for name, value in trained_parameters(model).items() if value.grad is not None}
        kept.append({name: whole(grad).clone() for name, grad in found.items()})
        return update(model, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updating, "update", keeping)
        runs.train(recipe, train_recipe_text(recipe), out, lambda figures: None)
    return kept


# What the two processes do.


def work(out: Path, corpus: Path, model: Path) -> None:
    torch.set_num_threads(1)
    ranks = start_ranks(5)
    pytest.MonkeyPatch().setattr(Ranks, "close", lambda self: None)  # the next case goes on with them
    for name in CASES:
        kept = trained(case(name, corpus, model), out / name)
        if ranks.is_first:
            torch.save(kept, out / f"{name}.pt")
    told: dict[str, Any] = {"pictures": pictures_on_one_rank(ranks, case("whole", corpus, model))}
    told |= {"stopped": stopped_and_resumed(out, case("whole", corpus, model))}
    told |= {"reward": failure(case("none", corpus, model), out / "reward", reward=FAILING)}
    told |= {"nan": failure(case("none", corpus, model), out / "nan", factor=float("nan"))}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher ends the others: here they are to end by themselves
    told |= {"lost": failure(case("none", corpus, model), out / "lost", dies=ranks.rank == 1, told=(out, told))}
    write_told(out, ranks.rank, told)
    os._exit(3)  # what is left of the group would only say again that it is broken


def write_told(out: Path, rank: int, told: dict[str, Any]) -> None:
    (out / f"told-{rank}.json").write_text(json.dumps(told))


def pictures_on_one_rank(ranks: Ranks, recipe: TrainRecipe) -> list[float]:
    """Gradient norms of the vision tower and the language model where the first rank has a picture and no other."""
    assembly = assemble(recipe)
    batch = batches_of_two(assembly)[ranks.rank]
    values = assembly.scorer(batch, ScoringChoice()).log_probabilities
    (-values.sum() * ranks.world).backward()
    assembly.scorer.finish()
    return gradient_norms(assembly)


def batches_of_two(assembly: Any) -> list[Any]:
    policy = assembly.policy
    grid = torch.tensor([[1, 4, 4]])
    pixels = torch.linspace(-1, 1, 16 * 3 * 2 * 14 * 14).reshape(16, -1)
    picture = policy.pictures.image_token_id
    seen = EncodedPrompt(
        "a", (5, picture, picture, picture, picture, 6), torch.zeros((3, 6), dtype=torch.long), pixels, grid
    )
    read = EncodedPrompt("b", (5, 6, 7), torch.arange(3).expand(3, -1), None, None)
    return [make_batch([one], [Row(0, (8, 9, 10))], [0], pad_id=policy.pad_id) for one in (seen, read)]


def gradient_norms(assembly: Any) -> list[float]:
    gradients = {n: whole(p.grad) for n, p in assembly.policy.model.named_parameters() if p.grad is not None}
    return [
        float(torch.cat([g.flatten() for n, g in gradients.items() if ("visual" in n) == vision]).norm())
        for vision in (True, False)
    ]


def stopped_and_resumed(out: Path, recipe: TrainRecipe) -> bool:
    """The run of the case ``whole``, killed in its third step and started again."""
    real = Trainer.step

    def dies(self: Trainer, number: int, examples: Any) -> dict[str, float]:
        if number == 2:
            raise KeyboardInterrupt
        return real(self, number, examples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            trained(recipe, out / "stopped")
    trained(recipe, out / "stopped")
    return True


def failure(
    recipe: TrainRecipe,
    out: Path,
    *,
    reward: str = VARIED,
    factor: float = 1.0,
    dies: bool = False,
    told: tuple[Path, dict[str, Any]] | None = None,
) -> list[str]:
    """How a run fails here; one that ``dies`` writes what it was ``told`` before."""
    rewards = recipe.rewards.model_copy(update={"custom": (reward,), "weights": {reward: 1.0}})
    recipe = recipe.model_copy(update={"rewards": rewards})

    def broken(*arguments: Any) -> Any:
        if dies and told is not None:
            write_told(told[0], 1, told[1])
            os._exit(3)
        loss, figures = micro_loss(*arguments)
        return loss * factor, figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updating, "micro_loss", broken)
        try:
            trained(recipe, out)
        except Exception as error:  # noqa: BLE001
            return [type(error).__name__, str(error)]
    return []


# What is asked of it.


@pytest.fixture(scope="module")
def tiny(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("ranks") / "model"
    data = recipe_of(corpus_folder, folder).data
    write_tiny_model(folder, answer_pieces=fixed_pieces(Corpus(data), "short", CONVENTIONS["qwen2_5_vl"]), seed=1)
    return corpus_folder, folder


@pytest.fixture(scope="module")
def two(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two processes, started as a user starts them, left."""
    out = tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*launch, "-m", "tests.train.test_distributed", str(out), *map(str, tiny)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert (out / "told-0.json").exists(), ended.stderr[-4000:]
    return out


def told(two: Path, rank: int) -> dict[str, Any]:
    return dict(json.loads((two / f"told-{rank}.json").read_text()))


@pytest.fixture(scope="module")
def one(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of the same runs on one process, and their gradients."""
    out = tmp_path_factory.mktemp("one")
    return out, {name: trained(case(name, *tiny), out / name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_steps_of_one(two: Path, one: tuple[Path, dict[str, Any]], name: str) -> None:
    alone = one[1][name]
    together = torch.load(two / f"{name}.pt", weights_only=True)
    assert len(alone) == len(together) > 0
    # The first update starts from the same weights; later ones where Adam followed the signs of roundings.
    scale = max(float(grad.abs().max()) for grad in alone[0].values())
    supervised = name == "whole"
    for grad_name, grad in alone[0].items():
        apart = float((together[0][grad_name] - grad).abs().max())
        assert apart < (2e-3 if supervised else 2e-5) * scale, grad_name
    first, second = (lines(folder, "metrics")[0] for folder in (one[0] / name, two / name))
    assert set(first) == set(second)
    for figure in set(first) - {figure for figure in first if figure.startswith(("seconds/", "tokens_per_second"))}:
        assert second[figure] == pytest.approx(first[figure], rel=1e-3, abs=2e-3), figure


def test_supervised_steps_and_evaluations_are_those_of_one(two: Path, one: tuple[Path, dict[str, Any]]) -> None:
    for name in ("supervised", "evaluations"):
        alone, together = lines(one[0] / "whole", name), lines(two / "whole", name)
        assert [line["step"] for line in alone] == [line["step"] for line in together]
        assert [line["loss"] for line in together if "loss" in line] == pytest.approx(
            [line["loss"] for line in alone if "loss" in line], rel=1e-4
        )


def test_a_run_of_two_that_was_stopped_goes_on_to_the_same_numbers(two: Path) -> None:
    assert told(two, 0)["stopped"]
    assert told(two, 1)["stopped"]
    for name in ("metrics", "evaluations", "supervised"):
        assert without_times(lines(two / "stopped", name)) == without_times(lines(two / "whole", name))
    for file in ("model", "supervised"):
        first, second = (folder / file / "model.safetensors" for folder in (two / "whole", two / "stopped"))
        assert first.read_bytes() == second.read_bytes()


def test_one_process_goes_on_from_the_checkpoint_of_two(two: Path, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(two / "whole", tmp_path / "copy"))
    (copy / "checkpoints" / "step-000003.pt").unlink()
    trained(case("whole", *tiny), copy)
    again, before = lines(copy, "metrics"), lines(two / "whole", "metrics")
    assert without_times(again[:2]) == without_times(before[:2])
    assert again[2]["reward"] == pytest.approx(before[2]["reward"])
    assert again[2]["grad_norm"] == pytest.approx(before[2]["grad_norm"], rel=1e-3)


def test_g04_a_rank_without_pictures_passes_what_the_others_pass(two: Path, tiny: tuple[Path, Path]) -> None:
    assembly = assemble(case("whole", *tiny))
    for batch in batches_of_two(assembly):
        (-assembly.scorer(batch, ScoringChoice()).log_probabilities.sum()).backward()
    expected = gradient_norms(assembly)
    assert expected[0] > 0
    assert told(two, 0)["pictures"] == pytest.approx(expected, rel=1e-4)
    assert told(two, 1)["pictures"] == told(two, 0)["pictures"]


def test_a_rank_that_fails_is_told_on_every_rank(two: Path) -> None:
    kind, text = told(two, 1)["reward"]
    assert "this reward does not like it here" in text
    assert told(two, 0)["reward"][0] == "RankError"
    assert f"Rank 1 of 2 failed: {kind}" in told(two, 0)["reward"][1]
    assert "this reward does not like it here" in told(two, 0)["reward"][1]


def test_a_rank_that_is_gone_leaves_none_waiting(two: Path) -> None:
    assert told(two, 0)["lost"][0] == "RankError"
    assert "Another rank ended" in told(two, 0)["lost"][1]


def test_what_is_not_finite_stops_all_and_is_kept_once(two: Path) -> None:
    for rank in (0, 1):
        kind, text = told(two, rank)["nan"]
        assert kind == "NotFiniteError"
        assert "step 1: the loss is not finite" in text
        assert "failed/step-000001.parquet" in text
    kept = pl.read_parquet(two / "nan" / "failed" / "step-000001.parquet")
    assert kept["rank"].to_list() == [1] * 4  # its one question is the second rank's
    assert kept.height == 4


def test_each_update_is_spread_over_the_ranks() -> None:
    shares = [share_of_step(8, 4, Ranks(rank, 3)) for rank in range(3)]
    assert shares == [[0, 4], [1, 5], [2, 3, 6, 7]]
    assert share_of_step(8, 4, ALONE) == list(range(8))
    assert [share_of_step(3, 1, Ranks(rank, 2)) for rank in range(2)] == [[], [0, 1, 2]]


def test_a_folder_is_written_by_the_first_rank_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", "name: a\n", "0", writes=False)
    folder.log("metrics", {"step": 1})
    folder.save(1, {"step": 1}, 1)
    folder.write_completions(1, [{"row": "a"}])
    assert folder.latest() is None
    assert folder.write_failure(1, [{"row": "a"}]) == "failed/step-000001.parquet"
    assert not (tmp_path / "run").exists()


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert start_ranks(1) is ALONE
    assert ALONE.total(1.5, 2.0) == (1.5, 2.0)
    assert ALONE.gather is None
    with pytest.raises(ZeroDivisionError):
        ALONE.each(lambda: 1 / 0)
    assert issubclass(RankError, Exception)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    work(*map(Path, sys.argv[1:4]))
