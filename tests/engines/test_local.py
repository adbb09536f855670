"""The local engine: every job once, errors come through as they are, and no worker outlives what it works for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qoq_data.engines.local import LocalEngine, default_workers
from qoq_data.errors import BuildError, Reason, RecordError, StorageError

REPOSITORY = Path(__file__).parents[2]


def process_of(job: int) -> tuple[int, int, str | None]:
    return job, os.getpid(), os.environ.get("POLARS_MAX_THREADS")


def fails(job: int) -> int:
    if job == 3:
        raise RecordError(Reason.FILE_MISSING, "the file is not there", "a/b.dat")
    if job == 13:
        raise StorageError("there is no space left")
    return job


def dies(job: int) -> int:
    if job == 2:
        os._exit(7)
    return job


def waits(job: str) -> None:
    """Say which process this is, then wait for an end that only comes from outside."""
    Path(job).with_name(f"worker-{os.getpid()}").touch()
    signal.pause()


@pytest.fixture
def others() -> set[int]:
    """Children that this process has before a test: engines of other tests, which stay."""
    return living_children()


def test_one_worker_works_in_this_process_in_order() -> None:
    assert [found[:2] for found in LocalEngine(1).map(process_of, range(5))] == [(n, os.getpid()) for n in range(5)]


def test_one_job_needs_no_other_process() -> None:
    assert [found[:2] for found in LocalEngine(4).map(process_of, [7])] == [(7, os.getpid())]


@pytest.mark.parametrize("workers", [1, 4])
def test_no_jobs_no_results(workers: int) -> None:
    assert list(LocalEngine(workers).map(process_of, [])) == []


def test_jobs_are_asked_for_one_by_one_when_there_is_one_worker() -> None:
    results = LocalEngine(1).map(fails, [1, 2, 3])
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(RecordError):
        next(results)


@pytest.mark.slow
def test_every_job_is_done_once_in_other_processes_of_one_polars_thread_each() -> None:
    before = os.environ.get("POLARS_MAX_THREADS")
    found = list(LocalEngine(2).map(process_of, range(23)))
    assert sorted(job for job, _, _ in found) == list(range(23))
    assert os.getpid() not in {process for _, process, _ in found}
    assert 1 <= len({process for _, process, _ in found}) <= 2
    assert {threads for _, _, threads in found} == {"1"}
    assert os.environ.get("POLARS_MAX_THREADS") == before


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "kind"), [([1, 2, 3, 4, 5], RecordError), ([11, 12, 13, 14], StorageError)])
def test_errors_of_workers_come_through_with_their_type_and_parts(
    jobs: list[int], kind: type[Exception], others: set[int]
) -> None:
    with pytest.raises(kind) as caught:
        list(LocalEngine(2).map(fails, jobs))
    if isinstance(caught.value, RecordError):
        assert (caught.value.reason, caught.value.path) == (Reason.FILE_MISSING, "a/b.dat")
    assert living_children() == others


@pytest.mark.slow
def test_a_worker_that_dies_is_a_build_error_that_says_what_to_do(others: set[int]) -> None:
    with pytest.raises(BuildError, match=r"A worker process died .* fewer --workers"):
        list(LocalEngine(2).map(dies, range(8)))
    assert living_children() == others


@pytest.mark.slow
def test_workers_end_when_nobody_wants_their_results_any_more(others: set[int]) -> None:
    results = LocalEngine(2).map(process_of, range(100))
    next(results)
    results.close()
    assert living_children() == others


_PARENT = """
import sys
from qoq_data.engines.local import LocalEngine
from tests.engines.test_local import waits

if __name__ == "__main__":
    list(LocalEngine(2).map(waits, [sys.argv[1] + "/a", sys.argv[1] + "/b"]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for the workers in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment) as parent:
        try:
            workers = next(found for found in polled(lambda: sorted(tmp_path.glob("worker-*")), 60) if len(found) == 2)
        finally:
            parent.kill()
    numbers = [int(path.name.removeprefix("worker-")) for path in workers]
    assert any(not any(is_alive(number) for number in numbers) for _ in polled(lambda: None, 30))


def polled(look: Any, seconds: float) -> Iterator[Any]:
    """What ``look`` sees, again and again for so many seconds at most."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield look()
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def living_children() -> set[int]:
    """Processes that this one started with ``multiprocessing`` and that still live."""
    import multiprocessing

    return {child.pid for child in multiprocessing.active_children() if child.pid}


def test_the_processors_counted_are_those_that_may_be_used() -> None:
    assert 1 <= default_workers() <= (os.cpu_count() or 1)


@pytest.mark.slow
def test_workers_stay_for_what_is_mapped_next_and_end_with_the_engine(others: set[int]) -> None:
    engine = LocalEngine(1 + 1)
    first = {process for _, process, _ in engine.map(process_of, range(12))}
    second = {process for _, process, _ in engine.map(process_of, range(12))}
    assert len(first | second) <= 2
    assert first & second
    assert living_children() >= others | first | second
    del engine
    assert living_children() == others


@pytest.mark.slow
def test_an_engine_works_again_after_a_worker_died() -> None:
    engine = LocalEngine(2)
    with pytest.raises(BuildError):
        list(engine.map(dies, range(8)))
    assert sorted(job for job, _, _ in engine.map(process_of, range(5))) == list(range(5))
