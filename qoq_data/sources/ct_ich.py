"""CT-ICH: head CT slices of 82 patients with brain injury from Hilla, Iraq, each shown in a brain and a bone window.

2,501 slices of 5 mm: 318 with a haemorrhage (36 patients) of one or more of five types, outlined by two radiologists in
consensus, and 195 with a fracture. Pictures are JPEG frames of the scanner's videos, 650 pixels a side. It is not the
RSNA 2019 set.

What the published conversion does, and what this source does instead:

* it keeps whether there is a haemorrhage and loses which: here the five types are a task of their own, and fracture
  one that a recipe may ask for;
* its public code makes no box, though every positive slice has an outline. Here boxes are the parts of the outline,
  on the picture of the brain window, to which it belongs, and are called ``haemorrhage`` whatever the type;
* a mask is a JPEG picture, so that black is not 0 all over: set is what is over 127 of 255. Taking all that is not 0
  makes boxes of coding noise;
* folders are padded to three digits (``049``) and the table's numbers are not (``49``): joined as text they do not
  meet. Here both are read as numbers;
* it draws sides by patient, which is right and stays so; the publisher gives none.

A slice whose ``No_Hemorrhage`` and five types disagree, one with an outline and no haemorrhage, and one with a
haemorrhage and no outline (``MASK_MISSING``: without boxes it would look like a slice in which nothing was found) are
ledger lines. An outline that is there but black gives no box; only rendering sees it.

Age and sex come from ``patient_demographics.csv``, whose ``Condition on file`` and ``Note`` name the diagnosis and are
not read. Ages under one year are told in months. Its five type columns are held against the slices, by patient, and
what differs is counted (nothing does in the release seen).

Release 1.3.1 on PhysioNet holds 75 volumes in NIfTI under restricted access, and is not read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from qoq_data.errors import Reason, TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.licence import CC_BY_4, Access
from qoq_data.record import AnswerType, Domain
from qoq_data.source import Choice, ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask, Task
from qoq_data.sources._ct_ich_tree import (
    AGE,
    DEMOGRAPHICS,
    FOLDER,
    SLICES,
    TYPES,
    file_names,
    patient_folders,
    slice_files,
    write_tree,
)
from qoq_data.sources._item_rows import age_text, image_medium, item_table, mask_medium, refuse_rows

_NUMBERS = ("PatientNumber", "SliceNumber")
_FLAGS = (*TYPES, "No_Hemorrhage", "Fracture_Yes_No")

SPEC = SourceSpec(
    name="ct-ich",
    title="CT-ICH, head CT for intracranial haemorrhage",
    domain=Domain.CT,
    modality="head CT without contrast, slices in two windows",
    homepage="https://physionet.org/content/ct-ich/1.0.0/",
    citation="Hssayeni MD, Croock MS, Salman AD, Al-khafaji HF, Yahya ZA, Ghoraani B. Intracranial Hemorrhage "
    "Segmentation Using a Deep Convolutional Model. Data 5(1):14, 2020. doi:10.3390/data5010014",
    licences={"media": CC_BY_4, "labels": CC_BY_4},
    access=Access.REGISTERED,
    access_steps=(
        "PhysioNet now offers 1.3.1 (NIfTI volumes, restricted), which is not this release.",
        "Sign in and fetch https://www.kaggle.com/datasets/vbookshelf/computed-tomography-ct-images, a copy of 1.0.0.",
        f"Unpack the archive and find the folder that holds {FOLDER}/, {SLICES} and {DEMOGRAPHICS}.",
        "Give that folder as --raw.",
    ),
    identity_group="ct-ich",
    grouping="The patient: all slices of a scan, in both windows, stay on one side; the publisher gives no sides.",
    versions=(SourceVersion("1.0.0", 2501, 82),),
    expected_files=(
        ExpectedFile(f"{FOLDER}/"),
        ExpectedFile(SLICES, columns=(*_NUMBERS, *_FLAGS)),
        ExpectedFile(DEMOGRAPHICS, columns=("Patient Number", AGE, "Gender", *TYPES)),
    ),
    tasks=(
        Task(
            "haemorrhage",
            AnswerType.ONE,
            (
                "One slice of a head CT, in a brain and in a bone window. Does it show bleeding inside the skull?",
                "Is there blood where none should be on this slice of a head CT?",
                "Judge this head CT slice after an injury: what do you find inside the skull?",
                "Two windows of one CT slice of the head. Which statement about intracranial bleeding is right?",
                "Read this slice of a non-contrast head CT and say whether there is an intracranial bleed.",
            ),
            (Choice("none", "No Hemorrhage"), Choice("present", "Has Hemorrhage")),
        ),
        Task(
            "haemorrhage_types",
            AnswerType.SEVERAL,
            (
                "This head CT slice shows bleeding. In which compartments does it lie? Name all that apply.",
                "There is blood on this slice of a head CT. Which types of intracranial bleed are present?",
                "Where is the blood on this CT slice? Choose every location that fits.",
                "Classify the bleeding on this head CT slice by its location; more than one may be right.",
                "Which kinds of intracranial bleeding can be seen on this slice of a head CT?",
            ),
            tuple(Choice(name.lower(), name) for name in TYPES),
        ),
        Task(
            "fracture",
            AnswerType.ONE,
            (
                "Is the skull broken on this slice of a head CT?",
                "Look at the bone window of this head CT slice: is the bone intact?",
                "Does any part of the skull on this CT slice show a break?",
                "After an injury the skull is examined on this CT slice. What do you find?",
                "Judge the bones on this slice of a head CT.",
            ),
            (Choice("no", "No fracture"), Choice("yes", "Fracture")),
            default=False,  # beside the publisher's own question, and a fine line is easily lost in a video frame
        ),
    ),
    context_fields=("age", "sex"),
    published_items=2501,
    rows_per_shard=256,
    bytes_per_row=90_000,
    skip_limit=0.01,  # in the release seen the tables agree, and every positive slice is said to have its outline
    synthetic=(SyntheticTask("haemorrhage", ("bright_blob_area",)),),
)


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a slice, in the order of patients and slices; files are found by listing folders."""
    table, people = _slices(tree), _people(tree)
    folders = patient_folders(tree)
    files = {number: slice_files(tree, folder) for number, folder in folders.items()}
    context = dict(people.select("Patient Number", pl.struct("age", "sex")).iter_rows())
    rows = []
    for line, row in enumerate(table.iter_rows(named=True), 2):
        number, slice_number = row["PatientNumber"], row["SliceNumber"]
        home = f"{FOLDER}/{folders.get(number, f'{number:03d}')}"
        names = file_names(slice_number)
        brain, bone, mask = (f"{home}/{name}" for name in names)
        kinds = [name for name in TYPES if row[name]]
        known = context.get(number, {})
        there = [name in files.get(number, ()) for name in names]
        reason, detail = _refusal(bool(kinds), bool(row["No_Hemorrhage"]), there)
        rows.append(
            {
                "item": f"{number:03d}-{slice_number:03d}",
                "patient": str(number),
                "group": str(number),
                "media": [
                    image_medium(brain, "brain-window CT"),
                    *([mask_medium(mask, "haemorrhage")] if kinds else []),
                    image_medium(bone, "bone-window CT"),
                ],
                "label_file": SLICES,
                "label_row": f"line {line}",
                "answer.haemorrhage": ["present" if kinds else "none"],
                "answer.haemorrhage_types": [kind.lower() for kind in kinds] or None,
                "answer.fracture": ["yes" if row["Fracture_Yes_No"] else "no"],
                "context.age": known.get("age"),
                "context.sex": known.get("sex"),
                "skip_reason": reason,
                "skip_detail": detail,
            }
        )
    answers = dict.fromkeys((task.name for task in SPEC.tasks), pl.List(pl.String))
    return item_table(sorted(rows, key=lambda row: str(row["item"])), answers, SPEC.context_fields)


