"""CoronaHack: chest films of Kermany's children (normal, bacterial, viral) and some 70 of Cohen's collection.

``Chest_xray_Corona_Metadata.csv`` has a row a film: name, ``Label`` (Normal, and Pnemonia, spelt so), side, and two
columns on the cause. Films lie in ``train`` and ``test`` below ``Coronahack-Chest-XRay-Dataset``, which the archive
nests in a folder of its own name; both depths are read.

What the published conversion does, and what this source does instead:

* it drops rows with a pneumonia of other cause (2, of smoking) and says nothing. Here they are items without an answer
  and so ledger lines, and ``statistics`` counts them. So is a pneumonia whose cause is blank;
* it compares ``Virus`` and ``bacteria`` as they are spelt. Here letter case, and Pnemonia or Pneumonia, do not matter,
  and a value that is none of the known ones stops the scan;
* it reads ``Label`` and ``Label_1_Virus_category`` and believes both. Here a normal row that names a cause, a germ that
  is none of its cause, and a file name that says another cause leave no answer (``label_conflict``);
* it names a record by its path, and ``person1_virus_6.jpeg`` is its answer. Here ids are digests of paths.

COVID-19 and SARS answer "Viral pneumonia", as published, which is true. Which virus is not asked: 58 films of COVID-19
and 4 of SARS come out of papers, most of adults, all others are of children and unnamed: age and frame would tell it.

Patients: names of pneumonia films begin ``person1019_bacteria_``. 979 of the 1,667 person numbers stand with a virus
and with bacteria, so numbers begin anew with each kind, and the two together are taken for the patient. In the real
table none of these 2,646 stands in both sides, while 170 of the bare numbers would. Normal films (``IM-0128-``,
``NORMAL2-IM-0128-``) have a number of a study or a patient; films with one number and prefix are one group (none in
both sides; 94 bare numbers are). Figures of one paper are a group too. Others stand alone, but for equal content.

The table of June 2020 has 6,197 rows: 5,910 as in the release, and 287 named ``COVID19_0.jpg`` and on. Where their
pictures are not in the archive they are ledger lines.

Licence: Kaggle's page says CC BY 4.0. That is Kermany's licence; Cohen's pictures each have their own. So films are not
passed on, only ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from qoq_data.errors import LayoutError, Reason
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.licence import CC_BY_4, Access, Licence, Redistribution
from qoq_data.record import AnswerType, Domain
from qoq_data.source import Choice, ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask, Task
from qoq_data.sources._class_folders import is_picture
from qoq_data.sources._drawn_scans import CHEST_FEATURES, Chest, draw_chest, encoded
from qoq_data.sources._item_rows import image_medium, item_of_path, item_table, refuse_rows
from qoq_data.sources._published_files import csv_bytes

TABLE = "Chest_xray_Corona_Metadata.csv"
NAME, LABEL, SIDE = "X_ray_image_name", "Label", "Dataset_type"
GERM, CAUSE = "Label_2_Virus_category", "Label_1_Virus_category"
COLUMNS = (NAME, LABEL, SIDE, GERM, CAUSE)
ROOT = "Coronahack-Chest-XRay-Dataset"
HOMES = (f"{ROOT}/{ROOT}", ROOT)
SIDES = ("train", "test")
CAUSE_OF_GERM = {"covid-19": "virus", "sars": "virus", "streptococcus": "bacteria", "ards": "stress-smoking"}
ANSWERS = {"virus": "ViralPneumonia", "bacteria": "BacterialPneumonia"}
LABELS = ("normal", "pnemonia", "pneumonia")
KNOWN = {LABEL: LABELS, SIDE: SIDES, GERM: tuple(CAUSE_OF_GERM), CAUSE: (*ANSWERS, "stress-smoking")}
_PERSON = re.compile(r"person(\d+)_(virus|bacteria)_", re.IGNORECASE)
_NORMAL = re.compile(r"(?:NORMAL2-)?IM-\d+-", re.IGNORECASE)
_GROUP = re.compile(
    r"(?:NORMAL2-)?IM-\d+(?=-)|SARS-10\.\d+rg\.\d+|(?:kjr|jkms)-\d+-e\d+|1-s2\.0-S\w+|\d+_\d{4}_\d+_Fig\d+|gr\d+_lrg"
    r"|streptococcus-pneumoniae-pneumonia(?:-temporal-evolution-\d+)?|acute-respiratory-distress-syndrome-ards",
    re.IGNORECASE,
)
_LOOKS: Mapping[str, Chest] = {"normal": "clear", "bacteria": "patch", "virus": "grainy"}
_PAGE = "https://www.kaggle.com/datasets/praveengovi/coronahack-chest-xraydataset"
_TERMS = Licence(
    "LicenseRef-CoronaHack",
    "CC BY 4.0 on the page of the set, whose COVID-19 films each have terms of their own",
    _PAGE,
    Redistribution.IDS,
)

SPEC = SourceSpec(
    name="coronahack",
    title="CoronaHack Chest X-Ray Dataset",
    domain=Domain.CHEST_XRAY,
    modality="chest X-ray",
    homepage=_PAGE,
    citation="Govi P. CoronaHack - Chest X-Ray-Dataset. Kaggle, 2020. From: Kermany D, Zhang K, Goldbaum M. Labeled "
    "Optical Coherence Tomography (OCT) and Chest X-Ray Images. Mendeley Data, 2018; Cohen JP, Morrison P, Dao L. "
    "COVID-19 image data collection. arXiv:2003.11597, 2020",
    licences={"media": _TERMS, "labels": CC_BY_4},
    access=Access.REGISTERED,
    access_steps=(
        f"Sign in at Kaggle, open {_PAGE} and fetch the archive.",
        f"Unpack it into an empty folder, which then holds {TABLE} and {ROOT}/. Give that folder as --raw.",
    ),
    identity_group="coronahack",
    grouping="By the person number and kind in the names of pneumonia films, by the number in the names of normal ones "
    "and by the paper of a figure; equal pictures and near copies are put together too. That the numbers are patients "
    "is read from the names and not stated.",
    versions=(SourceVersion("2020", 5910, None),),
    expected_files=(
        ExpectedFile(TABLE, columns=COLUMNS),
        *(ExpectedFile(f"{HOMES[0]}/{side}/", other_names=(f"{HOMES[1]}/{side}/",)) for side in SIDES),
    ),
    tasks=(
        Task(
            "pneumonia_type",
            AnswerType.ONE,
            (
                "Which of these describes the lungs on this radiograph?",
                "Look at the chest film. To which group does it belong?",
                "This is a frontal X-ray of a chest. Choose the reading that fits it.",
                "Does the radiograph show an infection of the lungs, and if so, caused by what?",
                "Assign the chest X-ray to one of the categories below.",
            ),
            (
                Choice("Normal", "Normal"),
                Choice("BacterialPneumonia", "Bacterial pneumonia"),
                Choice("ViralPneumonia", "Viral pneumonia"),
            ),
        ),
    ),
    published_items=5908,
    inspectors=("picture_content",),
    skip_limit=0.06,  # with the table of June 2020, 287 rows without a picture and 2 of smoking are 4.7 % of 6,197
    synthetic=(SyntheticTask("pneumonia_type", CHEST_FEATURES),),
)


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a row of the table; raises ``TableError`` for a value that is not known, ``LayoutError`` for no films."""
    table, home = _table(tree), _home(tree)
    return item_table(_rows(table, home), {"pneumonia_type": pl.List(pl.String)})


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """What the rows say, and how table and folders disagree."""
    table, home = _table(tree), _home(tree)
    named = {f"{side}/{name}" for side, name in table.select(SIDE, NAME).iter_rows()}
    found = {f"{side}/{name}" for side in SIDES for name in tree.names(f"{home}/{side}") if is_picture(name)}
    pneumonia, cause, germ = pl.col(LABEL) != "normal", pl.col(CAUSE), pl.col(GERM)
    counted = {
        "rows": pl.lit(value=True),
        "normal_rows": ~pneumonia,
        "bacterial_rows": pneumonia & (cause == "bacteria"),
        "viral_rows": pneumonia & (cause == "virus"),
        "viral_rows_with_covid_19": pneumonia & (germ == "covid-19"),
        "viral_rows_with_sars": pneumonia & (germ == "sars"),
        "pneumonia_of_smoking_rows": pneumonia & (cause == "stress-smoking"),
        "pneumonia_without_cause_rows": pneumonia & cause.is_null(),
    }
    counts = {name: table.filter(which).height for name, which in counted.items()}
    return counts | {"rows_without_a_picture": len(named - found), "pictures_without_a_row": len(found - named)}


