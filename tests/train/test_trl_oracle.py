"""TRL's GRPO loss as an oracle: one step's loss and gradient of the tiny model, theirs beside ours, on one batch.

Both sides load the same weights and score the same completions their own way: TRL on prompts padded on the left with
its fused head, ours on rows padded on the right. Probabilities of the engine, of the policy before the update and of
the reference differ enough from the policy's that every clip range is met on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qoq_train.losses import Denominators, aggregate, ppo_clip, rollout_weight
from qoq_train.models.loading import Policy
from qoq_train.models.scoring import Scorer, ScoringChoice, encode_rows, iterate_batches, score_rows
from qoq_train.recipe import MethodRecipe
from qoq_train.training.method import MicroBatch, micro_loss, padded, step_advantages
from tests.train.policies import model_folder, policy_at, three_prompts
from tests.train.trl_trainers import GRPOTrainer, by_sum, config, questions

COMPLETIONS = [
    [[1, 2, 3], [4, 5, 6, 7, 8], [9], [7, 7]],
    [[3, 4], [200], [11, 12, 13, 14], [15]],
    [[8, 8, 8, 8], [200, 100], [5], [90, 91, 92]],
]
REWARDS = [[0.0, 1.0, 0.5, 0.25], [1.0, 0.0, 0.0, 0.0], [0.2, 0.9, 0.4, 0.1]]
LONGEST = 12
TEMPERATURE = 0.7
CHOICE = ScoringChoice(TEMPERATURE)  # TRL bans picture tokens where it draws, and not where it scores


class Case:
    """The batch, TRL's trainer and our policy, with equal weights."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.policy: Policy = policy_at(folder)
        self.scorer = Scorer(self.policy)
        self.encoded, self.rows = encode_rows(self.policy, three_prompts(self.policy), COMPLETIONS)
        now = score_rows(self.scorer, self.policy, self.encoded, self.rows, token_budget=10_000, choice=CHOICE)
        generator = torch.Generator().manual_seed(5)

        def beside(size: float) -> list[Tensor]:
            return [values + size * torch.randn(values.shape, generator=generator) for values in now]

        self.old, self.reference, self.sampled = beside(0.5), beside(0.3), beside(0.8)
        self.mask = padded([torch.ones_like(values) for values in now]).bool()
        recipe = MethodRecipe(advantage="grpo")
        found = step_advantages(recipe, torch.tensor(REWARDS), ["a", "b", "c"], None, kl=None)  # type: ignore[arg-type]
        self.advantages = found[0].reshape(-1).float()
        theirs = policy_at(folder)
        theirs.processor.tokenizer.padding_side = "left"
        args = config(out, max_completion_length=LONGEST, temperature=TEMPERATURE, use_bias_correction_kl=False)
        self.trainer = GRPOTrainer(theirs.model, by_sum, args, questions(), processing_class=theirs.processor)
        self.trainer.model.train()

    def inputs(self, numbers: list[int]) -> dict[str, Any]:
        """What TRL's ``compute_loss`` is given for rows with these numbers."""
        prompts = [self.encoded[self.rows[i].prompt] for i in numbers]
        width = max(len(prompt.token_ids) for prompt in prompts)
        left = [width - len(prompt.token_ids) for prompt in prompts]
        ids = torch.tensor([[0] * gap + list(prompt.token_ids) for gap, prompt in zip(left, prompts, strict=True)])
        whole = padded([torch.tensor(self.rows[i].token_ids) for i in numbers])
        columns = whole.shape[1]
        assert self.policy.pictures is not None
        kinds = (ids == self.policy.pictures.image_token_id).long()
        pictured = [prompt for prompt in prompts if prompt.grids is not None]
        values = {
            "old_per_token_logps": self.old, "ref_per_token_logps": self.reference,
            "sampling_per_token_logps": self.sampled,
        }  # fmt: skip
        return {
            "prompt_ids": ids,
            "prompt_mask": torch.tensor([[0] * gap + [1] * (width - gap) for gap in left]),
            "completion_ids": whole,
            "completion_mask": self.mask[numbers, :columns].long(),
            "advantages": self.advantages[numbers],
            "num_items_in_batch": self.mask.sum(),
            "pixel_values": torch.cat([prompt.pixels for prompt in pictured]),  # type: ignore[misc]
            "image_grid_thw": torch.cat([prompt.grids for prompt in pictured]),  # type: ignore[misc]
            "num_images": [0 if prompt.grids is None else len(prompt.grids) for prompt in prompts],
            "mm_token_type_ids": torch.cat([kinds, torch.zeros_like(whole)], dim=1),
            **{name: padded([of[i] for i in numbers])[:, :columns] for name, of in values.items()},
        }

    def theirs(self, parts: int = 1, **settings: Any) -> tuple[float, dict[str, Tensor]]:
        """TRL's loss and gradient, over as many accumulated parts."""
        trainer, model = self.trainer, self.trainer.model
        kept = {name: getattr(trainer, name) for name in settings if hasattr(trainer, name)}
        ratio = settings.pop("ratio", None)
        for name, value in settings.items():
            setattr(trainer if hasattr(trainer, name) else trainer.args, name, value)
        trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = parts
        model.zero_grad()
        size, total = len(self.rows) // parts, 0.0
        for part in range(parts):
            inputs = self.inputs(list(range(part * size, (part + 1) * size)))
            if ratio is not None:
                inputs["importance_sampling_ratio"] = ratio
            loss = trainer.compute_loss(model, inputs)
            loss.backward()
            total += loss.item()
        for name, value in kept.items():
            setattr(trainer, name, value)
        trainer.args.delta = None
        return total, gradients(model)

    def ours(self, recipe: MethodRecipe, budget: int = 10_000) -> tuple[float, dict[str, Tensor]]:
        """Our loss and gradient, over micro-batches of so many tokens."""
        self.policy.model.zero_grad()
        denominators = Denominators(int(self.mask.sum()), len(self.rows), LONGEST)
        total = 0.0
        for micro in self.micro_batches(budget):
            loss, _ = micro_loss(recipe, micro, denominators)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total, gradients(self.policy.model)

    def micro_batches(self, budget: int = 10_000) -> Iterator[MicroBatch]:
        self.scorer.train()
        for batch in iterate_batches(self.policy, self.encoded, self.rows, budget):
            parts = self.scorer(batch, CHOICE).log_probabilities.split(list(batch.completion_lengths))
            old, rollout, reference = (
                padded([of[i] for i in batch.rows]) for of in (self.old, self.sampled, self.reference)
            )
            mask = padded([torch.ones_like(part) for part in parts]).bool()
            yield MicroBatch(padded(parts), old, rollout, reference, self.advantages[list(batch.rows)], mask)


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_equal(ours: tuple[float, dict[str, Tensor]], theirs: tuple[float, dict[str, Tensor]]) -> None:
    """To float32 precision: the loss, and each gradient beside the largest of all."""
    assert ours[0] == pytest.approx(theirs[0], rel=2e-5, abs=2e-6)
    assert ours[1].keys() == theirs[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in theirs[1].values())
    assert largest > 1e-3
    gap = max(float((ours[1][name] - gradient).abs().max()) for name, gradient in theirs[1].items())
    assert gap < 2e-5 * largest, (gap, largest)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "1")
        return Case(model_folder("qwen2_5_vl", tmp_path_factory.mktemp("m")), tmp_path_factory.mktemp("out"))


