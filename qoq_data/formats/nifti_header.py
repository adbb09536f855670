"""Headers of single-file NIfTI-1 and NIfTI-2 volumes: what the file claims, checked before any voxel is read.

nibabel reads the fields; what it would mend or log is refused here. The affine
is the sform where its code is over 0, else the qform where its code is; where both are set they have to place every
voxel alike, and where neither is the file does not say which side is which: that is refused, not guessed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

__all__ = ["LONGEST_HEADER", "NiftiHeader", "corner_distance", "parse_header", "spacing_of"]

Version = Literal[1, 2]

LONGEST_HEADER: Final = 540
SAME_VOXEL: Final = 0.5
"""Two affines agree where no corner lies further apart than this share of the smallest voxel edge: then the centre of
every voxel of the one is in the same voxel of the other. Quaternions in float32 may be a fifth of a voxel off."""

_NOT_MILLIMETRES: Final = {1: "metres", 3: "micrometres"}
_LEAST_OFFSET: Final = {1: 352, 2: 544}
_SINGULAR: Final = 1e-3
"""Least volume of a voxel's edges drawn to length 1: under it the three axes lie in a plane."""


@dataclass(frozen=True, slots=True, eq=False)
class NiftiHeader:
    """What a volume of ``shape`` claims, ``affine`` float64 [4, 4] from its voxels' centres to mm (RAS+).

    ``dtype`` is that of the stored values, in the file's byte order, which begin at ``offset``; the first index runs
    fastest. ``slope`` and ``intercept`` are 1 and 0 where the file has no scaling.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    affine: NDArray[np.float64]
    affine_from: Literal["sform", "qform"]

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return spacing_of(self.affine)


def spacing_of(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Lengths in mm of a voxel's edges along its three axes."""
    first, second, third = (float(one) for one in np.linalg.norm(affine[:3, :3], axis=0))
    return first, second, third


