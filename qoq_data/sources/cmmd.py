"""CMMD: digital mammograms of Chinese women with a lesion proved by biopsy, a row of the table a breast.

1,872 rows of 1,775 patients and 5,202 images, one series a patient: a CC and an MLO view of one side or of both. An
item is a row, patient and side, with that side's images, the CC view first. A side without a row is not asked: it is
usually normal, which the publisher does not say.

What the published conversion does, and what this source does instead:

* it takes all images of the patient's folder for every row, whichever breast the row is of. Here the headers are read,
  and an item has the images whose ImageLaterality is its side. 97 patients have two rows, of which 30 are of one benign
  and one malignant breast: the published rows ask opposite answers of the same four pictures;
* it takes the first 75 % of the rows for training, which puts rows of one patient on both sides of the cut. The
  publisher gives no sides; here patients are hashed;
* it expects folders whose names have quotes in them, an accident of its authors' download. Here ``metadata.csv`` says
  where a series is, with slashes of either kind, and its folder is listed.

A side has two images, as the table's ``number`` says of each: one with more or fewer is a ledger line, and so is every
row of a patient with an image whose header says no side, which might be of either. InstanceNumber tells nothing (one
patient's begin at 2): views are told by their code. ``subtype`` is given for patients of the second cohort (D2), not
all of them.

All images are 8 bits but two of 16 (D1-1343). Age is context. Dates are anonymised and not read.

Licence: TCIA gives the set to everyone under CC BY 4.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.storage import Store
from qoq_data.licence import CC_BY_4, Access
from qoq_data.record import AnswerType, Domain
from qoq_data.source import Choice, ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask, Task
from qoq_data.sources._cmmd_tables import COLLECTION, IMAGES_A_SIDE, LABELS, TABLE, read_breasts, series_of_patients
from qoq_data.sources._cmmd_tree import write_tree
from qoq_data.sources._mammography import (
    SERIES_COLUMNS,
    SERIES_TABLE,
    SIDES,
    VIEW_OF_CODE,
    VIEWS,
    mammogram_schema,
    medium,
    series_files,
    skipped,
)

_PAGE = "https://www.cancerimagingarchive.net/collection/cmmd/"

SPEC = SourceSpec(
    name="cmmd",
    title="CMMD, the Chinese Mammography Database",
    domain=Domain.MAMMOGRAPHY,
    modality="digital mammography",
    homepage=_PAGE,
    citation="Cui C, Li L, Cai H, et al. The Chinese Mammography Database (CMMD): An online mammography database with "
    "biopsy confirmed types for machine diagnosis of breast. The Cancer Imaging Archive, 2021. "
    "doi:10.7937/tcia.eqde-4b16",
    licences={"media": CC_BY_4, "labels": CC_BY_4},
    access=Access.OPEN,
    access_steps=(
        f"Open {_PAGE} and fetch the images with the NBIA Data Retriever and the manifest there. No account is needed.",
        f"Fetch {TABLE} there, and copy it beside {SERIES_TABLE} and {COLLECTION}/.",
        "Give that folder as --raw.",
    ),
    identity_group="cmmd",
    grouping="By ID1, the patient: both breasts of a woman stay on one side.",
    versions=(SourceVersion("1", 1_872, 1_775),),
    expected_files=(
        ExpectedFile(TABLE),
        ExpectedFile(SERIES_TABLE, columns=SERIES_COLUMNS),
        ExpectedFile(f"{COLLECTION}/"),
    ),
    tasks=(
        Task(
            "classification",
            AnswerType.ONE,
            (
                "Did the lesion in this breast prove to be benign or malignant?",
                "You see one breast in the views that were taken of it. Is its lesion malignant or benign?",
                "Judge these mammograms of one side: which outcome did the biopsy have?",
                "What will the biopsy of the abnormality in this breast show?",
                "Decide from the mammograms whether the finding in this breast is benign or malignant.",
            ),
            (Choice("benign", "Benign"), Choice("malignant", "Malignant")),
        ),
        Task(
            "abnormality",
            AnswerType.ONE,
            (
                "What kind of abnormality do these mammograms of one breast show?",
                "Which finding is there in this breast?",
                "Name the type of abnormality in the mammograms of this side.",
                "How would you describe what is abnormal in this breast?",
                "Look at all views of this breast: what stands out in it?",
            ),
            (
                Choice("mass", "Mass"),
                Choice("calcification", "Calcification"),
                Choice("both", "Mass and calcification"),
            ),
        ),
        Task(
            "subtype",
            AnswerType.ONE,
            (
                "This breast has a cancer. Which molecular subtype is it?",
                "To which molecular subtype does the cancer in these mammograms belong?",
                "Guess the molecular subtype of this breast cancer from its mammograms.",
                "The lesion in this breast is a carcinoma. Name its molecular subtype.",
                "Which of these molecular subtypes did the pathologist find in this breast?",
            ),
            tuple(Choice(key, text[0].upper() + text[1:]) for text, key in LABELS["subtype"].items()),
            default=False,
        ),
    ),
    context_fields=("age",),
    published_items=1_872,
    inspectors=("dicom_headers",),
    rows_per_shard=128,
    bytes_per_row=300_000,
    skip_limit=0.01,  # every row has its two images
    synthetic=(
        SyntheticTask("classification", ("mean_intensity",)),
        SyntheticTask("abnormality", ("bright_blob_area", "texture_contrast")),
    ),
    burned_in_text="Letters for side and view may stand in the pictures, which answer none of the tasks. No picture "
    "was at hand to look for more.",
)
_ANSWERS, _CONTEXT = tuple(LABELS), ("age",)


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a breast of the table, with all images of its patient; raises ``LayoutError`` and ``TableError``."""
    table = read_breasts(tree)
    of_patient = series_of_patients(tree)
    rows = []
    for row in table.iter_rows(named=True):
        patient, side = row["ID1"], row["LeftRight"]
        item: dict[str, Any] = {
            "item": f"{patient}-{side}",
            "patient": patient,
            "group": patient,
            "study": patient,
            "label_file": TABLE,
            "label_row": f"ID1 {patient}, LeftRight {side}, number {row['number']}",
            "context.age": row["age"],
            **{f"answer.{task}": None if row[task] is None else [row[task]] for task in LABELS},
        }
        try:
            if patient not in of_patient:
                path = f"{COLLECTION}/{patient}"
                raise RecordError(Reason.FILE_MISSING, f"the patient is not in {SERIES_TABLE}", path)
            paths = [path for one in of_patient[patient] for path in series_files(tree, one)]
            rows.append(item | {"media": [medium("dicom", path) for path in paths]})
        except RecordError as error:
            rows.append(item | {"media": [medium("dicom", error.path)], **skipped(error.reason, error.detail)})
    return pl.LazyFrame(rows, schema=mammogram_schema(_ANSWERS, _CONTEXT))


