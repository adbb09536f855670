"""The inspect step: what is measured, what is kept for the next run, and what becomes of what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from qoq_data.clinical.fingerprints import pixel_digest
from qoq_data.corpus import inspect
from qoq_data.corpus.inspect import conflicting, inspect_items, same_content
from qoq_data.corpus.items import scan_items
from qoq_data.engines.local import LocalEngine
from qoq_data.formats.storage import Store
from qoq_data.source import SourceOptions
from tests.corpus.building import build, make_recipe, record_path, rows_of, source, touch_later

Trees = Callable[[str], Path]
PICTURES = "Dataset_BUSI_with_GT"


class CountingEngine(LocalEngine):
    """Counts the items that are measured."""

    measured = 0

    def map(self, function, jobs):  # type: ignore[no-untyped-def]
        self.measured += sum(len(job.items) for job in jobs)
        yield from map(function, jobs)


def facts_of(
    tree: Path, corpus: Path | None, code: str = "a" * 64, change: Callable[[pl.DataFrame], pl.DataFrame] | None = None
) -> tuple[pl.DataFrame, list[object], int]:
    items = scan_items(source("busi"), Store(tree), SourceOptions())
    items = change(items) if change else items
    engine = CountingEngine()
    facts, skips = inspect_items(
        items, "busi", "picture_content", Store(tree), Store(corpus) if corpus else None, code, engine
    )
    return facts, list(skips), engine.measured


def test_digests_are_of_pixels_and_not_of_bytes(copied: Trees) -> None:
    tree = copied("busi")
    picture = tree / PICTURES / "benign/benign (3).png"
    before, _, _ = facts_of(tree, None)
    with Image.open(picture) as image:
        image.load()
        pixels = np.asarray(image.convert("RGB") if image.mode == "RGBA" else image)
        image.save(picture, compress_level=1)
    after, _, _ = facts_of(tree, None)
    assert before.equals(after)
    digest = after.filter(pl.col("item") == "benign-3")["digest"].item()
    assert len(digest) == 64
    assert pixel_digest(pixels) == pixel_digest(pixels.copy())
    assert after["item"].is_sorted()


def test_facts_are_kept_until_file_or_code_changes(copied: Trees, tmp_path: Path) -> None:
    tree, corpus = copied("busi"), tmp_path / "corpus"
    first, _, measured = facts_of(tree, corpus)
    assert measured == first.height == 14
    again, _, measured = facts_of(tree, corpus)
    assert measured == 0
    assert again.equals(first)
    touch_later(tree / PICTURES / "benign/benign (3).png")
    _, _, measured = facts_of(tree, corpus)
    assert measured == 1
    _, _, measured = facts_of(tree, corpus, code="b" * 64)
    assert measured == 14


def test_facts_of_an_item_that_has_other_media_now_are_measured_again(copied: Trees, tmp_path: Path) -> None:
    def without_masks(items: pl.DataFrame) -> pl.DataFrame:
        is_other = pl.col("item") == "benign-3"
        return items.with_columns(
            pl.when(is_other).then(pl.col("media").list.head(1)).otherwise("media").alias("media")
        )

    tree, corpus = copied("busi"), tmp_path / "corpus"
    facts_of(tree, corpus)
    assert facts_of(tree, corpus, change=without_masks)[2] == 1
    assert facts_of(tree, corpus, change=without_masks)[2] == 0


def test_a_file_that_cannot_be_read_is_a_skip_until_it_can(copied: Trees, tmp_path: Path) -> None:
    tree, corpus = copied("busi"), tmp_path / "corpus"
    picture = tree / PICTURES / "benign/benign (3).png"
    data = picture.read_bytes()
    picture.unlink()
    for expected in (14, 0):
        facts, skips, measured = facts_of(tree, corpus)
        assert measured == expected
        assert [(skip.item, skip.reason) for skip in skips] == [("benign-3", "file_missing")]  # type: ignore[attr-defined]
        assert "benign-3" not in set(facts["item"])
    picture.write_bytes(data)
    facts, skips, measured = facts_of(tree, corpus)
    assert (measured, skips) == (1, [])
    assert "benign-3" in set(facts["item"])


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" + b"\0" * 64 + b"PAR1"])
def test_a_damaged_cache_is_measured_again(damage: bytes, copied: Trees, tmp_path: Path) -> None:
    tree, corpus = copied("busi"), tmp_path / "corpus"
    first, _, _ = facts_of(tree, corpus)
    cache = next((corpus / ".qoq/inspect").iterdir())
    cache.write_bytes(damage)
    again, _, measured = facts_of(tree, corpus)
    assert measured == 14
    assert again.equals(first)


def test_two_workers_find_the_same(copied: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = copied("busi")
    items = scan_items(source("busi"), Store(tree), SourceOptions())
    monkeypatch.setattr(inspect, "ITEMS_A_JOB", 5)
    one, _, _ = facts_of(tree, None)
    two, _ = inspect_items(items, "busi", "picture_content", Store(tree), None, "", LocalEngine(2))
    assert one.equals(two)


def test_same_content_and_conflicts() -> None:
    facts = pl.DataFrame({"item": ["a", "b", "c", "d", "e"], "digest": ["1", "2", "1", "1", "2"]})
    assert same_content(facts) == [(0, 2), (0, 3), (1, 4)]
    items = pl.DataFrame(
        {
            "item": ["a", "b", "c", "d", "e"],
            "answer.one": [["x"], ["y"], ["x"], None, ["y"]],
            "answer.several": [["p", "q"], ["p"], ["q", "p"], ["p"], None],
            "answer.number": [1.0, 2.0, 1.0, 1.0, 2.0],
        }
    )
    assert conflicting(facts, items.drop("answer.several")) == set()
    assert conflicting(facts, items) == {"a", "c", "d"}


def test_measured_intervals_answer_a_task(pristine: Trees, tmp_path: Path) -> None:
    """A task whose answer is a measured fact: the heart rate of the recordings themselves."""
    pytest.importorskip("neurokit2")
    names = [task.name for task in source("ptb-xl").spec.tasks if task.fact]
    if not names:
        pytest.skip("no task of PTB-XL is measured")
    recipe = make_recipe("ptb-xl")
    entry = recipe.sources[0].model_copy(update={"tasks": tuple(names)})
    build(tmp_path / "out", recipe.model_copy(update={"sources": (entry,)}), {"ptb-xl": pristine("ptb-xl")})
    rows = rows_of(tmp_path / "out")
    assert rows
    assert {row["answer_type"] for row in rows.values()} == {"number"}
    assert record_path(pristine("ptb-xl"), 1).with_suffix(".dat").is_file()
