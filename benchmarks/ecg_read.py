"""Reading twelve-lead ECG records of 10 s at 500 Hz (format 16): our reader beside ``wfdb.rdrecord``.

Both go from the files on disk to digital samples; the limit is reading the files' bytes and nothing else.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import wfdb

from benchmarks.harness import Result, seconds_in_turn
from qoq_data.formats.wfdb import DigitalRecord, decode, parse_header, signal_file_sizes, write_record_16

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
UNIT = "ms a record"


def run(quick: bool) -> Result:
    """Time both readers over the same synthetic records, checked equal first."""
    n_records, rounds = (8, 3) if quick else (40, 15)
    with tempfile.TemporaryDirectory(prefix="qoq-benchmark-") as folder:
        headers = _write_records(Path(folder), n_records)
        for path in headers:
            samples = _read_with_wfdb(path).d_signal.T
            assert np.array_equal(_read(path).samples, samples), f"{path.name}: the readers do not agree"
        texts = [path.read_bytes() for path in headers]
        loaded = [(parse_header(path.read_bytes()), _read_bytes(path)) for path in headers]
        seconds = seconds_in_turn(
            {
                "ours": lambda: _each(_read, headers),
                "wfdb.rdrecord": lambda: _each(_read_with_wfdb, headers),
                "reading the bytes": lambda: _each(_read_bytes, headers),
                "ours: header in memory": lambda: _each(parse_header, texts),
                "ours: samples in memory": lambda: _each(lambda record: decode(*record), loaded),
            },
            rounds,
        )
    milliseconds = {name: value / n_records * 1e3 for name, value in seconds.items()}
    ours, peer, limit = (milliseconds[name] for name in ("ours", "wfdb.rdrecord", "reading the bytes"))
    rows = tuple((name, f"{value:.3f}", f"{peer / value:.1f}") for name, value in milliseconds.items())
    return Result("ecg_read", ours, peer, limit, peer / ours, UNIT, ("way", UNIT, "times wfdb"), rows)


def _each(call: Callable[[Item], object], items: Sequence[Item]) -> None:
    """Call on each item and let the result go, as a build does with a record once it stands in its shard."""
    for item in items:
        call(item)


def _read(header_path: Path) -> DigitalRecord:
    """As a source reads a record: the file's size against the header's claim, then the bytes, then the samples."""
    header = parse_header(header_path.read_bytes(), header_path.name)
    files: dict[str, bytes | memoryview] = {}
    for name, least in signal_file_sizes(header).items():
        with header_path.with_name(name).open("rb", buffering=0) as file:
            assert os.fstat(file.fileno()).st_size >= least
            files[name] = file.read()
    return decode(header, files)


def _read_with_wfdb(header_path: Path) -> wfdb.Record:
    return wfdb.rdrecord(str(header_path.with_suffix("")), physical=False)


def _read_bytes(header_path: Path) -> dict[str, bytes | memoryview]:
    """The bytes of header and samples; the limit, and what ``decode`` takes."""
    header_path.read_bytes()
    path = header_path.with_suffix(".dat")
    return {path.name: path.read_bytes()}


def _write_records(folder: Path, n_records: int) -> list[Path]:
    """Random walks within the range of an ECG, one file pair a record."""
    generator = np.random.default_rng(0)
    paths = []
    for i in range(n_records):
        walk = generator.integers(-20, 21, (12, 5000)).cumsum(axis=1)
        name = f"{i + 1:05d}_hr"
        header, samples = write_record_16(name, np.clip(walk, -5000, 5000).astype(np.int16), LEADS, 500)
        folder.joinpath(f"{name}.dat").write_bytes(samples)
        paths.append(folder / f"{name}.hea")
        paths[-1].write_bytes(header)
    return paths