def corner_distance(first: NDArray[np.float64], second: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """How far apart two affines place a corner voxel's centre at most, as a share of the smallest voxel edge of both.

    Between the corners it is less: both are linear. Infinite where a number of either is not finite.
    """
    ends = np.array(np.meshgrid(*((0, max(0, size - 1)) for size in shape[:3]), indexing="ij")).reshape(3, -1)
    with np.errstate(all="ignore"):
        apart = np.linalg.norm((first - second)[:3, :3] @ ends + (first - second)[:3, 3:], axis=0).max()
        share = float(apart / min(*spacing_of(first), *spacing_of(second)))
    return share if math.isfinite(share) else math.inf


def parse_header(data: bytes, path: str) -> NiftiHeader:
    """The header in the first bytes of a file, inflated where it is gzipped.

    Raises ``RecordError``: FILE_TRUNCATED; HEADER_INVALID for what is no NIfTI header, for sizes, offsets or affines
    that cannot be, and where neither affine is set; HEADER_MISMATCH where two of its fields disagree;
    FORMAT_UNSUPPORTED for pairs of files and datatypes that are not read; UNIT_UNKNOWN for lengths not in mm.
    """
    version = _version(data, path)
    header = _header(data, version, path)
    shape = _shape(header, path)
    dtype = _dtype(header, path)
    offset = float(header["vox_offset"])
    least = _LEAST_OFFSET[version]
    if not math.isfinite(offset) or offset != int(offset) or 0 != offset < least:
        raise RecordError(Reason.HEADER_INVALID, f"its voxels begin inside its {least} bytes of header", path)
    with np.errstate(all="ignore"):  # damaged numbers are refused, and not warned of
        slope, intercept = _scaling(header, path)
        affine, affine_from = _affine(header, shape, path)
    return NiftiHeader(shape, dtype, int(offset) or least, slope, intercept, affine, affine_from)


def _version(data: bytes, path: str) -> Version:
    if len(data) < 348:
        raise RecordError(Reason.FILE_TRUNCATED, f"{len(data)} bytes are no NIfTI header", path)
    sizes = {int.from_bytes(data[:4], "little"), int.from_bytes(data[:4], "big")}
    if 540 in sizes:
        if data[4:12] != b"n+2\0\r\n\x1a\n":
            if data[4:7] == b"ni2":
                raise RecordError(Reason.FORMAT_UNSUPPORTED, "a NIfTI-2 header of a pair of files", path)
            raise RecordError(Reason.HEADER_INVALID, "it is not marked as NIfTI-2", path)
        if len(data) < LONGEST_HEADER:
            raise RecordError(Reason.FILE_TRUNCATED, f"{len(data)} bytes are no NIfTI-2 header", path)
        return 2
    if 348 in sizes:
        if data[344:347] == b"ni1":
            raise RecordError(Reason.FORMAT_UNSUPPORTED, "a NIfTI-1 header of a pair of files", path)
        if data[344:348] != b"n+1\0":
            raise RecordError(Reason.HEADER_INVALID, "it is not marked as NIfTI; Analyze is not read", path)
        return 1
    raise RecordError(Reason.HEADER_INVALID, "it does not begin as a NIfTI file", path)


def _header(data: bytes, version: Version, path: str) -> Nifti1Header:
    """The fields by nibabel, in the byte order that it finds; unchecked, since its checks log and mend."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
    from nibabel.wrapstruct import WrapStructError

    kind: type[Nifti1Header] = Nifti1Header if version == 1 else Nifti2Header
    try:
        return kind(data[: kind.sizeof_hdr], check=False)
    except (WrapStructError, ValueError, KeyError) as error:
        raise RecordError(Reason.HEADER_INVALID, "its header cannot be read", path) from error


def _shape(header: Nifti1Header, path: str) -> tuple[int, ...]:
    """The shape with three axes or more: a picture is a volume of one slice."""
    dim = [int(length) for length in header["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise RecordError(Reason.HEADER_INVALID, "its number of axes or one of their lengths cannot be", path)
    shape = dim[1 : dim[0] + 1]
    return (*shape, *(1,) * (3 - len(shape)))


def _dtype(header: Nifti1Header, path: str) -> np.dtype[Any]:
    from nibabel.spatialimages import HeaderDataError

    code = int(header["datatype"])
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise RecordError(Reason.HEADER_INVALID, f"there is no datatype {code}", path) from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, f"voxels of datatype {code} are not read", path)
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        raise RecordError(Reason.HEADER_MISMATCH, f"its datatype {code} does not have {header['bitpix']} bits", path)
    return dtype


def _scaling(header: Nifti1Header, path: str) -> tuple[float, float]:
    """Slope and intercept; a slope of 0, which says that there is none, and NaN or infinity, which cannot be one, are
    none (``nifti1.h``, scl_slope)."""
    from nibabel.spatialimages import HeaderDataError

    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise RecordError(Reason.HEADER_INVALID, "it has a slope and an intercept that is no number", path) from error
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))


def _affine(
    header: Nifti1Header, shape: tuple[int, ...], path: str
) -> tuple[NDArray[np.float64], Literal["sform", "qform"]]:
    units = int(header["xyzt_units"]) & 7
    if units in _NOT_MILLIMETRES:
        raise RecordError(Reason.UNIT_UNKNOWN, f"its lengths are in {_NOT_MILLIMETRES[units]}", path)
    qform = _checked(_from_quaternion(header, path), path) if header["qform_code"] > 0 else None
    if header["sform_code"] > 0:
        sform = _checked(np.asarray(header.get_sform(), np.float64), path)
        if qform is not None and (apart := corner_distance(sform, qform, shape)) > SAME_VOXEL:
            detail = f"its sform and its qform place a voxel {apart:.1f} voxels apart, more than {SAME_VOXEL}"
            raise RecordError(Reason.HEADER_MISMATCH, detail, path)
        return sform, "sform"
    if qform is None:
        detail = "neither its sform nor its qform is set: it does not say which side is which"
        raise RecordError(Reason.HEADER_INVALID, detail, path)
    return qform, "qform"


def _checked(affine: NDArray[np.float64], path: str) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        sound = np.isfinite(affine).all() and np.isfinite(lengths).all() and lengths.min() > 0
        sound = sound and abs(np.linalg.det(affine[:3, :3] / lengths)) > _SINGULAR
    if not sound:
        raise RecordError(Reason.HEADER_INVALID, "its affine has an axis of no length, or two that are one", path)
    return affine


def _from_quaternion(header: Nifti1Header, path: str) -> NDArray[np.float64]:
    """The affine of the qform, which nibabel makes of any edges: those of no length are refused here."""
    from nibabel.spatialimages import HeaderDataError

    edges = header["pixdim"][1:4]
    try:
        affine = header.get_qform() if min(edges) > 0 else None
    except (HeaderDataError, ValueError) as error:
        raise RecordError(Reason.HEADER_INVALID, "its qform is no rotation", path) from error
    if affine is None:
        raise RecordError(Reason.HEADER_INVALID, "its qform has an edge of no length", path)
    return np.asarray(affine, np.float64)
