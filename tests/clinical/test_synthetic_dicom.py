"""Generated DICOM files are valid by pydicom, the same for the same arguments, and quick to make."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest

from qoq_data.clinical.synthetic_dicom import uid_of, view_attributes, write_dicom

PIXELS = np.arange(12, dtype=np.uint16).reshape(3, 4)
NAMES = {"study": "one", "series": "two", "instance": "three"}
SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"]


def test_the_same_arguments_give_the_same_bytes() -> None:
    attributes = {"PixelSpacing": [0.1, 1 / 3], "ImageLaterality": "L", **view_attributes("MLO")}
    one = write_dicom(PIXELS, **NAMES, kind="MG", attributes=attributes)
    assert one == write_dicom(PIXELS, **NAMES, kind="MG", attributes=attributes)
    assert one != write_dicom(PIXELS, **{**NAMES, "instance": "four"}, kind="MG", attributes=attributes)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_files_are_whole_and_valid(syntax: str) -> None:
    attributes = {"PixelSpacing": [0.1, 1 / 3], "PixelPaddingValue": 5, **view_attributes("CC")}
    data = write_dicom(PIXELS, **NAMES, kind="MG", bits_stored=12, attributes=attributes, transfer_syntax=syntax)
    data_set = pydicom.dcmread(io.BytesIO(data))  # warnings are errors here
    meta = data_set.file_meta
    assert (meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID) == (syntax, data_set.SOPInstanceUID)
    assert meta.MediaStorageSOPClassUID == data_set.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.2"
    assert (data_set.Modality, data_set.BitsStored, data_set.HighBit) == ("MG", 12, 11)
    assert data_set.ViewCodeSequence[0].CodeValue == "399162004"
    assert np.array_equal(data_set.pixel_array, PIXELS)
    assert data_set.PixelSpacing[1] == pytest.approx(1 / 3)


def test_uids_follow_from_names_and_are_kept_when_they_are_uids() -> None:
    data = write_dicom(PIXELS, study="1.2.3", series="two", instance="three")
    data_set = pydicom.dcmread(io.BytesIO(data))
    assert data_set.StudyInstanceUID == "1.2.3"
    assert data_set.SeriesInstanceUID == uid_of("SeriesInstanceUID two")
    assert data_set.SeriesInstanceUID.is_valid
    assert len(data_set.SeriesInstanceUID) <= 64


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4"])
def test_words(dtype: str) -> None:
    pixels = (np.arange(24).reshape(2, 3, 4) - (12 if dtype[0] == "i" else 0)).astype(dtype)
    data_set = pydicom.dcmread(io.BytesIO(write_dicom(pixels, **NAMES)))
    assert data_set.NumberOfFrames == 2
    assert np.array_equal(data_set.pixel_array, pixels)


def test_masks_of_one_bit() -> None:
    mask = np.random.default_rng(1).random((2, 5, 7)) > 0.5
    data_set = pydicom.dcmread(io.BytesIO(write_dicom(mask, **NAMES, kind="SEG")))
    assert data_set.BitsAllocated == 1
    assert np.array_equal(data_set.pixel_array, mask)


def test_attributes_come_last_and_may_be_left_out() -> None:
    data = write_dicom(PIXELS, **NAMES, attributes={"PixelRepresentation": 1, "HighBit": None, "PatientID": "P1"})
    data_set = pydicom.dcmread(io.BytesIO(data))
    assert data_set.PixelRepresentation == 1
    assert "HighBit" not in data_set
    assert data_set.PatientID == "P1"
    with pytest.raises(KeyError):
        write_dicom(PIXELS, **NAMES, attributes={"NoSuchThing": 1})


def test_a_file_without_its_preamble() -> None:
    data = write_dicom(PIXELS, **NAMES, preamble=False)
    assert data[:2] == b"\2\0"
    assert np.array_equal(pydicom.dcmread(io.BytesIO(data), force=True).pixel_array, PIXELS)
