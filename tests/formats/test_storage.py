"""One type over folders and ``fsspec`` addresses: what leads out is refused, what fails is typed, writes are whole."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import pytest

from qoq_data.errors import Reason, RecordError, StorageError, UsageError
from qoq_data.formats.storage import FileIdentity, RecordingStore, Store

LEADING_OUT = [
    "..", "../x", "a/../../x", "a/..", "/etc/passwd", "//x", "a\\..\\x", "..\\x", "a\0b", "\0",
]  # fmt: skip


@pytest.fixture(params=["folder", "file://", "memory://"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty root of each kind."""
    if request.param == "folder":
        yield Store(tmp_path)
    elif request.param == "file://":
        yield Store(f"file://{tmp_path}")
    else:
        name = uuid.UUID(bytes=hashlib.md5(request.node.name.encode()).digest()).hex  # noqa: S324 - a name, no secret
        yield Store(f"memory://{name}")
        memory = fsspec.filesystem("memory")
        if memory.exists(f"/{name}"):
            memory.rm(f"/{name}", recursive=True)


def raising(number: int) -> Callable[..., NoReturn]:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


def failure(act: Callable[[], Any]) -> RecordError:
    with pytest.raises(RecordError) as caught:
        act()
    return caught.value


@pytest.mark.parametrize("path", LEADING_OUT)
@pytest.mark.parametrize(
    "act", ["read", "identity", "exists", "is_folder", "names", "sha256", "remove", "walk", "write", "write_beside"]
)
def test_a_path_that_leads_out_is_refused_by_every_method(store: Store, path: str, act: str) -> None:
    extra = (b"x",) if act.startswith("write") else ()
    error = failure(lambda: list(store.walk(path)) if act == "walk" else getattr(store, act)(path, *extra))
    assert error.reason is Reason.PATH_OUTSIDE_ROOT
    assert path not in str(error)


def test_nothing_outside_was_touched_by_a_path_that_leads_out(tmp_path: Path) -> None:
    inside = Store(tmp_path / "root")
    failure(lambda: inside.write("../escaped", b"x"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["~/x", "~root", "a..b", "..a/b", "...", "%2e%2e/x", "a b", "é/ü.dat", "a:b", "*"])
def test_odd_names_stay_what_they_are(tmp_path: Path, path: str) -> None:
    Store(tmp_path).write(path, b"odd")
    assert (tmp_path / path).read_bytes() == b"odd"
    assert Store(tmp_path).read(path) == b"odd"
    assert list(Store(tmp_path).walk()) == [path]


def test_what_is_written_is_read_back_by_every_method(store: Store) -> None:
    data = bytes(range(256)) * 300
    store.write("b/deep/er.dat", memoryview(data))
    store.write("b.dat", b"")
    store.write("a.dat", b"1")
    store.write("a.dat", b"22")
    assert store.read("b/deep/er.dat") == data
    assert store.read("b.dat") == b""
    assert store.read("a.dat") == b"22"
    assert store.sha256("b/deep/er.dat") == hashlib.sha256(data).hexdigest()
    assert store.identity("b/deep/er.dat").size == len(data)
    assert store.names() == ["a.dat", "b.dat", "b/"]
    assert store.names("b") == ["deep/"]
    assert store.names("absent") == store.names("a.dat") == []
    assert list(store.walk()) == ["a.dat", "b.dat", "b/deep/er.dat"]
    assert list(store.walk("b")) == ["b/deep/er.dat"]
    assert [store.exists(path) for path in ("a.dat", "b", "c", "a.dat/x")] == [True, True, False, False]
    assert [store.is_folder(path) for path in ("", "b", "a.dat", "c")] == [True, True, False, False]
    store.remove("a.dat")
    store.remove("a.dat")
    assert not store.exists("a.dat")
    assert failure(lambda: store.read("a.dat")).reason is Reason.FILE_MISSING


def test_files_that_are_not_there_are_missing(store: Store) -> None:
    store.write("a.dat", b"1")
    for path in ("b.dat", "x/y/z.dat", *(["a.dat/z"] if store.folder is not None else [])):
        acts: list[Callable[[str], object]] = [store.read, store.identity, store.sha256]
        for act in acts:
            error = failure(partial(act, path))
            assert (error.reason, error.path) == (Reason.FILE_MISSING, path)


def test_a_folder_is_no_file(store: Store) -> None:
    store.write("folder/a.dat", b"1")
    acts: list[Callable[[str], object]] = [store.read, store.sha256]
    for act in acts:
        error = failure(partial(act, "folder"))
        assert error.reason in {Reason.FILE_UNREADABLE, Reason.FILE_MISSING}
        if store.folder is not None:
            assert (error.reason, error.detail) == (Reason.FILE_UNREADABLE, "a folder stands where a file should")


def test_a_read_takes_as_much_as_its_limit_and_no_more(store: Store) -> None:
    store.write("a.dat", b"x" * 100)
    assert len(store.read("a.dat", 100)) == 100
    error = failure(lambda: store.read("a.dat", 99))
    assert (error.reason, error.detail) == (Reason.OVER_BUDGET, "100 bytes are more than the limit of 99")


def test_a_file_that_claims_more_than_memory_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 43)
    assert failure(lambda: Store(tmp_path).read("sparse")).reason is Reason.OVER_BUDGET


def test_a_read_that_comes_in_pieces_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(range(200)))
    whole = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: whole(descriptor, min(size, 7)))
    assert Store(tmp_path).read("a") == bytes(range(200))


