"""Public reports of DICOM pictures gone wrong, each by its number, as the whole kind of mistake."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qoq_data.clinical.dicom_picture import decode_dicom
from qoq_data.clinical.synthetic_dicom import write_dicom
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom import read_dicom_frame
from qoq_data.formats.dicom_file import read_dicom_file
from qoq_data.formats.dicom_series import SlicePlace, segments_on_slices, slice_order, slice_place
from qoq_data.formats.dicom_values import word_values
from tests.formats.dicom_corpus import installed_files, read_plainly
from tests.formats.test_dicom_compressed import J2K, JPEG_LS, jpeg_2000, jpeg_ls, written

RAMP = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
NAMES = {"study": "s", "series": "e", "instance": "i"}


def shown(photometric: str, attributes: Mapping[str, Any]) -> np.ndarray:
    data = write_dicom(RAMP, **NAMES, photometric=photometric, attributes=attributes)
    return decode_dicom(data, "a").pixels


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "IDENTITY", False),
    ],
)
def test_d01_inversion_is_done_once_and_last(photometric: str, shape: str | None, inverted: bool) -> None:
    """A ramp under a window off its middle, against a hand table: inverting first would move the window."""
    attributes = {"WindowCenter": 16000, "WindowWidth": 16001, "PresentationLUTShape": shape}
    hand = np.clip((RAMP - 7999.5) / 16000 * 255, 0, 255)
    table = np.floor(hand + 0.5)
    expected = 255 - table if inverted else table
    assert np.array_equal(shown(photometric, attributes), expected)
    inverted_first = np.clip((65280.0 - RAMP - 8000) / 16000 * 255, 0, 255)
    negated = np.clip((-RAMP.astype(float) - 8000) / 16000 * 255, 0, 255)
    for wrong in (inverted_first, negated):
        assert np.abs(shown(photometric, attributes) - wrong).max() > 100


def test_d01_a_negative_slope_and_monochrome1_are_two_things() -> None:
    attributes = {"RescaleSlope": -1, "RescaleIntercept": 65280}
    assert np.array_equal(shown("MONOCHROME1", attributes), shown("MONOCHROME2", {}))
    assert np.array_equal(shown("MONOCHROME2", attributes), shown("MONOCHROME1", {}))


BITS_13 = np.add.outer(np.arange(64), np.arange(64)) * 64 - 4000  # -4000 to 4064: 13 bits with a sign


def decoded(data: bytes) -> np.ndarray:
    frame = read_dicom_frame(data, "a")
    return word_values(frame.words, frame.layout)


def by_every_decoder(stream: bytes, kind: str, bits: int, size: int, signed: bool) -> list[np.ndarray]:
    from qoq_data.formats import dicom_decoders

    fields = {
        "kind": kind, "rows": 64, "columns": 64, "samples": 1, "bits": bits, "signed": signed, "colour": "",
        "frame_at": 0,
    }  # fmt: skip
    return [decoder(stream, fields)[0].reshape(64, 64) for decoder in dicom_decoders.DECODERS[kind]]


@pytest.mark.parametrize("encode", [jpeg_2000, jpeg_ls])
def test_d03_an_unsigned_stream_of_13_bits_in_a_signed_data_set(encode: Any) -> None:
    """Values are the 13 bits with their sign, as the data set says; taken without it they are 0 to 8191."""
    coded = (BITS_13 & 0x1FFF).astype(np.uint16)
    stream = encode(coded, 13)
    syntax = J2K if encode is jpeg_2000 else JPEG_LS
    for stored in (13, 16):
        data = written(syntax, [stream], BITS_13.astype(np.int16), {"BitsStored": stored, "HighBit": stored - 1})
        assert np.array_equal(decoded(data), BITS_13)
    kind = "jpeg_2000" if encode is jpeg_2000 else "jpeg_ls"
    for words in by_every_decoder(stream, kind, 13, 2, signed=False):
        assert np.array_equal(words & 0x1FFF, coded)


def test_d03_a_signed_stream_in_a_signed_data_set_by_every_decoder() -> None:
    stream = jpeg_2000(BITS_13.astype(np.int16), 13)
    assert np.array_equal(decoded(written(J2K, [stream], BITS_13.astype(np.int16))), BITS_13)
    for words in by_every_decoder(stream, "jpeg_2000", 13, 2, signed=True):
        assert np.array_equal(words & 0x1FFF, BITS_13 & 0x1FFF)


@pytest.mark.parametrize("encode", [jpeg_2000, jpeg_ls])
def test_d03_16_bits_stored_round_a_stream_of_12(encode: Any) -> None:
    """The precision of the stream wins: its values are what they are, and its depth is said."""
    values = (np.add.outer(np.arange(64), np.arange(64)) * 32).astype(np.uint16)
    data = written(J2K if encode is jpeg_2000 else JPEG_LS, [encode(values, 12)], values)
    frame = read_dicom_frame(data, "a")
    assert np.array_equal(word_values(frame.words, frame.layout), values)
    assert frame.layout.stored == 12
    assert "samples of 12 bits where the header says 16" in frame.notes


def test_d03_a_stream_of_16_bits_under_13_signed_ones() -> None:
    """The header's 13 bits would cut the values to the range 0 to 8191."""
    values = (np.add.outer(np.arange(64), np.arange(64)) * 500 - 30_000).astype(np.int16)
    data = written(J2K, [jpeg_2000(values, 16)], values, {"BitsStored": 13, "HighBit": 12})
    assert np.array_equal(decoded(data), values)


