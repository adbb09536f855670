"""The DRPO step: the paper's equations worked by hand, and what is defined at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from qoq_train.advantages import DrpoConfig, drpo, grpo

torch.set_num_threads(1)

PAPER = DrpoConfig(statistics="batch", kl_damping=False, mean_reward_floor=0.0, max_weight_ratio=None)
PLAIN = DrpoConfig(kl_damping=False)
DOMAIN_NAMES = ("ecg", "ct", "mri")


def batch(seed: int, questions: int = 8, completions: int = 4) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    rng = np.random.default_rng(seed)
    rewards = rng.choice([0.0, 0.2, 0.6, 0.8], (questions, completions)) + rng.random((questions, 1)) * 0.2
    kl = rng.random((questions, completions)) * 3 - 0.5
    return torch.tensor(rewards), [DOMAIN_NAMES[i] for i in rng.integers(0, 3, questions)], torch.tensor(kl)


def test_the_papers_equations_by_hand() -> None:
    # ct: two questions of mean 1/2 and 1/4 are two distinct vectors, so k = 2; ecg: one question of mean 1/2
    rewards = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    step = drpo(rewards, ["ct", "ct", "ecg"], None, PAPER)
    # T_ct = √2 · 3/8, its clusters √1 · 1/2 and √1 · 1/4; T_ecg = 1/2, its cluster 1/2
    temperatures = [math.sqrt(2) * 0.375 * 0.5, math.sqrt(2) * 0.375 * 0.25, 0.25]
    half, quarter = 0.5 / math.sqrt(1 / 3), 0.25 / 0.5  # |r − mean| / unbiased std; the odd one out is 3 · quarter
    z = np.array([
        [half, half, -half, -half], [-quarter, -quarter, -quarter, 3 * quarter], [-half, half, half, -half],
    ]) / np.array(temperatures)[:, None]  # fmt: skip
    expected = z / math.sqrt((z**2).sum() / 11)
    np.testing.assert_allclose(step.advantages.numpy(), expected, rtol=5e-6)
    domains = step.metrics.domains
    assert (domains["ct"].count, domains["ct"].mean_reward, domains["ct"].questions) == (2.0, 0.375, 2)
    assert [(c.count, c.mean_reward) for c in domains["ct"].clusters] == [(1.0, 0.25), (1.0, 0.5)]
    assert [(c.count, c.mean_reward) for c in domains["ecg"].clusters] == [(1.0, 0.5)]
    weights = [1 / t for t in temperatures]
    median = sorted(weights)[1]
    assert domains["ecg"].weight == pytest.approx(weights[2] / median)
    assert domains["ct"].weight == pytest.approx((weights[0] + weights[1]) / 2 / median)
    assert step.metrics.effective_sample_size == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights) / 3)


def test_the_papers_damping_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    kl = torch.tensor([[1.0, 5.0], [2.0, -1.0], [4.0, 4.0]], dtype=torch.float64)
    config = DrpoConfig(
        statistics="batch", domain_scaling=False, cluster_scaling=False, mean_reward_floor=0.0, max_weight_ratio=None
    )
    step = drpo(rewards, ["a"] * 3, None, config, kl=kl)
    s = 0.5 / math.sqrt(0.5)
    # z · KL is positive four times: s, 2s, s (negative z, negative KL) and 4s; their 0.75 quantile is 2.5 s
    m = np.array([[2.5 / 3.5, 1.0], [2.5 / 4.5, 2.5 / 3.5], [1.0, 2.5 / 6.5]])
    z = m * np.array([[s, -s], [s, -s], [-s, s]])
    np.testing.assert_allclose(step.advantages.numpy(), z / z.std(ddof=1), rtol=5e-6)
    assert step.metrics.damped_share == pytest.approx(4 / 6)
    assert step.metrics.mean_damping == pytest.approx(m.mean())


def test_no_damping_where_no_product_is_positive() -> None:
    rewards, domains, _ = batch(0)
    zero = torch.zeros_like(rewards)
    damped = drpo(rewards, domains, None, DrpoConfig(), kl=zero)
    assert torch.equal(damped.advantages, drpo(rewards, domains, None, PLAIN).advantages)
    assert (damped.metrics.damped_share, damped.metrics.mean_damping) == (0.0, 1.0)


def test_unit_variance_and_group_means() -> None:
    rewards, domains, _ = batch(1, questions=32)
    advantages = drpo(rewards, domains, None, PLAIN).advantages
    assert float(advantages.std()) == pytest.approx(1, abs=1e-5)
    assert float(advantages.mean(1).abs().max()) < 1e-12


@pytest.mark.parametrize("statistics", ["batch", "streaming"])
def test_one_domain_with_one_cluster_is_grpo_at_unit_variance(statistics: str) -> None:
    rewards, _, _ = batch(2)
    config = DrpoConfig(statistics=statistics, max_clusters=1, kl_damping=False)  # type: ignore[arg-type]
    plain = grpo(rewards)
    expected = plain / (plain.std() + 1e-6)
    np.testing.assert_allclose(drpo(rewards, ["one"] * 8, None, config).advantages, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("normalise_std", [True, False])
def test_with_all_scaling_off_it_is_plain_grpo_to_the_bit(normalise_std: bool) -> None:
    rewards, domains, _ = batch(3)
    config = DrpoConfig(
        domain_scaling=False, cluster_scaling=False, kl_damping=False, unit_variance=False, normalise_std=normalise_std
    )
    step = drpo(rewards - 0.5, domains, None, config)  # negative rewards are no matter where nothing divides by them
    assert torch.equal(step.advantages, grpo(rewards - 0.5, normalise_std=normalise_std))


def test_each_switch_takes_out_its_factor() -> None:
    rewards = torch.tensor([[0.0, 0.4], [0.4, 0.8], [0.0, 0.2]], dtype=torch.float64)  # means .2 .6 .1
    domains = ["a", "a", "b"]

    def weight(**switches: bool) -> list[float]:
        config = DrpoConfig(
            statistics="batch", kl_damping=False, mean_reward_floor=0.0, max_weight_ratio=None, **switches
        )
        advantages = drpo(rewards, domains, None, config).advantages[:, 1]
        return [float(a / advantages[0]) for a in advantages]

    domain = 1 / (math.sqrt(2) * 0.4), 1 / (math.sqrt(2) * 0.4), 1 / 0.1
    cluster = 1 / 0.2, 1 / 0.6, 1 / 0.1
    assert weight(cluster_scaling=False) == pytest.approx([w / domain[0] for w in domain], rel=2e-5)
    assert weight(domain_scaling=False) == pytest.approx([w / cluster[0] for w in cluster], rel=2e-5)
    both = [d * c for d, c in zip(domain, cluster, strict=True)]
    assert weight() == pytest.approx([w / both[0] for w in both], rel=2e-5)


@pytest.mark.parametrize("most", [1, 3, 10, 20])
def test_max_clusters_bounds_k(most: int) -> None:
    rewards = torch.rand(64, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    config = DrpoConfig(statistics="batch", kl_damping=False, max_clusters=most, elbow_tolerance=0.0)
    step = drpo(rewards, ["a"] * 64, None, config)
    assert len(step.metrics.domains["a"].clusters) == most
    assert step.metrics.scalars()["drpo/a/clusters"] == most


def test_bounds_hold_the_weights() -> None:
    rewards = torch.tensor([[0.8, 0.6], [0.8, 0.6], [0.002, 0.001]], dtype=torch.float64)
    domains = ["easy", "easy", "hard"]
    free = drpo(rewards, domains, None, PAPER).metrics.domains
    assert free["hard"].weight / free["easy"].weight > 1e5
    floored = drpo(rewards, domains, None, DrpoConfig(statistics="batch", kl_damping=False, max_weight_ratio=None))
    ratio = floored.metrics.domains["hard"].weight / floored.metrics.domains["easy"].weight
    # T of easy √2 · 0.7 and its one cluster alike; hard's floored at 0.05
    assert ratio == pytest.approx((math.sqrt(2) * 0.7 / 0.05) ** 2)
    for limit in (1.0, 3.0, 10.0):
        config = DrpoConfig(statistics="batch", kl_damping=False, max_weight_ratio=limit)
        bounded = drpo(rewards, domains, None, config).metrics
        assert bounded.domains["hard"].weight / bounded.domains["easy"].weight == pytest.approx(math.sqrt(limit))
        assert bounded.bounded_share == pytest.approx(1 / 3)
        assert bounded.effective_sample_size >= 4 * limit / (1 + limit) ** 2


@pytest.mark.parametrize("statistics", ["batch", "streaming"])
@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_a_domain_that_always_fails_spoils_no_other(statistics: str, floor: float) -> None:
    rewards = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.2, 0.8]], dtype=torch.float64)
    config = DrpoConfig(
        statistics=statistics, kl_damping=False, mean_reward_floor=floor, max_weight_ratio=None  # type: ignore[arg-type]
    )  # fmt: skip
    step = drpo(rewards, ["zero", "zero", "zero", "fine"], None, config)
    assert step.advantages[:3].abs().max() == 0
    one = math.sqrt(0.5) / math.sqrt(1 / 7)  # of eight values, ±s and six zeros
    np.testing.assert_allclose(step.advantages[3].numpy(), [-one, one], rtol=1e-5)
    assert step.metrics.zero_variance_share == 0.75
    assert step.metrics.domains["zero"].mean_reward == 0
    assert step.metrics.effective_sample_size == 1


def test_groups_of_equal_rewards_have_advantage_zero_and_still_count() -> None:
    rewards = torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.3, 0.6]])
    step = drpo(rewards, ["a", "a"], None, PAPER)
    assert step.advantages[0].tolist() == [0, 0, 0]
    assert step.metrics.domains["a"].count == 2
    assert step.metrics.domains["a"].mean_reward == pytest.approx(0.2)
    nothing = drpo(rewards[:1], ["a"], None, PLAIN)
    assert nothing.advantages.tolist() == [[0, 0, 0]]
    assert (nothing.metrics.zero_variance_share, nothing.metrics.effective_sample_size) == (1.0, 0.0)


def test_every_question_its_own_domain() -> None:
    rewards, _, _ = batch(4)
    step = drpo(rewards, [f"d{i}" for i in range(8)], None, PAPER)
    assert bool(torch.isfinite(step.advantages).all())
    assert all(d.count == 1 and len(d.clusters) == 1 for d in step.metrics.domains.values())


def test_a_question_that_is_seen_again_counts_again() -> None:
    rewards, _, _ = batch(5, questions=1)
    twice = drpo(rewards.repeat(2, 1), ["a", "a"], None, PAPER)
    assert twice.metrics.domains["a"].count == 2
    first = drpo(rewards, ["a"], None, PLAIN)
    again = drpo(rewards, ["a"], first.state, PLAIN)
    assert again.metrics.domains["a"].count == pytest.approx(1 + 0.5 ** (1 / 4096), abs=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e16])
def test_rewards_that_are_no_number_are_refused_by_name(value: float) -> None:
    rewards, domains, kl = batch(6)
    rewards[3, 1] = value
    with pytest.raises(ValueError, match=rf"reward of question 3, completion 1, domain '{domains[3]}'"):
        drpo(rewards, domains, None, PLAIN)
    clean, _, _ = batch(6)
    kl[3, 1] = value
    with pytest.raises(ValueError, match="kl of question 3, completion 1"):
        drpo(clean, domains, kl=kl)


def test_a_negative_reward_is_refused_by_name() -> None:
    rewards, domains, _ = batch(6)
    rewards[2, 3] = -0.25
    with pytest.raises(ValueError, match=rf"question 2, completion 3, domain '{domains[2]}': -0\.25 is negative"):
        drpo(rewards, domains, None, PLAIN)


def test_misuse_is_named() -> None:
    rewards, domains, kl = batch(7)
    with pytest.raises(ValueError, match="kl_damping is on and no kl"):
        drpo(rewards, domains)
    with pytest.raises(ValueError, match="7 domain"):
        drpo(rewards, domains[:7], None, PLAIN)
    with pytest.raises(ValueError, match="0 domain"):
        drpo(rewards, [], None, PLAIN)
    with pytest.raises(ValueError, match="2 completion"):
        drpo(rewards[:, :1], domains, None, PLAIN)
    with pytest.raises(ValueError, match="1 dimension"):
        drpo(rewards[:, 0], domains, None, PLAIN)
    with pytest.raises(ValueError, match="no questions"):
        drpo(rewards[:0], [], None, PLAIN)
    with pytest.raises(ValueError, match="shape"):
        drpo(rewards, domains, kl=kl[:, :2])
    state = drpo(rewards, domains, None, PLAIN).state
    with pytest.raises(ValueError, match="4 completions a question, this batch has 3"):
        drpo(rewards[:, :3], domains, state, PLAIN)
    with pytest.raises(ValueError, match="'streaming', not 'batch'"):
        drpo(rewards, domains, state, PAPER)


@pytest.mark.parametrize(
    "field",
    [
        {"statistics": "moving"}, {"max_clusters": 0}, {"elbow_tolerance": 1.0}, {"mean_reward_floor": -0.1},
        {"max_weight_ratio": 0.5}, {"max_weight_ratio": math.nan}, {"kl_quantile": 0.0},
        {"half_life_questions": 0.0}, {"half_life_questions": math.inf}, {"window_questions": 0},
    ],
)  # fmt: skip
def test_a_switch_out_of_range_is_named(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        DrpoConfig(**field)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64])
def test_advantages_come_in_single_precision_at_least(dtype: torch.dtype) -> None:
    rewards = torch.tensor([[0, 1, 1], [1, 0, 0]]).to(dtype)
    step = drpo(rewards, ["a", "b"], None, PLAIN)
    assert step.advantages.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert rewards.tolist() == [[0, 1, 1], [1, 0, 0]]
