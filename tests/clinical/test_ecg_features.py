"""Synthetic findings can be told apart by the features, and the features do not mind lead order, rate or gaps."""

from __future__ import annotations

import numpy as np
import pytest

from qoq_data.clinical.ecg_features import FEATURES, detect_r_peaks, measure_features
from qoq_data.clinical.leads import STANDARD_12
from qoq_data.clinical.synthetic_ecg import SyntheticECG, preset, synthesize_ecg

TWELVE_FINDINGS = (
    "normal",
    "sinus_bradycardia",
    "sinus_tachycardia",
    "atrial_fibrillation",
    "first_degree_av_block",
    "left_bundle_branch_block",
    "right_bundle_branch_block",
    "left_ventricular_hypertrophy",
    "inferior_infarct",
    "anterior_infarct",
    "premature_ventricular",
    "left_axis",
)


@pytest.mark.parametrize("hz", [500.0, 100.0])
def test_nearest_centroid_tells_twelve_findings_apart(hz: float) -> None:
    values, labels = [], []
    for label, name in enumerate(TWELVE_FINDINGS):
        for number in range(20):
            rng = np.random.default_rng([label, number])
            values.append(list(measure_features(synthesize_ecg(preset(name, rng), hz, 10, rng), hz).values()))
            labels.append(label)
    measured, truth = np.array(values), np.array(labels)
    assert np.isfinite(measured).all()
    is_known = np.arange(truth.size) % 2 == 0
    scaled = (measured - measured[is_known].mean(axis=0)) / measured[is_known].std(axis=0)
    centroids = np.stack([scaled[is_known & (truth == label)].mean(axis=0) for label in range(len(TWELVE_FINDINGS))])
    nearest = np.argmin(((scaled[~is_known][:, None] - centroids) ** 2).sum(axis=2), axis=1)
    # Measured 1.0 at 500 Hz; chance is 1/12.
    assert (nearest == truth[~is_known]).mean() >= 0.8


def test_features_go_by_lead_name() -> None:
    signal = synthesize_ecg(SyntheticECG(), 500, 10, np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(12)
    names = [STANDARD_12[position].upper() for position in order]
    expected = measure_features(signal, 500)
    shuffled = measure_features(signal[order], 500, names)
    assert shuffled == pytest.approx(expected)
    assert {name: FEATURES[name](signal, 500, STANDARD_12) for name in FEATURES} == expected


def test_a_gap_moves_no_feature_much() -> None:
    signal = synthesize_ecg(SyntheticECG(rr_irregularity=0.0), 500, 10, np.random.default_rng(0))
    expected = measure_features(signal, 500)
    signal[6, 1000:1100] = np.nan
    held = measure_features(signal, 500)
    assert held["heart_rate"] == pytest.approx(expected["heart_rate"], abs=1)
    assert held["s_amplitude_v1"] == pytest.approx(expected["s_amplitude_v1"], abs=0.05)


def test_no_beats_are_nan_and_not_a_number_made_up() -> None:
    assert detect_r_peaks(np.zeros((12, 5000), np.float32), 500).size == 0
    assert np.isnan(list(measure_features(np.full((12, 5000), np.nan, np.float32), 500).values())).all()
