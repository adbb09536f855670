"""Volumes as a reader looks at them: canonical axes, planes, slices, and the way back to the stored voxels.

Canonical axes point to the patient's right, front and head (RAS+): each stored axis is turned to the one that it lies
closest to, by views, so that no voxel is copied and none interpolated. An oblique volume keeps its own planes, which
is said. Slices are counted along the canonical axis that stands on their plane: sagittal from the patient's left,
coronal from behind, axial from the feet.

Every slice is shown the same way. Axial: front above, the patient's right on the picture's left (radiological).
Coronal: head above, the patient's right on the left. Sagittal: head above, front on the left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from qoq_data.clinical.tiling import Window
from qoq_data.clinical.windowing import display_text, display_window, range_levels, to_grey, window_levels
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.nifti import Volume
from qoq_data.formats.nifti_header import SAME_VOXEL, corner_distance

__all__ = [
    "PLANES", "VIEWS", "Orientation", "Plane", "box_to_canonical", "canonical_axes", "canonical_to_stored",
    "check_agreement", "check_slice", "grey_slice", "slice_of", "slice_spacing", "tilt_degrees", "to_canonical",
]  # fmt: skip

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: Final[tuple[Plane, ...]] = get_args(Plane)
NORMAL_AXIS: Final[Mapping[str, int]] = {"sagittal": 0, "coronal": 1, "axial": 2}
VIEWS: Final[Mapping[str, str]] = {
    "axial": "front above, the patient's right on the left",
    "coronal": "head above, the patient's right on the left",
    "sagittal": "head above, front on the left",
}
_ENDS: Final = (("L", "R"), ("P", "A"), ("I", "S"))
_LOOK_UP: Final = 1 << 16
Scalar = TypeVar("Scalar", bound=np.generic)
Voxels = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a volume is stored: canonical axis c is the stored axis ``axes[c]``, run backwards where ``flipped[c]``."""

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def __str__(self) -> str:
        """The ends to which the stored axes point, as in ``IPL``."""
        ends = {axis: _ENDS[canonical][not self.flipped[canonical]] for canonical, axis in enumerate(self.axes)}
        return "".join(ends[axis] for axis in range(3))


def canonical_axes(affine: NDArray[np.float64]) -> Orientation:
    """The orientation whose axes lie closest to those of the affine [4, 4].

    Shear is taken out first (the nearest rotation); then stored axes choose, the one that lies closest to any
    canonical axis first. Raises ``ValueError`` for an affine whose axes lie in a plane.
    """
    edges = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    left, sizes, right = np.linalg.svd(edges)
    if not sizes.min() > 1e-6:
        raise ValueError("the axes of the affine lie in a plane")
    rotation = left @ right
    closeness = np.abs(rotation)
    axes, flipped = [0, 0, 0], [False, False, False]
    for stored in np.argsort(-closeness.max(axis=0), kind="stable").tolist():
        canonical = int(closeness[:, stored].argmax())
        axes[canonical], flipped[canonical] = stored, bool(rotation[canonical, stored] < 0)
        closeness[canonical] = -1
    return Orientation((axes[0], axes[1], axes[2]), (flipped[0], flipped[1], flipped[2]))


def to_canonical(volume: Volume) -> Volume:
    """The same volume along canonical axes, its values a view of those given; ``taken`` says what was turned."""
    found = canonical_axes(volume.affine)
    backwards = tuple(slice(None, None, -1 if one else 1) for one in found.flipped)
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for canonical, stored in enumerate(found.axes):
        change[stored, canonical] = -1 if found.flipped[canonical] else 1
        change[stored, 3] = volume.values.shape[stored] - 1 if found.flipped[canonical] else 0
    affine = volume.affine @ change
    notes = [f"stored axes {found}"]
    if (tilt := tilt_degrees(affine)) >= 0.05:
        notes.append(f"oblique by {tilt:.1f} degrees, in its own planes")
    values = volume.values.transpose(found.axes)[backwards]
    return replace(volume, values=values, affine=affine, taken=(*volume.taken, *notes))


def tilt_degrees(affine: NDArray[np.float64]) -> float:
    """The largest angle between an axis of a canonical affine and the direction it stands for."""
    edges = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return math.degrees(math.acos(min(1.0, float(np.diag(edges).min()))))


