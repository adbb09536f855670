"""Damaged DICOM files: a picture or a typed error, never anything else, whatever is turned, cut, put in or claimed."""

from __future__ import annotations

import random
import struct
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest

from qoq_data.clinical.dicom_picture import decode_dicom
from qoq_data.clinical.synthetic_dicom import Attributes, view_attributes, write_dicom
from qoq_data.errors import RecordError
from qoq_data.formats.dicom import decode_dicom_mask
from qoq_data.formats.dicom_file import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, read_dicom_file
from qoq_data.formats.dicom_segments import picture_place, read_segmentation
from qoq_data.formats.image import DecodedImage
from tests.formats.dicom_corpus import installed_files

MAX_PIXELS = 1 << 20  # a damaged claim may stay within the budget: keep what is then allocated small
PIXELS = (np.add.outer(np.arange(20), np.arange(24)) * 90).astype(np.int16)

LUT: Attributes = {"LUTDescriptor": [64, -5, 12], "LUTData": np.arange(64, dtype="<u2").tobytes()}
GROUP: Attributes = {
    "PixelValueTransformationSequence": [{"RescaleSlope": 2, "RescaleIntercept": 1, "RescaleType": "HU"}],
    "FrameVOILUTSequence": [{"WindowCenter": 900, "WindowWidth": 1000}],
    "PixelMeasuresSequence": [{"PixelSpacing": [1, 2]}],
}
WINDOW: Attributes = {
    "RescaleSlope": 1.5, "RescaleIntercept": -3, "WindowCenter": [1, 2], "WindowWidth": [3, 4], "PixelSpacing": [1, 2],
    "PixelPaddingValue": -5, "PixelPaddingRangeLimit": 5, "ImageLaterality": "L", "BurnedInAnnotation": "NO",
    **view_attributes("CC"),
}  # fmt: skip
TABLES: Attributes = {"ModalityLUTSequence": [{**LUT, "ModalityLUTType": "HU"}], "VOILUTSequence": [LUT]}
GROUPS: Attributes = {"SharedFunctionalGroupsSequence": [GROUP], "PerFrameFunctionalGroupsSequence": [GROUP, {}]}
PALETTE: Attributes = {
    "PhotometricInterpretation": "PALETTE COLOR",
    **{f"{colour}PaletteColorLookupTableDescriptor": [16, 0, 16] for colour in ("Red", "Green", "Blue")},
    **{
        f"Segmented{colour}PaletteColorLookupTableData": np.array([0, 2, 1, 2, 1, 14, 60000], "<u2").tobytes()
        for colour in ("Red", "Green", "Blue")
    },
}
NATIVE: dict[str, tuple[str, np.ndarray, Attributes]] = {
    "window": (EXPLICIT, PIXELS, WINDOW),
    "implicit": (IMPLICIT, PIXELS, WINDOW),
    "big endian": (BIG_ENDIAN, PIXELS, WINDOW),
    "deflated": (DEFLATED, PIXELS, TABLES),
    "tables": (IMPLICIT, PIXELS, TABLES),
    "groups": (EXPLICIT, np.stack([PIXELS, PIXELS]), GROUPS),
    "palette": (EXPLICIT, PIXELS.astype(np.uint8), PALETTE),
    "bits": (EXPLICIT, PIXELS > 1000, {}),
    "words of 32": (EXPLICIT, PIXELS.astype(np.uint32), {}),
}
COMPRESSED = {
    "jpeg": "SC_rgb_jpeg_dcmtk.dcm",
    "jpeg 12 bits": "JPGExtended.dcm",
    "jpeg lossless": "JPEG-LL.dcm",
    "jpeg ls": "MR_small_jpeg_ls_lossless.dcm",
    "jpeg 2000": "MR_small_jp2klossless.dcm",
    "rle": "MR_small_RLE.dcm",
    "frames": "emri_small_RLE.dcm",
}
REAL = ("CT_small.dcm", "MR_small_expb.dcm", "image_dfl.dcm", "liver_1frame.dcm", "no_meta_group_length.dcm")
TELLING = (
    b"\xff\xff\xff\xff", b"\xff\xff\xff\xfe", b"\0\0\0\0", b"\xfe\xff\0\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0",
    b"SQ\0\0\xff\xff\xff\xff", b"UN\0\0\xff\xff\xff\xff", b"\xe0\x7f\x10\0", b"\x28\0\x10\0", b"\xff\xd8", b"\xff\xd9",
    b"\xff\x4f\xff\x51", b"\xff\x7f", b"\x01", b"\x80", b"9999", b"-1", b"1e400", b"nan", b"\\", b"MONOCHROME1 ",
)  # fmt: skip


