"""A generated tree in the layout of VinDr-Mammo 1.0.0: exams of four views, with what was found on them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qoq_data.clinical.reader_boxes import Edges
from qoq_data.clinical.synthetic_image import BRIGHT, Scene, Spot, draw_scene
from qoq_data.sources._published_files import csv_bytes, write_with_checksums
from qoq_data.sources._vindr_files import Encoding, published_film
from qoq_data.sources._vindr_mammo_tables import (
    BREASTS,
    CATEGORIES,
    DENSITIES,
    EDGES,
    FINDINGS,
    IMAGES,
    METADATA,
    NO_FINDING,
    VIEWS,
)

KEPT_TAGS = (
    "PatientSex", "PatientAge", "PatientSize", "PatientWeight", "Rows", "Columns", "PixelSpacing", "ImagerPixelSpacing",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PresentationLUTShape", "SmallestImagePixelValue", "LargestImagePixelValue", "WindowCenter", "WindowWidth",
    "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence", "RescaleIntercept", "RescaleSlope",
    "RescaleType", "PixelData", "PhotometricInterpretation", "LossyImageCompression", "SamplesPerPixel",
    "NumberOfFrames", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality", "BodyPartExamined",
    "PresentationIntentType", "Manufacturer", "ManufacturerModelName", "Laterality", "ImageLaterality", "ViewPosition",
)  # fmt: skip
"""The publisher's list. UIDs are on it, as digests that are no UIDs."""

_HEIGHT, _WIDTH = 128, 104
_MARGIN = 3
"""Columns of padding along the side away from the breast."""
_LEAST_FOR_RAW = 24
_FOUND = tuple(category for category in CATEGORIES if category != NO_FINDING)
_RADII = {3: 0.08, 4: 0.15, 5: 0.22}
_TONES = dict(zip(DENSITIES, (0.22, 0.31, 0.4, 0.49), strict=True))
_METADATA = (
    "SOP Instance UID", "Series Instance UID", "Image Laterality", "View Position", "Patient's Age", "Rows", "Columns",
    "Photometric Interpretation", "Presentation Intent Type", "Manufacturer",
)  # fmt: skip


def write_tree(folder: Path, seed: int, patients: int) -> None:
    """An exam a patient of four images; every sixth exam is on the test side.

    Grades go round over breasts and densities over exams. From grade 3 on, a breast has a finding, of two categories in
    one of three; what is under 3 has none in the table, as published. From 24 exams on, one image is for processing.
    """
    rng = np.random.default_rng([seed, 2])
    breasts: list[list[object]] = []
    findings: list[list[object]] = []
    metadata: list[list[object]] = []
    files: dict[str, bytes] = {}
    for exam in range(max(6, patients)):
        study, density = _digest(f"{seed} study {exam}"), DENSITIES[exam % 4]
        split = "test" if exam % 6 == 5 else "training"
        for side in "LR":
            turn = 2 * exam + (side == "R")
            grade = 1 + turn % 5
            for view in VIEWS:
                number = len(breasts)
                image, series = (_digest(f"{seed} {kind} {number}") for kind in ("image", "series"))
                grey, edges = _mammogram(side, view, grade, density, rng)
                how = Encoding((12, 14, 16)[number % 3], number % 4 < 2, (1, 1, 2, 1, 0)[number % 5])
                raw = number == 50 and patients >= _LEAST_FOR_RAW
                intent = "FOR PROCESSING" if raw else "FOR PRESENTATION"
                ids = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": image}
                attributes = {
                    **ids,
                    "Modality": "MG",
                    "ImageLaterality": side,
                    "ViewPosition": view,
                    "PatientAge": f"{40 + exam % 40:03d}Y",
                    "PresentationIntentType": intent,
                    "PixelPaddingValue": 0 if not how.is_inverted else (1 << how.bits) - 1,
                    "ImagerPixelSpacing": [0.094, 0.094],
                    "RescaleIntercept": 0,
                    "RescaleSlope": 1,
                }
                files[f"{IMAGES}/{study}/{image}.dicom"] = published_film(grey, how, image, KEPT_TAGS, attributes)
                said = [study, series, image, side, view, _HEIGHT, _WIDTH, f"BI-RADS {grade}", density, split]
                breasts.append(said)
                categories = [_FOUND[turn % 10], _FOUND[(turn + 3) % 10]][: 2 if turn % 3 == 0 else 1]
                named = f"{categories if edges else [NO_FINDING]}"
                places = [f"{edge:.2f}" for edge in edges] if edges else [""] * 4
                grades = f"BI-RADS {grade}" if edges else ""
                findings.append([*said[:9], named, grades, *places, split])
                photometric = "MONOCHROME1" if how.is_inverted else "MONOCHROME2"
                age = attributes["PatientAge"]
                metadata.append([image, series, side, view, age, _HEIGHT, _WIDTH, photometric, intent, "Maker"])
    order = rng.permutation(len(breasts))
    columns = ("study_id", "series_id", "image_id", "laterality", "view_position", "height", "width")
    graded = ("breast_birads", "breast_density")
    of_findings = (*columns, *graded, "finding_categories", "finding_birads", *EDGES, "split")
    files[BREASTS] = csv_bytes((*columns, *graded, "split"), breasts)
    files[FINDINGS] = csv_bytes(of_findings, [findings[place] for place in order])
    files[METADATA] = csv_bytes(_METADATA, metadata)
    write_with_checksums(folder, files)


def _mammogram(
    side: str, view: str, grade: int, density: str, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Edges | None]:
    """Grey uint8 [rows, columns], padding 0 along its far side, and the edges of its finding.

    The breast of the right side comes from the right edge, as films are hung; a lesion is larger the higher its grade.
    """
    breast = Spot((0.0, 0.5 if view == "CC" else 0.45), (0.78, 0.56), _TONES[density])
    lesion = [Spot((0.32, 0.5), (_RADII[grade], _RADII[grade] * 0.8), BRIGHT, 0.15)] if grade in _RADII else []
    benign = [Spot((0.3, 0.45), (0.035, 0.035), BRIGHT)] if grade == 2 else []
    scene = Scene(0.05, waves=0.05, texture=0.05, spots=(breast, *lesion, *benign))
    pixels, masks = draw_scene(scene, _WIDTH, _HEIGHT, rng)
    grey = np.maximum(pixels[..., 0], 1)
    grey[:, -_MARGIN:] = 0
    mask = masks[1] if lesion else None
    if side == "R":
        grey = grey[:, ::-1]
        mask = mask[:, ::-1] if mask is not None else None
    if mask is None:
        return np.ascontiguousarray(grey), None
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    edges = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return np.ascontiguousarray(grey), edges


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