def expand(items: pl.DataFrame, facts: pl.DataFrame, options: SourceOptions) -> pl.DataFrame:  # noqa: ARG001
    """Each row as itself, with the images whose header says its side: CC, then MLO."""
    headers = {file["path"]: file for files in facts["dicom_headers.files"].drop_nulls() for file in files}
    rows = []
    for row in items.iter_rows(named=True):
        try:
            rows.append(row | {"media": _of_side([one["path"] for one in row["media"]], headers, row["item"][-1])})
        except RecordError as error:
            rows.append(row | skipped(error.reason, error.detail))
    return pl.DataFrame(rows, schema=mammogram_schema(_ANSWERS, _CONTEXT))


def _of_side(paths: Sequence[str], headers: Mapping[str, Mapping[str, Any]], side: str) -> list[dict[str, Any]]:
    """Media of one side (L or R) out of a patient's files; raises ``RecordError`` where these cannot be told."""
    unknown = sum(path not in headers or not headers[path]["laterality"] for path in paths)
    if unknown:
        raise RecordError(Reason.HEADER_INVALID, f"{unknown} of the patient's {len(paths)} images say no side")
    found = []
    for path in paths:
        header = headers[path]
        if header["laterality"] == SIDES[side]:
            view = VIEW_OF_CODE.get(header["view_code"], header["view"] if header["view"] in VIEWS else "")
            place = VIEWS.index(view) if view else len(VIEWS)
            found.append((place, header["instance_number"] or 0, path, view))
    if len(found) != IMAGES_A_SIDE:
        raise RecordError(Reason.HEADER_MISMATCH, f"the side has {len(found)} images, and not {IMAGES_A_SIDE}")
    return [medium("dicom", path, view, laterality=SIDES[side]) for _, _, path, view in sorted(found)]


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of what stands in the tables."""
    table = read_breasts(tree)
    series = series_of_patients(tree)
    of_patient: dict[str, list[str]] = {}
    for patient, diagnosis in table.select("ID1", "classification").iter_rows():
        of_patient.setdefault(patient, []).append(diagnosis)
    images = Counter(sum(one.images for one in of) for of in series.values())
    several = [diagnoses for diagnoses in of_patient.values() if len(diagnoses) > 1]
    return {
        "breasts": table.height,
        "patients": len(of_patient),
        "patients_with_two_rows": len(several),
        "patients_with_opposite_rows": sum(len(set(diagnoses)) > 1 for diagnoses in several),
        "breasts_without_subtype": table["subtype"].null_count(),
        "images": sum(images * count for images, count in images.items()),
        "patients_with_two_images": images[IMAGES_A_SIDE],
        "patients_without_a_row": len(series.keys() - of_patient.keys()),
    }


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A workbook and each patient's films; see ``_cmmd_tree``."""
    write_tree(folder, seed, patients, TABLE)
