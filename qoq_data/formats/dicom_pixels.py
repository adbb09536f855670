"""One frame of a DICOM file's pixels as stored words: native ones by pydicom here, or compressed ones (PS3.5 8).

pydicom takes sign and unused bits from BitsStored; here words come as they are, and ``word_values`` takes both from the
high bit, once and for all values that a word can have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_compressed import compressed_words
from qoq_data.formats.dicom_elements import guarded
from qoq_data.formats.dicom_file import BIG_ENDIAN, EXPLICIT, NATIVE, DicomFile, PixelElement
from qoq_data.formats.dicom_shape import FrameShape, StoredWords


def stored_words(file: DicomFile, shape: FrameShape, frame: int) -> StoredWords:
    """The words of a frame counted from 0.

    Raises ``RecordError``: FILE_TRUNCATED, HEADER_MISMATCH, FORMAT_UNSUPPORTED, and what decoders raise.
    """
    assert file.pixels is not None  # noqa: S101 - there is a shape only of what has pixels
    if frame >= shape.frames:
        detail = f"frame {frame + 1} is asked for and there are {shape.frames}"
        raise RecordError(Reason.HEADER_MISMATCH, detail, file.data_set.path)
    if file.pixels.compressed:
        return compressed_words(file, file.pixels, shape, frame)
    notes = () if file.syntax in NATIVE or not file.syntax else ("not compressed, whatever the transfer syntax says",)
    return _native(file, file.pixels, shape, frame, notes)


def _native(
    file: DicomFile, pixels: PixelElement, shape: FrameShape, frame: int, notes: tuple[str, ...]
) -> StoredWords:
    from pydicom.pixels.decoders.base import get_decoder

    path = file.data_set.path
    end = pixels.start + pixels.length
    needed = -(-shape.native_bits * shape.frames // 8)
    if end > len(file.body):
        raise RecordError(Reason.FILE_TRUNCATED, "the file ends within its pixels", path)
    if pixels.length < needed:
        raise RecordError(Reason.HEADER_MISMATCH, f"{pixels.length} bytes of pixels, and {needed} are needed", path)
    if shape.photometric == "YBR_FULL_422" and shape.columns % 2:
        raise RecordError(Reason.HEADER_INVALID, "an odd number of columns cannot share colour in pairs", path)
    extra = pixels.length - needed
    if extra > 1:
        notes = (*notes, f"{extra} bytes after the last frame left out")
    if shape.layout.allocated == 1:
        return StoredWords(_bits(file.body, pixels.start, shape, frame), shape.layout, shape.photometric, notes)
    syntax = BIG_ENDIAN if file.data_set.order == ">" else EXPLICIT
    options: dict[str, Any] = {
        "rows": shape.rows,
        "columns": shape.columns,
        "samples_per_pixel": shape.samples,
        "photometric_interpretation": shape.photometric,
        "planar_configuration": int(shape.planar),
        "bits_allocated": shape.layout.allocated,
        "bits_stored": shape.layout.allocated,
        "pixel_representation": 0,
        "number_of_frames": shape.frames,
        "pixel_keyword": pixels.keyword,
        "pixel_vr": pixels.vr,
        "allow_excess_frames": False,
        "view_only": True,
    }
    with guarded(path, "what the header says of the pixels", Reason.HEADER_MISMATCH):
        words, found = get_decoder(syntax).as_array(
            memoryview(file.body)[pixels.start : end], index=frame, raw=True, **options
        )
    return StoredWords(np.asarray(words), shape.layout, str(found["photometric_interpretation"]), notes)


def _bits(body: bytes, start: int, shape: FrameShape, frame: int) -> NDArray[Any]:
    """Words of one bit. Frames follow each other within a byte (PS3.5 8.1.1), and pydicom 3.0's decoder leaves the last
    bits off one that lies in one byte more than it would need for itself."""
    from pydicom.pixels.utils import unpack_bits

    first, last = frame * shape.native_bits, (frame + 1) * shape.native_bits
    words: Any = unpack_bits(body[start + first // 8 : start - (-last // 8)], as_array=True)
    sizes = (shape.rows, shape.columns, shape.samples)[: 2 if shape.samples == 1 else 3]
    found: NDArray[Any] = words[first % 8 :][: shape.native_bits].reshape(sizes)
    return found
