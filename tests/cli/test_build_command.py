"""``qoq-data build`` as a person meets it: what stands on which stream, what it exits with, and what it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qoq_data.cli import main
from tests.corpus.building import contents, every_file
from tests.corpus.conftest import copied, pristine  # noqa: F401 - fixtures

Trees = Callable[[str], Path]
REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = """
name: small
sources:
  - name: ptb-xl
    skip_limit: 1
    options: {sampling_frequency_hz: 100}
  - name: busi
shards: {rows: 4}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process; returns its exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qoq-data", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def one_paragraph(err: str) -> None:
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert "/tmp/" not in err


@pytest.fixture
def raw(copied: Trees, tmp_path: Path) -> Path:  # noqa: F811
    """A folder that holds a raw tree a source, and a recipe beside it."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in ("ptb-xl", "busi"):
        copied(name).rename(folder / name)
    (tmp_path / "small.yaml").write_text(RECIPE)
    return folder


def test_a_build_says_its_progress_on_stderr_and_its_result_on_stdout(raw: Path, tmp_path: Path, run: Run) -> None:
    arguments = ("build", tmp_path / "small.yaml", "--raw", raw, "--out", tmp_path / "out", "--workers", 1)
    code, out, err = run(*arguments)
    assert code == 0
    assert "rows: " not in out
    assert "rows: " in err
    assert "ptb-xl" in out
    assert (tmp_path / "out" / "README.md").is_file()
    before = contents(tmp_path / "out")
    code, out, _ = run(*arguments, "--json")
    said = json.loads(out)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert said["rows"] == sum(shard["rows"] for shard in manifest["shards"])
    assert said["shards"] == len(manifest["shards"])
    assert contents(tmp_path / "out") == before


def test_dry_run_writes_nothing(raw: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = every_file(tmp_path)
    code, out, _ = run("build", "small.yaml", "--raw", raw, "--dry-run", "--json")
    assert code == 0
    plan = json.loads(out)
    assert [(one["source"], one["items"]) for one in plan] == [("ptb-xl", 16), ("busi", 14)]
    assert all(one["rows"] == one["train"] + one["validation"] + one["test"] for one in plan)
    code, out, _ = run("build", "busi", "--synthetic", "--patients", 6, "--dry-run")
    assert code == 0
    assert "busi" in out
    assert every_file(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["raw"]


def test_the_sample_of_the_command_is_that_of_the_recipe(raw: Path, tmp_path: Path, run: Run) -> None:
    build = ("build", tmp_path / "small.yaml", "--raw", raw, "--dry-run", "--json")
    whole = json.loads(run(*build)[1])
    half = json.loads(run(*build, "--sample", "0.5")[1])
    assert 0 < half[0]["items"] < whole[0]["items"]
    assert half == json.loads(run(*build, "--sample", "0.5")[1])


def test_raw_folders_are_found_by_the_environment(
    raw: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QOQ_RAW", raising=False)
    code, _, err = run("build", "busi", "--out", tmp_path / "out", "--dry-run")
    assert code == 2
    one_paragraph(err)
    assert "--raw" in err
    monkeypatch.setenv("QOQ_RAW", str(raw))
    assert run("build", "busi", "--out", tmp_path / "out", "--dry-run")[0] == 0


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "unknown source": (["build", "ptb-xk", "--raw", "."], 2, "'ptb-xl'"),
    "unknown among several": (["build", "ptb-xl", "bussi", "--raw", "."], 2, "bussi"),
    "no recipe file": (["build", "absent.yaml", "--raw", "."], 2, "absent.yaml"),
    "unknown recipe key": (["build", "key.yaml", "--raw", "."], 2, "'signals'"),
    "unknown nested key": (["build", "nested.yaml", "--raw", "."], 2, "'quality'"),
    "unknown task": (["build", "task.yaml", "--raw", "."], 2, "'rhythm'"),
    "unknown option": (["build", "option.yaml", "--raw", "."], 2, "'seven_class'"),
    "not YAML": (["build", "broken.yaml", "--raw", "."], 2, "line"),
    "a date that is none": (["build", "date.yaml", "--raw", "."], 2, "date.yaml"),
    "a list as a key": (["build", "list.yaml", "--raw", "."], 2, "list.yaml"),
    "not UTF-8": (["build", "latin.yaml", "--raw", "."], 2, "UTF-8"),
    "no raw folder": (["build", "busi", "--raw", "nowhere"], 1, "qoq-data info busi"),
    "another source's folder": (["build", "busi", "--raw", "raw/ptb-xl"], 1, "busi"),
    "out is a file": (["build", "busi", "--raw", "raw/busi", "--out", "small.yaml"], 1, "could not be written"),
    "out is a file, synthetic": (["build", "busi", "--synthetic", "--out", "small.yaml"], 1, "could not be written"),
    "verify nothing": (["verify", "nowhere"], 1, "no corpus"),
    "stats of nothing": (["stats", "nowhere"], 1, "no corpus"),
    "trace in nothing": (["trace", "busi/1/2", "--corpus", "nowhere"], 1, "no corpus"),
    "info of nothing": (["info", "bussi"], 2, "'busi'"),
    "doctor of nothing": (["doctor", "bussi", "--raw", "."], 2, "'busi'"),
    "recipe of nothing": (["recipe", "bussi"], 2, "'busi'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_paragraph_and_an_exit_code(
    mistake: str, raw: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = "name: x\nsources:\n  - name: ptb-xl\n"
    for name, text in {
        "key": base + "signal: {}\n",
        "nested": base + "images: {qualty: 90}\n",
        "task": base + "    tasks: [rythm]\n",
        "option": base + "    options: {seven_clas: corrected}\n",
        "broken": "name: [x\n",
        "date": "name: 2024-99-99\n",
        "list": "? [a, b]\n: 1\n",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    arguments, expected, said = MISTAKES[mistake]
    code, out, err = run(*arguments)
    assert (code, out) == (expected, "")
    one_paragraph(err)
    assert said in err


def test_all_problems_of_a_recipe_are_shown_at_once(tmp_path: Path, run: Run) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("name: X!\nsources:\n  - name: busi\nimages: {quality: 5, longest: 3}\nseeed: 1\n")
    code, _, err = run("build", recipe, "--raw", ".")
    assert code == 2
    assert "4 problem(s)" in err
    assert all(said in err for said in ("name", "quality", "longest", "'seed'"))


def test_a_wrong_option_is_a_usage_error(run: Run) -> None:
    for arguments in (["build"], ["build", "busi", "--workers", "0"], ["build", "busi", "--sample", "2"], ["bild"]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "") or arguments == ["build"]
        assert code == 2
        assert "Traceback" not in err


def test_the_skip_limit_is_an_error_and_keeps_the_shards(raw: Path, tmp_path: Path, run: Run) -> None:
    for path in list((raw / "busi").rglob("benign (*)_mask.png"))[:3]:
        path.unlink()
    code, _, err = run("build", "busi", "--raw", raw / "busi", "--out", tmp_path / "out", "--workers", 1)
    assert code == 1
    assert err.splitlines()[-1].startswith("error: busi: 3 of 14 items were skipped (3 file_missing)")
    assert list((tmp_path / "out/data").rglob("*.parquet"))
    code, _, err = run("verify", tmp_path / "out")
    assert code == 1
    assert "not finished" in err


def test_a_second_build_that_is_refused_leaves_no_trace(raw: Path, tmp_path: Path, run: Run) -> None:
    """Where the first build's raw files lie is remembered, not where the refused one's are."""
    import fcntl

    out = tmp_path / "out"
    assert run("build", "busi", "--raw", raw / "busi", "--out", out, "--workers", 1)[0] == 0
    before = {path: (out / path).read_bytes() for path in every_file(out)}
    other = shutil.copytree(raw / "busi", tmp_path / "other")
    with (out / ".qoq/lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, _, err = run("build", "busi", "--raw", other, "--out", out, "--workers", 1)
    assert code == 1
    one_paragraph(err)
    assert "Another build is writing" in err
    assert {path: (out / path).read_bytes() for path in every_file(out)} == before


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_is_one_line_and_130_and_keeps_finished_shards(workers: int, tmp_path: Path) -> None:
    recipe, out = tmp_path / "small.yaml", tmp_path / "out"
    recipe.write_text("name: small\nsources: [{name: ptb-xl}]\nrows_per_record: all\nshards: {rows: 1}\n")
    arguments = ["build", str(recipe), "--synthetic", "--patients", "24", "--out", str(out), "--workers", str(workers)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from qoq_data.cli import main; main()", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(20_000):
        if len(list((out / ".qoq/parts").rglob("*.json"))) >= 3:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.002)
            break
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 130
    assert stdout == ""
    said = [line for line in stderr.splitlines() if not line.startswith("rows: ")]
    assert said == ["stopped. What was finished is kept: run the same command again to go on."]
    assert not (out / "manifest.json").exists()
    assert len(list((out / "data").rglob("*.parquet"))) >= 3
