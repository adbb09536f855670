"""Pictures: what is read, what is refused, and what is said about it."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image import (
    DecodedImage,
    decode_image,
    decode_label_map,
    decode_mask,
    encode_image,
    fit_size,
    has_foreign_metadata,
    resize_image,
)

RANDOM = np.random.default_rng(7)
GREY = RANDOM.integers(0, 256, (20, 40), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (20, 40, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(data: bytes, **options: object) -> Reason:
    with pytest.raises(RecordError) as caught:
        decode_image(data, "a/b.png", **options)
    assert caught.value.path == "a/b.png"
    return caught.value.reason


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_right_check_sums(png: bytes) -> bytes:
    """The same blocks, as far as they can be followed, each with the check sum of its content."""
    position, parts = 8, [png[:8]]
    while position + 12 <= len(png):
        length = int.from_bytes(png[position : position + 4], "big")
        parts.append(chunk(png[position + 4 : position + 8], png[position + 8 : position + 8 + length]))
        position += 12 + length
    return b"".join(parts)


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    return png[:33] + chunk(kind, content) + png[33:]


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(COLOUR), "JPEG", exif=exif, quality=95)


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_png_passes_through_untouched(pixels: np.ndarray) -> None:
    decoded = decode_image(encode_image(pixels, "PNG"), "x.png")
    assert np.array_equal(decoded.pixels, pixels)
    assert decoded.untouched
    assert (decoded.orientation_applied, decoded.conversions, decoded.bit_depth) == (1, (), 8)
    assert decode_image(encode_image(pixels, "JPEG"), "x.jpg").untouched


def test_conversions_of_modes_are_right_and_said() -> None:
    one = Image.fromarray(GREY > 127)
    decoded = decode_image(saved(one), "x")
    assert np.array_equal(decoded.pixels, np.where(GREY > 127, 255, 0))
    assert decoded.conversions
    assert decoded.bit_depth == 1

    palette = Image.fromarray(GREY // 64, "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    decoded = decode_image(saved(palette), "x")
    table = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]])
    assert np.array_equal(decoded.pixels, table[GREY // 64])
    assert decoded.conversions == ("palette to RGB",)
    assert not decoded.untouched

    cmyk = Image.fromarray(COLOUR).convert("CMYK")
    decoded = decode_image(saved(cmyk, "JPEG"), "x")
    assert decoded.pixels.shape == (20, 40, 3)
    assert decoded.conversions == ("CMYK to RGB",)


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["LA", "RGBA"])
def test_alpha_is_dropped_only_where_opaque(pixels: np.ndarray) -> None:
    stacked = pixels[..., None] if pixels.ndim == 2 else pixels
    opaque = np.concatenate([stacked, np.full((20, 40, 1), 255, np.uint8)], axis=2)
    decoded = decode_image(saved(Image.fromarray(opaque)), "x")
    assert np.array_equal(decoded.pixels, pixels)
    assert decoded.conversions == ("opaque alpha dropped",)
    clear = opaque.copy()
    clear[:, :20, -1] = 0
    decoded = decode_image(saved(Image.fromarray(clear)), "x")
    assert decoded.conversions == ("alpha composited on black",)
    assert decoded.pixels[:, :20].max() == 0
    assert np.array_equal(decoded.pixels[:, 20:], pixels[:, 20:])


def test_transparent_colour_key_is_composited() -> None:
    pixels = np.full((4, 4, 3), 200, np.uint8)
    pixels[0] = 90
    decoded = decode_image(saved(Image.fromarray(pixels), transparency=(200, 200, 200)), "x")
    assert decoded.conversions == ("alpha composited on black",)
    assert decoded.pixels[0].min() == 90
    assert decoded.pixels[1:].max() == 0


@pytest.mark.parametrize(
    ("bits", "kind", "order"), [(16, "PNG", "<"), (12, "PNG", "<"), (16, "TIFF", ">"), (12, "TIFF", ">")]
)
def test_i01_deep_grey_keeps_256_levels(bits: int, kind: str, order: str) -> None:
    ramp = np.linspace(0, 2**bits - 1, 4096).astype(np.uint16).reshape(16, 256)
    data = saved(Image.fromarray(ramp.astype(f"{order}u2")), kind)
    decoded = decode_image(data, "x", allowed=("PNG", "TIFF"))
    assert np.unique(decoded.pixels).size == 256
    assert np.all(np.diff(decoded.pixels.ravel().astype(int)) >= 0)
    assert f"{bits}-bit grey" in decoded.conversions[0]
    assert decoded.bit_depth == 16


def test_i01_stated_depth_is_used_and_checked() -> None:
    data = saved(Image.fromarray(np.full((4, 4), 1000, np.uint16)))
    assert decode_image(data, "x", grey_bits=12).pixels[0, 0] == round(1000 * 255 / 4095)
    assert refused(data, grey_bits=9) is Reason.SAMPLES_OUT_OF_RANGE


def test_i01_deep_colour_keeps_its_high_byte() -> None:
    rows = b"".join(b"\0" + b"".join(struct.pack(">3H", x << 8, 65535, 0) for x in range(256)) for _ in range(2))
    header = struct.pack(">2I5B", 256, 2, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    decoded = decode_image(data, "x")
    assert np.array_equal(decoded.pixels[0, :, 0], np.arange(256))
    assert "high byte" in decoded.conversions[0]


def test_float_and_moving_pictures_are_refused() -> None:
    assert refused(saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), allowed=("TIFF",)) is (
        Reason.IMAGE_FORMAT_NOT_ALLOWED
    )
    frames = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1].copy())]
    moving = saved(frames[0], save_all=True, append_images=frames[1:])
    assert refused(moving) is Reason.IMAGE_FORMAT_NOT_ALLOWED


def test_format_is_judged_by_content() -> None:
    assert refused(saved(Image.fromarray(COLOUR), "GIF")) is Reason.IMAGE_FORMAT_NOT_ALLOWED
    assert refused(b"<!DOCTYPE html><html>sign in</html>") is Reason.IMAGE_FORMAT_NOT_ALLOWED
    assert refused(encode_image(COLOUR, "JPEG"), allowed=("PNG",)) is Reason.IMAGE_FORMAT_NOT_ALLOWED
    assert refused(b"") is Reason.IMAGE_UNDECODABLE


def test_budget_is_checked_before_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    header = struct.pack(">2I5B", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("pixels were allocated"))
    assert refused(bomb) is Reason.OVER_BUDGET
    assert refused(bomb, max_pixels=1 << 40) is Reason.OVER_BUDGET  # Pillow's own limit stays on
    assert refused(encode_image(COLOUR, "PNG"), max_pixels=799) is Reason.OVER_BUDGET
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert refused(encode_image(COLOUR, "PNG")) is Reason.OVER_BUDGET  # a warning in Pillow
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert refused(bomb) is Reason.OVER_BUDGET  # ours does not rest on Pillow's


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_is_refused_whatever_another_library_set(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode_image(COLOUR, kind)
    for kept in (len(data) // 3, len(data) // 2, len(data) - 40):
        assert refused(data[:kept]) is Reason.IMAGE_UNDECODABLE
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_png_with_one_changed_bit_is_refused() -> None:
    raw = bytearray(saved(Image.fromarray(COLOUR), compress_level=0))
    raw[raw.index(b"IDAT") + 200] ^= 1
    assert refused(bytes(raw)) is Reason.IMAGE_UNDECODABLE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_b04_upright_as_pillow_makes_it_and_no_tag_left(orientation: int) -> None:
    data = oriented(orientation)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    decoded = decode_image(data, "x.jpg")
    assert np.array_equal(decoded.pixels, expected)
    assert decoded.orientation_applied == orientation
    assert not decoded.untouched  # the tag itself
    stored = Image.open(io.BytesIO(encode_image(decoded.pixels, "JPEG")))
    assert stored.size == (expected.shape[1], expected.shape[0])
    assert not stored.getexif()
    assert not stored.info.get("exif")


def test_png_faults_behind_its_pixels_are_typed() -> None:
    png = encode_image(COLOUR, "PNG")
    assert refused(png[:-12]) is Reason.IMAGE_UNDECODABLE  # no end
    assert refused(png[:-12] + chunk(b"iCCP", b"a\0\5bb") + png[-12:]) is Reason.IMAGE_UNDECODABLE
    assert refused(png[:8] + chunk(b"tEXt", b"a\0b") + png[8:]) is Reason.IMAGE_UNDECODABLE  # header not first


def test_b04_tiff_is_turned_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(COLOUR), "TIFF", exif=exif)
    decoded = decode_image(data, "x.tif", allowed=("TIFF",))
    assert np.array_equal(decoded.pixels, np.rot90(COLOUR, -1))
    assert decoded.orientation_applied == 6


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage!", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f"]
)
def test_b04_broken_exif_does_not_crash(exif: bytes) -> None:
    data = saved(Image.fromarray(COLOUR), "JPEG", exif=exif)
    decoded = decode_image(data, "x.jpg")
    assert decoded.pixels.shape == (20, 40, 3)
    assert decoded.orientation_applied == 1
    assert not decoded.untouched


def test_b04_broken_behind_the_orientation() -> None:
    data = bytearray(oriented(6))
    entry = data.index(b"\x01\x12\x00\x03")
    data[entry + 12 : entry + 16] = b"\xff\xff\xff\xff"  # offset of a next directory far behind the end
    decoded = decode_image(bytes(data), "x.jpg")
    assert decoded.pixels.shape == (40, 20, 3)
    stored = Image.open(io.BytesIO(encode_image(decoded.pixels, "PNG")))
    assert ImageOps.exif_transpose(stored).size == stored.size == (20, 40)


def test_foreign_metadata_is_seen() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "Jane Doe")
    image = Image.fromarray(COLOUR)
    png, jpeg = encode_image(COLOUR, "PNG"), encode_image(COLOUR, "JPEG")
    assert not has_foreign_metadata(png, "PNG")
    assert not has_foreign_metadata(jpeg, "JPEG")
    assert not has_foreign_metadata(saved(image, "JPEG", progressive=True, dpi=(300, 300)), "JPEG")
    assert not has_foreign_metadata(saved(image.convert("CMYK"), "JPEG"), "JPEG")
    assert not has_foreign_metadata(saved(image, "JPEG", restart_marker_rows=1), "JPEG")
    foreign = {
        "text": (saved(image, pnginfo=text), "PNG"),
        "exif": (with_chunk(png, b"eXIf", b"MM\0*\0\0\0\x08\0\0"), "PNG"),
        "time": (with_chunk(png, b"tIME", b"\x07\xe8\1\1\1\1\1"), "PNG"),
        "profile": (saved(image, icc_profile=b"x" * 200), "PNG"),
        "behind": (png + b"Jane", "PNG"),
        "cut": (png[:-5], "PNG"),
        "comment": (saved(image, "JPEG", comment=b"Jane Doe"), "JPEG"),
        "jpeg profile": (saved(image, "JPEG", icc_profile=b"x" * 200), "JPEG"),
        "jpeg exif": (oriented(1), "JPEG"),
        "thumbnail": (jpeg[:4] + b"\0\x13" + jpeg[6:18] + b"\1\1" + b"abc" + jpeg[20:], "JPEG"),
        "xmp": (saved(image, "JPEG", xmp=b"<x/>"), "JPEG"),
        "jpeg behind": (jpeg + b"Jane", "JPEG"),
        "jpeg cut": (jpeg[:-2], "JPEG"),
        "other": (saved(image, "BMP"), "BMP"),
    }
    assert [name for name, (data, kind) in foreign.items() if not has_foreign_metadata(data, kind)] == []
    assert not decode_image(foreign["comment"][0], "x").untouched


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "JPEG"])
def test_masks_of_any_channels_are_reduced(mode: str) -> None:
    truth = np.zeros((16, 24), bool)
    truth[3:9, 8:16] = True
    if mode == "JPEG":
        data = saved(Image.fromarray(np.where(truth, 255, 0).astype(np.uint8)), "JPEG", quality=75)
    elif mode in ("RGB", "RGBA"):
        pixels = np.zeros((16, 24, len(mode)), np.uint8)
        pixels[truth, 1] = 255  # one colour channel only, and alpha everywhere clear
        data = saved(Image.fromarray(pixels))
    else:
        data = saved(Image.fromarray(truth).convert(mode))
    assert np.array_equal(decode_mask(data, "m.png"), truth)


def test_mask_under_a_transparent_colour_stays() -> None:
    truth = np.zeros((6, 8), np.uint8)
    truth[2:4, 3:5] = 255
    assert decode_mask(saved(Image.fromarray(truth), transparency=255), "m.png").sum() == 4


def test_mask_of_small_values_is_no_empty_mask() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[2:4] = 1
    data = saved(Image.fromarray(labels))
    with pytest.raises(RecordError) as caught:
        decode_mask(data, "m.png")
    assert caught.value.reason is Reason.FORMAT_UNSUPPORTED
    assert decode_mask(data, "m.png", threshold=0).sum() == 16
    assert not decode_mask(saved(Image.new("RGBA", (9, 7), (0, 0, 0, 255))), "m.png").any()


def test_label_maps_keep_their_values() -> None:
    for values in (
        np.arange(200, dtype=np.uint8).reshape(10, 20),
        (np.arange(200) * 300).astype(np.uint16).reshape(10, 20),
    ):
        assert np.array_equal(decode_label_map(saved(Image.fromarray(values)), "l.png"), values)
    palette = Image.fromarray(np.eye(4, dtype=np.uint8) * 3, "P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert np.array_equal(decode_label_map(saved(palette), "l.png"), np.eye(4) * 3)
    with pytest.raises(RecordError):
        decode_label_map(encode_image(COLOUR, "PNG"), "l.png")


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 10**6), st.integers(1, 4000))
@example(1, 2, 1, 4000)
@example(1, 4, 1, 4000)
@example(2, 1, 1, 4000)
def test_fit_size(width: int, height: int, max_pixels: int, longest: int) -> None:
    w, h = fit_size(width, height, max_pixels, longest)
    assert 1 <= w <= width
    assert 1 <= h <= height
    assert max(w, h) <= longest
    assert w * h <= max_pixels
    if min(w, h) > 1:
        scale = min(1, longest / max(width, height), (max_pixels / (width * height)) ** 0.5)
        assert abs(w - width * scale) <= 1 + 1e-6
        assert abs(h - height * scale) <= 1 + 1e-6


def test_fit_size_of_the_default_budget() -> None:
    assert fit_size(640, 480) == (640, 480)
    assert fit_size(1024, 512) == (1024, 512)
    assert fit_size(4288, 2848) == (888, 590)
    assert fit_size(1, 5000) == (1, 1024)


SMOOTH = np.asarray(Image.fromarray(RANDOM.integers(0, 256, (24, 40, 3), dtype=np.uint8)).resize((600, 360)))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("wanted", [(300, 180), (299, 179), (180, 300), (151, 90), (150, 90), (601, 361), (3, 2)])
def test_a_picture_asked_for_smaller_is_never_too_small_and_looks_the_same(
    orientation: int, wanted: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(SMOOTH), "JPEG", exif=exif, quality=95)
    whole = decode_image(data, "x.jpg")
    asked: list[tuple[int, int]] = []

    def fit(width: int, height: int) -> tuple[int, int]:
        asked.append((width, height))
        return wanted

    small = decode_image(data, "x.jpg", fit=fit)
    assert asked == [whole.image.size] == [small.full_size]
    assert small.orientation_applied == orientation
    scale = min(whole.image.width // wanted[0], whole.image.height // wanted[1])
    expected = next((step for step in (8, 4, 2) if scale >= step), 1)
    assert small.image.size == tuple(-(-side // expected) for side in whole.image.size)
    reference = np.asarray(resize_image(whole.image, small.image.size)).astype(int)
    assert np.abs(small.pixels - reference).mean() < 2


def test_a_picture_asked_for_smaller_is_read_to_its_end() -> None:
    data = saved(Image.fromarray(SMOOTH), "JPEG", quality=95)
    for kept in (len(data) // 2, len(data) - 40):
        assert refused(data[:kept], fit=lambda width, height: (width // 4, height // 4)) is Reason.IMAGE_UNDECODABLE
    png = encode_image(COLOUR, "PNG")
    assert decode_image(png, "x.png", fit=lambda width, height: (5, 2)).image.size == (40, 20)


def test_resize_averages_areas_without_halos() -> None:
    step = np.zeros((64, 64), np.uint8)
    step[:, 32:] = 200
    small = np.asarray(resize_image(step, (16, 16)))
    assert small.shape == (16, 16)
    assert (small.min(), small.max()) == (0, 200)
    assert np.all(np.diff(small.astype(int), axis=1) >= 0)
    assert abs(float(np.asarray(resize_image(COLOUR, (20, 10))).mean()) - float(COLOUR.mean())) < 2
    assert np.array_equal(np.asarray(resize_image(COLOUR, (40, 20))), COLOUR)


def test_encoding_is_repeatable_and_bounded() -> None:
    assert encode_image(COLOUR, "JPEG") == encode_image(COLOUR.copy(), "JPEG")
    assert encode_image(COLOUR, "PNG") == encode_image(np.asfortranarray(COLOUR), "PNG")
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    difference = decode_image(encode_image(smooth, "JPEG"), "x").pixels.astype(int) - smooth
    assert np.abs(difference).max() <= 4
    with pytest.raises(RecordError):
        encode_image(np.zeros((1, 70_000), np.uint8), "JPEG")


WHOLE = {"PNG": with_chunk(encode_image(COLOUR, "PNG"), b"eXIf", b"MM\0*\0\0\0\x08\0\0"), "JPEG": oriented(6)}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_mutated_bytes_give_a_picture_or_a_typed_reason(kind: str) -> None:
    whole = WHOLE[kind]
    outcomes = {"picture": 0, "refused": 0}
    places = st.one_of(st.integers(0, 120), st.integers(0, len(whole) - 1))  # headers as often as all the rest

    @settings(max_examples=200, derandomize=True, deadline=None, database=None)
    @given(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, len(whole)))
    def check(changes: list[tuple[int, int]], cut: int) -> None:
        data = bytearray(whole)
        for place, value in changes:
            data[place] = value
        with warnings.catch_warnings(record=True) as escaped:
            warnings.simplefilter("always")
            for content in (bytes(data), bytes(data[:cut]), with_right_check_sums(bytes(data))):
                try:
                    decoded = decode_image(content, "x", max_pixels=1 << 22)
                except RecordError:
                    outcomes["refused"] += 1
                    continue
                outcomes["picture"] += 1
                assert isinstance(decoded, DecodedImage)
                assert decoded.pixels.dtype == np.uint8
                assert decoded.pixels.ndim in (2, 3)
        assert not escaped

    check()
    assert min(outcomes.values()) > 5


def test_real_busi_files_decode_and_agree(realdata: Path) -> None:
    folder = realdata / "busi" / "Dataset_BUSI_with_GT"
    images = sorted(path for path in folder.rglob("*.png") if "_mask" not in path.name)
    assert len(images) == 8
    for path in images:
        decoded = decode_image(path.read_bytes(), path.name)
        assert np.array_equal(decoded.pixels, np.asarray(Image.open(path)))
        masks = sorted(path.parent.glob(f"{path.stem}_mask*.png"))
        assert len(masks) == (2 if path.stem == "benign (25)" else 1)
        for name in masks:
            mask = decode_mask(name.read_bytes(), name.name)
            assert mask.shape == decoded.pixels.shape[:2]
            assert mask.any() == (path.parent.name != "normal")
