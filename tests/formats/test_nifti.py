"""NIfTI headers and volumes against nibabel, and each fault with its one reason."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from qoq_data.errors import Reason, RecordError
from qoq_data.formats import nifti
from qoq_data.formats.nifti import Volume, read_header, read_labels, read_volume
from qoq_data.formats.nifti_header import corner_distance
from qoq_data.formats.nifti_write import nifti_bytes

AFFINE = np.array([[0, 0, -0.9, 10], [0, -0.8, 0, 20], [-5, 0, 0, 30], [0, 0, 0, 1.0]])
VALUES = np.random.default_rng(3).integers(-900, 900, (5, 7, 6)).astype(np.int16)
PLAIN = nifti_bytes(VALUES, AFFINE, compressed=False)
ZIPPED = nifti_bytes(VALUES, AFFINE)


def by_nibabel(
    values: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    version: int = 1,
    order: str = "<",
    scaling: tuple[float, float] | None = None,
    codes: tuple[int, int] = (2, 0),
) -> bytes:
    """A file as nibabel writes it; ``codes`` of sform and qform, each 0 for not set."""
    kinds = {1: (nib.Nifti1Image, nib.Nifti1Header), 2: (nib.Nifti2Image, nib.Nifti2Header)}
    image_class, header_class = kinds[version]
    header = header_class(endianness=order)
    header.set_data_dtype(values.dtype)
    image = image_class(values, affine, header)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    if scaling:
        image.header.set_slope_inter(*scaling)
    buffer = io.BytesIO()
    image.to_file_map({"image": nib.FileHolder(fileobj=buffer)})
    return buffer.getvalue()


def changed(data: bytes, at: int, code: str, *values: Any) -> bytes:
    out = bytearray(data)
    struct.pack_into(code, out, at, *values)
    return bytes(out)


def reason(read: Callable[[], object]) -> Reason:
    with pytest.raises(RecordError) as caught:
        read()
    assert caught.value.path == "a.nii"
    return caught.value.reason


def why(data: bytes, **keys: Any) -> Reason:
    return reason(lambda: read_volume(data, "a.nii", **keys))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_version_and_byte_order_reads_as_nibabel_reads_it(kind: str, version: int, order: str) -> None:
    values = (VALUES % 100).astype(kind)
    data = by_nibabel(values, AFFINE, version=version, order=order)
    oracle = (nib.Nifti1Image if version == 1 else nib.Nifti2Image).from_bytes(data)
    assert oracle.header.endianness == order
    for form in (data, gzip.compress(data)):
        volume = read_volume(form, "a.nii")
        assert volume.values.dtype == np.dtype(kind)
        assert volume.values.dtype.isnative
        assert np.array_equal(volume.values, np.asarray(oracle.dataobj))
        assert np.allclose(volume.affine, oracle.affine)
        assert np.allclose(volume.spacing_mm, oracle.header.get_zooms()[:3])
        assert (volume.slope, volume.intercept) == (1, 0)


@pytest.mark.parametrize("codes", [(2, 0), (0, 1), (1, 1), (3, 2)])
@pytest.mark.parametrize("turn", range(12))
def test_the_affine_that_wins_is_nibabels(codes: tuple[int, int], turn: int) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(rng=turn).as_matrix() * [0.7, 1.3, 4.0] * [1, 1, (-1) ** turn]
    affine[:3, 3] = [-80, 12, 5]
    data = by_nibabel(VALUES, affine, codes=codes, version=1 + turn % 2)
    oracle = (nib.Nifti2Image if turn % 2 else nib.Nifti1Image).from_bytes(data)
    header = read_header(data, "a.nii")
    assert np.allclose(header.affine, oracle.affine, atol=1e-4)
    assert header.affine_from == ("sform" if codes[0] else "qform")


def test_what_is_written_here_is_what_nibabel_reads() -> None:
    oracle = nib.Nifti1Image.from_bytes(PLAIN)
    assert np.array_equal(np.asarray(oracle.dataobj), VALUES)
    assert np.allclose(oracle.affine, AFFINE)
    assert (int(oracle.header["sform_code"]), int(oracle.header["qform_code"])) == (2, 0)
    assert nifti_bytes(VALUES, AFFINE) == ZIPPED


def test_scaling_is_kept_apart_from_the_stored_values() -> None:
    data = by_nibabel(VALUES, AFFINE, scaling=(0.25, -3.5))
    volume = read_volume(data, "a.nii")
    assert volume.values.dtype == np.int16
    assert (volume.slope, volume.intercept) == (0.25, -3.5)
    oracle = nib.Nifti1Image.from_bytes(data)
    assert np.array_equal(volume.values, oracle.dataobj.get_unscaled())
    assert np.array_equal(volume.values * volume.slope + volume.intercept, oracle.get_fdata())


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_a_slope_that_is_none_is_none(slope: float) -> None:
    volume = read_volume(changed(PLAIN, 112, "<2f", slope, 7.0), "a.nii")
    assert (volume.slope, volume.intercept) == (1, 0)


def test_a_voxel_is_read_once_and_not_copied() -> None:
    volume = read_volume(PLAIN, "a.nii")
    assert volume.values.flags.f_contiguous
    assert not volume.values.flags.writeable
    assert volume.values.base is not None


def test_gzip_of_several_members_and_volumes_with_one_more_axis_are_read() -> None:
    parts = gzip.compress(PLAIN[:400]) + gzip.compress(PLAIN[400:])
    assert np.array_equal(read_volume(parts, "a.nii").values, VALUES)
    assert np.array_equal(read_volume(nifti_bytes(VALUES[..., None], AFFINE), "a.nii").values, VALUES)
    flat = read_volume(nifti_bytes(VALUES[..., 0], AFFINE), "a.nii").values
    assert np.array_equal(flat, VALUES[..., :1])


def test_gzip_in_blocks_is_read_and_a_million_empty_members_are_not() -> None:
    blocks = b"".join(gzip.compress(PLAIN[at : at + 5]) for at in range(0, len(PLAIN), 5)) + gzip.compress(b"")
    assert np.array_equal(read_volume(blocks, "a.nii").values, VALUES)
    assert why(ZIPPED + gzip.compress(b"") * 150_000) is Reason.OVER_BUDGET


def test_extensions_are_passed_over() -> None:
    longer = changed(PLAIN[:352] + bytes(1200) + PLAIN[352:], 108, "<f", 1552.0)
    for data in (longer, gzip.compress(longer)):
        assert np.array_equal(read_volume(data, "a.nii").values, VALUES)
    assert np.array_equal(read_volume(changed(PLAIN, 108, "<f", 0.0), "a.nii").values, VALUES)


DAMAGED: dict[str, tuple[bytes, Reason]] = {
    "empty": (b"", Reason.FILE_TRUNCATED),
    "short header": (PLAIN[:347], Reason.FILE_TRUNCATED),
    "short header of version 2": (by_nibabel(VALUES, AFFINE, version=2)[:539], Reason.FILE_TRUNCATED),
    "no header": (bytes(1000), Reason.HEADER_INVALID),
    "analyze": (changed(PLAIN, 344, "4s", b""), Reason.HEADER_INVALID),
    "pair": (changed(PLAIN, 344, "4s", b"ni1\0"), Reason.FORMAT_UNSUPPORTED),
    "pair of version 2": (changed(by_nibabel(VALUES, AFFINE, version=2), 4, "4s", b"ni2\0"), Reason.FORMAT_UNSUPPORTED),
    "no axes": (changed(PLAIN, 40, "<h", 0), Reason.HEADER_INVALID),
    "eight axes": (changed(PLAIN, 40, "<h", 8), Reason.HEADER_INVALID),
    "axis of length 0": (changed(PLAIN, 42, "<h", 0), Reason.HEADER_INVALID),
    "negative axis": (changed(PLAIN, 44, "<h", -7), Reason.HEADER_INVALID),
    "complex": (changed(PLAIN, 70, "<2h", 32, 64), Reason.FORMAT_UNSUPPORTED),
    "rgb": (changed(PLAIN, 70, "<2h", 128, 24), Reason.FORMAT_UNSUPPORTED),
    "no such type": (changed(PLAIN, 70, "<h", 77), Reason.HEADER_INVALID),
    "bits of another type": (changed(PLAIN, 72, "<h", 8), Reason.HEADER_MISMATCH),
    "voxels in the header": (changed(PLAIN, 108, "<f", 100.0), Reason.HEADER_INVALID),
    "voxels at a fraction": (changed(PLAIN, 108, "<f", 352.5), Reason.HEADER_INVALID),
    "voxels at no number": (changed(PLAIN, 108, "<f", float("nan")), Reason.HEADER_INVALID),
    "intercept is no number": (changed(PLAIN, 112, "<2f", 1.0, float("nan")), Reason.HEADER_INVALID),
    "metres": (changed(PLAIN, 123, "<B", 1), Reason.UNIT_UNKNOWN),
    "no affine": (changed(PLAIN, 252, "<2h", 0, 0), Reason.HEADER_INVALID),
    "affine not finite": (changed(PLAIN, 280, "<f", float("inf")), Reason.HEADER_INVALID),
    "axis of no length": (changed(PLAIN, 280, "<12f", *[0.0] * 12), Reason.HEADER_INVALID),
    "axes in a plane": (changed(PLAIN, 280, "<12f", 1, 2, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0), Reason.HEADER_INVALID),
    "qform elsewhere": (changed(PLAIN, 252, "<2h", 1, 2), Reason.HEADER_MISMATCH),
    "qform no rotation": (changed(PLAIN, 252, "<2h3f", 1, 0, 2.0, 0, 0), Reason.HEADER_INVALID),
    "too short": (PLAIN[:-1], Reason.FILE_TRUNCATED),
    "too long": (PLAIN + b"\0", Reason.HEADER_MISMATCH),
    "gzip too short": (gzip.compress(PLAIN[:-1]), Reason.FILE_TRUNCATED),
    "gzip too long": (gzip.compress(PLAIN + b"\0"), Reason.HEADER_MISMATCH),
    "gzip cut": (ZIPPED[:-20], Reason.FILE_TRUNCATED),
    "gzip cut in its checksum": (ZIPPED[:-6], Reason.FILE_TRUNCATED),
    "gzip checksum": (changed(ZIPPED, len(ZIPPED) - 8, "<I", 0), Reason.FILE_UNREADABLE),
    "gzip length": (changed(ZIPPED, len(ZIPPED) - 4, "<I", 0), Reason.FILE_UNREADABLE),
    "gzip is none": (b"\x1f\x8b" + bytes(600), Reason.FILE_UNREADABLE),
    "bytes behind gzip": (ZIPPED + b"more", Reason.HEADER_MISMATCH),
    "two volumes": (nifti_bytes(np.stack([VALUES] * 2, 3), AFFINE), Reason.FORMAT_UNSUPPORTED),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_each_fault_has_its_reason(name: str) -> None:
    data, expected = DAMAGED[name]
    assert why(data) is expected


def test_a_claim_over_the_budget_or_over_what_the_file_can_hold_allocates_nothing() -> None:
    bomb = changed(PLAIN, 42, "<3h", 32_000, 32_000, 300)
    zipped = gzip.compress(bomb + bytes(3 << 20))
    gigabytes = changed(PLAIN, 42, "<3h", 1000, 1000, 1000)
    tracemalloc.start()
    try:
        for data, expected in (
            (bomb, Reason.OVER_BUDGET),
            (zipped, Reason.OVER_BUDGET),
            (gigabytes, Reason.FILE_TRUNCATED),
            (gzip.compress(gigabytes), Reason.FILE_TRUNCATED),
        ):
            assert why(data) is expected
        assert why(ZIPPED, max_bytes=100) is Reason.OVER_BUDGET
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_inflated_no_further_than_its_claim() -> None:
    bomb = zlib.compress(PLAIN + bytes(200 << 20), 9, wbits=31)
    tracemalloc.start()
    try:
        assert why(bomb) is Reason.HEADER_MISMATCH
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_affines_are_compared_by_where_they_place_the_corners() -> None:
    other = AFFINE.copy()
    other[0, 3] += 0.3
    assert corner_distance(AFFINE, other, VALUES.shape) == pytest.approx(0.3 / 0.8)
    tilted = AFFINE.copy()
    tilted[2, 0] *= 1.1  # half a millimetre a slice, over four slices
    assert corner_distance(AFFINE, tilted, VALUES.shape) == pytest.approx(2.0 / 0.8)
    assert corner_distance(AFFINE, np.full((4, 4), np.nan), VALUES.shape) == float("inf")


def labels_of(values: NDArray[Any], **keys: float) -> Volume:
    return read_labels(nifti_bytes(values, AFFINE, **keys), "a.nii")


def test_labels_keep_their_integer_type_and_stay_distinct() -> None:
    values = np.zeros((3, 4, 5), np.uint16)
    values[0, 0, :3] = [1, 257, 65_535]
    volume = labels_of(values)
    assert volume.values.dtype == np.uint16
    assert np.unique(volume.values).tolist() == [0, 1, 257, 65_535]


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_whole_floats_become_the_smallest_integers(kind: str) -> None:
    values = np.zeros((3, 4, 5), kind)
    values[1, 1, 1:4] = [1, 2, 300]
    volume = labels_of(values)
    assert volume.values.dtype == np.uint16
    assert np.array_equal(volume.values, values)
    assert "rounded" in volume.taken[-1]
    values[0, 0, 0] = -1
    assert labels_of(values).values.dtype == np.int16


@pytest.mark.parametrize("bad", [0.5, 1.01, float("nan"), float("inf"), 3e10])
def test_what_is_no_whole_number_is_no_label(bad: float) -> None:
    values = np.ones((3, 4, 5), np.float64)
    values[2, 2, 2] = bad
    assert reason(lambda: labels_of(values)) is Reason.FORMAT_UNSUPPORTED


def test_a_slope_that_makes_one_label_of_two_values_or_wide_ranges_is_refused() -> None:
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    assert reason(lambda: labels_of(values, slope=1e-5, intercept=0)) is Reason.FORMAT_UNSUPPORTED
    wide = values.astype(np.int32) * 100_000
    assert reason(lambda: labels_of(wide, slope=2, intercept=0)) is Reason.FORMAT_UNSUPPORTED
    assert np.array_equal(labels_of(values, slope=2, intercept=1).values, values * 2 + 1)


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_scaled_labels_of_any_type_are_what_scaling_them_gives(kind: str) -> None:
    limits = np.iinfo(kind)
    low, high = max(limits.min, -30_000), min(limits.max, 30_000)
    values = np.linspace(low, high, 60).astype(kind).reshape(3, 4, 5)
    assert np.array_equal(labels_of(values, slope=3, intercept=2).values, values.astype(np.int64) * 3 + 2)


@pytest.mark.parametrize("kind", ["u4", "i8", "u8"])
def test_labels_beyond_32_bits_are_refused(kind: str) -> None:
    values = np.ones((3, 4, 5), kind)
    assert labels_of(values).values.dtype == np.dtype(kind)
    values[0, 0, 0] = np.iinfo(kind).max
    assert reason(lambda: labels_of(values)) is Reason.FORMAT_UNSUPPORTED


@pytest.mark.parametrize("kind", ["i2", "f4"])
def test_labels_of_more_than_one_piece_are_taken_piece_by_piece(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nifti, "_PIECE", 7)
    values = (VALUES % 5).astype(kind)
    assert np.array_equal(labels_of(values, slope=2, intercept=0).values, values * 2)
    values[-1, -1, -1] = 200
    assert labels_of(values, slope=2, intercept=0).values.dtype == np.uint16
