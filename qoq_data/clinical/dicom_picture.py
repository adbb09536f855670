"""A DICOM frame as it is meant to be seen, 8 bits: the one place that fixes the order of operations.

1. stored words to stored values: bits stored, sign of the high bit (PS3.3 C.7.6.3.1.4, PS3.5 8.1.1)
2. modality LUT, or slope and intercept (C.11.1)
3. a window that was asked for; else the first VOI LUT; else the first window of the file (C.11.2); else from the
   smallest to the largest value that is no padding
4. 8 bits
5. turned round where the lowest value is white: MONOCHROME1 (C.7.6.3.1.2), or PresentationLUTShape INVERSE (C.11.6)
6. padding black (C.7.5.1.1.2)

All of it is done to the values that a word can have, and the pixels are then looked up once. Colour is RGB when it
comes here, and stays as it is. Non-square pixels are left to the scaling that follows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical.windowing import (
    VOI_FUNCTIONS,
    GreyWindow,
    Levels,
    display_text,
    display_window,
    range_levels,
    table_levels,
    to_grey,
    window_levels,
)
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom import DicomFrame, read_dicom_frame
from qoq_data.formats.dicom_values import GreyDescription, word_values
from qoq_data.formats.image import MAX_PIXELS, DecodedImage


def decode_dicom(
    data: bytes, path: str, *, frame: int = 0, display: str = "", max_pixels: int = MAX_PIXELS
) -> DecodedImage:
    """The frame (counted from 0) as a picture; ``display`` names a window of ``windowing.DISPLAY_WINDOWS`` in HU.

    Raises ``RecordError``: what ``read_dicom_frame`` raises, and HEADER_INVALID where ``display`` asks for HU of a file
    that has none.
    """
    read = read_dicom_frame(data, path, frame=frame, max_pixels=max_pixels)
    if read.grey is None:
        if display:
            raise RecordError(Reason.HEADER_INVALID, "a picture in colour has no Hounsfield units", path)
        pixels, window, steps = read.words, "", read.notes
    else:
        pixels, window, steps = grey_picture(read, display, path)
        steps = read.notes + steps
    image = Image.fromarray(pixels)
    return DecodedImage(
        image=image,
        full_size=image.size,
        orientation_applied=1,
        source_mode=read.photometric,
        source_format="DICOM",
        bit_depth=read.layout.stored,
        conversions=steps,
        untouched=False,
        pixel_aspect=read.pixel_aspect,
        spacing_mm=read.spacing_mm,
        window=window,
        laterality=read.laterality,
        findings=tuple(code for code in ("burned_in_annotation", "for_processing") if getattr(read, code)),
    )


def grey_picture(read: DicomFrame, display: str, path: str) -> tuple[NDArray[np.uint8], str, tuple[str, ...]]:
    """(uint8 [rows, columns], the window in words, the steps in words) of a grey frame."""
    grey = read.grey
    assert grey is not None  # noqa: S101 - the caller has seen to it
    words: NDArray[Any] = read.words
    by_table = words.dtype.itemsize <= 2
    values = word_values(np.arange(1 << 8 * words.dtype.itemsize) if by_table else words, read.layout)
    levels, window, steps = _levels(grey, values, display, words if by_table else None, path)
    shown = to_grey(levels, grey.inverse)
    if grey.inverse:
        steps = (*steps, "turned round: the lowest value is white")
    if grey.padding is not None:
        low, high = grey.padding
        shown[(values >= low) & (values <= high)] = 0
        steps = (*steps, "padding black")
    return (shown[words] if by_table else shown), window, steps


def modality_values(grey: GreyDescription, values: NDArray[Any]) -> NDArray[np.float64]:
    """Stored values through the modality LUT or the rescale (C.11.1)."""
    table = grey.modality_table
    if table is not None:
        entries: NDArray[Any] = table.entries[np.clip(values - table.first, 0, len(table.entries) - 1)]
        return entries.astype(np.float64)
    return np.asarray(values * grey.slope + grey.intercept, np.float64)


def _levels(
    grey: GreyDescription, values: NDArray[np.int64], display: str, words: NDArray[Any] | None, path: str
) -> tuple[Levels, str, tuple[str, ...]]:
    modality = modality_values(grey, values)
    if display:
        if not grey.rescaled or grey.unit.upper() not in ("", "HU", "US"):
            raise RecordError(Reason.HEADER_INVALID, "the file does not say how its values become HU", path)
        text = display_text(display)
        return window_levels(modality, display_window(display)), text, (f"window {text}",)
    if grey.voi_table is not None:
        table = grey.voi_table
        text = f"the file's table of {len(table.entries)} entries"
        return table_levels(modality, table.first, table.entries, table.bits), text, (text,)
    steps: tuple[str, ...] = ()
    for place, found in enumerate(grey.windows):
        function = next((name for name in VOI_FUNCTIONS if name == found.function.upper()), None)
        if function is None:
            raise RecordError(Reason.FORMAT_UNSUPPORTED, "the file's window is of an unknown function", path)
        window = GreyWindow(found.centre, found.width, function)
        if window.usable:
            many = f", number {place + 1} of {len(grey.windows)}" if len(grey.windows) > 1 else ""
            return window_levels(modality, window), str(window), (*steps, f"window {window}{many}")
        steps = (*steps, f"a window of width {found.width:g} passed over")
    lowest, highest = _range(grey, values, modality, words)
    text = f"{lowest:g} to {highest:g}"
    return range_levels(modality, lowest, highest), text, (*steps, f"no window: smallest to largest value, {text}")


def _range(
    grey: GreyDescription, values: NDArray[np.int64], modality: NDArray[np.float64], words: NDArray[Any] | None
) -> tuple[float, float]:
    """The smallest and largest modality value of pixels that are no padding; of all where there is nothing else."""
    present = np.ones(values.shape, np.bool_)
    if words is not None:
        present[:] = False
        present[words] = True
    if grey.padding is not None:
        tissue = present & ((values < grey.padding[0]) | (values > grey.padding[1]))
        present = tissue if tissue.any() else present
    seen = modality[present]
    return float(seen.min()), float(seen.max())
