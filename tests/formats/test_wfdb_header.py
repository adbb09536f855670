"""WFDB headers in the forms that publishers print."""

from __future__ import annotations

import pytest

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.wfdb import parse_header, signal_file_sizes

SIGNAL_LINE = "r.dat 16 1000.0(0)/mV 16 0 -115 13047 0 I"


def header(record_line: str = "r 1 500 5000", *signal_lines: str) -> bytes:
    return "\n".join([record_line, *(signal_lines or (SIGNAL_LINE,))]).encode()


def reason(data: bytes) -> Reason:
    with pytest.raises(RecordError) as caught:
        parse_header(data, "files/r.hea")
    assert caught.value.path == "files/r.hea"
    return caught.value.reason


def test_every_field_is_read() -> None:
    parsed = parse_header(header("r 1 500 5000", "r.dat 212x2:3+24 -200.5(-1605)/mmHg 12 7 -943 -23651 0 col 0 "))
    (line,) = parsed.signals
    assert (parsed.record_name, parsed.sampling_frequency_hz, parsed.n_samples) == ("r", 500.0, 5000)
    assert (line.file_name, line.storage_format, line.samples_per_frame, line.skew) == ("r.dat", 212, 2, 3)
    assert (line.byte_offset, line.gain, line.gain_declared, line.baseline) == (24, -200.5, True, -1605.0)
    assert (line.unit, line.adc_zero, line.initial_value, line.checksum) == ("mmHg", 7, -943, -23651)
    assert line.lead_name == "col 0"


def test_absent_fields_have_the_defaults_of_the_standard() -> None:
    parsed = parse_header(b"100 1\n100.dat 212")
    (line,) = parsed.signals
    assert (parsed.sampling_frequency_hz, parsed.n_samples) == (250.0, None)
    assert (line.gain, line.gain_declared, line.baseline, line.unit) == (200.0, False, 0.0, "mV")
    assert (line.initial_value, line.checksum, line.lead_name) == (None, None, "record 100, signal 0")


def test_baseline_defaults_to_the_adc_zero() -> None:
    (line,) = parse_header(header("r 1", "r.dat 212 200 11 1024 995 -22131 0 MLII")).signals
    assert (line.baseline, line.gain_declared) == (1024.0, True)


def test_gain_of_zero_is_undeclared() -> None:
    (line,) = parse_header(header("r 1", "r.dat 16 0(5)/mV 16 0 0 0 0 I")).signals
    assert (line.gain, line.gain_declared, line.baseline) == (200.0, False, 5.0)


@pytest.mark.parametrize(
    "rest",
    [
        "05-May-2020 09:49:17",
        "2014-05-08 05:05:15",
        "2014-05-08T05:05:15",
        "05:05:15 2014-05-08",
        "12:04:00 22/09/2182",
        "22/09/2182 12:04:00.125",
        "2006",
        "    31:51.982",
        "nonsense",
    ],
)
def test_e01_a_date_in_any_form_costs_no_record(rest: str) -> None:
    parsed = parse_header(header(f"r 1 500 5000 {rest}"))
    assert (parsed.sampling_frequency_hz, parsed.n_samples) == (500.0, 5000)
    assert "2014" not in repr(parsed)


@pytest.mark.parametrize("rest", ["05-May-2020 09:49:17", "2014-05-08 05:05:15", "12:04:00", "22/09/2182", "0", ""])
def test_e01_the_number_of_samples_may_be_absent_before_a_date(rest: str) -> None:
    assert parse_header(header(f"r 1 500 {rest}")).n_samples is None


def test_e01_the_record_name_may_carry_its_extension() -> None:
    parsed = parse_header(header("E00271.mat 1 500 5000 05-May-2020 14:50:55", "E00271.mat 16+24 1000/mV"))
    assert parsed.record_name == "E00271"
    assert signal_file_sizes(parsed) == {"E00271.mat": 24 + 10_000}


@pytest.mark.parametrize("frequency", ["500", "500.0", "5e2", "500/1000", "500/999.56(-3.5)", "500(7)"])
def test_sampling_frequency_with_counter_frequency_and_base(frequency: str) -> None:
    assert parse_header(header(f"r 1 {frequency} 10")).sampling_frequency_hz == 500.0


