"""The layout of KiTS23: its table of cases, its folders; and a generated tree of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import LayoutError, Reason, RecordError, TableError
from qoq_data.formats.nifti_write import nifti_bytes
from qoq_data.formats.storage import Store

ROOT, CASES = "dataset", "dataset/kits23.json"
IMAGING, SEGMENTATION = "imaging.nii.gz", "segmentation.nii.gz"
CASE_ID = re.compile(r"case_[0-9]{5}")
SUBTYPES: Mapping[str, str] = {
    "clear_cell_rcc": "clear_cell_rcc",
    "papillary_rcc": "papillary_rcc",
    "chromophobe_rcc": "chromophobe_rcc",
    "clear_cell_papillary": "clear_cell_papillary",
    "transitional_cell_carcinoma": "transitional_cell_carcinoma",
    "oncocytoma": "oncocytoma",
    "angiomyolipoma": "angiomyolipoma",
    **dict.fromkeys(
        (
            "rcc_unclassified",
            "multilocular_cystic_rcc",
            "wilms_tumor",
            "mest",
            "spindle_cell_neoplasm",
            "cyst",
            "other",
        ),
        "other",
    ),
}
"""The publisher's subtypes, and the choice that each is asked as: those of fewer than eight cases are one."""
_LIMIT = 1 << 26


@dataclass(frozen=True, slots=True)
class Case:
    """What is read of one case; None where the publisher has null."""

    case_id: str
    malignant: bool | None
    subtype: str | None
    age: int | None
    gender: str | None


def read_cases(tree: Store) -> list[Case]:
    """The cases of ``kits23.json`` in its order.

    Raises ``LayoutError`` where it is not there, ``TableError`` for anything in it that is not as published: the
    message says which entry and which field, never what stands there.
    """
    try:
        data = tree.read(CASES, _LIMIT)
    except RecordError as error:
        what = "is not in the raw folder" if error.reason is Reason.FILE_MISSING else f"cannot be read: {error.detail}"
        advice = "Give the folder that holds dataset/ as --raw; 'qoq-data info kits23' says how to get the files"
        raise LayoutError(f"kits23: {CASES} {what}. {advice}.") from error
    try:
        entries = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TableError(f"{CASES} is no JSON text: fetch it again.") from error
    if not isinstance(entries, list) or not entries:
        raise TableError(f"{CASES} is no list of cases.")
    cases = [_case(entry, number) for number, entry in enumerate(entries, 1)]
    first: dict[str, int] = {}
    for number, case in enumerate(cases, 1):
        if first.setdefault(case.case_id, number) != number:
            raise TableError(f"{CASES}, entry {number}: its case_id stands in entry {first[case.case_id]} already.")
    return cases


def _no_constant(text: str) -> None:
    raise ValueError(text)


def _case(entry: object, number: int) -> Case:
    if not isinstance(entry, dict):
        raise TableError(f"{CASES}, entry {number}: it is no case.")
    kinds: dict[str, type] = {
        "case_id": str, "malignant": bool, "tumor_histologic_subtype": str, "age_at_nephrectomy": int, "gender": str,
    }  # fmt: skip
    for field, kind in kinds.items():
        if field not in entry:
            raise TableError(f"{CASES}, entry {number}: it has no field {field!r}. Is it of another release?")
        if entry[field] is not None and type(entry[field]) is not kind:
            raise TableError(f"{CASES}, entry {number}: its field {field!r} is no {kind.__name__}.")
    case = Case(*(entry[field] for field in kinds))
    if not CASE_ID.fullmatch(case.case_id or ""):
        raise TableError(f"{CASES}, entry {number}: its 'case_id' is not like case_00000.")
    if case.subtype is not None and case.subtype not in SUBTYPES:
        raise TableError(f"{CASES}, entry {number}: its 'tumor_histologic_subtype' is none of the published ones.")
    if case.age is not None and not 0 <= case.age <= 120:
        raise TableError(f"{CASES}, entry {number}: its 'age_at_nephrectomy' is under 0 or over 120.")
    return case


def case_files(tree: Store) -> dict[str, set[str]]:
    """Names of the files of each case that has a folder; raises ``LayoutError`` where none has."""
    folders = [name[:-1] for name in tree.names(ROOT) if name.endswith("/") and CASE_ID.fullmatch(name[:-1])]
    if not folders:
        raise LayoutError(
            f"kits23: {ROOT}/ has no folder named like case_00000. 'qoq-data info kits23' says how to get the files."
        )
    return {folder: set(tree.names(f"{ROOT}/{folder}")) for folder in folders}


