"""Whether a label can be seen: a nearest-centroid classifier on named measures of what a built row holds.

It says that a synthetic medium shows its label, so that a model has something to learn; nothing about real disease.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical import ecg_features, image_features
from qoq_data.contract.workspace import item_of, tables
from qoq_data.record import millivolts

FOLDS = 4
LEAST_ROWS = 4
"""Fewest rows of a class that takes part."""


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """One row with exactly one label: who it is about, the label, and its features in the order asked for."""

    patient: str
    label: str
    features: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Separation:
    """Balanced accuracy on patients that the classifier has not seen, over so many rows of these classes."""

    balanced_accuracy: float
    classes: tuple[str, ...]
    rows: int

    @property
    def chance(self) -> float:
        return 1 / len(self.classes)


def measure_rows(corpus: Path, source: str, task: str, features: Sequence[str]) -> list[MeasuredRow]:
    """The rows of a task that have one label, measured on their millivolts or their decoded first image.

    Rows without a patient count as a patient each, but for those of the same stored picture or samples.
    """
    columns = ["id", "task", "patient", "answer", "images", "signals"]
    measured = []
    for table in tables(corpus, columns):
        for position, (row_id, row_task, patient, answer) in enumerate(_keys(table)):
            if row_task == task and len(answer) == 1:
                content, values = _measure(table, position, features)
                measured.append(MeasuredRow(patient or content or item_of(row_id, source), answer[0], values))
    return measured


def separation(rows: Sequence[MeasuredRow]) -> Separation:
    """Every row classified by the centroids of the other folds' patients; ``balanced_accuracy`` is the mean of recalls.

    Classes take part that have at least ``LEAST_ROWS`` rows and two patients. Features are z-scored on the training
    rows; one that could not be measured counts as their mean.
    """
    of_class: dict[str, list[MeasuredRow]] = {}
    for row in rows:
        of_class.setdefault(row.label, []).append(row)
    classes = tuple(
        sorted(
            label
            for label, members in of_class.items()
            if len(members) >= LEAST_ROWS and len({row.patient for row in members}) > 1
        )
    )
    taking_part = [row for row in rows if row.label in classes]
    if len(classes) < 2:
        return Separation(0.0, classes, len(taking_part))
    values = np.array([row.features for row in taking_part], dtype=np.float64)
    labels = np.array([classes.index(row.label) for row in taking_part])
    folds = _folds(taking_part)
    predicted = np.full(labels.size, -1)
    for fold in range(FOLDS):
        held_out = folds == fold
        if held_out.any() and not held_out.all():
            predicted[held_out] = _nearest(values[~held_out], labels[~held_out], values[held_out])
    recalls = [float(np.mean(predicted[labels == k] == k)) for k in range(len(classes))]
    return Separation(float(np.mean(recalls)), classes, labels.size)


def _folds(rows: Sequence[MeasuredRow]) -> NDArray[np.int64]:
    """Fold of each row: a patient is in one, and the patients of each class are dealt out in turn."""
    first = {row.patient: row.label for row in reversed(rows)}
    dealt = {patient: turn % FOLDS for turn, patient in enumerate(sorted(first, key=lambda one: (first[one], one)))}
    return np.array([dealt[row.patient] for row in rows], dtype=np.int64)


def _nearest(train: NDArray[np.float64], labels: NDArray[np.int64], held_out: NDArray[np.float64]) -> NDArray[np.int64]:
    known = np.isfinite(train)
    counts = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, train, 0).sum(axis=0) / counts
    deviation = np.sqrt((np.where(known, train - mean, 0) ** 2).sum(axis=0) / counts)
    scale = np.where(deviation > 0, deviation, 1)
    scaled, asked = (np.where(np.isfinite(one), one - mean, 0) / scale for one in (train, held_out))
    present = np.unique(labels)
    centroids = np.stack([scaled[labels == label].mean(axis=0) for label in present])
    distances = np.linalg.norm(asked[:, None] - centroids, axis=2)
    nearest: NDArray[np.int64] = present[distances.argmin(axis=1)]
    return nearest


def _keys(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in ("id", "task", "patient", "answer")), strict=True)


def _measure(table: pa.Table, position: int, features: Sequence[str]) -> tuple[str, tuple[float, ...]]:
    """A name for the content of a row's medium, and its features."""
    pictures = table["images"][position].as_py()
    if pictures:
        data = pictures[0]["bytes"]
        with Image.open(io.BytesIO(data)) as opened:
            picture = np.asarray(opened.convert("RGB"))
        measures = tuple(float(image_features.FEATURES[name](picture)) for name in features)
        return hashlib.sha256(picture.tobytes()).hexdigest(), measures
    signal = _signal(table, position)
    values = millivolts(signal)
    found = ecg_features.measure_features(values, signal["sampling_frequency_hz"], signal["lead_names"])
    return hashlib.sha256(values.tobytes()).hexdigest(), tuple(found[name] for name in features)


def _signal(table: pa.Table, position: int) -> dict[str, Any]:
    """A row's first signal; its samples go straight into an array, which as Python numbers would take seconds."""
    signals = table["signals"][position].values
    first = {field.name: signals.field(field.name)[0] for field in signals.type}
    leads = first.pop("samples").values
    samples = leads.flatten().to_numpy().reshape(len(leads), -1)
    return {name: value.as_py() for name, value in first.items()} | {"samples": samples}
