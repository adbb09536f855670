"""``shard_write``: a shard of ECG rows from arrays to a synced parquet file, beside ``datasets``' own writer.

The same rows on both sides: 12 leads of 5,000 samples and a row's text. ``datasets`` gets whole columns through its
``ArrowWriter`` features and writes with ``Dataset.to_parquet``. The limit is writing the samples' bytes.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ecg_build import digital_ecgs
from benchmarks.harness import Result, seconds_in_turn
from qoq_data.corpus.shard import Compression, Row, SampleBuffer, rows_to_table, write_table
from qoq_data.formats.storage import Store
from qoq_data.record import COLUMNS, Media, Provenance, Signal

ROWS, ROWS_QUICK = 512, 64
ROUNDS, ROUNDS_QUICK = 5, 1


def run(quick: bool) -> Result:
    rows = made_rows(ROWS_QUICK if quick else ROWS)
    with tempfile.TemporaryDirectory(prefix="qoq-bench-", dir=os.environ.get("QOQ_BENCH_FOLDER")) as name:
        folder = Path(name)
        store = Store(folder)
        buffer = SampleBuffer()
        samples = b"".join(row.media.signals[0].samples.tobytes() for row in rows)

        def ours(compression: Compression) -> None:
            buffer.clear()
            kept = [buffer.adopt(row) for row in rows]
            path = f"{compression}.parquet"
            with store.create(path) as file:
                write_table(rows_to_table(kept, buffer), file, compression)
            store.commit(file.temporary, path)

        candidates: dict[str, Any] = {
            "ours, lz4": lambda: ours("lz4"),
            "ours, zstd": lambda: ours("zstd"),
            "ours, not compressed": lambda: ours("none"),
            "datasets to_parquet": lambda: theirs(rows, folder / "theirs.parquet"),
            "the samples' bytes": lambda: store.write("samples", samples),
        }
        seconds = seconds_in_turn(candidates, ROUNDS_QUICK if quick else ROUNDS)
        files = dict(zip(list(candidates)[:4], ("lz4", "zstd", "none", "theirs"), strict=True))
        kilobytes = {way: (folder / f"{file}.parquet").stat().st_size / len(rows) / 1e3 for way, file in files.items()}
    per_row = {way: value / len(rows) * 1e6 for way, value in seconds.items()}
    peer = per_row["datasets to_parquet"]
    table = tuple(
        (way, f"{value:.0f}", f"{peer / value:.2f}", f"{kilobytes.get(way, len(samples) / len(rows) / 1e3):.0f}")
        for way, value in per_row.items()
    )
    return Result(
        name="shard_write",
        ours=per_row["ours, lz4"],
        peer=peer,
        limit=per_row["the samples' bytes"],
        ratio=peer / per_row["ours, lz4"],
        unit="µs a row",
        columns=("way", "µs a row", "times datasets", "kB a row"),
        rows=table,
    )


def made_rows(count: int) -> list[Row]:
    """Rows as rendering hands them over, of generated ECGs."""
    ecgs = digital_ecgs(64)
    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    text: dict[str, Any] = dict.fromkeys(COLUMNS, "a text of thirty characters ...")
    text |= {"choices": ["sinus rhythm", "atrial fibrillation"], "answer": ["sinus rhythm"], "tolerance": None}
    made = []
    for number in range(count):
        samples = np.roll(ecgs[number % 64], number, axis=1)
        signal = Signal(leads, 500.0, "mV", samples, (0.001,) * 12, (0.0,) * 12)
        provenance = (Provenance("ecg", f"records500/{number:05d}_hr.dat", "0" * 64, "all 5000 samples"),)
        made.append(Row(text | {"id": f"made/{number}/rhythm"}, Media(signals=(signal,), provenance=provenance)))
    return made


def theirs(rows: list[Row], path: Path) -> None:
    import datasets

    string = datasets.Value("string")
    texts = datasets.List(string)
    signal = {
        "lead_names": texts,
        "sampling_frequency_hz": datasets.Value("float64"),
        "samples": datasets.Array2D((12, 5000), "int16"),
        "scale": datasets.List(datasets.Value("float64")),
    }
    named = [name for name in COLUMNS if isinstance(rows[0].text.get(name), str)]
    features = dict.fromkeys(named, string) | {"choices": texts, "answer": texts, "signal": signal}
    columns: dict[str, Any] = {name: [row.text[name] for row in rows] for name in (*named, "choices", "answer")}
    columns["signal"] = [
        {
            "lead_names": list(one.lead_names),
            "sampling_frequency_hz": one.sampling_frequency_hz,
            "samples": one.samples,
            "scale": list(one.scale),
        }
        for row in rows
        for one in row.media.signals
    ]
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(str(path))
    with path.open("rb") as file:
        os.fsync(file.fileno())
