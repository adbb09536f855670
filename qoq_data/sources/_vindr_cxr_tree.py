"""A generated tree in the layout of VinDr-CXR 1.0.0: three readers a film, who do not always agree."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qoq_data.clinical.reader_boxes import Edges
from qoq_data.clinical.synthetic_image import Scene, Spot, draw_scene
from qoq_data.sources._published_files import csv_bytes, write_with_checksums
from qoq_data.sources._vindr_cxr_labels import LOCAL, NO_FINDING
from qoq_data.sources._vindr_cxr_tables import EDGES, HEADINGS, boxes_path, film_path, labels_path
from qoq_data.sources._vindr_files import Encoding, published_film

KEPT_TAGS = (
    "PatientSex", "PatientAge", "PatientSize", "PatientWeight", "SamplesPerPixel", "PhotometricInterpretation",
    "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "PixelAspectRatio", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "SmallestImagePixelValue", "LargestImagePixelValue", "WindowCenter", "WindowWidth",
    "RescaleIntercept", "RescaleSlope", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod", "PixelData",
)  # fmt: skip
"""The publisher's list: neither UIDs nor modality, VOI LUT or padding are on it."""

_SIDE_PX = (144, 168)
_CASES: tuple[tuple[str, ...], ...] = (
    (NO_FINDING,),
    ("Cardiomegaly",),
    ("Pleural effusion",),
    ("Pneumothorax",),
    ("Consolidation",),
    ("Cardiomegaly", "Pleural effusion", "Other disease"),
    (NO_FINDING,),
    ("Nodule/Mass", "Lung tumor"),
    ("Pneumothorax", "Rib fracture"),
    ("Consolidation", "Lung Opacity", "Pneumonia"),
    ("Infiltration", "Pulmonary fibrosis", "Tuberculosis"),
    ("Emphysema", "COPD"),
)
"""What films show, in turn; the first five are plain to see in ``image_features``."""
_ELLIPSES: Mapping[str, tuple[float, float, float, float, float]] = {
    "Cardiomegaly": (0.55, 0.62, 0.3, 0.24, 0.95),
    "Pleural effusion": (0.28, 0.82, 0.17, 0.09, 0.97),
    "Pneumothorax": (0.72, 0.28, 0.11, 0.15, 0.02),
    "Consolidation": (0.28, 0.5, 0.14, 0.2, 0.85),
    "Lung Opacity": (0.72, 0.55, 0.12, 0.12, 0.6),
    "Nodule/Mass": (0.7, 0.36, 0.07, 0.07, 0.9),
    "Rib fracture": (0.18, 0.4, 0.07, 0.05, 0.75),
    "Infiltration": (0.3, 0.4, 0.13, 0.12, 0.55),
    "Pulmonary fibrosis": (0.7, 0.6, 0.12, 0.1, 0.5),
    "Emphysema": (0.28, 0.3, 0.12, 0.14, 0.12),
}
"""Centre and radii, in shares of the sides and of the shorter, and tone of what is drawn for a finding."""
_DISAGREED = ("Nodule/Mass", "Lung cyst", "Other lesion")


def write_tree(folder: Path, seed: int, patients: int) -> None:
    """A film a patient, every fifth on the test side; see ``_readings`` for what the readers make of it."""
    rng = np.random.default_rng([seed, 1])
    labels: dict[str, list[list[object]]] = {"train": [], "test": []}
    boxes: dict[str, list[list[object]]] = {"train": [], "test": []}
    files: dict[str, bytes] = {}
    for number in range(max(5, patients)):
        side = "test" if number % 5 == 4 else "train"
        case = _CASES[number % len(_CASES)]
        image = hashlib.md5(f"{seed} {number}".encode(), usedforsecurity=False).hexdigest()
        grey, drawn = _film(case, rng)
        files[film_path(side, image)] = _file(grey, number, image)
        if side == "test":
            readings: Mapping[str, Sequence[tuple[str, Edges | None]]] = {"": _reading(case, drawn, 0, rng)}
        else:
            names = [f"R{one + 1}" for one in rng.choice(17, 3, replace=False)]
            readings = dict(zip(names, _readings(case, drawn, number, rng), strict=True))
        for reader, reading in readings.items():
            ids = [image, *([reader] if side == "train" else [])]
            stated = {label for label, _ in reading}
            columns = [name.replace("Other diseases", "Other disease") for name in HEADINGS[side]]
            labels[side].append([*ids, *(int(name in stated) for name in columns)])
            placed = [(label, edges) for label, edges in reading if edges is not None or label == NO_FINDING]
            for label, edges in placed:
                boxes[side].append([*ids, label, *(f"{edge:.2f}" if edges else "" for edge in edges or [""] * 4)])
    for side, rows in labels.items():
        ids = ["image_id", *(["rad_id"] if side == "train" else [])]
        order = rng.permutation(len(rows))
        files[labels_path(side)] = csv_bytes([*ids, *HEADINGS[side]], [rows[place] for place in order])
        drawn_order = rng.permutation(len(boxes[side]))
        table = [boxes[side][place] for place in drawn_order]
        files[boxes_path(side)] = csv_bytes([*ids, "class_name", *EDGES], table)
    write_with_checksums(folder, files)


