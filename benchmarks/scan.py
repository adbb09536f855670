"""The item table of MIMIC-IV-ECG at true size: our scan with all its answers beside a loop over pandas rows.

No waveform is on disk. The peer reads both tables with pandas, maps each row's report lines by a dictionary and
computes the same intervals; the limit is reading the bytes of the two tables.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Result
from benchmarks.table_scans import scan_result

TRUE_ROWS, QUICK_ROWS = 800_035, 40_000
TABLES = ("record_list.csv", "machine_measurements.csv")
_REPORTS = tuple(f"report_{place}" for place in range(18))
_RHYTHMS = (
    *("Sinus rhythm",) * 12,
    *("Sinus bradycardia", "Sinus tachycardia", "Atrial fibrillation", "SINUS RHYTHM", "Sinus rhythm."),
    *("Sinus rhythm with 1st degree A-V block", "Sinus rhythm with PVC(s)", "Probable sinus tachycardia"),
)
_REGIONS = (
    "Anterior",
    "Anteroseptal",
    "Anterolateral",
    "Septal",
    "Lateral",
    "Inferior",
    "Inferior/lateral",
    "Extensive",
)
_AGES = (" - age undetermined", " - possibly acute", ", old", ", recent", ", acute", ", age indeterminate")
_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_OTHERS = (
    *(
        "Left axis deviation",
        "Right bundle branch block",
        "RBBB with left anterior fascicular block",
        "Incomplete RBBB",
    ),
    *("Left ventricular hypertrophy", "Possible left ventricular hypertrophy", "Prolonged QT interval"),
    *("- first degree A-V block", "- frequent premature ventricular contractions", "Left atrial enlargement"),
    *("Poor R wave progression - probable normal variant", "Generalized low QRS voltages"),
)
_VERDICTS = ("Normal ECG", "Abnormal ECG", "Borderline ECG", "Summary: Normal ECG", "Summary: ABNORMAL ECG")


def findings() -> list[str]:
    """Some three thousand distinct lines such as a device writes, some of them in no table."""
    hedges = ("", "Possible ", "Consider ", "Cannot rule out ", "Probable ")
    infarcts = [f"{hedge}{region.lower()} infarct{age}" for hedge in hedges for region in _REGIONS for age in _AGES]
    comments = ("are nonspecific", "are borderline", "may be due to myocardial ischemia", "suggest myocardial infarct")
    changes = [f"{r} {q} changes {c}" for r in _REGIONS for q in ("ST", "T wave", "ST-T") for c in comments]
    technical = [f"Artifact in lead(s) {a}, {b}, {c}" for a in _LEADS for b in _LEADS for c in _LEADS]
    strange = [f"Finding number {number} of another engine" for number in range(60)]
    plain = infarcts + changes + technical + strange
    return [*plain, *(line.upper() for line in plain), *(f"{line}." for line in plain), *_OTHERS]


def write_tables(folder: Path, rows: int, seed: int = 0) -> None:
    """``record_list.csv`` and ``machine_measurements.csv`` of ``rows`` recordings with content of the real kind."""
    rng = np.random.default_rng(seed)
    subjects = np.sort(10_000_000 + rng.integers(0, max(1, rows // 5), rows))
    studies = 40_000_000 + rng.permutation(rows)
    place = pl.DataFrame({"subject_id": subjects, "study_id": studies}).with_columns(
        ecg_time=pl.lit("2180-07-23 08:44:00"),
        path=pl.format("files/p{}/p{}/s{}/{}", pl.col("subject_id") // 10_000, "subject_id", "study_id", "study_id"),
    )
    place.select("subject_id", "study_id", pl.col("study_id").alias("file_name"), "ecg_time", "path").write_csv(
        folder / TABLES[0]
    )

    def drawn(lines: tuple[str, ...] | list[str], share: float = 1.0) -> pl.Series:
        line = pl.DataFrame({"line": pl.Series(lines).gather(rng.integers(0, len(lines), rows))})
        return line.select(pl.when(pl.Series(rng.random(rows) < share)).then("line"))["line"]

    every = findings()
    reports = [drawn(_RHYTHMS), drawn(_OTHERS, 0.5), drawn(every[:240], 0.25), drawn(every[240:336], 0.2)]
    reports += [drawn(every, 0.05), drawn(_VERDICTS)]
    blank = pl.Series([None], dtype=pl.String).new_from_index(0, rows)
    columns = dict(zip(_REPORTS, [*reports, *(blank for _ in range(12))], strict=True))
    p_onset = rng.integers(1, 60, rows)
    qrs_onset = p_onset + rng.integers(100, 240, rows)
    numbers = {
        "rr_interval": np.where(rng.random(rows) < 0.001, 65535, rng.integers(450, 1300, rows)),
        "p_onset": np.where(rng.random(rows) < 0.15, 29999, p_onset),
        "p_end": np.where(rng.random(rows) < 0.29, 29999, p_onset + 90),
        "qrs_onset": qrs_onset,
        "qrs_end": qrs_onset + rng.integers(70, 160, rows),
        "t_end": qrs_onset + rng.integers(320, 470, rows),
        "p_axis": rng.integers(-30, 90, rows),
        "qrs_axis": rng.integers(-90, 120, rows),
        "t_axis": rng.integers(-30, 120, rows),
    }
    place.select("subject_id", "study_id", pl.lit(6848296).alias("cart_id"), "ecg_time").with_columns(
        *(line.alias(name) for name, line in columns.items()),
        bandwidth=pl.lit("0.005-150 Hz"),
        filtering=pl.lit("60 Hz notch Baseline filter"),
        **{name: pl.Series(values) for name, values in numbers.items()},
    ).write_csv(folder / TABLES[1])


def scan_ours(folder: Path) -> int:
    """Rows of our item table."""
    from qoq_data.formats.storage import Store
    from qoq_data.sources.mimic_ecg import Options, scan

    return scan(Store(folder), Options()).collect().height


def scan_with_pandas(folder: Path) -> int:
    """Rows of the table as one writes it by hand: merged, and each row's lines looked up one after another."""
    import pandas as pd

    from qoq_data.clinical.statements import normalise
    from qoq_data.sources.mimic_ecg import TABLE

    text = dict.fromkeys(_REPORTS, str)
    measured = pd.read_csv(folder / TABLES[1], dtype=text)
    merged = pd.read_csv(folder / TABLES[0]).merge(measured, on="study_id")
    known: dict[str, frozenset[str]] = {}

    def marks(row: pd.Series) -> list[str]:
        found: set[str] = set()
        for name in _REPORTS:
            line = row[name]
            if isinstance(line, str):
                if line not in known:
                    known[line] = TABLE.marks(normalise(line))
                found |= known[line]
        return sorted(found)

    merged["labels"] = merged.apply(marks, axis=1)
    merged["heart_rate"] = 60_000 / merged["rr_interval"]
    merged["pr_interval"] = merged["qrs_onset"] - merged["p_onset"]
    merged["qrs_duration"] = merged["qrs_end"] - merged["qrs_onset"]
    merged["qt_interval"] = merged["t_end"] - merged["qrs_onset"]
    return len(merged)


def read_bytes(folder: Path) -> int:
    """Bytes of the two tables."""
    return sum(len((folder / name).read_bytes()) for name in TABLES)


WAYS = {"ours": scan_ours, "pandas": scan_with_pandas, "bytes": read_bytes}
IMPORTS = {"ours": ("qoq_data.sources.mimic_ecg",), "pandas": ("pandas",)}


def run(quick: bool) -> Result:
    """Seconds and peak memory of each way, the median of three runs (pandas: of one); quick: of one."""
    name = "scan"
    return scan_result(name, QUICK_ROWS if quick else TRUE_ROWS, turns=1 if quick else 3, once=("pandas",))
