"""Builds that are killed at any moment go on where they were, and come out as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from qoq_data.corpus.build import build_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import BuildError, CorpusLockedError
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe
from tests.corpus.building import build, contents, make_inputs, make_recipe

Trees = Callable[[str], Path]
POLLS = 20_000
PRELOADED = [
    "pyarrow.parquet",
    "qoq_data.corpus.build",
    "qoq_data.engines.local",
    "qoq_data.sources.busi",
    "qoq_data.sources.ptb_xl",
]


def small_shards(*names: str) -> Recipe:
    return make_recipe(*names, shards={"rows": 4})


@pytest.fixture
def trees(pristine: Trees) -> dict[str, Path]:
    return {name: pristine(name) for name in ("ptb-xl", "busi")}


def _build_here(out: Path, workers: int, trees: dict[str, Path]) -> None:
    os.setsid()
    build(out, small_shards(*trees), trees, workers)


def start(out: Path, workers: int, trees: dict[str, Path]) -> BaseProcess:
    """A build in a process group of its own, forked from a server that has imported all of it once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_build_here, args=(out, workers, trees))
    process.start()
    return process


def wait_for_files(process: BaseProcess, out: Path, wanted: int) -> bool:
    """Whether so many files, temporary ones too, were seen below ``out`` before the process ended."""
    seen: set[str] = set()
    for _ in range(POLLS):
        for folder, _, names in os.walk(out):
            seen.update(f"{folder}/{name}" for name in names)
        if len(seen) >= wanted:
            return True
        process.join(0.002)
        if not process.is_alive():
            return False
    pytest.fail("the build neither wrote nor ended")


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "times"), [(1, 16), (2, 4)])
def test_kill_9_twenty_times_and_the_same_bytes_come_out(
    workers: int, times: int, trees: dict[str, Path], tmp_path: Path
) -> None:
    recipe = small_shards(*trees)
    build(tmp_path / "whole", recipe, trees)
    expected = contents(tmp_path / "whole")
    draw = random.Random(workers)
    in_the_middle = 0
    for attempt in range(times):
        out = tmp_path / f"{attempt}"
        process = start(out, workers, trees)
        in_time = wait_for_files(process, out, draw.randrange(1, 2 * len(expected)))
        # the parent alone in every other run: its workers have to end by themselves
        if in_time and process.pid:
            (os.killpg if attempt % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.join()
        shards = len(list((out / "data").rglob("*.parquet"))) if (out / "data").is_dir() else 0
        in_the_middle += not (out / "manifest.json").exists() and shards > 0
        build(out, recipe, trees)
        assert contents(out) == expected
        assert not list(out.rglob("*.part"))
    assert in_the_middle >= times // 3


@pytest.mark.slow
def test_a_build_killed_again_and_again_gets_there(trees: dict[str, Path], tmp_path: Path) -> None:
    recipe = small_shards(*trees)
    build(tmp_path / "whole", recipe, trees)
    out = tmp_path / "out"
    for wanted in (4, 12, 25):
        process = start(out, 1, trees)
        if wait_for_files(process, out, wanted) and process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    build(out, recipe, trees)
    assert contents(out) == contents(tmp_path / "whole")


def test_two_builds_into_one_folder_and_the_lock_of_a_killed_one(trees: dict[str, Path], tmp_path: Path) -> None:
    recipe, out = small_shards("busi"), tmp_path / "out"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, sys\n"
            "os.makedirs(sys.argv[1])\n"
            "held = open(sys.argv[1] + '/lock', 'w')\n"
            "fcntl.flock(held, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n",
            str(out / ".qoq"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(CorpusLockedError, match="Another build is writing into this folder"):
        build(out, recipe, trees)
    assert not (out / "data").exists()
    holder.kill()
    holder.communicate()
    build(out, recipe, trees)
    assert (out / "manifest.json").is_file()


def test_a_build_holds_its_lock_to_the_end_and_lets_go(trees: dict[str, Path], tmp_path: Path) -> None:
    recipe, out = small_shards("busi"), tmp_path / "out"
    refused = []

    def second_build(done: int, total: int, reused: bool) -> None:
        with pytest.raises(CorpusLockedError):
            build(out, recipe, trees)
        refused.append(done)

    build(out, recipe, trees, progress=second_build)
    assert len(refused) >= 3
    build(out, recipe, trees)


def _die(job: int) -> int:
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def test_a_worker_that_dies_is_one_clear_error() -> None:
    with pytest.raises(BuildError, match="A worker process died") as caught:
        list(LocalEngine(2).map(_die, range(8)))
    assert "\n" not in str(caught.value)


def _child_pid(_: int) -> int:
    return os.getpid()


def test_an_engine_that_is_closed_early_leaves_no_worker() -> None:
    results = LocalEngine(2).map(_child_pid, range(50))
    pid = next(results)
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_error_while_building_ends_the_workers(trees: dict[str, Path], tmp_path: Path) -> None:
    class Watched(LocalEngine):
        closed = False

        def map(self, function, jobs):  # type: ignore[no-untyped-def]
            try:
                yield from map(function, jobs)
            finally:
                self.closed = True

    def stop(done: int, total: int, reused: bool) -> None:
        raise KeyboardInterrupt

    engine, recipe = Watched(), small_shards("ptb-xl")
    with pytest.raises(KeyboardInterrupt) as caught:
        build_corpus(recipe, make_inputs(recipe, trees), Store(tmp_path / "out"), engine, stop)
    assert engine.closed
    assert caught.value
