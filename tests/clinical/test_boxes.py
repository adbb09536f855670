"""Boxes from masks and label maps, and their way through turns, crops and scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy import ndimage

from qoq_data.clinical.boxes import (
    Box,
    align_mask,
    boxes_from_labels,
    boxes_from_mask,
    boxes_from_masks,
    components,
    regions_from_labels,
    resize_boxes,
)
from qoq_data.clinical.transform import Transform
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image import decode_mask

QUIET = settings(max_examples=100, derandomize=True, deadline=None, database=None)
MASKS = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.tuples(st.just(seed), st.integers(1, 20), st.integers(1, 20), st.sampled_from([0.05, 0.2, 0.5]))
)
SIDES = st.integers(1, 60)


def random_mask(drawn: tuple[int, int, int, float]) -> np.ndarray:
    seed, height, width, share = drawn
    return np.random.default_rng(seed).random((height, width)) < share


def with_rectangle(shape: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def flooded(mask: np.ndarray) -> list[list[tuple[int, ...]]]:
    """Components by flood fill in raster order: the slow, plain way."""
    seen, found = set(), []
    for start in map(tuple, np.argwhere(mask).tolist()):
        if start in seen:
            continue
        todo, members = [start], []
        seen.add(start)
        while todo:
            place = todo.pop()
            members.append(place)
            for step in np.ndindex(*(3,) * mask.ndim):
                other = tuple(p + s - 1 for p, s in zip(place, step, strict=True))
                inside = all(0 <= o < n for o, n in zip(other, mask.shape, strict=True))
                if inside and mask[other] and other not in seen:
                    seen.add(other)
                    todo.append(other)
        found.append(members)
    return found


@pytest.mark.parametrize(
    "xyxy",
    [(3, 2, 4, 3), (0, 0, 1, 7), (0, 0, 7, 1), (0, 11, 16, 12), (15, 0, 16, 12), (0, 0, 16, 12)],
    ids=["1x1", "1x7", "7x1", "last row", "last column", "full"],
)
def test_b03_boxes_are_half_open(xyxy: tuple[int, int, int, int]) -> None:
    assert boxes_from_mask(with_rectangle((12, 16), *xyxy), "cyst").boxes == (Box("cyst", 0, xyxy),)


def test_b03_empty_mask_has_no_box() -> None:
    for union in (False, True):
        assert boxes_from_mask(np.zeros((5, 5), bool), "cyst", union=union).boxes == ()
    assert boxes_from_mask(np.zeros((0, 5), bool), "cyst").boxes == ()
    assert boxes_from_masks([], "cyst", instances=True) == boxes_from_masks([], "cyst", instances=False)


@QUIET
@given(MASKS)
def test_components_are_those_of_flood_fill_in_raster_order(drawn: tuple[int, int, int, float]) -> None:
    mask = random_mask(drawn)
    found = boxes_from_mask(mask, "a")
    expected = []
    for members in flooded(mask):
        rows, columns = np.array(members).T
        expected.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    assert [box.xyxy for box in found.boxes] == expected
    rows, columns = np.nonzero(mask)
    if rows.size:
        (whole,) = boxes_from_mask(mask, "a", union=True).boxes
        assert whole.xyxy == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_components_of_volumes_touch_by_corners() -> None:
    volume = np.random.default_rng(3).random((6, 7, 8)) < 0.07
    labelled, slices = components(volume)
    expected = flooded(volume)
    assert len(slices) == len(expected) > 3
    for number, (members, found) in enumerate(zip(expected, slices, strict=True), start=1):
        assert sorted(members) == list(map(tuple, np.argwhere(labelled == number).tolist()))
        places = np.array(members)
        assert [(s.start, s.stop) for s in found] == list(zip(places.min(axis=0), places.max(axis=0) + 1, strict=True))


def test_small_components_are_dropped_only_when_asked_and_counted() -> None:
    mask = with_rectangle((20, 20), 0, 0, 1, 1) | with_rectangle((20, 20), 5, 5, 9, 8)
    assert boxes_from_mask(mask, "a").dropped == 0
    assert len(boxes_from_mask(mask, "a").boxes) == 2
    found = boxes_from_mask(mask, "a", min_area_px=2)
    assert ([box.xyxy for box in found.boxes], found.dropped) == ([(5, 5, 9, 8)], 1)
    found = boxes_from_mask(mask, "a", min_area_mm2=3.0, spacing_mm=(0.5, 0.5))  # 12 pixels are 3 mm²
    assert (len(found.boxes), found.dropped) == (1, 1)
    assert boxes_from_mask(mask, "a", min_area_mm2=3.1, spacing_mm=(0.5, 0.5)).dropped == 2
    with pytest.raises(RecordError) as caught:
        boxes_from_mask(mask, "a", min_area_mm2=3.0)
    assert caught.value.reason is Reason.UNIT_UNKNOWN


def test_masks_as_instances_or_united() -> None:
    first, second = with_rectangle((9, 9), 0, 0, 4, 4), with_rectangle((9, 9), 3, 3, 8, 8)
    apart = boxes_from_masks([first, second, second], "a", instances=True).boxes
    assert [box.xyxy for box in apart] == [(0, 0, 4, 4), (3, 3, 8, 8), (3, 3, 8, 8)]
    assert [box.xyxy for box in boxes_from_masks([first, second], "a", instances=False).boxes] == [(0, 0, 8, 8)]
    assert boxes_from_masks([first, second, second], "a", instances=True, min_area_px=17).dropped == 1
    with pytest.raises(RecordError) as caught:
        boxes_from_masks([first, second[:8]], "a", instances=True)
    assert caught.value.reason is Reason.MASK_SHAPE_MISMATCH


def test_b09_overlapping_boxes_all_stay_in_one_order() -> None:
    mask = with_rectangle((30, 120), 0, 0, 100, 20)
    shifted = with_rectangle((30, 120), 4, 0, 104, 20)  # IoU 96 / 104
    two_classes = boxes_from_mask(mask, "kidney").boxes + boxes_from_mask(mask, "tumor").boxes
    assert [(box.label, box.xyxy) for box in two_classes] == [("kidney", (0, 0, 100, 20)), ("tumor", (0, 0, 100, 20))]
    assert [box.xyxy for box in boxes_from_masks([shifted, mask, mask], "tumor", instances=True).boxes] == [
        (4, 0, 104, 20),
        (0, 0, 100, 20),
        (0, 0, 100, 20),
    ]


def test_label_maps_keep_large_values_and_neighbours_apart() -> None:
    labels = np.zeros((10, 12), np.int32)
    labels[0:2, 0:3] = 300
    labels[0:2, 3:6] = 44  # 300 % 256
    labels[8:10, 10:12] = 300
    labels[5, 5] = 70_000
    small = np.where(labels == 70_000, 301, labels)  # the way of dense values
    assert [region.value for region in regions_from_labels(small.astype(np.uint16))] == [44, 300, 300, 301]
    found = boxes_from_labels(labels, {300: "c", 44: "a", 70_000: "b"})
    assert [(box.label, box.xyxy) for box in found] == [
        ("a", (3, 0, 6, 2)),
        ("c", (0, 0, 3, 2)),
        ("c", (10, 8, 12, 10)),
        ("b", (5, 5, 6, 6)),
    ]
    assert [region.size for region in regions_from_labels(labels)] == [6, 6, 4, 1]
    assert [box.label for box in boxes_from_labels(labels, {300: None, 44: "a", 70_000: None})] == ["a"]
    with pytest.raises(RecordError) as caught:
        boxes_from_labels(labels, {300: "c", 44: "a"})
    assert caught.value.reason is Reason.MASK_CONFLICT
    assert "70000" in caught.value.detail
    assert [region.value for region in regions_from_labels(np.where(labels == 44, -1, 0))] == [-1]
    assert regions_from_labels(np.zeros((3, 3, 3), np.uint8)) == regions_from_labels(np.zeros((0, 3), np.uint8)) == []
    assert regions_from_labels(np.full((2, 3, 4), 9, np.uint8))[0].slices == (slice(0, 2), slice(0, 3), slice(0, 4))


def test_b01_mask_of_another_size() -> None:
    size = (400, 300)
    same = with_rectangle((300, 400), 10, 20, 30, 40)
    assert align_mask(same, size)[0] is same
    assert align_mask(same, size)[1] == ""
    aligned, note = align_mask(with_rectangle((345, 460), 46, 69, 92, 138), size)
    assert aligned.shape == (300, 400)
    assert note == "mask scaled from 460 x 345 to 400 x 300, nearest neighbour"
    assert boxes_from_mask(aligned, "a").boxes[0].xyxy == (40, 60, 80, 120)
    for shape in ((310, 400), (400, 300), (0, 0)):
        with pytest.raises(RecordError) as caught:
            align_mask(np.ones(shape, bool), size)
        assert caught.value.reason is Reason.MASK_SHAPE_MISMATCH


def test_b01_what_scaling_loses_is_said() -> None:
    mask = with_rectangle((300, 400), 0, 0, 1, 1) | with_rectangle((300, 400), 100, 100, 200, 200)
    aligned, note = align_mask(mask, (40, 30))
    assert aligned.sum() == 100
    assert note.endswith("1 of 2 components too small to survive")
    with pytest.raises(RecordError):
        align_mask(with_rectangle((300, 400), 0, 0, 1, 1), (40, 30))
    assert not align_mask(np.zeros((300, 400), bool), (40, 30))[0].any()


@st.composite
def boxes_in_frames(draw: st.DrawFn) -> tuple[tuple[int, int], Box]:
    width, height = draw(SIDES), draw(SIDES)
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    xyxy = (x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height)))
    return (width, height), Box("a", 0, xyxy, 0.5)


@pytest.mark.parametrize("orientation", range(1, 9))
@QUIET
@given(boxes_in_frames())
def test_b04_box_turns_as_pillow_turns_the_picture(orientation: int, drawn: tuple[tuple[int, int], Box]) -> None:
    size, box = drawn
    picture = Image.fromarray(with_rectangle(size[::-1], *box.xyxy).astype(np.uint8) * 255)
    picture.getexif()[0x0112] = orientation
    turned = ImageOps.exif_transpose(picture)
    change = Transform.upright(size, orientation)
    assert change.target_size == turned.size
    moved = change.apply_to_box(box)
    assert moved is not None
    assert moved.xyxy == turned.getbbox()
    assert (moved.label, moved.image, moved.agreement) == ("a", 0, 0.5)
    assert change.inverse().apply_to_box(moved) == box
    assert change.then(change.inverse()) == Transform.scaled(size, size)


@QUIET
@given(boxes_in_frames(), SIDES, SIDES)
def test_b06_resized_box_stays_inside_and_comes_back_within_a_pixel(
    drawn: tuple[tuple[int, int], Box], new_width: int, new_height: int
) -> None:
    size, box = drawn
    new_size = (new_width, new_height)
    (small,) = resize_boxes([box], size, new_size)
    assert 0 <= small.xyxy[0] < small.xyxy[2] <= new_width
    assert 0 <= small.xyxy[1] < small.xyxy[3] <= new_height
    for axis in (0, 1):
        scale = new_size[axis] / size[axis]
        assert small.xyxy[axis] <= box.xyxy[axis] * scale + 1e-9
        assert small.xyxy[axis + 2] >= box.xyxy[axis + 2] * scale - 1e-9
    (back,) = resize_boxes([small], new_size, size)
    for edge in range(4):
        pixel = max(1.0, size[edge % 2] / new_size[edge % 2])  # of the coarser of the two frames
        assert abs(back.xyxy[edge] - box.xyxy[edge]) <= pixel + 1


@QUIET
@given(boxes_in_frames(), st.integers(6, 60))
def test_box_of_scaled_mask_is_the_scaled_box_within_a_pixel(
    drawn: tuple[tuple[int, int], Box], twentieths: int
) -> None:
    (width, height), box = drawn
    box = Box("a", 0, tuple(20 * edge for edge in box.xyxy))
    new_size = (width * twentieths, height * twentieths)  # of exactly the same aspect
    width, height = width * 20, height * 20
    mask, _ = align_mask(with_rectangle((height, width), *box.xyxy), new_size)
    (from_mask,) = boxes_from_mask(mask, "a").boxes
    (from_box,) = resize_boxes([box], (width, height), new_size)
    assert np.abs(np.subtract(from_mask.xyxy, from_box.xyxy)).max() <= 1


def test_crop_cuts_boxes_and_points_follow() -> None:
    change = Transform.cropped((100, 80), (10, 20, 60, 70)).then(Transform.scaled((50, 50), (25, 25)))
    assert change.target_size == (25, 25)
    moved = change.apply_to_box(Box("a", 2, (0, 0, 30, 31)))
    assert moved == Box("a", 2, (0, 0, 10, 6))
    assert change.apply_to_box(Box("a", 2, (0, 0, 10, 80))) is None
    assert change.apply_to_box(Box("a", 2, (20, 30, 20, 40))) is None
    assert change.apply_to_point(30.5, 40.5) == (10.25, 10.25)
    assert change.inverse().apply_to_point(10.25, 10.25) == (30.5, 40.5)
    with pytest.raises(ValueError, match="does not go into"):
        change.then(Transform.upright((100, 80), 6))
    with pytest.raises(ValueError, match="1 to 8"):
        Transform.upright((100, 80), 9)
    with pytest.raises(RecordError):
        resize_boxes([Box("a", 0, (5, 5, 5, 9))], (100, 80), (50, 40))


def test_b06_box_of_1080_by_1920_goes_to_a_model_grid_and_back() -> None:
    box = Box("a", 0, (400, 700, 700, 1500))
    (small,) = resize_boxes([box], (1080, 1920), (392, 700))
    (back,) = resize_boxes([small], (392, 700), (1080, 1920))
    assert np.abs(np.subtract(back.xyxy, box.xyxy)).max() <= 3  # one pixel of the model's grid is 2.76 of the image


def test_real_busi_boxes_equal_an_independent_count(realdata: Path) -> None:
    folder = realdata / "busi" / "Dataset_BUSI_with_GT"
    names = sorted(folder.rglob("*_mask*.png"))
    assert len(names) == 9
    for name in names:
        mask = decode_mask(name.read_bytes(), name.name)
        stored = np.asarray(Image.open(name).convert("L")) > 127
        labelled, count = ndimage.label(stored, np.ones((3, 3)))
        expected = set()
        for number in range(1, count + 1):
            rows, columns = np.nonzero(labelled == number)
            expected.add((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        found = boxes_from_mask(mask, name.parent.name).boxes
        assert len(found) == count
        assert {box.xyxy for box in found} == expected
        assert (name.parent.name == "normal") == (found == ())
    pair = [decode_mask(path.read_bytes(), path.name) for path in sorted(folder.rglob("benign (25)_mask*.png"))]
    assert len(boxes_from_masks(pair, "benign", instances=True).boxes) == 2
