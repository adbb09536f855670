"""A miniature of the MIMIC-IV-ECG 1.0 tree: the publisher's names, headers and quirks, with generated people in it.

``data/mimic_ecg_synthetic.csv`` holds what a kind of recording looks like (a preset of ``synthetic_ecg``) and what the
device says of it, in each of its spellings.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qoq_data.clinical.leads import MISSING_INT16, STANDARD_12
from qoq_data.clinical.synthetic_ecg import SyntheticECG, preset, synthesize_ecg
from qoq_data.formats.wfdb_write import write_record_16
from qoq_data.sources._published_files import csv_bytes, write_with_checksums

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
REPORT_COLUMNS = tuple(f"report_{place}" for place in range(18))
_MARKS = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis")
_PLACES = ("subject_id", "study_id", "cart_id", "ecg_time")
MEASUREMENT_COLUMNS = (*_PLACES, *REPORT_COLUMNS, "bandwidth", "filtering", *_MARKS)
NOT_MEASURED = 29999
_GAIN = 200.0
_FREQUENCY_HZ, _SECONDS = 500, 10
_STANDARD_PLACES = [STANDARD_12.index(name) for name in LEADS]
_BANDWIDTHS = ("0.005-150 Hz", "0.0005-150 Hz", "0.05-150 Hz")
_FILTERS = ("60 Hz notch Baseline filter",) * 8 + ("<not specified>", "Baseline filter", "50 Hz notch Baseline filter")


class Kind(NamedTuple):
    """A kind of recording: its name, how it looks, and the report lines of the device; a blank line stays blank."""

    name: str
    preset: str
    lines: tuple[str, ...]


class Recording(NamedTuple):
    """One recording's place in the tables: who, which, when, and where below the root (without an ending)."""

    subject_id: int
    study_id: int
    time: str
    path: str


def kinds() -> tuple[Kind, ...]:
    """Every kind of recording, in the order in which the first recordings of a tree take them."""
    with (Path(__file__).parent / "data" / "mimic_ecg_synthetic.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return tuple(Kind(row["kind"], row["preset"], tuple(row["lines"].split("|"))) for row in rows)


def write_tree(folder: Path, seed: int, patients: int) -> None:
    """Write the tree of ``patients`` people, three recordings each on average; the same bytes for the same arguments.

    Kinds take turns, so that each is there as soon as there are recordings enough. A recording of kind ``gaps`` has
    missing samples in V3, one of kind ``flat`` a V6 of zeros.
    """
    rng = np.random.default_rng(seed)
    every = kinds()
    records, measurements, links = [], [], []
    files: dict[str, bytes] = {}
    studies = iter(40_000_000 + rng.permutation(9_000_000)[: 4 * patients])
    number = 0
    for subject_id in sorted(10_000_000 + rng.choice(9_999_999, patients, replace=False)):
        for sequence in range(2 + number % 3):
            kind = every[number % len(every)]
            recording = _recording(int(subject_id), int(next(studies)), rng)
            ecg = preset(kind.preset, rng)
            files |= _waveform(recording, kind, ecg, rng)
            records.append(
                (recording.subject_id, recording.study_id, recording.study_id, recording.time, recording.path)
            )
            measurements.append(measurement_row(recording, kind, ecg, rng))
            if sequence == 0:
                note = (f"{subject_id}-EK-{sequence + 1}", sequence + 1, recording.time)
                links.append((subject_id, recording.study_id, recording.path, *note))
            number += 1
    files["record_list.csv"] = csv_bytes(("subject_id", "study_id", "file_name", "ecg_time", "path"), records)
    files["machine_measurements.csv"] = csv_bytes(MEASUREMENT_COLUMNS, measurements)
    files["machine_measurements_data_dictionary.csv"] = csv_bytes(
        ("Variable", "Description "),
        ((name, "Generated, see the publisher's dictionary") for name in MEASUREMENT_COLUMNS),
    )
    files["waveform_note_links.csv"] = csv_bytes(
        ("subject_id", "study_id", "waveform_path", "note_id", "note_seq", "charttime"), links
    )
    files["LICENSE.txt"] = b"Generated files in the layout of MIMIC-IV-ECG 1.0; they show nobody. CC0-1.0.\n"
    write_with_checksums(folder, files)


def measurement_row(recording: Recording, kind: Kind, ecg: SyntheticECG, rng: np.random.Generator) -> list[object]:
    """One row of the measurements' table, in the order of MEASUREMENT_COLUMNS."""
    lines = [*kind.lines, *("" for _ in range(len(REPORT_COLUMNS) - len(kind.lines)))]
    cart = int(rng.integers(6_800_000, 6_900_000))
    filters = (str(rng.choice(_BANDWIDTHS)), str(rng.choice(_FILTERS)))
    return [recording.subject_id, recording.study_id, cart, recording.time, *lines, *filters, *_marks(kind, ecg)]


def _marks(kind: Kind, ecg: SyntheticECG) -> list[int]:
    """The device's intervals and axes, measured right, but for the values that stand for 'not measured'."""
    rr = round(60_000 / ecg.heart_rate_bpm)
    p_onset, p_end = (40, 130) if ecg.p_wave else (NOT_MEASURED, NOT_MEASURED)
    qrs_onset = 40 + round(ecg.pr_ms)
    qrs_end = qrs_onset + round(ecg.qrs_ms)
    t_end = qrs_onset + round(ecg.qtc_ms * (rr / 1000) ** 0.5 + max(0.0, ecg.qrs_ms - 90))
    axis = round(ecg.axis_degrees)
    if kind.name == "unsuitable":
        return [65535, NOT_MEASURED, NOT_MEASURED, 0, 0, 0, 32767, -32768, -32767]
    return [rr, p_onset, p_end, qrs_onset, qrs_end, t_end, 50 if ecg.p_wave else NOT_MEASURED, axis, 40]


def _recording(subject_id: int, study_id: int, rng: np.random.Generator) -> Recording:
    year, month, day = int(rng.integers(2110, 2201)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    time = f"{year}-{month:02d}-{day:02d} {rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}:00"
    path = f"files/p{subject_id // 10_000}/p{subject_id}/s{study_id}/{study_id}"
    return Recording(subject_id, study_id, time, path)


def _waveform(recording: Recording, kind: Kind, ecg: SyntheticECG, rng: np.random.Generator) -> dict[str, bytes]:
    if kind.name == "unsuitable":
        ecg = replace(ecg, noise_mv=0.6, baseline_wander_mv=1.5)
    signal_mv = synthesize_ecg(ecg, _FREQUENCY_HZ, _SECONDS, rng)[_STANDARD_PLACES]
    samples: NDArray[np.int16] = np.clip(np.rint(signal_mv * _GAIN), -32767, 32767).astype(np.int16)
    if kind.name == "gaps":
        samples[LEADS.index("V3"), 1200:1450] = MISSING_INT16
    if kind.name == "flat":
        samples[LEADS.index("V6")] = 0
    date, clock = recording.time.split(" ")
    date_text = f"{clock} {'/'.join(reversed(date.split('-')))}"
    comment = f" <subject_id>: {recording.subject_id}"
    name = str(recording.study_id)
    header, data = write_record_16(
        name, samples, LEADS, _FREQUENCY_HZ, gain=_GAIN, date_text=date_text, comments=(comment,)
    )
    return {f"{recording.path}.hea": header, f"{recording.path}.dat": data}
