"""Spoilt files: a row, a typed reason, or one clear error; never another exception, a hang, or a feast."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qoq_data.corpus.items import scan_items
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.errors import RecordError, SourceError, StorageError
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe
from qoq_data.record import Media
from qoq_data.source import SourceOptions
from tests.corpus.building import build, make_recipe, record_path, source

Trees = Callable[[str], Path]
PICTURES = "Dataset_BUSI_with_GT"
MEMORY_KB = 1_000_000
SECONDS = 60
GENEROUS = settings(
    derandomize=True,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

Change = tuple[str, float, int, bytes]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(("put", "put", "put", "cut", "insert", "drop", "repeat")),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 64),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from((b"-1", b"999999999999", b"nan", b"\n", b",", b'"', b"\0")),
        ),
    ),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, changes: list[Change]) -> bytes:
    """The bytes with a few places overwritten, cut off, inserted, dropped or repeated."""
    for kind, place, length, new in changes:
        at = int(place * len(data))
        if kind == "put":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "drop":
            data = data[:at] + data[at + length :]
        else:
            data = data[: at + length] + data[at : at + length] + data[at + length :]
    return data


def _too_long(*_: object) -> None:
    raise AssertionError("one file kept the reader busy for a minute")


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """No more memory at its peak than the budget, over all examples of a test, and no hang."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    handler = signal.signal(signal.SIGALRM, _too_long)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KB


def outcome(tree: Path, references: list[MediaReference], recipe: Recipe) -> Media | RecordError:
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return render_media(Store(tree), references, recipe)
    except RecordError as error:
        assert str(tree) not in str(error)
        assert "\n" not in str(error)
        return error


@pytest.fixture(scope="module")
def ecg(tmp_path_factory: pytest.TempPathFactory, pristine: Trees) -> tuple[Path, bytes, bytes]:
    folder = tmp_path_factory.mktemp("spoilt-ecg")
    record = record_path(pristine("ptb-xl"), 1)
    header, data = record.with_suffix(".hea").read_bytes(), record.with_suffix(".dat").read_bytes()
    return folder, header, data


def ecg_outcome(folder: Path, header: bytes, data: bytes) -> Media | RecordError:
    (folder / "00001_lr.hea").write_bytes(header)
    (folder / "00001_lr.dat").write_bytes(data)
    recipe = make_recipe(
        "ptb-xl", signals={"resample_hz": 125, "leads": ["II", "aVR", "V1"], "checksum_mismatch": "finding"}
    )
    return outcome(folder, [MediaReference("ecg", "wfdb", "00001_lr.hea", "")], recipe)


@GENEROUS
@given(changes=CHANGES)
@example(changes=[("insert", 0.0, 1, b"\xef\xbb\xbf")])
@example(changes=[("put", 0.9, 1, b"\xff\xfe")])
def test_headers(changes: list[Change], ecg: tuple[Path, bytes, bytes]) -> None:
    folder, header, data = ecg
    found = ecg_outcome(folder, mutated(header, changes), data)
    if isinstance(found, Media):
        assert found.signals[0].samples.shape[0] == 3


@GENEROUS
@given(changes=CHANGES)
def test_signal_files(changes: list[Change], ecg: tuple[Path, bytes, bytes]) -> None:
    folder, header, data = ecg
    ecg_outcome(folder, header, mutated(data, changes))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, pristine: Trees) -> tuple[Path, bytes, bytes]:
    home = pristine("busi") / PICTURES / "benign"
    folder = tmp_path_factory.mktemp("spoilt-picture")
    return folder, (home / "benign (3).png").read_bytes(), (home / "benign (3)_mask.png").read_bytes()


def picture_outcome(folder: Path, image: bytes, mask: bytes) -> Media | RecordError:
    (folder / "p.png").write_bytes(image)
    (folder / "m.png").write_bytes(mask)
    references = [MediaReference("image", "image", "p.png", ""), MediaReference("mask", "mask", "m.png", "lesion")]
    return outcome(folder, references, make_recipe("busi", masks=True, images={"longest_side": 100}))