def test_d03_real_files_that_disagree(realdata: Any) -> None:
    """Published examples: 13 bits without a sign in a signed data set, beside the same slices uncompressed."""
    files = {path.name: path.read_bytes() for path in installed_files()}
    mismatched = decoded(files["J2K_pixelrep_mismatch.dcm"])
    assert mismatched.min() == -2000
    assert np.array_equal(decoded(files["693_J2KR.dcm"]), decoded(files["693_UNCR.dcm"]))


def place_of(data: bytes, name: str) -> SlicePlace:
    return slice_place(read_dicom_file(data, name).data_set)


def slice_file(number: int, instance: int | None, *, tilt: float = 0.0) -> bytes:
    """The slice of this number: 5 mm apart along a normal that is no axis, moved within its plane by ``tilt``."""
    row, column = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
    position = 5 * number * np.cross(row, column) + tilt * number * column + np.array([-100, -80, 30])
    attributes = {
        "ImagePositionPatient": [round(float(v), 4) for v in position],
        "ImageOrientationPatient": [float(v) for v in (*row, *column)],
        "InstanceNumber": instance,
    }
    pixels = np.full((4, 4), number, np.uint16)
    return write_dicom(pixels, study="s", series="e", instance=f"slice {number}", kind="CT", attributes=attributes)


@pytest.mark.parametrize("numbering", ["constant", "reversed", "absent"])
@pytest.mark.parametrize("tilt", [0.0, 3.0])
def test_d07_slices_stand_by_position_whatever_their_number_and_name(numbering: str, tilt: float) -> None:
    number = {"constant": lambda _: 1, "reversed": lambda n: 6 - n, "absent": lambda _: None}[numbering]
    files = [slice_file(n, number(n), tilt=tilt) for n in range(6)]
    for shuffle in ((0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (3, 0, 5, 1, 4, 2)):
        named = [(f"{name}.dcm", files[n]) for name, n in enumerate(shuffle)]
        order = slice_order([place_of(data, name) for name, data in named])
        stacked = [named[place][1] for place in order]
        assert stacked == files


def test_d07_a_real_series_under_a_tilted_gantry(realdata: Any) -> None:
    """The step changes from 4.2 over 1.1 to 7.4 mm between two slices; names shuffled by their digest."""
    paths = sorted((realdata / "dicom" / "dcm_qa_ct" / "In" / "GE").glob("*.dcm"))
    shuffled = sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest())
    order = slice_order([place_of(path.read_bytes(), path.name) for path in shuffled])
    names = [shuffled[place].name for place in order]
    assert names in ([path.name for path in paths], [path.name for path in paths][::-1])


def test_d07_two_slices_at_one_place_or_turned_are_refused(realdata: Any) -> None:
    places = [place_of(slice_file(n, n), "a") for n in (0, 1, 1)]
    with pytest.raises(RecordError) as caught:
        slice_order(places)
    assert caught.value.reason == Reason.HEADER_MISMATCH
    turned = replace(places[1], row=places[1].column, column=-places[1].row)
    with pytest.raises(RecordError):
        slice_order([places[0], turned])
    series = sorted((realdata / "dicom" / "dcm_qa_nih").rglob("*.dcm"))
    with pytest.raises(RecordError):  # ten time points at each place
        slice_order([place_of(path.read_bytes(), path.name) for path in series])
    with pytest.raises(RecordError):
        place_of(write_dicom(RAMP, **NAMES), "a")


