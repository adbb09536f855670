"""In verl's own environment: our advantages beside verl's on the same rows (``make test-verl``)."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

core_algos = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl has an environment of its own")

from qoq_train import advantages  # noqa: E402
from qoq_train.advantages import DrpoConfig, DrpoState, drpo  # noqa: E402
from qoq_train.integrations.verl import Rows, drpo_of_rows  # noqa: E402

TOKENS = 7


def rows_of(groups: list[list[float]], seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray[Any, Any], list[Any]]:
    """Token-level rewards, response mask and index as verl hands them over, rows shuffled; places of the rows."""
    places = [(q, c) for q, group in enumerate(groups) for c in range(len(group))]
    random.Random(seed).shuffle(places)
    lengths = [1 + (3 * q + 5 * c + seed) % TOKENS for q, c in places]
    mask = torch.zeros(len(places), TOKENS)
    rewards = torch.zeros(len(places), TOKENS)
    for row, ((q, c), length) in enumerate(zip(places, lengths, strict=True)):
        mask[row, :length] = 1
        rewards[row, length - 1] = groups[q][c]
    return rewards, mask, np.array([f"uid-{q:03d}" for q, _ in places], dtype=object), places


def batch(seed: int, sizes: list[int]) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return [rng.choice([0.0, 0.2, 0.5, 1.0], size).tolist() for size in sizes]


def spread(table: torch.Tensor, places: list[tuple[int, int]], mask: torch.Tensor) -> torch.Tensor:
    return torch.stack([table[place] for place in places])[:, None].float() * mask


EVEN = [5] * 24
UNEVEN = [5, 3, 5, 2, 8, 5, 5, 4] * 3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("normalise_std", [True, False])
@pytest.mark.parametrize("sizes", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_drpo_without_scaling_is_verls_grpo(seed: int, normalise_std: bool, sizes: list[int]) -> None:
    rewards, mask, index, _ = rows_of(batch(seed, sizes), seed)
    expected, _ = core_algos.compute_grpo_outcome_advantage(
        rewards.clone(), mask, index, norm_adv_by_std_in_grpo=normalise_std
    )
    plain = DrpoConfig(
        domain_scaling=False, cluster_scaling=False, kl_damping=False, unit_variance=False, normalise_std=normalise_std
    )
    found = drpo_of_rows(rewards.sum(-1), list(index), ["ct"] * len(index), DrpoState(), plain)
    torch.testing.assert_close(found.advantages.float()[:, None] * mask, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_methods_that_both_have_agree(seed: int) -> None:
    groups = batch(seed, EVEN)
    table = torch.tensor(groups, dtype=torch.float64)
    rewards, mask, index, places = rows_of(groups, seed)
    config = SimpleNamespace(gamma=1.0)
    lengths = torch.zeros_like(table)
    for row, place in enumerate(places):
        lengths[place] = mask[row].sum()
    greedy = torch.tensor([group[0] for group in groups], dtype=torch.float64)
    ours = {
        "grpo": advantages.grpo(table),
        "grpo_vectorized": advantages.grpo(table),
        "rloo": advantages.rloo(table),
        "rloo_vectorized": advantages.rloo(table),
        "reinforce_plus_plus": advantages.reinforce_plus_plus(table, lengths),
        "reinforce_plus_plus_baseline": advantages.reinforce_plus_plus_baseline(table, lengths),
        "remax": advantages.remax(table, greedy),
    }
    for name, expected in ours.items():
        extra = {"reward_baselines": torch.stack([greedy[q] for q, _ in places]).float()} if name == "remax" else {}
        estimator = core_algos.get_adv_estimator_fn(name)
        found, _ = estimator(
            token_level_rewards=rewards.clone(), response_mask=mask, index=index, config=config, **extra
        )
        torch.testing.assert_close(
            found * mask,
            spread(expected, places, mask),
            rtol=1e-4,
            atol=1e-5,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_gpg_counts_questions_where_verl_counts_completions() -> None:
    """They differ by one factor: ours questions / varied questions, verl's completions / rewards that are not 0."""
    groups = [*batch(1, [5] * 10), [1.0] * 5, [0.0] * 5]
    table = torch.tensor(groups, dtype=torch.float64)
    rewards, mask, index, places = rows_of(groups, 1)
    found, _ = core_algos.get_adv_estimator_fn("gpg")(
        token_level_rewards=rewards.clone(), response_mask=mask, index=index, config=None
    )
    varied = (table.amax(1) > table.amin(1)).sum()
    factor = (table.numel() / (table != 0).sum()) / (len(groups) / varied)
    expected = spread(advantages.gpg(table) * factor, places, mask)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("statistics", ["streaming", "batch", "history"])
@pytest.mark.parametrize("damped", [False, True])
def test_the_registered_estimator_over_steps_is_drpo_called_directly(statistics: str, damped: bool) -> None:
    """Through verl's own look-up and its compute_advantage, on a DataProto."""
    if statistics == "history":
        pytest.importorskip("sklearn")
    trainer = pytest.importorskip("qoq_train.integrations.verl_trainer")
    from verl import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    floor = 0.05
    config = DrpoConfig(statistics=statistics, kl_damping=damped, mean_reward_floor=floor)  # type: ignore[arg-type]
    algorithm = {"drpo": {"statistics": statistics, "kl_damping": damped, "mean_reward_floor": floor}}
    trainer.ESTIMATOR.state, direct = DrpoState(), DrpoState()
    for step in range(6):
        groups = batch(step, EVEN)
        names = [("ct", "ecg", "mri")[(q * q + step) % 3] for q in range(len(groups))]
        kl = torch.from_numpy(np.random.default_rng(step).exponential(0.1, (len(groups), 5)))
        rewards, mask, index, places = rows_of(groups, step)
        # rows of a question in the order in which they lie, since history minds the order of completions
        order: dict[int, list[int]] = {}
        for q, c in places:
            order.setdefault(q, []).append(c)
        table = torch.tensor([[groups[q][c] for c in order[q]] for q in range(len(groups))], dtype=torch.float64)
        kls = torch.stack([kl[q, order[q]] for q in range(len(groups))])
        expected = drpo(table.float().double(), names, direct, config, kl=kls if damped else None)
        direct = expected.state
        trainer.ESTIMATOR.rows = Rows(
            tuple(index),
            tuple(names[q] for q, _ in places),
            torch.stack([kl[p] for p in places]) if damped else None,
            5,
        )
        data = DataProto.from_dict({"token_level_rewards": rewards, "response_mask": mask}, non_tensors={"uid": index})
        data = compute_advantage(data, adv_estimator="drpo", config=algorithm, num_repeat=5)
        at = [(q, order[q].index(c)) for q, c in places]
        torch.testing.assert_close(
            data.batch["advantages"], spread(expected.advantages, at, mask), rtol=1e-6, atol=1e-7
        )
        assert torch.equal(data.batch["advantages"], data.batch["returns"])
    assert trainer.ESTIMATOR.state.to_dict().keys() == direct.to_dict().keys()
    for name, domain in direct.domains.items():
        assert torch.equal(domain.vectors, trainer.ESTIMATOR.state.domains[name].vectors)
