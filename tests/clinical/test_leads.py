"""Leads by name, and limb leads computed from I and II."""

from __future__ import annotations

import numpy as np
import pytest

from qoq_data.clinical.leads import (
    STANDARD_12,
    canonical_lead,
    complete_limb_leads,
    derive_limb_leads,
    limb_lead_residual_mv,
    select_leads,
)
from qoq_data.errors import Reason, RecordError

MIMIC_ORDER = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture
def signal() -> np.ndarray:
    rng = np.random.default_rng(3)
    millivolts = rng.normal(0, 1, (12, 50)).astype(np.float32)
    millivolts[2:6] = derive_limb_leads(millivolts[0], millivolts[1])
    return millivolts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AVR", "aVR"),
        ("avr", "aVR"),
        ("aVR", "aVR"),
        (" av f ", "aVF"),
        ("v1", "V1"),
        ("iii", "III"),
        ("MDC_ECG_LEAD_I", None),
        ("V7", None),
        ("MLII", None),
        ("", None),
    ],
)
def test_e07_names_match_in_any_case_and_nothing_else_does(name: str, expected: str | None) -> None:
    assert canonical_lead(name) == expected


def test_e07_leads_are_taken_by_name_not_by_position(signal: np.ndarray) -> None:
    shuffled = signal[list(select_leads(STANDARD_12, MIMIC_ORDER))]
    back = shuffled[list(select_leads(MIMIC_ORDER, STANDARD_12))]
    assert select_leads(MIMIC_ORDER)[4:6] == (5, 4)
    np.testing.assert_array_equal(back, signal)


def test_absent_and_doubled_leads_are_record_errors() -> None:
    with pytest.raises(RecordError) as missing:
        select_leads(("I", "II"), ("I", "V1"))
    assert missing.value.reason is Reason.LEAD_MISSING
    with pytest.raises(RecordError) as doubled:
        select_leads(("I", "II", "ii"), ("II",))
    assert doubled.value.reason is Reason.LEAD_DUPLICATED
    assert select_leads(("I", "II", "ii"), ("I",)) == (0,)


def test_limb_leads_by_hand() -> None:
    derived = derive_limb_leads(np.array([1.0, np.nan], np.float32), np.array([0.4, 1.0], np.float32))
    np.testing.assert_allclose(derived[:, 0], [-0.6, -0.7, 0.8, -0.1], atol=1e-6)
    assert np.isnan(derived[:, 1]).all()


@pytest.mark.parametrize("absent", ["III", "aVR", "aVL", "aVF"])
def test_e07_a_missing_limb_lead_is_computed_and_said_so(signal: np.ndarray, absent: str) -> None:
    kept = [name.upper() for name in STANDARD_12 if name != absent]
    rows = [index for index, name in enumerate(STANDARD_12) if name != absent]
    complete, derived = complete_limb_leads(signal[rows], kept)
    assert derived == (absent,)
    np.testing.assert_array_equal(complete, signal)
    others = [index for index, name in enumerate(STANDARD_12) if name != absent]
    assert all((complete[STANDARD_12.index(absent)] != complete[other]).any() for other in others)


@pytest.mark.parametrize("absent", ["I", "II", "V3"])
def test_e07_what_cannot_be_computed_is_missing(signal: np.ndarray, absent: str) -> None:
    rows = [index for index, name in enumerate(STANDARD_12) if name != absent]
    with pytest.raises(RecordError) as error:
        complete_limb_leads(signal[rows], [STANDARD_12[row] for row in rows])
    assert error.value.reason is Reason.LEAD_MISSING


def test_nothing_is_derived_where_all_are_recorded(signal: np.ndarray) -> None:
    signal[3] += 0.3
    complete, derived = complete_limb_leads(signal, STANDARD_12)
    assert derived == ()
    np.testing.assert_array_equal(complete, signal)


def test_residual_tells_a_lead_that_is_another_leads_copy(signal: np.ndarray) -> None:
    signal[4, 3] = np.nan
    signal[3] = signal[5]
    residual = limb_lead_residual_mv(signal, STANDARD_12)
    assert set(residual) == {"III", "aVR", "aVL", "aVF"}
    assert residual["aVR"] > 0.5
    assert max(residual["III"], residual["aVL"], residual["aVF"]) < 1e-6


def test_residual_of_nothing_known_is_nan() -> None:
    signal = np.full((3, 4), np.nan, np.float32)
    assert np.isnan(limb_lead_residual_mv(signal, ("I", "II", "III"))["III"])
