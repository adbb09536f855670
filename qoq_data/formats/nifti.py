"""NIfTI volumes: the bytes of a ``.nii`` or ``.nii.gz`` file to stored values, an affine and a scaling kept apart.

What the header claims is checked against the file and a budget before anything is allocated: deflate makes at most
1,032 bytes of one, so that a small file cannot claim a large volume. A gzipped file is inflated by ISA-L (1.8 times as
fast as zlib, checksums verified) straight into the array that is returned, and no byte further than the claim.

Every fault of a file is a ``RecordError``; no warning and no library error leaves this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.nifti_header import LONGEST_HEADER, NiftiHeader, parse_header, spacing_of

__all__ = ["LABEL_TOLERANCE", "MAX_BYTES", "Volume", "read_header", "read_labels", "read_volume"]

MAX_BYTES: Final = 5 << 29
"""Most bytes of voxels: a CT of 5,120 slices of 512 x 512 in int16, of 1,280 in float64."""

LABEL_TOLERANCE: Final = 1e-3
"""How far from a whole number a label may be after scaling, and a millionth of its size more (float32)."""

_MOST_INFLATED: Final = 1032
_MOST_EXTENSIONS: Final = 1 << 26
_PIECE: Final = 1 << 20
_FED: Final = 1 << 16
_MOST_MEMBERS: Final = 100_000
"""Block-wise gzip (bgzip) has a member for each 64 KiB of content: 40,000 in the largest volume that is read."""

_GZIP: Final = b"\x1f\x8b"
_DENSE: Final = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """One volume: ``values`` [i, j, k] as stored, in this machine's byte order; real values are values x slope +
    intercept. ``affine`` float64 [4, 4] takes indices to mm (RAS+), ``spacing_mm`` are a voxel's edges along i, j, k.
    """

    values: NDArray[Any]
    affine: NDArray[np.float64]
    slope: float = 1.0
    intercept: float = 0.0
    taken: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return spacing_of(self.affine)


def read_header(data: bytes, path: str) -> NiftiHeader:
    """The header of a file, no voxel inflated; raises ``RecordError`` as ``parse_header``, and FILE_UNREADABLE."""
    head = data[:LONGEST_HEADER]
    if data[:2] == _GZIP:
        head = b""
        for piece in _inflated(data, path, LONGEST_HEADER):
            head += piece
            if len(head) >= LONGEST_HEADER:
                break
    return parse_header(head[:LONGEST_HEADER], path)


def read_volume(data: bytes, path: str, *, max_bytes: int = MAX_BYTES) -> Volume:
    """The whole volume of a file of three axes, or of more of which all beyond the third have length 1.

    Raises ``RecordError`` as ``parse_header``, and OVER_BUDGET; FILE_TRUNCATED for fewer bytes than are claimed,
    HEADER_MISMATCH for more; FILE_UNREADABLE for gzip that does not inflate; FORMAT_UNSUPPORTED for several volumes.
    """
    header = read_header(data, path)
    if math.prod(header.shape[3:]) != 1:
        detail = f"it holds {math.prod(header.shape[3:])} volumes, and nothing says which is meant"
        raise RecordError(Reason.FORMAT_UNSUPPORTED, detail, path)
    if header.data_bytes > max_bytes or header.offset > _MOST_EXTENSIONS:
        detail = f"it claims {header.data_bytes} bytes of voxels at {header.offset}, more than the limit of {max_bytes}"
        raise RecordError(Reason.OVER_BUDGET, detail, path)
    total = header.offset + header.data_bytes
    compressed = data[:2] == _GZIP
    if total > len(data) * (_MOST_INFLATED if compressed else 1):
        raise RecordError(Reason.FILE_TRUNCATED, f"{len(data)} bytes cannot hold the {total} that it claims", path)
    if compressed:
        values = _inflate(data, header, path).view(header.dtype)
    elif len(data) > total:
        raise RecordError(Reason.HEADER_MISMATCH, f"it has {len(data) - total} bytes more than it claims", path)
    else:
        values = np.frombuffer(data, header.dtype, offset=header.offset)
    if not header.dtype.isnative:
        values = values.astype(header.dtype.newbyteorder("="))
    shaped = values.reshape(header.shape[:3], order="F")
    shaped.flags.writeable = False
    return Volume(shaped, header.affine, header.slope, header.intercept, (f"placed by its {header.affine_from}",))


def read_labels(data: bytes, path: str, *, max_bytes: int = MAX_BYTES) -> Volume:
    """The volume of a file of labels: whole numbers, in the integer type they are stored in or the smallest that
    holds them.

    Labels that were stored as float, or with a slope, are taken to the nearest whole number, at most
    ``LABEL_TOLERANCE`` away, value by value, so that no voxel changes its company. Raises ``RecordError`` as
    ``read_volume``, and FORMAT_UNSUPPORTED where a value is no whole number or two stored integers become one label.
    """
    volume = read_volume(data, path, max_bytes=max_bytes)
    stored = volume.values
    if stored.dtype.kind != "f" and (volume.slope, volume.intercept) == (1, 0):
        if stored.dtype.itemsize >= 4:
            _smallest_type(int(stored.min()), int(stored.max()), path)
        return volume
    values = _whole_numbers(volume, path) if stored.dtype.kind != "f" else _rounded_floats(volume, path)
    how = "labels rounded to whole numbers" if volume.values.dtype.kind == "f" else "labels scaled to whole numbers"
    return replace(volume, values=values, slope=1.0, intercept=0.0, taken=(*volume.taken, how))


def _inflated(data: bytes, path: str, piece: int = _PIECE) -> Iterator[bytes]:
    """What a gzip file holds, in pieces of ``piece`` bytes at most, all of its members one after the other."""
    from isal import igzip_lib

    try:
        at = members = 0
        while at < len(data):
            members += 1
            if members > _MOST_MEMBERS:
                raise RecordError(Reason.OVER_BUDGET, f"it is more than {_MOST_MEMBERS} gzip files in a row", path)
            if data[at : at + 2] != _GZIP:
                raise RecordError(Reason.HEADER_MISMATCH, f"{len(data) - at} bytes stand behind its gzip data", path)
            stream = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            while not stream.eof:
                given = b""
                if stream.needs_input:
                    given = data[at : at + _FED]
                    if not given:
                        raise RecordError(Reason.FILE_TRUNCATED, "its gzip data end before their end", path)
                    at += len(given)
                if out := stream.decompress(given, max_length=piece):
                    yield out
            at -= len(stream.unused_data)
    except (igzip_lib.IsalError, ValueError, EOFError, OverflowError) as error:  # type: ignore[misc]  # stub: no class
        raise RecordError(Reason.FILE_UNREADABLE, "its gzip data are damaged", path) from error


def _inflate(data: bytes, header: NiftiHeader, path: str) -> NDArray[np.uint8]:
    """The voxels' bytes, behind ``header.offset`` bytes that are left out."""
    content = np.empty(header.data_bytes, np.uint8)
    room = content.data
    done = -header.offset
    for piece in _inflated(data, path):
        part = memoryview(piece)[max(0, -done) :] if done < 0 else memoryview(piece)
        start = max(0, done)
        done += len(piece)
        if done > header.data_bytes:
            raise RecordError(Reason.HEADER_MISMATCH, "it inflates to more bytes than it claims", path)
        room[start : start + len(part)] = part
    if done < header.data_bytes:
        raise RecordError(Reason.FILE_TRUNCATED, f"it inflates to {header.data_bytes - done} bytes too few", path)
    return content


