"""Extents and instances of label volumes against scipy and plain loops, and what a slice cuts of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qoq_data.clinical import volume_boxes
from qoq_data.clinical.boxes import regions_from_labels
from qoq_data.clinical.volume_boxes import (
    find_instances,
    label_extents,
    parse_volume_names,
    sections,
    volume_names_text,
)
from qoq_data.clinical.volumes import NORMAL_AXIS, PLANES, slice_of
from qoq_data.errors import Reason, RecordError

PLAIN = settings(derandomize=True, deadline=None, max_examples=60)
VOLUMES = st.tuples(*[st.integers(1, 6)] * 3).flatmap(
    lambda shape: arrays.arrays(np.int16, shape, elements=st.sampled_from([0, 0, 0, 1, 2, 7, 300]))
)


def by_nonzero(labels: np.ndarray) -> dict[int, tuple[slice, ...]]:
    found = {}
    for value in np.unique(labels[labels != 0]).tolist():
        places = np.nonzero(labels == value)
        found[value] = tuple(slice(int(one.min()), int(one.max()) + 1) for one in places)
    return found


@PLAIN
@given(labels=VOLUMES, axes=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3))
def test_extents_are_those_of_a_loop_in_any_memory_order(
    labels: np.ndarray, axes: list[int], flips: list[bool]
) -> None:
    view = labels.transpose(axes)[tuple(slice(None, None, -1 if one else 1) for one in flips)]
    for one in (view, np.asfortranarray(view), *(view.astype(kind) for kind in ("u1", "u2", "i4", "u4", "i8", "u8"))):
        assert label_extents(one) == by_nonzero(one)


def test_values_over_a_list_and_below_zero_have_extents_too() -> None:
    labels = np.zeros((4, 5, 6), np.int64)
    labels[1, 2, 3], labels[0, 0, :2], labels[3] = 5_000_000_000, -4, 70_000
    assert label_extents(labels) == by_nonzero(labels)
    assert label_extents(labels[:0]) == {}


@PLAIN
@given(labels=VOLUMES)
def test_instances_are_those_of_scipy_in_its_order(labels: np.ndarray) -> None:
    found = find_instances(labels)
    regions = regions_from_labels(labels)
    assert [(one.value, one.slices, one.voxels) for one in found.instances] == [
        (one.value, one.slices, one.size) for one in regions
    ]
    for one in found.instances:
        for axis in range(3):
            assert one.slices[axis].start <= one.largest[axis] < one.slices[axis].stop


@PLAIN
@given(labels=VOLUMES)
def test_sections_cover_a_slice_and_lie_in_their_instances(labels: np.ndarray) -> None:
    found = find_instances(labels)
    for plane in PLANES:
        axis = NORMAL_AXIS[plane]
        for index in range(labels.shape[axis]):
            shown = slice_of(labels, plane, index)
            cut = sections(found, plane, index)
            whole = np.zeros(shown.shape, np.int64)
            for instance, mask in cut:
                assert not (whole[mask]).any()
                assert (shown[mask] == instance.value).all()
                assert instance.slices[axis].start <= index < instance.slices[axis].stop
                whole[mask] = instance.value
            assert np.array_equal(whole, shown)
            standing = [one for one in found.instances if one.slices[axis].start <= index < one.slices[axis].stop]
            assert [one[0] for one in cut] == standing  # a connected instance leaves out no slice between its ends


def test_instances_and_their_order_do_not_hang_on_how_a_volume_is_stored() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random((9, 8, 7)) < 0.2).astype(np.uint8) * rng.integers(1, 4, (9, 8, 7)).astype(np.uint8)
    plain = find_instances(labels)
    assert len(plain.instances) > 20
    for axes in itertools.permutations(range(3)):
        stored = np.ascontiguousarray(labels.transpose(axes)[::-1])
        back = stored[::-1].transpose(np.argsort(axes))
        found = find_instances(back)
        assert found.instances == plain.instances
        for plane in PLANES:
            for (one, mask), (other, same) in zip(sections(found, plane, 3), sections(plain, plane, 3), strict=True):
                assert one == other
                assert np.array_equal(mask, same)


def test_touching_by_a_corner_is_one_instance_and_another_value_is_another() -> None:
    labels = np.zeros((5, 5, 5), np.uint16)
    labels[0, 0, 0] = labels[1, 1, 1] = 256
    labels[2, 2, 2] = 512
    labels[4, 4, 4] = 256
    found = find_instances(labels).instances
    assert [(one.value, one.voxels) for one in found] == [(256, 2), (256, 1), (512, 1)]


def test_the_largest_cross_section_is_the_middle_one_of_equals() -> None:
    labels = np.zeros((9, 10, 11), np.uint8)
    labels[2:7, 3:6, 1:9] = 1
    labels[4, 7, 5] = 1  # apart
    labels[4, 6, 5] = 1  # joins it: the section at 4 is the largest
    (only,) = find_instances(labels).instances
    assert only.largest == (4, 5, 5)  # along the second axis 3, 4 and 5 are equal, and 5 is the middle of 3 to 7
    plain = np.zeros((9, 10, 11), np.uint8)
    plain[2:7, 3:6, 1:9] = 1
    assert find_instances(plain).instances[0].largest == (4, 4, 4)


def test_an_empty_volume_has_no_instance_and_a_full_one_has_one() -> None:
    nothing = find_instances(np.zeros((3, 4, 5), np.uint8))
    assert nothing.instances == ()
    assert sections(nothing, "axial", 4) == []
    (whole,) = find_instances(np.full((3, 4, 5), 9, np.uint8)).instances
    assert whole.slices == (slice(0, 3), slice(0, 4), slice(0, 5))
    with pytest.raises(RecordError) as caught:
        sections(nothing, "axial", 5)
    assert caught.value.reason is Reason.HEADER_MISMATCH


def test_too_many_or_interleaved_instances_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = np.zeros((24, 24, 24), np.uint8)
    grid[::2, ::2, ::2] = 1
    monkeypatch.setattr(volume_boxes, "MOST_INSTANCES", 1000)
    with pytest.raises(RecordError) as caught:
        find_instances(grid)
    assert caught.value.reason is Reason.OVER_BUDGET
    rings = np.zeros((160, 160, 3), np.uint8)
    for edge in range(78):
        rings[edge : 160 - edge, edge : 160 - edge, 1] = edge % 2 + 1
    assert len(find_instances(rings).instances) == 78  # each round the next: 20 times over
    monkeypatch.setattr(volume_boxes, "_INTERLEAVED", 8)
    with pytest.raises(RecordError) as caught:
        find_instances(rings)
    assert caught.value.reason is Reason.FORMAT_UNSUPPORTED


def test_names_and_the_smallest_volume_are_written_as_they_are_read() -> None:
    names = {1: "kidney", 2: "tumor"}
    assert volume_names_text(names) == "1=kidney;2=tumor"
    assert volume_names_text(names, 12.5) == "1=kidney;2=tumor;least_mm3=12.5"
    assert parse_volume_names("1=kidney;2=tumor") == (names, 0)
    assert parse_volume_names(volume_names_text(names, 1e-3)) == (names, 1e-3)
    for bad in ("", "1=kidney;least_mm3=", "1=kidney;least_mm3=-1", "1=kidney;least_mm3=nan", "least_mm3=4"):
        with pytest.raises(ValueError, match="mm³|named|could not convert"):
            parse_volume_names(bad)
