"""What must change nothing in a DRPO step, and that finite rewards never give an advantage that is not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qoq_train.advantages import DrpoConfig, DrpoState, DrpoStep, drpo

torch.set_num_threads(1)

DOMAIN_NAMES = ("ecg", "ct", "mri")


def batch(seed: int, questions: int = 8, completions: int = 4) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    rng = np.random.default_rng(seed)
    rewards = rng.choice([0.0, 0.2, 0.6, 0.8], (questions, completions)) + rng.random((questions, 1)) * 0.2
    kl = rng.random((questions, completions)) * 3 - 0.5
    return torch.tensor(rewards), [DOMAIN_NAMES[i] for i in rng.integers(0, 3, questions)], torch.tensor(kl)


def steps(config: DrpoConfig, batches: list[tuple[torch.Tensor, list[str], torch.Tensor]]) -> list[DrpoStep]:
    state, done = DrpoState(), []
    for rewards, domains, kl in batches:
        done.append(drpo(rewards, domains, state, config, kl=kl))
        state = done[-1].state
    return done


@pytest.mark.parametrize("statistics", ["batch", "streaming"])
def test_renaming_permuting_and_reordering_change_nothing(statistics: str) -> None:
    config = DrpoConfig(statistics=statistics, window_questions=6)  # type: ignore[arg-type]
    batches = [batch(seed, questions=12) for seed in range(6)]
    plain = steps(config, batches)

    names = {"ecg": "z", "ct": "ecg", "mri": "a"}
    renamed = steps(config, [(r, [names[d] for d in domains], kl) for r, domains, kl in batches])
    for one, other in zip(plain, renamed, strict=True):
        assert torch.equal(one.advantages, other.advantages)
        assert {names[d]: m for d, m in one.metrics.domains.items()} == other.metrics.domains

    generator = torch.Generator().manual_seed(0)
    rows = [torch.randperm(12, generator=generator) for _ in batches]
    columns = [torch.stack([torch.randperm(4, generator=generator) for _ in range(12)]) for _ in batches]
    moved = steps(
        config,
        [
            (r[row].gather(1, column), [domains[i] for i in row], kl[row].gather(1, column))
            for (r, domains, kl), row, column in zip(batches, rows, columns, strict=True)
        ],
    )
    for one, other, row, column in zip(plain, moved, rows, columns, strict=True):
        assert torch.equal(one.advantages[row].gather(1, column), other.advantages)
        assert one.metrics == other.metrics


REWARDS = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(2, 4)),
    elements=st.one_of(
        st.sampled_from([0.0, 1.0, 0.1, 5e-324, 1e-300, 1e-12, 1e15]), st.floats(0, 1), st.floats(0, 1e15)
    ),
)  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=120)
@given(
    st.lists(REWARDS, min_size=1, max_size=3),
    st.sampled_from(["batch", "streaming"]), st.sampled_from([None, 1.0, 10.0]), st.sampled_from([0.0, 0.05]),
    st.booleans(), st.floats(-1e6, 1e6),
)  # fmt: skip
def test_finite_rewards_never_give_an_advantage_that_is_not_finite(
    sequence: list[np.ndarray], statistics: str, ratio: float | None, floor: float, damping: bool, kl: float
) -> None:
    config = DrpoConfig(
        statistics=statistics, max_weight_ratio=ratio, mean_reward_floor=floor,  # type: ignore[arg-type]
        kl_damping=damping, half_life_questions=2, window_questions=3,
    )  # fmt: skip
    state = DrpoState()
    for rewards in sequence:
        if rewards.shape[1] != sequence[0].shape[1]:
            continue
        table = torch.from_numpy(rewards)
        domains = [DOMAIN_NAMES[i % 2] for i in range(len(rewards))]
        step = drpo(table, domains, state, config, kl=torch.full_like(table, kl))
        state = step.state
        assert bool(torch.isfinite(step.advantages).all())
        assert all(math.isfinite(v) for v in step.metrics.scalars().values())