def _table(tree: Store) -> pl.DataFrame:
    """The table with all but names in lower case; the line of each row is ``line``."""
    table = read_table(tree, TABLE, dict.fromkeys(COLUMNS, pl.String))
    table = table.with_columns(pl.col(LABEL, SIDE, GERM, CAUSE).str.strip_chars().str.to_lowercase())
    refused = {
        f"the value in column {name!r} is none of {', '.join(values)}": ~pl.col(name).is_in(values)
        for name, values in KNOWN.items()
    }
    blank = {f"the column {name!r} is blank": pl.col(name).is_null() for name in (NAME, LABEL, SIDE)}
    path = {f"the column {NAME!r} holds a path and not a name": pl.col(NAME).str.contains(r"[/\\]|^\.")}
    refuse_rows(table, TABLE, blank | refused | path)
    return table.with_row_index("line", offset=2)


def _home(tree: Store) -> str:
    """The folder of ``train`` and ``test``, at either depth."""
    home = next((one for one in HOMES if any(tree.is_folder(f"{one}/{side}") for side in SIDES)), HOMES[0])
    absent = next((side for side in SIDES if not tree.is_folder(f"{home}/{side}")), None)
    if absent:
        raise LayoutError(f"{SPEC.name}: there is no folder {home}/{absent}/ in the raw folder. Unpack it again.")
    return home