def _film(case: Sequence[str], rng: np.random.Generator) -> tuple[NDArray[np.uint8], dict[str, Edges]]:
    """Grey uint8 [rows, columns], bright where the body is dense, and the edges of what is drawn for each finding."""
    heart = () if "Cardiomegaly" in case else (Spot((0.54, 0.62), (0.1, 0.12), 0.58),)
    spots = [*(Spot((x, 0.46), (0.17, 0.36), 0.24) for x in (0.28, 0.72)), *heart]
    findings = [label for label in case if label in LOCAL]
    spots += [Spot((x, y), (across, down), tone) for x, y, across, down, tone in (_ELLIPSES[one] for one in findings)]
    scene = Scene(float(rng.uniform(0.42, 0.48)), waves=0.05, texture=0.06, spots=tuple(spots))
    width, height = (int(one) for one in rng.integers(*_SIDE_PX, 2))
    pixels, masks = draw_scene(scene, width, height, rng)
    edges = {}
    for label, mask in zip(findings, masks[len(masks) - len(findings) :], strict=True):
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        edges[label] = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return pixels[..., 0], edges


def _readings(
    case: Sequence[str], drawn: Mapping[str, Edges], number: int, rng: np.random.Generator
) -> list[list[tuple[str, Edges | None]]]:
    """What three readers state, with a box for what has a place.

    Of 7 films one has a finding that the third overlooks, one a finding that only the third sees, and one a lesion
    that the first draws twice; of 24 films one has a lesion that each calls by another name.
    """
    if number % 24 == 17:
        place = next(iter(drawn.values()))
        return [[(label, _jittered(place, rng))] for label in _DISAGREED]
    three = [_reading(case, drawn, 1, rng) for _ in range(3)]
    kind = number % 7
    if kind == 2 and drawn:
        overlooked = next(iter(drawn))
        left = [one for one in three[2] if one[0] != overlooked]
        three[2] = left if left else [(NO_FINDING, None)]
    if kind == 4:
        seen = [one for one in three[2] if one[0] != NO_FINDING]
        three[2] = [*seen, ("Lung cyst", _jittered((40, 44, 60, 62), rng))]
    if kind == 6 and drawn:
        first = next(iter(drawn))
        three[0].append((first, _jittered(drawn[first], rng)))
    return three


def _reading(
    case: Sequence[str], drawn: Mapping[str, Edges], jitter: int, rng: np.random.Generator
) -> list[tuple[str, Edges | None]]:
    return [(label, _jittered(drawn[label], rng, jitter) if label in drawn else None) for label in case]


def _jittered(edges: Edges, rng: np.random.Generator, jitter: int = 1) -> Edges:
    x0, y0, x1, y1 = (max(0.0, edge + float(rng.uniform(-jitter, jitter))) for edge in edges)
    return x0, y0, x1, y1


def _file(grey: NDArray[np.uint8], number: int, image: str) -> bytes:
    """Both photometric interpretations in turn, 12 to 16 bits, with one window, two, or none."""
    how = Encoding((12, 14, 16)[number % 3], number % 2 == 1, (1, 2, 1, 0)[number % 4 if number % 8 < 4 else 0])
    attributes = {
        "PatientSex": "MF"[number % 2],
        "PatientAge": f"{30 + number % 50:03d}Y",
        "PixelSpacing": [0.139, 0.139],
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
    }
    return published_film(grey, how, image, KEPT_TAGS, attributes)
