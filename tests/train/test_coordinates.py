"""Coordinates: the processors' own sizes, and boxes that come back to where they were."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.errors import UnknownNameError
from qoq_train.coordinates import QWEN2_5_VL, QWEN3_VL, STORED_PIXELS, ModelFrame, rule_of_model, smart_resize

quick = settings(derandomize=True, deadline=None, max_examples=80)
SIDE = st.integers(1, 3000)


def test_sizes_by_hand() -> None:
    # 1920/28 = 68.57 -> 69, 1080/28 = 38.57 -> 39: 1932 x 1092.
    assert QWEN2_5_VL.frame((1920, 1080)).model_size == (1932, 1092)
    # 200,704 pixels: beta = sqrt(2,073,600 / 200,704) = 3.2143; 597.3 -> 588, 336.0 -> 336.
    assert smart_resize((1920, 1080), factor=28, min_pixels=3136, max_pixels=200_704) == (588, 336)
    assert smart_resize((10, 10), factor=28, min_pixels=3136, max_pixels=10**6) == (56, 56)
    assert smart_resize((70, 42), factor=28, min_pixels=784, max_pixels=10**6) == (56, 56)  # halves go to even


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (201, 1), (1, 5000)])
def test_sizes_that_no_processor_takes(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="picture"):
        smart_resize(size, factor=28, min_pixels=3136, max_pixels=10**6)


@pytest.mark.parametrize(("width", "height"), [(1695, 2187), (23, 3), (5000, 40), (1080, 1920), (1024, 512)])
@pytest.mark.parametrize(
    ("factor", "least", "most"), [(28, 3136, 12_845_056), (28, 65_536, 524_288), (32, 65_536, 16_777_216)]
)
def test_r10_sizes_of_the_processors(width: int, height: int, factor: int, least: int, most: int) -> None:
    pytest.importorskip("torch", reason="the processor of transformers needs torch")
    qwen = pytest.importorskip(
        "transformers.models.qwen2_vl.image_processing_qwen2_vl", reason="transformers is not installed"
    )
    theirs = qwen.smart_resize(height, width, factor=factor, min_pixels=least, max_pixels=most)
    assert smart_resize((width, height), factor=factor, min_pixels=least, max_pixels=most) == theirs[::-1]


@quick
@given(SIDE, SIDE, st.sampled_from([28, 32]), st.integers(1, 400_000), st.integers(0, 4_000_000))
def test_r10_any_size_equals_the_processors(width: int, height: int, factor: int, least: int, more: int) -> None:
    qwen = pytest.importorskip(
        "transformers.models.qwen2_vl.image_processing_qwen2_vl", reason="transformers is not installed"
    )
    if max(width, height) > 200 * min(width, height):
        return
    theirs = qwen.smart_resize(height, width, factor=factor, min_pixels=least, max_pixels=least + more)
    assert smart_resize((width, height), factor=factor, min_pixels=least, max_pixels=least + more) == theirs[::-1]


def test_b06_frame_from_the_processors_own_grid() -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    np = pytest.importorskip("numpy")
    qwen = pytest.importorskip(
        "transformers.models.qwen2_vl.image_processing_qwen2_vl", reason="transformers is not installed"
    )
    processor = qwen.Qwen2VLImageProcessor(size={"shortest_edge": 3136, "longest_edge": 200_704})
    made = processor(images=[np.zeros((1080, 1920, 3), np.uint8)], return_tensors="pt")
    grid = tuple(int(side) for side in made["image_grid_thw"][0])
    frame = ModelFrame.of_grid((1920, 1080), (grid[0], grid[1], grid[2]), 14)
    assert frame == rule_of_model("qwen2_5_vl", max_pixels=200_704).frame((1920, 1080))
    box = (100.0, 37.0, 1901.0, 1080.0)
    assert frame.to_pixels(frame.to_model(box)) == pytest.approx(box, abs=1e-9)


def test_boxes_by_hand() -> None:
    assert QWEN3_VL.frame((800, 400)).to_pixels((0, 250, 500, 1000)) == (0, 100, 400, 400)
    assert QWEN3_VL.frame((800, 400)).to_model_integers((0, 100, 400, 400)) == (0, 250, 500, 1000)
    assert STORED_PIXELS.frame((7, 5)).to_pixels((1, 2, 7, 5)) == (1, 2, 7, 5)
    # 1920 -> 588: 3.265 pixels a unit, so a box of one pixel stays one unit wide.
    frame = ModelFrame((1920, 1080), (588, 336))
    assert frame.to_model_integers((100, 100, 101, 101)) == (30, 31, 31, 32)


@quick
@given(
    st.sampled_from(["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "pixels"]), st.integers(28, 1024), st.integers(28, 1024), st.data()  # noqa: E501
)  # fmt: skip
def test_b06_round_trip_within_one_pixel(model: str, width: int, height: int, data: st.DataObject) -> None:
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = (x0, y0, data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height)))
    frame = rule_of_model(model).frame((width, height))
    stated = frame.to_model_integers(box)
    assert stated[0] < stated[2]
    assert stated[1] < stated[3]
    for i, (there, back) in enumerate(zip(box, frame.to_pixels(stated), strict=True)):
        unit = frame.picture_size[i % 2] / frame.model_size[i % 2]
        assert abs(there - back) < max(1.0, unit) + 1e-9
    assert frame.to_pixels(frame.to_model(box)) == pytest.approx(box, abs=1e-6)


def test_a_model_of_unknown_convention() -> None:
    with pytest.raises(UnknownNameError, match="llava"):
        rule_of_model("llava")
