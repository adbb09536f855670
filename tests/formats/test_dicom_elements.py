"""Elements against pydicom on every file at hand, and within budgets on files made to break readers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from qoq_data.errors import Reason, RecordError
from qoq_data.formats import dicom_elements
from qoq_data.formats.dicom_elements import MAX_DEPTH, PIXEL_TAGS, UNDEFINED, DataSet, Encoding, read_data_set
from qoq_data.formats.dicom_file import read_dicom_file
from tests.formats.dicom_corpus import files_below, installed_files, quiet, read_plainly

EXPLICIT = Encoding(explicit=True, big_endian=False)
IMPLICIT = Encoding(explicit=False, big_endian=False)


def differences(ours: DataSet, plain: Any, where: str) -> list[str]:
    """Where the elements found are not pydicom's, by tag, length and bytes, and those of items too."""
    tags = {tag for tag in ours.elements if tag >> 16 != 2} - set(PIXEL_TAGS)
    expected = {int(tag) for tag in list(plain.keys()) if tag < min(PIXEL_TAGS)}
    found = [f"{where} {tag:08x}" for tag in tags ^ expected]
    for tag in tags & expected:
        element, raw = ours.elements[tag], plain.get_item(tag)
        if element.items is not None:
            items = plain[tag].value
            found += [f"{where} {tag:08x} items"] if len(items) != len(element.items) else []
            for one, other in zip(element.items, items, strict=False):
                found += differences(one, other, f"{where} {tag:08x}")
        elif element.length != UNDEFINED and isinstance(getattr(raw, "value", None), bytes):
            value = ours.data[element.start : element.start + element.length]
            found += [f"{where} {tag:08x} value"] if value != raw.value else []
    return found


def compared(paths: list[Path]) -> tuple[int, list[str]]:
    count, found = 0, []
    for path in paths:
        data = path.read_bytes()
        try:
            ours = read_dicom_file(data, path.name)
        except RecordError as error:
            assert error.reason == Reason.FORMAT_UNSUPPORTED, path.name
            continue
        plain = read_plainly(data, header_only=True)
        with quiet():
            found += differences(ours.data_set, plain, path.name)
        count += len(ours.data_set.elements)
    return count, found


def test_installed_files_hold_the_elements_that_pydicom_finds() -> None:
    count, found = compared(installed_files())
    assert found == []
    assert count > 10_000


def test_real_files_hold_the_elements_that_pydicom_finds(realdata: Path) -> None:
    count, found = compared(files_below([realdata / "dicom"]))
    assert found == []
    assert count > 20_000


def element(tag: int, value: bytes, vr: bytes = b"", length: int | None = None) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    length = len(value) if length is None else length
    if not vr:
        return head + struct.pack("<I", length) + value
    long = vr in (b"SQ", b"UN", b"OB", b"OW")
    return head + vr + (struct.pack("<HI", 0, length) if long else struct.pack("<H", length)) + value


def item(content: bytes, defined: bool = True) -> bytes:
    if defined:
        return element(0xFFFEE000, content)
    return element(0xFFFEE000, content, length=UNDEFINED) + element(0xFFFEE00D, b"")


def nested(depth: int, defined: bool) -> bytes:
    content = element(0x00081155, b"1.2\0", b"UI")
    for _ in range(depth):
        inner = item(content, defined)
        content = (
            element(0x00082112, inner, b"SQ")
            if defined
            else element(0x00082112, inner + element(0xFFFEE0DD, b""), b"SQ", UNDEFINED)
        )
    return content


def test_sequences_nested_too_deeply_are_over_budget() -> None:
    """400 deep, pydicom raises RecursionError."""
    for depth in (MAX_DEPTH + 1, 400, 2000):
        with pytest.raises(RecordError) as caught:
            read_data_set(nested(depth, defined=False), "a", 0, EXPLICIT)
        assert caught.value.reason == Reason.OVER_BUDGET


@pytest.mark.parametrize("defined", [True, False])
def test_sequences_nested_within_the_budget_are_read_to_their_end(defined: bool) -> None:
    data_set = read_data_set(nested(MAX_DEPTH, defined), "a", 0, EXPLICIT)
    for _ in range(MAX_DEPTH):
        inner = data_set.item("SourceImageSequence")
        assert inner is not None
        data_set = inner
    assert data_set.text("ReferencedSOPInstanceUID") == "1.2"


