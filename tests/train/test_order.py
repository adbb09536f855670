"""The training order: every row once an epoch, the same for a seed, on any number of ranks, from any step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_train.data.order import TrainingOrder

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)
SEEDS = st.integers(0, 2**31 - 1)
WINDOWS = st.integers(1, 14)
properties = settings(derandomize=True, deadline=None, max_examples=60)


def written_out(sizes: list[int], seed: int, window: int, epochs: int) -> list[int]:
    """The order of whole epochs as the module's text tells it, one row after the other."""

    def drawn(items: list[int], *stream: int) -> list[int]:
        bits = np.random.PCG64(np.random.SeedSequence((seed, *stream))).random_raw(len(items)).tolist()
        return [item for _, _, item in sorted(zip(bits, range(len(items)), items, strict=True))]

    starts = [sum(sizes[:group]) for group in range(len(sizes))]
    windows = -(-len(sizes) // window)
    out: list[int] = []
    for epoch in range(epochs):
        groups = drawn(list(range(len(sizes))), epoch, 0)
        for number in range(windows):
            held = groups[number * len(sizes) // windows : (number + 1) * len(sizes) // windows]
            rows = [starts[group] + row for group in held for row in range(sizes[group])]
            out += drawn(rows, epoch, number + 1)
    return out


@properties
@given(SIZES, SEEDS, WINDOWS, st.data())
def test_any_stretch_equals_the_order_written_out(
    sizes: list[int], seed: int, window: int, data: st.DataObject
) -> None:
    whole = written_out(sizes, seed, window, 3)
    first = data.draw(st.integers(0, len(whole)))
    last = data.draw(st.integers(first, len(whole)))
    assert TrainingOrder(sizes, seed, window).rows(first, last).tolist() == whole[first:last]


@properties
@given(SIZES, SEEDS, WINDOWS, st.integers(0, 3))
def test_every_row_comes_exactly_once_an_epoch(sizes: list[int], seed: int, window: int, epoch: int) -> None:
    order = TrainingOrder(sizes, seed, window)
    count = len(order)
    assert sorted(order.rows(epoch * count, (epoch + 1) * count).tolist()) == list(range(sum(sizes)))


@properties
@given(SIZES, SEEDS, WINDOWS, st.integers(1, 20), st.integers(1, 5), st.integers(0, 9))
def test_shares_of_the_ranks_are_the_batch(
    sizes: list[int], seed: int, window: int, size: int, ranks: int, step: int
) -> None:
    alone = TrainingOrder(sizes, seed, window).batch(step, size)
    shares = [TrainingOrder(sizes, seed, window).batch(step, size, rank, ranks) for rank in range(ranks)]
    assert np.concatenate(shares).tolist() == alone.tolist()
    assert alone.size == size
    assert max(share.size for share in shares) - min(share.size for share in shares) <= 1


@properties
@given(SIZES, SEEDS, WINDOWS, st.integers(1, 20), st.integers(0, 9))
def test_resuming_at_a_step_equals_never_stopping(
    sizes: list[int], seed: int, window: int, size: int, step: int
) -> None:
    undisturbed = TrainingOrder(sizes, seed, window)
    before = [undisturbed.batch(one, size).tolist() for one in range(step + 2)]
    resumed = TrainingOrder(sizes, seed, window)
    assert [resumed.batch(one, size).tolist() for one in (step, step + 1)] == before[-2:]


def test_order_is_the_same_on_every_machine() -> None:
    order = TrainingOrder([3, 2, 4, 1], seed=42, window=2)
    assert order.rows(0, 20).tolist() == [9, 3, 4, 5, 7, 8, 2, 6, 1, 0, 6, 4, 3, 8, 5, 7, 9, 2, 0, 1]


def test_seeds_and_epochs_differ_and_windows_stay_together() -> None:
    sizes = [50] * 40
    order = TrainingOrder(sizes, 1, 4)
    first, second = order.rows(0, 2000), order.rows(2000, 4000)
    assert (first != second).mean() > 0.9
    assert (first != TrainingOrder(sizes, 2, 4).rows(0, 2000)).mean() > 0.9
    for begin in range(0, 2000, 200):
        groups = first[begin : begin + 200] // 50
        assert len(set(groups.tolist())) == 4
        assert len(set(groups[:20].tolist())) >= 3  # mixed with each other, not one after the other


def test_the_last_window_is_as_large_as_the_others() -> None:
    groups = TrainingOrder([10] * 65, 0, 64).rows(0, 650) // 10
    assert len(set(groups[:320].tolist())) == 32
    assert len(set(groups[320:].tolist())) == 33


def test_a_far_step_is_reached_at_once() -> None:
    order = TrainingOrder([300] * 8000, 0, 64)
    assert len(order) == 2_400_000
    assert order.batch(40_000, 512).size == 512  # the ninth epoch


@pytest.mark.parametrize("sizes", [[], [3, 0]])
def test_groups_without_rows_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        TrainingOrder(sizes, 0, 1)


@pytest.mark.parametrize(("step", "size", "rank", "ranks"), [(-1, 4, 0, 1), (0, 0, 0, 1), (0, 4, 2, 2), (0, 4, -1, 2)])
def test_a_share_that_there_is_not_is_refused(step: int, size: int, rank: int, ranks: int) -> None:
    with pytest.raises(ValueError, match="there is no share"):
        TrainingOrder([4], 0, 1).batch(step, size, rank, ranks)
