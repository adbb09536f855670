"""Canonical axes against nibabel, slices against a volume whose every voxel says where it is, and the way back."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from qoq_data.clinical.volumes import (
    NORMAL_AXIS,
    PLANES,
    box_to_canonical,
    canonical_axes,
    canonical_to_stored,
    check_agreement,
    grey_slice,
    slice_of,
    slice_spacing,
    tilt_degrees,
    to_canonical,
)
from qoq_data.clinical.windowing import display_window, to_grey, window_levels
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.nifti import Volume

RNG = np.random.default_rng(8)
SHAPE = (4, 5, 6)
RAS = np.arange(120, dtype=np.int16).reshape(SHAPE)
EDGES = np.array([0.5, 0.75, 3.0])
ORIENTATIONS = [
    (axes, flips) for axes in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)
]


def affine_of(edges: np.ndarray = EDGES) -> np.ndarray:
    affine = np.diag([*edges, 1.0])
    affine[:3, 3] = [-7, 11, 100]
    return affine


def stored_as(axes: tuple[int, ...], flips: tuple[bool, ...], canonical: np.ndarray = RAS) -> Volume:
    """The canonical volume as a file of another orientation has it: stored axis s is canonical ``axes[s]``."""
    backwards = tuple(slice(None, None, -1 if one else 1) for one in flips)
    values = np.asfortranarray(canonical.transpose(axes)[backwards])
    affine = affine_of() @ np.eye(4)
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for stored, axis in enumerate(axes):
        change[axis, stored] = -1 if flips[stored] else 1
        change[axis, 3] = canonical.shape[axis] - 1 if flips[stored] else 0
    return Volume(values, affine @ change)


@pytest.mark.parametrize("seed", range(4))
def test_axes_are_those_that_nibabel_finds_for_any_affine(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for turn in range(250):
        affine = np.eye(4)
        affine[:3, :3] = Rotation.random(rng=rng).as_matrix() * rng.uniform(0.3, 5, 3)
        if turn % 2:
            affine[:3, :3] += rng.normal(0, 0.1, (3, 3))
        found, oracle = canonical_axes(affine), nib.io_orientation(affine)
        for stored, (canonical, sign) in enumerate(oracle.astype(int).tolist()):
            assert found.axes[canonical] == stored
            assert found.flipped[canonical] == (sign < 0)
        assert str(found) == "".join(nib.aff2axcodes(affine))


def test_axes_in_a_plane_have_no_orientation() -> None:
    flat = np.eye(4)
    flat[:3, 1] = flat[:3, 0]
    with pytest.raises(ValueError, match="in a plane"):
        canonical_axes(flat)


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_each_of_48_orientations_becomes_canonical_as_a_view(axes: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    stored = stored_as(axes, flips)
    found = to_canonical(stored)
    assert np.array_equal(found.values, RAS)
    assert np.allclose(found.affine, affine_of())
    assert np.shares_memory(found.values, stored.values)
    oracle = nib.as_closest_canonical(nib.Nifti1Image(stored.values, stored.affine))
    assert np.array_equal(np.asarray(oracle.dataobj), found.values)
    assert np.allclose(oracle.affine, found.affine)
    assert found.taken[-1] == f"stored axes {''.join(nib.aff2axcodes(stored.affine))}"


def test_an_oblique_volume_keeps_its_own_planes_and_says_by_how_much() -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("x", 12, degrees=True).as_matrix() * 2
    found = to_canonical(Volume(RAS, affine))
    assert tilt_degrees(affine) == pytest.approx(12)
    assert found.taken[-1] == "oblique by 12.0 degrees, in its own planes"
    assert np.array_equal(found.values, RAS)
    assert found.spacing_mm == pytest.approx((2, 2, 2))


def test_every_plane_is_shown_with_the_right_on_the_left_and_the_head_or_front_above() -> None:
    right, front, head = 3, 4, 5  # the last index along each axis
    axial = slice_of(RAS, "axial", 2)
    assert axial.shape == (5, 4)
    assert axial[0, 0] == RAS[right, front, 2]
    assert axial[-1, -1] == RAS[0, 0, 2]
    assert axial[0, -1] == RAS[0, front, 2]
    coronal = slice_of(RAS, "coronal", 1)
    assert coronal.shape == (6, 4)
    assert coronal[0, 0] == RAS[right, 1, head]
    assert coronal[-1, 0] == RAS[right, 1, 0]
    sagittal = slice_of(RAS, "sagittal", 3)
    assert sagittal.shape == (6, 5)
    assert sagittal[0, 0] == RAS[3, front, head]
    assert sagittal[0, -1] == RAS[3, 0, head]
    assert np.shares_memory(axial, RAS)
    assert [slice_spacing((0.5, 0.75, 3.0), plane) for plane in PLANES] == [(0.75, 0.5), (3.0, 0.5), (3.0, 0.75)]


@pytest.mark.parametrize("index", [-1, 6, 1000])
def test_a_slice_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(RecordError) as caught:
        slice_of(RAS, "axial", index, "a.nii")
    assert (caught.value.reason, caught.value.path) == (Reason.HEADER_MISMATCH, "a.nii")


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_a_box_on_a_picture_comes_back_to_the_stored_voxels(axes: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    stored = stored_as(axes, flips)
    orientation = canonical_axes(stored.affine)
    canonical = to_canonical(stored)
    for plane in PLANES:
        shown = slice_of(canonical.values, plane, 2)
        box = (1, 2, 3, 4)
        voxels = box_to_canonical(box, plane, 2, SHAPE)
        inside = canonical.values[voxels]
        assert inside.shape[NORMAL_AXIS[plane]] == 1
        assert sorted(inside.ravel()) == sorted(shown[2:4, 1:3].ravel())
        back = canonical_to_stored(voxels, orientation, SHAPE)
        assert sorted(stored.values[back].ravel()) == sorted(shown[2:4, 1:3].ravel())
        first, placed = ([one.start for one in back], [one.start for one in voxels])
        ends = [[one.start, one.stop - 1] for one in voxels]
        worlds = [canonical.affine @ [*corner, 1] for corner in itertools.product(*ends)]
        assert any(np.allclose(stored.affine @ [*first, 1], world) for world in worlds), (first, placed)


def test_windows_go_through_the_table_as_they_go_pixel_by_pixel() -> None:
    values = RNG.integers(-1100, 1500, (20, 21, 22)).astype(np.int16)
    volume = Volume(values, affine_of(), 0.5, -10)
    grey, text = grey_slice(volume, "coronal", 4, "soft_tissue", "a.nii")
    real = slice_of(values, "coronal", 4) * 0.5 - 10.0
    assert np.array_equal(grey, to_grey(window_levels(real, display_window("soft_tissue"))))
    assert text == "soft tissue, 40/400"
    floats, _ = grey_slice(
        Volume(values.astype(np.float32), affine_of(), 0.5, -10), "coronal", 4, "soft_tissue", "a.nii"
    )
    assert np.array_equal(floats, grey)
    for kind in ("u8", "i8"):  # beyond what a table holds
        top = Volume(values.astype(np.int64).astype(kind), affine_of(), 0.5, -10)
        expected = to_grey(
            window_levels(slice_of(top.values, "coronal", 4) * 0.5 - 10.0, display_window("soft_tissue"))
        )
        assert np.array_equal(grey_slice(top, "coronal", 4, "soft_tissue", "a.nii")[0], expected)
    wide, _ = grey_slice(
        Volume(values.astype(np.int64) * 100_000, affine_of(), 5e-6, -10), "coronal", 4, "soft_tissue", ""
    )
    assert np.array_equal(wide, grey)


def test_without_a_window_the_volumes_own_range_is_shown() -> None:
    grey, text = grey_slice(Volume(RAS, affine_of(), -2.0, 5.0), "axial", 5, "", "a.nii")
    assert text == "the volume's range, -233 to 5"
    assert grey.shape == (5, 4)
    assert grey[0, 0] == 0  # the largest stored value, which the negative slope makes the lowest
    assert grey.max() < 255  # the volume's brightest voxel is on another slice


def test_voxels_that_are_no_numbers_are_refused() -> None:
    values = RAS.astype(np.float32)
    values[0, 0, 1] = np.nan
    with pytest.raises(RecordError) as caught:
        grey_slice(Volume(values, affine_of()), "axial", 1, "brain", "a.nii")
    assert (caught.value.reason, caught.value.path) == (Reason.SAMPLES_OUT_OF_RANGE, "a.nii")
    assert grey_slice(Volume(values, affine_of()), "axial", 2, "brain", "a.nii")[0].any()


def test_image_and_labels_agree_within_half_a_voxel() -> None:
    image = to_canonical(Volume(RAS, affine_of()))
    near, far = affine_of(), affine_of()
    near[0, 3] += 0.24
    far[0, 3] += 0.26
    check_agreement(image, to_canonical(Volume(RAS, near)), "a.nii")
    for other in (Volume(RAS, far), Volume(RAS[:, :, :5], affine_of()), Volume(RAS, affine_of(EDGES * [1, 1, 1.1]))):
        with pytest.raises(RecordError) as caught:
            check_agreement(image, to_canonical(other), "a.nii")
        assert (caught.value.reason, caught.value.path) == (Reason.MASK_SHAPE_MISMATCH, "a.nii")
