"""The row's schema against ``datasets`` itself, and millivolts by hand in every form a row comes in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from qoq_data.record import COLUMNS, FEATURES_JSON, MISSING, SCHEMA, Domain, millivolts

_ASK_DATASETS = """
import json, sys
import pyarrow as pa
from datasets import Features
from qoq_data.record import SCHEMA
read = Features.from_arrow_schema(SCHEMA)
guessed = Features.from_arrow_schema(SCHEMA.remove_metadata())
print(json.dumps({
    "features": read.to_dict(),
    "same types": read.arrow_schema.equals(SCHEMA, check_metadata=False),
    "same metadata": read.arrow_schema.metadata == SCHEMA.metadata,
    "differs from a guess": [name for name in read if read[name] != guessed[name]],
}))
"""

SIGNAL: dict[str, Any] = {
    "lead_names": ["I", "V1"],
    "sampling_frequency_hz": 500.0,
    "unit": "mV",
    "samples": [[0, 1000, MISSING, -32767], [200, MISSING, MISSING, 32767]],
    "scale": [0.001, 0.005],
    "offset": [0.0, -1.0],
    "derived_leads": [],
}
BY_HAND = np.array([[0.0, 1.0, np.nan, -32.767], [0.0, np.nan, np.nan, 162.835]], dtype=np.float32)


def offline_environment(folder: Path) -> dict[str, str]:
    return os.environ | {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}


@pytest.mark.slow
def test_the_metadata_is_what_datasets_itself_would_write(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ASK_DATASETS],
        env=offline_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    said = json.loads(done.stdout)
    assert said["features"] == json.loads(FEATURES_JSON)["info"]["features"]
    assert said["same types"]
    assert said["same metadata"]
    assert said["differs from a guess"] == ["images", "masks"]


def test_every_column_of_the_schema_has_a_feature_in_the_same_order() -> None:
    features = json.loads(SCHEMA.metadata[b"huggingface"])["info"]["features"]
    assert tuple(features) == COLUMNS == tuple(SCHEMA.names)


def test_h03_no_column_has_a_type_that_is_null_anywhere() -> None:
    def walk(arrow_type: pa.DataType) -> list[pa.DataType]:
        return [arrow_type, *(kind for n in range(arrow_type.num_fields) for kind in walk(arrow_type.field(n).type))]

    assert not [kind for field in SCHEMA for kind in walk(field.type) if pa.types.is_null(kind)]


def test_domains_are_the_closed_list() -> None:
    text = "ecg chest_xray mammography dermatology fundus ct ultrasound mri pathology ehr multimodal"
    assert [str(domain) for domain in Domain] == text.split()


def as_arrays(signal: dict[str, Any]) -> dict[str, Any]:
    return signal | {
        "samples": np.array(signal["samples"], np.int16),
        "scale": np.array(signal["scale"]),
        "offset": np.array(signal["offset"]),
    }


def as_object_arrays(signal: dict[str, Any]) -> dict[str, Any]:
    """What the pandas form of ``datasets`` gives: an array of arrays."""
    leads = np.empty(2, dtype=object)
    leads[:] = [np.array(lead, np.int16) for lead in signal["samples"]]
    return signal | {"samples": leads}


def as_arrow(signal: dict[str, Any]) -> Any:
    return pa.array([signal], SCHEMA.field("signals").type.value_type)[0]


@pytest.mark.parametrize("form", [dict, as_arrays, as_object_arrays, as_arrow])
def test_millivolts_agree_with_those_worked_out_by_hand(form: Any) -> None:
    values = millivolts(form(SIGNAL))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, BY_HAND, rtol=0, atol=1e-5)


def test_a_sample_beside_the_gap_code_is_a_value() -> None:
    values = millivolts(SIGNAL | {"samples": [[-32767, 32767, 0, 0], [MISSING + 1, MISSING, 0, 0]]})
    assert np.isnan(values).tolist() == [[False] * 4, [False, True, False, False]]


def test_the_offset_never_turns_a_gap_into_a_value() -> None:
    assert np.isnan(millivolts(SIGNAL | {"offset": [32.768, 163.84]})[0, 2])


@pytest.mark.parametrize("unit", ["µV", "uV", "MV", "mv", "", "NU"])
def test_a_signal_in_another_unit_is_refused(unit: str) -> None:
    with pytest.raises(ValueError, match="not in mV"):
        millivolts(SIGNAL | {"unit": unit})


def test_millivolts_leave_their_input_alone() -> None:
    signal = as_arrays(SIGNAL)
    before = signal["samples"].copy()
    millivolts(signal)
    assert np.array_equal(signal["samples"], before)
