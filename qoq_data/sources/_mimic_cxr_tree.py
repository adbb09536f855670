"""A generated tree in the layout of MIMIC-CXR-JPG 2.1.0, and of MIMIC-CXR's DICOM files with the same tables."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qoq_data.clinical.synthetic_dicom import write_dicom
from qoq_data.sources import _chexpert_films as films
from qoq_data.sources._chexpert_labels import FINDINGS
from qoq_data.sources._published_files import csv_bytes, write_with_checksums

SPLIT = "mimic-cxr-2.0.0-split.csv.gz"
METADATA = "mimic-cxr-2.0.0-metadata.csv.gz"
LABELS = "mimic-cxr-2.0.0-chexpert.csv.gz"
NEGBIO = "mimic-cxr-2.0.0-negbio.csv.gz"
TEST_SET = "mimic-cxr-2.1.0-test-set-labeled.csv"


def write_tree(folder: Path, seed: int, patients: int, media: Literal["jpg", "dicom"] = "jpg") -> None:
    """Release 2.1.0 in miniature: one to three studies a patient, every other with a lateral, some views blank.

    Of 40 studies one is only hedged, one only denied, and one has no row of labels. With ``media`` dicom the films are
    those of MIMIC-CXR, of 12 bits, every other one MONOCHROME1.
    """
    rng = np.random.default_rng(seed)
    subjects = sorted(int(one) for one in 10_000_000 + rng.choice(9_999_999, patients, replace=False))
    order = tuple(sorted(FINDINGS))
    studies = iter(50_000_000 + rng.choice(9_999_999, 3 * patients, replace=False))
    split: list[tuple[object, ...]] = []
    metadata, labels, negbio, test_set = [], [], [], []
    files: dict[str, bytes] = {}
    number = 0
    for place, subject in enumerate(subjects):
        side = {8: "validate", 9: "test"}.get(place % 10, "train")
        for _ in range(1 + place % 3):
            study, case = int(next(studies)), films.case_of(number)
            for lateral in (False, True)[: 1 + number % 2]:
                dicom = "-".join(f"{one:08x}" for one in rng.integers(1 << 32, size=5))
                view = "" if len(split) % 24 == 5 else "LATERAL" if lateral else ("AP", "PA")[number % 3 == 0]
                film = films.radiograph(case, rng, lateral=lateral)
                path = f"files/p{str(subject)[:2]}/p{subject}/s{study}/{dicom}"
                if media == "jpg":
                    files[f"{path}.jpg"] = films.jpeg_bytes(film)
                else:
                    files[f"{path}.dcm"] = _dicom(
                        film, (str(subject), str(study), dicom), is_inverse=len(split) % 2 == 1
                    )
                split.append((dicom, study, subject, side))
                step, date = "CHEST (PA AND LAT)" if number % 2 else "CHEST (PORTABLE AP)", 21_800_101 + number
                metadata.append((dicom, subject, study, step, view, 3056, 2544, date, "213014.531", step, "", "Erect"))
            if number % 40 != 28:
                labels.append((subject, study, *films.label_cells(case, order)))
                otherwise = {**case, "Pleural Other": -1} if number == 2 else case
                negbio.append((subject, study, *films.label_cells(otherwise, order)))
            if side == "test":
                test_set.append((study, *films.label_cells(case)))
            number += 1
    described = ("PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns", "StudyDate", "StudyTime")
    meanings = [f"{one}CodeSequence_CodeMeaning" for one in ("Procedure", "View", "PatientOrientation")]
    tables = {
        SPLIT: csv_bytes(("dicom_id", "study_id", "subject_id", "split"), split),
        METADATA: csv_bytes(("dicom_id", "subject_id", "study_id", *described, *meanings), metadata),
        LABELS: csv_bytes(("subject_id", "study_id", *order), labels),
        NEGBIO: csv_bytes(("subject_id", "study_id", *order), negbio),
    }
    listed = "".join(f"{path}\n" for path in sorted(files)).encode()
    files |= {path: gzip.compress(data, mtime=0) for path, data in tables.items()}
    files |= {TEST_SET: csv_bytes(("study_id", *FINDINGS), test_set), "IMAGE_FILENAMES": listed}
    write_with_checksums(folder, files)


def _dicom(film: NDArray[np.uint8], ids: tuple[str, str, str], *, is_inverse: bool) -> bytes:
    """A film as a DICOM file of 12 bits with a window; an inverse one holds small values where it is bright."""
    values = film.astype(np.uint16) * 16
    subject, study, instance = ids
    return write_dicom(
        4095 - values if is_inverse else values,
        study=study,
        series=f"{subject} {study}",
        instance=instance,
        kind="DX",
        photometric="MONOCHROME1" if is_inverse else "MONOCHROME2",
        bits_stored=12,
        attributes={"WindowCenter": [2048, 1800], "WindowWidth": [4096, 3000], "ImagerPixelSpacing": [0.139, 0.139]},
    )
