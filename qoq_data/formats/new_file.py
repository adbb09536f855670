"""Files written in pieces, so that a reader finds all of one or none of it, and the errors of writing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qoq_data.errors import StorageError

if TYPE_CHECKING:
    from qoq_data.formats.storage import Store

TEMPORARY_SUFFIX = ".part"


class NewFile(io.RawIOBase):
    """A file written in pieces under a temporary name, its size and sha256 taken on the way.

    Leaving the context closes it, or removes it when an error leaves with it. ``StorageError`` says why a piece could
    not be written; a library between here and there may turn that into an error of its own, so leaving the context
    raises it in any case. A store that is no local folder puts objects in place whole, and final, on leaving.
    """

    def __init__(self, store: Store, path: str) -> None:
        super().__init__()
        self.path = path
        self.size = 0
        self._store = store
        self._digest = hashlib.sha256()
        self._pieces = bytearray()
        self._descriptor: int | None = None
        self._failure: OSError | None = None
        self._stopped: KeyboardInterrupt | None = None
        self.temporary = path if store.folder is None else f"{path}.{os.getpid()}{TEMPORARY_SUFFIX}"

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def has_failed(self) -> bool:
        """Whether a piece could not be written."""
        return self._failure is not None

    def __enter__(self) -> NewFile:
        if self._store.folder is not None:
            full = Path(self._store.full_path(self.temporary))
            try:
                full.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise storage_error(error, self.path) from error
        return self

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return self._write(data)
        except KeyboardInterrupt as stop:  # polars makes an error of its own of it
            self._stopped = stop
            raise

    def _write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self.size += len(view)
        if self._descriptor is None:
            self._pieces += view
            return len(view)
        try:
            written = 0
            while written < len(view):
                written += os.write(self._descriptor, view[written:])
        except OSError as error:
            self._failure = error
            raise
        return len(view)

    def _finish(self, *, sound: bool) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        elif sound:
            self._store.put(self.path, bytes(self._pieces))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._finish(sound=kind is None)
        except OSError as failure:
            self._failure = self._failure or failure
        finally:
            self.close()
        if kind is not None or self._failure is not None:
            if self._store.folder is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._store.full_path(self.temporary))  # noqa: PTH108
            if self._stopped is not None:
                raise self._stopped
            if self._failure is not None:
                raise storage_error(self._failure, self.path) from self._failure


def write_whole(path: Path, data: bytes) -> None:
    """Put a local file in place whole, over one that is there; raises ``OSError`` and leaves that one as it was."""
    part = path.with_name(f"{path.name}{TEMPORARY_SUFFIX}")
    part.write_bytes(data)
    part.replace(path)


def storage_error(error: OSError, path: str) -> StorageError:
    """The error of a failed write, with what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "there is no space left. Free some and run the same command again: finished shards are kept"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        what = "writing is not permitted there. Choose another --out, or change its permissions"
    else:
        what = os.strerror(error.errno or errno.EIO).lower()
    return StorageError(f"{path} of the output could not be written: {what}.")