@GENEROUS
@given(changes=CHANGES, early=st.booleans())
def test_pictures(changes: list[Change], early: bool, picture: tuple[Path, bytes, bytes]) -> None:
    """Half of the examples in the first hundred bytes, where the sizes stand."""
    folder, image, mask = picture
    head = 100 if early else len(image)
    picture_outcome(folder, mutated(image[:head], changes) + image[head:], mask)


@GENEROUS
@given(changes=CHANGES, early=st.booleans())
def test_masks(changes: list[Change], early: bool, picture: tuple[Path, bytes, bytes]) -> None:
    folder, image, mask = picture
    head = 100 if early else len(mask)
    found = picture_outcome(folder, image, mutated(mask[:head], changes) + mask[head:])
    if isinstance(found, Media):
        assert len(found.masks) == 1


TABLES = [
    ("ptb-xl", "ptbxl_database.csv"),
    ("ptb-xl", "scp_statements.csv"),
    ("mimic-ecg", "record_list.csv"),
    ("mimic-ecg", "machine_measurements.csv"),
    ("mimic-ecg", "waveform_note_links.csv"),
]


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_tables(name: str, table: str, pristine: Trees, tmp_path: Path) -> None:
    tree = pristine(name)
    for path in tree.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    (tmp_path / "files").mkdir()
    whole = (tree / table).read_bytes()
    options = source(name).options_model()

    @settings(GENEROUS, max_examples=100)
    @given(changes=CHANGES)
    def one_table(changes: list[Change]) -> None:
        (tmp_path / table).write_bytes(mutated(whole, changes))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            items = scan_items(source(name), Store(tmp_path), options)
            source(name).version(Store(tmp_path))
        except SourceError as error:
            assert str(tmp_path) not in str(error)
            assert "\n" not in str(error)
            return
        assert items["item"].is_unique().all()

    one_table()