def segmentation(frames: list[tuple[int, int, np.ndarray]], *, by: str) -> bytes:
    """Masks (segment, slice number, mask) in the order given; each says its slice ``by`` reference or position."""
    groups: list[dict[str, Any]] = []
    for segment, number, _ in frames:
        header = read_dicom_file(slice_file(number, 1), "a").data_set
        group: dict[str, Any] = {"SegmentIdentificationSequence": [{"ReferencedSegmentNumber": segment}]}
        if by == "reference":
            source = [{"ReferencedSOPInstanceUID": header.text("SOPInstanceUID")}]
            group["DerivationImageSequence"] = [{"SourceImageSequence": source}]
        else:
            position, lines = header.numbers("ImagePositionPatient"), header.numbers("ImageOrientationPatient")
            group["PlanePositionSequence"] = [{"ImagePositionPatient": position}]
            group["PlaneOrientationSequence"] = [{"ImageOrientationPatient": lines}]
        groups.append(group)
    attributes = {"SegmentationType": "BINARY", "PerFrameFunctionalGroupsSequence": groups}
    stack = np.stack([mask for _, _, mask in frames])
    return write_dicom(stack, study="s", series="g", instance="seg", kind="SEG", attributes=attributes)


@pytest.mark.parametrize("by", ["reference", "position"])
def test_d09_masks_lie_on_their_slices_in_any_order_and_without_the_empty_ones(by: str) -> None:
    rng = np.random.default_rng(9)
    masks = {(segment, n): rng.random((4, 4)) > 0.5 for segment in (1, 2) for n in range(6)}
    for n in (0, 5):
        masks[1, n][:] = False
    listed = [(segment, n, mask) for (segment, n), mask in masks.items() if mask.any() and (segment, n) != (2, 3)][::-1]
    empty = (3, 2, np.zeros((4, 4), np.bool_))  # a segment without a voxel
    slices = [place_of(slice_file(n, 1), f"{n}") for n in (4, 2, 0, 1, 3, 5)]
    found = segments_on_slices(segmentation([*listed, empty], by=by), "seg", slices)
    expected = {(segment, n): mask for segment, n, mask in listed}
    numbers = (4, 2, 0, 1, 3, 5)
    assert {(one.segment, numbers[one.slice]) for one in found} == set(expected)
    for one in found:
        assert np.array_equal(one.mask, expected[one.segment, numbers[one.slice]])


def test_d09_a_frame_of_no_slice_is_refused() -> None:
    frames = [(1, 2, np.ones((4, 4), np.bool_))]
    for by in ("reference", "position"):
        with pytest.raises(RecordError) as caught:
            segments_on_slices(segmentation(frames, by=by), "seg", [place_of(slice_file(0, 1), "a")])
        assert caught.value.reason == Reason.MASK_CONFLICT


@pytest.mark.parametrize("name", ["liver.dcm", "partial_overlaps.dcm"])
def test_d09_real_segmentations_lie_on_the_slices_they_refer_to(realdata: Any, name: str) -> None:
    """Each frame by pydicom, and its slice by the reference that it has."""
    folder = realdata / "dicom" / "dcmqi" / "segmentations"
    paths = sorted((folder / "ct-3slice").glob("*.dcm"), reverse=True)
    slices = [place_of(path.read_bytes(), path.name) for path in paths]
    data = (folder / name).read_bytes()
    found = segments_on_slices(data, name, slices)
    plain = read_plainly(data)
    expected: dict[tuple[int, str], np.ndarray] = {}
    for frame, group in zip(plain.pixel_array, plain.PerFrameFunctionalGroupsSequence, strict=True):
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        instance = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        expected[int(segment), str(instance)] = frame.astype(bool)
    assert len(found) == len(expected)
    for one in found:
        assert np.array_equal(one.mask, expected[one.segment, slices[one.slice].instance])


def test_d09_other_kinds_of_segmentation_are_refused(realdata: Any) -> None:
    for name in ("dcmqi/segmentations/sparse-labelmap-noppv.dcm", "highdicom/ct_image.dcm"):
        with pytest.raises(RecordError) as caught:
            segments_on_slices((realdata / "dicom" / name).read_bytes(), name, [])
        assert caught.value.reason == Reason.FORMAT_UNSUPPORTED