def check_agreement(image: Volume, labels: Volume, path: str) -> None:
    """Raise ``RecordError`` (MASK_SHAPE_MISMATCH) unless two canonical volumes have one shape and place every voxel
    alike, within half of the smallest voxel edge; ``path`` is that of the labels."""
    if image.values.shape != labels.values.shape:
        detail = f"the labels have {_size(labels)} voxels along canonical axes, their image {_size(image)}"
        raise RecordError(Reason.MASK_SHAPE_MISMATCH, detail, path)
    apart = corner_distance(image.affine, labels.affine, image.values.shape)
    if apart > SAME_VOXEL:
        detail = f"the affines of labels and image place a voxel {apart:.1f} voxels apart, more than {SAME_VOXEL}"
        raise RecordError(Reason.MASK_SHAPE_MISMATCH, detail, path)


def slice_of(values: NDArray[Scalar], plane: str, index: int, path: str = "") -> NDArray[Scalar]:
    """One slice of canonical values as it is shown, [rows, columns], a view; both of its axes run backwards.

    Raises ``RecordError`` (HEADER_MISMATCH) for a slice that the volume has not.
    """
    check_slice(values.shape, plane, index, path)
    where: list[Any] = [slice(None, None, -1)] * 3
    where[NORMAL_AXIS[plane]] = index
    shown: NDArray[Scalar] = values[tuple(where)].T
    return shown


def check_slice(shape: tuple[int, ...], plane: str, index: int, path: str = "") -> None:
    """Raise ``RecordError`` (HEADER_MISMATCH) for a slice that a canonical volume of ``shape`` has not."""
    count = shape[NORMAL_AXIS[plane]]
    if not 0 <= index < count:
        raise RecordError(Reason.HEADER_MISMATCH, f"there is no {plane} slice {index} among its {count}", path)


def slice_spacing(spacing_mm: tuple[float, float, float], plane: str) -> tuple[float, float]:
    """(row, column) distance of a slice's pixels, of canonical spacing."""
    across, down = _shown_axes(plane)
    return spacing_mm[down], spacing_mm[across]


def grey_slice(volume: Volume, plane: str, index: int, display: str, path: str) -> tuple[NDArray[np.uint8], str]:
    """One slice in 8 bits as it is shown, and its window in words: that called ``display``, else the volume's range.

    Whole numbers go through a look-up table over the stored values, so that each value is scaled and windowed once.
    Raises ``RecordError``: HEADER_MISMATCH for a slice that is not there, SAMPLES_OUT_OF_RANGE for values that are no
    numbers.
    """
    stored = slice_of(volume.values, plane, index, path)
    seen = stored if display else volume.values
    lowest, highest = (float(one) * volume.slope + volume.intercept for one in (seen.min(), seen.max()))
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise RecordError(Reason.SAMPLES_OUT_OF_RANGE, "some of its voxels are no numbers", path)
    lowest, highest = min(lowest, highest), max(lowest, highest)

    def grey(values: NDArray[Any]) -> NDArray[np.uint8]:
        real = values.astype(np.float64) * volume.slope + volume.intercept
        levels = window_levels(real, display_window(display)) if display else range_levels(real, lowest, highest)
        return to_grey(levels)

    text = display_text(display) if display else f"the volume's range, {lowest:g} to {highest:g}"
    whole = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 4
    first, last = (int(stored.min()), int(stored.max())) if whole else (0, _LOOK_UP)
    if last - first >= _LOOK_UP:
        return grey(stored), text
    return grey(np.arange(first, last + 1))[stored.astype(np.int64) - first], text


def box_to_canonical(box: Window, plane: str, index: int, shape: tuple[int, int, int]) -> Voxels:
    """The voxels of a canonical volume of ``shape`` that a box (half-open xyxy) on a slice's picture covers."""
    x0, y0, x1, y1 = box
    across, down = _shown_axes(plane)
    where = [slice(index, index + 1)] * 3
    where[across] = slice(shape[across] - x1, shape[across] - x0)
    where[down] = slice(shape[down] - y1, shape[down] - y0)
    return where[0], where[1], where[2]


def canonical_to_stored(voxels: Voxels, orientation: Orientation, shape: tuple[int, int, int]) -> Voxels:
    """The same voxels counted along stored axes; ``shape`` is that of the canonical volume."""
    stored = [slice(0, 0)] * 3
    for canonical, axis in enumerate(orientation.axes):
        one, size = voxels[canonical], shape[canonical]
        stored[axis] = slice(size - one.stop, size - one.start) if orientation.flipped[canonical] else one
    return stored[0], stored[1], stored[2]


def _shown_axes(plane: str) -> tuple[int, int]:
    """The canonical axes that run across and down a slice's picture."""
    across, down = (axis for axis in range(3) if axis != NORMAL_AXIS[plane])
    return across, down


def _size(volume: Volume) -> str:
    return " x ".join(str(one) for one in volume.values.shape)
