"""Size, samples and words of a DICOM image's frames, held to a budget before anything is allocated (PS3.3 C.7.6.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom_file import DicomFile
from qoq_data.formats.dicom_values import WordLayout, word_layout

MAX_FRAMES: Final = 1 << 20
"""Most frames a file may claim."""

_ONE_SAMPLE: Final = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")


@dataclass(frozen=True, slots=True)
class FrameShape:
    """What the header says of every frame; ``photometric`` in capitals."""

    rows: int
    columns: int
    samples: int
    frames: int
    photometric: str
    planar: bool
    layout: WordLayout

    @property
    def native_bits(self) -> int:
        """Bits of one uncompressed frame."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples  # two pixels share their colour
        return self.rows * self.columns * samples * self.layout.allocated


@dataclass(frozen=True, slots=True, eq=False)
class StoredWords:
    """``words`` unsigned [rows, columns] or [rows, columns, 3]; ``photometric`` is what they stand for as they are."""

    words: NDArray[Any]
    layout: WordLayout
    photometric: str
    notes: tuple[str, ...]


def frame_shape(file: DicomFile, max_pixels: int) -> FrameShape:
    """Raises ``RecordError``: HEADER_INVALID, FORMAT_UNSUPPORTED, and OVER_BUDGET before anything is allocated."""
    data_set, path = file.data_set, file.data_set.path
    if file.pixels is None or file.pixels.keyword != "PixelData":
        raise _without_pixels(file)
    rows, columns = data_set.integer("Rows"), data_set.integer("Columns")
    samples = data_set.integer("SamplesPerPixel", 1)
    frames = data_set.integer("NumberOfFrames", 1)
    if rows < 1 or columns < 1 or frames < 1 or samples not in (1, 3):
        detail = f"{frames} frames of {columns} x {rows} with {samples} samples a pixel are not read"
        raise RecordError(Reason.HEADER_INVALID, detail, path)
    if rows * columns > max_pixels or frames > MAX_FRAMES:
        detail = f"{frames} frames of {columns} x {rows} pixels are more than the limit of {max_pixels} a frame"
        raise RecordError(Reason.OVER_BUDGET, detail, path)
    photometric = data_set.text("PhotometricInterpretation").upper()
    if not photometric:
        raise RecordError(Reason.HEADER_INVALID, "PhotometricInterpretation is missing", path)
    if (samples == 1) != (photometric in _ONE_SAMPLE):
        raise RecordError(Reason.HEADER_MISMATCH, f"{photometric[:16]} with {samples} samples a pixel cannot be", path)
    planar = samples == 3 and data_set.integer("PlanarConfiguration", 0) == 1
    return FrameShape(rows, columns, samples, frames, photometric, planar, word_layout(data_set))


def _without_pixels(file: DicomFile) -> RecordError:
    path = file.data_set.path
    if file.pixels is not None:
        return RecordError(Reason.FORMAT_UNSUPPORTED, "pixels in floating point are not read", path)
    if not file.whole or "Rows" in file.data_set:
        return RecordError(Reason.FILE_TRUNCATED, "the file ends before its pixels", path)
    return RecordError(Reason.FORMAT_UNSUPPORTED, "the file holds no image", path)
