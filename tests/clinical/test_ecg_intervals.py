"""Intervals against the parameters that made the ECG, and None where they cannot be told."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from qoq_data.clinical.ecg_intervals import NOT_MEASURED, choose_lead, measure_intervals
from qoq_data.clinical.leads import STANDARD_12
from qoq_data.clinical.synthetic_ecg import SyntheticECG, synthesize_ecg
from qoq_data.errors import MissingExtraError


def lead_ii(hz: float = 500.0, **changes: float) -> np.ndarray:
    signal = synthesize_ecg(SyntheticECG(**changes), hz, 10, np.random.default_rng(3))  # type: ignore[arg-type]
    return signal[1]


@pytest.mark.parametrize("rate_bpm", [70.0, 85.0, 110.0])
def test_rate_within_2_bpm_qrs_within_20_ms_qt_within_25_ms(rate_bpm: float) -> None:
    measured = measure_intervals(lead_ii(heart_rate_bpm=rate_bpm, rr_irregularity=0.0), 500)
    assert measured.heart_rate_bpm == pytest.approx(rate_bpm, abs=2)
    assert measured.rr_ms == pytest.approx(60_000 / rate_bpm, rel=0.02)
    assert measured.qrs_ms == pytest.approx(90, abs=20)
    assert measured.qt_ms == pytest.approx(405 * (60 / rate_bpm) ** 0.5, abs=25)


def test_a_t_that_points_down_has_no_qt() -> None:
    measured = measure_intervals(lead_ii(t_inverted=True), 500)
    assert measured.qrs_ms is not None
    assert measured.qt_ms is None


def test_a_lead_across_the_axis_has_no_rate() -> None:
    assert measure_intervals(lead_ii(axis_degrees=-39.0, rr_irregularity=0.0), 500) == NOT_MEASURED


def test_flutter_waves_leave_a_rate_but_no_qrs() -> None:
    measured = measure_intervals(lead_ii(p_wave=False, flutter_mv=0.28, rr_irregularity=0.0), 500)
    assert measured.heart_rate_bpm == pytest.approx(72, abs=2)
    assert measured.qrs_ms is None


def test_the_longest_stretch_between_gaps_is_measured() -> None:
    signal = lead_ii(rr_irregularity=0.0)
    signal[1000:1200] = np.nan
    assert measure_intervals(signal, 500).heart_rate_bpm == pytest.approx(72, abs=2)
    signal[::1500] = np.nan
    assert measure_intervals(signal, 500) == NOT_MEASURED


@pytest.mark.parametrize("signal", [np.zeros(5000), np.full(5000, np.nan), np.zeros(0), np.ones(100)])
def test_what_has_no_beats_is_not_measured(signal: np.ndarray) -> None:
    assert measure_intervals(signal.astype(np.float32), 500) == NOT_MEASURED


def test_lead_ii_is_chosen_unless_it_has_a_gap_or_is_flat() -> None:
    signal = synthesize_ecg(SyntheticECG(), 500, 10, np.random.default_rng(0))
    assert choose_lead(signal, STANDARD_12) == 1
    signal[1] = 0
    widest = choose_lead(signal, STANDARD_12)
    assert widest is not None
    assert widest >= 6
    signal[widest, 10] = np.nan
    assert choose_lead(signal, STANDARD_12) not in (1, widest)
    assert choose_lead(np.full((2, 50), np.nan, np.float32), ("I", "II")) is None


def test_without_neurokit_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neurokit2", None)
    with pytest.raises(MissingExtraError, match=r"qoq-med\[ecg\]"):
        measure_intervals(lead_ii(), 500)
