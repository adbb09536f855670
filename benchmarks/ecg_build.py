"""``ecg_build``: records a second from raw files to finished shards, beside the plain way and beside copying.

Raw: a PTB-XL tree of generated 12-lead records of ten seconds at 500 Hz, one row a record, native rate. Ours is
``build_corpus`` on one and on two workers; the plain way is pandas, ``wfdb`` and ``Dataset.from_generator``, then
``to_parquet``; the limit is reading every file, hashing it and writing the same bytes. Everything that is written is
synced to the disk before its clock stops, and every way starts a process of its own. What two workers could gain at
most on the machine is told by the column's encoding alone, in memory, in one process and in two at once.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Result
from qoq_data.formats.wfdb_write import write_record_16

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

RECORDS, RECORDS_QUICK = 16_384, 512
DISTINCT = 1024
PLAIN_SHARE = 16
_LIBRARIES = {
    "one": ("qoq_data.corpus.build", "qoq_data.sources.ptb_xl"),
    "two": ("qoq_data.corpus.build", "qoq_data.sources.ptb_xl"),
    "plain": ("datasets", "pandas", "wfdb"),
}
ROUNDS, ROUNDS_QUICK = 2, 1
COPY_BYTES = 64 << 20
ENCODED, ENCODED_QUICK = 8_192, 512


def run(quick: bool) -> Result:
    records = RECORDS_QUICK if quick else RECORDS
    with tempfile.TemporaryDirectory(prefix="qoq-bench-", dir=os.environ.get("QOQ_BENCH_FOLDER")) as name:
        folder = Path(name)
        write_tree(folder / "raw", records)
        write_tree(folder / "few", max(64, records // PLAIN_SHARE))
        rates: dict[str, list[float]] = {}
        for number in range(ROUNDS_QUICK if quick else ROUNDS):
            for way, raw in (("one", "raw"), ("two", "raw"), ("limit", "raw"), ("plain", "few")):
                rates.setdefault(way, []).append(_measured(way, folder / raw, folder / f"{way}-{number}"))
        gain = _encoding_gain(ENCODED_QUICK if quick else ENCODED)
    rate = {way: median(of_way) for way, of_way in rates.items()}
    rows = (
        ("ours, one worker", f"{rate['one']:.0f}", f"{rate['one'] / rate['plain']:.1f}", _share(rate, "one")),
        ("ours, two workers", f"{rate['two']:.0f}", f"{rate['two'] / rate['plain']:.1f}", _share(rate, "two")),
        ("pandas, wfdb, from_generator", f"{rate['plain']:.0f}", "1.0", _share(rate, "plain")),
        ("read, hash, write the same bytes", f"{rate['limit']:.0f}", f"{rate['limit'] / rate['plain']:.1f}", "1.00"),
        ("two workers over one", f"{rate['two'] / rate['one']:.2f}", "", ""),
        ("the same of encoding alone, in memory", f"{gain:.2f}", "", ""),
    )
    return Result(
        name="ecg_build",
        ours=rate["one"],
        peer=rate["plain"],
        limit=rate["limit"],
        ratio=rate["one"] / rate["plain"],
        unit="records/s",
        columns=("way", "records/s", "times plain", "of the limit"),
        rows=rows,
    )


def _share(rate: dict[str, float], way: str) -> str:
    return f"{rate[way] / rate['limit']:.2f}"


def _encoding_gain(records: int) -> float:
    """Records a second that two processes encode at once, over those of one."""
    command = [sys.executable, "-m", "benchmarks.ecg_build", "encode", str(records), ""]

    def rate(processes: int) -> float:
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, env=_one_thread()) for _ in range(processes)]
        return sum(float(json.loads(process.communicate()[0])) for process in started)

    return rate(2) / rate(1)


def _one_thread() -> dict[str, str]:
    return os.environ | {"POLARS_MAX_THREADS": "1"}  # as in every worker of more than one


def _measured(way: str, raw: Path, out: Path) -> float:
    """Records a second of one way, timed by a process of its own after its imports."""
    command = [sys.executable, "-m", "benchmarks.ecg_build", way, str(raw), str(out)]
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": f"{out}-hf"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=_one_thread() | offline)
    return float(json.loads(done.stdout.splitlines()[-1]))


def write_tree(folder: Path, records: int) -> None:
    """A PTB-XL tree with the tables of the synthetic source and ``records`` recordings.

    Every one has its own header; of the signal files ``DISTINCT`` differ and the rest are links to them, so that the
    tree fits into memory, from which all ways read it.
    """
    from qoq_data.sources import get_source

    folder.mkdir(parents=True)
    get_source("ptb-xl").synthesize(folder, 0, 8)
    with (folder / "ptbxl_database.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    index = {name: place for place, name in enumerate(header)}
    ecgs = digital_ecgs(64)
    written: dict[int, tuple[Path, bytes]] = {}
    leads = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
    table = [header]
    for number in range(30_001, 30_001 + records):  # above the ids that later releases withdrew
        row = list(rows[number % len(rows)])
        name = f"records500/{number // 1000 * 1000:05d}/{number:05d}_hr"
        said = {"ecg_id": f"{number}", "patient_id": f"{number}.0", "strat_fold": f"{number % 10 + 1}"}
        said |= {"filename_hr": name, "filename_lr": name.replace("500", "100").replace("hr", "lr")}
        for column, text in said.items():
            row[index[column]] = text
        table.append(row)
        path = folder / f"{name}.hea"
        path.parent.mkdir(parents=True, exist_ok=True)
        place = number % DISTINCT
        if place not in written:
            samples = np.roll(ecgs[place % 64], place, axis=1)
            head, data = write_record_16(path.stem, samples, leads, 500)
            path.with_suffix(".dat").write_bytes(data)
            written[place] = (path, head)
        else:
            path.with_suffix(".dat").hardlink_to(written[place][0].with_suffix(".dat"))
        first, head = written[place]
        path.write_bytes(head.replace(first.stem.encode(), path.stem.encode()))
    with (folder / "ptbxl_database.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(table)


def digital_ecgs(count: int) -> list[NDArray[np.int16]]:
    """Generated 12-lead recordings of ten seconds at 500 Hz in microvolts, in turn of every kind there is."""
    from qoq_data.clinical.synthetic_ecg import PRESETS, preset, synthesize_ecg

    rng = np.random.default_rng(0)
    kinds = list(PRESETS)
    made = [synthesize_ecg(preset(kinds[number % len(kinds)], rng), 500, 10, rng) for number in range(count)]
    return [np.rint(millivolts * 1000).astype(np.int16) for millivolts in made]


def ours(raw: Path, out: Path, workers: int) -> int:
    from qoq_data.corpus.build import build_corpus
    from qoq_data.corpus.planning import SourceInput
    from qoq_data.engines.local import LocalEngine
    from qoq_data.formats.storage import Store
    from qoq_data.recipe import default_recipe
    from qoq_data.sources import get_source

    source = get_source("ptb-xl")
    recipe = default_recipe(source)
    inputs = [SourceInput(source, recipe.sources[0], Store(raw))]
    return build_corpus(recipe, inputs, Store(out), LocalEngine(workers)).rows


def plain(raw: Path, out: Path) -> int:
    import datasets
    import pandas as pd
    import wfdb

    table = pd.read_csv(raw / "ptbxl_database.csv", index_col="ecg_id")

    def rows() -> Iterator[dict[str, Any]]:
        for ecg_id, row in table.iterrows():
            record = wfdb.rdrecord(str(raw / row["filename_hr"]), physical=False)
            yield {
                "id": str(ecg_id),
                "answer": list(ast.literal_eval(row["scp_codes"])),
                "lead_names": record.sig_name,
                "samples": record.d_signal.astype(np.int16).T,
            }

    text = datasets.Value("string")
    samples = datasets.Array2D((12, 5000), "int16")
    features = {"id": text, "answer": datasets.List(text), "lead_names": datasets.List(text), "samples": samples}
    data = datasets.Dataset.from_generator(rows, features=datasets.Features(features), cache_dir=str(out))
    data.to_parquet(str(out / "all.parquet"))
    with (out / "all.parquet").open("rb") as file:
        os.fsync(file.fileno())
    return len(data)


def copy(raw: Path, out: Path) -> int:
    """Every header and signal file read, hashed and written into files of a shard's size, each synced."""
    out.mkdir()
    headers = sorted((raw / "records500").rglob("*.hea"))
    file, written, number = (out / "0").open("wb", buffering=0), 0, 0
    for header in headers:
        for path in (header, header.with_suffix(".dat")):
            data = path.read_bytes()
            hashlib.sha256(data).hexdigest()
            written += file.write(data)
        if written >= COPY_BYTES:
            os.fsync(file.fileno())
            file.close()
            number, written = number + 1, 0
            file = (out / str(number)).open("wb", buffering=0)
    os.fsync(file.fileno())
    file.close()
    return len(headers)


def encode(records: int) -> float:
    """Records a second whose samples become parquet pages in memory, as a shard's do."""
    import polars as pl

    per_group = 64
    samples = pl.Series("samples", np.stack(digital_ecgs(per_group)))
    frame = samples.cast(pl.List(pl.List(pl.Int16))).to_frame()
    start = perf_counter()
    for _ in range(records // per_group):
        frame.write_parquet(io.BytesIO(), compression="lz4", statistics=False)
    return records / (perf_counter() - start)


def _main(way: str, raw: Path, out: Path) -> None:
    """Each way's libraries are imported before its clock starts; what its own worker processes import is in it."""
    for name in _LIBRARIES.get(way, ()):
        importlib.import_module(name)
    start = perf_counter()
    count = {"one": lambda: ours(raw, out, 1), "two": lambda: ours(raw, out, 2), "plain": lambda: plain(raw, out)}.get(
        way, lambda: copy(raw, out)
    )()
    print(json.dumps(count / (perf_counter() - start)))


if __name__ == "__main__":
    if sys.argv[1] == "encode":
        print(json.dumps(encode(int(sys.argv[2]))))
    else:
        _main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
