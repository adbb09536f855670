"""Values of elements, and the budgets and silence within which pydicom finds them in files made to break readers."""

from __future__ import annotations

import logging
import struct
import warnings

import numpy as np
import pytest
from pydicom import config
from pydicom.dataelem import RawDataElement

from qoq_data.clinical.synthetic_dicom import write_dicom
from qoq_data.errors import Reason, RecordError
from qoq_data.formats import dicom_elements
from qoq_data.formats.dicom_elements import UNDEFINED, DataSet, guarded
from qoq_data.formats.dicom_file import read_dicom_file


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


def sequence(content: bytes, defined: bool = True, vr: bytes = b"SQ", tag: int = 0x00082112) -> bytes:
    if defined:
        return element(tag, content, vr)
    return element(tag, content + element(0xFFFEE0DD, b""), vr, UNDEFINED)


def nested(depth: int, defined: bool) -> bytes:
    content = element(0x00081155, b"1.2\0", b"UI")
    for _ in range(depth):
        content = sequence(item(content, defined), defined)
    return content


def data_set(*elements: bytes, implicit: bool = False) -> DataSet:
    kind = element(0x00080008, b"ORIGINAL", b"" if implicit else b"CS")
    return read_dicom_file(kind + b"".join(elements), "a.dcm").data_set


def refusal(*elements: bytes) -> RecordError:
    with pytest.raises(RecordError) as caught:
        data_set(*elements)
    assert caught.value.path == "a.dcm"
    return caught.value


@pytest.mark.parametrize("depth", [400, 2000])
def test_sequences_nested_too_deeply_are_over_budget(depth: int) -> None:
    """pydicom raises RecursionError, or what it makes of one."""
    assert refusal(nested(depth, defined=False)).reason == Reason.OVER_BUDGET


@pytest.mark.parametrize("defined", [True, False])
def test_sequences_within_each_other_are_read_to_their_end(defined: bool) -> None:
    found: DataSet | None = data_set(nested(40, defined))
    for _ in range(40):
        assert found is not None
        found = found.item("SourceImageSequence")
    assert found is not None
    assert found.text("ReferencedSOPInstanceUID") == "1.2"


def test_too_many_elements_are_over_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_elements, "MAX_PIECES", 100)
    many = [element(0x00180000 + number, b"1 ", b"IS") for number in range(60)]
    items = b"".join(item(b"") for _ in range(60))
    assert refusal(*many).reason == Reason.OVER_BUDGET
    assert refusal(sequence(items, defined=False)).reason == Reason.OVER_BUDGET
    lazy = data_set(sequence(items))
    with pytest.raises(RecordError) as caught:
        lazy.items("SourceImageSequence")
    assert caught.value.reason == Reason.OVER_BUDGET


@pytest.mark.parametrize("length", [5, 0xFFFFFF00])
def test_a_length_beyond_the_file_allocates_nothing_and_is_said_when_asked_for(length: int) -> None:
    found = data_set(element(0x00281050, b"40", length=length), implicit=True)
    with pytest.raises(RecordError) as caught:
        found.numbers("WindowCenter")
    assert caught.value.reason == Reason.FILE_TRUNCATED


@pytest.mark.parametrize("defined", [True, False])
def test_unknown_bytes_may_hold_items_written_implicitly(defined: bool) -> None:
    """PS3.5 6.2.2, note 2."""
    inner = item(element(0x00081155, b"1.2\0"), defined)
    found = data_set(sequence(inner, defined, b"UN")).item("SourceImageSequence")
    assert found is not None
    assert found.text("ReferencedSOPInstanceUID") == "1.2"


def test_what_is_no_sequence_is_refused() -> None:
    with pytest.raises(RecordError) as caught:
        data_set(element(0x00082112, b"1.2\0", b"UI")).items("SourceImageSequence")
    assert caught.value.reason == Reason.HEADER_INVALID


def test_private_elements_are_stepped_over() -> None:
    private = element(0x00090010, b"MAKER ", b"LO") + element(0x00091001, b"\1\2\3\4", b"UN")
    assert data_set(private, element(0x00280010, struct.pack("<H", 7), b"US")).integer("Rows") == 7


