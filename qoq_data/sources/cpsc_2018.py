"""CPSC 2018: 6,877 twelve-lead ECGs of eleven Chinese hospitals, 6 to 144 s long, with one to three of nine labels.

The set of the China Physiological Signal Challenge 2018 as the PhysioNet/CinC Challenges hand it out, with SNOMED CT
codes in the headers. The flat folder of the challenge's archive and the folders ``g1`` to ``g7`` on PhysioNet are the
same records; either is found by itself.

What goes wrong with the published conversion (CLIMB, BenchMD), and what is done here:

* Atrial fibrillation (1,221 records) is in two classes, fibrillation and conduction. Here it is in one.
* Left bundle branch block (236 records) is in no class. Here it is a conduction disturbance.
* Ventricular ectopic beats count as conduction. Here they are other, as premature beats are in every source.
* One class is drawn at random among those that hold, and from all seven for the 179 records where none holds. Here the
  answer is the set.
* Records of other lengths than 5000 samples are dropped, which are nearly two thirds: 2,416 last exactly 10 s. Here
  they keep their length. ``signals.window_s: 10`` of a recipe keeps the first 10 s and pads shorter ones with gaps.
* Samples are divided by the recording's own range, which takes the voltage away. Here they stay millivolts.

Only nine findings were labelled: sinus rhythm stands for the label "normal", and what is not among the nine was never
looked for. So the rhythm has two choices here, and infarction and hypertrophy are never an answer.

No patient numbers are published. An age of 92 stands for over 89 in PhysioNet's copy; -1 and NaN are no age. 50 records
clip at 32.767 mV: they stay, with the finding in ``quality``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from qoq_data.formats.storage import Store
from qoq_data.licence import CC_BY_4, Access
from qoq_data.record import Domain
from qoq_data.source import ExpectedFile, SourceSpec, SourceVersion, SyntheticTask
from qoq_data.sources._challenge import Layout, RecordSet, find_layout, record_statistics, scan_records
from qoq_data.sources._challenge_codes import Options, challenge_tasks

RECORDS = RecordSet(
    source="cpsc-2018",
    prefix="A",
    name=re.compile(r"A([0-9]{4})"),
    layouts=(Layout("challenge-2021", ("WFDB_CPSC2018",)), Layout("challenge-2021", ("training/cpsc_2018",))),
    published_map="cpsc",
    rhythms=("426783006", "164889003"),
)

SPEC = SourceSpec(
    name="cpsc-2018",
    title="China Physiological Signal Challenge 2018",
    domain=Domain.ECG,
    modality="12-lead ECG",
    homepage="https://physionet.org/content/challenge-2021/1.0.3/",
    citation="Liu F, Liu C, Zhao L, et al. An Open Access Database for Evaluating the Algorithms of Electrocardiogram "
    "Rhythm and Morphology Abnormality Detection. Journal of Medical Imaging and Health Informatics 8(7):1368-1373 "
    "(2018). Reyna MA, Sadr N, Perez Alday EA, et al. Will Two Do? Varying Dimensions in Electrocardiography: The "
    "PhysioNet/Computing in Cardiology Challenge 2021. Computing in Cardiology 48:1-4 (2021). doi:10.13026/34va-7q14. "
    "Goldberger A, et al. PhysioBank, PhysioToolkit, and PhysioNet. Circulation 101(23):e215-e220 (2000).",
    licences={"media": CC_BY_4, "labels": CC_BY_4},
    access=Access.OPEN,
    access_steps=(
        "No account is needed.",
        "wget -r -N -c -np https://physionet.org/files/challenge-2021/1.0.3/training/cpsc_2018/",
        "The raw folder is then physionet.org/files/challenge-2021/1.0.3, the one that holds training/.",
        "Of the challenge's archive instead: the folder that holds WFDB_CPSC2018/.",
    ),
    identity_group="cpsc-2018",
    grouping="No patient numbers are published, so each record is a group of its own; a second record of one patient, "
    "if there is any, may stand on another side.",
    versions=(SourceVersion("challenge-2021", 6_877),),
    expected_files=(
        ExpectedFile("WFDB_CPSC2018/", other_names=("training/cpsc_2018/",)),
        ExpectedFile("training/cpsc_2018/", required=False),
        ExpectedFile("SHA256SUMS.txt", required=False),
    ),
    tasks=challenge_tasks(RECORDS.rhythms),
    context_fields=("age", "sex"),
    published_items=6_192,
    checksums_file="SHA256SUMS.txt",
    bytes_per_row=190_000,
    synthetic=(
        SyntheticTask(
            "seven_class",
            ("st_level_v2", "st_level_ii", "qrs_width", "rr_irregularity", "p_wave_amplitude", "pr_interval"),
        ),
        SyntheticTask("rhythm", ("rr_irregularity", "p_wave_amplitude")),
    ),
)


def detect_version(tree: Store) -> str:
    """The release by its folders; raises ``LayoutError``."""
    return find_layout(tree, RECORDS).version


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """A row a record, from its header; raises ``LayoutError`` and ``TableError``."""
    return scan_records(tree, RECORDS, options)


def statistics(tree: Store, options: Options) -> Mapping[str, int]:
    """Counts of what the headers hold, and of records without an answer under these options."""
    return record_statistics(tree, RECORDS, options)


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A miniature of the archive, a record a patient, of 6 to 30 s.

    From 60 patients on one record has only an unknown code.
    """
    from qoq_data.sources._challenge_tree import CPSC_CASES, Style, challenge_files, write_files

    style = Style(
        path_of=lambda number: f"WFDB_CPSC2018/A{number:04d}",
        cases=CPSC_CASES,
        dates=("05-Feb-2020 11:39:16", "12-May-2020 12:33:59"),
        ages=("", "", "92", "", "-1", "", "", "NaN"),
        lengths_s=(10.0, 12.0, 15.0, 7.5, 10.0, 17.346, 6.0, 10.0, 30.0),
        odd_from=60,
    )
    write_files(folder, challenge_files(seed, patients, style))
