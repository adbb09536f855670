"""The recipes that ship: each parses, says what it is, holds the published numbers; one may build on another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qoq_data.errors import RecipeError, UnknownNameError
from qoq_train import recipe_files
from qoq_train.recipe import TrainRecipe, parse_train_recipe, train_recipe_text
from qoq_train.recipe_files import parse_settings, read_train_recipe, shipped_recipes
from qoq_train.training.assembly import reward_settings

SHIPPED = [one.name for one in shipped_recipes()]

ABLATIONS: dict[str, dict[str, Any]] = {
    "domain-only": {"method.cluster_scaling": False},
    "no-kl-damping": {"method.kl_damping": False},
    "no-kl": {"method.kl_coefficient": 0.0, "method.kl_damping": False},
    "clusters-1": {"method.max_clusters": 1},
    "clusters-3": {"method.max_clusters": 3},
    "clusters-10": {},
    "clusters-20": {"method.max_clusters": 20},
    "box-heavy": {"rewards.weights": {"answer": 0.2, "box": 0.6, "format": 0.2}},
    "grpo": {"method.advantage": "grpo"},
    "rloo": {"method.advantage": "rloo"},
    "reinforce-plus-plus": {"method.advantage": "reinforce_plus_plus"},
    "remax": {"method.advantage": "remax"},
    "paper": {
        "method.statistics": "batch",
        "method.mean_reward_floor": 0.0,
        "method.max_weight_ratio": None,
        "rewards.missing": "zero",
    },
    "released": {
        "method.statistics": "history",
        "method.domain_key": "source",
        "method.kl_damping": False,
        "method.mean_reward_floor": 0.0,
        "method.max_weight_ratio": None,
        "method.aggregation": "token_mean",
        "rewards.preset": "released",
        "rewards.missing": "zero",
        "run.epochs": 3.0,
    },
}


def differing(first: TrainRecipe, second: TrainRecipe) -> dict[str, Any]:
    """Keys of the second that are not the first's, by dotted name."""
    found: dict[str, Any] = {}
    one, other = first.model_dump(), second.model_dump()
    for section, value in other.items():
        if isinstance(value, dict):
            found |= {f"{section}.{key}": v for key, v in value.items() if one[section][key] != v}
        elif one[section] != value:
            found[section] = value
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_whole_and_reads_back(name: str) -> None:
    recipe = read_train_recipe(name)
    assert recipe.name == name
    assert parse_train_recipe(train_recipe_text(recipe), "printed") == recipe


def test_every_shipped_recipe_says_what_it_is_in_a_line() -> None:
    for one in shipped_recipes():
        assert 20 < len(one.description) < 120, one.name
        assert one.description.endswith("."), one.name
        assert one.base in ("", "qoq-med-7b")
    assert {"tiny", "qoq-med-7b", "qoq-med-32b", "qoq-med-7b-lora", "qwen3-vl-8b"} <= set(SHIPPED)


def test_the_7b_recipe_holds_the_published_numbers() -> None:
    recipe = read_train_recipe("qoq-med-7b")
    assert (recipe.model.path, recipe.model.dtype, recipe.model.lora) == (
        "Qwen/Qwen2.5-VL-7B-Instruct", "float32", None,
    )  # fmt: skip
    optimiser, rollout, method = recipe.optimiser, recipe.rollout, recipe.method
    assert (optimiser.learning_rate, optimiser.weight_decay, optimiser.max_grad_norm) == (1e-6, 1e-2, 1.0)
    assert (optimiser.warmup_steps, optimiser.schedule, optimiser.questions_per_update) == (0, "constant", 128)
    assert (rollout.questions, rollout.completions, rollout.temperature, rollout.top_p) == (512, 5, 1.0, 0.99)
    assert (recipe.data.max_prompt_tokens, rollout.max_tokens) == (4000, 4000)
    assert (recipe.data.min_pixels, recipe.data.max_pixels) == (65_536, 524_288)
    assert (method.kl_coefficient, method.kl_estimator, method.kl_damping) == (1e-4, "k3", True)
    assert (method.advantage, method.domain_key, method.max_clusters, method.elbow_tolerance) == (
        "drpo", "domain", 10, 0.10,
    )  # fmt: skip
    assert (method.clip_low, method.clip_high, method.dual_clip) == (0.2, 0.3, 3.0)
    assert (recipe.run.epochs, recipe.seed, recipe.run.evaluation_temperature) == (1.0, 42, 0.5)
    weights = reward_settings(recipe.rewards).weights
    assert (weights.answer, weights.box, weights.format, weights.length) == (0.6, 0.2, 0.2, 0.0)


