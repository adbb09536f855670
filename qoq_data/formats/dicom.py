"""DICOM files: one frame's stored words with what they mean, a mask, or a few header values; in full or refused.

Nothing here makes a picture to look at: ``clinical.dicom_picture`` does. No tag leaves but those named here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_colour import eight_bit_colour
from qoq_data.formats.dicom_elements import DataSet
from qoq_data.formats.dicom_file import read_dicom_file
from qoq_data.formats.dicom_pixels import stored_words
from qoq_data.formats.dicom_shape import frame_shape
from qoq_data.formats.dicom_values import (
    GreyDescription,
    WordLayout,
    functional_group,
    grey_description,
    word_values,
)
from qoq_data.formats.image import MAX_PIXELS

__all__ = ["LATERALITY_KEYWORDS", "DicomFrame", "decode_dicom_mask", "laterality_of", "read_dicom_frame"]

LATERALITY_KEYWORDS: Final = (
    "ImageLaterality", "Laterality", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
)  # fmt: skip
"""What ``laterality_of`` looks at."""


@dataclass(frozen=True, slots=True, eq=False)
class DicomFrame:
    """``words`` are stored words [rows, columns] with their ``grey`` description, or RGB uint8 [rows, columns, 3].

    ``spacing_mm`` is the (row, column) distance of pixels, empty where the file has none; ``pixel_aspect`` a pixel's
    height over its width. ``for_processing`` says that these are values of a detector, not yet made to be looked at
    (C.8.11.1.1.1). ``notes`` says in words what was done or found on the way.
    """

    words: NDArray[Any]
    layout: WordLayout
    grey: GreyDescription | None
    photometric: str
    syntax: str
    modality: str
    spacing_mm: tuple[float, ...]
    pixel_aspect: float
    laterality: str
    burned_in_annotation: bool
    for_processing: bool
    notes: tuple[str, ...]


def read_dicom_frame(data: bytes, path: str, *, frame: int = 0, max_pixels: int = MAX_PIXELS) -> DicomFrame:
    """The frame (counted from 0) of a DICOM image.

    Raises ``RecordError``: FORMAT_UNSUPPORTED, HEADER_INVALID, HEADER_MISMATCH, FILE_TRUNCATED, OVER_BUDGET,
    IMAGE_UNDECODABLE, READER_CRASHED.
    """
    file = read_dicom_file(data, path)
    data_set = file.data_set
    shape = frame_shape(file, max_pixels)
    stored = stored_words(file, shape, frame)
    notes = file.notes + stored.notes
    if shape.frames > 1:
        notes = (*notes, f"frame {frame + 1} of {shape.frames}")
    words = stored.words
    grey = None
    if stored.photometric in ("MONOCHROME1", "MONOCHROME2"):
        grey = grey_description(data_set, frame, stored.layout)
    else:
        words, change = eight_bit_colour(data_set, stored)
        notes = (*notes, *change)
    spacing, aspect, of_detector = _spacing(data_set, frame)
    return DicomFrame(
        words=words,
        layout=stored.layout,
        grey=grey,
        photometric=shape.photometric,
        syntax=file.syntax,
        modality=data_set.text("Modality"),
        spacing_mm=spacing,
        pixel_aspect=aspect,
        laterality=laterality_of(data_set, frame),
        burned_in_annotation=data_set.text("BurnedInAnnotation").upper() == "YES",
        for_processing=data_set.text("PresentationIntentType").upper() == "FOR PROCESSING",
        notes=(*notes, "spacing measured at the detector") if of_detector else notes,
    )


def decode_dicom_mask(data: bytes, path: str, *, frame: int = 0, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Set pixels [rows, columns] of a mask: the brighter of its two values, or none where it has but 0.

    Raises FORMAT_UNSUPPORTED for a file of more than two values, and as ``read_dicom_frame``.
    """
    read = read_dicom_frame(data, path, frame=frame, max_pixels=max_pixels)
    if read.grey is None:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, "a picture in colour is no mask", path)
    values = np.flatnonzero(np.bincount(read.words.ravel())) if read.words.dtype.itemsize < 4 else np.unique(read.words)
    meanings = word_values(values, read.layout)
    distinct = np.unique(meanings)
    if len(distinct) > 2 or (len(distinct) == 2 and 0 not in distinct):
        detail = f"a mask has two values, one of them 0, and this file has {len(distinct)}"
        raise RecordError(Reason.FORMAT_UNSUPPORTED, detail, path)
    is_set = (meanings == 0) if read.grey.inverse else (meanings != 0)
    chosen = values[is_set]
    return np.isin(read.words, chosen) if len(chosen) != 1 else np.asarray(read.words == chosen[0], np.bool_)


def laterality_of(data_set: DataSet, frame: int = 0) -> str:
    """``left``, ``right`` or empty: the image's own side (C.8.11.7), then the frame's, then the series' (C.7.3.1)."""
    anatomy = functional_group(data_set, frame, "FrameAnatomySequence")
    codes = (
        data_set.text("ImageLaterality"),
        anatomy.text("FrameLaterality") if anatomy is not None else "",
        data_set.text("Laterality"),
    )
    return next(({"L": "left", "R": "right"}.get(code.upper(), "") for code in codes if code), "")


def _spacing(data_set: DataSet, frame: int) -> tuple[tuple[float, ...], float, bool]:
    """((row, column) spacing in mm, height of a pixel over its width, whether it is that of the detector) (10.7.1)."""
    measures = functional_group(data_set, frame, "PixelMeasuresSequence")
    for holder, keyword in (
        (measures, "PixelSpacing"),
        (data_set, "PixelSpacing"),
        (data_set, "ImagerPixelSpacing"),
        (data_set, "NominalScannedPixelSpacing"),
    ):
        numbers = holder.numbers(keyword) if holder is not None else ()
        if not numbers or numbers == (0, 0):
            continue
        return _positive(numbers, keyword, data_set.path), numbers[0] / numbers[1], keyword == "ImagerPixelSpacing"
    ratio = data_set.numbers("PixelAspectRatio")
    if not ratio:
        return (), 1.0, False
    vertical, horizontal = _positive(ratio, "PixelAspectRatio", data_set.path)
    return (), vertical / horizontal, False


def _positive(numbers: tuple[float, ...], keyword: str, path: str) -> tuple[float, ...]:
    if len(numbers) != 2 or min(numbers) <= 0 or max(numbers) > 64 * min(numbers):
        raise RecordError(Reason.HEADER_INVALID, f"{keyword} has to be two sizes over 0, not far apart", path)
    return numbers
