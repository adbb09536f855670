"""That training works: a seeded task that the real trainer learns, and three broken advantages under which it does not.

The reward is a user's own, of a policy that starts at random: the share of a completion's tokens that are one letter.
It can only rise by moving along the advantages of what was drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from qoq_train.data.corpus import Corpus
from qoq_train.models.tiny import write_tiny_model
from qoq_train.prompts import fixed_pieces
from qoq_train.rewards import RowFacts
from qoq_train.training import trainer as trainer_module
from qoq_train.training.assembly import CONVENTIONS
from tests.train.test_trainer import recipe_of, started

LETTERS = "tests.train.test_learning:letters"
STEPS = 12
RISE = 0.2


def letters(text: str, row: RowFacts) -> float:
    """The share of characters from the first half of the alphabet."""
    return sum("a" <= letter <= "m" for letter in text.lower()) / max(1, len(text))


@pytest.fixture(scope="module")
def tiny(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("learning") / "model"
    data = recipe_of(corpus_folder, folder).data
    pieces = fixed_pieces(Corpus(data), "short", CONVENTIONS["qwen2_5_vl"])
    return corpus_folder, write_tiny_model(folder, answer_pieces=pieces, seed=2)


def rise(tiny: tuple[Path, Path], out: Path, advantage: str = "drpo") -> float:
    """Mean reward of the last three steps over that of the first three."""
    recipe = recipe_of(
        *tiny,
        method={"advantage": advantage, "kl_coefficient": 0.0, "kl_damping": False, "aggregation": "token_mean"},
        rewards={"custom": [LETTERS], "weights": {LETTERS: 1.0}},
        rollout__completions=8,
        rollout__questions=8,
        rollout__max_tokens=8,
        optimiser={"learning_rate": 3e-3, "questions_per_update": 8, "micro_tokens": 8000, "betas": [0.9, 0.95]},
        run={"steps": STEPS, "evaluate_every": 99, "evaluation_rows": 1, "checkpoint_every": 99},
    )
    trainer, _, folder = started(recipe, out)
    trainer._evaluate = lambda step: None  # type: ignore[method-assign]
    trainer.run()
    rewards = [line["reward"] for line in folder.lines("metrics")]
    return float(sum(rewards[-3:]) - sum(rewards[:3])) / 3


@pytest.mark.parametrize("advantage", ["drpo", "grpo"])
def test_the_reward_goes_up(tiny: tuple[Path, Path], tmp_path: Path, advantage: str) -> None:
    assert rise(tiny, tmp_path / "run", advantage) > RISE


@pytest.mark.parametrize("mutant", ["sign", "shuffle", "zero"])
def test_it_does_not_with_a_broken_advantage(
    tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    real = trainer_module.step_advantages

    def broken(*arguments: Any, **keywords: Any) -> Any:
        advantages, state, figures = real(*arguments, **keywords)
        if mutant == "sign":
            return -advantages, state, figures
        if mutant == "zero":
            return torch.zeros_like(advantages), state, figures
        order = torch.randperm(advantages.numel(), generator=torch.Generator().manual_seed(0))
        return advantages.flatten()[order].reshape(advantages.shape), state, figures

    monkeypatch.setattr(trainer_module, "step_advantages", broken)
    assert rise(tiny, tmp_path / "run") < RISE / 2
