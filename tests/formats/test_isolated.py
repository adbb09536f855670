"""A child that dies or hangs costs one answer; the next one comes; and no child outlives its parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qoq_data.formats.isolated import ChildError, Isolated

CHILD = """
import ctypes, os, signal, sys
from qoq_data.formats.isolated import serve

def answer(fields, data):
    work = fields["work"]
    if work == "die":
        os._exit(3)
    if work == "crash":
        ctypes.string_at(0)
    if work == "hang":
        signal.pause()
    if work == "print":
        os.write(1, b"noise")
        print("noise", flush=True)
    if work == "fault":
        raise ValueError("secret")
    if work == "flood":
        return {}, bytes(fields["size"])
    return {"length": len(data), "process": os.getpid()}, data[::-1]

if __name__ == "__main__":
    serve(answer)
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("child")
    (folder / "isolated_test_child.py").write_text(CHILD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield "isolated_test_child"


@pytest.fixture(scope="module")
def child(module: str) -> Iterator[Isolated]:
    isolated = Isolated(module)
    yield isolated
    isolated.close()


def works(isolated: Isolated) -> int:
    fields, data = isolated.call({"work": "reverse"}, b"abc", 10)
    assert (fields["length"], data) == (3, b"cba")
    return int(fields["process"])


def test_one_child_answers_one_after_the_other(child: Isolated) -> None:
    assert works(child) == works(child) == child.process_id


def test_messages_larger_than_any_pipe_go_through(child: Isolated) -> None:
    payload = os.urandom(9 << 20)
    assert child.call({"work": "reverse"}, payload, len(payload))[1] == payload[::-1]
    assert child.call({"work": "reverse"}, b"", 0)[1] == b""


def test_what_libraries_print_does_not_come_between(child: Isolated) -> None:
    assert child.call({"work": "print"}, b"ab", 2)[1] == b"ba"
    works(child)


@pytest.mark.parametrize("work", ["die", "crash", "fault"])
def test_a_death_costs_one_answer(child: Isolated, work: str) -> None:
    before = works(child)
    with pytest.raises(ChildError) as caught:
        child.call({"work": work}, b"", 10)
    assert "secret" not in str(caught.value)
    assert works(child) != before


def test_a_hang_costs_one_answer(module: str) -> None:
    isolated = Isolated(module, time_limit_s=0.2)
    works(isolated)  # starting has its own time
    with pytest.raises(ChildError, match=r"no answer in 0\.2 s"):
        isolated.call({"work": "hang"}, b"", 10)
    isolated.time_limit_s = 60
    works(isolated)
    isolated.close()


def test_a_child_that_dies_between_two_calls_is_started_again(child: Isolated) -> None:
    before = works(child)
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    assert works(child) != before


def test_an_answer_larger_than_asked_for_is_not_taken(child: Isolated) -> None:
    with pytest.raises(ChildError, match="more than was asked for"):
        child.call({"work": "flood", "size": 11}, b"", 10)
    works(child)


PARENT = """
import os, signal, sys
from qoq_data.formats.isolated import Isolated

child = Isolated(sys.argv[1])
process = child.call({"work": "reverse"}, b"", 10)[0]["process"]
print(process, flush=True)
if sys.argv[2] == "busy":
    os.set_blocking(child._child.stdout.fileno(), True)
    import json, struct
    text = json.dumps({"work": "hang", "time_limit_s": 60}).encode()
    child._child.stdin.write(struct.pack("<IQ", len(text), 0) + text)
if sys.argv[2] != "leave":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems end a busy child by its alarm")
@pytest.mark.parametrize("way", ["leave", "idle", "busy"])
def test_a_child_ends_with_its_parent_however_that_ends(module: str, way: str) -> None:
    package = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ["PYTHONPATH"]])}
    ended = subprocess.run(
        [sys.executable, "-c", PARENT, module, way], stdout=subprocess.PIPE, env=environment, check=False, timeout=60
    )
    assert ended.returncode == (0 if way == "leave" else -signal.SIGKILL)
    try:
        process = os.pidfd_open(int(ended.stdout))
    except ProcessLookupError:
        return
    assert select.select([process], [], [], 30)[0] == [process]
    os.close(process)
