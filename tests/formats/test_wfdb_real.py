"""Every real WFDB record at hand: equal to ``wfdb.rdrecord``, or refused for a stated reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb
from scipy.io import loadmat

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.wfdb import DigitalRecord, decode, parse_header, signal_file_sizes

REFUSED = {
    Reason.UNEQUAL_SAMPLING: {
        "03700181",
        "100skew",
        "drive02-no-len",
        "mixedsignals",
        "multi-segment/041s/041s01",
        "multi-segment/041s/041s02",
        "test01_00s_frame",
        "test01_00s_skew",
        "test01_00s_skewframe",
    },
    Reason.MULTI_SEGMENT: {
        "multi-segment/041s/041s",
        "multi-segment/fixed1/v102s",
        "multi-segment/p000878/3269321_layout",
        "multi-segment/p000878/p000878-2137-10-26-16-57",
        "multi-segment/s00001/3248903_layout",
        "multi-segment/s00001/3975656_layout",
        "multi-segment/s00001/s00001-2896-10-09-01-56",
        "multi-segment/s00001/s00001-2896-10-10-00-31",
        "multi-segment/s25047/3234460_layout",
        "multi-segment/s25047/s25047-2704-05-04-10-44",
    },
    Reason.FILE_MISSING: {f"multi-segment/s00001/3975656_{i:04d}" for i in (5, 6, 9, 10, 11, 15)},
}
TWELVE_LEADS = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]


def read(path: Path) -> DigitalRecord:
    header = parse_header(path.read_bytes(), path.name)
    files = {}
    for name, least in signal_file_sizes(header).items():
        if (path.parent / name).is_file():
            files[name] = (path.parent / name).read_bytes()
            assert len(files[name]) >= least
    return decode(header, files)


def assert_as_wfdb(path: Path) -> None:
    """Stored values, physical values and gaps are those of wfdb."""
    ours = read(path)
    theirs = wfdb.rdrecord(str(path.with_suffix("")), physical=False, return_res=32)
    gaps = ours.samples == ours.missing_code
    assert np.array_equal(np.where(gaps, 0, ours.samples), np.where(gaps, 0, theirs.d_signal.T)), path.name
    assert np.array_equal(ours.physical(), theirs.dac().T, equal_nan=True), path.name
    assert list(ours.lead_names) == [name.strip() for name in theirs.sig_name]
    assert [unit.lower() for unit in ours.unit] == [unit.lower() for unit in theirs.units]
    assert ours.sampling_frequency_hz == theirs.fs


@pytest.mark.parametrize(("rate", "count", "n_samples"), [("records500", 70, 5000), ("records100", 127, 1000)])
def test_ptb_xl(realdata: Path, rate: str, count: int, n_samples: int) -> None:
    paths = sorted(realdata.glob(f"ptb-xl/{rate}/*/*.hea"))
    assert len(paths) == count
    for path in paths:
        assert_as_wfdb(path)
        record = read(path)  # with checksums: every one that PTB-XL prints holds
        assert record.samples.shape == (12, n_samples)
        assert record.samples.dtype.name == "int16"
        assert list(record.lead_names) == TWELVE_LEADS
        assert set(record.unit) == {"mV"}
        assert not np.isnan(record.physical(np.float32)).any()


def test_challenge_2021(realdata: Path) -> None:
    paths = sorted(realdata.glob("cinc2021/*/*.hea"))
    assert len(paths) == 77
    for path in paths:
        record = read(path)
        assert np.array_equal(record.samples, loadmat(path.with_suffix(".mat"))["val"]), path.name
        assert [name.upper() for name in record.lead_names] == TWELVE_LEADS
        assert set(record.unit) == {"mV"}
        if path.parent.name != "WFDB_Ga":
            assert_as_wfdb(path)


def test_e01_georgia_headers_that_wfdb_rejects_are_read(realdata: Path) -> None:
    paths = sorted(realdata.glob("cinc2021/WFDB_Ga/*.hea"))
    assert len(paths) == 11
    for path in paths:
        with pytest.raises(wfdb.io.header.HeaderSyntaxError):
            wfdb.rdheader(str(path.with_suffix("")))
        header = parse_header(path.read_bytes(), comments=True)
        assert header.record_name == path.stem
        assert sum(comment.startswith("Dx:") for comment in header.comments) == 1
        sums = loadmat(path.with_suffix(".mat"))["val"].astype(np.int64).sum(axis=1)
        assert [int(total) % 65536 for total in sums] == [(line.checksum or 0) % 65536 for line in header.signals]


def test_challenge_2021_with_later_headers_and_fewer_leads(realdata: Path) -> None:
    paths = sorted(realdata.glob("cinc2021-wfdb-style-headers/**/*.hea"))
    assert len(paths) == 16
    for path in paths:
        record = read(path)
        assert np.array_equal(record.samples, loadmat(path.with_suffix(".mat"))["val"]), path.name
        if not ("reduced_leads" in path.parts and path.stem == "E07500"):
            assert_as_wfdb(path)
    shapes = {path.parent.name: read(path).samples.shape for path in paths if "reduced_leads" in path.parts}
    assert shapes == {"two_leads": (2, 5000), "six_leads": (6, 5000)}


def test_wfdb_sample_data(realdata: Path) -> None:
    folder = realdata / "wfdb-sample-data"
    refused: dict[Reason, set[str]] = {}
    n_read = 0
    for path in sorted(folder.rglob("*.hea")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        try:
            read(path)
        except RecordError as error:
            refused.setdefault(error.reason, set()).add(name)
            continue
        if name != "flac_3_constant":  # 16.8 million samples; its values are held against wfdb's in the test below
            assert_as_wfdb(path)
        n_read += 1
    assert refused == REFUSED
    assert n_read == 56


def test_a_small_compressed_file_with_millions_of_samples(realdata: Path) -> None:
    path = realdata / "wfdb-sample-data" / "flac_3_constant.hea"
    record = read(path)
    assert record.samples.shape == (3, 5_600_000)
    assert [np.unique(row).tolist() for row in record.samples] == [[25], [50], [75]]
    files = {"flac_3_constant.dat": path.with_suffix(".dat").read_bytes()}
    with pytest.raises(RecordError) as caught:
        decode(parse_header(path.read_bytes()), files, max_values=1_000_000)
    assert caught.value.reason is Reason.OVER_BUDGET


def test_one_record_over_two_signal_files(realdata: Path) -> None:
    record = read(realdata / "wfdb-sample-data" / "s0010_re.hea")
    assert record.samples.shape == (15, 38400)
    assert record.lead_names[-3:] == ("vx", "vy", "vz")
