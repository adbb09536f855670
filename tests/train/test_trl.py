"""DRPO inside TRL's trainer: the step by hand, its state over updates, evaluations, checkpoints and ranks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset

from qoq_data.errors import UsageError
from qoq_data.record import Split
from qoq_train.advantages import DrpoConfig, DrpoState, drpo
from qoq_train.data.corpus import Corpus
from qoq_train.models.inputs import encode_prompt
from qoq_train.models.tiny import write_tiny_model
from qoq_train.prompts import fixed_pieces
from qoq_train.training.assembly import CONVENTIONS, Assembly, assemble
from tests.train.policies import write_text_model
from tests.train.test_trainer import recipe_of
from tests.train.trl_trainers import (
    STATE_FILE,
    DRPOTrainer,
    GRPOTrainer,
    by_sum,
    config,
    corpus_dataset,
    qoq_rewards,
    questions,
    text_trainer,
)

PLAIN = DrpoConfig(domain_scaling=False, cluster_scaling=False, kl_damping=False, unit_variance=False)
SCALED = DrpoConfig(kl_damping=False, half_life_questions=1e12)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No telemetry, and the threads as they were."""
    monkeypatch.setenv("CI", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("text"))


def by_table(prompts: Any, completions: Any, domain: list[str], **_: Any) -> list[float]:
    """Rewards that are known beforehand: question a earns 1 0 1 0, question b 1 0 0 0."""
    seen: dict[str, int] = {}
    found = []
    for name in domain:
        place = seen.get(name, 0)
        seen[name] = place + 1
        found.append({"a": (1.0, 0.0, 1.0, 0.0), "b": (1.0, 0.0, 0.0, 0.0)}[name][place % 4])
    return found


def of_other_rows(completions: Any, **_: Any) -> list[float | None]:
    """A reward that applies to none of them."""
    return [None] * len(completions)


def logs(trainer: Any) -> list[dict[str, float]]:
    timed = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second")
    return [{name: value for name, value in line.items() if name not in timed} for line in trainer.state.log_history]


def test_a_step_equals_numbers_worked_out_by_hand(text_model: Path, tmp_path: Path) -> None:
    args = config(tmp_path, max_steps=1, reward_weights=[0.5, 3.0])
    trainer = text_trainer(text_model, args, reward_funcs=[by_table, of_other_rows], drpo=SCALED)
    trainer.train()
    # Scores: a ±0.5/0.57735, b 0.75/0.5 and -0.25/0.5. Weights 1/(√1·μ)², μ 0.25 and 0.125, so b weighs 4 of a's.
    scaled = torch.tensor([0.8660, -0.8660, 0.8660, -0.8660, 6.0, -2.0, -2.0, -2.0])
    wanted = dict(zip("ab", (scaled / scaled.std()).split(4), strict=True))
    groups = torch.tensor(list(trainer._logs["advantages"])).split(4)
    assert len(groups) == 2
    first, second = sorted(groups, key=lambda group: float(group.max()))
    assert torch.allclose(first, wanted["a"], atol=1e-4)
    assert torch.allclose(second, wanted["b"], atol=1e-4)
    state = trainer.drpo_state.domains
    assert {name: domain.count for name, domain in state.items()} == pytest.approx({"a": 1, "b": 1})
    assert {name: domain.reward_sum for name, domain in state.items()} == pytest.approx({"a": 0.25, "b": 0.125})
    line = trainer.state.log_history[0]
    assert line["drpo/b/weight"] / line["drpo/a/weight"] == pytest.approx(4)
    assert (line["reward/domain/a"], line["reward/domain/b"]) == (0.25, 0.125)