def damaged(data: bytes, draw: random.Random, header: int) -> bytes:
    """One to four edits, two of three in the first ``header`` bytes, where the claims stand."""
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(header if draw.random() < 0.67 else len(data))
        new = draw.choice(TELLING) if draw.random() < 0.5 else draw.randbytes(draw.randint(1, 4))
        kind = draw.choice(["replace", "replace", "flip", "insert", "delete", "cut", "length"])
        if kind == "replace":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "flip":
            data = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + len(new) :]
        elif kind == "length":
            data = data[:at] + struct.pack("<I", draw.getrandbits(draw.choice([8, 16, 31, 32]))) + data[at + 4 :]
        elif draw.random() < 0.3:
            data = data[:at]
        data = data or b"\0"
        header = min(header, len(data))
    return data


def outcome(data: bytes, display: str = "") -> str:
    try:
        picture = decode_dicom(data, "a.dcm", display=display, max_pixels=MAX_PIXELS)
    except RecordError as error:
        assert error.path in ("a.dcm", "")
        return str(error.reason)
    assert isinstance(picture, DecodedImage)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape[:2] == picture.full_size[::-1]
    return "read"


@cache
def native(name: str) -> bytes:
    syntax, pixels, attributes = NATIVE[name]
    return write_dicom(
        pixels, study="s", series="e", instance="i", kind="CT", attributes=attributes, transfer_syntax=syntax
    )


@cache
def installed(name: str) -> bytes:
    return next(path for path in installed_files() if path.name == name).read_bytes()


@pytest.mark.parametrize("name", list(NATIVE))
def test_undamaged_files_are_read(name: str) -> None:
    assert outcome(native(name)) == "read"


@pytest.mark.parametrize("name", list(NATIVE))
def test_damaged_native_files(name: str) -> None:
    draw = random.Random(f"native {name}")
    data = native(name)
    header = len(data) - (0 if name == "deflated" else PIXELS.nbytes // 8)
    found = Counter(outcome(damaged(data, draw, header), draw.choice(["", "lung"])) for _ in range(200))
    assert len(found) >= 3
    assert found["read"] < 200


@pytest.mark.parametrize("name", REAL)
def test_damaged_real_files(name: str) -> None:
    draw = random.Random(f"real {name}")
    data = installed(name)
    found = Counter(outcome(damaged(data, draw, min(len(data), 8192))) for _ in range(200))
    assert found["read"] < 200


@pytest.mark.parametrize("name", list(COMPRESSED))
def test_damaged_compressed_files(name: str) -> None:
    draw = random.Random(f"compressed {name}")
    data = installed(COMPRESSED[name])
    assert outcome(data) == "read"
    found = Counter(outcome(damaged(data, draw, len(data))) for _ in range(40))
    assert len(found) >= 2


def test_damaged_masks() -> None:
    draw = random.Random("masks")
    data = native("bits")
    for _ in range(200):
        try:
            mask: Any = decode_dicom_mask(damaged(data, draw, len(data)), "a", max_pixels=MAX_PIXELS)
        except RecordError:
            continue
        assert mask.dtype == np.bool_


def test_damaged_segmentations() -> None:
    draw = random.Random("segmentations")
    data = installed("liver_1frame.dcm")
    place = picture_place(read_dicom_file(data, "a").data_set)
    found = 0
    for _ in range(200):
        try:
            segmentation = read_segmentation(read_dicom_file(damaged(data, draw, 4096), "a"), MAX_PIXELS)
            found += segmentation.mask("Liver", place).dtype == np.bool_
        except RecordError:
            continue
    assert found < 200


def test_any_bytes_as_a_file() -> None:
    draw = random.Random("bytes")
    for _ in range(200):
        tail = draw.randbytes(draw.randrange(300))
        for head in (b"", bytes(128) + b"DICM", b"\x08\0\x08\0", b"\x02\0\x10\0UI"):
            assert outcome(head + tail) != "read"
