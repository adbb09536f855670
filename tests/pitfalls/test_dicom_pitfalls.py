"""Public reports of DICOM pictures gone wrong, each by its number, as the whole kind of mistake."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qoq_data.clinical.dicom_picture import decode_dicom
from qoq_data.clinical.synthetic_dicom import write_dicom
from qoq_data.corpus.pictures import read_layers, read_picture
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom import read_dicom_frame
from qoq_data.formats.dicom_file import read_dicom_file
from qoq_data.formats.dicom_segments import picture_place
from qoq_data.formats.dicom_values import word_values
from qoq_data.formats.storage import Store
from qoq_data.recipe import BoxRecipe, Recipe, SourceRecipe
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


def by_every_plugin(stream: bytes, kind: str) -> list[np.ndarray]:
    """The stream of 64 x 64 samples of 13 bits by each plugin that is tried, one alone at a time."""
    from qoq_data.formats import dicom_decoders

    options = {
        "rows": 64, "columns": 64, "samples_per_pixel": 1, "photometric_interpretation": "MONOCHROME2",
        "planar_configuration": 0, "bits_allocated": 16, "bits_stored": 13,
    }  # fmt: skip
    found = []
    syntax, plugins = dicom_decoders.PLUGINS[kind]
    for plugin in plugins:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(dicom_decoders.PLUGINS, kind, (syntax, (plugin,)))
            reply, data = dicom_decoders.answer({"kind": kind, "options": options}, stream)
        assert reply["decoder"] == plugin
        found.append(np.frombuffer(data, "<u2").reshape(64, 64))
    assert len(found) == 2
    return found


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
    for words in by_every_plugin(stream, kind):
        assert np.array_equal(words & 0x1FFF, coded)


def test_d03_a_signed_stream_in_a_signed_data_set_by_every_decoder() -> None:
    stream = jpeg_2000(BITS_13.astype(np.int16), 13)
    assert np.array_equal(decoded(written(J2K, [stream], BITS_13.astype(np.int16))), BITS_13)
    for words in by_every_plugin(stream, "jpeg_2000"):
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


def slice_file(number: int, instance: int | None = 1, *, tilt: float = 0.0, bend: float = 0.0) -> bytes:
    """The slice of this number: 5 mm apart along a normal that is no axis, moved within its plane by ``tilt``."""
    row, column = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
    position = 5 * number * np.cross(row, column) + tilt * number * column + np.array([-100, -80, 30])
    attributes = {
        "ImagePositionPatient": [round(float(v), 4) for v in position],
        "ImageOrientationPatient": [float(v) for v in (*row, *column)] if not bend else [1, 0, 0, 0, 1, 0],
        "InstanceNumber": instance,
    }
    pixels = np.full((4, 4), number, np.uint16)
    return write_dicom(pixels, study="s", series="e", instance=f"slice {number}", kind="CT", attributes=attributes)


LABELS = {1: "liver", 2: "cyst", 3: "nothing"}


def segmentation(frames: list[tuple[int, int, np.ndarray]], *, by: str, tilt: float = 0.0, **more: Any) -> bytes:
    """Masks (segment, slice number, mask) in the order given; each says its slice ``by`` reference or position."""
    groups: list[dict[str, Any]] = []
    for segment, number, _ in frames:
        header = read_dicom_file(slice_file(number, tilt=tilt), "a").data_set
        group: dict[str, Any] = {"SegmentIdentificationSequence": [{"ReferencedSegmentNumber": segment}]}
        if by == "reference":
            source = [{"ReferencedSOPInstanceUID": header.text("SOPInstanceUID")}]
            group["DerivationImageSequence"] = [{"SourceImageSequence": source}]
        else:
            position, lines = header.numbers("ImagePositionPatient"), header.numbers("ImageOrientationPatient")
            group["PlanePositionSequence"] = [{"ImagePositionPatient": position}]
            group["PlaneOrientationSequence"] = [{"ImageOrientationPatient": lines}]
        groups.append(group)
    attributes = {
        "SegmentationType": "BINARY",
        "SegmentSequence": [{"SegmentNumber": number, "SegmentLabel": label} for number, label in LABELS.items()],
        "PerFrameFunctionalGroupsSequence": groups,
        **more,
    }
    stack = np.stack([mask for _, _, mask in frames])
    return write_dicom(stack, study="s", series="g", instance="seg", kind="SEG", attributes=attributes)


def layer(tree: Store, picture: str, label: str, mask: str = "seg.dcm") -> np.ndarray:
    """What the row of a picture has of a segment."""
    references = (MediaReference("image", "dicom", picture, ""), MediaReference("mask", "dicom_mask", mask, label))
    size = read_picture(tree, references[0]).decoded.full_size
    (one,) = read_layers(tree, references[1], size, None, references[0]).layers
    assert one.label == label
    return one.mask


def put(folder: Path, **files: bytes) -> Store:
    for name, data in files.items():
        (folder / f"{name}.dcm").write_bytes(data)
    return Store(folder)


RNG = np.random.default_rng(9)
MASKS = {(segment, n): RNG.random((4, 4)) > 0.5 for segment in (1, 2) for n in range(6)}


@pytest.mark.parametrize("numbering", ["constant", "reversed", "absent"])
@pytest.mark.parametrize("tilt", [0.0, 3.0])
def test_d07_slices_are_told_by_position_whatever_their_number_and_name(
    tmp_path: Path, numbering: str, tilt: float
) -> None:
    """Frames of a segmentation in their order along the normal, slices under names and numbers in any other."""
    number = {"constant": lambda _: 1, "reversed": lambda n: 6 - n, "absent": lambda _: None}[numbering]
    frames = [(1, n, MASKS[1, n]) for n in range(6)]
    for turn, shuffle in enumerate(((0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (3, 0, 5, 1, 4, 2))):
        folder = tmp_path / str(turn)
        folder.mkdir()
        files = {f"s{name}": slice_file(n, number(n), tilt=tilt) for name, n in enumerate(shuffle)}
        tree = put(folder, seg=segmentation(frames, by="position", tilt=tilt), **files)
        for name, n in enumerate(shuffle):
            assert np.array_equal(layer(tree, f"s{name}.dcm", "liver"), MASKS[1, n])


def test_d07_a_real_series_under_a_tilted_gantry(realdata: Path) -> None:
    """The step changes from 4.2 over 1.1 to 7.4 mm between two slices; each stands at a place of its own."""
    paths = sorted((realdata / "dicom" / "dcm_qa_ct" / "In" / "GE").glob("*.dcm"))
    places = [picture_place(read_dicom_file(path.read_bytes(), path.name).data_set).plane for path in paths]
    for one, other in combinations(places, 2):
        assert one is not None
        assert other is not None
        assert one.same(one)
        assert not one.same(other)


@pytest.mark.parametrize("by", ["reference", "position"])
def test_d09_masks_lie_on_their_slices_in_any_order_and_without_the_empty_ones(tmp_path: Path, by: str) -> None:
    masks = {key: mask for key, mask in MASKS.items() if key not in ((1, 0), (1, 5), (2, 3))}
    listed = [(segment, n, mask) for (segment, n), mask in masks.items()][::-1]
    tree = put(tmp_path, seg=segmentation(listed, by=by), **{f"s{n}": slice_file(n) for n in range(6)})
    for n in (4, 2, 0, 1, 3, 5):
        for segment, label in LABELS.items():
            expected = masks.get((segment, n), np.zeros((4, 4), np.bool_))
            assert np.array_equal(layer(tree, f"s{n}.dcm", label), expected)


def test_d09_a_segment_without_a_voxel_on_a_picture_gives_no_box(tmp_path: Path) -> None:
    square = np.zeros((4, 4), np.bool_)
    square[1:3, 2:4] = True
    tree = put(tmp_path, seg=segmentation([(1, 2, square)], by="reference"), s2=slice_file(2), s3=slice_file(3))
    recipe = Recipe(name="made", sources=(SourceRecipe(name="made"),), boxes=BoxRecipe(min_area_px=1))
    found = {}
    for name in ("s2", "s3"):
        picture = MediaReference("image", "dicom", f"{name}.dcm", "")
        masks = [MediaReference("mask", "dicom_mask", "seg.dcm", label) for label in LABELS.values()]
        found[name] = [(box.label, box.xyxy) for box in render_media(tree, [picture, *masks], recipe).boxes]
    assert found == {"s2": [("liver", (2, 1, 4, 3))], "s3": []}


def refused(tree: Store, label: str = "liver") -> Reason:
    with pytest.raises(RecordError) as caught:
        layer(tree, "s2.dcm", label)
    assert caught.value.path == "seg.dcm"
    return caught.value.reason


def test_d09_what_does_not_say_its_picture_is_refused(tmp_path: Path) -> None:
    frames = [(1, 2, MASKS[1, 2])]
    data = segmentation(frames, by="reference")
    tree = put(tmp_path, seg=data, s2=slice_file(2))
    assert refused(tree, "spleen") == Reason.MASK_MISSING
    groups = [{"SegmentIdentificationSequence": [{"ReferencedSegmentNumber": 1}]}]
    put(tmp_path, seg=segmentation(frames, by="reference", PerFrameFunctionalGroupsSequence=groups))
    assert refused(tree) == Reason.MASK_CONFLICT
    put(tmp_path, seg=segmentation(frames, by="reference", PerFrameFunctionalGroupsSequence=[{}]))
    assert refused(tree) == Reason.HEADER_INVALID
    elsewhere = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    put(tmp_path, seg=segmentation(frames, by="reference", **elsewhere))
    assert refused(tree) == Reason.MASK_CONFLICT
    put(tmp_path, seg=segmentation(frames, by="reference", SegmentationType="FRACTIONAL"))
    assert refused(tree) == Reason.FORMAT_UNSUPPORTED


def test_d09_a_turned_slice_at_the_same_place_is_another_picture(tmp_path: Path) -> None:
    tree = put(tmp_path, seg=segmentation([(1, 2, MASKS[1, 2])], by="position"), s2=slice_file(2, bend=1))
    assert not layer(tree, "s2.dcm", "liver").any()


def test_d09_of_several_frames_of_a_picture_the_one_that_is_meant(tmp_path: Path) -> None:
    """References name frames, counted from 1."""
    uid = read_dicom_file(slice_file(0), "a").data_set.text("SOPInstanceUID")
    groups = [
        {
            "SegmentIdentificationSequence": [{"ReferencedSegmentNumber": 1}],
            "DerivationImageSequence": [
                {"SourceImageSequence": [{"ReferencedSOPInstanceUID": uid, "ReferencedFrameNumber": number}]}
            ],
        }
        for number in (2, 1)
    ]
    masks = [(1, 0, MASKS[1, 1]), (1, 0, MASKS[1, 0])]
    pixels = np.zeros((2, 4, 4), np.uint8)
    tree = put(
        tmp_path,
        seg=segmentation(masks, by="reference", PerFrameFunctionalGroupsSequence=groups),
        film=write_dicom(pixels, study="s", series="e", instance="slice 0", kind="CT"),
    )
    mask = MediaReference("mask", "dicom_mask", "seg.dcm", "liver")
    for frame in (0, 1):
        picture = MediaReference("image", "dicom", "film.dcm", "", frame=frame)
        (one,) = read_layers(tree, mask, (4, 4), None, picture).layers
        assert np.array_equal(one.mask, MASKS[1, frame])


@pytest.mark.parametrize("name", ["liver.dcm", "partial_overlaps.dcm"])
def test_d09_real_segmentations_lie_on_the_slices_they_refer_to(realdata: Path, name: str) -> None:
    """Each frame by pydicom, and its slice by the reference that it has."""
    folder = realdata / "dicom" / "dcmqi" / "segmentations"
    plain = read_plainly((folder / name).read_bytes())
    labels = {int(one.SegmentNumber): str(one.SegmentLabel) for one in plain.SegmentSequence}
    expected: dict[tuple[str, str], np.ndarray] = {}
    for frame, group in zip(plain.pixel_array, plain.PerFrameFunctionalGroupsSequence, strict=True):
        segment = labels[int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
        instance = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        expected[segment, str(instance)] = frame.astype(bool)
    seen = 0
    for path in sorted((folder / "ct-3slice").glob("*.dcm"), reverse=True):
        instance = str(read_plainly(path.read_bytes(), header_only=True).SOPInstanceUID)
        for label in labels.values():
            mask = layer(Store(folder), f"ct-3slice/{path.name}", label, name)
            if (label, instance) in expected:
                assert np.array_equal(mask, expected[label, instance])
            else:
                assert not mask.any()
            seen += (label, instance) in expected
    assert seen == len(expected)


def test_d09_a_labelmap_is_refused(realdata: Path) -> None:
    folder = realdata / "dicom" / "dcmqi" / "segmentations"
    with pytest.raises(RecordError) as caught:
        layer(Store(folder), "24x38x3/image/IMG0001.dcm", "Liver", "sparse-labelmap-noppv.dcm")
    assert caught.value.reason == Reason.FORMAT_UNSUPPORTED