def test_two_steps_are_ours_with_the_state_passed_on(text_model: Path, tmp_path: Path) -> None:
    seen: list[tuple[list[float], list[str], torch.Tensor]] = []

    class Watched(DRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            rewards = self._rewards_by_function[:, 0].tolist()
            seen.append((rewards, [row["domain"] for row in inputs], output["advantages"].clone()))
            return output

    trainer = text_trainer(text_model, config(tmp_path), Watched, drpo=SCALED)
    trainer.train()
    assert len(seen) == 2
    state = DrpoState()
    for rewards, domains, advantages in seen:
        step = drpo(torch.tensor(rewards).reshape(2, 4), domains[::4], state, SCALED)
        assert torch.equal(advantages, step.advantages.reshape(-1))
        state = step.state
    assert trainer.drpo_state.domains["a"].count == state.domains["a"].count
    assert torch.equal(trainer.drpo_state.domains["b"].vectors, state.domains["b"].vectors)


def test_the_damping_takes_the_kl_of_the_policy_to_the_reference(text_model: Path, tmp_path: Path) -> None:
    trainer = text_trainer(text_model, config(tmp_path, beta=0.1, temperature=0.7))
    assert trainer.drpo_config.kl_damping
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.add_(0.03 * torch.randn(weight.shape, generator=generator))
    trainer.model.train()
    rows = [row for row in questions(2) for _ in range(4)]
    output = trainer._generate_and_score_completions(rows)
    assert "old_per_token_logps" not in output
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], 1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], 1)
    width = output["completion_ids"].shape[1]
    values = []
    for model in (trainer.model, trainer.ref_model):
        with torch.no_grad():
            places = (mask.cumsum(1) - 1).clamp(min=0)
            logits = model(input_ids=ids, attention_mask=mask, position_ids=places).logits
        chosen = torch.log_softmax(logits[:, -width - 1 : -1] / 0.7, -1)
        values.append(chosen.gather(2, output["completion_ids"][:, :, None])[:, :, 0])
    ratio = values[1] - values[0]
    kl = ((ratio.exp() - 1 - ratio) * output["completion_mask"]).sum(1)
    assert kl.min() > 1e-3
    assert torch.allclose(trainer._kl(output), kl, atol=1e-5)
    step = drpo(trainer._rewards_by_function.reshape(2, 4), ["a", "b"], None, DrpoConfig(), kl=kl.reshape(2, 4))
    assert step.metrics.damped_share > 0
    assert torch.allclose(output["advantages"], step.advantages.reshape(-1), atol=1e-4)


def test_the_state_moves_on_once_a_generation_and_not_once_an_update(text_model: Path, tmp_path: Path) -> None:
    args = config(tmp_path, max_steps=8, gradient_accumulation_steps=1, steps_per_generation=2, num_iterations=2)
    trainer = text_trainer(text_model, args, drpo=SCALED)
    trainer.train()  # two generations of two questions, each for four updates
    assert sum(domain.count for domain in trainer.drpo_state.domains.values()) == pytest.approx(4)


def test_an_evaluation_is_not_remembered(text_model: Path, tmp_path: Path) -> None:
    args = config(tmp_path, num_generations_eval=1, max_steps=1)
    trainer = text_trainer(text_model, args, drpo=SCALED, eval_dataset={"one": questions(4), "other": questions(4)})
    trainer.train()
    before = trainer.drpo_state
    trainer.evaluate()
    assert trainer.drpo_state is before
    figures = trainer.state.log_history[-1]
    assert 0 <= figures["eval_reward/domain/a"] <= 1
    assert not any("drpo/" in name for name in figures)


def test_a_resumed_run_goes_on_to_the_same_numbers(text_model: Path, tmp_path: Path) -> None:
    steps: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "disable_dropout": True}
    whole = text_trainer(text_model, config(tmp_path / "whole", **steps))
    whole.train()
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    resumed = text_trainer(text_model, config(tmp_path / "resumed", **steps))
    resumed.train(resume_from_checkpoint=str(checkpoint))
    wanted, found = (one.drpo_state.to_dict()["domains"] for one in (whole, resumed))
    assert wanted.keys() == found.keys() == {"a", "b"}
    for name, domain in wanted.items():
        for key, value in domain.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(found[name][key])), (name, key)
    assert logs(whole)[2:4] == logs(resumed)[2:4]

    saved = DrpoState.from_dict(torch.load(checkpoint / STATE_FILE, weights_only=True))
    assert saved.completions == 4
    fewer = text_trainer(text_model, config(tmp_path / "fewer", num_generations=2, **steps))
    with pytest.raises(UsageError, match="num_generations 4, and this one has 2"):
        fewer.train(resume_from_checkpoint=str(checkpoint))
    other = text_trainer(text_model, config(tmp_path / "other", **steps), drpo=DrpoConfig(statistics="batch"))
    with pytest.raises(UsageError, match="statistics 'streaming', and this one has 'batch'"):
        other.train(resume_from_checkpoint=str(checkpoint))
    (checkpoint / STATE_FILE).unlink()
    with pytest.raises(UsageError, match=r"checkpoint-2 has no drpo_state\.pt"):
        resumed.train(resume_from_checkpoint=str(checkpoint))


