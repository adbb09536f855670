"""Writing NIfTI-1: what synthetic trees and tests need of it, the same bytes for the same volume."""

from __future__ import annotations

import gzip
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["nifti_bytes"]


def nifti_bytes(
    values: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    slope: float = math.nan,
    intercept: float = math.nan,
    compressed: bool = True,
) -> bytes:
    """A single NIfTI-1 file, little endian, of values [i, j, k] with this sform (code 2) and no qform; gzipped or not.

    NaN as slope and intercept is how most writers say that there is no scaling.
    """
    from nibabel.nifti1 import Nifti1Header

    header = Nifti1Header(endianness="<")
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_zooms((*np.linalg.norm(affine[:3, :3], axis=0), *(1,) * (values.ndim - 3))[: values.ndim])
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=2)
    header["scl_slope"], header["scl_inter"] = slope, intercept
    header["vox_offset"], header["magic"] = 352, b"n+1"
    content = header.binaryblock + bytes(4) + values.astype(values.dtype.newbyteorder("<")).tobytes(order="F")
    return gzip.compress(content, 1, mtime=0) if compressed else content
