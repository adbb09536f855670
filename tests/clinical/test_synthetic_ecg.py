"""Generated ECGs hold together physically, repeat for a seed, and show what their parameters say."""

from __future__ import annotations

import numpy as np
import pytest

from qoq_data.clinical.ecg_features import detect_r_peaks, measure_features
from qoq_data.clinical.leads import derive_limb_leads
from qoq_data.clinical.synthetic_ecg import PRESETS, SyntheticECG, preset, synthesize_ecg
from qoq_data.errors import UnknownNameError


def make(name: str, seed: int = 0, hz: float = 500.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return synthesize_ecg(preset(name, rng), hz, 10, rng)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_limb_leads_follow_from_i_and_ii_and_sizes_are_human(name: str) -> None:
    signal = make(name)
    assert signal.shape == (12, 5000)
    assert signal.dtype == np.float32
    np.testing.assert_array_equal(signal[2:6], derive_limb_leads(signal[0], signal[1]))
    assert 0.2 < np.ptp(signal[6:], axis=1).max() < 7


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_seed_gives_one_signal(name: str) -> None:
    np.testing.assert_array_equal(make(name, 4), make(name, 4))
    assert (make(name, 4) != make(name, 5)).any()


@pytest.mark.parametrize("rate_bpm", [45.0, 75.0, 120.0, 150.0])
@pytest.mark.parametrize("hz", [100.0, 500.0])
def test_the_beats_asked_for_are_there(rate_bpm: float, hz: float) -> None:
    params = SyntheticECG(heart_rate_bpm=rate_bpm, rr_irregularity=0.0)
    peaks = detect_r_peaks(synthesize_ecg(params, hz, 10, np.random.default_rng(1)), hz)
    np.testing.assert_allclose(60 * hz / np.diff(peaks), rate_bpm, rtol=0.06)
    assert abs(peaks.size - rate_bpm / 6) <= 1.5


def test_parameters_show_in_the_leads() -> None:
    def features(**changes: float | str | bool) -> dict[str, float]:
        params = SyntheticECG(noise_mv=0.0, baseline_wander_mv=0.0, **changes)  # type: ignore[arg-type]
        return measure_features(synthesize_ecg(params, 500, 10, np.random.default_rng(1)), 500)

    normal = features()
    assert features(axis_degrees=-45.0)["frontal_axis"] == pytest.approx(-45, abs=12)
    assert features(axis_degrees=110.0)["frontal_axis"] == pytest.approx(110, abs=12)
    assert features(pr_ms=280.0)["pr_interval"] - normal["pr_interval"] == pytest.approx(120, abs=10)
    assert features(st_anterior_mv=0.3)["st_level_v2"] > normal["st_level_v2"] + 0.15
    assert features(st_inferior_mv=-0.2)["st_level_ii"] < normal["st_level_ii"] - 0.08
    assert features(q_inferior_mv=0.5)["q_depth_ii"] > normal["q_depth_ii"] + 0.2
    assert features(p_wave=False)["p_wave_amplitude"] < 0.02 < 0.08 < normal["p_wave_amplitude"]
    assert features(t_inverted=True)["t_amplitude_v5"] < 0 < normal["t_amplitude_v5"]
    assert features(conduction="right_block", qrs_ms=140.0)["qrs_area_v1"] > 0 > normal["qrs_area_v1"]
    assert features(voltage_gain=0.3)["mean_qrs_amplitude"] < 0.35 * normal["mean_qrs_amplitude"]
    assert features(hypertrophy=1.0)["s_amplitude_v1"] > 1.8 * normal["s_amplitude_v1"]


def test_paced_spikes_and_flutter_waves_are_in_the_signal() -> None:
    bare = SyntheticECG(noise_mv=0.0, baseline_wander_mv=0.0, rr_irregularity=0.0, p_wave=False)
    rng = np.random.default_rng
    spiked = synthesize_ecg(SyntheticECG(**{**fields(bare), "paced_spike_mv": 1.0}), 1000, 10, rng(0))
    plain = synthesize_ecg(bare, 1000, 10, rng(0))
    spikes = np.flatnonzero(np.abs(spiked - plain)[1] > 0.5)
    assert 10 <= np.count_nonzero(np.diff(spikes) > 500) + 1 <= 14
    silent = SyntheticECG(heart_rate_bpm=75.0, voltage_gain=0.0, flutter_mv=0.3, noise_mv=0.0, baseline_wander_mv=0.0)
    spectrum = np.abs(np.fft.rfft(synthesize_ecg(silent, 100, 10, rng(0))[1]))
    assert int(np.argmax(spectrum[1:])) + 1 == 50  # four waves a beat at 1.25 beats a second are 5 Hz


def fields(params: SyntheticECG) -> dict[str, object]:
    return {name: getattr(params, name) for name in params.__dataclass_fields__}


def test_an_unknown_preset_names_the_known() -> None:
    with pytest.raises(UnknownNameError, match="sinus_tachycardia"):
        preset("asystole", np.random.default_rng(0))
