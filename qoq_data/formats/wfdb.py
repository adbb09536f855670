"""WFDB signal files: bytes in, digital samples out, leads in rows, one code for 'missing' whatever the format.

Decoded here: formats 16 (also in MATLAB level 4 ``.mat`` files, ``16+24``), 24, 32, 61, 80, 160 and 212. The rare 8,
310, 311, 508, 516 and 524 go through the ``wfdb`` package. Layouts and codes for 'missing' are those of WFDB signal(5).
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError, StorageError
from qoq_data.formats.wfdb_header import Header, SignalLine, parse_header
from qoq_data.formats.wfdb_packing import (
    DECODERS,
    FALL_BACK_FORMATS,
    FLAC_FORMATS,
    MISSING_CODES,
    MISSING_INT16,
    MISSING_INT32,
    WIDE_FORMATS,
    Samples,
    SignalFile,
)
from qoq_data.formats.wfdb_write import write_record_16

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "MAX_VALUES",
    "MISSING_INT16",
    "MISSING_INT32",
    "DigitalRecord",
    "Empty",
    "Header",
    "SignalLine",
    "check_budget",
    "check_layout",
    "decode",
    "empty_int16",
    "parse_header",
    "signal_file_sizes",
    "write_record_16",
]

MAX_VALUES = 1 << 26  # samples of all leads together; 24 hours of three leads at 250 Hz


_MATLAB4_HEADER = struct.Struct("<5i")
_MATLAB4_TYPES = {16: 30, 32: 20, 80: 50}  # little-endian int16, int32, uint8
_UNITS_AS_MEANT = {"mv": "mV"}  # the 2021 challenge's PTB-XL headers


@dataclass(frozen=True, slots=True, eq=False)
class DigitalRecord:
    """One record's samples as stored: C-contiguous ``[leads, n]``, int16, or int32 for formats wider than 16 bits.

    Missing samples hold ``MISSING_INT16`` or ``MISSING_INT32``, by the dtype. Physical value = (sample - baseline) /
    gain, in ``unit``; ``gain_declared`` is False where the header gives none and 200 per mV is assumed (header(5)).
    Leads stand in the file's order, their names spelt as there; the unit ``mv`` is written ``mV``, others as printed.
    """

    samples: Samples
    lead_names: tuple[str, ...]
    gain: NDArray[np.float64]
    gain_declared: tuple[bool, ...]
    baseline: NDArray[np.float64]
    unit: tuple[str, ...]
    sampling_frequency_hz: float

    @property
    def missing_code(self) -> int:
        """The sample value that says 'missing' in ``samples``."""
        return MISSING_INT16 if self.samples.dtype == np.int16 else MISSING_INT32

    @overload
    def physical(  # type: ignore[overload-overlap]  # no class is both
        self, dtype: type[np.float64] = np.float64
    ) -> NDArray[np.float64]: ...

    @overload
    def physical(self, dtype: type[np.float32]) -> NDArray[np.float32]: ...

    def physical(self, dtype: type[np.float32] | type[np.float64] = np.float64) -> NDArray[np.float32 | np.float64]:
        """Samples in ``unit``, ``[leads, n]``, NaN where missing; computed in 64 bits, then rounded to ``dtype``."""
        values = self.samples.astype(np.float64)
        values -= self.baseline[:, None]
        values /= self.gain[:, None]
        values[self.samples == self.missing_code] = np.nan
        return values.astype(dtype, copy=False)


def check_layout(header: Header) -> None:
    """Refuse what cannot be one array of distinct leads, from the header alone.

    Raises ``RecordError``: UNEQUAL_SAMPLING (skew, or other than one sample per frame), LEAD_DUPLICATED (by name in any
    case), FORMAT_UNSUPPORTED, HEADER_MISMATCH (signals of one file that differ in format or offset, or do not stand
    together; header(5) asks for both).
    """
    signal_files(header)


def check_budget(header: Header, max_values: int = MAX_VALUES) -> None:
    """Raise ``RecordError`` OVER_BUDGET where the header claims more than ``max_values`` samples over all leads."""
    if header.n_samples is not None:
        _check_values(header, header.n_samples, max_values)


def signal_file_sizes(header: Header, layout: Sequence[SignalFile] | None = None) -> dict[str, int]:
    """Bytes that each signal file must have at least, by the header's claims: to be held against a stat before reading.

    One frame where the header gives no length; 42 for FLAC, whose size says nothing. ``layout`` is ``signal_files`` of
    the header, where the caller has it. Raises as ``check_layout`` does.
    """
    n_frames = header.n_samples or 1
    return {file.name: file.bytes_for(n_frames) for file in layout or signal_files(header)}


Empty = Callable[[tuple[int, int]], NDArray[np.int16]]
"""Gives an int16 array of a shape [leads, samples], whatever it holds."""


def empty_int16(shape: tuple[int, int]) -> NDArray[np.int16]:
    return np.empty(shape, np.int16)


def decode(
    header: Header,
    files: Mapping[str, bytes | memoryview],
    *,
    layout: Sequence[SignalFile] | None = None,
    max_values: int = MAX_VALUES,
    verify_checksums: bool = True,
    empty: Empty = empty_int16,
) -> DigitalRecord:
    """Decode a record from the whole bytes of its signal files, given by the names that the header prints.

    Nothing is allocated before claims, budget and sizes agree; ``empty`` gives the int16 array of that shape to decode
    into. A file may be longer than claimed by less than a frame
    or by the filling of its last packed group; a ``.mat`` by anything, as its own head is held against the header's
    counts instead. Checksums (header(5): 16-bit sums of the stored values) are compared where the header prints both
    them and a length. Raises ``RecordError``: as ``check_layout``, and OVER_BUDGET, FILE_MISSING, FILE_TRUNCATED,
    FILE_UNREADABLE, HEADER_MISMATCH, CHECKSUM_MISMATCH; ``StorageError`` where a fall-back format finds no disk space.
    """
    groups = layout or signal_files(header)
    check_budget(header, max_values)
    contents = []
    for group in groups:
        if group.name not in files:
            raise RecordError(Reason.FILE_MISSING, f"signal file {group.name} is missing", header.path)
        contents.append(memoryview(files[group.name]).cast("B"))
    n_samples = _n_samples(header, groups, contents)
    _check_values(header, n_samples, max_values)

    wide = any(group.storage_format in WIDE_FORMATS for group in groups)
    shape = (len(header.signals), n_samples)
    samples: Samples = np.empty(shape, np.int32) if wide else empty(shape)
    for group, content in zip(groups, contents, strict=True):
        rows = samples[group.first : group.first + group.n_signals]
        if group.storage_format in FALL_BACK_FORMATS:
            rows[:] = _decode_with_wfdb(header, group, content, n_samples)
        else:
            n_values = n_samples * group.n_signals
            payload = content[group.byte_offset : group.bytes_for(n_samples)]
            rows[:] = DECODERS[group.storage_format](payload, n_values).reshape(n_samples, group.n_signals).T
    if verify_checksums and header.n_samples is not None:
        _verify_checksums(header, samples)
    for group in groups:
        code = MISSING_CODES.get(group.storage_format)
        marker = MISSING_INT32 if wide else MISSING_INT16
        if code is not None and code != marker:
            rows = samples[group.first : group.first + group.n_signals]
            rows[rows == code] = marker
    return DigitalRecord(
        samples=samples,
        lead_names=tuple([signal.lead_name for signal in header.signals]),
        gain=np.array([signal.gain for signal in header.signals]),
        gain_declared=tuple([signal.gain_declared for signal in header.signals]),
        baseline=np.array([signal.baseline for signal in header.signals]),
        unit=tuple([_UNITS_AS_MEANT.get(signal.unit, signal.unit) for signal in header.signals]),
        sampling_frequency_hz=header.sampling_frequency_hz,
    )


def signal_files(header: Header) -> list[SignalFile]:
    """Which signals stand in which file, in the header's order; raises as ``check_layout`` does."""
    leads: set[str] = set()
    files: set[str] = set()
    starts: list[int] = []
    last: SignalLine | None = None
    for i, signal in enumerate(header.signals):
        if signal.skew or signal.samples_per_frame != 1:
            detail = f"signal {i} has skew {signal.skew} and {signal.samples_per_frame} samples per frame"
            raise RecordError(Reason.UNEQUAL_SAMPLING, detail, header.path)
        if signal.storage_format not in DECODERS and signal.storage_format not in FALL_BACK_FORMATS:
            raise RecordError(Reason.FORMAT_UNSUPPORTED, f"storage format {signal.storage_format}", header.path)
        leads.add(signal.lead_name.casefold())
        if len(leads) == i:
            raise RecordError(Reason.LEAD_DUPLICATED, f"signal {i} has the lead name of an earlier one", header.path)
        if last is None or signal.file_name != last.file_name:
            if signal.file_name in files:
                detail = f"signals of {signal.file_name} do not stand together"
                raise RecordError(Reason.HEADER_MISMATCH, detail, header.path)
            files.add(signal.file_name)
            starts.append(i)
        elif (signal.storage_format, signal.byte_offset) != (last.storage_format, last.byte_offset):
            detail = f"signals of {signal.file_name} differ in format or byte offset"
            raise RecordError(Reason.HEADER_MISMATCH, detail, header.path)
        last = signal
    groups = []
    for start, end in zip(starts, [*starts[1:], len(header.signals)], strict=True):
        first = header.signals[start]
        groups.append(SignalFile(first.file_name, first.storage_format, first.byte_offset, start, end - start))
    return groups