def test_without_scaling_it_is_trls_own_trainer(text_model: Path, tmp_path: Path) -> None:
    trained = []
    for kind, changes in ((DRPOTrainer, {"drpo": PLAIN}), (GRPOTrainer, {})):
        trainer = text_trainer(text_model, config(tmp_path / kind.__name__, max_steps=1), kind, **changes)
        trainer.train()  # before the other is made, which seeds the draws anew
        trained.append(trainer)
    ours, theirs = trained
    own, plain = (torch.tensor(list(trainer._logs["advantages"])) for trainer in (ours, theirs))
    assert plain.abs().max() > 0.5
    assert torch.allclose(own, plain, rtol=1e-3, atol=1e-5)  # 1e-6 is added to our deviations, 1e-4 to theirs
    for a, b in zip(logs(ours), logs(theirs), strict=True):
        assert {name: a[name] for name in b} == pytest.approx(b, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("dataset", "column", "told"),
    [
        (Dataset.from_list([{"prompt": "x", "source": "s"}]), "domain", "train_dataset has no column 'domain'"),
        (questions(), "source", "only domain, number, prompt"),
        (Dataset.from_dict({"n": [0]}).with_transform(lambda rows: {"prompt": ["x"]}), "domain", "no column 'domain'"),
    ],
)
def test_a_dataset_without_domains_is_refused_before_anything_is_loaded(
    tmp_path: Path, dataset: Any, column: str, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        DRPOTrainer(str(tmp_path / "absent"), by_sum, config(tmp_path), dataset, domain_column=column)


@pytest.mark.parametrize("value", [None, "", 3])
def test_a_domain_that_is_no_name_is_refused(text_model: Path, tmp_path: Path, value: Any) -> None:
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "x"}], "domain": value} for _ in range(4)])
    trainer = text_trainer(text_model, config(tmp_path), train_dataset=rows)
    with pytest.raises(UsageError, match=r"in its column 'domain'; it must name the row's domain"):
        trainer.train()


def test_a_stream_without_domains_is_refused_at_its_first_batch(text_model: Path, tmp_path: Path) -> None:
    stream = IterableDataset.from_generator(lambda: iter([{"prompt": "x"}] * 8))
    trainer = text_trainer(text_model, config(tmp_path), train_dataset=stream)
    with pytest.raises(UsageError, match="A row has nothing in its column 'domain'"):
        trainer.train()


