"""Which slices are chosen: by policy and seed, each once, and never outside the annotated range."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoq_data.clinical.volume_slices import Reach, SlicePolicy, choose_slices

REACHES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(0, 20)).map(
        lambda one: Reach(one[0], one[0] + one[1], one[0] + min(one[1], one[2]))
    ),
    max_size=6,
)


def test_the_largest_of_each_instance_once() -> None:
    assert choose_slices([Reach(3, 9, 5), Reach(4, 6, 5), Reach(0, 1, 1)], "largest") == [1, 5]


def test_all_is_the_annotated_range_with_the_gaps_in_it() -> None:
    assert choose_slices([Reach(3, 4, 3), Reach(7, 8, 7)], "all") == [3, 4, 5, 6, 7, 8]


def test_every_nth_begins_where_its_key_says() -> None:
    starts = {key: choose_slices([Reach(10, 49, 20)], "every", 8, key) for key in map(str, range(50))}
    assert {slices[0] for slices in starts.values()} == set(range(10, 18))
    for slices in starts.values():
        assert all(b - a == 8 for a, b in itertools.pairwise(slices))
    assert starts["7"] == choose_slices([Reach(10, 49, 20)], "every", 8, "7")


def test_a_range_shorter_than_the_step_has_a_slice_all_the_same() -> None:
    for key in map(str, range(20)):
        assert choose_slices([Reach(5, 6, 5)], "every", 100, key) in ([5], [6])


@pytest.mark.parametrize("policy", ["largest", "every", "all"])
@given(reaches=REACHES, every=st.integers(1, 12), key=st.text(max_size=3))
def test_no_slice_leaves_the_annotated_range(policy: SlicePolicy, reaches: list[Reach], every: int, key: str) -> None:
    slices = choose_slices(reaches, policy, every, key)
    assert slices == sorted(set(slices))
    assert bool(slices) == bool(reaches)
    for index in slices:
        assert min(one.first for one in reaches) <= index <= max(one.last for one in reaches)
