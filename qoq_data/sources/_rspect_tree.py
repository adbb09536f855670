"""The layout of RSPECT, its table's columns; and a generated tree of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qoq_data.clinical.synthetic_dicom import write_dicom
from qoq_data.clinical.synthetic_image import BRIGHT, DARK, Scene, Spot, draw_scene
from qoq_data.sources._published_files import csv_bytes

TABLE, SLICES = "train.csv", "train"
UNLABELLED, UNLABELLED_SLICES, SUBMISSION = "test.csv", "test", "sample_submission.csv"
STUDY, SERIES, INSTANCE = IDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
ON_SLICE = "pe_present_on_image"
OF_EXAM = (
    "negative_exam_for_pe", "qa_motion", "qa_contrast", "flow_artifact", "rv_lv_ratio_gte_1", "rv_lv_ratio_lt_1",
    "leftsided_pe", "chronic_pe", "true_filling_defect_not_pe", "rightsided_pe", "acute_and_chronic_pe", "central_pe",
    "indeterminate",
)  # fmt: skip


def write_tree(folder: Path, seed: int, patients: int) -> None:
    """Four slices an exam, on two of them an embolus where there is one; one exam in 20 is indeterminate."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        kind = ("none", "acute", "none", "chronic", "acute", "none", "chronic")[number % 7]
        exam = {**dict.fromkeys(OF_EXAM, 0), "chronic_pe": int(kind == "chronic"), "qa_motion": int(number % 11 == 3)}
        if number % 20 == 12:
            kind, exam["chronic_pe"], exam["indeterminate"] = "none", 0, 1
        elif number % 20 == 4:
            exam["acute_and_chronic_pe"], exam["chronic_pe"] = int(kind != "none"), 0
        exam["negative_exam_for_pe"] = int(kind == "none" and not exam["indeterminate"])
        exam["rightsided_pe"] = exam["rv_lv_ratio_lt_1"] = int(kind != "none")
        study, series = rng.bytes(6).hex(), rng.bytes(6).hex()
        home = folder / SLICES / study / series
        home.mkdir(parents=True)
        for place in range(4):
            shown = kind if place in (1, 2) else "none"
            instance = rng.bytes(6).hex()
            (home / f"{instance}.dcm").write_bytes(_slice(shown, place, (study, series, instance), rng))
            rows.append((study, series, instance, int(shown != "none"), *exam.values()))
    (folder / TABLE).write_bytes(csv_bytes((*IDS, ON_SLICE, *OF_EXAM), rows))
    (folder / UNLABELLED).write_bytes(csv_bytes(IDS, [("0a" * 6, "0b" * 6, "0c" * 6)]))


def _slice(shown: str, place: int, ids: tuple[str, str, str], rng: np.random.Generator) -> bytes:
    """A CT of 96 x 96: a bright artery, wide or, where the embolus is chronic, shrunken, and in it a dark embolus."""
    x, y = rng.uniform(0.4, 0.6, 2)
    radius = 0.16 * rng.uniform(0.92, 1.08)
    artery = Spot((x, y), (0.27, 0.22) if shown == "chronic" else (0.38, 0.34), BRIGHT)
    spots = (artery,) if shown == "none" else (artery, Spot((x, y), (radius, radius), DARK))
    grey = draw_scene(Scene(0.45, waves=0.15, spots=spots), 96, 96, rng)[0][..., 0]
    hounsfield = np.rint(grey / 255 * 700 - 270)
    study, series, instance = ids
    return write_dicom(
        (hounsfield + 1024).astype(np.int16),
        study=study,
        series=series,
        instance=instance,
        kind="CT",
        attributes={
            "RescaleIntercept": -1024,
            "RescaleSlope": 1,
            "WindowCenter": 40,
            "WindowWidth": 400,
            "PixelSpacing": [0.7, 0.7],
            "ImagePositionPatient": [0, 0, -1.25 * place],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "InstanceNumber": place + 1,
        },
    )
