"""DICOM files that are installed or kept beside the repository, and the plain way to look at one."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

NO_DICOM = {".gz", ".icc", ".j2k", ".jls", ".jpg", ".json", ".md", ".nii", ".nrrd", ".py", ".pyc", ".txt", ".zip"}


def installed_files() -> list[Path]:
    """Files of the wheels of pydicom and pydicom-data."""
    import data_store
    import pydicom.data

    data = Path(pydicom.data.__file__).parent
    folders = [data / name for name in ("test_files", "charset_files", "palettes")]
    return files_below([*folders, Path(data_store.__file__).parent / "data"])


def files_below(folders: list[Path]) -> list[Path]:
    found = (path for folder in folders for path in sorted(folder.rglob("*")))
    return [path for path in found if path.is_file() and path.suffix not in NO_DICOM]


@contextmanager
def quiet() -> Iterator[None]:
    """pydicom warns of much that is no matter here."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def read_plainly(data: bytes, *, header_only: bool = False) -> Any:
    import pydicom

    with quiet():
        return pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=header_only)


def plain_picture(data_set: Any, plugin: str = "", frame: int = 0) -> np.ndarray:
    """Levels 0 to 255 in floating point of a frame, by pydicom's functions one after the other; RGB as it is."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

    with quiet():
        values = pixel_array(data_set, index=frame, decoding_plugin=plugin)
        photometric = data_set.PhotometricInterpretation
        if photometric == "PALETTE COLOR":
            colours = apply_color_lut(values, data_set)
            return (colours >> (8 * (colours.itemsize - 1))).astype(float)
        if values.ndim == 3:
            return values * 255.0 / (2**data_set.BitsStored - 1)
        flatten_groups(data_set, frame)
        levels = apply_modality_lut(values, data_set)
        lowest, highest = output_range(data_set)
        if data_set.get("VOILUTSequence"):
            bits = data_set.VOILUTSequence[0].LUTDescriptor[2]
            levels, lowest, highest = apply_voi_lut(levels, data_set), 0, 2**bits - 1
        elif data_set.get("WindowCenter") is not None:
            levels = apply_voi_lut(levels, data_set)
        else:
            tissue = levels[~padding(data_set, values)]
            lowest, highest = (tissue.min(), tissue.max()) if tissue.size else (levels.min(), levels.max())
        grey = np.clip((levels.astype(float) - lowest) / (highest - lowest or 1) * 255, 0, 255)
        if photometric == "MONOCHROME1" or data_set.get("PresentationLUTShape") == "INVERSE":
            grey = 255 - grey
        grey[padding(data_set, values)] = 0
        return grey


def output_range(data_set: Any) -> tuple[float, float]:
    """What pydicom's window leads to (its ``apply_windowing``)."""
    if data_set.get("ModalityLUTSequence"):
        return 0, 2 ** data_set.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    bits, slope, intercept = data_set.BitsStored, data_set.get("RescaleSlope", 1), data_set.get("RescaleIntercept", 0)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if data_set.PixelRepresentation else (0, 2**bits - 1)
    return low * float(slope) + float(intercept), high * float(slope) + float(intercept)


def padding(data_set: Any, values: np.ndarray) -> np.ndarray:
    low = data_set.get("PixelPaddingValue")
    if low is None:
        return np.zeros(values.shape, bool)
    high = data_set.get("PixelPaddingRangeLimit", low)
    if data_set.PixelRepresentation:
        low, high = (int(np.array(end & 0xFFFF, np.uint16).view(np.int16)) for end in (low, high))
    return (values >= min(low, high)) & (values <= max(low, high))


def flatten_groups(data_set: Any, frame: int) -> None:
    """Attributes of the frame's functional groups, put where pydicom looks for them."""
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        items = data_set.get(name) or []
        place = frame if name.startswith("Per") else 0
        if place < len(items):
            for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for inner in items[place].get(keyword) or []:
                    data_set.update(inner)
