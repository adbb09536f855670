"""Work of native libraries in a process of its own, so that a crash or a hang costs one item and not the build.

One child a process, started when it is first needed and again after a death. A message is a length, a JSON object and
raw bytes; nothing is unpickled on either side. A child ends with its parent: its input closes, on Linux the kernel
tells it, and everywhere an alarm ends a job that outlasts its limit.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

TIME_LIMIT_S: Final = 120.0
"""Longest time for one job: the largest film as JPEG 2000 takes four seconds."""

START_LIMIT_S: Final = 60.0
"""Time that a child has beside that for starting, on a machine that is busy."""

MEMORY_LIMIT: Final = 8 << 30
"""Most address space of a child, where the system keeps to it."""

_HEADER: Final = struct.Struct("<IQ")  # lengths of the JSON and of the bytes behind it
_PIECE: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1

Message = tuple[Mapping[str, Any], bytes | memoryview]


class ChildError(Exception):
    """The child died, or did not answer in time; ``text`` says which, without content."""


class Isolated:
    """A child that runs ``python -m module`` and answers one message after the other; see ``serve``."""

    def __init__(self, module: str, time_limit_s: float = TIME_LIMIT_S) -> None:
        self.module = module
        self.time_limit_s = time_limit_s
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._jobs = 0
        atexit.register(self.close)

    def call(self, fields: Mapping[str, Any], data: bytes, max_reply: int) -> tuple[dict[str, Any], memoryview]:
        """The child's answer; raises ``ChildError`` where there is none, or one of more than ``max_reply`` bytes."""
        child = self._running()
        limit = self.time_limit_s + (0 if self._jobs else START_LIMIT_S)
        self._jobs += 1
        text = json.dumps({**fields, "time_limit_s": self.time_limit_s}).encode()
        try:
            return self._exchange(child, [_HEADER.pack(len(text), len(data)) + text, data], limit, max_reply)
        except ChildError:
            self.close()
            raise
        except (OSError, ValueError) as error:  # ValueError: an answer that is no JSON
            self.close()
            raise ChildError("the decoding process ended") from error

    def close(self) -> None:
        """End the child, if there is one of this process."""
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    @property
    def process_id(self) -> int | None:
        """Of the running child."""
        return self._child.pid if self._child is not None and self._owner == os.getpid() else None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._owner == os.getpid() and self._child.poll() is None:
            return self._child
        self.close()
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        # -P: the working folder is no place for modules; one named dl in it breaks gdcm
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        for pipe in (self._child.stdin, self._child.stdout):
            _widen(pipe)
        self._owner = os.getpid()
        self._jobs = 0
        return self._child

    def _exchange(
        self, child: subprocess.Popen[bytes], parts: list[bytes], limit: float, max_reply: int
    ) -> tuple[dict[str, Any], memoryview]:
        """Write and read by turns as the pipes allow, so that neither side can wait for the other for ever."""
        assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 - they were asked for
        end = time.monotonic() + limit
        sending = [memoryview(part) for part in parts if part]
        header = memoryview(bytearray(_HEADER.size))
        body = memoryview(b"")
        missing = header
        os.set_blocking(child.stdin.fileno(), False)
        os.set_blocking(child.stdout.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            selector.register(child.stdin, selectors.EVENT_WRITE)
            while missing:
                ready = selector.select(max(0.0, end - time.monotonic()))
                if not ready:
                    raise ChildError(f"the decoding process gave no answer in {limit:g} s")
                for key, _ in ready:
                    if key.fileobj is child.stdin:
                        sent = os.write(key.fd, sending[0][:_PIECE])
                        sending[0] = sending[0][sent:]
                        if not sending[0]:
                            sending.pop(0)
                        if not sending:
                            selector.unregister(child.stdin)
                    else:
                        got = os.readv(key.fd, [missing])
                        if not got:
                            raise ChildError("the decoding process ended")
                        missing = missing[got:]
                if not missing and not body:
                    text_length, data_length = _HEADER.unpack(header)
                    if text_length > _PIECE or data_length > max_reply:
                        raise ChildError("the decoding process answered with more than was asked for")
                    body = missing = memoryview(bytearray(text_length + data_length))
        return json.loads(bytes(body[:text_length])), body[text_length:]


def _widen(pipe: IO[bytes] | None) -> None:
    """Fewer turns between the processes for a film of 15 MB, where the system allows."""
    if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIECE)


def serve(answer: Callable[[Mapping[str, Any], bytes], Message]) -> None:
    """The child's side: ``answer`` messages until the input ends. What goes wrong in it ends the process."""
    _end_with_parent()
    source, target = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # libraries print, and the pipe is for answers
    while True:
        lengths = source.read(_HEADER.size)
        if len(lengths) < _HEADER.size:
            return
        text_length, data_length = _HEADER.unpack(lengths)
        fields = json.loads(source.read(text_length))
        data = source.read(data_length)
        signal.alarm(int(fields["time_limit_s"]) + 1)
        reply, raw = answer(fields, data)
        signal.alarm(0)
        _send(target, reply, raw)


def _send(target: BinaryIO, reply: Mapping[str, Any], raw: bytes | memoryview) -> None:
    text = json.dumps(reply).encode()
    target.write(_HEADER.pack(len(text), len(raw)) + text)
    target.write(raw)
    target.flush()


def _end_with_parent() -> None:
    import resource

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            sys.exit(0)
