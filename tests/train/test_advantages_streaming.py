"""DRPO's memory: decay and window by hand, save and restore, ranks, and a cost that does not grow."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from qoq_train.advantages import (
    DrpoConfig,
    DrpoState,
    DrpoStep,
    drpo,
    gpg,
    over_ranks,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

torch.set_num_threads(1)

CONFIG = DrpoConfig(half_life_questions=16.0, window_questions=6)


def batch(seed: int, questions: int = 8, completions: int = 5) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    rng = np.random.default_rng(seed)
    rewards = torch.tensor(0.2 + 0.6 * (rng.random((questions, completions)) < rng.random((questions, 1))))
    domains = [("ecg", "ct", "mri", "fundus")[i] for i in rng.choice(4, questions, p=[0.6, 0.25, 0.1, 0.05])]
    return rewards, domains, torch.tensor(rng.random((questions, completions)))


def run(state: DrpoState, seeds: Sequence[int], config: DrpoConfig = CONFIG) -> list[DrpoStep]:
    done = []
    for seed in seeds:
        rewards, domains, kl = batch(seed)
        done.append(drpo(rewards, domains, state, config, kl=kl))
        state = done[-1].state
    return done


def test_counts_and_means_decay_by_the_half_life_in_questions() -> None:
    config = DrpoConfig(kl_damping=False, half_life_questions=4.0)
    state = drpo(torch.tensor([[0.2, 0.4], [0.6, 0.8]]), ["a", "b"], None, config).state
    step = drpo(torch.tensor([[0.0, 0.2]] * 4), ["a"] * 3 + ["c"], state, config)
    a = step.metrics.domains["a"]
    assert a.count == pytest.approx(0.5 + 3)  # four questions have passed, of whatever domain
    assert a.mean_reward == pytest.approx((0.5 * 0.3 + 3 * 0.1) / 3.5, rel=1e-6)
    assert step.state.domains["b"].count == 0.5
    assert step.state.domains["b"].reward_sum == pytest.approx(0.35, rel=1e-6)
    assert step.metrics.domains["c"].count == 1  # never seen before
    assert set(step.metrics.domains) == {"a", "c"}
    # clusters share the domain's decayed N by the weight of their vectors: one old at 0.5, three new
    assert [(c.count, round(c.mean_reward, 6)) for c in a.clusters] == [(3.0, 0.1), (0.5, 0.3)]


def test_without_decay_and_with_room_it_counts_as_the_whole_history_does() -> None:
    config = DrpoConfig(kl_damping=False, half_life_questions=1e12, window_questions=1000)
    state, seen = DrpoState(), []
    for seed in range(5):
        rewards, domains, _ = batch(seed)
        step = drpo(rewards, domains, state, config)
        state = step.state
        seen += list(zip(domains, rewards.tolist(), strict=True))
        own = {d: [r for name, r in seen if name == d] for d in domains}
        for name, metrics in step.metrics.domains.items():
            assert metrics.count == pytest.approx(len(own[name]), rel=1e-9)
            assert metrics.mean_reward == pytest.approx(np.mean(own[name]), rel=1e-9)
            assert math.fsum(c.count for c in metrics.clusters) == pytest.approx(len(own[name]), rel=1e-9)
            assert sum(c.questions for c in metrics.clusters) == metrics.questions


def test_the_window_keeps_the_newest_sorted_and_thins_the_step_that_fits_in_part() -> None:
    config = DrpoConfig(kl_damping=False, window_questions=4, half_life_questions=8.0)
    first = torch.tensor([[0.9, 0.1], [0.2, 0.0], [0.3, 0.1]])
    state = drpo(first, ["a"] * 3, None, config).state
    assert state.domains["a"].weights.tolist() == [1, 1, 1]  # not full
    np.testing.assert_allclose(state.domains["a"].vectors, [[0, 0.2], [0.1, 0.3], [0.1, 0.9]], rtol=1e-6)
    state = drpo(torch.tensor([[0.6, 0.5], [0.4, 0.5]]), ["a"] * 2, state, config).state
    np.testing.assert_allclose(
        state.domains["a"].vectors, [[0, 0.2], [0.1, 0.3], [0.4, 0.5], [0.5, 0.6]], rtol=1e-6
    )  # fmt: skip
    assert state.domains["a"].weights.tolist() == [0.5**0.25, 0.5**0.25, 1, 1]
    step = drpo(torch.linspace(0, 1, 18).reshape(9, 2), ["a"] * 9, state, config)
    state = step.state
    # one of the five old vectors is gone, yet the clusters share all that the domain counts
    assert sum(c.count for c in step.metrics.domains["a"].clusters) == pytest.approx(state.domains["a"].count)
    assert state.domains["a"].weights.tolist() == [1] * 4
    np.testing.assert_allclose(state.domains["a"].vectors[:, 0], torch.linspace(0, 1, 18)[[0, 4, 8, 12]], rtol=1e-6)
    assert state.domains["a"].count == pytest.approx(3 * 0.5 ** (11 / 8) + 2 * 0.5 ** (9 / 8) + 9)


def test_memory_is_bounded_and_a_domain_long_unseen_is_let_go() -> None:
    config = DrpoConfig(kl_damping=False, half_life_questions=2.0, window_questions=5)
    state = DrpoState()
    for step in range(200):
        state = drpo(torch.rand(4, 3), ["always", "always", "always", f"once {step}"], state, config).state
        assert len(state.domains) <= 1 + 11  # 20 half-lives are 40 questions, 10 steps
        assert all(len(d.vectors) <= 5 for d in state.domains.values())
    assert state.domains["always"].count == pytest.approx(3 / (1 - 0.25), rel=1e-6)


@pytest.mark.parametrize(
    ("statistics", "last", "stop"),
    [
        ("streaming", 8, 0),
        ("streaming", 8, 1),
        ("streaming", 8, 4),
        ("streaming", 8, 7),
        ("batch", 3, 1),
        ("history", 2, 1),
    ],
)
def test_saved_and_restored_at_any_step_it_goes_on_with_the_same_numbers(statistics: str, last: int, stop: int) -> None:
    config = DrpoConfig(statistics=statistics, half_life_questions=16.0, window_questions=6)  # type: ignore[arg-type]
    whole = run(DrpoState(), range(last), config)
    state = run(DrpoState(), range(stop), config)[-1].state if stop else DrpoState()
    file = io.BytesIO()
    torch.save(state.to_dict(), file)
    file.seek(0)
    resumed = run(DrpoState.from_dict(torch.load(file, weights_only=True)), range(stop, last), config)
    for one, other in zip(whole[stop:], resumed, strict=True):
        assert torch.equal(one.advantages, other.advantages)
        assert one.metrics == other.metrics


def test_a_step_leaves_the_state_it_was_given_as_it_was() -> None:
    state = run(DrpoState(), range(3))[-1].state
    before = DrpoState.from_dict(state.to_dict()).to_dict()
    first, second = run(state, [5])[0], run(state, [5])[0]
    assert torch.equal(first.advantages, second.advantages)
    for name, domain in before["domains"].items():
        assert state.domains[name].count == domain["count"]
        assert torch.equal(state.domains[name].vectors, domain["vectors"])
        assert torch.equal(state.domains[name].weights, domain["weights"])


def test_a_saved_state_that_no_step_left_is_refused() -> None:
    good = run(DrpoState(), range(2))[-1].state.to_dict()

    def damaged(**domain: Any) -> dict[str, Any]:
        name = next(iter(good["domains"]))
        return good | {"domains": {name: good["domains"][name] | domain}}

    for saved, match in (
        ({}, "format None"),
        (good | {"format": 99}, "format 99"),
        ({k: v for k, v in good.items() if k != "domains"}, "lacks domains"),
        (good | {"statistics": "other"}, "unknown statistics"),
        (good | {"completions": 3}, "at 3 completions"),
        (damaged(count=math.nan), "count nan"),
        (damaged(count=0.0), "count 0"),
        (damaged(reward_sum=math.inf), "sum of rewards inf"),
        (damaged(weights=torch.ones(99)), "shape"),
        (damaged(vectors=torch.full((1, 5), math.nan), weights=torch.ones(1)), "not a finite number"),
        (good | {"domains": {"x": {"count": 1.0}}}, "lacks reward_sum, vectors, weights"),
    ):
        with pytest.raises(ValueError, match=match):
            DrpoState.from_dict(saved)


class GivenError(Exception):
    """Stops a rank once it has given its share."""


def shares_of(calls: Sequence[Any]) -> list[Any]:
    """What each call gives to the gather it is handed."""
    shares: list[Any] = []

    def give(share: Any) -> Any:
        shares.append(share)
        raise GivenError

    for call in calls:
        with pytest.raises(GivenError):
            call(give)
    return shares


def on_ranks(calls: Sequence[Any]) -> list[Any]:
    """Each call as one rank, in this process: it gives its share and sees all."""
    shares = shares_of(calls)
    return [call(lambda _, rank=rank: (shares, rank)) for rank, call in enumerate(calls)]


@pytest.mark.parametrize("cut", [0, 1, 4])
def test_two_ranks_make_the_same_step_as_one(cut: int) -> None:
    one, two = DrpoState(), DrpoState()
    for seed in range(6):
        rewards, domains, kl = batch(seed)
        alone = drpo(rewards, domains, one, CONFIG, kl=kl)

        def rank(rows: slice, state: DrpoState = two, given: Any = (rewards, domains, kl)) -> Any:
            return lambda gather: drpo(given[0][rows], given[1][rows], state, CONFIG, kl=given[2][rows], gather=gather)

        parts = on_ranks([rank(slice(0, cut)), rank(slice(cut, None))])
        assert torch.equal(torch.cat([p.advantages for p in parts]), alone.advantages)
        assert parts[0].metrics == parts[1].metrics == alone.metrics
        one, two = alone.state, parts[seed % 2].state


def test_methods_that_whiten_over_the_batch_see_all_ranks() -> None:
    rewards, _, _ = batch(3)
    lengths = torch.arange(1, 41).reshape(8, 5)
    for method in (reinforce_plus_plus, reinforce_plus_plus_baseline):
        halves = [slice(0, 3), slice(3, 8)]
        calls = [lambda gather, h=h: method(rewards[h], lengths[h], gather=gather) for h in halves]  # noqa: B023
        assert torch.equal(torch.cat(on_ranks(calls)), method(rewards, lengths))
    calls = [lambda gather, h=h: gpg(rewards[h], gather=gather) for h in (slice(0, 5), slice(5, 8))]
    assert torch.equal(torch.cat(on_ranks(calls)), gpg(rewards))


def test_a_bad_value_on_one_rank_is_an_error_on_each() -> None:
    rewards, domains, kl = batch(0)
    rewards[6, 0] = math.nan
    calls = [
        lambda gather, h=h: drpo(rewards[h], domains[h], None, CONFIG, kl=kl[h], gather=gather)
        for h in (slice(0, 4), slice(4, 8))
    ]
    shares = shares_of(calls)
    for rank, call in enumerate(calls):
        with pytest.raises(ValueError, match="reward of question 6, completion 0"):
            call(lambda _, rank=rank: (shares, rank))


def test_ranks_that_do_not_fit_each_other_are_named() -> None:
    rewards, domains, kl = batch(0)

    def both(first: Any, second: Any) -> None:
        on_ranks([
            lambda gather, given=given: drpo(given[0], given[1], None, given[3], kl=given[2], gather=gather)
            for given in (first, second)
        ])  # fmt: skip

    with pytest.raises(ValueError, match=r"completions a question: \[5, 4\]"):
        both((rewards, domains, kl, CONFIG), (rewards[:, :4], domains, kl[:, :4], CONFIG))
    with pytest.raises(ValueError, match="some ranks give"):
        both((rewards, domains, kl, CONFIG), (rewards, domains, None, DrpoConfig(kl_damping=False)))


def gloo_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        state, rows = DrpoState(), slice(3 * rank, 3 + 5 * rank)  # 3 and 5 questions
        saved = []
        for seed in range(3):
            rewards, domains, kl = batch(seed)
            step = drpo(rewards[rows], domains[rows], state, CONFIG, kl=kl[rows], gather=over_ranks())
            state = step.state
            saved.append(step.advantages)
        torch.save({"advantages": saved, "state": state.to_dict()}, f"{folder}/{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_gloo_processes_make_the_same_steps_as_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(gloo_rank, (str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    alone = run(DrpoState(), range(3))
    for step, mine, theirs in zip(alone, parts[0]["advantages"], parts[1]["advantages"], strict=True):
        assert torch.equal(torch.cat([mine, theirs]), step.advantages)
    for part in parts:
        resumed = run(DrpoState.from_dict(part["state"]), [9])[0]
        assert torch.equal(resumed.advantages, run(alone[-1].state, [9])[0].advantages)