@GENEROUS
@given(
    name=st.one_of(
        st.text(max_size=20), st.sampled_from(("benign (1).png", "benign (0).png", "benign (1)_mask_99.png"))
    )
)
def test_file_names(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    encoded = name.encode("utf-8", "surrogatepass")
    if (
        not name
        or b"/" in encoded
        or b"\0" in encoded
        or name in (".", "..")
        or any("\ud800" <= c <= "\udfff" for c in name)
    ):
        return
    tree = tmp_path_factory.mktemp("names")
    for label in ("normal", "benign", "malignant"):
        (tree / PICTURES / label).mkdir(parents=True)
        (tree / PICTURES / label / f"{label} (1).png").touch()
    (tree / PICTURES / "benign" / name).touch()
    items = scan_items(source("busi"), Store(tree), SourceOptions())
    assert 3 <= items.height <= 4


WORST = """
import resource, sys
from pathlib import Path
import numpy, polars
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.errors import RecordError
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
recipe = Recipe.model_validate({"name": "x", "sources": [{"name": "ptb-xl"}]})
for path in sorted(Path(sys.argv[1]).glob("*.hea")):
    try:
        render_media(Store(sys.argv[1]), [MediaReference("ecg", "wfdb", path.name, "")], recipe)
        print(path.stem, "row")
    except RecordError as error:
        print(path.stem, error.reason)
"""


def test_claims_are_checked_before_memory_is_asked_for(tmp_path: Path) -> None:
    """In a process that has 1 GB to ask for over what it has: the claims here are of terabytes."""
    line = "a.dat 16 200(0)/mV 16 0 0 0 0 I"
    (tmp_path / "a.dat").write_bytes(bytes(100))
    with (tmp_path / "big.dat").open("wb") as file:
        file.truncate(1 << 40)
    headers = {
        "samples": (f"a 1 500 {2**40}\n{line}\n", "over_budget"),
        "samples64": (f"a 1 500 {2**70}\n{line}\n", ""),
        "signals": (f"a 1000000 500 10\n{line}\n", "header_mismatch"),
        "lines": ("a 20000 500 10\n" + "".join(f"a.dat 16 200 16 0 0 0 0 L{i}\n" for i in range(20000)), ""),
        "segments": (f"a/1000000 1 500 {2**40}\n", "multi_segment"),
        "frames": (f"a 1 500 {2**40}\n{line.replace(' 16 200', ' 16x999999 200')}\n", ""),
        "offset": (f"a 1 500 10\n{line.replace(' 16 200', f' 16+{2**40} 200')}\n", "file_truncated"),
        "sparse": (f"a 1 500 10\n{line.replace('a.dat', 'big.dat')}\n", "over_budget"),
        "endless": (f"a 1 500\n{line.replace('a.dat', 'big.dat')}\n", "over_budget"),
    }
    for name, (text, _) in headers.items():
        (tmp_path / f"{name}.hea").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", WORST, str(tmp_path), str(4 << 30)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    assert set(found) == set(headers)
    for name, (_, reason) in headers.items():
        assert found[name] == reason if reason else found[name] != "row", name


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(copied: Trees) -> None:
    tree = copied("ptb-xl")
    header = record_path(tree, 1).with_suffix(".hea")
    header.unlink()
    os.mkfifo(header)
    reference = MediaReference("ecg", "wfdb", header.relative_to(tree).as_posix(), "")
    found = outcome(tree, [reference], make_recipe("ptb-xl"))
    assert isinstance(found, RecordError)
    assert found.reason == "file_unreadable"


@pytest.mark.parametrize(
    "path", ["../x.hea", "/etc/passwd", "a/../../x.hea", "a\0b.hea", "a\\..\\x.hea", "x" * 5000 + ".hea"]
)
def test_paths_that_lead_elsewhere(path: str, tmp_path: Path) -> None:
    found = outcome(tmp_path, [MediaReference("ecg", "wfdb", path, "")], make_recipe("ptb-xl"))
    assert isinstance(found, RecordError)
    assert found.reason in ("path_outside_root", "file_missing", "file_unreadable")


LIMITED = """
import resource, signal, sys
from pathlib import Path
from tests.corpus.building import build, make_recipe
from qoq_data.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    build(Path(sys.argv[1]), make_recipe("ptb-xl", shards={"rows": 8}), {"ptb-xl": Path(sys.argv[2])})
except StorageError as error:
    print(error)
    sys.exit(7)
"""


def test_a_file_size_limit_is_one_storage_error(pristine: Trees, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "out"), str(pristine("ptb-xl"))],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "file too large" in done.stdout
    assert str(tmp_path) not in done.stdout
    assert not list((tmp_path / "out").rglob("*.part"))


def test_no_permission_to_write_is_one_storage_error(
    pristine: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a folder that may not be written, or by the system's answer where the tests run as root."""
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o555)
    if os.access(out, os.W_OK):
        mkdir = Path.mkdir

        def refused(path: Path, *args: Any, **keys: Any) -> None:
            if out in path.parents:
                raise PermissionError(13, "Permission denied", str(path))
            mkdir(path, *args, **keys)

        monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(StorageError, match="writing is not permitted there") as caught:
        build(out, make_recipe("ptb-xl"), {"ptb-xl": pristine("ptb-xl")})
    assert str(tmp_path) not in str(caught.value)
    out.chmod(0o755)


def test_an_out_folder_that_is_a_file_is_one_storage_error(pristine: Trees, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("something else")
    with pytest.raises(StorageError) as caught:
        build(tmp_path / "out", make_recipe("ptb-xl"), {"ptb-xl": pristine("ptb-xl")})
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert (tmp_path / "out").read_text() == "something else"
