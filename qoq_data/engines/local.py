"""Shards rendered by processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_sentinel
from typing import TypeVar

from qoq_data.errors import BuildError

Job = TypeVar("Job")
Result = TypeVar("Result")

_QUEUED_PER_WORKER = 2


class LocalEngine:
    """Runs jobs in ``workers`` processes, or in this one when there is one; results come as they are finished.

    Workers are spawned, not forked: polars' threads do not survive a fork. They start when they are first needed, stay
    for what is mapped next, and end with the engine or with this process, however it ends.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._stop: Callable[[], object] = lambda: None

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Generator[Result, None, None]:
        if self.workers == 1 or len(jobs) <= 1:
            yield from map(function, jobs)
            return
        pool = self._started()
        finished = False
        try:
            with _one_polars_thread():
                yield from _bounded(pool, function, jobs, self.workers * _QUEUED_PER_WORKER)
            finished = True
        except BrokenProcessPool as error:
            raise BuildError(
                "A worker process died (out of memory, or a decoder crashed). Finished shards are kept: "
                "run the same command again, with fewer --workers if memory is short."
            ) from error
        finally:
            if not finished:
                for process in list((pool._processes or {}).values()):  # noqa: SLF001 - no public way to stop at once
                    process.kill()
                self._stop()
                self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_start_worker)
            self._stop = weakref.finalize(self, pool.shutdown, wait=True, cancel_futures=True)
            self._pool = pool
        return self._pool


def default_workers() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bounded(
    pool: ProcessPoolExecutor, function: Callable[[Job], Result], jobs: Sequence[Job], at_once: int
) -> Iterator[Result]:
    """Results in the order they finish, with no more jobs in flight than keeps the workers busy."""
    waiting = iter(jobs)
    running: set[Future[Result]] = set()
    while True:
        for job in waiting:
            running.add(pool.submit(function, job))
            if len(running) >= at_once:
                break
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


@contextlib.contextmanager
def _one_polars_thread() -> Iterator[None]:
    """Workers are one thread each: as many as cores, each with as many threads as cores, would only wait."""
    before = os.environ.get("POLARS_MAX_THREADS")
    os.environ["POLARS_MAX_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["POLARS_MAX_THREADS"]
        else:
            os.environ["POLARS_MAX_THREADS"] = before


def _start_worker() -> None:
    """Leave ctrl-C to the parent, and end when the parent does, even by ``kill -9``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for_sentinel([sentinel])
    os._exit(1)
