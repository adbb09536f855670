"""Slices of a series in space, and the frames of a segmentation on them: by position and reference, never by a list.

File names, InstanceNumber and the order of a folder say nothing here (PS3.3 C.7.6.2.1.1 for position and orientation,
C.8.20.2 and C.7.6.16.2 for segmentations).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_elements import DataSet
from qoq_data.formats.dicom_file import read_dicom_file
from qoq_data.formats.dicom_pixels import stored_words
from qoq_data.formats.dicom_shape import frame_shape
from qoq_data.formats.dicom_values import functional_group
from qoq_data.formats.image import MAX_PIXELS

SAME_PLACE_MM: Final = 0.01
"""Slices closer than this along the normal are the same place: headers are written to a thousandth or so."""

_SAME_DIRECTION: Final = 1e-3

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SlicePlace:
    """Where an image stands: ``position`` of its first pixel in mm, ``row`` and ``column`` directions of its lines."""

    instance: str
    position: Vector
    row: Vector
    column: Vector
    path: str

    @property
    def normal(self) -> Vector:
        return np.asarray(np.cross(self.row, self.column), np.float64)

    def distance(self, normal: Vector) -> float:
        """mm along a normal."""
        return float(self.position @ normal)


@dataclass(frozen=True, slots=True, eq=False)
class SegmentOnSlice:
    """A segment's mask [rows, columns] on the slice of this place in the list that was given."""

    segment: int
    slice: int
    mask: NDArray[np.bool_]


def slice_place(data_set: DataSet, frame: int = 0) -> SlicePlace:
    """Of an image, or a frame of it; raises HEADER_INVALID where position or orientation are missing or cannot be."""
    place = functional_group(data_set, frame, "PlanePositionSequence") or data_set
    plane = functional_group(data_set, frame, "PlaneOrientationSequence") or data_set
    position = np.array(place.numbers("ImagePositionPatient"))
    lines = np.array(plane.numbers("ImageOrientationPatient"))
    sound = (
        position.shape == (3,)
        and lines.shape == (6,)
        and math.isclose(float(lines[:3] @ lines[:3]), 1, abs_tol=0.01)
        and math.isclose(float(lines[3:] @ lines[3:]), 1, abs_tol=0.01)
        and math.isclose(float(lines[:3] @ lines[3:]), 0, abs_tol=0.01)
    )
    if not sound or float(np.abs(position).max()) > 1e6:
        detail = "where the slice stands in space is not said, or cannot be"
        raise RecordError(Reason.HEADER_INVALID, detail, data_set.path)
    return SlicePlace(data_set.text("SOPInstanceUID"), position, lines[:3], lines[3:], data_set.path)


def slice_order(places: Sequence[SlicePlace]) -> tuple[int, ...]:
    """The slices' places in the list, in the order in which they stand along their common normal.

    The order is the same for any order of the list. A tilted gantry shifts slices within their plane, which does not
    matter. Raises HEADER_MISMATCH where slices are not parallel, or two stand at the same place.
    """
    if not places:
        return ()
    first = places[0]
    for other in places[1:]:
        if not _parallel(first, other):
            raise RecordError(Reason.HEADER_MISMATCH, "the slices of the series are not parallel", other.path)
    normal = first.normal
    order = tuple(sorted(range(len(places)), key=lambda place: places[place].distance(normal)))
    for below, above in pairwise(order):
        if places[above].distance(normal) - places[below].distance(normal) < SAME_PLACE_MM:
            detail = "two slices of the series stand at the same place"
            raise RecordError(Reason.HEADER_MISMATCH, detail, places[above].path)
    return order


def segments_on_slices(
    data: bytes, path: str, slices: Sequence[SlicePlace], *, max_pixels: int = MAX_PIXELS
) -> tuple[SegmentOnSlice, ...]:
    """The masks of a binary DICOM segmentation that have a voxel, by segment and then by slice.

    A frame belongs to the slice that it refers to, or else to the one at its position. Frames of a segment on the same
    slice are joined; a segment without a voxel is not there. Raises ``RecordError``: FORMAT_UNSUPPORTED for another
    kind of segmentation, MASK_CONFLICT for a frame that belongs to no slice or whose reference and position disagree,
    and as ``read_dicom_frame``.
    """
    file = read_dicom_file(data, path)
    data_set = file.data_set
    shape = frame_shape(data_set, max_pixels)
    if data_set.text("SegmentationType") != "BINARY" or shape.samples != 1:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, "only binary segmentations are read", path)
    found: dict[tuple[int, int], NDArray[np.bool_]] = {}
    for frame in range(shape.frames):
        mask = stored_words(file, shape, frame).words.astype(np.bool_)
        if not mask.any():
            continue
        key = (_segment(data_set, frame), _slice_of(data_set, frame, slices))
        found[key] = found[key] | mask if key in found else mask
    return tuple(SegmentOnSlice(segment, place, mask) for (segment, place), mask in sorted(found.items(), key=_by_key))


def _by_key(entry: tuple[tuple[int, int], Any]) -> tuple[int, int]:
    return entry[0]


def _parallel(one: SlicePlace, other: SlicePlace) -> bool:
    """The same rows and columns, not only the same plane: a turned slice is another picture."""
    away = max(float(np.abs(one.row - other.row).max()), float(np.abs(one.column - other.column).max()))
    return away < _SAME_DIRECTION


def _segment(data_set: DataSet, frame: int) -> int:
    group = functional_group(data_set, frame, "SegmentIdentificationSequence")
    if group is None:
        raise RecordError(Reason.HEADER_INVALID, "a frame does not say which segment it is of", data_set.path)
    return group.integer("ReferencedSegmentNumber")


def _slice_of(data_set: DataSet, frame: int, slices: Sequence[SlicePlace]) -> int:
    referred = _referred(data_set, frame)
    by_reference = [place for place, one in enumerate(slices) if one.instance in referred]
    try:
        own = slice_place(data_set, frame)
    except RecordError:
        own = None
    by_position = [
        place
        for place, one in enumerate(slices)
        if own is not None
        and _parallel(one, own)
        and abs(own.distance(one.normal) - one.distance(one.normal)) < SAME_PLACE_MM
    ]
    if len(by_reference) == 1 and (not by_position or by_reference[0] in by_position):
        return by_reference[0]
    if not by_reference and len(by_position) == 1:
        return by_position[0]
    both = [place for place in by_reference if place in by_position]
    if len(both) == 1:
        return both[0]
    detail = f"frame {frame + 1} refers to {len(by_reference)} slices and stands at the place of {len(by_position)}"
    raise RecordError(Reason.MASK_CONFLICT, detail, data_set.path)


def _referred(data_set: DataSet, frame: int) -> set[str]:
    per_frame = data_set.items("PerFrameFunctionalGroupsSequence")
    if frame >= len(per_frame):
        return set()
    return {
        source.text("ReferencedSOPInstanceUID")
        for derivation in per_frame[frame].items("DerivationImageSequence")
        for source in derivation.items("SourceImageSequence")
    }
