"""WFDB headers (``.hea``), as publishers print them: what is claimed of a record, before any signal byte is read.

The fields and their defaults are those of WFDB header(5); where publishers print something else (a record name with
its extension, a date in another order) the record is read all the same, because nothing here needs the date.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from qoq_data.errors import Reason, RecordError

MAX_HEADER_BYTES = 1 << 20
MAX_LINE_CHARACTERS = 1024  # header(5) allows 255; the bound keeps the patterns below linear on hostile lines
DEFAULT_SAMPLING_FREQUENCY_HZ = 250.0
DEFAULT_GAIN = 200.0
DEFAULT_UNIT = "mV"

_FLOAT = r"[-+]?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][-+]?[0-9]{1,3})?"
_INT = r"[-+]?[0-9]{1,12}"
_RECORD_NAME = re.compile(r"([^\x00-\x20\x7f/\\~]{1,255})(?:/([0-9]{1,9}))?")
_FREQUENCY = re.compile(rf"({_FLOAT})(?:/{_FLOAT})?(?:\({_FLOAT}\))?")
_COUNT = re.compile(r"[0-9]{1,15}")
_DATE_OR_TIME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.,+]{0,20}[-:/][-0-9A-Za-z:/.,+]{0,40}")
_STORAGE = re.compile(rf"([0-9]{{1,6}})(?:x([0-9]{{1,9}}))?(?::({_INT}))?(?:\+([0-9]{{1,15}}))?")
_CALIBRATION = re.compile(rf"({_FLOAT})(?:\(({_FLOAT})\))?(?:/([^\x00-\x20\x7f]+))?")
# ADC resolution, ADC zero, initial value, checksum, block size, lead name.
_REST = re.compile(
    rf"{_INT}(?:[ \t]+({_INT})(?:[ \t]+({_INT})(?:[ \t]+({_INT})(?:[ \t]+{_INT}(?:[ \t]+([^\x00-\x1f\x7f]+))?)?)?)?)?"
)
_FILE_IN_FOLDER = re.compile(r"[^\x00-\x20\x7f/\\:~]+")
_RECORD_NAME_EXTENSIONS = (".mat", ".dat", ".hea")


class SignalLine(NamedTuple):
    """One signal as its header line claims it; physical value = (sample - ``baseline``) / ``gain``.

    ``gain`` is in ADC units per physical unit; where it is absent or 0 it is 200, and ``gain_declared`` is False.
    ``unit`` and ``lead_name`` are spelt as printed. A named tuple, as a million of them are made twelve times over.
    """

    file_name: str
    storage_format: int
    byte_offset: int
    samples_per_frame: int
    skew: int
    gain: float
    gain_declared: bool
    baseline: float
    unit: str
    adc_zero: int
    initial_value: int | None
    checksum: int | None
    lead_name: str


@dataclass(frozen=True, slots=True)
class Header:
    """A single-segment record as its header claims it.

    ``n_samples`` (per signal) is None where the header leaves it open (absent or 0). ``comments`` is empty unless asked
    for: some publishers put the patient's number there. ``path`` is only what errors call the record.
    """

    record_name: str
    sampling_frequency_hz: float
    n_samples: int | None
    signals: tuple[SignalLine, ...]
    n_comments: int
    comments: tuple[str, ...] = ()
    path: str = ""


def parse_header(data: bytes, path: str = "", comments: bool = False) -> Header:
    """Read the bytes of a ``.hea`` file; dates and times are skipped, whatever their form.

    ``comments=True`` keeps the comment lines, without ``#`` and outer blanks. Raises ``RecordError``:
    HEADER_INVALID (not a header), HEADER_MISMATCH (another number of signal lines than announced), MULTI_SEGMENT,
    PATH_OUTSIDE_ROOT (a signal file that is not a plain name), OVER_BUDGET (more than 1 MiB). Source: WFDB header(5).
    """
    lines, found_comments = _lines(data, path)
    if not lines:
        raise RecordError(Reason.HEADER_INVALID, "the header has no record line", path)
    if max(map(len, lines)) > MAX_LINE_CHARACTERS:
        raise RecordError(Reason.HEADER_INVALID, f"a line has over {MAX_LINE_CHARACTERS} characters", path)
    record_name, n_signals, sampling_frequency_hz, n_samples = _record_line(lines[0], path)
    if n_signals != len(lines) - 1:
        detail = f"the record line announces {n_signals} signals, {len(lines) - 1} lines follow"
        raise RecordError(Reason.HEADER_MISMATCH, detail, path)
    return Header(
        record_name=record_name,
        sampling_frequency_hz=sampling_frequency_hz,
        n_samples=n_samples,
        signals=tuple([_signal_line(line, i, record_name, path) for i, line in enumerate(lines[1:])]),
        n_comments=len(found_comments),
        comments=tuple([line[1:].strip() for line in found_comments]) if comments else (),
        path=path,
    )


def _lines(data: bytes, path: str) -> tuple[list[str], list[str]]:
    """The header's own lines and its comment lines, stripped; UTF-8 with or without mark, else Latin-1."""
    if len(data) > MAX_HEADER_BYTES:
        raise RecordError(Reason.OVER_BUDGET, f"a header of {len(data)} bytes, over {MAX_HEADER_BYTES}", path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines: list[str] = []
    comments: list[str] = []
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped:
            (comments if stripped[0] == "#" else lines).append(stripped)
    return lines, comments


def _record_line(line: str, path: str) -> tuple[str, int, float, int | None]:
    """Record name, number of signals, sampling frequency and number of samples."""
    fields = line.split()
    name = _RECORD_NAME.fullmatch(fields[0])
    if name is None:
        raise RecordError(Reason.HEADER_INVALID, "the record line does not start with a record name", path)
    if name[2] is not None:
        raise RecordError(Reason.MULTI_SEGMENT, f"a record of {int(name[2])} segments", path)
    if len(fields) < 2 or not _COUNT.fullmatch(fields[1]):
        raise RecordError(Reason.HEADER_INVALID, "the record line has no number of signals", path)
    n_signals = int(fields[1])
    if n_signals == 0:
        raise RecordError(Reason.HEADER_INVALID, "the record has no signals", path)
    sampling_frequency_hz = DEFAULT_SAMPLING_FREQUENCY_HZ
    if len(fields) > 2:
        frequency = _FREQUENCY.fullmatch(fields[2])
        sampling_frequency_hz = float(frequency[1]) if frequency else math.nan
        if not 0 < sampling_frequency_hz < math.inf:
            raise RecordError(Reason.HEADER_INVALID, "the sampling frequency is not a number above 0", path)
    n_samples = _claimed_samples(fields[3], path) if len(fields) > 3 else None
    record_name = name[1]
    if record_name.lower().endswith(_RECORD_NAME_EXTENSIONS):
        record_name = record_name[:-4]
    return record_name, n_signals, sampling_frequency_hz, n_samples


def _claimed_samples(field: str, path: str) -> int | None:
    """Number of samples; None where it is 0, or left out before a date or a time."""
    if _COUNT.fullmatch(field):
        return int(field) or None
    if _DATE_OR_TIME.fullmatch(field):
        return None
    raise RecordError(Reason.HEADER_INVALID, "the number of samples is not a number", path)


def _signal_line(line: str, index: int, record_name: str, path: str) -> SignalLine:
    """File, format, gain, ADC resolution, ADC zero, initial value, checksum, block size, lead name; from the third on
    each may be absent with all that follow it."""
    fields = line.split(None, 3)
    file_name = fields[0]
    storage = _storage(fields[1]) if len(fields) > 1 else None
    calibration = _calibration(fields[2]) if len(fields) > 2 else (0.0, None, DEFAULT_UNIT)
    rest = _REST.fullmatch(fields[3] if len(fields) > 3 else "0")
    if storage is None or calibration is None or rest is None:
        raise RecordError(Reason.HEADER_INVALID, f"signal line {index} cannot be read", path)
    zero, initial, checksum, lead_name = rest.groups()
    storage_format, samples_per_frame, skew, byte_offset = storage
    if file_name == "~" and storage_format == 0:
        raise RecordError(Reason.MULTI_SEGMENT, "the layout header of a multi-segment record", path)
    if not _is_plain_file(file_name):
        raise RecordError(Reason.PATH_OUTSIDE_ROOT, f"signal line {index} names no plain file of its folder", path)
    gain, baseline, unit = calibration
    adc_zero = int(zero) if zero else 0
    return SignalLine(
        file_name,
        storage_format,
        byte_offset,
        samples_per_frame,
        skew,
        gain or DEFAULT_GAIN,
        gain != 0.0,
        float(adc_zero) if baseline is None else baseline,
        unit,
        adc_zero,
        int(initial) if initial else None,
        int(checksum) if checksum else None,
        lead_name.strip() if lead_name else f"record {record_name}, signal {index}",
    )


# A record's signals share their file, and all records of a source their format and gain: most fields are read once.
@lru_cache(maxsize=16)
def _is_plain_file(name: str) -> bool:
    return _FILE_IN_FOLDER.fullmatch(name) is not None and ".." not in name and name not in {".", "-"}


@lru_cache(maxsize=1024)
def _storage(field: str) -> tuple[int, int, int, int] | None:
    """Format, samples per frame, skew and byte offset of ``16x1:0+24``."""
    match = _STORAGE.fullmatch(field)
    if match is None:
        return None
    storage_format, frame, skew, offset = match.groups()
    return int(storage_format), int(frame or 1), int(skew or 0), int(offset or 0)


@lru_cache(maxsize=1024)
def _calibration(field: str) -> tuple[float, float | None, str] | None:
    """Gain (0 where none is given), baseline (None where none is given) and unit of ``1000.0(0)/mV``.

    Gains and baselines that no converter has, and that would overflow float32, are refused.
    """
    match = _CALIBRATION.fullmatch(field)
    if match is None:
        return None
    gain = float(match[1])
    baseline = None if match[2] is None else float(match[2])
    if (gain and not 1e-12 <= abs(gain) <= 1e12) or (baseline and not abs(baseline) <= 1e12):
        return None
    return gain, baseline, match[3] or DEFAULT_UNIT
