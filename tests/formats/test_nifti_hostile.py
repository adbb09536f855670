"""Damaged NIfTI files, gzipped or not, as pictures and as labels: a volume or a typed error, and little memory."""

from __future__ import annotations

import gzip
import resource
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.clinical.volume_boxes import find_instances
from qoq_data.clinical.volumes import to_canonical
from qoq_data.errors import RecordError
from qoq_data.formats.nifti import Volume, read_header, read_labels, read_volume
from qoq_data.formats.nifti_write import nifti_bytes

MANY = settings(derandomize=True, deadline=None, max_examples=200)
MAX_BYTES = 1 << 22
PEAK = 128 << 20
AFFINE = np.array([[0, 0, -0.9, 10], [0, -0.8, 0, 20], [-5, 0, 0, 30], [0, 0, 0, 1.0]])
LABELS = np.zeros((6, 9, 8), np.uint8)
LABELS[1:4, 2:5, 2:7], LABELS[4:, 6:, :3] = 1, 2
FORMS = {
    "nii": nifti_bytes(LABELS.astype(np.int16) * 100, AFFINE, compressed=False),
    "nii.gz": nifti_bytes(LABELS.astype(np.int16) * 100, AFFINE),
    "labels": nifti_bytes(LABELS, AFFINE),
    "labels by a slope": nifti_bytes(LABELS.astype(np.int16) * 2, AFFINE, slope=0.5, intercept=0, compressed=False),
    "labels in floats": nifti_bytes(LABELS.astype(np.float64) * 2, AFFINE, slope=0.5, intercept=0, compressed=False),
}


@st.composite
def damage(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """Some edits, half of them in the header: what is done, where (as a share), and with which bytes."""
    kinds = st.sampled_from(["replace", "insert", "delete", "cut", "header", "header", "header"])
    telling = st.sampled_from(
        [b"\xff\x7f", b"\0\0", b"\xff\xff", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\1\0", b"\x1f\x8b"]
    )
    edits = st.tuples(kinds, st.floats(0, 1), telling | st.binary(min_size=1, max_size=4))
    return draw(st.lists(edits, min_size=1, max_size=4))


def damaged(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, new in edits:
        at = int(share * (348 if kind == "header" else len(data)))
        if kind in ("replace", "header"):
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + len(new) :]
        else:
            data = data[:at]
    return data


@pytest.fixture(scope="module", autouse=True)
def capped() -> Iterator[None]:
    find_instances(LABELS)  # so that no import is counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert more < PEAK, f"{more} bytes"


def read(data: bytes, form: str) -> str:
    """Read as the corpus does; the outcome in a word."""
    reader: Callable[..., Volume] = read_labels if form.startswith("labels") else read_volume
    try:
        header = read_header(data, "a.nii")
        volume = to_canonical(reader(data, "a.nii", max_bytes=MAX_BYTES))
        if reader is read_labels:
            find_instances(volume.values)
    except RecordError as error:
        assert error.path == "a.nii" or error.reason in ("over_budget", "format_unsupported")
        return error.reason
    assert volume.values.ndim == 3
    assert sorted(volume.values.shape) == sorted(header.shape[:3])
    assert volume.values.nbytes <= 8 * MAX_BYTES
    assert np.isfinite(volume.affine).all()
    assert np.isfinite([*volume.spacing_mm, volume.slope, volume.intercept]).all()
    return "read"


@pytest.mark.parametrize("form", FORMS)
def test_undamaged_files_are_read(form: str) -> None:
    assert read(FORMS[form], form) == "read"


@pytest.mark.parametrize("form", FORMS)
@MANY
@given(edits=damage())
def test_damaged_files(form: str, edits: list[tuple[str, float, bytes]]) -> None:
    read(damaged(FORMS[form], edits), form)


@pytest.mark.parametrize("form", ["nii.gz", "labels"])
@MANY
@given(edits=damage())
def test_damaged_content_of_sound_gzip(form: str, edits: list[tuple[str, float, bytes]]) -> None:
    read(gzip.compress(damaged(gzip.decompress(FORMS[form]), edits), 1, mtime=0), form)


@MANY
@given(data=st.binary(max_size=700), zipped=st.booleans())
def test_any_bytes(data: bytes, zipped: bool) -> None:
    read(gzip.compress(data, 1, mtime=0) if zipped else data, "labels")
    read(b"\x1f\x8b\x08" + data, "nii.gz")
    read((348).to_bytes(4, "little") + data, "nii")


def test_noise_as_labels_is_refused() -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 60, (40, 40, 40)).astype(np.uint8)
    assert read(nifti_bytes(noise, AFFINE), "labels") == "over_budget"
    stripes = np.zeros((60, 60, 60), np.uint16)
    stripes[::2, :, :], stripes[1::2] = np.arange(1, 31)[:, None, None], 0
    assert read(nifti_bytes(stripes, AFFINE), "labels") == "read"
