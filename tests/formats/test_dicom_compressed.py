"""Compressed frames: each syntax against what was compressed, streams that headers disagree with, and fragments."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate_extended, generate_frames

from qoq_data.clinical.synthetic_dicom import Attributes, write_dicom
from qoq_data.errors import Reason, RecordError
from qoq_data.formats import dicom_compressed
from qoq_data.formats.dicom import DicomFrame, read_dicom_frame
from qoq_data.formats.dicom_codestreams import stream_header
from qoq_data.formats.dicom_compressed import stream_kinds
from qoq_data.formats.dicom_decoders import answer
from qoq_data.formats.dicom_values import word_values
from qoq_data.formats.isolated import ChildError, Isolated

JPEG, LOSSLESS, JPEG_LS, J2K, J2K_LOSSY, HTJ2K, RLE = (
    f"1.2.840.10008.1.2.{tail}" for tail in ("4.50", "4.70", "4.80", "4.90", "4.91", "4.201", "5")
)
RNG = np.random.default_rng(5)
SMOOTH = (np.add.outer(np.arange(48), np.arange(40)) * 50 + RNG.integers(0, 20, (48, 40))).astype(np.uint16)
COLOUR = np.stack([SMOOTH >> 4, 200 - (SMOOTH >> 5), SMOOTH >> 6], 2).astype(np.uint8)


def jpeg_2000(pixels: np.ndarray, bits: int = 16, *, colour: str = "") -> bytes:
    from openjpeg.utils import encode_array

    options = {"bits_stored": bits, "photometric_interpretation": 1 if colour else 2, "use_mct": bool(colour)}
    return bytes(encode_array(pixels, **options))


def jpeg_ls(pixels: np.ndarray, bits: int = 16) -> bytes:
    from jpeg_ls import encode_pixel_data

    samples = pixels[0, 0].size
    options = {"rows": pixels.shape[0], "columns": pixels.shape[1], "samples_per_pixel": samples}
    interpretation = "RGB" if samples == 3 else "MONOCHROME2"
    options |= {"bits_allocated": 8 * pixels.itemsize, "bits_stored": bits, "pixel_representation": 0}
    options |= {"photometric_interpretation": interpretation, "planar_configuration": 0}
    return bytes(encode_pixel_data(pixels.tobytes(), **options))


def rle(pixels: np.ndarray, bits: int = 16) -> bytes:
    from rle.utils import encode_pixel_data

    rows, columns = pixels.shape[:2]
    options = {"rows": rows, "columns": columns, "samples_per_pixel": pixels[0, 0].size}
    size = pixels.dtype.itemsize * 8
    return bytes(encode_pixel_data(pixels.tobytes(), **options, bits_allocated=size, byteorder="<"))


def jpeg_lossless(pixels: np.ndarray, bits: int = 16) -> bytes:
    """By gdcm, which is also the one decoder: a loss would show against the pixels themselves."""
    import gdcm

    with tempfile.TemporaryDirectory() as name:
        plain, changed = str(Path(name) / "plain.dcm"), str(Path(name) / "changed.dcm")
        Path(plain).write_bytes(write_dicom(pixels, study="s", series="e", instance="i", bits_stored=bits))
        reader = gdcm.ImageReader()
        reader.SetFileName(plain)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(changed)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return next(generate_frames(pydicom.dcmread(changed).PixelData, number_of_frames=1))


def jpeg(pixels: np.ndarray, bits: int = 8, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def written(
    syntax: str, frames: list[bytes], pixels: np.ndarray = SMOOTH, attributes: Attributes | None = None, **options: Any
) -> bytes:
    even = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    names = {"study": "s", "series": "e", "instance": "i"}
    return write_dicom(pixels, **names, attributes=attributes or {}, transfer_syntax=syntax, frames=even, **options)


def renamed(stream: bytes, syntax: str) -> bytes:
    """A compressed file that claims a syntax in which nothing is compressed."""
    return written(J2K, [stream]).replace(J2K.encode(), syntax.encode().ljust(len(J2K), b"\0"))


def values(frame: DicomFrame) -> np.ndarray:
    return word_values(frame.words, frame.layout)


def refusal(data: bytes) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read_dicom_frame(data, "a.dcm")
    assert caught.value.path == "a.dcm"
    return caught.value


Encoder = Callable[[np.ndarray, int], bytes]


@pytest.mark.parametrize(
    ("syntax", "encode", "decoder"),
    [
        (LOSSLESS, jpeg_lossless, "gdcm"),
        (JPEG_LS, jpeg_ls, "pyjpegls"),
        (J2K, jpeg_2000, "gdcm"),
        (RLE, rle, "pylibjpeg"),
    ],
)
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_reversible_syntaxes_give_back_what_was_compressed(
    syntax: str, encode: Encoder, decoder: str, dtype: str
) -> None:
    pixels = (SMOOTH >> (8 if dtype == "u1" else 0)).astype(dtype)
    frame = read_dicom_frame(written(syntax, [encode(pixels, 8 * pixels.itemsize)], pixels), "a")
    assert np.array_equal(frame.words, pixels)
    assert frame.notes == (f"decoded by {decoder}",)


@pytest.mark.parametrize(("syntax", "encode"), [(JPEG_LS, jpeg_ls), (J2K, jpeg_2000), (RLE, rle)])
def test_colour_comes_by_pixel(syntax: str, encode: Encoder) -> None:
    stream = jpeg_2000(COLOUR, 8, colour="RGB") if encode is jpeg_2000 else encode(COLOUR, 8)
    photometric = "YBR_RCT" if encode is jpeg_2000 else "RGB"
    frame = read_dicom_frame(written(syntax, [stream], COLOUR, photometric=photometric), "a")
    assert np.array_equal(frame.words, COLOUR)


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_colour_is_made_rgb_once_whatever_the_header_calls_it(photometric: str, subsampling: int) -> None:
    """Pillow writes JFIF, in which colour is YBR."""
    frame = read_dicom_frame(
        written(JPEG, [jpeg(COLOUR, subsampling=subsampling)], COLOUR, photometric=photometric), "a"
    )
    assert np.abs(frame.words.astype(int) - COLOUR).mean() < 4
    assert frame.notes == ("decoded by pillow", "YBR to RGB")


def test_jpeg_with_adobes_marker_is_made_rgb_once() -> None:
    """Which Pillow does itself, though pydicom asks it for what is coded."""
    stream = jpeg(COLOUR)
    marker = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1"
    frame = read_dicom_frame(written(JPEG, [stream[:2] + marker + stream[2:]], COLOUR, photometric="YBR_FULL_422"), "a")
    assert np.abs(frame.words.astype(int) - COLOUR).mean() < 4
    assert frame.notes == ("decoded by pillow", "YBR to RGB")


def test_jpeg_of_which_the_stream_says_nothing_has_the_headers_colour() -> None:
    stream = jpeg(COLOUR, keep_rgb=True)  # components R, G, B
    frame = read_dicom_frame(written(JPEG, [stream], COLOUR, photometric="YBR_FULL"), "a")
    assert np.abs(frame.words.astype(int) - COLOUR).mean() < 4
    place = stream.index(b"\xff\xc0") + 10
    assert stream[place : place + 9 : 3] == b"RGB"
    anonymous = bytearray(stream)
    scan = stream.index(b"\xff\xda") + 5
    for number in range(3):  # components 1, 2, 3, and no marker
        anonymous[place + 3 * number] = anonymous[scan + 2 * number] = number + 1
    bare = bytes(anonymous).replace(anonymous[2:20], b"") if anonymous[2:4] == b"\xff\xe0" else bytes(anonymous)
    assert stream_header(bare, "a").colour == ""
    plain = read_dicom_frame(written(JPEG, [bare], COLOUR, photometric="RGB"), "a")
    assert np.array_equal(plain.words, frame.words)
    turned = read_dicom_frame(written(JPEG, [bare], COLOUR, photometric="YBR_FULL"), "a")
    expected = np.asarray(Image.fromarray(plain.words, "YCbCr").convert("RGB"))
    assert np.abs(turned.words.astype(int) - expected).max() <= 1


def test_signed_values_keep_their_sign() -> None:
    signed = (SMOOTH.astype(np.int32) - 1500).astype(np.int16)
    for syntax, encode in ((J2K, jpeg_2000), (RLE, rle)):
        frame = read_dicom_frame(written(syntax, [encode(signed, 16)], signed), "a")
        assert np.array_equal(values(frame), signed)


@pytest.mark.parametrize(
    ("syntax", "stream", "kind"),
    [
        (LOSSLESS, jpeg_2000(SMOOTH), "jpeg 2000"),
        (J2K, jpeg_ls(SMOOTH), "jpeg ls"),
        (HTJ2K[:-1] + "3", jpeg_2000(SMOOTH), "jpeg 2000"),
        ("1.2.840.10008.1.2.1", jpeg_ls(SMOOTH), "jpeg ls"),
    ],
    ids=["lossless", "j2k", "htj2k", "native"],
)
def test_a_stream_is_decoded_by_what_it_is(syntax: str, stream: bytes, kind: str) -> None:
    frame = read_dicom_frame(written(syntax, [stream]) if syntax in stream_kinds() else renamed(stream, syntax), "a")
    assert np.array_equal(frame.words, SMOOTH)
    assert f"compressed as {kind}, whatever the transfer syntax says" in frame.notes


def test_pixels_that_are_not_compressed_under_a_compressed_syntax() -> None:
    data = write_dicom(SMOOTH, study="s", series="e", instance="i")
    native = b"1.2.840.10008.1.2.1\0"
    lying = data.replace(native, b"1.2.840.10008.1.2.5\0")
    frame = read_dicom_frame(lying, "a")
    assert np.array_equal(frame.words, SMOOTH)
    assert frame.notes == ("not compressed, whatever the transfer syntax says",)


def test_frames_are_found_by_either_table_by_number_and_by_their_beginnings() -> None:
    stack = np.stack([SMOOTH, SMOOTH[::-1], SMOOTH + 1])
    frames = [jpeg_ls(frame) for frame in stack]
    frames = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    data = written(JPEG_LS, frames, stack)
    start = data.index(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff") + 12

    def item(content: bytes) -> bytes:
        return b"\xfe\xff\0\xe0" + struct.pack("<I", len(content)) + content

    end = b"\xfe\xff\xdd\xe0\0\0\0\0"
    halves = [part for frame in frames for part in (frame[:100], frame[100:])]
    split = data[:start] + item(b"") + b"".join(map(item, halves)) + end
    wrong_table = data[:start] + item(struct.pack("<3I", 0, 7, 9)) + b"".join(map(item, halves)) + end
    extra = data[:start] + item(b"") + b"".join(map(item, [*frames, frames[0]])) + end
    unended = data[:start] + item(b"") + b"".join(map(item, frames))
    for form in (data, split, wrong_table, extra, unended):
        for number in range(3):
            assert np.array_equal(read_dicom_frame(form, "a", frame=number).words, stack[number])
    missing = data[:start] + item(b"") + b"".join(map(item, frames[:2])) + end
    assert refusal(missing).reason == Reason.HEADER_MISMATCH


def test_an_offset_table_is_believed_where_a_fragment_only_looks_like_a_beginning() -> None:
    """A preview in a comment, at which the frame is cut into fragments."""
    stack = np.stack([SMOOTH, SMOOTH[::-1]])
    cut = [jpeg_ls(frame) for frame in stack]
    comment = b"\xff\xfe" + struct.pack(">H", 18) + b"\xff\xd8\xff" + bytes(13)
    parts = [part for one in cut for part in (one[:2] + comment[:4], comment[4:] + one[2:])]
    parts = [part + b"\0" * (len(part) % 2) for part in parts]
    data = written(JPEG_LS, parts, stack)
    table = data.index(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff") + 20
    assert data[table - 4 : table] == struct.pack("<I", 16)  # of four frames as they were written
    offsets = struct.pack("<2I", 0, sum(len(part) + 8 for part in parts[:2]))
    short = data[: table - 4] + struct.pack("<I", 8) + offsets + data[table + 16 :]
    for number in range(2):
        assert np.array_equal(read_dicom_frame(short, "a", frame=number).words, stack[number])


def test_frames_are_found_by_the_extended_table() -> None:
    stack = np.stack([SMOOTH, SMOOTH[::-1]])
    _, offsets, lengths = encapsulate_extended([jpeg_ls(frame) for frame in stack])
    attributes = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    data = written(JPEG_LS, [jpeg_ls(frame) for frame in stack], stack, attributes)
    for number in range(2):
        assert np.array_equal(read_dicom_frame(data, "a", frame=number).words, stack[number])


@pytest.mark.parametrize("encode", [jpeg_ls, jpeg_2000, jpeg_lossless])
def test_a_stream_without_its_end_is_truncated_and_not_filled_with_grey(encode: Encoder) -> None:
    stream = encode(SMOOTH, 16)
    assert refusal(written(J2K, [stream[: len(stream) // 2]])).reason == Reason.FILE_TRUNCATED
    whole = written(J2K, [stream])
    assert refusal(whole[: len(whole) - 60]).reason == Reason.FILE_TRUNCATED


def test_a_file_that_ends_within_a_fragment_is_truncated() -> None:
    whole = written(RLE, [rle(SMOOTH)])
    assert refusal(whole[:-9]).reason == Reason.FILE_TRUNCATED


@pytest.mark.parametrize("encode", [jpeg_ls, jpeg_2000, jpeg_lossless])
def test_a_stream_of_another_size_is_refused_before_it_is_decoded(
    encode: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Isolated, "call", None)
    data = written(J2K, [encode(SMOOTH, 16)], SMOOTH[:, :-1])
    assert refusal(data).reason == Reason.HEADER_MISMATCH


def test_a_stream_of_a_hundred_bytes_that_claims_gigapixels_allocates_nothing() -> None:
    size = struct.pack(">HHIIIIIIIIH", 41, 0, 60_000, 60_000, 0, 0, 60_000, 60_000, 0, 0, 1) + b"\x0f\1\1"
    stream = b"\xff\x4f\xff\x51" + size + b"\xff\x90" + bytes(20) + b"\xff\xd9"
    data = written(J2K, [stream], SMOOTH, {"Rows": 60_000, "Columns": 60_000})
    assert refusal(data).reason == Reason.OVER_BUDGET
    assert refusal(written(J2K, [stream])).reason == Reason.HEADER_MISMATCH


@pytest.mark.parametrize(
    ("syntax", "stream", "reason"),
    [
        (J2K, b"plain text", Reason.IMAGE_UNDECODABLE),
        (J2K, b"\xff\xd8\xff", Reason.IMAGE_UNDECODABLE),
        (J2K, b"\xff\x4f\xff\x51\0\x29", Reason.IMAGE_UNDECODABLE),
        (JPEG, b"\xff\xd8\xff\xd9", Reason.IMAGE_UNDECODABLE),
        (JPEG, b"\xff\xd8\xff\xc9\0\x0b\x08\0\x30\0\x28\1\1\x11\0", Reason.FORMAT_UNSUPPORTED),
        ("1.2.840.10008.1.2.4.100", b"\0\0\1\xb3", Reason.FORMAT_UNSUPPORTED),
        (RLE, b"\1\0\0\0\x40\0\0\0", Reason.IMAGE_UNDECODABLE),
    ],
)
def test_what_cannot_be_decoded_is_refused(syntax: str, stream: bytes, reason: Reason) -> None:
    assert refusal(written(syntax, [stream])).reason == reason


def test_the_next_decoder_is_asked_where_one_fails_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders import JPEG2000Decoder

    def broken(data: bytes, runner: object) -> bytes:
        raise RuntimeError("no")

    monkeypatch.setitem(JPEG2000Decoder._available, "gdcm", broken)

    class Here(Isolated):
        def call(self, fields: Any, data: bytes, max_reply: int) -> tuple[dict[str, Any], memoryview]:
            reply, raw = answer(fields, data)
            return dict(reply), memoryview(raw)

    monkeypatch.setattr(dicom_compressed, "DECODING", Here("none"))
    frame = read_dicom_frame(written(J2K, [jpeg_2000(SMOOTH)]), "a")
    assert np.array_equal(frame.words, SMOOTH)
    assert frame.notes == ("decoded by pylibjpeg", "after gdcm: RuntimeError")


def test_a_decoder_that_dies_costs_the_item(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(Isolated):
        def call(self, fields: Any, data: bytes, max_reply: int) -> tuple[dict[str, Any], memoryview]:
            raise ChildError("the decoding process ended")

    monkeypatch.setattr(dicom_compressed, "DECODING", Dying("none"))
    assert refusal(written(J2K, [jpeg_2000(SMOOTH)])).reason == Reason.READER_CRASHED


def test_a_decoder_that_really_dies_is_there_again_for_the_next_item() -> None:
    data = written(J2K, [jpeg_2000(SMOOTH)])
    read_dicom_frame(data, "a")
    before = dicom_compressed.DECODING.process_id
    with pytest.raises(ChildError):
        dicom_compressed.DECODING.call({"kind": "no such kind"}, b"", 10)
    assert np.array_equal(read_dicom_frame(data, "a").words, SMOOTH)
    assert dicom_compressed.DECODING.process_id != before
