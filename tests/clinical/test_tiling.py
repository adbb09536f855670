"""Tiles of a rectangle, and regions of a label map counted out by tile."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from qoq_data.clinical.label_maps import MOST_REGIONS, named_masks, names_text, parse_names, region_tiles, regions_of
from qoq_data.clinical.tiling import LARGEST_SIDE, OVERLAP, SMALLEST_SIDE, Window, tile_rectangle
from qoq_data.errors import Reason, RecordError


@st.composite
def rectangles(draw: st.DrawFn, most: int = 6000) -> tuple[Window, tuple[int, int]]:
    width, height = draw(st.integers(1, most)), draw(st.integers(1, most))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return (x0, y0, x1, y1), (width, height)


@given(rectangles())
def test_no_tile_leaves_the_picture_and_sides_are_in_range(given_: tuple[Window, tuple[int, int]]) -> None:
    rectangle, size = given_
    tiles = tile_rectangle(rectangle, size)
    assert tiles == tile_rectangle(rectangle, size)
    assert len(set(tiles)) == len(tiles)
    for x0, y0, x1, y1 in tiles:
        for start, stop, limit in ((x0, x1, size[0]), (y0, y1, size[1])):
            assert 0 <= start < stop <= limit
            assert min(SMALLEST_SIDE, limit) <= stop - start <= LARGEST_SIDE


@given(rectangles())
def test_every_pixel_of_the_rectangle_is_in_a_tile_and_neighbours_overlap(
    given_: tuple[Window, tuple[int, int]],
) -> None:
    rectangle, size = given_
    tiles = tile_rectangle(rectangle, size)
    for axis in (0, 1):
        spans = sorted({(tile[axis], tile[axis + 2]) for tile in tiles})
        assert spans[0][0] <= rectangle[axis]
        assert spans[-1][1] >= rectangle[axis + 2]
        assert all(before[1] - after[0] >= OVERLAP for before, after in pairwise(spans))
    spans_x, spans_y = ({(tile[axis], tile[axis + 2]) for tile in tiles} for axis in (0, 1))
    assert len(tiles) == len(spans_x) * len(spans_y)


@settings(max_examples=30)
@given(rectangles(most=90))
def test_coverage_counted_pixel_by_pixel(given_: tuple[Window, tuple[int, int]]) -> None:
    (x0, y0, x1, y1), (width, height) = given_
    covered = np.zeros((height, width), np.bool_)
    for left, top, right, bottom in tile_rectangle(
        (x0, y0, x1, y1), (width, height), smallest=8, largest=20, overlap=5
    ):
        covered[top:bottom, left:right] = True
    assert covered[y0:y1, x0:x1].all()


@pytest.mark.parametrize(
    ("rectangle", "size", "tiles"),
    [
        ((500, 500, 501, 501), (2000, 2000), [(389, 389, 613, 613)]),
        ((0, 0, 10, 10), (2000, 2000), [(0, 0, 224, 224)]),
        ((1990, 0, 2000, 300), (2000, 2000), [(1776, 0, 2000, 300)]),
        ((3, 3, 9, 9), (100, 60), [(0, 0, 100, 60)]),
        ((100, 100, 1124, 400), (2000, 2000), [(100, 100, 1124, 400)]),
        ((100, 100, 1125, 400), (2000, 2000), [(100, 100, 1124, 400), (101, 100, 1125, 400)]),
        ((0, 0, 1920, 224), (1920, 224), [(0, 0, 1024, 224), (896, 0, 1920, 224)]),
        ((0, 0, 1921, 224), (1921, 224), [(0, 0, 1024, 224), (448, 0, 1472, 224), (897, 0, 1921, 224)]),
    ],
)
def test_tiles_worked_out_by_hand(rectangle: Window, size: tuple[int, int], tiles: list[Window]) -> None:
    assert list(tile_rectangle(rectangle, size)) == tiles


@pytest.mark.parametrize("rectangle", [(0, 0, 0, 5), (5, 0, 4, 5), (-1, 0, 5, 5), (0, 0, 11, 5), (0, 0, 5, 11)])
def test_rectangles_that_are_none(rectangle: Window) -> None:
    with pytest.raises(ValueError, match="is empty, or not inside"):
        tile_rectangle(rectangle, (10, 10))


@pytest.mark.parametrize("sides", [(0, 10, 1), (11, 10, 1), (5, 10, 10), (5, 10, -1)])
def test_sides_that_cover_nothing(sides: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="cover nothing"):
        tile_rectangle((0, 0, 1, 1), (10, 10), smallest=sides[0], largest=sides[1], overlap=sides[2])


def test_names_go_into_text_and_back() -> None:
    names = {1: "tumor", 19: "tumor", 2: "lymphocytic infiltrate", 300: "ä"}
    assert names_text(names) == "1=tumor;19=tumor;2=lymphocytic infiltrate;300=ä"
    assert parse_names(names_text(names)) == names


@pytest.mark.parametrize(
    "text",
    ["", "tumor", "=tumor", "1=", "1= ", "0=outside", "1=a;1=b", "1=a;", "-1=a", "1.0=a", "1=a=b", "²=a", "1 ="],
)
def test_names_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match="value"):
        parse_names(text)


def test_a_name_with_a_sign_of_the_syntax_is_not_written() -> None:
    for name in ("a;2=b", "a=b", " "):
        with pytest.raises(ValueError, match="value"):
            names_text({1: name})


def test_values_of_one_name_are_one_structure_and_others_are_none() -> None:
    labels = np.array([[0, 1, 19, 2, 7]], np.uint8)
    found = named_masks(labels, {2: "stroma", 1: "tumor", 19: "tumor", 5: "absent"})
    assert [(name, mask[0].tolist()) for name, mask in found] == [
        ("stroma", [False, False, False, True, False]),
        ("tumor", [False, True, True, False, False]),
        ("absent", [False] * 5),
    ]


def blobs(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """A label map of broad regions of the values 0 to 4."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((height, width)), 12)
    return np.digitize(field, np.quantile(field, [0.3, 0.5, 0.7, 0.9])).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_regions_and_tiles_against_plain_counts(dtype: Any) -> None:
    labels = blobs(3, 300, 400).astype(dtype)
    regions = regions_of(labels)
    eight = np.ones((3, 3), int)
    assert len(regions) == sum(ndimage.label(labels == value, eight)[1] for value in range(1, 5))
    assert sum(region.size for region in regions) == np.count_nonzero(labels)
    tiles = region_tiles(labels, regions)
    assert {tile.region for tile in tiles} == set(range(len(regions)))
    for tile in tiles:
        x0, y0, x1, y1 = tile.window
        values, counts = np.unique(labels[y0:y1, x0:x1], return_counts=True)
        assert dict(tile.pixels) == dict(zip(values.tolist(), counts.tolist(), strict=True))
        rows, columns = regions[tile.region].slices
        assert x0 <= columns.start
        assert y0 <= rows.start


def test_b03_one_pixel_at_the_last_corner_is_a_region_and_an_empty_map_has_none() -> None:
    labels = np.zeros((40, 50), np.uint8)
    assert regions_of(labels) == []
    labels[39, 49] = 3
    (region,) = regions_of(labels)
    assert (region.value, region.size) == (3, 1)
    (tile,) = region_tiles(labels, [region])
    assert (tile.window, dict(tile.pixels)) == ((0, 0, 50, 40), {0: 1999, 3: 1})


def test_a_picture_is_no_label_map_and_too_many_regions_are_over_the_budget() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 600), dtype=np.uint8)
    with pytest.raises(RecordError, match="no label map") as caught:
        regions_of(noise)
    assert caught.value.reason is Reason.FORMAT_UNSUPPORTED
    dots = np.zeros((300, 600), np.uint8)
    dots[::2, ::4] = 1
    assert len(regions_of(dots[:, :400])) == 15_000 <= MOST_REGIONS
    with pytest.raises(RecordError, match="22500 regions") as caught:
        regions_of(dots)
    assert caught.value.reason is Reason.OVER_BUDGET
