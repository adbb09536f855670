"""What the tests of the skin sources share: item tables, sides, the published way to draw, and a whole build."""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.splits import assign_splits, group_keys
from qoq_data.corpus.trace import trace_row
from qoq_data.corpus.verify import verify_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe
from qoq_data.sources import source_of
from tests.corpus.building import ledger_of, rows_of

Rows = list[dict[str, str]]


def items_of(module: ModuleType, tree: Path, **options: Any) -> pl.DataFrame:
    source = source_of(module)
    return scan_items(source, Store(tree), source.options_model(**options))


def read_csv(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: Rows) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")


def answers(items: pl.DataFrame, task: str) -> dict[str, str | None]:
    return {item: answer[0] if answer else None for item, answer in items.select("item", f"answer.{task}").iter_rows()}


def sides_of(module: ModuleType, items: pl.DataFrame, seed: int) -> dict[str, str]:
    """Side of each item by its group alone, before content is looked at."""
    keys = group_keys(items, module.SPEC.name, module.SPEC.identity_group)
    rows = items.with_columns(keys, pl.lit(module.SPEC.name).alias("source"))
    return dict(zip(items["item"], assign_splits(rows, seed, 0.1, 0.1), strict=True))


def published_training_half(classes: Mapping[str, str | None], run: int) -> set[str]:
    """The published way: of each class 80 % of its pictures, drawn anew in each run."""
    draw = random.Random(run)
    of_class: dict[str | None, list[str]] = defaultdict(list)
    for name, label in classes.items():
        of_class[label].append(name)
    return {name for names in of_class.values() for name in draw.sample(names, int(0.8 * len(names)))}


def crossing(groups: Mapping[str, str], training: Collection[str]) -> int:
    """How many groups have pictures on both sides."""
    sides: dict[str, set[bool]] = defaultdict(set)
    for name, group in groups.items():
        sides[group].add(name in training)
    return sum(len(found) > 1 for found in sides.values())


def built(
    module: ModuleType, tree: Path, out: Path, **options: Any
) -> tuple[dict[str, dict[str, Any]], list[dict[str, str]]]:
    """Rows by id and ledger lines of a corpus with every task of every item, which verifies, and a row traced."""
    source = source_of(module)
    entry = {"name": source.name, "skip_limit": 1.0, "options": options}
    recipe = Recipe.model_validate({"name": "test", "rows_per_record": "all", "sources": [entry]})
    inputs = [SourceInput(source, recipe.sources[0], Store(tree))]
    manifest = build_corpus(recipe, inputs, Store(out), LocalEngine(1))
    assert verify_corpus(Store(out), manifest, inputs).problems == ()
    rows = rows_of(out)
    if rows:
        assert trace_row(Store(out), manifest, recipe, min(rows), inputs, LocalEngine(1)).agrees
    return rows, ledger_of(out)
