"""KiTS23: abdominal CT of 489 patients before an operation on a kidney tumour, kidneys, tumours and cysts outlined.

Contrast-enhanced volumes; eleven that were read have from 29 slices of 5 mm to 611 of 0.5 mm. The label volume has 1
for kidney, 2 for tumour, 3 for cyst; the clinical table says what the operation found. An item that is asked about
is a slice: by default the one on which an instance (a connected structure) is largest, in the soft tissue window, with
a box round each instance that it cuts. A tumour's box lies inside or beside its kidney's; both stay.

What the published conversion does, and what this source does instead:

* it makes a film of the whole volume, of which two or four frames are sampled, and asks whether the tumour is
  malignant: whether a frame shows it is chance. Here only slices that cut a tumour ask about it;
* it uses the outlines for nothing. Here boxes come from them, and which structures a slice shows is a task;
* it cuts along array axis 0 whatever the affine says, which is axial here and sagittal in most files. Here the affine
  decides, and a slice is upright and radiological;
* it shows a window of width 700 at level 80, made for the pulmonary arteries. Here it is 400 at 40;
* it leaves out the seven cases without ``malignant``. Here they are asked what their outlines answer;
* the first 75 % of the table are train, so that little of the second numbering (400 and up) is. Here groups are
  hashed.

Some volumes carried a second contrast phase that nobody labelled (2019: cases 15, 25, 61, 117), and in none is it said
how far somebody looked. So no slice is taken from outside the range in which something is outlined: what is not
outlined there is not known to be free. A case with one of its two files, as broken downloads leave it, goes to the
ledger.

The outlines of several annotators made into one leave specks of a voxel or a few: instances under 20 mm³ count as
nothing by default, which in eleven real cases is 109 specks of kidney, and no tumour or cyst. What a slice lost that
way is counted in its row's provenance.

Not known: which tumour ``malignant`` means where a case has several; it is asked of each. Cases 15 and 37 have been
called faulty, 23, 68, 125 and 133 suspected, and 205 to have one structure under two labels; they are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from qoq_data.errors import Reason
from qoq_data.formats.storage import Store
from qoq_data.licence import CC_BY_NC_SA_4, Access
from qoq_data.record import AnswerType, Domain
from qoq_data.source import (
    SKIP_COLUMNS,
    Choice,
    ExpectedFile,
    SourceSpec,
    SourceVersion,
    SyntheticTask,
    Task,
    media_type,
)
from qoq_data.sources._item_rows import age_text, item_table
from qoq_data.sources._kits23_tree import (
    CASES,
    IMAGING,
    ROOT,
    SEGMENTATION,
    SUBTYPES,
    Case,
    case_files,
    read_cases,
    write_tree,
)
from qoq_data.sources._volumes import SlicePart, VolumeOptions, slice_parts, volume_media

NAMES = {1: "kidney", 2: "tumor", 3: "cyst"}
TUMOR = 2


class Options(VolumeOptions):
    """Recipe keys of KiTS23."""

    minimum_volume_mm3: float = Field(20, ge=0, allow_inf_nan=False, description="smaller instances count as nothing")


SPEC = SourceSpec(
    name="kits23",
    title="KiTS23, Kidney Tumor Segmentation Challenge 2023",
    domain=Domain.CT,
    modality="abdominal CT, contrast-enhanced",
    homepage="https://github.com/neheller/kits23",
    citation="Heller N, Isensee F, Trofimova D, et al. The KiTS21 Challenge: Automatic segmentation of kidneys, renal "
    "tumors, and renal cysts in corticomedullary-phase CT. arXiv:2307.01984, 2023",
    licences={"media": CC_BY_NC_SA_4, "labels": CC_BY_NC_SA_4},
    access=Access.OPEN,
    access_steps=(
        "Clone https://github.com/neheller/kits23, which holds dataset/kits23.json and every segmentation.nii.gz.",
        "Run its downloader (kits23_download_data), which puts imaging.nii.gz beside each; repeat until all are there.",
        "Give the clone, which holds dataset/, as --raw.",
    ),
    identity_group="kits",
    grouping="The patient, who is the case: all slices of a volume stay on one side.",
    versions=(SourceVersion("2023", 489, 489),),
    expected_files=(ExpectedFile(CASES),),
    tasks=(
        Task(
            "malignancy",
            AnswerType.ONE,
            (
                "This slice of an abdominal CT cuts a renal tumour. Is it benign or malignant?",
                "Judge the renal mass on this CT slice: benign or malignant?",
                "Did the operation find the renal tumour on this slice to be benign or malignant?",
                "A mass of the kidney is seen on this contrast-enhanced CT. Which is it, malignant or benign?",
                "From this CT slice, would you expect pathology to call the renal tumour malignant or benign?",
            ),
            (Choice("benign", "Benign"), Choice("malignant", "Malignant")),
        ),
        Task(
            "structures",
            AnswerType.SEVERAL,
            (
                "Which of the structures offered does this abdominal CT slice cut?",
                "Name every one of these structures that can be seen on this slice of the abdomen.",
                "What of the following is visible on this contrast-enhanced CT slice?",
                "Go through the list: which of these does the slice show?",
                "Which of these would a radiologist outline on this CT slice?",
            ),
            (
                Choice("kidney", "Kidney"),
                Choice("tumor", "Renal tumor"),
                Choice("cyst", "Renal cyst"),
                Choice("none", "None of these"),
            ),
        ),
        Task(
            "subtype",
            AnswerType.ONE,
            (
                "Which histologic subtype did pathology give the renal tumour on this CT slice?",
                "The renal mass on this slice was removed. What was it under the microscope?",
                "Name the histology that fits the renal tumour on this contrast-enhanced CT slice best.",
                "Of the histologic diagnoses offered, which was made of the mass that this slice cuts?",
                "What kind of renal tumour does this slice show, by its later histology?",
            ),
            (
                Choice("clear_cell_rcc", "Clear cell renal cell carcinoma"),
                Choice("papillary_rcc", "Papillary renal cell carcinoma"),
                Choice("chromophobe_rcc", "Chromophobe renal cell carcinoma"),
                Choice("clear_cell_papillary", "Clear cell papillary renal cell tumor"),
                Choice("transitional_cell_carcinoma", "Transitional cell carcinoma"),
                Choice("oncocytoma", "Oncocytoma"),
                Choice("angiomyolipoma", "Angiomyolipoma"),
                Choice("other", "Another histology"),
            ),
            default=False,  # histology is made under the microscope; what CT tells of it is open
        ),
    ),
    context_fields=("age", "sex"),
    published_items=478,
    inspectors=("volume_regions",),
    rows_per_shard=256,
    bytes_per_row=90_000,
    skip_limit=0.02,  # table and outlines come whole with the repository, and a picture that is lost can be fetched
    synthetic=(SyntheticTask("malignancy", ("bright_blob_area", "mean_intensity")),),
)


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """A row a case of the table, in its order, and of each further folder; only outlines tell what a slice shows."""
    cases, files = read_cases(tree), case_files(tree)
    rows = [
        _case_row(case, f"entry {number}", files.get(case.case_id, set()), options)
        for number, case in enumerate(cases, 1)
    ]
    for folder in sorted(files.keys() - {case.case_id for case in cases}):
        row = _case_row(Case(folder, None, None, None, None), "no entry", files[folder], options)
        unknown = {"skip_reason": str(Reason.NO_LABEL), "skip_detail": f"its case is not in {CASES}"}
        rows.append(row | unknown)
    answers = dict.fromkeys((task.name for task in SPEC.tasks), pl.List(pl.String))
    table = item_table(rows, answers, SPEC.context_fields)
    return table.with_columns(age_text(pl.col("context.age").cast(pl.Int64)).alias("context.age"))


def _case_row(case: Case, entry: str, files: set[str], options: Options) -> dict[str, Any]:
    home = f"{ROOT}/{case.case_id}"
    absent = Reason.FILE_MISSING if IMAGING not in files else Reason.MASK_MISSING if SEGMENTATION not in files else None
    missing = IMAGING if absent is Reason.FILE_MISSING else SEGMENTATION
    malignancy = None if case.malignant is None else ["malignant" if case.malignant else "benign"]
    return {
        "item": case.case_id,
        "patient": case.case_id,
        "group": case.case_id,
        "media": volume_media(f"{home}/{IMAGING}", f"{home}/{SEGMENTATION}", NAMES, options),
        "label_file": CASES,
        "label_row": entry,
        "answer.malignancy": malignancy,
        "answer.subtype": None if case.subtype is None else [SUBTYPES[case.subtype]],
        "context.age": None if case.age is None else str(case.age),
        "context.sex": case.gender if case.gender in ("male", "female") else None,
        "skip_reason": None if absent is None else str(absent),
        "skip_detail": None if absent is None else f"{missing} is not in its folder, or it has none",
    }


def expand(items: pl.DataFrame, facts: pl.DataFrame, options: Options) -> pl.DataFrame:
    """A row a chosen slice; a case without an outlined structure stays one row without an answer."""
    found = dict(facts.select("item", "volume_regions.instances").iter_rows())
    rows: list[dict[str, Any]] = []
    for case in items.iter_rows(named=True):
        instances = found[case["item"]]
        parts = slice_parts(case["item"], instances, options)
        unknown = any(one["value"] not in NAMES for one in instances)
        if unknown or not parts:
            reason = Reason.MASK_CONFLICT if unknown else Reason.NO_LABEL
            detail = "its outlines have a value that is not 1, 2 or 3" if unknown else "nothing is outlined in it"
            rows.append(case | {"skip_reason": str(reason), "skip_detail": detail})
        else:
            rows += [_slice_row(case, part, options) for part in parts]
    skips = dict.fromkeys(SKIP_COLUMNS, pl.String())
    media = pl.List(media_type("slice", "display"))
    return pl.DataFrame(rows, schema=pl.Schema({**items.schema, "media": media, **skips}))


def _slice_row(case: Mapping[str, Any], part: SlicePart, options: Options) -> dict[str, Any]:
    volume, outlines = case["media"]
    seen = [NAMES[value] for value in sorted(part.values)]
    shows_tumor = TUMOR in part.values
    return {
        **case,
        "item": f"{case['item']}/{part.name}",
        "media": [part.medium(volume, "CT", options), outlines],
        "label_row": f"{case['label_row']}; outlines of {part.plane} slice {part.index}",
        "answer.structures": seen or ["none"],
        **{f"answer.{task}": case[f"answer.{task}"] if shows_tumor else None for task in ("malignancy", "subtype")},
    }


def statistics(tree: Store, options: Options) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of the table's labels, and of what table and folders do not have alike."""
    cases, files = read_cases(tree), case_files(tree)
    of = Counter(case.malignant for case in cases)
    known = {case.case_id for case in cases}
    return {
        "cases_malignant": of[True],
        "cases_benign": of[False],
        "cases_of_unknown_malignancy": of[None],
        "cases_without_folder": len(known - files.keys()),
        "cases_with_outlines_alone": sum(SEGMENTATION in found and IMAGING not in found for found in files.values()),
        "folders_of_no_case": len(files.keys() - known),
    }


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A volume of 24 slices a patient with kidneys, a tumour and at times a cyst; see ``_kits23_tree``."""
    write_tree(folder, seed, patients)
