"""The critic-free methods by hand, and beside token-level formulas in the style of TRL and verl written down here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from qoq_train.advantages import (
    dr_grpo,
    filter_groups,
    gpg,
    grpo,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
    remax,
    rloo,
)

torch.set_num_threads(1)

HAND = torch.tensor([[1.0, 0.0, 0.5], [0.3, 0.3, 0.3]], dtype=torch.float64)
ALL = (grpo, dr_grpo, rloo, reinforce_plus_plus, reinforce_plus_plus_baseline, gpg)


def table(result: torch.Tensor) -> list[list[float]]:
    return [[round(float(v), 9) for v in row] for row in result]


def test_grpo_by_hand() -> None:
    one = 0.5 / (0.5 + 1e-6)
    assert table(grpo(HAND)) == [[round(one, 9), round(-one, 9), 0], [0, 0, 0]]


def test_dr_grpo_by_hand() -> None:
    assert table(dr_grpo(HAND)) == [[0.5, -0.5, 0], [0, 0, 0]]


def test_rloo_by_hand() -> None:
    assert table(rloo(HAND)) == [[0.75, -0.75, 0], [0, 0, 0]]  # 1 − (0 + 0.5)/2, 0 − (1 + 0.5)/2


def test_gpg_by_hand() -> None:
    assert table(gpg(HAND)) == [[1, -1, 0], [0, 0, 0]]  # two questions, one of which teaches
    assert table(gpg(HAND[1:])) == [[0, 0, 0]]


def test_remax_by_hand() -> None:
    assert table(remax(HAND, torch.tensor([0.5, 0.0]))) == [[0.5, -0.5, 0], [0.3, 0.3, 0.3]]
    assert remax(torch.tensor([[1.0]]), torch.tensor([0.25])).tolist() == [[0.75]]
    with pytest.raises(ValueError, match="1 question"):
        remax(torch.tensor([[1.0]]), torch.tensor([0.25, 0.5]))
    with pytest.raises(ValueError, match="greedy rewards of question 0"):
        remax(torch.tensor([[1.0]]), torch.tensor([math.nan]))


def test_reinforce_plus_plus_by_hand() -> None:
    rewards = torch.tensor([[0.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    unit = 1 / math.sqrt(2 / 3 + 1e-8)
    assert table(reinforce_plus_plus(rewards)) == [[round(-unit, 9), 0], [0, round(unit, 9)]]
    unit = 0.5 / math.sqrt(1 / 3 + 1e-8)
    expected = [[round(-unit, 9), round(unit, 9)]] * 2
    assert table(reinforce_plus_plus_baseline(rewards)) == expected


@pytest.mark.parametrize("baseline", [False, True])
def test_reinforce_plus_plus_over_tokens_is_whitening_of_the_token_table(baseline: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 9, (4, 3), generator=generator)
    scores = rewards - rewards.mean(1, keepdim=True) if baseline else rewards
    tokens = torch.repeat_interleave(scores.flatten(), lengths.flatten())
    expected = (scores - tokens.mean()) * torch.rsqrt(tokens.var() + 1e-8)
    method = reinforce_plus_plus_baseline if baseline else reinforce_plus_plus
    torch.testing.assert_close(method(rewards, lengths), expected, rtol=1e-12, atol=1e-12)


def test_filter_groups_keeps_the_questions_whose_rewards_differ() -> None:
    rewards = torch.tensor([[0.1] * 3, [0, 0, 1.0], [1.0] * 3, [0.2, 0.2, 0.2000001]])
    assert filter_groups(rewards).tolist() == [1, 3]
    assert filter_groups(rewards[:1]).tolist() == []


@pytest.mark.parametrize("method", ALL)
def test_equal_rewards_give_exactly_zero(method: object) -> None:
    for value in (0.1, 0.7, 1e-9, -3.3):
        assert torch.count_nonzero(method(torch.full((3, 7), value, dtype=torch.float64))) == 0  # type: ignore[operator]


@pytest.mark.parametrize("method", ALL)
def test_a_permutation_of_completions_permutes_the_advantages(method: object) -> None:
    rewards = torch.rand(5, 6, generator=torch.Generator().manual_seed(1))
    order = [3, 1, 5, 0, 2, 4]
    assert torch.equal(method(rewards[:, order]), method(rewards)[:, order])  # type: ignore[operator]


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1e300])
def test_rewards_that_are_no_number_are_refused(method: object, value: float) -> None:
    rewards = torch.zeros(2, 3, dtype=torch.float64)
    rewards[1, 2] = value
    with pytest.raises(ValueError, match="rewards of question 1, completion 2"):
        method(rewards)  # type: ignore[operator]


@pytest.mark.parametrize("method", [grpo, dr_grpo, rloo, gpg, reinforce_plus_plus_baseline])
def test_a_group_of_one_is_refused(method: object) -> None:
    with pytest.raises(ValueError, match="2 completion"):
        method(torch.zeros(4, 1))  # type: ignore[operator]


def test_lengths_that_are_no_counts_are_refused() -> None:
    rewards = torch.rand(2, 2)
    with pytest.raises(ValueError, match="not a count"):
        reinforce_plus_plus(rewards, torch.tensor([[1.0, -1.0], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="shape"):
        reinforce_plus_plus(rewards, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"1 token\(s\) have no deviation"):
        reinforce_plus_plus(rewards, torch.tensor([[1, 0], [0, 0]]))
    with pytest.raises(ValueError, match="one completion"):
        reinforce_plus_plus(torch.ones(1, 1))


def test_mean_and_deviation_agree_with_torch() -> None:
    rewards = torch.rand(16, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)
    np.testing.assert_allclose(grpo(rewards), expected, rtol=1e-12, atol=1e-14)