def _check_values(header: Header, n_samples: int, max_values: int) -> None:
    n_values = n_samples * len(header.signals)
    if n_values > max_values:
        raise RecordError(Reason.OVER_BUDGET, f"{n_values} samples, over the budget of {max_values}", header.path)


def _n_samples(header: Header, groups: Sequence[SignalFile], contents: list[memoryview]) -> int:
    """Samples per signal, claimed or else taken from the files' sizes; both agree with every file."""
    n_samples = header.n_samples
    if n_samples is None:
        if any(group.storage_format in FLAC_FORMATS for group in groups):
            raise RecordError(Reason.HEADER_INVALID, "a FLAC record without its number of samples", header.path)
        n_samples = groups[0].frames_in(contents[0].nbytes)
        if n_samples == 0:
            raise RecordError(Reason.FILE_TRUNCATED, f"{groups[0].name} holds no whole frame", header.path)
    for group, content in zip(groups, contents, strict=True):
        size, least = content.nbytes, group.bytes_for(n_samples)
        if size < least:
            raise RecordError(Reason.FILE_TRUNCATED, f"{group.name} has {size} bytes of {least}", header.path)
        if group.name.lower().endswith(".mat"):
            _check_matlab_head(header, group, content, n_samples)
        elif group.storage_format in FLAC_FORMATS or size <= group.padded_bytes_for(n_samples):
            continue
        elif group.frames_in(size) > n_samples:
            detail = f"{group.name} holds {group.frames_in(size)} frames, not {n_samples}"
            raise RecordError(Reason.HEADER_MISMATCH, detail, header.path)
    return n_samples


