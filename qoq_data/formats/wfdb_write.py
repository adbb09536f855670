"""Write a WFDB record as PTB-XL and MIMIC-IV-ECG ship theirs, for trees of synthetic records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qoq_data.formats.wfdb_header import parse_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


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
    n_leads, n_samples = samples.shape
    if samples.dtype != np.int16 or n_samples == 0 or n_leads != len(lead_names):
        raise ValueError("samples must be int16 [leads, n], n above 0, with one name for each lead")
    if any("\n" in text or "\r" in text for text in (record_name, unit, date_text, *lead_names, *comments)):
        raise ValueError("header texts must each stay on one line")
    gains = [float(gain)] * n_leads if isinstance(gain, int | float) else [float(value) for value in gain]
    baselines = [baseline] * n_leads if isinstance(baseline, int) else list(baseline)
    checksums = (np.add.reduce(samples, axis=1, dtype=np.int64) & 0xFFFF).tolist()
    frequency = int(sampling_frequency_hz) if float(sampling_frequency_hz).is_integer() else sampling_frequency_hz
    lines = [f"{record_name} {n_leads} {frequency} {n_samples} {date_text}".rstrip()]
    for i, (lead_gain, lead_baseline, name) in enumerate(zip(gains, baselines, lead_names, strict=True)):
        numbers = f"16 {lead_gain!r}({lead_baseline})/{unit} 16 0 {samples[i, 0]} {checksums[i]} 0"
        lines.append(f"{record_name}.dat {numbers} {name}")
    lines.extend(f"#{comment}" for comment in comments)
    header = ("\n".join(lines) + "\n").encode()
    parse_header(header, f"{record_name}.hea")
    return header, samples.T.astype("<i2").tobytes()
