"""Windows against hand tables of PS3.3 C.11.2.1 and, over random ones, against pydicom."""

from __future__ import annotations

import typing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from qoq_data.clinical.windowing import (
    DISPLAY_WINDOWS,
    VOI_FUNCTIONS,
    DisplayWindow,
    GreyWindow,
    display_text,
    display_window,
    range_levels,
    table_levels,
    to_grey,
    window_levels,
)


def test_presets_are_a_closed_list_with_a_text_each() -> None:
    assert set(typing.get_args(DisplayWindow)) == set(DISPLAY_WINDOWS)
    assert display_text("soft_tissue") == "soft tissue, 40/400"
    assert display_text("pulmonary_angiography") == "pulmonary angiography, 80/700"
    assert display_window("brain") == GreyWindow(40, 80)
    with pytest.raises(KeyError):
        display_window("Brain")


def test_linear_is_black_and_white_where_the_standard_says() -> None:
    """C.11.2.1.2.1: c 2048, w 4096 takes 0 to 4095 to the whole range; c 2048, w 1 is a threshold at 2047.5."""
    values = np.arange(-1, 4097)
    levels = window_levels(values, GreyWindow(2048, 4096))
    assert levels[:2].tolist() == [0, 0]
    assert levels[-2:].tolist() == [255, 255]
    assert 0 < levels[2] < levels[3]
    threshold = window_levels(values, GreyWindow(2048, 1))
    assert threshold[values <= 2047].max() == 0
    assert threshold[values >= 2048].min() == 255


def test_linear_exact_has_no_half_and_no_one() -> None:
    window = GreyWindow(100, 100, "LINEAR_EXACT")
    assert window_levels(np.array([50, 75, 100, 150]), window).tolist() == [0, 63.75, 127.5, 255]


def test_sigmoid_is_half_at_the_centre() -> None:
    levels = window_levels(np.array([-1e9, 90, 100, 110, 1e9]), GreyWindow(100, 40, "SIGMOID"))
    assert levels[2] == 127.5
    assert levels[1] + levels[3] == pytest.approx(255)
    assert (levels[0], levels[4]) == (pytest.approx(0), pytest.approx(255))


def test_widths_that_cannot_be_used() -> None:
    assert not GreyWindow(0, 0.5).usable
    assert GreyWindow(0, 0.5, "LINEAR_EXACT").usable
    assert not GreyWindow(0, 0, "SIGMOID").usable


def test_the_range_of_one_value_is_black() -> None:
    assert range_levels(np.array([7, 7]), 7, 7).tolist() == [0, 0]
    assert range_levels(np.array([0, 5, 10]), 0, 10).tolist() == [0, 127.5, 255]


def test_values_beyond_a_table_have_the_levels_of_its_ends() -> None:
    entries = np.array([0, 100, 4095])
    levels = table_levels(np.array([-5, 10, 11, 12, 99]), 10, entries, 12)
    assert to_grey(levels).tolist() == [0, 0, 6, 255, 255]


def test_inversion_is_of_rounded_levels() -> None:
    assert to_grey(np.array([0, 0.5, 254.4, 255])).tolist() == [0, 1, 254, 255]
    assert to_grey(np.array([0, 0.5, 254.4, 255]), inverted=True).tolist() == [255, 254, 1, 0]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    function=st.sampled_from(VOI_FUNCTIONS),
    centre=st.integers(-3000, 3000) | st.floats(-3000, 3000),
    width=st.integers(1, 5000) | st.floats(1, 5000),
    slope=st.sampled_from([1.0, -1.0, 0.5, 2.0, 0.0125, -3.7]),
    intercept=st.sampled_from([0.0, -1024.0, 17.25]),
    signed=st.booleans(),
    bits=st.integers(8, 16),
)
def test_windows_are_pydicoms_to_the_last_bit_after_rounding(
    function: str, centre: float, width: float, slope: float, intercept: float, signed: bool, bits: int
) -> None:
    data_set = Dataset()
    data_set.PhotometricInterpretation = "MONOCHROME2"
    data_set.BitsStored, data_set.PixelRepresentation = bits, int(signed)
    data_set.RescaleSlope, data_set.RescaleIntercept = slope, intercept
    data_set.WindowCenter, data_set.WindowWidth = str(centre)[:16], str(width)[:16]
    data_set.VOILUTFunction = function
    values = np.arange(-(1 << bits - 1), 1 << bits - 1) if signed else np.arange(1 << bits)
    with np.errstate(over="ignore"):  # of pydicom's sigmoid, far from its centre
        levels = apply_voi_lut(apply_modality_lut(values, data_set), data_set)
    first, last = values[0] * slope + intercept, values[-1] * slope + intercept
    expected = (levels - first) / (last - first) * 255
    window = GreyWindow(float(data_set.WindowCenter), float(data_set.WindowWidth), function)  # type: ignore[arg-type]
    ours = to_grey(window_levels(values * slope + intercept, window))
    assert np.abs(ours - expected).max() <= 0.5 + 1e-6
    clear = np.abs(expected % 1 - 0.5) > 1e-6  # a half may fall either way, by the last bit of the double
    assert np.array_equal(ours[clear], np.floor(expected[clear] + 0.5))
