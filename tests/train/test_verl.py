"""DRPO on verl's rows, without verl: groups found by uid, groups of another size, and rows that carry their truth."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from qoq_data.errors import CorpusError, UsageError
from qoq_data.record import AnswerType, BoxOnImage, Split
from qoq_train.advantages import DrpoConfig, DrpoState, drpo, grpo
from qoq_train.answers import AnswerKey
from qoq_train.coordinates import Convention, ModelFrame
from qoq_train.data.corpus import Corpus
from qoq_train.integrations import verl_corpus
from qoq_train.integrations.verl import DrpoEstimator, Rows, VerlSettings, drpo_of_rows
from qoq_train.integrations.verl_corpus import write_split
from qoq_train.integrations.verl_rows import compute_score, facts_of_row, ground_truth_of, verl_row
from qoq_train.models.tiny import tiny_tokenizer
from qoq_train.prompts import PromptWriter
from qoq_train.recipe import DataRecipe
from qoq_train.rewards import BoxTruth, RowFacts, TrueMask, reward_of, settings_of
from qoq_train.rollout import Prompt

PLAIN = DrpoConfig(domain_scaling=False, cluster_scaling=False, kl_damping=False, unit_variance=False)


def batch(
    seed: int, questions: int = 12, completions: int = 4, domains: tuple[str, ...] = ("ct", "ecg", "mri")
) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """Rewards (questions × completions), a domain a question, and a KL a completion."""
    rng = np.random.default_rng(seed)
    rewards = rng.choice([0.0, 0.2, 0.5, 1.0], (questions, completions))
    names = [domains[i] for i in rng.integers(len(domains), size=questions)]
    return torch.from_numpy(rewards), names, torch.from_numpy(rng.exponential(0.1, (questions, completions)))


def as_rows(rewards: torch.Tensor, names: list[str], kl: torch.Tensor, seed: int) -> tuple[Any, ...]:
    """The batch as verl may lay it out: shuffled rows, the uids in the order of the questions."""
    questions, completions = rewards.shape
    order = [(q, c) for q in range(questions) for c in range(completions)]
    random.Random(seed).shuffle(order)
    uids = [f"uid-{q:03d}" for q, _ in order]
    values = torch.stack([rewards[place] for place in order])
    return values, uids, [names[q] for q, _ in order], torch.stack([kl[place] for place in order]), order


@pytest.mark.parametrize("statistics", ["streaming", "batch"])
@pytest.mark.parametrize("damped", [False, True])
def test_shuffled_rows_over_steps_equal_drpo_called_directly(statistics: Any, damped: bool) -> None:
    config = DrpoConfig(statistics=statistics, kl_damping=damped)
    direct, by_rows = DrpoState(), DrpoState()
    for step in range(6):
        rewards, names, kl = batch(step)
        expected = drpo(rewards, names, direct, config, kl=kl if damped else None)
        direct = expected.state
        values, uids, domains, kls, order = as_rows(rewards, names, kl, seed=step)
        found = drpo_of_rows(values, uids, domains, by_rows, config, kl=kls if damped else None)
        by_rows = found.state
        for row, place in enumerate(order):
            assert found.advantages[row] == pytest.approx(float(expected.advantages[place]), abs=1e-14)
        assert found.figures["drpo/effective_sample_size"] == expected.metrics.scalars()["drpo/effective_sample_size"]
    for name, domain in direct.domains.items():
        assert torch.equal(domain.vectors, by_rows.domains[name].vectors)


def test_groups_of_another_size_get_their_own_scores_and_without_scaling_are_grpos() -> None:
    values = torch.tensor([1.0, 0.0, 0.5, 0.25, 1.0, 0.0, 0.0, 0.7, 0.7], dtype=torch.float64)
    uids = ["b", "a", "b", "b", "a", "c", "c", "d", "d"]
    found = drpo_of_rows(values, uids, ["ct"] * 9, DrpoState(), PLAIN)
    three = grpo(torch.tensor([[1.0, 0.5, 0.25]], dtype=torch.float64))[0]
    two = grpo(torch.tensor([[0.0, 1.0]], dtype=torch.float64))[0]
    expected = [three[0], two[0], three[1], three[2], two[1], 0, 0, 0, 0]
    assert found.advantages.tolist() == pytest.approx([float(value) for value in expected], abs=1e-12)
    assert found.figures["drpo/questions"] == 4
    assert found.figures["drpo/uneven_questions"] == 3
    assert found.state.completions == 3


def uneven_by_hand(rewards: list[list[float]], weights: list[float]) -> list[float]:
    """Group scores times weights, over the unbiased deviation of all of them."""
    scaled = [
        (value - np.mean(group)) / (np.std(group, ddof=1) + 1e-6) * weight
        for group, weight in zip(rewards, weights, strict=True)
        for value in group
    ]
    return [value / (float(np.std(scaled, ddof=1)) + 1e-6) for value in scaled]


def test_weights_of_uneven_groups_by_hand() -> None:
    # two domains, one question each: N is 1, mu .5 and .25, and one cluster a domain, so w is 1/mu^2: 4 and 16,
    # and relative to their median (of logarithms) 1/2 and 2
    config = DrpoConfig(statistics="batch", kl_damping=False, max_weight_ratio=None, mean_reward_floor=0.0)
    groups = [[0.0, 1.0, 0.25, 0.75], [0.0, 0.5]]
    uids = ["a"] * 4 + ["b"] * 2
    found = drpo_of_rows(torch.tensor([v for g in groups for v in g]), uids, ["x"] * 4 + ["y"] * 2, DrpoState(), config)
    # the second stands in the statistics as the quantiles 0, 1/6, 1/3, 1/2, whose mean is its own
    assert found.advantages.tolist() == pytest.approx(uneven_by_hand(groups, [0.5, 2.0]), abs=1e-9)


@pytest.mark.parametrize("damped", [False, True])
@pytest.mark.parametrize("unit_variance", [False, True])
def test_the_way_of_uneven_groups_is_drpo_on_even_ones(
    damped: bool, unit_variance: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All groups of 8 where 4 are asked for, each a group of 4 twice: the same statistics but for the deviation."""
    config = DrpoConfig(statistics="batch", kl_damping=damped, unit_variance=unit_variance, normalise_std=False)
    rewards, names, kl = batch(3, completions=4)
    twice, kl_twice = torch.cat([rewards, rewards], 1), torch.cat([kl, kl], 1)
    values, uids, domains, kls, order = as_rows(twice, names, kl_twice, seed=1)
    # the quantiles of a group that stands there twice, read at 4 places, are not its own; so read them as they are
    monkeypatch.setattr("qoq_train.integrations.verl._resized", lambda v, size: v.sort().values[:: len(v) // size])
    found = drpo_of_rows(values, uids, domains, DrpoState(), config, kl=kls if damped else None, completions=4)
    weights = drpo(rewards, names, None, replace(config, kl_damping=False, unit_variance=False)).advantages
    scaled = torch.cat([weights, weights], 1)
    damping = torch.ones_like(scaled)
    if damped:
        products = scaled * kl_twice
        threshold = torch.quantile(products[products > 0], 0.75)
        damping = threshold / (threshold + products.clamp(min=0))
    expected = damping * scaled
    if unit_variance:
        expected = expected / (expected.std() + 1e-6)
    for row, place in enumerate(order):
        assert float(found.advantages[row]) == pytest.approx(float(expected[place]), abs=1e-9)


def test_rows_that_fill_up_are_not_counted() -> None:
    rewards, names, kl = batch(5)
    values, uids, domains, _, _ = as_rows(rewards, names, kl, seed=2)
    config = DrpoConfig(kl_damping=False)
    alone = drpo_of_rows(values, uids, domains, DrpoState(), config)
    filled = drpo_of_rows(
        torch.cat([torch.zeros(3), values]), ["pad"] * 3 + uids, [None] * 3 + list(domains), DrpoState(), config
    )
    assert filled.advantages[:3].tolist() == [0, 0, 0]
    assert torch.equal(filled.advantages[3:], alone.advantages)
    assert filled.figures == alone.figures
    nothing = drpo_of_rows(torch.zeros(2), ["p", "p"], [None, None], alone.state, config)
    assert nothing.advantages.tolist() == [0, 0]
    assert nothing.state is alone.state


def test_one_completion_alone_gets_nothing_and_is_counted() -> None:
    found = drpo_of_rows(torch.tensor([1.0, 0.0, 1.0]), ["a", "a", "b"], ["x", "x", "y"], DrpoState(), PLAIN)
    assert found.advantages[2] == 0
    assert found.state.domains["y"].reward_sum == 1.0


def test_a_question_of_two_domains_is_refused() -> None:
    with pytest.raises(ValueError, match="question a are of several domains"):
        drpo_of_rows(torch.zeros(2), ["a", "a"], ["x", "y"], DrpoState(), PLAIN)


def told(algorithm: dict[str, Any], rows: Rows | None, rewards: torch.Tensor, index: Any = None) -> Any:
    made = DrpoEstimator()
    made.rows = rows
    mask = torch.ones(len(rewards), 3)
    mask[0, 2] = 0
    token_rewards = torch.zeros(len(rewards), 3)
    token_rewards[:, 1] = rewards
    index = np.array(rows.uids if rows and index is None else index, dtype=object)
    return made, made(token_level_rewards=token_rewards, response_mask=mask, config=algorithm, index=index)


def test_the_estimator_spreads_over_the_response_and_remembers() -> None:
    rows = Rows(("a", "a", "b", "b"), ("x", "x", "y", "y"), completions=2)
    made, (advantages, returns) = told({"drpo": {"kl_damping": False}}, rows, torch.tensor([1.0, 0, 0.5, 0]))
    assert advantages is returns
    assert advantages.dtype == torch.float32
    assert advantages[0, 2] == 0
    assert advantages[0, 0] == advantages[0, 1] > 0
    assert made.state.domains.keys() == {"x", "y"}
    assert made.figures["drpo/x/questions"] == 1
    assert made.rows is None


@pytest.mark.parametrize(
    ("algorithm", "rows", "index", "said"),
    [
        ({}, None, ["a", "a"], "trainer_mode=drpo"),
        ({"drpo": {"kl_damping": False}}, Rows(("a", "a"), ("x", "x")), ["a", "b"], "belong to another batch"),
        ({}, Rows(("a", "a"), ("x", "x")), None, "use_kl_loss=True"),
        ({"drpo": {"kl_damp": False}}, Rows(("a", "a"), ("x", "x")), None, "no key 'kl_damp'.*kl_damping"),
        ({"drpo": {"max_clusters": 0}}, Rows(("a", "a"), ("x", "x")), None, "max_clusters is 0"),
        ({"drpo": {"max_clusters": "many"}}, Rows(("a", "a"), ("x", "x")), None, "algorithm.drpo"),
        ({"drpo": {"domain_key": "patient"}}, Rows(("a", "a"), ("x", "x")), None, "domain or source"),
        ({"drpo": {"kl_damping": False}}, Rows(("a", "a"), ("x", "x")), None, "cannot weigh this batch.*negative"),
    ],
)
def test_what_the_estimator_refuses(algorithm: Any, rows: Any, index: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        told(algorithm, rows, torch.tensor([1.0, -1.0]), index)


def test_settings_take_verls_own_key_for_the_deviation() -> None:
    assert not VerlSettings.of_algorithm({"norm_adv_by_std_in_grpo": False}).config.normalise_std
    both = {"norm_adv_by_std_in_grpo": False, "drpo": {"normalise_std": True, "domain_key": "source"}}
    assert VerlSettings.of_algorithm(both).config.normalise_std
    assert VerlSettings.of_algorithm(both).domain_key == "source"
    assert VerlSettings.of_algorithm({}).config == DrpoConfig()


KEY = AnswerKey(("Benign", "Malignant, and large"), ("Malignant, and large",), AnswerType.ONE)
FRAMES = (ModelFrame((400, 300), (392, 308)),)
BOXED = RowFacts(
    KEY, BoxTruth.of_boxes((BoxOnImage("Tumour", 0, (10, 20, 110, 120), None),), FRAMES),
    boxes_expected=True, id="busi/1/kind", source="busi", domain="ultrasound", task="kind", question="Which?",
)  # fmt: skip
NUMBER = RowFacts(AnswerKey((), ("412",), AnswerType.NUMBER, 10.0), id="n/1", source="n", domain="ecg")
TEXTS = (
    "<think>a</think>\n```json\n[{\"bbox_2d\": [10, 21, 108, 123], \"label\": \"tumour\"}]\n```\n\\boxed{B}",
    "\\boxed{Malignant, and large}", "\\boxed{Benign} and \\boxed{Malignant, and large", "\\boxed{405 ms}",
    "nothing", "",
)  # fmt: skip


@pytest.mark.parametrize(
    "facts", [BOXED, NUMBER, replace(BOXED, boxes=None), replace(BOXED, boxes=BoxTruth((), FRAMES))]
)
@pytest.mark.parametrize("preset", ["default", "paper", "released"])
def test_a_row_judges_as_the_trainer_does(facts: RowFacts, preset: str) -> None:
    picture = Image.new("RGB", (392, 308), (9, 8, 7))
    row = verl_row(facts, "Which?", Prompt(facts.id, (1, 2), (picture,)), split="train", index=3, system="be brief")
    assert row["prompt"] == [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "<image>Which?"},
    ]  # fmt: skip
    assert Image.open(io.BytesIO(row["images"][0]["bytes"])).size == (392, 308)
    for text in TEXTS:
        truth = reward_of(text, facts, settings_of(preset))
        found = compute_score(
            row["data_source"], text, row["reward_model"]["ground_truth"], {**row["extra_info"], "num_turns": 1},
            preset=preset, reward_router_address=None,
        )  # fmt: skip
        assert found["score"] == truth.total
        assert found["unreadable"] == float(truth.answer.unreadable is not None)
    assert set(found) == {"score", "acc", "unreadable"}
    again = facts_of_row(facts.source, ground_truth_of(facts), row["extra_info"])
    assert ground_truth_of(again) == ground_truth_of(facts)
    assert (again.id, again.domain, again.task) == (facts.id, facts.domain, facts.task)


def test_weights_and_custom_rewards_reach_the_score() -> None:
    extra = {"id": BOXED.id}
    name = "tests.train.test_verl:half"
    found = compute_score(
        "busi", "\\boxed{B}", ground_truth_of(BOXED), extra, weights={"answer": 1, name: 1}, custom=[name]
    )
    assert found == {"score": 0.75, "acc": 1.0, "unreadable": 0.0}


def half(text: str, row: RowFacts) -> float:
    return 0.5


@pytest.mark.parametrize(
    "truth", ["", "42", "null", "{}", '{"choices": ["a"]}', "[" * 50_000, json.dumps({"choices": 3})]
)
def test_a_ground_truth_of_other_origin_is_refused_by_the_rows_name(truth: str) -> None:
    with pytest.raises(UsageError, match=r"^row-7: reward_model.ground_truth is none"):
        compute_score("x", "\\boxed{A}", truth, {"id": "row-7"})


def test_what_a_row_cannot_hold() -> None:
    with pytest.raises(CorpusError, match=r"busi/1/kind: its text holds <video>"):
        verl_row(BOXED, "a <video> of", Prompt("r", ()), split="train", index=0)
    masked = replace(BOXED, boxes=BoxTruth((TrueMask.of(np.ones((2, 2), bool)),), FRAMES))
    with pytest.raises(ValueError, match="no masks"):
        ground_truth_of(masked)


def test_a_recipe_that_builds_on_another_is_written(
    corpus_folder: Path, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "mine.yaml"
    data = f"{{corpus: {corpus_folder}, sources: [busi], max_prompt_tokens: 4000}}"
    recipe.write_text(f"base: tiny\nname: mine\nmodel: {{path: {folders['qwen2_5_vl']}}}\ndata: {data}\n")
    monkeypatch.setattr(sys, "argv", ["verl_corpus", str(recipe), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        verl_corpus.main()
    assert not stop.value.code
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train.parquet", "validation.parquet"}


def test_a_split_is_written_whole_with_its_licence(corpus_folder: Path, tmp_path: Path) -> None:
    from qoq_train.models.pictures import PictureRule

    corpus = Corpus(DataRecipe(corpus=str(corpus_folder), sources=("busi", "ham10000")))
    tokenizer = tiny_tokenizer(())
    writer = PromptWriter(
        tokenizer, PictureRule(tokenizer.convert_tokens_to_ids("<|image_pad|>"), 14, 2, 7056, 12_544),
        Convention.RESIZED_PIXELS,
    )  # fmt: skip
    file = tmp_path / "verl" / "train.parquet"
    written, left_out = write_split(corpus, writer, Split.TRAIN, file)
    assert written == len(corpus.rows(Split.TRAIN)) - len(left_out) > 20
    table = pq.read_table(file)
    assert table.num_rows == written
    assert json.loads(table.schema.metadata[b"qoq"])["licence"] == corpus.licence
    rows = table.to_pylist()
    assert [row["extra_info"]["index"] for row in rows] == list(range(written))
    for row in rows:
        assert row["prompt"][-1]["content"].count("<image>") == len(row["images"]) > 0
        assert row["extra_info"]["domain"] in ("ultrasound", "dermatology")
        compute_score(row["data_source"], "\\boxed{A}", row["reward_model"]["ground_truth"], row["extra_info"])
    with pytest.raises(UsageError, match="no row in train"):
        write_split(corpus, replace(writer, max_prompt_tokens=1), Split.TRAIN, tmp_path / "none.parquet")
    assert not list(tmp_path.glob("none*"))


def test_importing_it_brings_in_neither_verl_nor_our_model_side() -> None:
    code = (
        "import sys, qoq_train.integrations.verl, qoq_train.integrations.verl_rows\n"
        "names = ('verl', 'transformers', 'polars', 'datasets', 'peft', 'vllm', 'qoq_train.models', "
        "'qoq_train.data.corpus')\n"
        "sys.exit(' '.join(name for name in names if name in sys.modules) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
