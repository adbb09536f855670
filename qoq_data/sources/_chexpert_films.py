"""Generated films in which the findings of CheXpert and MIMIC-CXR can be seen, and their cells in the tables."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical.synthetic_image import Scene, Spot, draw_scene
from qoq_data.source import SyntheticTask
from qoq_data.sources._chexpert_labels import DEVICES, FINDINGS, NO_FINDING

SEEN = (SyntheticTask("findings", ("mean_intensity", "bright_blob_area", "dark_blob_area", "dark_blob_aspect")),)
CASES: tuple[Mapping[str, float], ...] = (
    {NO_FINDING: 1},
    {"Cardiomegaly": 1, "Pneumothorax": 0},
    {"Pleural Effusion": 1, "Edema": -1},
    {"Pneumothorax": 1, "Pleural Effusion": 0},
    {"Lung Opacity": 1, "Consolidation": -1, "Pneumonia": -1},
    {NO_FINDING: 1, DEVICES: 1, "Pneumothorax": 0},
    {"Cardiomegaly": 1, "Edema": 1, "Enlarged Cardiomediastinum": 1, DEVICES: 1},
    {"Lung Opacity": 1, "Atelectasis": 1, "Pleural Effusion": 1, "Fracture": -1},
    {"Pneumothorax": 1, "Pleural Other": 1, "Lung Lesion": 0},
    {"Pneumonia": 1, "Consolidation": 1, "Lung Opacity": 1, "Cardiomegaly": 0},
    {"Fracture": 1, "Lung Lesion": 1, NO_FINDING: 0},
)
"""What generated studies are labelled with, in turn; the first five have one stated finding that is plain to see."""
HEDGED: Mapping[str, float] = {"Pneumonia": -1, "Atelectasis": -1}
DENIED: Mapping[str, float] = {"Pneumothorax": 0, "Pleural Effusion": 0}


def case_of(number: int) -> Mapping[str, float]:
    """The labels of a generated study; one in twenty states nothing, as one in twenty of the real rows."""
    return {16: HEDGED, 36: DENIED}.get(number % 40) or CASES[number % len(CASES)]


def read_case_of(number: int) -> Mapping[str, float]:
    """The labels of a generated study that radiologists read: all 0 or 1, and no 1 in every twelfth."""
    stated = {} if number % 12 == 10 else CASES[number % len(CASES)]
    return {name: float(stated.get(name) == 1) for name in FINDINGS}


def label_cells(case: Mapping[str, float], order: tuple[str, ...] = FINDINGS) -> list[str]:
    """A generated study's cells as the publishers write them."""
    return [f"{case[name]:.1f}" if name in case else "" for name in order]


def radiograph(case: Mapping[str, float], rng: np.random.Generator, *, lateral: bool = False) -> NDArray[np.uint8]:
    """A film, uint8 [height, width], in which a case's labels can be seen; a lateral has one lung field, not two."""
    stated = {name for name, value in case.items() if value == 1}
    lung = 0.62 if stated & {"Lung Opacity", "Edema", "Consolidation"} else 0.24
    sides = (0.5,) if lateral else (0.28, 0.72)
    spots = [Spot((x, 0.46), (0.26 if lateral else 0.17, 0.36), lung) for x in sides]
    is_large = bool(stated & {"Cardiomegaly", "Enlarged Cardiomediastinum"})
    spots.append(Spot((0.55, 0.62), (0.3, 0.24), 0.95) if is_large else Spot((0.54, 0.62), (0.1, 0.12), 0.58))
    side = sides[int(rng.integers(len(sides)))]
    if "Pleural Effusion" in stated:
        spots.append(Spot((side, 0.82), (0.17, 0.09), 0.97))
    if "Pneumothorax" in stated:
        spots.append(Spot((side, 0.28), (0.11, 0.15), 0.02))
    if DEVICES in stated:
        spots.append(Spot((0.5, 0.2), (0.012, 0.2), 1.0))
    scene = Scene(float(rng.uniform(0.42, 0.48)), waves=0.05, texture=0.06, spots=tuple(spots))
    pixels, _ = draw_scene(scene, int(rng.integers(112, 129)), int(rng.integers(128, 145)), rng)
    return np.asarray(Image.fromarray(pixels).convert("L"))


def jpeg_bytes(film: NDArray[np.uint8]) -> bytes:
    """A film as a JPEG file."""
    Image.fromarray(film).save(coded := io.BytesIO(), "JPEG", quality=90)
    return coded.getvalue()
