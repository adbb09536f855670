"""What went wrong with volumes and their masks for others, by the number under which it was collected."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qoq_data.clinical.boxes import boxes_from_mask
from qoq_data.clinical.volume_boxes import find_instances, sections
from qoq_data.clinical.volume_slices import Reach, choose_slices
from qoq_data.clinical.volumes import to_canonical
from qoq_data.corpus.references import MediaReference
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.nifti import read_labels
from qoq_data.formats.nifti_write import nifti_bytes
from qoq_data.sources._volumes import VolumeOptions, slice_parts
from tests.corpus.volumes import canonical_affine, references, render, stored_as, write

SHAPE = (36, 32, 20)


def one_sided() -> np.ndarray:
    """A lesion on the patient's right, at the back, low."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[24:30, 4:9, 3:7] = 2
    return labels


def test_n01_labels_scaled_by_a_slope_keep_every_voxel() -> None:
    labels = np.zeros(SHAPE, np.int16)
    labels[2:6, 3:5, 4] = 255
    labels[20:22, 10, 8:12] = 510
    data = nifti_bytes(labels, canonical_affine(), slope=0.0039215686, intercept=0, compressed=False)
    published = nib.Nifti1Image.from_bytes(data).get_fdata().astype(int)
    assert np.count_nonzero(published) < np.count_nonzero(labels)  # 0.99999999 becomes 0
    found = read_labels(data, "a.nii").values
    assert np.bincount(found.ravel()).tolist() == [labels.size - 16, 8, 8]


def test_n01_labels_of_a_float_mask_are_rounded_and_not_cut() -> None:
    labels = np.zeros(SHAPE, np.float64)
    labels[2:6, 3:5, 4], labels[20:22, 10, 8:12] = 1.9999, 7014.9999
    assert 7014 in labels.astype(int)
    found = read_labels(nifti_bytes(labels, canonical_affine()), "a.nii").values
    assert {value: int((found == value).sum()) for value in np.unique(found).tolist()} == {
        0: labels.size - 16,
        2: 8,
        7015: 8,
    }
    labels[0, 0, 0] = 1.98
    with pytest.raises(RecordError) as caught:
        read_labels(nifti_bytes(labels, canonical_affine()), "a.nii")
    assert caught.value.reason is Reason.FORMAT_UNSUPPORTED


@pytest.mark.parametrize("slope", [float("nan"), 0.0])
def test_n01_a_slope_of_nan_or_0_is_none_and_labels_1_and_2_stay(slope: float) -> None:
    labels = one_sided()
    labels[0, 0, :3] = 1
    found = read_labels(nifti_bytes(labels, canonical_affine(), slope=slope, intercept=0), "a.nii").values
    assert np.array_equal(found, labels)


def test_n02_a_mask_stored_in_another_orientation_lies_on_its_side(tmp_path: Path) -> None:
    labels = one_sided()
    image = (100 * labels).astype(np.int16)
    write(tmp_path, "image.nii.gz", image, canonical_affine())
    lps = stored_as(labels, canonical_affine(), (0, 1, 2), (True, True, False))
    assert lps[0].shape == image.shape
    assert not (image[lps[0] > 0]).any()  # paired by index, the mask lies where no lesion is
    write(tmp_path, "labels.nii.gz", *lps)
    media = render(tmp_path, references("axial", 5))
    assert [(box.label, box.xyxy) for box in media.boxes] == [("lesion", (6, 23, 12, 28))]  # the right is on the left
    turned = stored_as(labels, canonical_affine(), (2, 0, 1), (False, True, True))
    write(tmp_path, "labels.nii.gz", *turned)
    assert render(tmp_path, references("axial", 5)).boxes == media.boxes


def test_n02_a_mask_with_a_false_affine_is_refused(tmp_path: Path) -> None:
    labels = one_sided()
    write(tmp_path, "image.nii.gz", labels.astype(np.int16), canonical_affine((0.8, 0.8, 5.0)))
    for false in (
        np.eye(4),
        canonical_affine((0.8, 0.8, 4.0)),
        canonical_affine((0.8, 0.8, 5.0)) + np.eye(4)[:, [1, 2, 3, 0]],
    ):
        write(tmp_path, "labels.nii.gz", labels, false)
        with pytest.raises(RecordError) as caught:
            render(tmp_path, references("axial", 5))
        assert (caught.value.reason, caught.value.path) == (Reason.MASK_SHAPE_MISMATCH, "labels.nii.gz")


