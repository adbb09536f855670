"""Volumes on disk for tests: a canonical array stored in any of the 48 orientations."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qoq_data.clinical.volume_boxes import volume_names_text
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.formats.nifti_write import nifti_bytes
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe, SourceRecipe
from qoq_data.record import Media

ORIENTATIONS = [
    (axes, flips) for axes in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)
]
NAMES = {1: "liver", 2: "lesion", 3: "vessel"}


def canonical_affine(edges: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> NDArray[np.float64]:
    affine = np.diag([*edges, 1.0])
    affine[:3, 3] = [-30, -40, 500]
    return affine


def stored_as(
    values: NDArray[Any], affine: NDArray[np.float64], axes: tuple[int, ...], flips: tuple[bool, ...]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The canonical volume as a file has it whose stored axis s is canonical ``axes[s]``, backwards where it flips."""
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for stored, axis in enumerate(axes):
        change[axis, stored] = -1 if flips[stored] else 1
        change[axis, 3] = values.shape[axis] - 1 if flips[stored] else 0
    backwards = tuple(slice(None, None, -1 if one else 1) for one in flips)
    return values.transpose(axes)[backwards], affine @ change


def write(folder: Path, name: str, values: NDArray[Any], affine: NDArray[np.float64], **keys: Any) -> None:
    (folder / name).write_bytes(nifti_bytes(values, affine, **keys))


def references(
    plane: str, index: int, *, names: dict[int, str] | None = None, least_mm3: float = 0, display: str = "soft_tissue"
) -> list[MediaReference]:
    part = volume_names_text(names or NAMES, least_mm3)
    return [
        MediaReference("image", "volume", "image.nii.gz", f"{plane} CT", slice=(plane, index), display=display),
        MediaReference("mask", "volume_labels", "labels.nii.gz", part),
    ]


def render(folder: Path, media: list[MediaReference], **keys: Any) -> Media:
    recipe = Recipe.model_validate({"name": "made", "sources": (SourceRecipe(name="made"),), **keys})
    return render_media(Store(folder), media, recipe)