_SIZE = (24, 48, 56)
_EDGES = (5.0, 0.9, 0.9)
_MALIGNANT = ("clear_cell_rcc", "papillary_rcc", "chromophobe_rcc", "transitional_cell_carcinoma", "wilms_tumor")
_BENIGN = ("oncocytoma", "angiomyolipoma", "mest")
_UNREAD: Mapping[str, Any] = {
    "vital_status": "censored", "bmi": 27.1, "comorbidities": {"chronic_kidney_disease": False},
    "surgery_type": "robotic", "surgical_procedure": "partial_nephrectomy", "smoking_history": "never_smoked",
    "radiographic_size": 3.1, "pathologic_size": None, "pathology_t_stage": "1a", "pathology_n_stage": "0",
    "pathology_m_stage": "0", "tumor_necrosis": False, "tumor_isup_grade": "2", "aua_risk_score": "low_risk",
}  # fmt: skip


def write_tree(folder: Path, seed: int, patients: int) -> None:
    """A case a patient, half of them in the second range of numbers; malignant tumours are wide, benign ones small.

    Volumes are stored as published: slices first, from the head down. Every third case has a cyst, every fourth a
    speck of one voxel of kidney, every sixth a second contrast phase behind the first that nobody labelled; in every
    tenth nobody knows whether the tumour is malignant.
    """
    entries = []
    count = max(2, patients)
    for place in range(count):
        number = place if place < (count + 1) // 2 else 400 + place - (count + 1) // 2
        rng = np.random.default_rng([seed, place])
        malignant = place % 2 == 0
        kinds = _MALIGNANT if malignant else _BENIGN
        known = place % 10 != 9
        entries.append(
            {
                "case_id": f"case_{number:05d}",
                "gender": ("male", "female", "transgender_male_to_female")[2 if place == 7 else int(rng.integers(2))],
                "age_at_nephrectomy": 91 if place == 3 else int(rng.integers(20, 85)),
                **_UNREAD,
                "malignant": malignant if known else None,
                "tumor_histologic_subtype": kinds[place // 2 % len(kinds)] if known else None,
            }
        )
        imaging, labels = _draw(malignant, place, rng)
        home = folder / ROOT / f"case_{number:05d}"
        home.mkdir(parents=True)
        affine = _affine()
        (home / IMAGING).write_bytes(nifti_bytes(imaging, affine))
        (home / SEGMENTATION).write_bytes(nifti_bytes(labels, affine))
    (folder / CASES).write_bytes((json.dumps(entries, indent=2) + "\n").encode())


def _affine() -> NDArray[np.float64]:
    """As published: slices run to the feet, rows to the back, columns to the patient's left; no translation."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = -_EDGES[0], -_EDGES[1], -_EDGES[2], 1
    return affine


def _draw(malignant: bool, place: int, rng: np.random.Generator) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A body in Hounsfield units and its labels [slice, row, column]: two kidneys, a bright tumour, a dark cyst."""
    z, y, x = (axis.astype(np.float64) for axis in np.indices(_SIZE))
    values = np.where(np.hypot((x - 27.5) / 30, (y - 23.5) / 26) <= 1, 20.0, -1000.0)
    labels = np.zeros(_SIZE, np.uint8)
    sides = {"right": 14 + rng.uniform(-1, 1), "left": 42 + rng.uniform(-1, 1)}
    for column in sides.values():
        kidney = ((z - 12) / rng.uniform(8, 9)) ** 2 + ((y - 27) / 8) ** 2 + ((x - column) / 6) ** 2 <= 1
        values[kidney], labels[kidney] = 70, 1
    side = "left" if rng.integers(2) else "right"
    radius = (9.5 if malignant else 3.5) * rng.uniform(0.92, 1.08)
    middle = rng.integers(9, 15)
    tumour = (np.abs(z - middle) <= 3) & (np.hypot(y - rng.uniform(20, 24), x - sides[side]) <= radius)
    values[tumour], labels[tumour] = 320, 2
    if place % 3 == 0:
        other = sides["right" if side == "left" else "left"]
        cyst = ((z - 12) / 2.5) ** 2 + ((y - 30) / 3.5) ** 2 + ((x - other) / 3.5) ** 2 <= 1
        values[cyst], labels[cyst] = -110, 3
    if place % 4 == 1:
        labels[2, 40, 28] = 1
    if place % 6 == 5:
        values, labels = np.concatenate([values, values]), np.concatenate([labels, np.zeros_like(labels)])
    noise = rng.integers(-6, 7, values.shape)
    return (values + noise).astype(np.int16), labels