def recipe(**changes: Any) -> MethodRecipe:
    """Ours with what TRL has nothing of switched off."""
    plain: dict[str, Any] = {"dual_clip": None, "kl_coefficient": 0.0, "importance_cap": None, "clip_high": 0.2}
    return MethodRecipe.model_validate(plain | changes)


BASE: dict[str, Any] = {"epsilon_low": 0.2, "epsilon_high": 0.2, "beta": 0.0, "loss_type": "grpo"}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({"aggregation": "sequence_mean"}, {}),
    "bnpo": ({"aggregation": "token_mean"}, {"loss_type": "bnpo"}),
    "dapo": ({"aggregation": "token_mean"}, {"loss_type": "dapo"}),
    "dr_grpo": ({"aggregation": "constant"}, {"loss_type": "dr_grpo"}),
    "clip-higher": ({"clip_low": 0.1, "clip_high": 0.4}, {"epsilon_low": 0.1, "epsilon_high": 0.4}),
    "dual clip is delta": ({"dual_clip": 1.6}, {"delta": 1.6}),
    "gspo": (
        {"loss": "gspo", "clip_low": 0.05, "clip_high": 0.1},
        {"importance_sampling_level": "sequence", "epsilon_low": 0.05, "epsilon_high": 0.1},
    ),
    "gspo over tokens": (
        {"loss": "gspo", "aggregation": "token_mean", "clip_high": 0.2},
        {"importance_sampling_level": "sequence", "loss_type": "dapo"},
    ),
    # TRL has no lower bound and counts its upper one from 0; ours at the recipe's lowest is not reached here
    "cispo": (
        {"loss": "cispo", "aggregation": "token_mean", "clip_low": 0.1, "clip_high": 0.5},
        {"loss_type": "cispo", "epsilon_high": 1.5},
    ),
    "k3": ({"kl_coefficient": 0.4}, {"beta": 0.4}),
    "k3 over tokens": ({"kl_coefficient": 0.4, "aggregation": "token_mean"}, {"beta": 0.4, "loss_type": "dapo"}),
    "k3 over a constant": ({"kl_coefficient": 0.4, "aggregation": "constant"}, {"beta": 0.4, "loss_type": "dr_grpo"}),
    "k3 and cispo": (
        {"loss": "cispo", "aggregation": "token_mean", "clip_low": 0.1, "clip_high": 0.5, "kl_coefficient": 0.4},
        {"loss_type": "cispo", "epsilon_high": 1.5, "beta": 0.4},
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_loss_and_gradient_equal_trls(case: Case, name: str) -> None:
    own, other = CASES[name]
    assert_equal(case.ours(recipe(**own)), case.theirs(**BASE | other))


@pytest.mark.parametrize("name", ["grpo", "dapo", "dr_grpo", "k3", "cispo"])
def test_two_accumulated_parts_are_our_micro_batches(case: Case, name: str) -> None:
    own, other = CASES[name]
    assert_equal(case.ours(recipe(**own), budget=200), case.theirs(2, **BASE | other))


def test_truncated_importance_sampling_by_token(case: Case) -> None:
    difference = padded(case.old) - padded(case.sampled)
    ratio = torch.clamp(difference.exp(), max=1.5)  # TRL's token_truncate
    assert 0 < float((ratio == 1.5).float().mean()) < 1
    own = recipe(importance_cap=1.5, kl_coefficient=0.4)
    assert_equal(case.ours(own), case.theirs(**BASE | {"use_vllm": True, "beta": 0.4, "ratio": ratio}))


def test_truncated_importance_sampling_by_sequence(case: Case) -> None:
    difference = (padded(case.old) - padded(case.sampled)) * case.mask
    ratio = torch.clamp(difference.sum(1, keepdim=True).exp(), max=1.5)  # TRL's sequence_truncate
    theirs = case.theirs(**BASE | {"use_vllm": True, "ratio": ratio})
    case.policy.model.zero_grad()
    denominators = Denominators(int(case.mask.sum()), len(case.rows), LONGEST)
    total = 0.0
    for micro in case.micro_batches():
        weight = rollout_weight(micro.old, micro.rollout, micro.mask, cap=1.5, level="sequence").per_token
        found = ppo_clip(micro.log_probs, micro.old, micro.advantages, micro.mask, rollout_weight=weight)
        loss = aggregate(found.per_token, micro.mask, "sequence_mean", denominators)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    assert_equal((total, gradients(case.policy.model)), theirs)


def test_the_batch_meets_every_clip_range(case: Case) -> None:
    """Without this the comparison above would hold for losses that do not clip at all."""
    _, told = micro_loss(recipe(dual_clip=1.6), next(case.micro_batches()), Denominators(1, 1, 1))
    assert min(told["policy/clipped_low"], told["policy/clipped_high"], told["policy/dual_clipped"]) > 0


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ({"aggregation": "token_mean"}, {}),
        ({"clip_high": 0.3}, {}),
        ({"kl_coefficient": 0.4, "kl_estimator": "k2"}, {"beta": 0.4}),
        ({"loss": "gspo"}, {}),
    ],
)
def test_the_comparison_tells_losses_apart(case: Case, own: dict[str, Any], other: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        assert_equal(case.ours(recipe(**own)), case.theirs(**BASE | other))