@pytest.mark.parametrize(
    ("vr", "value", "numbers"),
    [
        (b"DS", b"1.5 \\-2e1", (1.5, -20.0)),
        (b"DS", b"0 ", (0.0,)),
        (b"DS", b"   ", ()),
        (b"FD", struct.pack("<d", 2.5), (2.5,)),
        (b"UN", b"3\\4 ", (3.0, 4.0)),
    ],
)
def test_numbers(vr: bytes, value: bytes, numbers: tuple[float, ...]) -> None:
    found = data_set(element(0x00281050, value, vr))
    assert [found.numbers("WindowCenter") for _ in range(2)] == [numbers, numbers]


@pytest.mark.parametrize("value", [b"one ", b"nan ", b"inf ", b"1,5 ", b"1\\\\2", b"\xff\xff", b"1e999 "])
def test_what_is_no_number_is_refused_without_a_word_of_it(value: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        data_set(element(0x00281050, value, b"DS")).numbers("WindowCenter")
    assert caught.value.reason == Reason.HEADER_INVALID
    assert "one" not in str(caught.value)


@pytest.mark.parametrize(("vr", "value"), [(b"US", b"\1"), (b"ZZ", b"12"), (b"OB", b"12"), (b"SQ", b"12")])
def test_a_value_that_cannot_be_decoded_is_refused(vr: bytes, value: bytes) -> None:
    for read in (DataSet.numbers, DataSet.text):
        with pytest.raises(RecordError):
            read(data_set(element(0x00280010, value, vr)), "Rows")


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize(("sign", "value"), [(0, 63536), (1, -2000)])
def test_words_that_may_have_a_sign_have_that_of_the_pixels(sign: int, value: int, defined: bool) -> None:
    """Beside PixelRepresentation, and in an item of a sequence, where nothing but the whole file tells it."""
    word = struct.pack("<H", 63536)
    table = sequence(item(element(0x00283002, b"\4\0" + word + b"\x10\0"), defined), defined, b"", 0x00283000)
    representation = element(0x00280103, struct.pack("<H", sign))
    found = data_set(representation, element(0x00280120, word), table, implicit=True)
    assert found.numbers("PixelPaddingValue") == (value,)
    inner = found.item("ModalityLUTSequence")
    assert inner is not None
    assert inner.numbers("LUTDescriptor") == (4, value, 16)


def test_whole_numbers() -> None:
    for value in (b"1.5 ", b"1e300 ", b"9999999999"):
        with pytest.raises(RecordError):
            data_set(element(0x00200013, value, b"IS")).integer("InstanceNumber")
    with pytest.raises(RecordError):
        data_set(element(0x00200012, b"1 ", b"IS")).integer("InstanceNumber")
    assert data_set(element(0x00200013, b" 3", b"IS")).integer("InstanceNumber", 4) == 3
    assert data_set(element(0x00200013, b"", b"IS")).integer("InstanceNumber", 4) == 4


def test_text_of_a_patient_is_never_decoded() -> None:
    data = write_dicom(
        np.zeros((4, 4), np.uint8), study="s", series="e", instance="i", attributes={"PatientName": "Somebody^Else"}
    )
    found = read_dicom_file(data, "a").data_set
    assert found.integer("Rows") == 4
    assert isinstance(found.elements.get_item("PatientName"), RawDataElement)


def test_nothing_is_warned_of_or_logged_and_all_settings_are_as_before(caplog: pytest.LogCaptureFixture) -> None:
    mode, filters = config.settings.reading_validation_mode, list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught, guarded("a"):
        warnings.warn("by pydicom", stacklevel=1)
        logging.getLogger("pydicom.filereader").error("by pydicom")
        assert config.settings.reading_validation_mode == config.IGNORE
    with pytest.raises(RecordError), guarded("a"):
        raise ValueError("secret")
    assert not caught
    assert caplog.records == []
    assert (config.settings.reading_validation_mode, warnings.filters) == (mode, filters)
    logging.getLogger("pydicom.filereader").error("by another")
    assert [record.message for record in caplog.records] == ["by another"]
