"""A second build does what the first left to do, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qoq_data.corpus import planning
from qoq_data.corpus.verify import verify_corpus
from qoq_data.errors import SkipLimitError
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe
from tests.corpus.building import (
    build,
    contents,
    every_file,
    items_of,
    ledger_of,
    make_recipe,
    record_path,
    rewrite_record,
    rows_of,
    touch_later,
)

Trees = Callable[[str], Path]


def small(*names: str, **keys: Any) -> Recipe:
    return make_recipe(*names, **({"shards": {"rows": 4}} | keys))


def rebuilt(out: Path, recipe: Recipe, trees: dict[str, Path]) -> set[str]:
    """Shards that a build writes, by what happens to the files; the build's own word has to say the same."""
    before = every_file(out)
    flags: list[bool] = []
    build(out, recipe, trees, progress=lambda done, total, reused: flags.append(reused))
    after = every_file(out)
    changed = {path for path in after if path.startswith("data/") and after[path] != before.get(path)}
    assert len(changed) == flags.count(False)
    return changed


@pytest.fixture
def trees(copied: Trees) -> dict[str, Path]:
    return {name: copied(name) for name in ("ptb-xl", "busi")}


def test_an_unchanged_build_renders_nothing(trees: dict[str, Path], tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", small("ptb-xl", "busi")
    build(out, recipe, trees)
    before = contents(out)
    assert rebuilt(out, recipe, trees) == set()
    assert contents(out) == before


def test_progress_counts_every_row_once(trees: dict[str, Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int, bool]] = []
    manifest = build(tmp_path / "out", small("ptb-xl", "busi"), trees, progress=lambda *said: seen.append(said))
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert {total for _, total, _ in seen} == {manifest.rows} == {seen[-1][0]}
    assert not any(reused for _, _, reused in seen)


def test_a_changed_raw_file_rebuilds_its_shard_alone(trees: dict[str, Path], tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", small("ptb-xl", "busi")
    build(out, recipe, trees)
    rewrite_record(record_path(trees["ptb-xl"], 5), lambda samples, names: (samples[:, ::-1], names))
    touch_later(record_path(trees["ptb-xl"], 5).with_suffix(".dat"))
    holding = {f"data/{path.relative_to(out / 'data').as_posix()}" for path in shards_with(out, "ptb-xl/00005/")}
    assert rebuilt(out, recipe, trees) == holding
    fresh = tmp_path / "fresh"
    build(fresh, recipe, trees)
    assert contents(fresh) == contents(out)


def shards_with(out: Path, start: str) -> list[Path]:
    import pyarrow.parquet as pq

    return [
        path
        for path in sorted((out / "data").rglob("*.parquet"))
        if any(one.startswith(start) for one in pq.read_table(path, columns=["id"])["id"].to_pylist())
    ]


def test_a_changed_mask_rebuilds_its_shard_alone(trees: dict[str, Path], tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", small("ptb-xl", "busi")
    build(out, recipe, trees)
    touch_later(trees["busi"] / "Dataset_BUSI_with_GT/benign/benign (3)_mask.png")
    changed = rebuilt(out, recipe, trees)
    assert changed == {path.relative_to(out).as_posix() for path in shards_with(out, "busi/benign-3/")}


@pytest.mark.parametrize(
    ("keys", "touched"),
    [
        ({"images": {"quality": 80}}, {"busi"}),
        ({"images": {"longest_side": 100}}, {"busi"}),
        ({"boxes": {"per": "union"}}, {"busi"}),
        ({"masks": True}, {"busi"}),
        ({"signals": {"window_s": 5}}, {"ptb-xl"}),
        ({"signals": {"paper": {"layout": "single"}}}, {"ptb-xl"}),
        ({"shards": {"rows": 4, "compression": "zstd"}}, {"ptb-xl", "busi"}),
    ],
)
def test_a_changed_recipe_rebuilds_the_sources_that_it_touches(
    keys: dict[str, Any], touched: set[str], trees: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build(out, small("ptb-xl", "busi"), trees)
    changed = rebuilt(out, small("ptb-xl", "busi", **keys), trees)
    everything = {path for path in every_file(out) if path.startswith("data/")}
    assert changed == {path for path in everything if path.split("/")[1] in touched}
    fresh = tmp_path / "fresh"
    build(fresh, small("ptb-xl", "busi", **keys), trees)
    assert contents(fresh) == contents(out)


@pytest.mark.parametrize("keys", [{"name": "other"}, {"split": {"validation": 0.1, "test": 0.1}}])
def test_recipe_keys_that_change_no_row_rebuild_nothing(
    keys: dict[str, Any], trees: dict[str, Path], tmp_path: Path
) -> None:
    build(tmp_path / "out", small("ptb-xl", "busi"), trees)
    assert rebuilt(tmp_path / "out", small("ptb-xl", "busi", **keys), trees) == set()


def test_the_shard_size_of_a_source_written_out_rebuilds_nothing(trees: dict[str, Path], tmp_path: Path) -> None:
    build(tmp_path / "out", make_recipe("busi"), trees)
    assert rebuilt(tmp_path / "out", make_recipe("busi", shards={"rows": 128}), trees) == set()


def test_changed_rendering_code_rebuilds_its_source(
    trees: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qoq_data.corpus import build as build_module

    out, recipe = tmp_path / "out", small("ptb-xl", "busi")
    build(out, recipe, trees)
    known = build_module.code_version
    for module in (build_module, planning):
        monkeypatch.setattr(module, "code_version", lambda source: "0" * 64 if source.name == "busi" else known(source))
    changed = rebuilt(out, recipe, trees)
    assert {path.split("/")[1] for path in changed} == {"busi"}
    assert len(changed) == len(list((out / "data/busi").iterdir()))


def test_code_version_sees_the_source_and_its_data(tmp_path: Path) -> None:
    from dataclasses import replace

    from qoq_data.corpus.code_version import code_version, files_of
    from tests.corpus.building import source

    home = tmp_path / "busi.py"
    home.write_text("1\n")
    one = replace(source("busi"), module_file=home)
    files_of.cache_clear()
    seen = {code_version(one)}
    files_of.cache_clear()
    home.write_text("2\n")
    seen.add(code_version(one))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/map.csv").write_text("a\n")
    (tmp_path / "_shared.py").write_text("from lesions._deeper import NAME\n")
    (tmp_path / "_deeper.py").write_text('NAME = "map.csv"\n')
    assert code_version(one) in seen
    home.write_text("from lesions._shared import NAME\n")
    files_of.cache_clear()
    seen.add(code_version(one))
    for changed, text in (("_shared.py", "from lesions._deeper import NAME as NAME\n"), ("data/map.csv", "b\n")):
        files_of.cache_clear()
        (tmp_path / changed).write_text(text)
        seen.add(code_version(one))
    (tmp_path / "other.py").write_text("a\n")
    files_of.cache_clear()
    assert code_version(one) in seen
    assert len(seen) == 5


def test_lost_and_cut_shards_are_made_again(trees: dict[str, Path], tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", small("ptb-xl", "busi")
    build(out, recipe, trees)
    before = contents(out)
    shards = sorted((out / "data").rglob("*.parquet"))
    shards[0].unlink()
    shards[-1].write_bytes(shards[-1].read_bytes()[:-10])
    part = next((out / ".qoq/parts/ptb-xl").iterdir())
    part.write_text("{")
    expected = {shards[0], shards[-1], out / f"data/ptb-xl/{part.stem}.parquet"}
    assert rebuilt(out, recipe, trees) == {path.relative_to(out).as_posix() for path in expected}
    assert contents(out) == before


def test_what_verify_finds_the_next_build_can_mend(trees: dict[str, Path], tmp_path: Path) -> None:
    """A shard of the right size with a wrong byte is found by verify, which says what to do; that helps."""
    out, recipe = tmp_path / "out", small("busi")
    manifest = build(out, recipe, trees)
    before = contents(out)
    shard = out / manifest.shards[0].path
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    problem = next(one for one in verify_corpus(Store(out), manifest).problems if manifest.shards[0].path in one)
    assert "delete it and run the same build again" in problem
    shard.unlink()
    build(out, recipe, trees)
    assert contents(out) == before


def test_a_stale_shard_is_removed(trees: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(out, small("ptb-xl", "busi"), trees)
    build(out, make_recipe("ptb-xl", shards={"rows": 20}), trees)
    fresh = tmp_path / "fresh"
    build(fresh, make_recipe("ptb-xl", shards={"rows": 20}), trees)
    assert contents(out) == contents(fresh)
    assert {path.name for path in (out / ".qoq/parts").iterdir() if any(path.iterdir())} == {"ptb-xl"}


def test_left_over_temporary_files_are_removed(trees: dict[str, Path], tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", small("busi")
    build(out, recipe, trees)
    before = set(every_file(out))
    for path in ("data/busi/train-0.parquet.77.part", ".qoq/parts/busi/x.json.77.part", "manifest.json.77.part"):
        (out / path).write_bytes(b"half")
    build(out, recipe, trees)
    assert set(every_file(out)) == before


def test_a_file_that_appears_is_rendered(trees: dict[str, Path], tmp_path: Path) -> None:
    tree, out = trees["ptb-xl"], tmp_path / "out"
    for name in ("00003_lr.hea", "00005_lr.dat"):
        shutil.move(record_path(tree, 3).parent / name, tmp_path / name)
    mask = trees["busi"] / "Dataset_BUSI_with_GT/benign/benign (3)_mask.png"
    picture = trees["busi"] / "Dataset_BUSI_with_GT/malignant/malignant (3).png"
    kept = {path: path.read_bytes() for path in (mask, picture)}
    for path in kept:
        path.unlink()
    build(out, small("ptb-xl", "busi"), trees)
    assert {line["item"] for line in ledger_of(out)} == {"00003", "00005", "benign-3", "malignant-3"}
    for name in ("00003_lr.hea", "00005_lr.dat"):
        shutil.move(tmp_path / name, record_path(tree, 3).parent / name)
    for path, data in kept.items():
        path.write_bytes(data)
    build(out, small("ptb-xl", "busi"), trees)
    assert ledger_of(out) == []
    assert {"00003", "00005", "benign-3", "malignant-3"} <= items_of(out)
    build(tmp_path / "fresh", small("ptb-xl", "busi"), trees)
    assert contents(out) == contents(tmp_path / "fresh")


def test_a_file_that_goes_becomes_a_ledger_line(trees: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(out, small("ptb-xl"), trees)
    record_path(trees["ptb-xl"], 3).with_suffix(".dat").unlink()
    build(out, small("ptb-xl"), trees)
    assert [line["item"] for line in ledger_of(out)] == ["00003"]
    assert "00003" not in items_of(out)


def test_a_shard_of_skips_alone_is_not_rendered_again(trees: dict[str, Path], tmp_path: Path) -> None:
    for path in trees["ptb-xl"].rglob("0000[3-8]_lr.dat"):
        path.unlink()
    out, recipe = tmp_path / "out", small("ptb-xl", shards={"rows": 1})
    build(out, recipe, trees)
    assert rebuilt(out, recipe, trees) == set()
    assert {line["item"] for line in ledger_of(out)} == {f"0000{number}" for number in range(3, 9)}


def test_sample_takes_whole_patients_and_the_same_ones(pristine: Trees, tmp_path: Path) -> None:
    taken: dict[float, set[str]] = {}
    tree = {"ptb-xl": pristine("ptb-xl")}
    for share in (0.3, 0.5, 0.9, 1.0):
        build(tmp_path / str(share), make_recipe("ptb-xl", sample=share), tree)
        rows = rows_of(tmp_path / str(share))
        taken[share] = {row["patient"] for row in rows.values()}
        whole = rows_of(tmp_path / "1.0") if share == 1 else None
    assert whole is not None
    for share in (0.3, 0.5, 0.9):
        rows = rows_of(tmp_path / str(share))
        assert rows == {key: row for key, row in whole.items() if row["patient"] in taken[share]}
    assert taken[0.3] < taken[0.5] < taken[0.9] <= taken[1.0]
    build(tmp_path / "other", make_recipe("ptb-xl", sample=0.5, seed=1), tree)
    assert {row["patient"] for row in rows_of(tmp_path / "other").values()} != taken[0.5]


def test_a_larger_sample_goes_on_from_the_smaller(pristine: Trees, tmp_path: Path) -> None:
    out, tree = tmp_path / "out", {"ptb-xl": pristine("ptb-xl")}
    build(out, make_recipe("ptb-xl", sample=0.5), tree)
    build(out, make_recipe("ptb-xl"), tree)
    build(tmp_path / "fresh", make_recipe("ptb-xl"), tree)
    assert contents(out) == contents(tmp_path / "fresh")


def test_finished_shards_stay_when_a_later_one_cannot_be_written(
    trees: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The space runs out in the middle; with space again the build goes on and gives the same bytes."""
    import errno

    from qoq_data.errors import StorageError

    out, recipe = tmp_path / "out", small("ptb-xl", "busi")
    write = os.write
    written = 0

    def write_until_full(descriptor: int, data: Any) -> int:
        nonlocal written
        written += len(data)
        if written > 300_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", write_until_full)
    with pytest.raises(StorageError, match="no space left") as caught:
        build(out, recipe, trees)
    assert str(tmp_path) not in str(caught.value)
    monkeypatch.undo()
    kept = {path: time for path, time in every_file(out).items() if path.endswith(".parquet")}
    assert kept
    assert not [path for path in every_file(out) if path.endswith(".part")]
    build(out, recipe, trees)
    assert {path: every_file(out)[path] for path in kept} == kept
    build(tmp_path / "fresh", recipe, trees)
    assert contents(out) == contents(tmp_path / "fresh")


def test_a_build_over_the_skip_limit_does_not_take_the_corpus_away(trees: dict[str, Path], tmp_path: Path) -> None:
    """What the plan alone shows to be over the limit stops before anything of a finished corpus is touched."""
    out = tmp_path / "out"
    build(out, small("busi"), trees)
    before = contents(out)
    for number in (1, 2, 3):
        (trees["busi"] / f"Dataset_BUSI_with_GT/benign/benign ({number}).png").write_bytes(b"no picture")
    with pytest.raises(SkipLimitError):
        build(out, small("busi", skip_limit=0.1), trees)
    assert contents(out) == before


def test_ctrl_c_while_a_shard_is_written_is_no_other_error(
    trees: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is called by polars, which makes an error of its own of whatever comes out of it."""

    def stopped(descriptor: int, data: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "out", small("ptb-xl"), trees)
    assert not [path for path in every_file(tmp_path / "out") if path.endswith(".part")]