def _pieces(values: NDArray[Any]) -> Iterator[slice]:
    """Slices of the flat values, so that no second copy of a large volume in a wider type is needed."""
    return (slice(start, start + _PIECE) for start in range(0, values.size, _PIECE))


def _whole_numbers(volume: Volume, path: str) -> NDArray[np.integer[Any]]:
    """Stored integers through a table of what each is after scaling."""
    flat = volume.values.reshape(-1, order="F")
    low, high = int(flat.min()), int(flat.max())
    if high - low >= _DENSE:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, f"scaled values from {low} to {high} are no labels", path)
    base = flat.dtype.type(low)
    present = np.zeros(high - low + 1, np.bool_)
    for piece in _pieces(flat):
        present[_above(flat[piece], base)] = True
    with np.errstate(all="ignore"):
        levels = (low + np.flatnonzero(present)).astype(np.float64) * volume.slope + volume.intercept
    whole = _nearest(levels, path)
    if np.unique(whole).size < whole.size:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, "two stored values become one label by its slope", path)
    table = np.zeros(present.size, _smallest_type(float(whole.min()), float(whole.max()), path))
    table[present] = whole
    values = np.empty(flat.size, table.dtype)
    for piece in _pieces(flat):
        values[piece] = table[_above(flat[piece], base)]
    return np.asarray(values.reshape(volume.values.shape, order="F"))


def _above(values: NDArray[Any], base: np.integer[Any]) -> NDArray[np.intp]:
    """How far values lie above the lowest of them, at most 65,535: right in any type, though the difference wraps."""
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    with np.errstate(over="ignore"):
        return np.asarray((values - base).view(unsigned), np.intp)


def _rounded_floats(volume: Volume, path: str) -> NDArray[np.integer[Any]]:
    flat = volume.values.reshape(-1, order="F")
    pieces, ends = [], []
    for piece in _pieces(flat):
        with np.errstate(all="ignore"):
            levels = flat[piece].astype(np.float64) * volume.slope + volume.intercept
        whole = _nearest(levels, path)
        ends += [float(whole.min()), float(whole.max())]
        pieces.append(whole.astype(_smallest_type(ends[-2], ends[-1], path)))
    values = np.concatenate(pieces, dtype=_smallest_type(min(ends), max(ends), path), casting="unsafe")
    return np.asarray(values.reshape(volume.values.shape, order="F"))


def _nearest(levels: NDArray[np.float64], path: str) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        whole = np.rint(levels)
        far = ~(np.abs(levels - whole) <= LABEL_TOLERANCE + 1e-6 * np.abs(levels))
    if far.any():
        detail = f"{int(far.sum())} values are no whole numbers: it is a picture or a probability, and no label map"
        raise RecordError(Reason.FORMAT_UNSUPPORTED, detail, path)
    return np.asarray(whole)


def _smallest_type(low: float, high: float, path: str) -> np.dtype[Any]:
    for name in ("u1", "u2", "i2", "i4"):
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return np.dtype(name)
    raise RecordError(Reason.FORMAT_UNSUPPORTED, "its values are too large for labels", path)
