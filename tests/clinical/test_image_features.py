"""Measures of pictures, on shapes whose size and form are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from qoq_data.clinical.image_features import FEATURES, SMALLEST_BLOB, bright_blob, dark_blob

Picture = NDArray[np.uint8]


def tissue(height: int = 200, width: int = 200, grey: int = 100) -> Picture:
    return np.full((height, width), grey, dtype=np.uint8)


def oval(picture: Picture, across: float, down: float, grey: int = 5) -> Picture:
    """The picture with an oval of these half axes in its middle, a little above centre."""
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    picture[np.hypot((x - picture.shape[1] / 2) / across, (y - picture.shape[0] * 0.4) / down) <= 1] = grey
    return picture


def test_names_and_functions_agree() -> None:
    assert all(name == measure.__name__ for name, measure in FEATURES.items())
    assert {"dark_blob_area", "dark_blob_aspect", "dark_blob_solidity", "shadow_contrast"} <= set(FEATURES)


def test_area_of_a_dark_and_of_a_bright_oval() -> None:
    expected = np.pi * 30 * 20 / 200**2
    dark, bright = oval(tissue(), 30, 20), oval(tissue(), 30, 20, 250)
    assert FEATURES["dark_blob_area"](dark) == pytest.approx(expected, rel=0.1)
    assert FEATURES["bright_blob_area"](bright) == pytest.approx(expected, rel=0.1)
    assert FEATURES["bright_blob_area"](dark) == 0 == FEATURES["dark_blob_area"](bright)


def test_the_larger_of_two_blobs_is_meant() -> None:
    picture = tissue()
    picture[20:40, 20:40] = 5
    picture[100:160, 100:130] = 5
    blob = dark_blob(picture)
    assert blob is not None
    assert (blob.rows.start, blob.columns.start) == (pytest.approx(100, abs=2), pytest.approx(100, abs=2))
    assert FEATURES["dark_blob_aspect"](picture) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(("across", "down"), [(40, 20), (20, 40), (30, 30)])
def test_aspect_is_height_over_width(across: int, down: int) -> None:
    assert FEATURES["dark_blob_aspect"](oval(tissue(), across, down)) == pytest.approx(down / across, rel=0.06)


def test_solidity_tells_an_oval_from_a_cross() -> None:
    cross = tissue()
    cross[90:110, 40:160] = 5
    cross[40:160, 90:110] = 5
    arms, hull = 2 * 20 * 120 - 20 * 20, 120 * 120 - 4 * 50 * 50 / 2
    assert FEATURES["dark_blob_solidity"](cross) == pytest.approx(arms / hull, rel=0.05)
    assert FEATURES["dark_blob_solidity"](oval(tissue(), 40, 20)) > 0.95


def test_a_line_has_a_solidity() -> None:
    picture = tissue(40, 400)
    picture[20:23, :] = 0
    assert FEATURES["dark_blob_solidity"](picture) == pytest.approx(1)


@pytest.mark.parametrize(("behind", "expected"), [(50, -0.5), (100, 0.0), (150, 0.5)])
def test_shadow_and_enhancement_below_the_blob(behind: int, expected: float) -> None:
    picture = tissue()
    picture[80:, 70:130] = behind
    assert FEATURES["shadow_contrast"](oval(picture, 30, 20)) == pytest.approx(expected, abs=0.05)


def test_no_shadow_where_there_is_no_room_for_one() -> None:
    floor, wall, alone = tissue(), tissue(), tissue()
    floor[150:, 80:120] = 5
    wall[50:100, :] = 5
    assert FEATURES["shadow_contrast"](floor) == 0
    assert FEATURES["shadow_contrast"](wall) == 0
    assert FEATURES["shadow_contrast"](alone) == 0


def test_redness_is_signed_and_grey_has_none() -> None:
    red = np.zeros((10, 10, 3), dtype=np.uint8)
    red[..., 0] = 255
    assert FEATURES["redness"](red) == 1
    assert FEATURES["redness"](red[..., ::-1]) == -0.5
    assert FEATURES["redness"](tissue()) == 0


def test_intensity_and_texture() -> None:
    rng = np.random.default_rng(1)
    fine, coarse = (
        np.clip(100 + spread * rng.standard_normal((80, 80)), 0, 255).astype(np.uint8) for spread in (5, 20)
    )
    assert FEATURES["mean_intensity"](tissue(grey=51)) == pytest.approx(0.2)
    assert 0 == FEATURES["texture_contrast"](tissue()) < FEATURES["texture_contrast"](fine)
    assert FEATURES["texture_contrast"](coarse) == pytest.approx(4 * FEATURES["texture_contrast"](fine), rel=0.1)


def test_speckle_is_no_blob() -> None:
    picture = tissue(300, 300)
    side = int((SMALLEST_BLOB * picture.size) ** 0.5) - 3
    picture[100 : 100 + side, 100 : 100 + side] = 0
    assert dark_blob(picture) is None
    assert bright_blob(255 - picture) is None
    assert FEATURES["dark_blob_solidity"](picture) == FEATURES["dark_blob_aspect"](picture) == 0


@pytest.mark.parametrize("grey", [0, 255])
def test_flat_pictures_have_no_blobs(grey: int) -> None:
    assert dark_blob(tissue(grey=grey)) is None
    assert bright_blob(tissue(grey=grey)) is None


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4), dtype=np.float64),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((2, 4, 4, 3), dtype=np.uint8),
        np.zeros((0, 4), dtype=np.uint8),
        np.zeros(4, dtype=np.uint8),
    ],
)
@pytest.mark.parametrize("name", sorted(FEATURES))
def test_what_is_no_picture_is_refused(name: str, picture: Picture) -> None:
    with pytest.raises(ValueError, match=r"a picture is uint8 \[h, w\]"):
        FEATURES[name](picture)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(lambda size: arrays(np.uint8, size)),
    st.sampled_from(sorted(FEATURES)),
)
def test_any_picture_gives_a_finite_number_and_grey_in_colour_the_same(picture: Picture, name: str) -> None:
    value = FEATURES[name](picture)
    assert isinstance(value, float)
    assert np.isfinite(value)
    assert FEATURES[name](np.repeat(picture[..., None], 3, axis=2)) == pytest.approx(value, abs=1e-9)
