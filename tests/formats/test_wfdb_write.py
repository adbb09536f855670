"""The writer of the challenges' ``.mat`` records: real ones byte for byte, drawn ones through three readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.io import loadmat

from qoq_data.errors import RecordError
from qoq_data.formats.wfdb import MISSING_INT16, decode
from qoq_data.formats.wfdb_header import parse_header
from qoq_data.formats.wfdb_write import write_record_mat


def test_real_records_of_the_challenge_are_written_byte_for_byte(realdata: Path) -> None:
    paths = sorted((realdata / "cinc2021").rglob("*.hea"))
    assert len(paths) == 77
    for path in paths:
        data = path.with_suffix(".mat").read_bytes()
        header = parse_header(path.read_bytes(), comments=True)
        record = decode(header, {path.with_suffix(".mat").name: data})
        first = path.read_text().splitlines()[0].split(maxsplit=4)
        written = write_record_mat(
            path.stem,
            record.samples.astype(np.int16),
            record.lead_names,
            record.sampling_frequency_hz,
            unit=header.signals[0].unit,
            date_text=first[4],
            comments=header.comments,
            names_extension=first[0].endswith(".mat"),
        )
        assert written == (path.read_bytes(), data), path.name


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.tuples(st.integers(1, 12), st.integers(1, 40)).flatmap(lambda shape: arrays(np.int16, shape)),
    gain=st.integers(1, 5000),
)
def test_what_is_written_is_read_back_by_us_by_wfdb_and_by_matlabs_reader(
    tmp_path: Path, samples: np.ndarray[tuple[int, int], np.dtype[np.int16]], gain: int
) -> None:
    names = [f"L{number}" for number in range(samples.shape[0])]
    text, content = write_record_mat("r", samples, names, 500, gain=gain, comments=["Age: 1", "Dx: 59118001"])
    (tmp_path / "r.hea").write_bytes(text)
    (tmp_path / "r.mat").write_bytes(content)
    assert len(content) == 24 + samples.size * 2
    ours = decode(parse_header(text, "r.hea"), {"r.mat": content})
    assert np.array_equal(ours.samples, samples)
    assert ours.gain.tolist() == [gain] * samples.shape[0]
    assert np.array_equal(loadmat(tmp_path / "r.mat")["val"], samples)
    theirs = wfdb.rdrecord(str(tmp_path / "r"), physical=False)
    assert np.array_equal(theirs.d_signal.T, samples)
    assert (theirs.sig_name, theirs.comments) == (names, ["Age: 1", "Dx: 59118001"])
    assert np.array_equal(np.isnan(ours.physical()), samples == MISSING_INT16)


def test_written_headers_look_like_georgias() -> None:
    samples = np.array([[-73, -27137], [0, 15270]], np.int16)
    text, content = write_record_mat(
        "E00271",
        samples,
        ["II", "I"],
        500.0,
        date_text="05-May-2020 14:50:55",
        comments=["Age: 83"],
        names_extension=True,
    )
    assert text == (
        b"E00271.mat 2 500 2 05-May-2020 14:50:55\n"
        b"E00271.mat 16+24 1000/mV 16 0 -73 -27210 0 II\n"
        b"E00271.mat 16+24 1000/mV 16 0 0 15270 0 I\n"
        b"#Age: 83\n"
    )
    assert content == bytes.fromhex("1e000000 02000000 02000000 00000000 04000000 76616c00") + samples.T.tobytes()


def test_arguments_that_make_no_record_are_refused() -> None:
    samples = np.zeros((2, 3), np.int16)
    with pytest.raises(ValueError, match="int16"):
        write_record_mat("r", samples.astype(np.int32), ["I", "II"], 500)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one name"):
        write_record_mat("r", samples, ["I"], 500)
    with pytest.raises(ValueError, match="n above 0"):
        write_record_mat("r", samples[:, :0], ["I", "II"], 500)
    with pytest.raises(ValueError, match="one line"):
        write_record_mat("r", samples, ["I", "II"], 500, comments=["Age: 1\nr.mat"])
    with pytest.raises(RecordError):
        write_record_mat("a/r", samples, ["I", "II"], 500)
