"""Damaged headers and signal files: a record or a typed error, never anything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.errors import RecordError
from qoq_data.formats.wfdb import decode, parse_header, signal_file_sizes, write_record_16

MANY = settings(derandomize=True, deadline=None, max_examples=200)
FEWER = settings(derandomize=True, deadline=None, max_examples=80)
SAMPLES = np.random.default_rng(7).integers(-2000, 2000, (3, 16)).astype(np.int16)
MAX_VALUES = 1 << 20  # a damaged claim may stay within the budget: keep what is then allocated small


def _packed_212(samples: np.ndarray) -> bytes:
    pairs = (samples.T.ravel().astype(np.int32) & 0xFFF).reshape(-1, 2)
    middle = (pairs[:, 0] >> 8) | (pairs[:, 1] >> 8 << 4)
    return np.stack([pairs[:, 0] & 0xFF, middle, pairs[:, 1] & 0xFF], axis=1).astype(np.uint8).tobytes()


def _records() -> dict[str, tuple[bytes, str, bytes]]:
    """For each form: header, name and bytes of the signal file."""
    text, content = write_record_16("r", SAMPLES, ["I", "aVR", "V1"], 500, date_text="05-May-2020 09:49:17")
    head = np.array([30, 3, 16, 0, 4], "<i4").tobytes() + b"val\0"
    return {
        "16": (text, "r.dat", content),
        "212": (text.replace(b".dat 16 ", b".dat 212 "), "r.dat", _packed_212(SAMPLES)),
        "16+24": (text.replace(b".dat 16 ", b".mat 16+24 "), "r.mat", head + content),
    }


RECORDS = _records()


@st.composite
def damage(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """Some edits: what is done, where (as a share of the length), and with which bytes."""
    kinds = st.sampled_from(["replace", "insert", "delete", "cut"])
    telling = st.sampled_from(
        [b"0", b"9", b"-", b"e", b"x", b":", b"+", b"/", b"(", b"~", b"\n", b"#", b" ", b"\xff", b"999999999"]
    )
    edits = st.tuples(kinds, st.floats(0, 1), telling | st.binary(min_size=1, max_size=4))
    return draw(st.lists(edits, min_size=1, max_size=4))


def damaged(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, new in edits:
        at = int(share * len(data))
        if kind == "replace":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + len(new) :]
        else:
            data = data[:at]
    return data


def read(text: bytes, files: dict[str, bytes]) -> str:
    """Read as a source does; the outcome in a word."""
    try:
        header = parse_header(text, "r.hea", comments=True)
        for name, least in signal_file_sizes(header).items():
            assert least > 0
            files.setdefault(name, next(iter(files.values())))  # a damaged name finds a file, so that decoding goes on
        record = decode(header, files, max_values=MAX_VALUES, verify_checksums=False)
    except RecordError as error:
        return error.reason
    n_leads, n_samples = record.samples.shape
    assert n_leads == len(record.lead_names) == len(record.unit) == record.gain.size == record.baseline.size
    assert n_leads * n_samples <= MAX_VALUES
    physical = record.physical(np.float32)
    assert np.array_equal(np.isnan(physical), record.samples == record.missing_code)
    return "read"


@pytest.mark.parametrize("form", list(RECORDS))
def test_undamaged_records_are_read(form: str) -> None:
    text, name, content = RECORDS[form]
    assert np.array_equal(decode(parse_header(text), {name: content}).samples, SAMPLES)


@pytest.mark.parametrize("form", list(RECORDS))
@MANY
@given(edits=damage())
def test_damaged_headers(form: str, edits: list[tuple[str, float, bytes]]) -> None:
    text, name, content = RECORDS[form]
    read(damaged(text, edits), {name: content})


@pytest.mark.parametrize("form", list(RECORDS))
@MANY
@given(edits=damage())
def test_damaged_signal_files(form: str, edits: list[tuple[str, float, bytes]]) -> None:
    text, name, content = RECORDS[form]
    read(text, {name: damaged(content, edits)})


@FEWER
@given(
    storage_format=st.sampled_from([8, 24, 32, 61, 80, 160, 212, 310, 311, 508, 516, 524]),
    content=st.binary(max_size=200),
)
def test_any_bytes_under_any_format(storage_format: int, content: bytes) -> None:
    for claimed in (b" 16", b""):
        text = (
            RECORDS["16"][0]
            .replace(b" 16 05-May", claimed + b" 05-May")
            .replace(b".dat 16 ", b".dat %d " % storage_format)
        )
        read(text, {"r.dat": content})
        read(text, {"r.dat": b"fLaC" + content})


@FEWER
@given(data=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_as_a_header(data: bytes) -> None:
    read(data, {"r.dat": b"\0" * 96})


def test_a_hundred_bytes_that_claim_gigabytes_are_refused() -> None:
    text = b"r 2 500 3000000000\nr.dat 16 200/mV 16 0 0 0 0 I\nr.dat 16 200/mV 16 0 0 0 0 II\n"
    assert read(text, {"r.dat": bytes(100)}) == "over_budget"


def test_deep_and_long_lines_cost_little() -> None:
    assert read(b"r 1 500 4\nr.dat 16 " + b"1" * 900_000 + b"x", {"r.dat": bytes(8)}) == "header_invalid"
    assert read(b"r 1 500 4\nr.dat 16" + b" " * 900_000 + b"x", {"r.dat": bytes(8)}) == "header_invalid"
    assert read(b"r 1 500 4\n" + b"\n" * 900_000, {"r.dat": bytes(8)}) == "header_mismatch"
    assert read(b"r 99999 500 4\n" + b"r.dat 16\n" * 99_999, {"r.dat": bytes(8)}) == "file_truncated"
    assert read(b"r 99999999999 500 4\nr.dat 16\n", {"r.dat": bytes(8)}) == "header_mismatch"
