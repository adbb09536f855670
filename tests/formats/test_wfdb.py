"""Decoding, refusals and writing of WFDB records; the ``wfdb`` package is the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.wfdb import (
    MAX_VALUES,
    MISSING_INT16,
    MISSING_INT32,
    Header,
    check_budget,
    check_layout,
    decode,
    parse_header,
    signal_file_sizes,
    write_record_16,
)

MISSING_CODES = {16: -(2**15), 24: -(2**23), 32: -(2**31), 61: -(2**15), 80: -128, 160: -(2**15), 212: -2048}
MISSING_CODES |= {310: -512, 311: -512}
FEW = settings(derandomize=True, deadline=None, max_examples=12)


def header(*storage: str, n_samples: int | str = 4, names: tuple[str, ...] = ("I", "II", "V1", "V2")) -> Header:
    lines = [f"{field} 200(0)/mV 16 0 0" if " " in field else f"r.dat {field} 200(0)/mV 16 0 0" for field in storage]
    named = [f"{line} 0 0 {name}" for line, name in zip(lines, names, strict=False)]
    return parse_header("\n".join([f"r {len(storage)} 500 {n_samples}", *named]).encode(), "files/r.hea")


def decode_unsummed(claims: Header, content: bytes) -> np.ndarray:
    return decode(claims, {"r.dat": content}, verify_checksums=False).samples


def reason(claims: Header, files: dict[str, bytes], max_values: int = MAX_VALUES) -> Reason:
    with pytest.raises(RecordError) as caught:
        decode(claims, files, max_values=max_values)
    assert caught.value.path == "files/r.hea"
    return caught.value.reason


@pytest.mark.parametrize("storage_format", [8, *MISSING_CODES])
@FEW
@given(data=st.data(), n_signals=st.integers(1, 4), n_samples=st.integers(1, 9))
def test_any_bytes_decode_as_in_wfdb(
    tmp_path_factory: pytest.TempPathFactory, storage_format: int, data: st.DataObject, n_signals: int, n_samples: int
) -> None:
    claims = header(*[str(storage_format)] * n_signals, n_samples=n_samples)
    size = signal_file_sizes(claims)["r.dat"]
    content = data.draw(st.binary(min_size=size, max_size=size))
    folder = tmp_path_factory.getbasetemp()
    lines = [f"r.dat {storage_format} 200(0)/mV 16 0 0" for _ in range(n_signals)]
    Path(folder, "r.hea").write_text("\n".join([f"r {n_signals} 500 {n_samples}", *lines]) + "\n")
    Path(folder, "r.dat").write_bytes(content)
    expected = wfdb.rdrecord(str(folder / "r"), physical=False, return_res=64).d_signal.T

    record = decode(claims, {"r.dat": content}, verify_checksums=False)
    wide = storage_format in {8, 24, 32}
    marker = MISSING_INT32 if wide else MISSING_INT16
    code = MISSING_CODES.get(storage_format, marker)
    assert record.samples.dtype == (np.int32 if wide else np.int16)
    assert record.samples.flags.c_contiguous
    assert np.array_equal(record.samples, np.where(expected == code, marker, expected))


@pytest.mark.parametrize(("storage_format", "bits"), [(16, 16), (24, 24), (32, 32), (80, 8), (212, 12)])
@FEW
@given(data=st.data(), n_signals=st.integers(1, 4), n_samples=st.integers(1, 9))
def test_what_wfdb_writes_reads_back(
    tmp_path_factory: pytest.TempPathFactory,
    storage_format: int,
    bits: int,
    data: st.DataObject,
    n_signals: int,
    n_samples: int,
) -> None:
    values = st.integers(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)
    rows = data.draw(
        st.lists(st.lists(values, min_size=n_samples, max_size=n_samples), min_size=n_signals, max_size=n_signals)
    )
    folder = tmp_path_factory.getbasetemp()
    names = ["I", "II", "V1", "V2"][:n_signals]
    wfdb.wrsamp(
        "w", 500, ["mV"] * n_signals, names, d_signal=np.array(rows).T, fmt=[str(storage_format)] * n_signals,
        adc_gain=[200.0] * n_signals, baseline=[3] * n_signals, write_dir=str(folder),
    )  # fmt: skip
    record = decode(
        parse_header(folder.joinpath("w.hea").read_bytes()), {"w.dat": folder.joinpath("w.dat").read_bytes()}
    )
    assert np.array_equal(record.samples, rows)
    assert np.allclose(record.physical(), (np.array(rows) - 3) / 200, rtol=0, atol=1e-12)


@pytest.mark.parametrize("storage_format", list(MISSING_CODES))
def test_e03_each_formats_own_missing_code_is_a_gap(storage_format: int) -> None:
    content = {
        16: b"\x00\x80\x01\x00",
        24: b"\x00\x00\x80\x01\x00\x00",
        32: b"\x00\x00\x00\x80\x01\x00\x00\x00",
        61: b"\x80\x00\x00\x01",
        80: b"\x00\x81",
        160: b"\x00\x00\x01\x80",
        212: b"\x00\x08\x01",
        310: b"\x00\x04\x02\x00",
        311: b"\x00\x06\x00\x00",
    }[storage_format]
    record = decode(header(str(storage_format), n_samples=2), {"r.dat": content}, verify_checksums=False)
    assert record.samples.tolist() == [[record.missing_code, 1]]
    assert np.isnan(record.physical()[0, 0])
    assert record.physical()[0, 1] == 1 / 200
    assert record.physical(np.float32).dtype == np.float32
    assert np.isnan(record.physical(np.float32)).tolist() == [[True, False]]


def test_e03_three_missing_samples_in_one_lead_stay_in_their_place() -> None:
    samples = np.arange(3 * 10, dtype=np.int16).reshape(3, 10)
    samples[2, 4:7] = MISSING_INT16
    text, content = write_record_16("r", samples, ["I", "II", "V3"], 500)
    physical = decode(parse_header(text), {"r.dat": content}).physical()
    assert np.argwhere(np.isnan(physical)).tolist() == [[2, 4], [2, 5], [2, 6]]


@pytest.mark.parametrize(
    ("storage_format", "content"),
    [(24, b"\x00\x80\xff"), (32, b"\x00\x80\xff\xff"), (16, b"\x00\xf8"), (61, b"\xff\x80")],
)
def test_e03_a_narrower_formats_missing_code_is_data_in_a_wider_one(storage_format: int, content: bytes) -> None:
    record = decode(header(str(storage_format), n_samples=1), {"r.dat": content}, verify_checksums=False)
    value = {24: -32768, 32: -32768, 16: -2048, 61: -128}[storage_format]
    assert record.samples.tolist() == [[value]]
    assert record.physical().tolist() == [[value / 200]]


def test_e03_missing_has_one_code_when_formats_are_mixed() -> None:
    claims = header("a.dat 16", "b.dat 212", "c.dat 32", n_samples=1)
    files = {"a.dat": b"\x00\x80", "b.dat": b"\x00\x08", "c.dat": b"\x00\x80\xff\xff"}
    record = decode(claims, files, verify_checksums=False)
    assert record.samples.tolist() == [[MISSING_INT32], [MISSING_INT32], [-32768]]


def test_physical_subtracts_the_baseline_and_divides_by_the_gain() -> None:
    text, content = write_record_16(
        "r", np.array([[100], [300]], np.int16), ["I", "ABP"], 500, gain=[200, 12.84], baseline=[0, -1605]
    )
    record = decode(parse_header(text), {"r.dat": content})
    assert record.physical().tolist() == [[0.5], [1905 / 12.84]]


def test_the_unit_mv_is_read_as_millivolt_and_others_stand() -> None:
    text = b"r 3 500 1\nr.dat 16 1000/mv\nr.dat 16 1000/uV\nr.dat 16 0"
    record = decode(parse_header(text), {"r.dat": bytes(6)})
    assert record.unit == ("mV", "uV", "mV")
    assert record.gain_declared == (True, True, False)


def test_length_is_taken_from_the_file_where_the_header_has_none() -> None:
    assert decode_unsummed(header("16", "16", n_samples=""), bytes(4 * 7)).shape == (2, 7)
    assert decode_unsummed(header("212", "212", "212", n_samples=0), bytes(14)).shape == (3, 3)
    assert decode_unsummed(header("310", n_samples=""), bytes(4 * 5 + 2)).shape == (1, 16)
    assert decode_unsummed(header("310", n_samples=""), bytes(4 * 5 + 3)).shape == (1, 16)
    assert decode_unsummed(header("311", n_samples=""), bytes(4 * 5 + 3)).shape == (1, 17)
    assert reason(header("16", "16", n_samples=""), {"r.dat": bytes(3)}) is Reason.FILE_TRUNCATED
    assert reason(header("516", n_samples=""), {"r.dat": bytes(64)}) is Reason.HEADER_INVALID


def test_claimed_sizes_are_known_before_any_file_is_read() -> None:
    assert signal_file_sizes(header("16+24", "16+24", n_samples=5)) == {"r.dat": 24 + 20}
    assert signal_file_sizes(header("212", "212", "212", n_samples=3)) == {"r.dat": 14}
    assert signal_file_sizes(header("310", n_samples=5)) == {"r.dat": 8}
    assert signal_file_sizes(header("311", n_samples=5)) == {"r.dat": 7}
    assert signal_file_sizes(header("a.dat 16", "b.xyz 80")) == {"a.dat": 8, "b.xyz": 4}
    assert signal_file_sizes(header("16", "16", n_samples="")) == {"r.dat": 4}


def test_a_claim_over_the_budget_is_refused_before_anything_is_allocated() -> None:
    claims = header("16", "16", n_samples=3_000_000_000)
    with pytest.raises(RecordError) as caught:
        check_budget(claims)
    assert caught.value.reason is Reason.OVER_BUDGET
    assert reason(claims, {"r.dat": bytes(100)}) is Reason.OVER_BUDGET
    assert reason(claims, {"r.dat": bytes(100)}, max_values=10**12) is Reason.FILE_TRUNCATED
    assert reason(header("16", n_samples=""), {"r.dat": bytes(100)}, max_values=49) is Reason.OVER_BUDGET
    check_budget(header("16", "16", n_samples=50), 100)


def test_a_compressed_claim_is_within_the_budget_too() -> None:
    assert reason(header("516", n_samples=10**9), {"r.dat": b"fLaC" + bytes(96)}) is Reason.OVER_BUDGET


def test_a_file_must_have_the_claimed_size() -> None:
    claims = header("16", "16", n_samples=4)
    assert reason(claims, {"r.dat": bytes(15)}) is Reason.FILE_TRUNCATED
    assert reason(claims, {"r.dat": bytes(20)}) is Reason.HEADER_MISMATCH
    assert decode_unsummed(claims, bytes(19)).shape == (2, 4)
    assert decode_unsummed(header("212", n_samples=3), bytes(6)).shape == (1, 3)
    assert reason(header("212", n_samples=3), {"r.dat": bytes(8)}) is Reason.HEADER_MISMATCH
    assert reason(claims, {"other.dat": bytes(16)}) is Reason.FILE_MISSING


def test_a_matrix_file_must_agree_with_its_own_head() -> None:
    head = np.array([30, 2, 4, 0, 4], "<i4").tobytes() + b"val\0"
    claims = parse_header(b"r 2 500 4\nr.mat 16+24 1000/mV\nr.mat 16+24 1000/mV", "files/r.hea")
    content = np.arange(8, dtype="<i2").tobytes()
    assert decode(claims, {"r.mat": head + content}).samples.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert decode(claims, {"r.mat": memoryview(head + content + bytes(100))}).samples.shape == (2, 4)
    for other in ([30, 4, 2, 0, 4], [30, 2, 5, 0, 4], [0, 2, 4, 0, 4], [30, 2, 4, 1, 4], [30, 2, 4, 0, 3]):
        wrong = np.array(other, "<i4").tobytes() + b"val\0" + content
        assert reason(claims, {"r.mat": wrong}) is Reason.HEADER_MISMATCH
    assert reason(claims, {"r.mat": head + content[:-1]}) is Reason.FILE_TRUNCATED
    plain = parse_header(b"r 1 500 4\nr.mat 16 1000/mV", "files/r.hea")
    assert reason(plain, {"r.mat": bytes(8)}) is Reason.FORMAT_UNSUPPORTED


@pytest.mark.parametrize(
    ("storage", "names", "expected"),
    [
        (("16", "16:3"), ("I", "II"), Reason.UNEQUAL_SAMPLING),
        (("16", "16x2"), ("I", "II"), Reason.UNEQUAL_SAMPLING),
        (("16", "16"), ("aVR", "AVR"), Reason.LEAD_DUPLICATED),
        (("16", "17"), ("I", "II"), Reason.FORMAT_UNSUPPORTED),
        (("0", "0"), ("I", "II"), Reason.FORMAT_UNSUPPORTED),
        (("16", "212"), ("I", "II"), Reason.HEADER_MISMATCH),
        (("16+24", "16"), ("I", "II"), Reason.HEADER_MISMATCH),
        (("a.dat 16", "b.dat 16", "a.dat 16"), ("I", "II", "V1"), Reason.HEADER_MISMATCH),
    ],
)
def test_layouts_that_are_refused(storage: tuple[str, ...], names: tuple[str, ...], expected: Reason) -> None:
    claims = header(*storage, names=names)
    for call in (check_layout, signal_file_sizes):
        with pytest.raises(RecordError) as caught:
            call(claims)
        assert caught.value.reason is expected
    assert reason(claims, {"r.dat": bytes(64), "a.dat": bytes(64), "b.dat": bytes(64)}) is expected


def test_checksums_are_compared_where_length_and_sum_are_printed() -> None:
    samples = np.array([[30000, 30000, 30000, MISSING_INT16], [-1, -2, -3, -4]], np.int16)
    text, content = write_record_16("r", samples, ["I", "II"], 500)
    changed = content[:-1] + bytes([content[-1] ^ 1])
    claims = parse_header(text, "files/r.hea")
    assert np.array_equal(decode(claims, {"r.dat": content}).samples, samples)
    assert reason(claims, {"r.dat": changed}) is Reason.CHECKSUM_MISMATCH
    assert decode(claims, {"r.dat": changed}, verify_checksums=False).samples.shape == (2, 4)
    no_length = parse_header(text.replace(b" 500 4", b" 500"))
    assert decode(no_length, {"r.dat": changed}).samples.shape == (2, 4)


def test_signed_and_unsigned_checksums_of_narrow_formats_hold_over_the_stored_values() -> None:
    for checksum in (-2047, 65536 - 2047):  # one missing sample (-2048) and 1
        claims = parse_header(f"r 1 500 2\nr.dat 212 200 12 0 0 {checksum} 0 I".encode())
        assert decode(claims, {"r.dat": b"\x00\x08\x01"}).samples.tolist() == [[MISSING_INT16, 1]]


def test_bytes_that_are_not_the_claimed_compression_are_refused() -> None:
    claims = header("516", n_samples=4)
    assert reason(claims, {"r.dat": b"fLaC" + bytes(96)}) is Reason.FILE_UNREADABLE
    assert reason(claims, {"r.dat": bytes(100)}) is Reason.FILE_UNREADABLE


@FEW
@given(
    data=st.data(),
    n_leads=st.integers(1, 4),
    n_samples=st.integers(1, 20),
    frequency=st.sampled_from([100, 500.0, 62.4725]),
    gain=st.sampled_from([1000.0, 200.0, 4.88]),
    baseline=st.integers(-2000, 2000),
)
def test_written_records_read_back_in_wfdb_and_here(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, n_leads: int, n_samples: int,
    frequency: float, gain: float, baseline: int,
) -> None:  # fmt: skip
    values = data.draw(st.lists(st.integers(-32768, 32767), min_size=n_leads * n_samples, max_size=n_leads * n_samples))
    samples = np.array(values, np.int16).reshape(n_leads, n_samples)
    names = ["I", "AVR", "aVL", "V1"][:n_leads]
    text, content = write_record_16(
        "w",
        samples,
        names,
        frequency,
        gain=gain,
        baseline=baseline,
        date_text="12:04:00 22/09/2182",
        comments=["Age: 1"],
    )
    folder = tmp_path_factory.getbasetemp()
    folder.joinpath("w.hea").write_bytes(text)
    folder.joinpath("w.dat").write_bytes(content)
    theirs = wfdb.rdrecord(str(folder / "w"), physical=False)
    ours = decode(parse_header(text), {"w.dat": content})
    assert np.array_equal(theirs.d_signal.T, samples)
    assert theirs.checksum == theirs.calc_checksum()
    assert theirs.init_value == samples[:, 0].tolist()
    assert (theirs.sig_name, theirs.fs, theirs.comments) == (names, frequency, ["Age: 1"])
    assert np.array_equal(ours.samples, samples)
    assert np.array_equal(ours.physical(), theirs.dac().T, equal_nan=True)


def test_written_headers_look_like_the_publishers() -> None:
    samples = np.array([[-115, 13162], [-50, 11611]], np.int16)
    text, content = write_record_16("00001_hr", samples, ["I", "II"], 500.0)
    assert text == (
        b"00001_hr 2 500 2\n"
        b"00001_hr.dat 16 1000.0(0)/mV 16 0 -115 13047 0 I\n"
        b"00001_hr.dat 16 1000.0(0)/mV 16 0 -50 11561 0 II\n"
    )
    assert content == np.array([-115, -50, 13162, 11611], "<i2").tobytes()
    text, _ = write_record_16(
        "40689238", samples[:1], ["I"], 500, gain=200, date_text="12:04:00 22/09/2182", comments=[" <subject_id>: 1"]
    )
    assert text.splitlines()[0] == b"40689238 1 500 2 12:04:00 22/09/2182"
    assert text.splitlines()[-1] == b"# <subject_id>: 1"


def test_arguments_that_make_no_record_are_refused() -> None:
    samples = np.zeros((2, 3), np.int16)
    with pytest.raises(ValueError, match="int16"):
        write_record_16("r", samples.astype(np.int32), ["I", "II"], 500)
    with pytest.raises(ValueError, match="one name"):
        write_record_16("r", samples, ["I"], 500)
    with pytest.raises(ValueError, match="one line"):
        write_record_16("r", samples, ["I", "II\nr.dat 16"], 500)
    with pytest.raises(RecordError):
        write_record_16("a/r", samples, ["I", "II"], 500)
