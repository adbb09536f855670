"""Every NIfTI file of the real data and of nibabel's wheel: values and axes as nibabel has them, or a stated reason."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.testing import data_path

from qoq_data.clinical.volumes import to_canonical
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.nifti import read_labels, read_volume

SEVERAL = Reason.FORMAT_UNSUPPORTED
REFUSED = {
    "dicom/dcm_qa_nih/Ref/DCM2NIIX_regression_test_4.nii": SEVERAL,
    "dicom/nitest-balls1/NIFTI/T2_-interleaved.nii.gz": SEVERAL,
    "dicom/nitest-balls1/NIFTI/T2_.nii.gz": SEVERAL,
    "dicom/nitest-balls1/NIFTI/fieldmap.nii.gz": Reason.HEADER_MISMATCH,  # holds a second volume that it does not claim
    "nifti/dcm_qa/ax_asc_35sl_6.nii": SEVERAL,
    "nifti/dcm_qa/cor_asc_35sl_16.nii": SEVERAL,
    "nifti/dcm_qa/sag_asc_35sl_22.nii": SEVERAL,
    "nifti/niivue-images/pcasl.nii.gz": SEVERAL,
}
REFUSED_OF_NIBABEL = {
    "example4d.nii.gz": SEVERAL,
    "example_nifti2.nii.gz": SEVERAL,
    "functional.nii": SEVERAL,
    "row_major.dconn.nii": Reason.HEADER_INVALID,  # a matrix of connections: no axis is a direction
    "nifti1.hdr": Reason.FORMAT_UNSUPPORTED,
    "nifti2.hdr": Reason.FORMAT_UNSUPPORTED,
    "analyze.hdr": Reason.HEADER_INVALID,
}


def compare(path: Path) -> None:
    data, oracle = path.read_bytes(), nib.load(path)
    stored = read_volume(data, path.name)
    scaled = (stored.slope, stored.intercept) != (1, 0)
    values = np.asarray(oracle.dataobj).reshape(stored.values.shape)
    turned = nib.as_closest_canonical(nib.Nifti1Image(values, oracle.affine))
    for volume, expected, affine in (
        (stored, values, oracle.affine),
        (to_canonical(stored), np.asarray(turned.dataobj), turned.affine),
    ):
        found = volume.values * volume.slope + volume.intercept if scaled else volume.values
        assert np.array_equal(found, expected) or np.array_equal(found, expected, equal_nan=True)
        assert np.allclose(volume.affine, affine, atol=1e-4)
        assert np.allclose(volume.spacing_mm, nib.affines.voxel_sizes(affine), atol=1e-4)
    assert nib.aff2axcodes(to_canonical(stored).affine) == ("R", "A", "S")
    if "kits23" in path.parts:
        labels = read_labels(data, path.name)
        assert labels.values.dtype == np.uint8
        assert np.array_equal(labels.values, stored.values)


def check(folder: Path, paths: list[Path], refused: dict[str, Reason]) -> None:
    seen = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if name in refused:
            with pytest.raises(RecordError) as caught:
                read_volume(path.read_bytes(), path.name)
            seen[name] = caught.value.reason
        else:
            compare(path)
    assert seen == refused


def test_every_file_of_the_real_data(realdata: Path) -> None:
    small = [path for path in sorted(realdata.rglob("*.nii*")) if "instances" not in path.parts]
    files = [path for path in small if path.name.endswith((".nii", ".nii.gz"))]
    assert len(files) == 28
    check(realdata, files, REFUSED)


def test_the_annotations_of_one_case_are_labels_stored_as_float64(realdata: Path) -> None:
    files = sorted(realdata.glob("kits23/dataset/*/instances/*.nii.gz"))
    assert len(files) == 9
    for path in files:
        compare(path)


def test_every_file_of_nibabels_wheel() -> None:
    folder = Path(data_path)
    files = [path for path in sorted(folder.iterdir()) if path.name.endswith((".nii", ".nii.gz", ".hdr"))]
    assert len(files) >= 10
    check(folder, files, REFUSED_OF_NIBABEL)
