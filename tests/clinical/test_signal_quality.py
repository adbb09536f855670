"""Planted defects are found, clean records have none, and real records few."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import wfdb

from qoq_data.clinical.leads import STANDARD_12
from qoq_data.clinical.signal_quality import MISSING_INT16, Finding, FindingCode, signal_findings
from qoq_data.clinical.synthetic_ecg import PRESETS, SyntheticECG, preset, synthesize_ecg

if TYPE_CHECKING:
    from pathlib import Path

HZ = 500.0
SCALE = np.full(12, 0.001, np.float32)
OFFSET = np.zeros(12, np.float32)


def digital(millivolts: np.ndarray) -> np.ndarray:
    return np.round(millivolts * 1000).astype(np.int16)


def findings(samples: np.ndarray, names: tuple[str, ...] = STANDARD_12) -> tuple[Finding, ...]:
    before = samples.copy()
    found = signal_findings(samples, SCALE, OFFSET, names, HZ)
    np.testing.assert_array_equal(samples, before)
    return found


def pairs(found: tuple[Finding, ...]) -> set[tuple[str, str]]:
    return {(finding.code.value, finding.lead) for finding in found}


@pytest.fixture
def clean() -> np.ndarray:
    return digital(synthesize_ecg(SyntheticECG(), HZ, 10, np.random.default_rng(5)))


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("hz", [500.0, 100.0])
def test_clean_synthetic_records_have_no_findings(name: str, hz: float) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        samples = digital(synthesize_ecg(preset(name, rng), hz, 10, rng))
        assert signal_findings(samples, SCALE, OFFSET, STANDARD_12, hz) == ()


def test_zero_and_flat_leads(clean: np.ndarray) -> None:
    clean[7] = 0
    clean[8] = 250
    clean[9, 1000:3000] = 40
    found = findings(clean)
    assert pairs(found) == {("flat_lead", "V3"), ("flat_lead", "V4"), ("all_zero_lead", "V2")}
    assert [finding.value for finding in found] == [1.0, pytest.approx(0.4, abs=0.001), 1.0]


def test_constant_zero_millivolts_at_an_offset_is_an_all_zero_lead(clean: np.ndarray) -> None:
    clean[6] = 512
    offset = OFFSET.copy()
    offset[6] = -0.512
    assert pairs(signal_findings(clean, SCALE, offset, STANDARD_12, HZ)) == {("all_zero_lead", "V1")}


def test_clipped_peaks(clean: np.ndarray) -> None:
    clean[10] = np.minimum(clean[10], 600)
    clean[7] = np.maximum(clean[7], -560)
    found = findings(clean)
    assert pairs(found) == {("clipped", "V5"), ("clipped", "V2")}
    assert all(0.005 < finding.value < 0.05 for finding in found)


def test_missing_samples_are_told_by_share_and_count_for_nothing_else(clean: np.ndarray) -> None:
    clean[1, 500:1500] = MISSING_INT16
    clean[8] = MISSING_INT16
    assert findings(clean) == (
        Finding(FindingCode.MISSING_SAMPLES, "II", 0.2),
        Finding(FindingCode.MISSING_SAMPLES, "V3", 1.0),
    )


def test_a_step_of_the_baseline_is_a_jump_and_a_wander_is_not(clean: np.ndarray) -> None:
    stepped = clean.copy()
    stepped[9, 2600:] += 900
    found = findings(stepped)
    assert pairs(found) == {("baseline_jump", "V4")}
    assert found[0].value == pytest.approx(0.9, abs=0.15)
    wander = 500 * np.sin(2 * np.pi * 0.2 * np.arange(5000) / HZ)
    clean[9] += wander.astype(np.int16)
    assert findings(clean) == ()


def test_e07_limb_leads_that_disagree(clean: np.ndarray) -> None:
    swapped = clean[[0, 1, 2, 3, 5, 4, *range(6, 12)]]
    assert pairs(findings(swapped)) == {("limb_leads_disagree", "aVL"), ("limb_leads_disagree", "aVF")}
    renamed = (*STANDARD_12[:4], "aVF", "aVL", *STANDARD_12[6:])
    assert findings(swapped, renamed) == ()
    copied = clean.copy()
    copied[3] = clean[5]
    found = findings(copied)
    assert pairs(found) == {("limb_leads_disagree", "aVR")}
    assert found[0].value > 0.1


def test_swapped_arms_may_be_told_and_a_right_axis_is_not_taken_for_them() -> None:
    # At the usual axis of 50 degrees aVL is nearly level; one of 10 degrees makes the swapped aVR stand up.
    left = digital(synthesize_ecg(SyntheticECG(axis_degrees=10.0), HZ, 10, np.random.default_rng(2)))
    crossed = left[[0, 2, 1, 4, 3, *range(5, 12)]]
    crossed[0] = -left[0]
    found = findings(crossed)
    assert pairs(found) == {("arm_leads_swapped_possible", "I")}
    assert found[0].value < -0.5
    right = digital(synthesize_ecg(SyntheticECG(axis_degrees=150.0), HZ, 10, np.random.default_rng(2)))
    assert findings(right) == ()


def test_amplitude_beyond_10_mv(clean: np.ndarray) -> None:
    clean[11, 2000:2003] = [8000, 12500, 8000]
    found = findings(clean)
    assert found == (Finding(FindingCode.AMPLITUDE_IMPLAUSIBLE, "V6", pytest.approx(12.5)),)


@pytest.mark.parametrize("shape", [(12, 0), (0, 100), (12, 1), (1, 40), (3, 700)])
def test_any_shape_is_answered(shape: tuple[int, int]) -> None:
    samples = np.random.default_rng(0).integers(-300, 300, shape).astype(np.int16)
    names = ("V1", "V2", "x", *STANDARD_12)[: shape[0]]
    found = signal_findings(samples, SCALE[: shape[0]], OFFSET[: shape[0]], names, HZ)
    assert all(finding.lead in names for finding in found)


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...], float]:
    record = wfdb.rdrecord(str(path), physical=False)
    gain = np.array(record.adc_gain, np.float32)
    baseline = np.array(record.baseline, np.float32)
    samples = np.ascontiguousarray(record.d_signal.T, np.int16)
    return samples, 1 / gain, -baseline / gain, tuple(record.sig_name), float(record.fs)


def test_real_records_have_few_findings(realdata: Path) -> None:
    found = {}
    for header in sorted((realdata / "ptb-xl" / "records500" / "00000").glob("*.hea")):
        found[header.stem] = [finding.code for finding in signal_findings(*read(header.with_suffix("")))]
    codes = [code for codes in found.values() for code in codes]
    # Measured: 7 findings in 6 of 70 records; V4 of 00004 stands at its highest value for 0.1 s, the rest are steps.
    assert len(found) == 70
    assert len(codes) <= 10
    assert FindingCode.CLIPPED in found["00004_hr"]
    assert FindingCode.BASELINE_JUMP in found["00336_hr"]
    assert set(codes) == {FindingCode.CLIPPED, FindingCode.BASELINE_JUMP}


def test_real_record_with_constant_chest_leads_is_found(realdata: Path) -> None:
    found = signal_findings(*read(realdata / "cinc2021" / "WFDB_Ningbo" / "JS11438"))
    assert pairs(found) == {("all_zero_lead", f"V{number}") for number in range(1, 7)}