def test_settings_that_drpo_replaces_are_refused(text_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Set beta"):
        text_trainer(text_model, config(tmp_path, beta=0.0), drpo=DrpoConfig())
    assert not text_trainer(text_model, config(tmp_path, beta=0.0)).drpo_config.kl_damping
    with pytest.raises(UsageError, match="scale_rewards is 'none'"):
        text_trainer(text_model, config(tmp_path, scale_rewards=False))
    with pytest.raises(UsageError, match="multi_objective_aggregation is 'normalize_then_sum'"):
        text_trainer(text_model, config(tmp_path, multi_objective_aggregation="normalize_then_sum"))


@pytest.mark.parametrize(("value", "told"), [(None, "2 completion.s. got no reward"), (-0.5, "negative")])
def test_rewards_that_cannot_be_weighed_are_refused(
    text_model: Path, tmp_path: Path, value: float | None, told: str
) -> None:
    def reward(completions: Any, **_: Any) -> list[float | None]:
        return [value, 0.5, 1.0, 0.25] * (len(completions) // 4)

    with pytest.raises(UsageError, match=told):
        text_trainer(text_model, config(tmp_path), reward_funcs=reward).train()


@pytest.mark.slow
def test_two_processes_take_one_step_on_the_whole_batch(text_model: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.trl_rank", str(text_model), str(tmp_path)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["state"] == ranks[1]["state"]
    state = DrpoState()
    for first, second in zip(ranks[0]["steps"], ranks[1]["steps"], strict=True):
        assert first["rewards"] == second["rewards"]
        assert len(first["rewards"]) == 16
        rewards = torch.tensor(first["rewards"], dtype=torch.float64).reshape(2, 8)
        step = drpo(rewards, (first["domains"] + second["domains"])[::8], state, SCALED)
        state = step.state
        assert torch.allclose(torch.tensor(first["own"] + second["own"]), step.advantages.reshape(-1).float())
    assert ranks[0]["state"] == {name: domain.vectors.tolist() for name, domain in state.domains.items()}


@pytest.fixture(scope="module")
def pictured(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """A corpus of pictures and the tiny model that knows its words."""
    folder = tmp_path_factory.mktemp("pictured") / "model"
    recipe = recipe_of(
        corpus_folder, folder, rewards={"preset": "default"}, prompt={"template": "boxes", "system": "Hm."}
    )
    pieces = fixed_pieces(Corpus(recipe.data), "boxes", CONVENTIONS["qwen2_5_vl"])
    write_tiny_model(folder, answer_pieces=pieces, seed=1)
    return assemble(recipe)


def test_a_corpus_of_pictures_trains_for_two_steps(pictured: Assembly, tmp_path: Path) -> None:
    rows = pictured.corpus.rows(Split.TRAIN)
    dataset = corpus_dataset(rows, pictured.writer)
    processor = pictured.policy.processor
    reward = qoq_rewards(pictured.rewards, pictured.user_rewards)
    arguments: dict[str, Any] = {"train_dataset": dataset, "processing_class": processor}
    processor.tokenizer.padding_side = "right"
    with pytest.raises(UsageError, match="padding_side='left'"):
        DRPOTrainer(pictured.policy.model, [reward, by_sum], config(tmp_path), **arguments)
    processor.tokenizer.padding_side = "left"
    args = config(tmp_path, max_completion_length=12)
    trainer = DRPOTrainer(pictured.policy.model, [reward, by_sum], args, **arguments)
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    lines = trainer.state.log_history[:2]
    assert all(line["grad_norm"] > 0 and line["reward/answer"] >= 0 and "unreadable" in line for line in lines)
    assert any(not torch.equal(before[name], weight) for name, weight in trainer.model.named_parameters())
    counted = sum(domain.count for domain in trainer.drpo_state.domains.values())
    assert counted == pytest.approx(4, rel=1e-2)

    trainer.model.train()
    some = [dataset[i] for i in (0, 0, 0, 0, 5, 5, 5, 5)]
    output = trainer._generate_and_score_completions(some)
    for number, place in ((0, dataset.data["place"][0].as_py()), (4, dataset.data["place"][5].as_py())):
        ids = output["prompt_ids"][number][output["prompt_mask"][number].bool()].tolist()
        prompt = pictured.writer.prompt(rows.example(place))
        assert tuple(ids) == encode_prompt(pictured.policy, prompt).token_ids  # type: ignore[arg-type]


def test_a_row_is_read_when_it_is_drawn_and_once_a_batch(pictured: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pictured.corpus.rows(Split.TRAIN)
    read: list[int] = []
    example = rows.example
    monkeypatch.setattr(rows, "example", lambda place: (read.append(place), example(place))[1])
    dataset = corpus_dataset(rows, pictured.writer, seed=7)
    assert len(dataset) == len(rows)
    assert read == []
    batch = dataset.__getitems__([3, 3, 3, 1])
    wanted = rows.order(7).rows(0, 4).tolist()
    assert read == [wanted[3], wanted[1]]
    assert [row["facts"].id for row in batch] == [example(wanted[i]).row_id for i in (3, 3, 3, 1)]
    assert batch[0]["domain"] == batch[0]["facts"].domain
    assert [message["role"] for message in batch[0]["prompt"]] == ["system", "user"]
    assert sorted(dataset.data["place"].to_pylist()) == list(range(len(rows)))


def test_g01_a_prompt_that_is_too_long_is_an_error_with_the_rows_id(pictured: Assembly) -> None:
    import dataclasses

    writer = dataclasses.replace(pictured.writer, max_prompt_tokens=8)
    rows = pictured.corpus.rows(Split.TRAIN)
    with pytest.raises(UsageError, match=r"^\S+: its prompt has \d+ tokens, over data.max_prompt_tokens \(8\)"):
        corpus_dataset(rows, writer)[0]


def test_the_rewards_judge_the_last_message_by_the_rows_facts(pictured: Assembly) -> None:
    dataset = corpus_dataset(pictured.corpus.rows(Split.TRAIN), pictured.writer)
    facts = next(row["facts"] for row in dataset if row["facts"].key.answer and row["facts"].key.choices)
    logged: dict[str, float] = {}
    right = f"<think>so</think> \\boxed{{{', '.join(facts.key.answer)}}}"
    judged = qoq_rewards()(
        prompts=["q"] * 3,
        completions=[[{"role": "assistant", "content": right}], "nothing", [{"role": "assistant", "content": None}]],
        facts=[facts] * 3,
        log_metric=logged.__setitem__,
        domain=["x"] * 3,
    )
    assert judged[0] > 0.5 > judged[1]
    assert logged["reward/answer"] == pytest.approx(1 / 3)
    assert logged["unreadable"] == pytest.approx(2 / 3)
    for wrong in ({}, {"facts": ["a"]}):
        with pytest.raises(UsageError, match="corpus_dataset"):
            qoq_rewards()(completions=["x"], **wrong)
