"""What the tests of the pipeline share: small recipes, builds in this process, and what stands in a corpus."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.manifest import Manifest
from qoq_data.corpus.planning import SourceInput
from qoq_data.engines.local import LocalEngine
from qoq_data.formats.storage import Store
from qoq_data.formats.wfdb_write import write_record_16
from qoq_data.recipe import Recipe
from qoq_data.source import Source
from qoq_data.sources import busi, mimic_ecg, ptb_xl, source_of

MODULES = {"ptb-xl": ptb_xl, "busi": busi, "mimic-ecg": mimic_ecg}
OPTIONS: Mapping[str, dict[str, Any]] = {"ptb-xl": {"sampling_frequency_hz": 100}}


def source(name: str) -> Source:
    return source_of(MODULES[name])


def make_recipe(*names: str, skip_limit: float | None = 1.0, **keys: Any) -> Recipe:
    """A recipe of the sources; PTB-XL at 100 Hz, every task asked, and nothing too much to skip unless said so."""
    sources = [
        {"name": name, "skip_limit": skip_limit, "options": keys.pop("options", {}).get(name, OPTIONS.get(name, {}))}
        for name in names
    ]
    return Recipe.model_validate({"name": "test", "rows_per_record": "all", "sources": sources} | keys)


def make_inputs(recipe: Recipe, trees: Mapping[str, Path]) -> list[SourceInput]:
    return [SourceInput(source(entry.name), entry, Store(trees[entry.name])) for entry in recipe.sources]


def build(
    out: Path,
    recipe: Recipe,
    trees: Mapping[str, Path],
    workers: int = 1,
    progress: Callable[[int, int, bool], None] | None = None,
) -> Manifest:
    return build_corpus(recipe, make_inputs(recipe, trees), Store(out), LocalEngine(workers), progress)


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    """Every row of a corpus by its id, as plain values."""
    rows = [row for path in sorted((out / "data").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def items_of(out: Path) -> set[str]:
    return {row_id.split("/")[1] for row_id in rows_of(out)}


def ledger_of(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "skipped.jsonl").read_text(encoding="utf-8").splitlines()]


def contents(out: Path) -> dict[str, str]:
    """Digest of every file that leaves with a corpus."""
    files = [*(out / "data").rglob("*"), out / "manifest.json", out / "skipped.jsonl"]
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if path.is_file()
    }


def every_file(out: Path) -> dict[str, int]:
    """Modification time of every file below a folder."""
    return {
        path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in sorted(out.rglob("*")) if path.is_file()
    }


def touch_later(path: Path) -> None:
    """A modification time that no file of the tree has, without waiting for the clock."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def record_path(tree: Path, ecg_id: int) -> Path:
    """Path of a PTB-XL record at 100 Hz without its suffix."""
    return tree / f"records100/00000/{ecg_id:05d}_lr"


def rewrite_record(record: Path, change: Callable[[Any, list[str]], tuple[Any, list[str]]], **keys: Any) -> None:
    """Read a record with ``wfdb``, change its samples [leads, n] and lead names, and write it with new checksums."""
    import wfdb

    read = wfdb.rdrecord(str(record), physical=False)
    samples, names = change(read.d_signal.T.astype("int16"), list(read.sig_name))
    header, data = write_record_16(record.name, samples, names, read.fs, **keys)
    record.with_suffix(".hea").write_bytes(header)
    record.with_suffix(".dat").write_bytes(data)
