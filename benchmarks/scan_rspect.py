"""The item table of RSPECT at true size, 1,790,594 slices: our scan with all its checks beside a loop over pandas rows.

No slice is on disk. The peer reads the table with pandas and makes a record of each row; the limit is reading the bytes
of the table.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Result
from benchmarks.table_scans import scan_result

TRUE_ROWS, QUICK_ROWS = 1_790_594, 60_000
_SLICES_AN_EXAM = 246


def write_tables(folder: Path, rows: int, seed: int = 0) -> None:
    """``train.csv`` with ids of twelve hexadecimal digits and exams of 246 slices, a third of them with emboli."""
    from qoq_data.sources._rspect_tree import IDS, OF_EXAM, ON_SLICE, TABLE

    rng = np.random.default_rng(seed)
    exam = np.arange(rows) // _SLICES_AN_EXAM
    kind = rng.choice(5, exam[-1] + 1, p=[0.66, 0.27, 0.03, 0.02, 0.02])[exam]  # none, acute, chronic, both, doubtful
    place = np.arange(rows) % _SLICES_AN_EXAM
    marked = np.isin(kind, [1, 2, 3]) & (place > 100) & (place < 150)
    flags = dict.fromkeys(OF_EXAM, np.zeros(rows, np.int8)) | {
        "negative_exam_for_pe": kind == 0,
        "chronic_pe": kind == 2,
        "acute_and_chronic_pe": kind == 3,
        "indeterminate": kind == 4,
    }
    digits = [exam * 7919 + 11, exam * 104_729 + 13, rng.permutation(rows) + (1 << 40)]
    ids = {name: [f"{one:012x}" for one in column.tolist()] for name, column in zip(IDS, digits, strict=True)}
    labels = {ON_SLICE: marked, **flags}
    table = pl.DataFrame({**ids, **{name: column.astype(np.int8) for name, column in labels.items()}})
    (folder / "train").mkdir()
    table.write_csv(folder / TABLE)


def scan_ours(folder: Path) -> int:
    """Rows of our item table."""
    from qoq_data.formats.storage import Store
    from qoq_data.sources.rspect import Options, scan

    return scan(Store(folder), Options()).collect().height


def scan_with_pandas(folder: Path) -> int:
    """Records made one after another, by the published rule for the label."""
    import pandas as pd

    table = pd.read_csv(folder / "train.csv")
    records = []
    for row in table.itertuples():
        kind = "No PE" if not row.pe_present_on_image else "Chronic PE" if row.chronic_pe else "Acute PE"
        path = f"train/{row.StudyInstanceUID}/{row.SeriesInstanceUID}/{row.SOPInstanceUID}.dcm"
        records.append({"images": [path], "answer": kind, "exam": row.StudyInstanceUID})
    return len(records)


def read_bytes(folder: Path) -> int:
    """Bytes of the table."""
    return len((folder / "train.csv").read_bytes())


WAYS = {"ours": scan_ours, "pandas": scan_with_pandas, "bytes": read_bytes}
IMPORTS = {"ours": ("qoq_data.sources.rspect",), "pandas": ("pandas",)}


def run(quick: bool) -> Result:
    """Seconds and peak memory of each way, the median of three runs; quick: of one."""
    name = "scan_rspect"
    return scan_result(name, QUICK_ROWS if quick else TRUE_ROWS, turns=1 if quick else 3)
