"""Preamble, meta information and transfer syntax as real files have them or leave them out; headers alone."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest

from qoq_data.clinical.dicom_picture import decode_dicom
from qoq_data.clinical.synthetic_dicom import view_attributes, write_dicom
from qoq_data.errors import Reason, RecordError
from qoq_data.formats import dicom_file
from qoq_data.formats.dicom_file import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, read_dicom_file, read_header
from qoq_data.formats.storage import RecordingStore, Store

PIXELS = np.random.default_rng(3).integers(0, 4096, (32, 24)).astype(np.uint16)


def written(syntax: str = EXPLICIT, **options: bool) -> bytes:
    attributes = {"RescaleSlope": 1, "RescaleIntercept": -5, "InstanceNumber": 7, **view_attributes("MLO")}
    return write_dicom(
        PIXELS, study="s", series="e", instance="i", attributes=attributes, transfer_syntax=syntax, **options
    )


KEYWORDS = ("Rows", "Columns", "ViewPosition", "InstanceNumber", "ViewCodeSequence")
PLAIN = decode_dicom(written(), "a").pixels


def renamed(data: bytes, claimed: str, actual: str) -> bytes:
    """The file with another transfer syntax in its meta information, of the same length."""
    old = actual.encode() + b"\0" * (len(actual) % 2)
    new = claimed.encode().ljust(len(old), b"\0")
    assert len(new) == len(old)
    assert data.count(old) == 1
    return data.replace(old, new)


def meta_length(data: bytes) -> int:
    return 132 + 12 + int.from_bytes(data[140:144], "little")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN])
@pytest.mark.parametrize("preamble", [True, False])
def test_native_syntaxes_are_the_same_picture(syntax: str, preamble: bool) -> None:
    picture = decode_dicom(written(syntax, preamble=preamble), "a")
    assert np.array_equal(picture.pixels, PLAIN)
    assert ("no preamble" in picture.conversions) == (not preamble)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_a_file_without_meta_information(syntax: str) -> None:
    data = written(syntax)
    picture = decode_dicom(data[meta_length(data) :], "a")
    assert np.array_equal(picture.pixels, PLAIN)
    assert picture.conversions[:2] == ("no preamble", "no transfer syntax")


@pytest.mark.parametrize(
    ("claimed", "actual"), [(BIG_ENDIAN, EXPLICIT), (EXPLICIT, BIG_ENDIAN), (EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT)]
)
def test_a_transfer_syntax_that_lies_is_found_out(claimed: str, actual: str) -> None:
    data = written(actual)
    if len(claimed) // 2 == len(actual) // 2:
        lying = renamed(data, claimed, actual)
    else:  # of another length: the meta information of the other file before this data set
        other = written(claimed)
        lying = other[: meta_length(other)] + data[meta_length(data) :]
    picture = decode_dicom(lying, "a")
    assert np.array_equal(picture.pixels, PLAIN)
    assert "not written in the transfer syntax that it names" in picture.conversions


def test_a_deflated_data_set_is_inflated_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    meta = written(DEFLATED)[: meta_length(written(DEFLATED))]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = meta + packer.compress(bytes(1 << 24)) + packer.flush()
    assert len(bomb) < 1 << 15
    monkeypatch.setattr(dicom_file, "MAX_INFLATED", 1 << 20)
    with pytest.raises(RecordError) as caught:
        read_dicom_file(bomb, "a")
    assert caught.value.reason == Reason.OVER_BUDGET
    with pytest.raises(RecordError) as caught:
        read_dicom_file(meta + b"\xff" * 40, "a")
    assert caught.value.reason == Reason.HEADER_INVALID


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.FILE_TRUNCATED),
        (b"\2", Reason.FILE_TRUNCATED),
        (bytes(128) + b"DICM", Reason.FILE_TRUNCATED),
        (b"<html>" + bytes(400), Reason.FORMAT_UNSUPPORTED),
        (b"\x89PNG\r\n\x1a\n" + bytes(400), Reason.FORMAT_UNSUPPORTED),
    ],
)
def test_what_is_no_dicom_file_is_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(RecordError) as caught:
        decode_dicom(data, "a.dcm")
    assert caught.value.reason == reason
    assert caught.value.path == "a.dcm"


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_download_that_ended_early_is_truncated(share: float) -> None:
    data = written()
    with pytest.raises(RecordError) as caught:
        decode_dicom(data[: int(share * len(data))], "a")
    assert caught.value.reason in (Reason.FILE_TRUNCATED, Reason.HEADER_INVALID)


def test_a_header_is_read_without_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = written() + bytes(1 << 20)
    (tmp_path / "a.dcm").write_bytes(data)
    taken: list[int] = []
    opened = Path.open

    def counting(path: Path, mode: str) -> io.BytesIO:
        with opened(path, mode) as file:
            whole = file.read()
        stream = io.BytesIO(whole)
        read = stream.read

        def counted(size: int | None = -1) -> bytes:
            piece = read(size)
            taken.append(len(piece))
            return piece

        stream.read = counted  # type: ignore[method-assign]
        return stream

    monkeypatch.setattr(Path, "open", counting)
    tree = RecordingStore(tmp_path)
    header = read_header(tree, "a.dcm", KEYWORDS)
    assert (header.integer("Rows"), header.text("ViewPosition"), header.integer("InstanceNumber")) == (32, "MLO", 7)
    view = header.item("ViewCodeSequence")
    assert view is not None
    assert view.text("CodeValue") == "399368009"
    assert sum(taken) < 2000
    assert "Modality" not in header
    assert list(tree.seen) == ["a.dcm"]


def test_a_long_header_is_read_to_its_end(tmp_path: Path) -> None:
    private = {"ImageComments": "x" * 10_000, "RescaleType": "US"}
    sequence = {"SourceImageSequence": [{"ReferencedSOPInstanceUID": "1.2.3"}] * 5000}
    data = write_dicom(PIXELS, study="s", series="e", instance="i", attributes={**private, **sequence})
    (tmp_path / "a.dcm").write_bytes(data + bytes(1 << 20))
    assert read_header(Store(tmp_path), "a.dcm", KEYWORDS).integer("Rows") == 32


def test_a_header_that_ends_early_is_refused(tmp_path: Path) -> None:
    data = written()
    (tmp_path / "a.dcm").write_bytes(data[: len(data) // 4])
    with pytest.raises(RecordError) as caught:
        read_header(Store(tmp_path), "a.dcm", KEYWORDS)
    assert caught.value.reason == Reason.FILE_TRUNCATED


@pytest.mark.parametrize("name", ["absent.dcm", "folder"])
def test_a_header_that_is_not_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError) as caught:
        read_header(Store(tmp_path), name, KEYWORDS)
    assert caught.value.reason in (Reason.FILE_MISSING, Reason.FILE_UNREADABLE)


def test_the_header_of_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"<html>" * 40_000)
    with pytest.raises(RecordError) as caught:
        read_header(Store(tmp_path), "a.dcm", KEYWORDS)
    assert caught.value.reason == Reason.FORMAT_UNSUPPORTED


def test_a_header_in_a_store_that_is_no_folder() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/dicom-header/a.dcm", written())
    assert read_header(Store("memory://dicom-header"), "a.dcm", KEYWORDS).integer("Columns") == 24
