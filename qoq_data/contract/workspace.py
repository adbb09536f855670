"""What the checks of a source share: its synthetic tree and the corpora built from it, each made once in a folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Container, Iterator
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.manifest import MANIFEST, Manifest, read_manifest
from qoq_data.corpus.planning import SourceInput, plan_corpus
from qoq_data.corpus.reader import open_shard
from qoq_data.engines.local import LocalEngine
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe, ShardRecipe, SourceRecipe
from qoq_data.source import Source

SEED = 7
PATIENTS = 24
ROWS_PER_SHARD = 16
_SNAPSHOT = "raw.json"


def synthetic_tree(source: Source, folder: Path, patients: int = PATIENTS) -> Path:
    """The source's synthetic tree, ``folder/raw``; what it held when it was written is noted beside it."""
    tree = folder / "raw"
    if not tree.is_dir():
        write_synthetic(source, tree, SEED, patients)
        (folder / _SNAPSHOT).write_text(json.dumps(snapshot(tree)))
    return tree


def write_synthetic(source: Source, tree: Path, seed: int, patients: int) -> None:
    """A synthetic tree at ``tree``, whole or not at all."""
    begun = tree.with_name(f"{tree.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    source.synthesize(begun, seed, patients)
    begun.rename(tree)


def first_snapshot(folder: Path) -> dict[str, list[str | int]]:
    """What ``folder/raw`` held when it was written, before anything was built from it."""
    noted: dict[str, list[str | int]] = json.loads((folder / _SNAPSHOT).read_text())
    return noted


def snapshot(tree: Path) -> dict[str, list[str | int]]:
    """Digest and modification time in ns of every file of a tree, and the time of every folder."""
    found: dict[str, list[str | int]] = {}
    for path in sorted(tree.rglob("*")):
        digest = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        found[path.relative_to(tree).as_posix()] = [digest, path.stat().st_mtime_ns]
    return found


def contract_recipe(source: Source, rows_per_record: str = "all") -> Recipe:
    """Every task that the publisher's tables answer, asked of every record, in shards small enough to be several."""
    tasks = tuple(task.name for task in source.spec.tasks if not task.fact) or None
    return Recipe.model_validate(
        {
            "name": "contract",
            "sources": [SourceRecipe(name=source.name, tasks=tasks)],
            "rows_per_record": rows_per_record,
            "shards": ShardRecipe(rows=ROWS_PER_SHARD),
        }
    )


def build(source: Source, tree: Path, out: Path, workers: int = 1, rows_per_record: str = "all") -> Manifest:
    """A corpus of the source alone at ``out``; raises the errors of the build."""
    recipe = contract_recipe(source, rows_per_record)
    inputs = [SourceInput(source, recipe.sources[0], Store(tree), synthetic=True)]
    return build_corpus(recipe, inputs, Store(out), _engine(workers, tuple(sys.path)))


@lru_cache(maxsize=2)
def _engine(workers: int, path: tuple[str, ...]) -> LocalEngine:  # noqa: ARG001
    """Workers that stay for the next source; those that are there know the modules of the path they started with."""
    return LocalEngine(workers)


def built_corpus(source: Source, folder: Path, workers: int = 1) -> Path:
    """The corpus of the synthetic tree with a row for every task of every record, built on first use."""
    out = folder / f"corpus-{workers}"
    if not (out / MANIFEST).is_file():
        build(source, synthetic_tree(source, folder), out, workers)
    return out


def tables(corpus: Path, columns: list[str]) -> Iterator[pa.Table]:
    """The shards of a corpus as arrow tables of some columns."""
    store = Store(corpus)
    for shard in read_manifest(store).shards:
        yield open_shard(store, shard).read(columns=columns)


def planned_answers(source: Source, tree: Path) -> dict[str, list[list[str]]]:
    """The answers of each task as the plan asks them of every item; opens media where the source inspects them."""
    recipe = contract_recipe(source)
    inputs = [SourceInput(source, recipe.sources[0], Store(tree), synthetic=True)]
    found: dict[str, list[list[str]]] = {}
    for plan in plan_corpus(recipe, inputs, None, LocalEngine(1)):
        for shard in plan.shards:
            for task, answer in shard.rows.select("task", "answer").iter_rows():
                found.setdefault(task, []).append(answer)
    return found


def scanned_item(item: str, scanned: Container[str]) -> str:
    """The scanned item that an item of a corpus is, or is a part of."""
    return item if item in scanned else item.rpartition("/")[0]


def item_of(row_id: str, source: str) -> str:
    """The item in a row's id, ``<source>/<item>/<task>``."""
    return row_id.removeprefix(f"{source}/").rpartition("/")[0]


def linked_copy(tree: Path, to: Path) -> Path:
    """A copy of a tree by hard links: entries may be renamed, removed or replaced in it, but not written into."""
    return Path(shutil.copytree(tree, to, copy_function=os.link))
