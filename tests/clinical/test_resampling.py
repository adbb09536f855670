"""Length, amplitude and gaps through a change of sampling rate."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.clinical.resampling import fixed_window, resample, resampling_ratio
from qoq_data.errors import Reason, RecordError

RATES_HZ = st.sampled_from([100.0, 125.0, 128.0, 250.0, 257.0, 333.3, 360.0, 400.0, 500.0, 1000.0])
PROPERTY = settings(derandomize=True, deadline=None, max_examples=25)


@PROPERTY
@given(st.integers(1, 1500), RATES_HZ, RATES_HZ, st.floats(-5, 5, width=32))
def test_length_rule_and_constants_stay(length: int, from_hz: float, to_hz: float, level_mv: float) -> None:
    out = resample(np.full((2, length), level_mv, np.float32), from_hz, to_hz)
    assert out.shape == (2, math.ceil(length * Fraction(str(to_hz)) / Fraction(str(from_hz))))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, level_mv, atol=1e-5)


@PROPERTY
@given(RATES_HZ, RATES_HZ, st.floats(0, 6))
def test_a_sine_of_10_hz_keeps_its_amplitude(from_hz: float, to_hz: float, phase: float) -> None:
    signal = np.sin(2 * np.pi * 10 * np.arange(int(4 * from_hz)) / from_hz + phase)[None].astype(np.float32)
    out = resample(signal, from_hz, to_hz)[0]
    seconds = np.arange(out.size) / to_hz
    inner = (seconds > 0.5) & (seconds < 3.5)
    assert np.abs(out - np.sin(2 * np.pi * 10 * seconds + phase))[inner].max() < 0.01


@PROPERTY
@given(RATES_HZ, RATES_HZ, st.integers(50, 300), st.integers(1, 60))
def test_e03_a_gap_stays_in_its_place_and_does_not_smear(from_hz: float, to_hz: float, first: int, width: int) -> None:
    signal = np.full((2, 400), 0.7, np.float32)
    signal[0, first : first + width] = np.nan
    out = resample(signal, from_hz, to_hz)
    gap = np.flatnonzero(np.isnan(out[0]))
    ratio = to_hz / from_hz
    slack = 0.5 + 0.5 * max(1.0, ratio) + 1e-6
    assert gap.size
    assert abs(gap[0] - first * ratio) <= slack
    assert abs(gap[-1] - (first + width - 1) * ratio) <= slack
    assert (np.diff(gap) == 1).all()
    assert not np.isnan(out[1]).any()
    np.testing.assert_allclose(out[0][~np.isnan(out[0])], 0.7, atol=1e-5)


def test_e03_a_gap_of_one_sample_is_not_lost_in_downsampling() -> None:
    signal = np.zeros((1, 1000), np.float32)
    signal[0, 502] = np.nan
    assert np.flatnonzero(np.isnan(resample(signal, 500, 100)[0])).tolist() == [100]


def test_a_lead_of_gaps_stays_one() -> None:
    signal = np.zeros((2, 100), np.float32)
    signal[0] = np.nan
    out = resample(signal, 100, 250)
    assert np.isnan(out[0]).all()
    assert not np.isnan(out[1]).any()


def test_edges_of_an_offset_lead_do_not_ring() -> None:
    ramp = np.linspace(3.0, 5.0, 1001, dtype=np.float32)[None]
    np.testing.assert_allclose(resample(ramp, 500, 250)[0], ramp[0, ::2], atol=1e-5)


def test_equal_rates_give_a_copy() -> None:
    signal = np.random.default_rng(0).normal(size=(3, 77)).astype(np.float32)
    signal[1, 5] = np.nan
    out = resample(signal, 360.0, 360)
    np.testing.assert_array_equal(out, signal)
    out[0, 0] = 9
    assert signal[0, 0] != 9


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, math.nan, math.inf])
def test_impossible_rates_are_refused(rate_hz: float) -> None:
    with pytest.raises(RecordError) as error:
        resampling_ratio(rate_hz, 500)
    assert error.value.reason is Reason.HEADER_INVALID


def test_ratio_is_exact_and_its_terms_are_bounded() -> None:
    assert resampling_ratio(333.3, 500) == Fraction(5000, 3333)
    with pytest.raises(RecordError) as error:
        resampling_ratio(499.999999, 500)
    assert error.value.reason is Reason.FORMAT_UNSUPPORTED


def test_budget_is_checked_before_allocation() -> None:
    claimed = np.broadcast_to(np.float32(0), (12, 40_000))
    with pytest.raises(RecordError) as error:
        resample(claimed, 1.0, 20_000.0)
    assert error.value.reason is Reason.OVER_BUDGET


def test_fixed_window_cuts_pads_with_nan_or_refuses() -> None:
    signal = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(fixed_window(signal, 2), signal[:, :2])
    padded = fixed_window(signal, 5)
    np.testing.assert_array_equal(padded[:, :3], signal)
    assert np.isnan(padded[:, 3:]).all()
    with pytest.raises(RecordError) as error:
        fixed_window(signal, 5, pad="refuse")
    assert error.value.reason is Reason.SIGNAL_TOO_SHORT