def test_sequences_of_stated_length_are_only_walked_when_asked_for_and_then_to_a_depth() -> None:
    data_set: DataSet | None = read_data_set(nested(400, defined=True), "a", 0, EXPLICIT)
    with pytest.raises(RecordError) as caught:
        while data_set is not None:
            data_set = data_set.item("SourceImageSequence")
    assert caught.value.reason == Reason.OVER_BUDGET


def test_too_many_elements_are_over_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_elements, "MAX_ELEMENTS", 100)
    data = element(0x00080008, b"", b"CS") * 101
    with pytest.raises(RecordError) as caught:
        read_data_set(data, "a", 0, EXPLICIT)
    assert caught.value.reason == Reason.OVER_BUDGET


def test_a_length_beyond_the_file_allocates_nothing_and_is_said_when_asked_for() -> None:
    data = element(0x00281050, b"40", b"", length=0xFFFFFF00)
    data_set = read_data_set(data, "a", 0, IMPLICIT)
    with pytest.raises(RecordError) as caught:
        data_set.numbers("WindowCenter")
    assert caught.value.reason == Reason.FILE_TRUNCATED


def test_unknown_bytes_of_undefined_length_hold_items_written_implicitly() -> None:
    """PS3.5 6.2.2, note 2; here with a length that looks like the letters US."""
    inner = item(element(0x00081155, b"1.2".ljust(0x5355, b"\0")), defined=False)
    data = element(0x00082112, inner + element(0xFFFEE0DD, b""), b"UN", UNDEFINED)
    found = read_data_set(data, "a", 0, EXPLICIT).item("SourceImageSequence")
    assert found is not None
    assert found.text("ReferencedSOPInstanceUID") == "1.2"


def test_private_elements_are_stepped_over() -> None:
    private = element(0x00090010, b"MAKER ", b"LO") + element(0x00091001, b"\1\2\3\4", b"UN")
    data = private + element(0x00280010, struct.pack("<H", 7), b"US")
    assert read_data_set(data, "a", 0, EXPLICIT).integer("Rows") == 7


@pytest.mark.parametrize(
    ("vr", "value", "numbers"),
    [
        (b"DS", b"1.5 \\-2e1", (1.5, -20.0)),
        (b"DS", b"   ", ()),
        (b"FD", struct.pack("<d", 2.5), (2.5,)),
        (b"UN", b"3\\4 ", (3.0, 4.0)),
    ],
)
def test_numbers(vr: bytes, value: bytes, numbers: tuple[float, ...]) -> None:
    assert read_data_set(element(0x00281050, value, vr), "a", 0, EXPLICIT).numbers("WindowCenter") == numbers


@pytest.mark.parametrize("value", [b"one ", b"nan ", b"inf ", b"1,5 ", b"1\\\\2", b"\xff\xff"])
def test_what_is_no_number_is_refused(value: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        read_data_set(element(0x00281050, value, b"DS"), "a", 0, EXPLICIT).numbers("WindowCenter")
    assert caught.value.reason == Reason.HEADER_INVALID


@pytest.mark.parametrize(("signed", "value"), [(False, 63536), (True, -2000)])
def test_words_that_may_have_a_sign_have_the_one_they_are_read_with(signed: bool, value: int) -> None:
    data = element(0x00280120, struct.pack("<H", 63536))
    assert read_data_set(data, "a", 0, IMPLICIT).numbers("PixelPaddingValue", signed) == (value,)


def test_integers_are_whole_and_within_what_they_may_be() -> None:
    for value in (b"1.5 ", b"1e300 "):
        with pytest.raises(RecordError):
            read_data_set(element(0x00200013, value, b"IS"), "a", 0, EXPLICIT).integer("InstanceNumber")
    with pytest.raises(RecordError):
        read_data_set(b"", "a", 0, EXPLICIT).integer("InstanceNumber")
    assert read_data_set(b"", "a", 0, EXPLICIT).integer("InstanceNumber", 4) == 4