def _check_matlab_head(header: Header, group: SignalFile, content: memoryview, n_samples: int) -> None:
    """Hold the head of a MATLAB level 4 matrix (20 bytes and a three-letter name) against the WFDB header."""
    if group.byte_offset != 24 or group.storage_format not in _MATLAB4_TYPES:
        detail = f"{group.name} is not a matrix that starts at byte 24"
        raise RecordError(Reason.FORMAT_UNSUPPORTED, detail, header.path)
    head = _MATLAB4_HEADER.unpack_from(content)
    matlab_type, rows, columns, _, _ = head
    name_bytes = group.byte_offset - _MATLAB4_HEADER.size
    if head != (_MATLAB4_TYPES[group.storage_format], group.n_signals, n_samples, 0, name_bytes):
        detail = f"{group.name} is {rows} x {columns} of type {matlab_type}, not {group.n_signals} x {n_samples}"
        raise RecordError(Reason.HEADER_MISMATCH, detail, header.path)


def _verify_checksums(header: Header, samples: Samples) -> None:
    sums = np.add.reduce(samples, axis=1, dtype=samples.dtype).tolist()  # wraps; the low 16 bits stay right
    for i, signal in enumerate(header.signals):
        if signal.checksum is not None and (sums[i] - signal.checksum) & 0xFFFF:
            raise RecordError(Reason.CHECKSUM_MISMATCH, f"the checksum of signal {i} does not hold", header.path)


def _decode_with_wfdb(header: Header, group: SignalFile, content: memoryview, n_samples: int) -> Samples:
    """The signals of one file, ``[leads, n]``, by ``wfdb.rdrecord`` from a temporary copy.

    The copy gets a header of our own with claims already checked, and neither names nor comments of the original.
    """
    import wfdb  # here, as it pulls pandas and few records need it

    signals = header.signals[group.first : group.first + group.n_signals]
    text = [f"record {group.n_signals} 250 {n_samples}"]
    for i, signal in enumerate(signals):
        initial = signal.adc_zero if signal.initial_value is None else signal.initial_value
        text.append(f"record.dat {group.storage_format}+{group.byte_offset} 200(0)/mV 16 0 {initial} 0 0 {i}")
    with tempfile.TemporaryDirectory(prefix="qoq-wfdb-") as folder:
        try:
            Path(folder, "record.hea").write_text("\n".join(text) + "\n", encoding="ascii")
            Path(folder, "record.dat").write_bytes(content)
        except OSError as error:
            raise StorageError(f"no temporary copy of {group.name} could be written: {error.strerror}") from error
        try:
            digital = wfdb.rdrecord(str(Path(folder, "record")), physical=False, return_res=32).d_signal
        except MemoryError as error:
            raise RecordError(Reason.OVER_BUDGET, f"no memory to decode {group.name}", header.path) from error
        except Exception as error:  # noqa: BLE001  (wfdb and its codecs raise any kind, plain Exception among them)
            detail = f"{group.name} is not a signal file of format {group.storage_format} ({type(error).__name__})"
            raise RecordError(Reason.FILE_UNREADABLE, detail, header.path) from None
    if digital is None or digital.shape != (n_samples, group.n_signals):
        raise RecordError(Reason.FILE_TRUNCATED, f"{group.name} holds fewer samples than claimed", header.path)
    samples: NDArray[np.int32] = digital.T
    return samples