def test_the_32b_recipe_is_the_16_bit_setting_of_256_questions() -> None:
    found = differing(read_train_recipe("qoq-med-7b"), read_train_recipe("qoq-med-32b"))
    assert found == {
        "name": "qoq-med-32b", "model.path": "Qwen/Qwen2.5-VL-32B-Instruct", "model.dtype": "bfloat16",
        "rollout.questions": 256, "rollout.gpu_memory": 0.6,
    }  # fmt: skip


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_differs_from_the_7b_recipe_in_its_keys_alone(name: str) -> None:
    found = differing(read_train_recipe("qoq-med-7b"), read_train_recipe(f"qoq-med-7b-{name}"))
    assert found.pop("name") == f"qoq-med-7b-{name}"
    assert found == ABLATIONS[name]


def test_every_ablation_that_ships_is_known_here() -> None:
    others = {"qoq-med-7b-lora"}
    assert {name.removeprefix("qoq-med-7b-") for name in SHIPPED if name.startswith("qoq-med-7b-")} == {
        *ABLATIONS, *(name.removeprefix("qoq-med-7b-") for name in others),
    }  # fmt: skip


def test_the_released_recipe_pays_for_length_as_released() -> None:
    settings = reward_settings(read_train_recipe("qoq-med-7b-released").rewards)
    weights = settings.weights
    assert (weights.answer, weights.box, weights.format, weights.length) == (0.5, 0.3, 0.1, 0.1)
    assert settings.missing == "zero"


def test_a_file_builds_on_a_shipped_recipe_and_a_section_keeps_its_other_keys(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: qoq-med-7b-lora\nname: mine\nmodel: {dtype: float32}\nrewards: {weights: {answer: 1.0}}\n")
    recipe = read_train_recipe(str(file), {"rollout.questions": 64})
    assert recipe.model.lora is not None
    assert (recipe.model.lora.rank, recipe.model.dtype, recipe.model.path) == (
        32, "float32", "Qwen/Qwen2.5-VL-7B-Instruct",
    )  # fmt: skip
    assert (recipe.rollout.questions, recipe.rollout.completions) == (64, 5)
    assert recipe.rewards.weights == {"answer": 1.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: qoq-med-7c\nname: mine\n", "base: 'qoq-med-7c' is no recipe that ships"),
        ("base: ../../etc/passwd\nname: mine\n", "is no recipe that ships"),
        ("base: [qoq-med-7b]\nname: mine\n", "is no recipe that ships"),
        ("base: qoq-med-7b\nname: mine\nmethod: {advantages: grpo}\n", "Did you mean 'advantage'?"),
        ("base: qoq-med-7b\nname: mine\nmethod: grpo\n", "method: it is not a mapping"),
        ("base: qoq-med-7b\nname: mine\nname: yours\n", "the key 'name' stands twice"),
    ],
)
def test_a_base_that_cannot_be_is_told(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError) as raised:
        read_train_recipe(str(file))
    assert said in str(raised.value)
    assert str(raised.value).startswith("mine.yaml")


def test_recipes_that_build_on_each_other_in_a_ring_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"a": "base: b\nname: a\n", "b": "base: a\nname: b\n"}
    files = []
    for name, text in texts.items():
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(text)
    monkeypatch.setattr(recipe_files, "_files", lambda: files)
    monkeypatch.setattr(recipe_files, "find_train_recipe", lambda name: (texts[name], f"{name}.yaml"))
    with pytest.raises(RecipeError, match="which has no beginning"):
        read_train_recipe("a")


def test_settings_are_yaml_and_every_bad_one_is_told() -> None:
    assert parse_settings(["a.b=1e-6", "c=null", "d=[1, 2]", "e=x=y"]) == {
        "a.b": "1e-6", "c": None, "d": [1, 2], "e": "x=y",
    }  # fmt: skip
    with pytest.raises(RecipeError) as raised:
        parse_settings(["steps", "=3", "a=[1"])
    assert len(raised.value.problems) == 3


def test_a_rate_typed_without_a_point_is_a_number(tmp_path: Path) -> None:
    recipe = read_train_recipe("tiny", parse_settings(["optimiser.learning_rate=1e-5", "model.lora={rank: 4}"]))
    assert recipe.optimiser.learning_rate == 1e-5
    assert recipe.model.lora is not None
    assert recipe.model.lora.rank == 4


def test_a_name_that_is_nearly_one_is_told() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'qoq-med-7b"):
        read_train_recipe("qoq-med-7")