def _rows(table: pl.DataFrame, home: str) -> Iterator[Mapping[str, Any]]:
    for line, name, label, side, germ, cause in table.select("line", *COLUMNS).iter_rows():
        path = f"{side}/{name}"
        person, other = _PERSON.match(name), _GROUP.match(name)
        named = person[2].lower() if person else "normal" if _NORMAL.match(name) else None
        answer, conflict = _answer(label, cause, germ, named)
        patient = f"person {person[1]} {person[2].lower()}" if person else None
        yield {
            "item": item_of_path(path),
            "patient": patient,
            "group": patient or (f"name:{other[0].lower()}" if other else f"picture:{name.lower()}"),
            "official_split": side,
            "media": [image_medium(f"{home}/{path}")],
            "label_file": TABLE,
            "label_row": f"line {line}",
            "answer.pneumonia_type": [answer] if answer else None,
            "skip_reason": str(Reason.LABEL_CONFLICT) if conflict else None,
            "skip_detail": conflict,
        }


def _answer(label: str, cause: str | None, germ: str | None, named: str | None) -> tuple[str | None, str | None]:
    """The answer of a row, or what in it disagrees; neither where a pneumonia has another cause, or none stated."""
    if label == "normal" and (cause or germ):
        return None, "the table calls the film normal and names a cause"
    if cause and germ and CAUSE_OF_GERM[germ] != cause:
        return None, "the two columns on the cause disagree"
    told = label if label == "normal" else cause
    if named and told and named != told:
        return None, "the film's name and the table disagree"
    return ("Normal" if label == "normal" else ANSWERS.get(cause or "")), None


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A tree of the published layout: normal, bacterial and viral patients in turn, each with one to three films.

    Every fourth patient of a kind is in TEST. From 24 patients on, one film of TRAIN stands in TEST under another
    number, one row is of smoking, one of COVID-19 has a film and one has none.
    """
    rng = np.random.default_rng([seed, patients])
    rows: list[tuple[object, ...]] = []
    for place in range(max(patients, 6)):
        kind, number = ("normal", "bacteria", "virus")[place % 3], place // 3 + 1
        side = "TEST" if number % 4 == 2 else "TRAIN"
        for nth in range(1, int(rng.integers(1, 4)) + 1):
            name = f"person{number}_{kind}_{3 * place + nth}.jpeg"
            if kind == "normal":
                name = f"{'NORMAL2-' * (number % 2)}IM-{number:04d}-0001{f'-{nth:04d}' * (nth > 1)}.jpeg"
            label = ("Normal", "") if kind == "normal" else ("Pnemonia", "Virus" if kind == "virus" else kind)
            data = encoded(draw_chest(_LOOKS[kind], rng), ".jpeg")
            rows.append(_film(folder, side, name, label, "", data))
            if patients >= 24 and (kind, number, nth) == ("bacteria", 1, 1):
                rows.append(_film(folder, "TEST", f"person{patients}_bacteria_{9 * patients}.jpeg", label, "", data))
    if patients >= 24:
        covid, smoking = (encoded(draw_chest(look, rng), ".jpeg") for look in (_LOOKS["virus"], "hazy"))
        rows.append(_film(folder, "TRAIN", "kjr-21-e24-g001-l-a.jpg", ("Pnemonia", "Virus"), "COVID-19", covid))
        ards = "acute-respiratory-distress-syndrome-ards.jpg"
        rows.append(_film(folder, "TRAIN", ards, ("Pnemonia", "Stress-Smoking"), "ARDS", smoking))
        rows.append(("COVID19_0.jpg", "Pnemonia", "TRAIN", "COVID-19", "Virus"))
    indices = sorted(rng.choice(2 * len(rows), len(rows), replace=False).tolist())
    table = csv_bytes(("", *COLUMNS), ((index, *row) for index, row in zip(indices, rows, strict=True)))
    (folder / TABLE).write_bytes(table)


def _film(folder: Path, side: str, name: str, label: tuple[str, str], germ: str, data: bytes) -> tuple[object, ...]:
    home = folder / HOMES[0] / side.lower()
    home.mkdir(parents=True, exist_ok=True)
    (home / name).write_bytes(data)
    return name, label[0], side, germ, label[1]
