"""Boxes of several readers merged: who draws first, and under which name, changes nothing; nothing is lost."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoq_data.clinical.reader_boxes import Edges, MergedBox, ReaderBox, has_area, merge_reader_boxes, overlap

SQUARE: Edges = (10, 20, 50, 60)


def drawn(reader: str, edges: Edges = SQUARE, label: str = "Nodule/Mass") -> ReaderBox:
    return ReaderBox(label, edges, reader)


@st.composite
def boxes_of_a_film(draw: st.DrawFn) -> list[ReaderBox]:
    def one() -> ReaderBox:
        x, y = draw(st.integers(0, 30)), draw(st.integers(0, 30))
        width, height = draw(st.integers(1, 20)), draw(st.integers(1, 20))
        return ReaderBox(draw(st.sampled_from("ab")), (x, y, x + width, y + height), draw(st.sampled_from("123")))

    return [one() for _ in range(draw(st.integers(0, 9)))]


THRESHOLDS = st.sampled_from([0.2, 0.4, 0.5, 0.75, 1.0])


def test_three_readers_of_one_lesion_give_the_median_edge_by_edge() -> None:
    boxes = [drawn("R1", (10, 20, 50, 60)), drawn("R2", (12, 21, 55, 58)), drawn("R3", (8, 25, 51, 61))]
    assert merge_reader_boxes(boxes, 0.5) == (MergedBox("Nodule/Mass", (10, 21, 51, 60), 3, 3, is_chained=False),)


def test_two_readers_meet_halfway() -> None:
    boxes = [drawn("R1", (10, 20, 50, 60)), drawn("R2", (13, 21, 50, 60))]
    assert merge_reader_boxes(boxes, 0.5)[0].edges == (11.5, 20.5, 50, 60)


def test_one_reader_twice_on_a_lesion_is_one_reader_and_does_not_outweigh_another() -> None:
    twice = [drawn("R1", (10, 20, 50, 60)), drawn("R1", (12, 20, 52, 60)), drawn("R2", (21, 20, 61, 60))]
    (merged,) = merge_reader_boxes(twice, 0.5)
    assert (merged.readers, merged.drawn) == (2, 3)
    assert merged.edges == (16, 20, 56, 60)


def test_b09_equal_boxes_of_two_labels_stay_two_and_distant_ones_of_one_label_too() -> None:
    boxes = [drawn("R1"), drawn("R2", label="ILD"), drawn("R3", (70, 20, 110, 60))]
    assert [(one.label, one.readers) for one in merge_reader_boxes(boxes, 0.5)] == [
        ("ILD", 1),
        ("Nodule/Mass", 1),
        ("Nodule/Mass", 1),
    ]


def test_the_threshold_itself_joins_and_what_is_under_it_does_not() -> None:
    half = [drawn("R1", (0, 0, 10, 10)), drawn("R2", (0, 0, 10, 5))]
    assert overlap(half[0].edges, half[1].edges) == 0.5
    assert len(merge_reader_boxes(half, 0.5)) == 1
    assert len(merge_reader_boxes(half, 0.51)) == 2


def test_boxes_that_touch_do_not_overlap() -> None:
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert overlap((0, 0, 10, 10), (0, 12, 10, 20)) == 0


def test_a_chain_is_one_lesion_and_says_so() -> None:
    chain = [drawn("R1", (0, 0, 30, 10)), drawn("R2", (8, 0, 38, 10)), drawn("R3", (16, 0, 46, 10))]
    assert overlap(chain[0].edges, chain[2].edges) < 0.5
    (merged,) = merge_reader_boxes(chain, 0.5)
    assert (merged.readers, merged.is_chained, merged.edges) == (3, True, (8, 0, 38, 10))


def test_a_box_that_joins_two_groups_loses_neither() -> None:
    first, second, between = ((0, 0, 10, 20), (0, 16, 10, 36), (1, 8, 10, 28))
    assert overlap(first, second) < 0.3 < min(overlap(first, between), overlap(second, between))
    (merged,) = merge_reader_boxes([drawn("R1", first), drawn("R2", second), drawn("R3", between)], 0.3)
    assert (merged.readers, merged.drawn, merged.is_chained) == (3, 3, True)


@given(boxes_of_a_film(), THRESHOLDS, st.randoms(use_true_random=False))
def test_order_and_names_of_readers_change_nothing(
    boxes: list[ReaderBox], least: float, shuffler: random.Random
) -> None:
    expected = merge_reader_boxes(boxes, least)
    shuffled = boxes.copy()
    shuffler.shuffle(shuffled)
    assert merge_reader_boxes(shuffled, least) == expected
    renamed = [replace(box, reader={"1": "z", "2": "a", "3": "m"}[box.reader]) for box in shuffled]
    assert merge_reader_boxes(renamed, least) == expected


@given(boxes_of_a_film(), THRESHOLDS)
def test_nothing_is_lost_and_no_box_leaves_its_readers(boxes: list[ReaderBox], least: float) -> None:
    merged = merge_reader_boxes(boxes, least)
    assert sum(one.drawn for one in merged) == len(boxes)
    for one in merged:
        of_label = [box for box in boxes if box.label == one.label]
        assert has_area(one.edges)
        assert 1 <= one.readers <= min(one.drawn, 3)
        for place in range(4):
            edges = [box.edges[place] for box in of_label]
            assert min(edges) <= one.edges[place] <= max(edges)


@given(boxes_of_a_film(), THRESHOLDS)
def test_a_box_repeated_by_its_reader_changes_no_readers_and_no_edges(boxes: list[ReaderBox], least: float) -> None:
    def seen(given_boxes: list[ReaderBox]) -> list[tuple[str, Edges, int]]:
        return [(one.label, one.edges, one.readers) for one in merge_reader_boxes(given_boxes, least)]

    assert seen([*boxes, *boxes]) == seen(boxes)


@given(boxes_of_a_film())
def test_merged_boxes_of_a_label_are_of_readers_boxes_that_no_pair_joins(boxes: list[ReaderBox]) -> None:
    """Against a plain closure: labels spread along pairs until nothing changes."""
    lesion = list(range(len(boxes)))
    changed = True
    while changed:
        changed = False
        for i, one in enumerate(boxes):
            for j, other in enumerate(boxes):
                joined = one.label == other.label and overlap(one.edges, other.edges) >= 0.5
                if joined and lesion[i] != lesion[j]:
                    lesion[i] = lesion[j] = min(lesion[i], lesion[j])
                    changed = True
    readers = sorted(
        (boxes[first].label, len({box.reader for box, of in zip(boxes, lesion, strict=True) if of == first}))
        for first in set(lesion)
    )
    assert sorted((one.label, one.readers) for one in merge_reader_boxes(boxes, 0.5)) == readers


@pytest.mark.parametrize("least", [0, -0.1, 1.01])
def test_a_threshold_that_is_none_is_refused(least: float) -> None:
    with pytest.raises(ValueError, match="over 0 and at most 1"):
        merge_reader_boxes([], least)


@pytest.mark.parametrize("edges", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9)])
def test_b03_a_box_without_area_is_refused(edges: Edges) -> None:
    with pytest.raises(ValueError, match="without an area"):
        merge_reader_boxes([drawn("R1", edges)], 0.5)
