"""Georgia: 10,344 twelve-lead ECGs of a hospital in the south-east of the USA, from the PhysioNet/CinC Challenges.

Nearly all last 10 s, some 5 s, at 500 Hz. Labels are SNOMED CT codes in the headers. The flat folder of the challenge's
archive and the folders ``g1`` to ``g11`` on PhysioNet are the same records; either is found by itself.

What goes wrong with the published conversion (CLIMB, BenchMD), and what is done here:

* Names of codes are lower case in its map and not in its lists of classes, so that 18 codes give nothing: atrial
  fibrillation in 570 records, flutter in 186, anterior ischaemia in 281. One name carries a no-break space besides.
  Here codes are looked up, not names.
* One class is drawn at random among those that hold, and from all seven for the 107 records where none holds: so all
  16 that end as atrial fibrillation came about. Here the answer is the set, and a record that no class is known of has
  no answer.
* Ischaemia counts as infarction, intraventricular delay and long QT as other, premature beats as conduction, an axis as
  hypertrophy. ``data/snomed_seven_class.csv`` has our class beside the published one, with the reason.
* Sinus rhythm, bradycardia, tachycardia and arrhythmia count as normal beside other classes. Here normal is a sinus
  rhythm alone.
* Records of other lengths than 5000 samples are dropped. Here they keep their length, and a recipe's window cuts or
  pads them.
* Samples are divided by the recording's own range, which takes the voltage away. Here they stay millivolts.
* The total of 20,689 is twice 10,344 and one: the records have been counted twice.

The record line names the record with its ``.mat``, and dates come in several orders: a common library refuses such
headers, this one reads them. No patient numbers are published, nor how the labels were made.

Licence: the challenge's, CC BY 4.0. The public domain label on a Kaggle copy is not the publisher's.
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
    source="georgia",
    prefix="E",
    name=re.compile(r"E([0-9]{5})"),
    layouts=(Layout("challenge-2021", ("WFDB_Ga",)), Layout("challenge-2021", ("training/georgia",))),
    published_map="georgia",
    rhythms=("426783006", "426177001", "427084000", "427393009", "164889003", "164890007"),
)

SPEC = SourceSpec(
    name="georgia",
    title="Georgia 12-lead ECG Challenge Database",
    domain=Domain.ECG,
    modality="12-lead ECG",
    homepage="https://physionet.org/content/challenge-2021/1.0.3/",
    citation="Perez Alday EA, Gu A, Shah AJ, et al. Classification of 12-lead ECGs: the PhysioNet/Computing in "
    "Cardiology Challenge 2020. Physiological Measurement 41:124003 (2020). Reyna MA, Sadr N, Perez Alday EA, et al. "
    "Will Two Do? Varying Dimensions in Electrocardiography: The PhysioNet/Computing in Cardiology Challenge 2021. "
    "Computing in Cardiology 48:1-4 (2021). doi:10.13026/34va-7q14. Goldberger A, et al. PhysioBank, PhysioToolkit, "
    "and PhysioNet. Circulation 101(23):e215-e220 (2000).",
    licences={"media": CC_BY_4, "labels": CC_BY_4},
    access=Access.OPEN,
    access_steps=(
        "No account is needed.",
        "wget -r -N -c -np https://physionet.org/files/challenge-2021/1.0.3/training/georgia/",
        "The raw folder is then physionet.org/files/challenge-2021/1.0.3, the one that holds training/.",
        "Of the challenge's archive instead: the folder that holds WFDB_Ga/.",
    ),
    identity_group="georgia",
    grouping="No patient numbers are published, so each record is a group of its own; a second record of one patient, "
    "if there is any, may stand on another side.",
    versions=(SourceVersion("challenge-2021", 10_344),),
    expected_files=(
        ExpectedFile("WFDB_Ga/", other_names=("training/georgia/",)),
        ExpectedFile("training/georgia/", required=False),
        ExpectedFile("SHA256SUMS.txt", required=False),
    ),
    tasks=challenge_tasks(RECORDS.rhythms),
    context_fields=("age", "sex"),
    published_items=20_689,
    checksums_file="SHA256SUMS.txt",
    bytes_per_row=120_000,
    # Records of a code in no class alone (140 of early repolarisation) or of two sinus rhythms at once have no answer.
    skip_limit=0.05,
    synthetic=(
        SyntheticTask(
            "seven_class",
            (
                *("q_depth_ii", "t_amplitude_v5", "st_level_v2", "qrs_width", "r_amplitude_v5"),
                *("rr_irregularity", "p_wave_amplitude", "frontal_axis"),
            ),
        ),
        SyntheticTask("rhythm", ("heart_rate", "rr_irregularity", "p_wave_amplitude", "qrs_width")),
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
    """A miniature of the archive, a record a patient, every ninth of 5 s, dates in each of the orders seen.

    From the twelfth patient on one record has only an unknown code.
    """
    from qoq_data.sources._challenge_tree import COMMON_CASES, Style, challenge_files, write_files

    style = Style(
        path_of=lambda number: f"WFDB_Ga/E{number:05d}",
        cases=COMMON_CASES,
        dates=("05-May-2020 14:50:55", "2014-05-08 05:05:15", "05-May-2020 09:49:17", "2006"),
        ages=("", "", "", "", "NaN"),
        lengths_s=(10.0,) * 8 + (5.0,),
        history=("Rx", "Hx"),
        names_extension=True,
    )
    write_files(folder, challenge_files(seed, patients, style))