@pytest.mark.parametrize(
    ("storage", "offset"), [("16", 0), ("16+24", 24), ("16x1+24", 24), ("16x1:0+24", 24), ("16:0", 0)]
)
def test_format_field_in_its_forms(storage: str, offset: int) -> None:
    (line,) = parse_header(header("r 1", f"r.dat {storage} 1.052e+04/mV")).signals
    assert (line.storage_format, line.samples_per_frame, line.skew, line.byte_offset) == (16, 1, 0, offset)
    assert line.gain == 10520.0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(encoding: str, newline: str) -> None:
    text = newline.join(["# Ärztin", "", "r 1 500 5000", "", "r.dat 16 200/µV 16 0 0 0 0 Brust é ", "#Sex: weiß"])
    parsed = parse_header(text.encode(encoding), comments=True)
    assert (parsed.signals[0].unit, parsed.signals[0].lead_name) == ("µV", "Brust é")
    assert parsed.comments == ("Ärztin", "Sex: weiß")


def test_comments_are_counted_and_not_kept_unless_asked_for() -> None:
    data = header() + b"\n# <subject_id>: 10000032\n#Dx: 59118001\n"
    parsed = parse_header(data)
    assert (parsed.n_comments, parsed.comments) == (2, ())
    assert "10000032" not in repr(parsed)
    assert parse_header(data, comments=True).comments == ("<subject_id>: 10000032", "Dx: 59118001")


def test_e07_lead_names_keep_their_spelling_and_place() -> None:
    names = ["I", "II", "III", "aVR", "aVF", "aVL", "AVr ", "avf2"]
    lines = [f"r.dat 16 200.0(0)/mV 16 0 0 0 0 {name}" for name in names]
    parsed = parse_header(header("r 8 500 5000", *lines))
    assert [line.lead_name for line in parsed.signals] == ["I", "II", "III", "aVR", "aVF", "aVL", "AVr", "avf2"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"# only a comment",
        b"\x00\x01\x02",
        b"r",
        b"r x 500 5000",
        b"r 0 500 5000",
        header("r 1 0 5000"),
        header("r 1 -5 5000"),
        header("r 1 nan 5000"),
        header("r 1 1e999 5000"),
        header("r 1 500 50x0"),
        header("r 1 500 -5000"),
        header("../r 1 500 5000"),
        header("r 1", "r.dat"),
        header("r 1", "r.dat sixteen"),
        header("r 1", "r.dat 16 200/mV x"),
        header("r 1", "r.dat 16 nan/mV"),
        header("r 1", "r.dat 16 1e-300/mV"),
        header("r 1", "r.dat 16 200(1e999)/mV"),
        header("r 1", "r.dat 16 200/mV 16 0 0 0 0 I\x00I"),
        header("r 1", SIGNAL_LINE + " " * 2 + "I" * 2000),
        header("r 1", "r.dat 16" + " " * 1100 + "200/mV"),
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    assert reason(data) is Reason.HEADER_INVALID


def test_more_or_fewer_signal_lines_than_announced_are_refused() -> None:
    assert reason(header("r 2 500 5000")) is Reason.HEADER_MISMATCH
    assert reason(header("r 1 500 5000", SIGNAL_LINE, SIGNAL_LINE)) is Reason.HEADER_MISMATCH
    assert reason(header("r 999999999999 500 5000")) is Reason.HEADER_MISMATCH


@pytest.mark.parametrize("data", [b"041s/2 7 125 2000\n041s01 1000", b"r/1 1 250", b"layout 1 125 0\n~ 0 86/mV"])
def test_multi_segment_headers_are_refused(data: bytes) -> None:
    assert reason(data) is Reason.MULTI_SEGMENT


@pytest.mark.parametrize(
    "name", ["../r.dat", "a/r.dat", "/etc/passwd", "a\\r.dat", "..", ".", "-", "~", "~root", "C:r.dat", "http://x/r"]
)
def test_a_signal_file_outside_the_folder_is_refused(name: str) -> None:
    assert reason(header("r 1 500 5000", f"{name} 16 200/mV")) is Reason.PATH_OUTSIDE_ROOT


def test_a_header_over_the_budget_is_refused() -> None:
    assert reason(b"#" * (2**20 + 1)) is Reason.OVER_BUDGET