def test_a_write_that_goes_in_pieces_is_whole(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    Store(tmp_path).write("a", memoryview(data))
    assert (tmp_path / "a").read_bytes() == data


def test_a_named_pipe_does_not_stop_the_build(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert failure(lambda: Store(tmp_path).read("pipe")).reason is Reason.FILE_UNREADABLE


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_files_that_may_not_or_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "a").write_bytes(b"1")
    monkeypatch.setattr(os, "open", raising(number))
    error = failure(lambda: Store(tmp_path).read("a"))
    assert (error.reason, error.path) == (Reason.FILE_UNREADABLE, "a")
    assert error.detail == os.strerror(number).lower()
    assert str(tmp_path) not in str(error)


def test_a_folder_that_may_not_be_looked_into_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "scandir", raising(errno.EACCES))
    assert failure(lambda: Store(tmp_path).names()).reason is Reason.FILE_UNREADABLE


def test_a_name_longer_than_the_system_takes_is_a_typed_error(tmp_path: Path) -> None:
    assert failure(lambda: Store(tmp_path).read("x" * 300)).reason is Reason.FILE_UNREADABLE
    with pytest.raises(StorageError):
        Store(tmp_path).write("x" * 300, b"")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "not permitted"),
        (errno.EIO, "input/output"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_at_the_end_leaves_nothing_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str, step: str
) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with monkeypatch.context() as patched:
        patched.setattr(os, step, raising(number))
        with pytest.raises(StorageError, match=said) as caught:
            Store(tmp_path).write("a", b"after")
    assert str(tmp_path) not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"before"}


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    written: list[int] = []

    def write_on_a_nearly_full_disk(descriptor: int, data: Any) -> int:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(real_write(descriptor, data[:3]))
        return written[0]

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write_on_a_nearly_full_disk)
        with pytest.raises(StorageError, match="no space left") as caught:
            Store(tmp_path).write("folder/a.dat", b"longer than three")
    assert written == [3]
    assert "folder/a.dat" in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_written_in_pieces_knows_its_size_and_digest(store: Store) -> None:
    with store.create("folder/a") as file:
        for piece in (b"one", memoryview(b"two"), b"", b"three"):
            file.write(piece)
    store.commit(file.temporary, "folder/a")
    assert store.read("folder/a") == b"onetwothree"
    assert (file.size, file.sha256) == (11, store.sha256("folder/a"))
    assert list(store.walk()) == ["folder/a"]


def test_an_error_half_way_leaves_nothing_of_the_file(store: Store) -> None:
    def write_half() -> None:
        with store.create("a") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert list(store.walk()) == []


def test_a_file_stands_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StorageError):
        Store(tmp_path).write("a/b", b"1")
    (tmp_path / "folder/below").mkdir(parents=True)
    with pytest.raises(StorageError):
        Store(tmp_path).write("folder", b"1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder"]


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a", b"before")
    temporary = store.write_beside("a", b"after")
    assert temporary != "a"
    assert store.read("a") == b"before"
    assert store.read(temporary) == b"after"
    store.commit(temporary, "a")
    assert (store.read("a"), store.names()) == (b"after", ["a"])


def test_a_reader_never_sees_half_of_a_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    versions = [bytes([digit]) * 200_000 for digit in range(20)]
    store.write("a", versions[0])
    seen: list[bytes] = []
    done = threading.Event()

    def read_on() -> None:
        while not done.is_set():
            seen.append(store.read("a"))

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        for version in versions:
            store.write("a", version)
    finally:
        done.set()
        reader.join()
    assert seen
    assert set(seen) <= set(versions)


def test_identity_changes_with_size_and_with_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a", b"1")
    first = store.identity("a")
    assert first == store.identity("a")
    stat = (tmp_path / "a").stat()
    os.utime(tmp_path / "a", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert store.identity("a") == FileIdentity(1, str(stat.st_mtime_ns + 1)) != first


def test_walk_is_sorted_within_each_folder_and_the_same_whatever_the_order_of_writing(tmp_path: Path) -> None:
    paths = ["b/2", "b/10", "a.b/1", "a/1", "a/b/1", "c", "B", "é"]
    for name, order in (("one", paths), ("other", paths[::-1])):
        for path in order:
            Store(tmp_path / name).write(path, b"")
    walked = list(Store(tmp_path / "one").walk())
    assert walked == list(Store(tmp_path / "other").walk()) == ["B", "a.b/1", "a/1", "a/b/1", "b/10", "b/2", "c", "é"]


def test_a_store_goes_to_a_worker_and_back(store: Store) -> None:
    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"  # noqa: S301 - our own bytes
    assert isinstance(pickle.loads(pickle.dumps(RecordingStore(store.address))), RecordingStore)  # noqa: S301


def test_the_home_folder_is_for_addresses_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Store("~/corpus").write("a", b"1")
    assert (tmp_path / "corpus/a").read_bytes() == b"1"


def test_an_address_that_cannot_be_opened_is_a_usage_error() -> None:
    with pytest.raises(UsageError) as caught:
        Store("nonsense://secret-token@bucket/x")
    assert "secret-token" not in str(caught.value)


def test_a_recording_store_remembers_what_was_asked_for(store: Store) -> None:
    store.write("a", b"123")
    recording = RecordingStore(store.address)
    assert recording.read("a") == b"123"
    failure(lambda: recording.read("b"))
    failure(lambda: recording.identity("c"))
    failure(lambda: recording.read("../a"))
    assert recording.seen == {"a": store.identity("a"), "b": None, "c": None, "../a": None}
    assert recording.seen["a"] is not None
    assert recording.seen["a"].size == 3


def test_a_recording_store_forgets_nothing_that_was_over_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    recording = RecordingStore(tmp_path)
    failure(lambda: recording.read("a", 2))
    assert recording.seen == {"a": Store(tmp_path).identity("a")}
