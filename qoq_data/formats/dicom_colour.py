"""Colour of DICOM images to 8-bit RGB, once (PS3.3 C.7.6.3.1.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_elements import DataSet
from qoq_data.formats.dicom_palette import palette_colours
from qoq_data.formats.dicom_shape import StoredWords
from qoq_data.formats.dicom_values import word_values


def eight_bit_colour(data_set: DataSet, stored: StoredWords) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """RGB uint8 [rows, columns, 3] of RGB, YBR_FULL or PALETTE COLOR words, and what was done in words.

    Raises FORMAT_UNSUPPORTED for other colours, for signed ones, and for more than 16 bits.
    """
    layout = stored.layout
    if stored.photometric not in ("RGB", "YBR_FULL", "PALETTE COLOR") or layout.allocated == 1:
        detail = f"pixels of {stored.photometric[:16]} in words of {layout.allocated} bits are not read"
        raise RecordError(Reason.FORMAT_UNSUPPORTED, detail, data_set.path)
    if stored.photometric == "PALETTE COLOR":
        if layout.allocated == 32:
            raise RecordError(Reason.FORMAT_UNSUPPORTED, "a palette for words of 32 bits is not read", data_set.path)
        table = palette_colours(data_set, word_values(np.arange(1 << layout.allocated), layout))
        return table[stored.words], ("palette to RGB",)
    if layout.signed:
        raise RecordError(Reason.HEADER_MISMATCH, "colour has no sign", data_set.path)
    words, notes = _high_bits(stored)
    if stored.photometric == "RGB":
        return words, notes
    return np.asarray(Image.fromarray(words, "YCbCr").convert("RGB")), (*notes, "YBR to RGB")


def _high_bits(stored: StoredWords) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    layout = stored.layout
    if layout.allocated == 8 and layout.stored == 8:
        return np.ascontiguousarray(stored.words), ()
    by_table = layout.allocated < 32
    values: NDArray[Any] = word_values(np.arange(1 << layout.allocated) if by_table else stored.words, layout)
    top = (1 << layout.stored) - 1
    scaled = ((values * 255 + top // 2) // top).astype(np.uint8)
    note = f"{layout.stored}-bit colour to 8 bits: value x 255 / {top}"
    return (scaled[stored.words] if by_table else scaled), (note,)
