"""Where a row came from, and whether it can be made again from the raw files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from qoq_data.corpus.build import shard_jobs
from qoq_data.corpus.inspect import Engine
from qoq_data.corpus.manifest import Manifest
from qoq_data.corpus.planning import SourceInput, plan_corpus
from qoq_data.corpus.reader import find_row
from qoq_data.corpus.shard import Row, rows_to_table
from qoq_data.corpus.shard_job import render_rows
from qoq_data.errors import RecordError
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe

MEDIA_COLUMNS = ("images", "signals", "masks")


@dataclass(frozen=True, slots=True)
class Trace:
    """A row without its media, its shard, and the columns in which a fresh derivation differs (None: not derived).

    ``files`` says of each input whether it is there and has the digest that the row names.
    """

    row: dict[str, Any]
    shard: str
    files: dict[str, str]
    differing: tuple[str, ...] | None

    @property
    def agrees(self) -> bool:
        return self.differing == () and all(state == "agrees" for state in self.files.values())


def trace_row(
    corpus: Store, manifest: Manifest, recipe: Recipe, row_id: str, inputs: Sequence[SourceInput], engine: Engine
) -> Trace:
    """Find a row, look at its inputs, plan the corpus again from its recipe, and render the row anew to compare."""
    shard, stored = find_row(corpus, manifest, row_id)
    row = stored.drop_columns(list(MEDIA_COLUMNS)).to_pylist()[0]
    raw = next(one.raw for one in inputs if one.source.name == row["source"])
    files = {one["path"]: _state(raw, one["path"], one["sha256"]) for one in row["provenance"]}
    if "absent" in files.values():
        return Trace(row, shard.path, files, None)
    fresh = _derive(corpus, recipe, row_id, row["source"], inputs, engine)
    if fresh is None:
        return Trace(row, shard.path, files, tuple(stored.column_names))
    names = stored.column_names
    differing = tuple(name for name in names if not stored[name].equals(fresh[name].cast(stored[name].type)))
    return Trace(row, shard.path, files, differing)


def _state(raw: Store, path: str, sha256: str) -> str:
    try:
        return "agrees" if raw.sha256(path) == sha256 else "differs"
    except RecordError:
        return "absent"


def _derive(
    corpus: Store, recipe: Recipe, row_id: str, source: str, inputs: Sequence[SourceInput], engine: Engine
) -> pa.Table | None:
    plan = next(one for one in plan_corpus(recipe, inputs, corpus, engine, keep_facts=False) if one.name == source)
    item, task = row_id.removeprefix(f"{source}/").rsplit("/", 1)
    for job in shard_jobs(recipe, plan, corpus):
        rows = job.plan.rows
        wanted = rows.filter((rows["item"] == item) & (rows["task"] == task))
        if wanted.height:
            alone = replace(job, plan=replace(job.plan, rows=wanted))
            outcome = next(iter(render_rows(alone, plan.input.raw)))
            return rows_to_table([outcome]) if isinstance(outcome, Row) else None
    return None
