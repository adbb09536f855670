"""Roots of raw trees and of outputs: one type over local folders and any ``fsspec`` address.

Local folders are read and written through the operating system directly (a record costs two small reads), everything
else through ``fsspec``. Paths are relative to the root, with ``/``; one that leads out of it is refused.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from qoq_data.errors import Reason, RecordError, UsageError
from qoq_data.formats.new_file import NewFile, storage_error

READ_LIMIT = 4 << 30
"""Most bytes that one read takes unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Cheap identity of a file: its size in bytes, and its modification time in ns or the store's entity tag."""

    size: int
    modified: str


class Store:
    """A root below which files are read and written by relative path.

    ``address`` is a folder or an ``fsspec`` address such as ``s3://bucket/folder`` or ``memory://folder``.
    """

    def __init__(self, address: str | Path) -> None:
        text = str(address)
        self.address = text
        self.folder: Path | None = None
        self._filesystem: Any = None
        if "://" in text and not text.startswith("file://"):
            import fsspec

            try:
                self._filesystem, self._prefix = fsspec.core.url_to_fs(text)
            except (ImportError, ValueError) as error:
                scheme = text.split("://", maxsplit=1)[0]
                raise UsageError(f"the address {scheme}://… cannot be opened: {error}") from error
        else:
            self.folder = Path(text.removeprefix("file://")).expanduser()
            self._root = str(self.folder)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return type(self), (self.address,)

    def __repr__(self) -> str:
        return f"Store({self.address!r})"

    def full_path(self, path: str) -> str:
        """The path as its file system knows it; raises ``RecordError`` for one that leads out of the root."""
        if path.startswith("/") or "\\" in path or "\0" in path or ".." in path.split("/"):
            raise RecordError(Reason.PATH_OUTSIDE_ROOT, "a path of the tables leads out of the source's folder")
        return f"{self._root}/{path}" if self.folder is not None else f"{self._prefix}/{path}".rstrip("/")

    def read(self, path: str, limit: int = READ_LIMIT) -> bytes:
        """All bytes of a file; raises ``RecordError`` when it is absent, unreadable or larger than ``limit``."""
        full = self.full_path(path)
        try:
            if self.folder is not None:
                return _read_local(full, path, limit)[0]
            size = self._filesystem.size(full)
            if size is not None and size > limit:
                raise RecordError(Reason.OVER_BUDGET, f"{size} bytes are more than the limit of {limit}", path)
            return bytes(self._filesystem.cat_file(full))
        except OSError as error:
            raise _record_error(error, path) from error

    def identity(self, path: str) -> FileIdentity:
        """Size and modification of a file; raises ``RecordError`` when it is absent."""
        full = self.full_path(path)
        try:
            if self.folder is not None:
                found = os.stat(full)  # noqa: PTH116 - called a million times; Path costs five times as much
                return FileIdentity(found.st_size, str(found.st_mtime_ns))
            info = self._filesystem.info(full)
        except OSError as error:
            raise _record_error(error, path) from error
        tag = next((str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime", "created") if key in info), "")
        return FileIdentity(int(info["size"]), tag)

    def exists(self, path: str) -> bool:
        full = self.full_path(path)
        return os.path.exists(full) if self.folder is not None else bool(self._filesystem.exists(full))  # noqa: PTH110

    def is_folder(self, path: str = "") -> bool:
        full = self.full_path(path)
        return os.path.isdir(full) if self.folder is not None else bool(self._filesystem.isdir(full))  # noqa: PTH112

    def names(self, path: str = "") -> list[str]:
        """Sorted names in a folder, those of folders with a closing ``/``; empty when there is no such folder.

        Raises ``RecordError`` for a folder that may not be looked into.
        """
        full = self.full_path(path)
        try:
            if self.folder is not None:
                if not Path(full).is_dir():
                    return []
                with os.scandir(full) as entries:
                    return sorted(entry.name + ("/" if entry.is_dir() else "") for entry in entries)
            if not self._filesystem.isdir(full):
                return []
            listed = self._filesystem.ls(full, detail=True)
        except OSError as error:
            raise _record_error(error, path) from error
        return sorted(
            PurePosixPath(entry["name"]).name + ("/" if entry["type"] == "directory" else "") for entry in listed
        )

    def walk(self, path: str = "") -> Iterator[str]:
        """Relative paths of all files below a folder, sorted within each folder."""
        for name in self.names(path):
            below = f"{path}/{name}" if path else name
            if name.endswith("/"):
                yield from self.walk(below.rstrip("/"))
            else:
                yield below

    def sha256(self, path: str) -> str:
        """Digest of a file, read in pieces."""
        digest = hashlib.sha256()
        full = self.full_path(path)
        try:
            with open(full, "rb") if self.folder is not None else self._filesystem.open(full, "rb") as file:  # noqa: PTH123
                while piece := file.read(1 << 20):
                    digest.update(piece)
        except OSError as error:
            raise _record_error(error, path) from error
        return digest.hexdigest()

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write a file so that a reader finds all of it or none: beside its name, fsync, rename.

        Raises ``StorageError`` when there is no space or no permission; then nothing of the file remains.
        """
        self.commit(self.write_beside(path, data), path)

    def write_beside(self, path: str, data: bytes | memoryview) -> str:
        """Write a file under a temporary name and return that name: ``commit`` makes it final, maybe elsewhere."""
        with self.create(path) as file:
            file.write(data)
        return file.temporary

    def create(self, path: str) -> NewFile:
        """A file to be written in pieces, beside its final name; to be used as a context. See ``NewFile``."""
        self.full_path(path)  # the temporary name of a path that leads out may be sound
        return NewFile(self, path)

    def put(self, path: str, data: bytes) -> None:
        """Put an object in place whole, in a store that is no local folder."""
        self._filesystem.pipe_file(self.full_path(path), data)

    def commit(self, temporary: str, path: str) -> None:
        """Make a file of ``write_beside`` last (fsync) and give it its name."""
        if temporary == path:
            return
        try:
            descriptor = os.open(self.full_path(temporary), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(self.full_path(temporary), self.full_path(path))  # noqa: PTH105
        except OSError as error:
            with contextlib.suppress(OSError):
                self.remove(temporary)
            raise storage_error(error, path) from error

    def remove(self, path: str) -> None:
        full = self.full_path(path)
        try:
            if self.folder is not None:
                Path(full).unlink(missing_ok=True)
            elif self._filesystem.exists(full):
                self._filesystem.rm_file(full)
        except OSError as error:
            raise storage_error(error, path) from error


def _read_local(full: str, path: str, limit: int) -> tuple[bytes, FileIdentity]:
    # O_NONBLOCK: a named pipe in a raw tree would otherwise stop the build for ever.
    descriptor = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "something that is no file"
            raise RecordError(Reason.FILE_UNREADABLE, f"{what} stands where a file should", path)
        size = found.st_size
        if size > limit:
            raise RecordError(Reason.OVER_BUDGET, f"{size} bytes are more than the limit of {limit}", path)
        data = os.read(descriptor, size + 1)
        while len(data) < size:
            piece = os.read(descriptor, size - len(data))
            if not piece:
                break
            data += piece
    finally:
        os.close(descriptor)
    return data, FileIdentity(size, str(found.st_mtime_ns))


def _record_error(error: OSError, path: str) -> RecordError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return RecordError(Reason.FILE_MISSING, "the file is not there", path)
    if isinstance(error, IsADirectoryError):
        return RecordError(Reason.FILE_UNREADABLE, "a folder stands where a file should", path)
    return RecordError(Reason.FILE_UNREADABLE, os.strerror(error.errno or errno.EIO).lower(), path)


class RecordingStore(Store):
    """A store that remembers the identity of every file that was asked for, None for those that are not there."""

    def __init__(self, address: str | Path) -> None:
        super().__init__(address)
        self.seen: dict[str, FileIdentity | None] = {}

    def read(self, path: str, limit: int = READ_LIMIT) -> bytes:
        if self.folder is None:
            self.identity(path)
            return super().read(path, limit)
        try:
            data, self.seen[path] = _read_local(self.full_path(path), path, limit)
        except OSError as error:
            self._note(path)
            raise _record_error(error, path) from error
        except RecordError:
            self._note(path)
            raise
        return data

    def _note(self, path: str) -> None:
        """A file that is there but cannot be read has an identity too: by None it would never be found unchanged."""
        with contextlib.suppress(RecordError):
            self.identity(path)

    def identity(self, path: str) -> FileIdentity:
        try:
            found = super().identity(path)
        except RecordError:
            self.seen[path] = None
            raise
        self.seen[path] = found
        return found
