"""Native pixels in every arrangement, masks, budgets, and what does not add up."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qoq_data.clinical.synthetic_dicom import Attributes, write_dicom
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom import DicomFrame, decode_dicom_mask, read_dicom_frame
from qoq_data.formats.dicom_file import BIG_ENDIAN, EXPLICIT, IMPLICIT
from qoq_data.formats.dicom_values import word_values

RNG = np.random.default_rng(11)
GREY = RNG.integers(0, 4096, (6, 7)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)


def written(pixels: np.ndarray = GREY, attributes: Attributes | None = None, **options: Any) -> bytes:
    return write_dicom(pixels, study="s", series="e", instance="i", attributes=attributes or {}, **options)


def read(pixels: np.ndarray = GREY, attributes: Attributes | None = None, frame: int = 0, **options: Any) -> DicomFrame:
    return read_dicom_frame(written(pixels, attributes, **options), "a.dcm", frame=frame)


def values(frame: DicomFrame) -> np.ndarray:
    return word_values(frame.words, frame.layout)


def reason(data: bytes, **options: Any) -> Reason:
    with pytest.raises(RecordError) as caught:
        read_dicom_frame(data, "a.dcm", **options)
    assert caught.value.path == "a.dcm"
    return caught.value.reason


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_words_of_each_size_sign_and_order(syntax: str, dtype: str) -> None:
    bounds = np.iinfo(dtype)
    pixels = RNG.integers(bounds.min, bounds.max, (3, 5, 7), dtype=dtype, endpoint=True)
    for frame in range(3):
        assert np.array_equal(values(read(pixels, frame=frame, transfer_syntax=syntax)), pixels[frame])


def test_bytes_in_words_of_a_big_endian_file_are_turned() -> None:
    pixels = RNG.integers(0, 256, (3, 3, 5)).astype(np.uint8)
    data = written(pixels, transfer_syntax=BIG_ENDIAN)
    stored = pixels.tobytes() + b"\0"
    turned = np.frombuffer(stored, "<u2").astype(">u2").tobytes()
    data = data.replace(b"OB\0\0" + struct.pack(">I", 46) + stored, b"OW\0\0" + struct.pack(">I", 46) + turned)
    for frame in range(3):
        assert np.array_equal(read_dicom_frame(data, "a", frame=frame).words, pixels[frame])


def test_frames_of_single_bits_follow_each_other_within_a_byte() -> None:
    masks = RNG.random((5, 3, 7)) > 0.5
    for frame in range(5):
        assert np.array_equal(read(masks, frame=frame, kind="SEG").words, masks[frame])


def test_colour_by_pixel_and_by_plane() -> None:
    assert np.array_equal(read(COLOUR, photometric="RGB").words, COLOUR)
    planes = np.ascontiguousarray(np.moveaxis(COLOUR, 2, 0)).reshape(COLOUR.shape)
    assert np.array_equal(read(planes, {"PlanarConfiguration": 1}, photometric="RGB").words, COLOUR)


def test_colour_of_16_bits_is_scaled_by_the_bits_stored() -> None:
    deep = (COLOUR.astype(np.uint16) * 16).astype(np.uint16)
    frame = read(deep, photometric="RGB", bits_stored=12)
    assert np.abs(frame.words - deep * (255 / 4095)).max() <= 0.5
    assert frame.notes == ("12-bit colour to 8 bits: value x 255 / 4095",)


def test_brightness_and_colour_become_rgb_once() -> None:
    """C.7.6.3.1.2, within the rounding of eight bits."""
    y, cb, cr = (COLOUR[..., place].astype(float) for place in range(3))
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    rgb = np.stack([y + 1.402 * (cr - 128), green, y + 1.772 * (cb - 128)], 2)
    frame = read(COLOUR, photometric="YBR_FULL")
    assert np.abs(frame.words - np.clip(rgb, 0, 255)).max() <= 1
    assert frame.notes == ("YBR to RGB",)


def test_shared_colour_is_spread_over_its_two_pixels() -> None:
    pairs = RNG.integers(0, 256, (4, 3, 4)).astype(np.uint8)  # Y1 Y2 Cb Cr
    full = np.stack([pairs[..., :2], np.repeat(pairs[..., 2:3], 2, 2), np.repeat(pairs[..., 3:], 2, 2)], 3)
    expected = np.asarray(Image.fromarray(full.reshape(4, 6, 3), "YCbCr").convert("RGB"))
    stored = {"Columns": 6, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    data = written(pairs.reshape(4, 12), {**stored, "PhotometricInterpretation": "YBR_FULL_422"})
    assert np.array_equal(read_dicom_frame(data, "a").words, expected)


@pytest.mark.parametrize("signed", [False, True])
def test_a_palette_and_its_ends(signed: bool) -> None:
    first = -2 if signed else 3
    pixels = np.arange(-4 if signed else 0, 8, dtype=np.int8 if signed else np.uint8).reshape(2, -1)
    table = RNG.integers(0, 65536, (3, 4)).astype("<u2")
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, entries in zip(("Red", "Green", "Blue"), table, strict=True):
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [4, first, 16]
        attributes[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    frame = read(pixels, attributes)
    expected = (table[:, np.clip(pixels.astype(int) - first, 0, 3)] >> 8).transpose(1, 2, 0)
    assert np.array_equal(frame.words, expected)


def test_a_palette_in_segments() -> None:
    """C.7.9.2: two entries as they are, a line of four to 600, and the first segment again."""
    segments = np.array([0, 2, 100, 200, 1, 4, 600, 2, 1, 0, 0], "<u2").tobytes()
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [8, 0, 16]
        attributes[f"Segmented{colour}PaletteColorLookupTableData"] = segments
    frame = read(np.arange(8, dtype=np.uint8).reshape(2, 4), attributes)
    assert frame.words[..., 0].ravel().tolist() == [v >> 8 for v in (100, 200, 300, 400, 500, 600, 100, 200)]
    for bad in ([1, 4, 600, 0], [2, 1, 0, 0], [0, 900, 1, 2], [0, 2, 1, 2], [7, 7, 7, 7]):
        words = np.array(bad, "<u2").tobytes()
        broken = {**attributes, "SegmentedRedPaletteColorLookupTableData": words}
        assert reason(written(np.zeros((2, 2), np.uint8), broken)) == Reason.HEADER_INVALID


def test_bytes_after_the_last_frame_are_left_and_said() -> None:
    data = written(np.stack([GREY, GREY + 1]), {"NumberOfFrames": None})
    frame = read_dicom_frame(data, "a")
    assert np.array_equal(frame.words, GREY)
    assert frame.notes == (f"{GREY.nbytes} bytes after the last frame left out",)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"Rows": 60}, Reason.HEADER_MISMATCH),
        ({"NumberOfFrames": 2}, Reason.HEADER_MISMATCH),
        ({"Rows": 0}, Reason.HEADER_INVALID),
        ({"Rows": None}, Reason.HEADER_INVALID),
        ({"NumberOfFrames": -1}, Reason.HEADER_INVALID),
        ({"SamplesPerPixel": 4}, Reason.HEADER_INVALID),
        ({"SamplesPerPixel": 3}, Reason.HEADER_MISMATCH),
        ({"PhotometricInterpretation": "RGB"}, Reason.HEADER_MISMATCH),
        ({"PhotometricInterpretation": None}, Reason.HEADER_INVALID),
        ({"BitsAllocated": 12}, Reason.FORMAT_UNSUPPORTED),
        ({"BitsStored": 17}, Reason.HEADER_INVALID),
        ({"BitsStored": 0}, Reason.HEADER_INVALID),
        ({"HighBit": 3}, Reason.HEADER_INVALID),
        ({"PixelRepresentation": 2}, Reason.HEADER_INVALID),
        ({"Rows": 65535, "Columns": 65535}, Reason.OVER_BUDGET),
        ({"NumberOfFrames": 2_000_000_000}, Reason.OVER_BUDGET),
    ],
)
def test_headers_that_do_not_fit_are_refused(attributes: Attributes, expected: Reason) -> None:
    assert reason(written(GREY, attributes)) == expected


def test_a_frame_that_is_not_there() -> None:
    assert reason(written(), frame=1) == Reason.HEADER_MISMATCH


def test_the_budget_is_the_callers() -> None:
    assert reason(written(), max_pixels=41) == Reason.OVER_BUDGET
    assert read_dicom_frame(written(), "a", max_pixels=42).words.shape == (6, 7)


def test_pixels_in_floating_point_and_no_pixels() -> None:
    data = written()
    floating = data.replace(b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x08\0OF")
    assert reason(floating) == Reason.FORMAT_UNSUPPORTED
    assert reason(data[: data.index(b"\xe0\x7f\x10\0OW")]) == Reason.FILE_TRUNCATED


def test_unknown_colour_is_refused() -> None:
    assert reason(written(COLOUR, photometric="HSV")) == Reason.FORMAT_UNSUPPORTED


@pytest.mark.parametrize("set_value", [1, 255])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_masks_of_two_values(set_value: int, photometric: str) -> None:
    mask = RNG.random((9, 8)) > 0.6
    stored = mask if photometric == "MONOCHROME2" else ~mask
    data = written((stored * set_value).astype(np.uint8), photometric=photometric)
    assert np.array_equal(decode_dicom_mask(data, "a"), mask)


def test_masks_of_one_bit_of_32_bits_and_without_a_voxel() -> None:
    mask = RNG.random((2, 9, 8)) > 0.6
    assert np.array_equal(decode_dicom_mask(written(mask, kind="SEG"), "a", frame=1), mask[1])
    assert np.array_equal(decode_dicom_mask(written((mask[0] * 70_000).astype(np.uint32)), "a"), mask[0])
    assert not decode_dicom_mask(written(np.zeros((4, 4), np.uint16)), "a").any()


@pytest.mark.parametrize(
    "pixels", [np.array([[0, 1, 2]], np.uint8), np.array([[3, 4]], np.uint8), COLOUR], ids=["three", "no 0", "colour"]
)
def test_what_is_no_mask_is_refused(pixels: np.ndarray) -> None:
    data = written(pixels, photometric="RGB" if pixels.ndim == 3 else "")
    with pytest.raises(RecordError) as caught:
        decode_dicom_mask(data, "a")
    assert caught.value.reason == Reason.FORMAT_UNSUPPORTED