def _refusal(bleeds: bool, sound: bool, there: list[bool]) -> tuple[str | None, str | None]:
    """Why a slice cannot be right, whose types, ``No_Hemorrhage`` and three files are as said; twice None if it can."""
    brain, bone, mask = there
    if bleeds == sound:
        return str(Reason.LABEL_CONFLICT), "No_Hemorrhage and the five types disagree"
    if not brain or not bone:
        return str(Reason.FILE_MISSING), f"its picture in the {'bone' if brain else 'brain'} window is not there"
    if bleeds and not mask:
        return str(Reason.MASK_MISSING), "it has a haemorrhage and no outline of it"
    if mask and not bleeds:
        return str(Reason.MASK_CONFLICT), "it has an outline and no haemorrhage"
    return None, None


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of labels, and of what the tables and the folders do not say alike."""
    table, people, folders = _slices(tree), _people(tree), patient_folders(tree)
    listed = {(number, name) for number, nth in table.select(_NUMBERS).iter_rows() for name in file_names(nth)}
    files = {(number, name) for number, folder in folders.items() for name in slice_files(tree, folder)}
    by_patient = table.group_by("PatientNumber").agg(pl.col(name).max() for name in TYPES)
    compared = people.join(by_patient, left_on="Patient Number", right_on="PatientNumber", suffix=" of slices")
    differs = pl.any_horizontal(pl.col(name) != pl.col(f"{name} of slices") for name in TYPES)
    return {
        **{f"slices_{name.lower()}": int(table[name].sum()) for name in TYPES},
        "slices_with_haemorrhage": table.filter(pl.col("No_Hemorrhage") == 0).height,
        "slices_with_fracture": int(table["Fracture_Yes_No"].sum()),
        "patients_without_demographics": len(set(table["PatientNumber"]) - set(people["Patient Number"])),
        "patients_whose_tables_disagree": compared.filter(differs).height,
        "pictures_of_no_slice": len(files - listed),
    }


def _slices(tree: Store) -> pl.DataFrame:
    table = read_table(tree, SLICES, dict.fromkeys((*_NUMBERS, *_FLAGS), pl.Int32))
    refuse_rows(
        table,
        SLICES,
        {f"{name} is blank or not over 0": ~(pl.col(name) > 0).fill_null(value=False) for name in _NUMBERS}
        | {f"{name} is neither 0 nor 1": ~pl.col(name).is_in([0, 1]).fill_null(value=False) for name in _FLAGS},
    )
    return table


def _people(tree: Store) -> pl.DataFrame:
    """Number, age and sex as text, and the five types as 0 or 1, a blank being 0."""
    columns = {"Patient Number": pl.Int32, AGE: pl.Float64, "Gender": pl.String, **dict.fromkeys(TYPES, pl.Int32)}
    try:
        table = read_table(tree, DEMOGRAPHICS, columns, newline_in_header=True)
    except TableError as error:  # which lists the header, and with it the line break in it
        raise TableError(" ".join(str(error).split())) from error
    refused = {
        "Patient Number is blank, or stands twice": pl.col("Patient Number").is_null()
        | pl.col("Patient Number").is_duplicated(),
        "Age is under 0 or over 120": ~pl.col(AGE).is_between(0, 120),
        "Gender is neither Male nor Female": ~pl.col("Gender").is_in(["Male", "Female"]),
    } | {f"{name} is neither 1 nor blank": ~pl.col(name).is_in([0, 1]) for name in TYPES}
    refuse_rows(table, DEMOGRAPHICS, refused, first_line=3)
    months = (pl.col(AGE) * 12 + 0.01).floor().cast(pl.Int32)  # months are written as shares of a year: 0.583333333
    infant = (
        pl.when(months < 1)
        .then(pl.lit("under 1 month"))
        .otherwise(pl.format("{} {}", months, pl.when(months == 1).then(pl.lit("month")).otherwise(pl.lit("months"))))
    )
    return table.select(
        "Patient Number",
        pl.when(pl.col(AGE) < 1).then(infant).otherwise(age_text(pl.col(AGE))).alias("age"),
        pl.col("Gender").str.to_lowercase().alias("sex"),
        *(pl.col(name).fill_null(0) for name in TYPES),
    )


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """Four slices a patient, every other patient with a haemorrhage on two of them; see ``_ct_ich_tree``."""
    write_tree(folder, seed, patients)
