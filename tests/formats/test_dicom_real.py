"""Every DICOM file at hand through the reader: a picture equal to the plain way's, or a typed reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from qoq_data.clinical.dicom_picture import decode_dicom
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image import DecodedImage
from tests.formats.dicom_corpus import files_below, installed_files, plain_picture, read_plainly

OTHER_DECODER = {
    "1.2.840.10008.1.2.5": "pydicom",
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), "gdcm"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"), "pylibjpeg"),
}
"""Decoders that are not the ones tried first here."""

ONLY_HERE = {"JPEG-lossy.dcm", "JPGExtended.dcm", "OT-PAL-8-face.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm"}
"""12-bit JPEG, a file without meta information, and one without its end, which pydicom does not decode."""

TWINS = {
    "OBXXXX1A_expb.dcm": "OBXXXX1A.dcm",
    "OBXXXX1A_expb_2frame.dcm": "OBXXXX1A_2frame.dcm",
    "gdcm-US-ALOKA-16_big.dcm": "gdcm-US-ALOKA-16.dcm",
}
"""The same picture in big and in little endian."""

REFUSED_INSTALLED = {
    Reason.HEADER_INVALID: {"badVR.dcm", "meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm"},
    Reason.FILE_TRUNCATED: {
        "MR_truncated.dcm", "chrJapMulti.dcm", "chrJapMultiExplicitIR6.dcm", "chrKoreanMulti.dcm",
        "rtplan_truncated.dcm",
    },
    Reason.HEADER_MISMATCH: {"JPEG2000-embedded-sequence-delimiter.dcm"},
    Reason.FORMAT_UNSUPPORTED: {
        "DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-empty.dcm", "DICOMDIR-implicit", "DICOMDIR-nooffset",
        "DICOMDIR-nopatient", "DICOMDIR-reordered", "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "README",
        "UN_sequence.dcm", "chrSQEncoding.dcm", "chrSQEncoding1.dcm", "empty_charset_LEI.dcm", "fall.dcm",
        "hotiron.dcm", "hotmetalblue.dcm", "no_meta.dcm", "no_meta_group_length.dcm", "pet.dcm", "pet20step.dcm",
        "priv_SQ.dcm", "reportsi.dcm", "reportsi_with_empty_number_tags.dcm", "rtplan.dcm", "rtplan.dump",
        "rtstruct.dcm", "rtstruct.dump", "spring.dcm", "summer.dcm", "test-SR.dcm", "waveform_ecg.dcm", "winter.dcm",
    },
}  # fmt: skip
REFUSED_REAL = {
    Reason.IMAGE_UNDECODABLE: {"invalid_compression.dcm"},
    Reason.FILE_TRUNCATED: {"at_invalid.dcm", "at_no_value.dcm"},
    Reason.FORMAT_UNSUPPORTED: {
        "duplicates.dcm", "encoding_iso8859-1.dcm", "encoding_utf8.dcm", "rwvm.dcm", "sr.dcm",
    },
}  # fmt: skip

Outcome = DecodedImage | RecordError


def outcomes(paths: list[Path]) -> dict[Path, Outcome]:
    found: dict[Path, Outcome] = {}
    for path in paths:
        try:
            found[path] = decode_dicom(path.read_bytes(), path.name)
        except RecordError as error:
            found[path] = error
    return found


@pytest.fixture(scope="session")
def installed() -> dict[Path, Outcome]:
    return outcomes(installed_files())


@pytest.fixture(scope="session")
def real(realdata: Path) -> dict[Path, Outcome]:
    return outcomes(files_below([realdata / "dicom"]))


def picture(outcome: Outcome) -> DecodedImage:
    assert isinstance(outcome, DecodedImage)
    return outcome


def refused(found: dict[Path, Outcome]) -> dict[Reason, set[str]]:
    names: dict[Reason, set[str]] = {}
    for path, outcome in found.items():
        if isinstance(outcome, RecordError):
            names.setdefault(outcome.reason, set()).add(path.name)
    return names


def check_pictures(found: dict[Path, Outcome]) -> Counter[str]:
    """Each picture against the plain way in floating point; how many there were of each kind."""
    counts: Counter[str] = Counter()
    for path, outcome in found.items():
        if isinstance(outcome, RecordError):
            counts["refused"] += 1
            continue
        if path.name in ONLY_HERE:
            counts["only here"] += 1
            continue
        if path.name in TWINS:  # pydicom reads a big-endian palette as little-endian
            twin = next(other for other in found if other.name == TWINS[path.name])
            assert np.array_equal(outcome.pixels, picture(found[twin]).pixels), path.name
            counts["twin"] += 1
            continue
        data_set = read_plainly(path.read_bytes())
        syntax = str(data_set.file_meta.TransferSyntaxUID)
        expected = plain_picture(data_set, OTHER_DECODER.get(syntax, ""))
        assert outcome.pixels.shape == expected.shape, path.name
        error = np.abs(outcome.pixels - expected)
        lossy_colour = expected.ndim == 3 and "RGB" not in outcome.source_mode
        assert error.max() <= (1.5 if lossy_colour else 0.5 + 1e-6), (path.name, error.max())
        assert not outcome.untouched
        counts["colour" if expected.ndim == 3 else "grey"] += 1
    return counts


def test_installed_pictures_are_as_the_plain_way_shows_them(installed: dict[Path, Outcome]) -> None:
    counts = check_pictures(installed)
    assert counts["only here"] == len(ONLY_HERE)
    assert counts["twin"] == len(TWINS)
    assert counts["grey"] >= 90
    assert counts["colour"] >= 40


def test_installed_files_are_refused_for_these_reasons(installed: dict[Path, Outcome]) -> None:
    names = refused(installed)
    listed = names[Reason.FORMAT_UNSUPPORTED]
    names[Reason.FORMAT_UNSUPPORTED] = {name for name in listed if not name.startswith("IM0000")}  # of a DICOMDIR
    assert names == REFUSED_INSTALLED


def test_real_pictures_are_as_the_plain_way_shows_them(real: dict[Path, Outcome]) -> None:
    counts = check_pictures(real)
    assert counts["grey"] >= 200
    assert counts["colour"] >= 5


def test_real_files_are_refused_for_these_reasons(real: dict[Path, Outcome]) -> None:
    names = refused(real)
    assert names == REFUSED_REAL


def test_the_same_film_in_every_syntax_is_the_same_picture(installed: dict[Path, Outcome]) -> None:
    by_name = {path.name: outcome for path, outcome in installed.items()}
    for stem in ("RG1", "RG3", "MR2", "US1", "693"):
        plain, reversible = by_name.get(f"{stem}_UNCR.dcm"), by_name.get(f"{stem}_J2KR.dcm")
        if isinstance(plain, DecodedImage) and isinstance(reversible, DecodedImage):
            assert np.array_equal(plain.pixels, reversible.pixels), stem


def test_twelve_bit_jpeg_has_the_published_values(installed: dict[Path, Outcome]) -> None:
    from qoq_data.formats.dicom import read_dicom_frame

    path = next(path for path in installed if path.name == "JPEG-lossy.dcm")
    read = read_dicom_frame(path.read_bytes(), path.name)
    assert (read.words[420, 140], read.words[230, 120]) == (244, 95)
    assert read.layout.stored == 12


def test_unused_bits_are_masked_and_the_sign_is_the_high_bit(realdata: Path) -> None:
    """Stripes of 0x0F0F and 0xFFFF over a scan of 12 bits in 16, once declared signed with high bit 11."""
    from qoq_data.formats.dicom import read_dicom_frame
    from qoq_data.formats.dicom_values import word_values

    folder = realdata / "dicom" / "dcm_qa_12bit" / "In"
    values = {}
    for name in ("12bitUnsigned", "12bitUnsigned_0x0F0F", "12bitSigned_0x0F0F"):
        read = read_dicom_frame((folder / f"{name}.dcm").read_bytes(), name)
        values[name] = word_values(read.words, read.layout)
    unsigned, signed = values["12bitUnsigned_0x0F0F"], values["12bitSigned_0x0F0F"]
    assert {int(v) for v in unsigned[unsigned != values["12bitUnsigned"]]} == {0xF0F, 0xFFF}
    assert signed.min() >= -2048
    assert set(signed[unsigned == 0xF0F]) == {0xF0F - 4096}
    assert set(signed[unsigned == 0xFFF]) == {-1}