def test_n04_slices_of_an_appended_phase_that_nobody_labelled_are_never_negative() -> None:
    labels = np.zeros((24, 40, 20), np.uint8)  # and no plane of it is square
    labels[4:9, 4:9, 3:6] = labels[15:20, 4:9, 9:12] = 1
    twice = np.concatenate([labels, np.zeros_like(labels)], axis=2)
    instances = find_instances(twice).instances
    reaches = [Reach(one.slices[2].start, one.slices[2].stop - 1, one.largest[2]) for one in instances]
    for policy in ("all", "every", "largest"):
        chosen = choose_slices(reaches, policy, 2, "a")
        assert chosen
        assert max(chosen) < 12
    assert choose_slices(reaches, "all") == list(range(3, 12))
    facts = [
        {"value": one.value, "volume_mm3": float(one.voxels)}
        | {
            plane: {"first": one.slices[axis].start, "last": one.slices[axis].stop - 1, "largest": one.largest[axis]}
            for plane, axis in (("sagittal", 0), ("coronal", 1), ("axial", 2))
        }
        for one in instances
    ]
    parts = slice_parts("a", facts, VolumeOptions(slices="all"))
    assert [part.index for part in parts if not part.values] == [6, 7, 8]  # between the two, where somebody looked


def test_n04_no_square_is_assumed(tmp_path: Path) -> None:
    labels = np.zeros((51, 79, 6), np.uint8)
    labels[3:10, 70:76, 2] = 1
    write(tmp_path, "image.nii.gz", labels.astype(np.int16), canonical_affine())
    write(tmp_path, "labels.nii.gz", labels, canonical_affine())
    assert [box.xyxy for box in render(tmp_path, references("axial", 2)).boxes] == [(41, 3, 48, 9)]


@pytest.mark.parametrize(
    ("region", "box"),
    [
        (np.s_[7:8, 9:10, 4:5], (28, 22, 29, 23)),
        (np.s_[7:8, 9:16, 4:5], (28, 16, 29, 23)),
        (np.s_[0:1, 0:1, 4:5], (35, 31, 36, 32)),  # last row and column of the picture
        (np.s_[35:36, 31:32, 4:5], (0, 0, 1, 1)),
        (np.s_[:, :, 4:5], (0, 0, 36, 32)),
    ],
)
def test_b03_one_voxel_and_the_edges_have_half_open_boxes(region: object, box: tuple[int, ...], tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[region] = 1  # type: ignore[call-overload]
    write(tmp_path, "image.nii.gz", labels.astype(np.int16), canonical_affine())
    write(tmp_path, "labels.nii.gz", labels, canonical_affine())
    assert [one.xyxy for one in render(tmp_path, references("axial", 4)).boxes] == [box]
    assert render(tmp_path, references("axial", 5)).boxes == ()  # a slice without a label has none, and not the whole


def test_b09_two_labels_on_the_same_voxels_are_two_boxes_in_the_order_of_their_masks(tmp_path: Path) -> None:
    labels = one_sided()
    write(tmp_path, "image.nii.gz", labels.astype(np.int16), canonical_affine())
    write(tmp_path, "labels.nii.gz", labels, canonical_affine())
    write(tmp_path, "again.nii.gz", labels // 2, canonical_affine())
    picture, lesion = references("axial", 5, names={2: "lesion"})
    liver = MediaReference("mask", "volume_labels", "again.nii.gz", "1=liver")
    for masks, expected in (([lesion, liver], ["lesion", "liver"]), ([liver, lesion], ["liver", "lesion"])):
        media = render(tmp_path, [picture, *masks])
        assert [box.label for box in media.boxes] == expected
        assert media.boxes[0].xyxy == media.boxes[1].xyxy
        assert render(tmp_path, [picture, *masks]).boxes == media.boxes


def test_b09_boxes_that_lie_in_each_other_or_nearly_cover_each_other_all_stay() -> None:
    labels = np.zeros((40, 40, 3), np.uint8)
    labels[2:30, 2:30, 1] = 1
    labels[5:27, 5:27, 1] = 0
    labels[8:24, 8:24, 1] = 1  # of the same class, inside the ring: another instance, its box inside the ring's
    labels[10:20, 10:20, 1] = 2
    found = sections(find_instances(to_canonical(read_labels(nifti_bytes(labels, np.eye(4)), "")).values), "axial", 1)
    assert [instance.value for instance, _ in found] == [1, 1, 2]
    boxes = [boxes_from_mask(mask, "x").boxes[0].xyxy for _, mask in found]
    assert boxes == [(10, 10, 38, 38), (16, 16, 32, 32), (20, 20, 30, 30)]
