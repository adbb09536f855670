"""Chapman, Shaoxing and Ningbo: 45,152 twelve-lead ECGs of 10 s with rhythms and conditions as SNOMED CT codes.

JS00001 to JS10646 come from Shaoxing People's Hospital (10,247 records), the rest from Ningbo First Hospital (34,905).
They are handed out as ``ecg-arrhythmia`` 1.0.0 and, the same records, in the PhysioNet/CinC Challenge 2021; either
layout is found by itself, and JS23074, which the challenge names S23074, is one item in both.

What goes wrong with the published conversion (CLIMB, BenchMD), and what is done here:

* One class is drawn at random among those that hold, and from all seven where none holds. Here the answer is the set,
  and a record that no class is known of has no answer.
* Its map has the 54 codes of the first 10,247 records: 40 of Ningbo's 80 codes raise an error in a plain look-up. Here
  ``data/snomed_seven_class.csv`` has them all, ten of which no published map holds. The release's list of conditions
  has one more, 233896004. An unknown code is counted, and takes normal and the rhythm away.
* Right bundle branch block (59118001) is lost to letter case; ventricular rotation counts as hypertrophy, low voltage
  as conduction. Here codes are looked up, not names, and each code has one class.
* Sinus rhythm, bradycardia and tachycardia count as normal beside other classes. Here normal is a sinus rhythm alone.
* Records of other lengths than 5000 samples are dropped. Here they keep their length, and a recipe's window cuts or
  pads them.
* Samples are divided by the recording's own range, which takes the voltage away. Here they stay millivolts.

No patient numbers are published; the authors speak of one record a patient. A header that cannot be read (that of
JS01052 has its first two lines merged) is a ledger line. 1,480 Ningbo records hold a lead that is zero throughout: they
stay, with the finding in ``quality``.
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
from qoq_data.sources._challenge_codes import CODES, Options, challenge_tasks
from qoq_data.sources._published_files import csv_bytes, write_with_checksums

RECORDS = RecordSet(
    source="chapman",
    prefix="JS",
    name=re.compile(r"J?S([0-9]{5})"),
    layouts=(
        Layout("1.0.0", ("WFDBRecords",)),
        Layout("challenge-2021", ("WFDB_ChapmanShaoxing", "WFDB_Ningbo")),
        Layout("challenge-2021", ("training/chapman_shaoxing", "training/ningbo")),
    ),
    published_map="chapman",
    rhythms=("426783006", "426177001", "427084000", "427393009", "164889003", "164890007", "10370003"),
)
_FOLDERS = tuple(f"{folder}/" for layout in RECORDS.layouts for folder in layout.folders)

SPEC = SourceSpec(
    name="chapman",
    title="Chapman-Shaoxing-Ningbo 12-lead ECG arrhythmia database",
    domain=Domain.ECG,
    modality="12-lead ECG",
    homepage="https://physionet.org/content/ecg-arrhythmia/1.0.0/",
    citation="Zheng J, Guo H, Chu H. A large scale 12-lead electrocardiogram database for arrhythmia study "
    "(version 1.0.0). PhysioNet, 2022. Reyna MA, Sadr N, Perez Alday EA, et al. Will Two Do? Varying Dimensions in "
    "Electrocardiography: The PhysioNet/Computing in Cardiology Challenge 2021. Computing in Cardiology 48:1-4 (2021). "
    "Goldberger A, et al. PhysioBank, PhysioToolkit, and PhysioNet. Circulation 101(23):e215-e220 (2000).",
    licences={"media": CC_BY_4, "labels": CC_BY_4},
    access=Access.OPEN,
    access_steps=(
        "No account is needed.",
        "wget -r -N -c -np https://physionet.org/files/ecg-arrhythmia/1.0.0/",
        "The raw folder is then physionet.org/files/ecg-arrhythmia/1.0.0, the one that holds WFDBRecords/.",
        "Or, of the challenge, the folder that holds training/ningbo/, or WFDB_ChapmanShaoxing/ and WFDB_Ningbo/.",
    ),
    identity_group="chapman",
    grouping="No patient numbers are published, so each record is a group of its own; a second record of one patient, "
    "if there is any, may stand on another side.",
    versions=(SourceVersion("1.0.0", 45_152), SourceVersion("challenge-2021", 45_152)),
    expected_files=(
        ExpectedFile(_FOLDERS[0], other_names=_FOLDERS[1:]),
        *(ExpectedFile(folder, required=False) for folder in _FOLDERS[1:]),
        *(
            ExpectedFile(path, required=False)
            for path in ("ConditionNames_SNOMED-CT.csv", "RECORDS", "LICENSE.txt", "SHA256SUMS.txt")
        ),
    ),
    tasks=challenge_tasks(RECORDS.rhythms),
    context_fields=("age", "sex"),
    published_items=40_258,
    checksums_file="SHA256SUMS.txt",
    bytes_per_row=120_000,
    # A record of two sinus rhythms and nothing else, such as slow and irregular, has no answer: 1 of 45 real ones.
    skip_limit=0.1,
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
    """A miniature of ecg-arrhythmia 1.0.0, a record a patient.

    From the fourth patient on one record has a lead of zeros; from the twelfth on one has only an unknown code; from
    the 48th on one header has its first two lines merged.
    """
    from qoq_data.sources._challenge_tree import COMMON_CASES, Case, Style, challenge_files

    def path_of(number: int) -> str:
        first, last = divmod(number // 100, 10)
        return f"WFDBRecords/{first + 1:02d}/{first + 1:02d}{last}/JS{number:05d}"

    style = Style(
        path_of=path_of,
        cases=(*COMMON_CASES, Case("paced", "10370003"), Case("paced", "10370003,427172004")),
        dates=("", "23-Mar-2021 21:21:56"),
        ages=("", "", "", "", "NaN", "", "", "4"),
        has_dead_lead=True,
        odd_headers=True,
    )
    files = challenge_files(seed, patients, style)
    folders = sorted({f"{path.rpartition('/')[0]}/" for path in files})
    names = ([row["abbreviation"], row["name"], code] for code, row in CODES.items() if row["published_chapman"])
    header = ("Acronym Name", "Full Name", "Snomed_CT")
    files["ConditionNames_SNOMED-CT.csv"] = b"\xef\xbb\xbf" + csv_bytes(header, names)
    files["RECORDS"] = "".join(f"{one}\n" for one in folders).encode()
    files["LICENSE.txt"] = b"Creative Commons Attribution 4.0 International Public License\n"
    write_with_checksums(folder, files)
