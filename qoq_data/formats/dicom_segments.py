"""DICOM segmentations: which of their frames lie on a picture, by reference and by place, and never by their order.

File names, InstanceNumber and the order of frames say nothing here (PS3.3 C.8.20.2 and C.7.6.16.2 for segmentations,
C.7.6.2.1.1 for position and orientation).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_elements import DataSet
from qoq_data.formats.dicom_file import DicomFile
from qoq_data.formats.dicom_pixels import stored_words
from qoq_data.formats.dicom_shape import FrameShape, frame_shape
from qoq_data.formats.dicom_values import functional_group, functional_groups
from qoq_data.formats.image import MAX_PIXELS

SAME_PLACE_MM: Final = 0.01
"""Planes whose first pixels are closer than this are the same: headers are written to a thousandth or so."""

_SAME_DIRECTION: Final = 1e-3

PLACE_KEYWORDS: Final = (
    "SOPInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
)  # fmt: skip
"""What ``picture_place`` looks at."""


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """``position`` [3] of the first pixel in mm, ``directions`` [2, 3] of rows and of columns."""

    position: NDArray[np.float64]
    directions: NDArray[np.float64]

    def same(self, other: Plane) -> bool:
        """The same place with the same rows and columns: a turned plane is another picture."""
        return bool(
            np.abs(self.position - other.position).max() < SAME_PLACE_MM
            and np.abs(self.directions - other.directions).max() < _SAME_DIRECTION
        )


@dataclass(frozen=True, slots=True, eq=False)
class PicturePlace:
    """One frame of an image as segmentations refer to it; ``plane`` is None where the file does not say where it is."""

    instance: str
    frame: int
    plane: Plane | None


@dataclass(frozen=True, slots=True, eq=False)
class SegmentFrame:
    """``references`` are instances with the frames of them that are meant, counted from 1; none means all."""

    segment: int
    references: Mapping[str, frozenset[int]]
    plane: Plane | None


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """A binary segmentation; ``labels`` are the labels of its segments by number."""

    file: DicomFile
    shape: FrameShape
    labels: Mapping[int, str]
    frames: tuple[SegmentFrame, ...]

    def mask(self, label: str, picture: PicturePlace) -> NDArray[np.bool_]:
        """[rows, columns] of what the segments of this label mark on a picture; empty where none of them is on it.

        Raises ``RecordError``: MASK_MISSING where there is no such segment, MASK_CONFLICT for a frame that says neither
        what it refers to nor where it is, or both and they disagree, and as ``stored_words``.
        """
        path = self.file.data_set.path
        numbers = {number for number, text in self.labels.items() if text == label}
        if not numbers:
            detail = f"none of the segmentation's {len(self.labels)} segments has the label that is asked for"
            raise RecordError(Reason.MASK_MISSING, detail, path)
        found = np.zeros((self.shape.rows, self.shape.columns), np.bool_)
        for place, frame in enumerate(self.frames):
            if frame.segment in numbers and _lies_on(frame, picture, f"frame {place + 1}", path):
                found |= stored_words(self.file, self.shape, place).words != 0
        return found


def is_segmentation(file: DicomFile) -> bool:
    return "SegmentationType" in file.data_set


def read_segmentation(file: DicomFile, max_pixels: int = MAX_PIXELS) -> Segmentation:
    """Raises ``RecordError``: FORMAT_UNSUPPORTED for another kind than a binary one, HEADER_INVALID, and as
    ``frame_shape``."""
    data_set = file.data_set
    shape = frame_shape(file, max_pixels)
    if data_set.text("SegmentationType") != "BINARY" or shape.samples != 1:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, "only binary segmentations are read", data_set.path)
    segments = data_set.items("SegmentSequence")
    labels = {one.integer("SegmentNumber"): one.text("SegmentLabel") for one in segments}
    return Segmentation(file, shape, labels, tuple(_frame(data_set, frame) for frame in range(shape.frames)))


def picture_place(data_set: DataSet, frame: int = 0) -> PicturePlace:
    """Of a frame, counted from 0; raises HEADER_INVALID for a position or orientation that cannot be."""
    return PicturePlace(data_set.text("SOPInstanceUID"), frame, _plane(data_set, frame))


def _plane(data_set: DataSet, frame: int) -> Plane | None:
    place = functional_group(data_set, frame, "PlanePositionSequence") or data_set
    lines = functional_group(data_set, frame, "PlaneOrientationSequence") or data_set
    position, directions = place.numbers("ImagePositionPatient"), lines.numbers("ImageOrientationPatient")
    if not position or not directions:
        return None
    row, column = directions[:3], directions[3:]
    sound = (
        (len(position), len(directions)) == (3, 6)
        and math.isclose(math.hypot(*row), 1, abs_tol=0.01)
        and math.isclose(math.hypot(*column), 1, abs_tol=0.01)
        and math.isclose(float(np.dot(row, column)), 0, abs_tol=0.01)
    )
    if not sound or max(map(abs, position)) > 1e6:
        raise RecordError(Reason.HEADER_INVALID, "a picture stands in space where it cannot be", data_set.path)
    return Plane(np.array(position), np.array([row, column]))


def _frame(data_set: DataSet, frame: int) -> SegmentFrame:
    group = functional_group(data_set, frame, "SegmentIdentificationSequence")
    if group is None:
        raise RecordError(Reason.HEADER_INVALID, "a frame does not say which segment it is of", data_set.path)
    references: dict[str, frozenset[int]] = {}
    derivations = functional_groups(data_set, frame, "DerivationImageSequence")
    for source in (source for derivation in derivations for source in derivation.items("SourceImageSequence")):
        numbers = frozenset(int(number) for number in source.numbers("ReferencedFrameNumber"))
        instance = source.text("ReferencedSOPInstanceUID")
        references[instance] = references[instance] | numbers if instance in references else numbers
    return SegmentFrame(group.integer("ReferencedSegmentNumber"), references, _plane(data_set, frame))


def _lies_on(frame: SegmentFrame, picture: PicturePlace, name: str, path: str) -> bool:
    """By what the frame refers to, and by its place too where it refers to several or to nothing."""
    same = frame.plane.same(picture.plane) if frame.plane is not None and picture.plane is not None else None
    if not frame.references:
        if same is None:
            detail = f"{name} of the segmentation does not say which picture it is of"
            raise RecordError(Reason.MASK_CONFLICT, detail, path)
        return same
    numbers = frame.references.get(picture.instance)
    referred = numbers is not None and (not numbers or picture.frame + 1 in numbers)
    if referred and same is False and len(frame.references) == 1:
        raise RecordError(
            Reason.MASK_CONFLICT, f"{name} of the segmentation refers to a picture at another place", path
        )
    return referred and same is not False
