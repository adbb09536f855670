"""The order of operations, a test a branch, on generated files whose picture can be told by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qoq_data.clinical.dicom_picture import decode_dicom
from qoq_data.clinical.synthetic_dicom import Attributes, write_dicom
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image import DecodedImage
from tests.formats.dicom_corpus import plain_picture, read_plainly

RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16  # 0 to 4080 in steps of 16


def written(pixels: np.ndarray = RAMP, attributes: Attributes | None = None, **options: Any) -> bytes:
    return write_dicom(pixels, study="s", series="e", instance="i", attributes=attributes or {}, **options)


def shown(pixels: np.ndarray = RAMP, attributes: Attributes | None = None, **options: Any) -> DecodedImage:
    return decode_dicom(written(pixels, attributes, **options), "a.dcm")


def refusal(pixels: np.ndarray = RAMP, attributes: Attributes | None = None, **options: Any) -> RecordError:
    with pytest.raises(RecordError) as caught:
        shown(pixels, attributes, **options)
    return caught.value


def equals_the_plain_way(pixels: np.ndarray, attributes: Attributes, **options: Any) -> DecodedImage:
    data = written(pixels, attributes, **options)
    picture = decode_dicom(data, "a.dcm")
    assert np.abs(picture.pixels - plain_picture(read_plainly(data))).max() <= 0.5 + 1e-6
    return picture


def test_without_a_window_from_the_smallest_to_the_largest_value() -> None:
    picture = shown(RAMP + 100, bits_stored=13)
    assert (picture.pixels.min(), picture.pixels.max()) == (0, 255)
    assert picture.window == "100 to 4180"
    assert picture.conversions == ("no window: smallest to largest value, 100 to 4180",)
    assert (picture.source_mode, picture.source_format, picture.bit_depth) == ("MONOCHROME2", "DICOM", 13)
    assert not picture.untouched


def test_a_picture_of_one_value_is_black() -> None:
    assert shown(np.full((4, 4), 9, np.uint16)).pixels.max() == 0


def test_the_first_of_several_windows() -> None:
    picture = equals_the_plain_way(RAMP, {"WindowCenter": [1000, 40], "WindowWidth": [500, 400]})
    assert picture.window == "1000/500"
    assert picture.conversions == ("window 1000/500, number 1 of 2",)


def test_a_window_without_width_is_passed_over_and_said() -> None:
    picture = shown(RAMP, {"WindowCenter": [1000, 40], "WindowWidth": [0, 400]})
    assert picture.window == "40/400"
    assert picture.conversions[0] == "a window of width 0 passed over"
    assert shown(RAMP, {"WindowCenter": 0, "WindowWidth": 0}).window == "0 to 4080"


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_window_functions(function: str) -> None:
    attributes = {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": function}
    assert equals_the_plain_way(RAMP, attributes).window == f"2000/1000 {function}"


def test_an_unknown_window_function_is_refused() -> None:
    attributes = {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "GAMMA"}
    assert refusal(RAMP, attributes).reason == Reason.FORMAT_UNSUPPORTED


def test_slope_and_intercept_come_before_the_window() -> None:
    attributes = {"RescaleSlope": 0.5, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    equals_the_plain_way(RAMP, attributes)


def test_a_negative_slope_turns_the_picture_round() -> None:
    attributes = {"RescaleSlope": -1, "RescaleIntercept": 4080, "WindowCenter": 2040, "WindowWidth": 4081}
    picture = equals_the_plain_way(RAMP, attributes)
    assert picture.pixels[0, 0] > picture.pixels[-1, -1]


def test_a_slope_of_nothing_is_refused() -> None:
    assert refusal(RAMP, {"RescaleSlope": 0, "RescaleIntercept": 1}).reason == Reason.HEADER_INVALID


def test_signed_values() -> None:
    pixels = (RAMP.astype(np.int16) - 2040).astype(np.int16)
    equals_the_plain_way(pixels, {"WindowCenter": 0, "WindowWidth": 300}, bits_stored=12)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_beyond_those_stored_are_not_looked_at(signed: bool) -> None:
    dirty = (RAMP | 0xA000).astype(np.uint16)
    clean = RAMP.astype(np.int32)
    attributes = {"WindowCenter": 0, "WindowWidth": 5000, "PixelRepresentation": int(signed)}
    expected = np.where(clean >= 2048, clean - 4096, clean) if signed else clean
    levels = np.clip(((expected + 0.5) / 4999 + 0.5) * 255, 0, 255)
    assert np.array_equal(shown(dirty, attributes, bits_stored=12).pixels, np.floor(levels + 0.5))


def test_values_in_the_high_bits_of_a_word() -> None:
    moved = shown((RAMP << 4).astype(np.uint16), {"HighBit": 15}, bits_stored=12)
    assert np.array_equal(moved.pixels, shown(RAMP, bits_stored=12).pixels)


def lut(first: int, entries: list[int], bits: int = 16, **more: Any) -> list[Attributes]:
    data = np.array(entries, "<u2").tobytes()
    return [{"LUTDescriptor": [len(entries), first, bits], "LUTData": data, **more}]


def test_a_modality_table_takes_the_place_of_the_rescale() -> None:
    entries = [4095 - place for place in range(4096)]
    picture = equals_the_plain_way(RAMP, {"ModalityLUTSequence": lut(0, entries, ModalityLUTType="OD")}, bits_stored=12)
    assert picture.pixels[0, 0] == 255


def test_a_voi_table_comes_before_a_window() -> None:
    entries = [min(65535, place * place // 256) for place in range(4096)]
    attributes = {"VOILUTSequence": lut(0, entries), "WindowCenter": 40, "WindowWidth": 400}
    assert equals_the_plain_way(RAMP, attributes).window == "the file's table of 4096 entries"


def test_a_voi_table_that_starts_late_and_ends_early() -> None:
    equals_the_plain_way(RAMP, {"VOILUTSequence": lut(1000, [0, 200, 4000, 65535])})


def test_a_table_shorter_than_it_says_is_refused() -> None:
    short = [{"LUTDescriptor": [4096, 0, 16], "LUTData": bytes(100)}]
    assert refusal(RAMP, {"VOILUTSequence": short}).reason == Reason.HEADER_INVALID


def test_a_table_with_more_bits_than_it_says_keeps_its_levels() -> None:
    picture = shown(RAMP, {"VOILUTSequence": lut(0, [0, 2048, 4095], bits=8)})
    assert picture.pixels.max() == 255
    assert picture.pixels[0, 0] == 0


def test_an_asked_window_takes_the_place_of_the_files() -> None:
    attributes = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 0, "WindowWidth": 9}
    picture = decode_dicom(written(RAMP, attributes, kind="CT"), "a.dcm", display="lung")
    assert picture.window == "lung, -600/1500"
    hounsfield = RAMP.astype(float) - 1024
    levels = np.clip(((hounsfield + 600.5) / 1499 + 0.5) * 255, 0, 255)
    assert np.array_equal(picture.pixels, np.floor(levels + 0.5))


@pytest.mark.parametrize(
    "attributes", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "OD"}], ids=["no rescale", "density"]
)
def test_a_window_in_hounsfield_units_needs_them(attributes: Attributes) -> None:
    with pytest.raises(RecordError) as caught:
        decode_dicom(written(RAMP, attributes), "a.dcm", display="bone")
    assert caught.value.reason == Reason.HEADER_INVALID


def test_padding_is_black_and_no_part_of_the_range() -> None:
    pixels = RAMP.astype(np.int16)
    pixels[0] = -2000
    picture = shown(pixels, {"PixelPaddingValue": -2000})
    assert picture.window == "256 to 4080"
    assert picture.pixels[0].max() == 0
    assert picture.pixels[1, 0] == 0
    assert picture.conversions[-1] == "padding black"


def test_a_range_of_padding_and_black_under_inversion() -> None:
    attributes = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 48}
    picture = shown(RAMP, attributes, photometric="MONOCHROME1")
    assert picture.pixels[0, :4].tolist() == [0, 0, 0, 0]
    assert picture.pixels[0, 4] == 255
    assert picture.window == "64 to 4080"


def test_padding_of_a_signed_picture_written_without_a_sign() -> None:
    pixels = RAMP.astype(np.int16)
    pixels[0] = -2000
    assert shown(pixels, {"PixelPaddingValue": 63536}).window == "256 to 4080"


def test_nothing_but_padding_is_black() -> None:
    assert shown(np.full((3, 3), 7, np.uint8), {"PixelPaddingValue": 7}).pixels.max() == 0


def test_words_of_32_bits() -> None:
    picture = equals_the_plain_way(RAMP.astype(np.uint32) << 16, {"RescaleSlope": 1e-3, "RescaleIntercept": 0})
    assert picture.bit_depth == 32


def groups(frame: float) -> Attributes:
    return {
        "PixelValueTransformationSequence": [{"RescaleSlope": 1, "RescaleIntercept": frame, "RescaleType": "US"}],
        "FrameVOILUTSequence": [{"WindowCenter": 500 * frame, "WindowWidth": 1000}],
        "PixelMeasuresSequence": [{"PixelSpacing": [frame, 2 * frame]}],
    }


def test_a_frame_has_its_own_functional_groups() -> None:
    frames = np.stack([RAMP, RAMP[::-1], RAMP.T])
    data = written(frames, {"PerFrameFunctionalGroupsSequence": [groups(1), groups(2), groups(3)]})
    for frame in range(3):
        picture = decode_dicom(data, "a.dcm", frame=frame)
        assert picture.window == f"{500 * (frame + 1)}/1000"
        assert picture.spacing_mm == (frame + 1, 2 * (frame + 1))
        assert picture.pixel_aspect == 0.5
        expected = plain_picture(read_plainly(data), frame=frame)
        assert np.abs(picture.pixels - expected).max() <= 0.5 + 1e-6
        assert f"frame {frame + 1} of 3" in picture.conversions


def test_a_frame_without_its_own_group_has_the_shared_one() -> None:
    own = [{"FrameVOILUTSequence": [{"WindowCenter": 9, "WindowWidth": 90}]}, {}]
    attributes = {"SharedFunctionalGroupsSequence": [groups(4)], "PerFrameFunctionalGroupsSequence": own}
    data = written(np.stack([RAMP, RAMP]), attributes)
    assert [decode_dicom(data, "a", frame=frame).window for frame in (0, 1)] == ["9/90", "2000/1000"]
    assert decode_dicom(data, "a", frame=1).spacing_mm == (4, 8)


@pytest.mark.parametrize(
    ("attributes", "spacing", "aspect"),
    [
        ({"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [9, 9]}, (0.2, 0.1), 2.0),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (0.1, 0.2), 0.5),
        ({"NominalScannedPixelSpacing": [0.3, 0.3]}, (0.3, 0.3), 1.0),
        ({"PixelAspectRatio": ["2", "1"]}, (), 2.0),
        ({}, (), 1.0),
    ],
)
def test_pixels_that_are_not_square(attributes: Attributes, spacing: tuple[float, ...], aspect: float) -> None:
    picture = shown(RAMP, attributes)
    assert (picture.spacing_mm, picture.pixel_aspect) == (spacing, aspect)
    assert ("spacing measured at the detector" in picture.conversions) == (list(attributes) == ["ImagerPixelSpacing"])


@pytest.mark.parametrize("spacing", [[0, 1], [-1, 1], [1, 100], [1]])
def test_a_spacing_that_cannot_be_is_refused(spacing: list[float]) -> None:
    assert refusal(RAMP, {"PixelSpacing": spacing}).reason == Reason.HEADER_INVALID


@pytest.mark.parametrize(
    ("attributes", "side"),
    [
        ({"ImageLaterality": "L"}, "left"),
        ({"ImageLaterality": "R", "Laterality": "L"}, "right"),
        ({"Laterality": "L"}, "left"),
        ({"ImageLaterality": "U"}, ""),
        ({"ImageLaterality": "B", "Laterality": "L"}, ""),
        ({"SharedFunctionalGroupsSequence": [{"FrameAnatomySequence": [{"FrameLaterality": "R"}]}]}, "right"),
        ({}, ""),
    ],
)
def test_the_images_own_side_comes_first(attributes: Attributes, side: str) -> None:
    assert shown(RAMP, attributes).laterality == side


@pytest.mark.parametrize(("value", "findings"), [("YES", ("burned_in_annotation",)), ("NO", ()), (None, ())])
def test_burned_in_annotation_is_a_finding(value: str | None, findings: tuple[str, ...]) -> None:
    assert shown(RAMP, {"BurnedInAnnotation": value}).findings == findings


@pytest.mark.parametrize("value", ["FOR PROCESSING", "FOR PRESENTATION", None])
def test_values_of_a_detector_are_a_finding(value: str | None) -> None:
    """Raw values look like a film and are none: a reader of rows can tell them."""
    found = shown(RAMP, {"PresentationIntentType": value, "BurnedInAnnotation": "YES"}).findings
    assert found == ("burned_in_annotation", "for_processing")[: 2 if value == "FOR PROCESSING" else 1]


def test_colour_stays_as_it_is_and_has_no_window() -> None:
    colour = np.random.default_rng(1).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    attributes = {"WindowCenter": 3, "WindowWidth": 4}
    picture = shown(colour, attributes, photometric="RGB")
    assert np.array_equal(picture.pixels, colour)
    assert (picture.window, picture.conversions) == ("", ())
    with pytest.raises(RecordError):
        decode_dicom(written(colour, photometric="RGB"), "a", display="lung")


def test_numbers_beyond_all_measure_are_refused() -> None:
    for attributes in ({"RescaleSlope": "1e300", "RescaleIntercept": 0}, {"WindowCenter": 0, "WindowWidth": "1e-300"}):
        assert refusal(RAMP, attributes).reason == Reason.HEADER_INVALID
