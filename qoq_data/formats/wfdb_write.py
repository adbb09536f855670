"""Write a WFDB record as its publisher ships it, for trees of synthetic records.

PTB-XL and MIMIC-IV-ECG ship ``.dat`` files, the PhysioNet/CinC Challenges 2020 and 2021 MATLAB level 4 ``.mat`` files.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from qoq_data.formats.wfdb_header import parse_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_INT16_LITTLE_ENDIAN = 30  # of a full MATLAB level 4 matrix


def write_record_16(
    record_name: str,
    samples: NDArray[np.int16],
    lead_names: Sequence[str],
    sampling_frequency_hz: float,
    *,
    gain: float | Sequence[float] = 1000.0,
    baseline: int | Sequence[int] = 0,
    unit: str = "mV",
    date_text: str = "",
    comments: Sequence[str] = (),
) -> tuple[bytes, bytes]:
    """The bytes of ``<record_name>.hea`` and of ``<record_name>.dat``, format 16, leads interleaved.

    ``samples`` are int16 ``[leads, n]``, ``MISSING_INT16`` where missing. ``gain`` and ``baseline`` are one for all
    leads or one each. ``date_text`` is put at the end of the record line as given (``12:04:00 22/09/2182``), each of
    ``comments`` on a line of its own right after a ``#``. Signal lines are in the form of PTB-XL and MIMIC-IV-ECG,
    ``00001_hr.dat 16 1000.0(0)/mV 16 0 -115 13047 0 I``. Raises ``ValueError`` on arguments that make no record,
    ``RecordError`` where a name would not be read back.
    """
    _check(samples, lead_names, (record_name, unit, date_text, *comments))
    n_leads = len(lead_names)
    gains = [float(gain)] * n_leads if isinstance(gain, int | float) else [float(value) for value in gain]
    baselines = [baseline] * n_leads if isinstance(baseline, int) else list(baseline)
    signal_lines = []
    for i, (lead_gain, lead_baseline, name) in enumerate(zip(gains, baselines, lead_names, strict=True)):
        numbers = f"16 {lead_gain!r}({lead_baseline})/{unit} 16 0 {samples[i, 0]} {_sum(samples[i])} 0"
        signal_lines.append(f"{record_name}.dat {numbers} {name}")
    header = _header(record_name, samples, sampling_frequency_hz, date_text, signal_lines, comments)
    parse_header(header, f"{record_name}.hea")
    return header, samples.T.astype("<i2").tobytes()


def write_record_mat(
    record_name: str,
    samples: NDArray[np.int16],
    lead_names: Sequence[str],
    sampling_frequency_hz: float,
    *,
    gain: int = 1000,
    unit: str = "mV",
    date_text: str = "",
    comments: Sequence[str] = (),
    names_extension: bool = False,
) -> tuple[bytes, bytes]:
    """The bytes of ``<record_name>.hea`` and of ``<record_name>.mat`` as the challenges ship them, format ``16+24``.

    The ``.mat`` is a MATLAB level 4 file of one int16 matrix ``val`` ``[leads, n]``, 24 bytes of head before its
    samples. Signal lines are in the challenges' form, without a baseline and with a signed checksum,
    ``E00271.mat 16+24 1000/mV 16 0 -73 -27210 0 II``. ``names_extension`` prints the record's name with ``.mat`` on the
    record line, as Georgia's headers do. Everything else is as in ``write_record_16``.
    """
    _check(samples, lead_names, (record_name, unit, date_text, *comments))
    signal_lines = []
    for i, name in enumerate(lead_names):
        signed = (_sum(samples[i]) + 2**15) % 2**16 - 2**15
        signal_lines.append(f"{record_name}.mat 16+24 {gain}/{unit} 16 0 {samples[i, 0]} {signed} 0 {name}")
    printed = f"{record_name}.mat" if names_extension else record_name
    header = _header(printed, samples, sampling_frequency_hz, date_text, signal_lines, comments)
    parse_header(header, f"{record_name}.hea")
    head = struct.pack("<5i4s", _INT16_LITTLE_ENDIAN, *samples.shape, 0, 4, b"val")
    return header, head + samples.T.astype("<i2").tobytes()


def _check(samples: NDArray[np.int16], lead_names: Sequence[str], texts: Sequence[str]) -> None:
    n_leads, n_samples = samples.shape
    if samples.dtype != np.int16 or n_samples == 0 or n_leads != len(lead_names):
        raise ValueError("samples must be int16 [leads, n], n above 0, with one name for each lead")
    if any("\n" in text or "\r" in text for text in (*texts, *lead_names)):
        raise ValueError("header texts must each stay on one line")


def _sum(lead: NDArray[np.int16]) -> int:
    """Checksum of header(5): the low 16 bits of the sum."""
    return int(np.add.reduce(lead, dtype=np.int64)) & 0xFFFF


def _header(
    printed_name: str,
    samples: NDArray[np.int16],
    sampling_frequency_hz: float,
    date_text: str,
    signal_lines: Sequence[str],
    comments: Sequence[str],
) -> bytes:
    n_leads, n_samples = samples.shape
    frequency = int(sampling_frequency_hz) if float(sampling_frequency_hz).is_integer() else sampling_frequency_hz
    record_line = f"{printed_name} {n_leads} {frequency} {n_samples} {date_text}".rstrip()
    return ("\n".join([record_line, *signal_lines, *(f"#{comment}" for comment in comments)]) + "\n").encode()
