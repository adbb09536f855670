"""Whether a corpus is what its manifest says: every byte, every count, every row within its vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qoq_data.corpus.ledger import by_reason, from_lines
from qoq_data.corpus.manifest import LEDGER, Manifest, ShardEntry
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.reader import open_shard
from qoq_data.corpus.shard import has_row_schema
from qoq_data.errors import CorpusError, RecordError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution
from qoq_data.record import AnswerType, Domain, Split

_CHECKED = (
    "id", "source", "domain", "task", "split", "patient", "question", "choices", "answer", "answer_type",
    "images.list.element.path", "boxes", "quality", "provenance", "redistribution",
)  # fmt: skip
Tally = dict[str, dict[str, Counter[str]]]
"""Counts of what stands in the rows, by source and by what is counted."""

_VOCABULARIES: Mapping[str, tuple[str, ...]] = {
    "domain": tuple(Domain),
    "split": tuple(Split),
    "answer_type": tuple(AnswerType),
    "redistribution": tuple(Redistribution),
}


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at, and everything that does not agree; a corpus is sound when ``problems`` is empty."""

    shards: int
    rows: int
    files: int
    problems: tuple[str, ...]


def verify_corpus(corpus: Store, manifest: Manifest, raw: Sequence[SourceInput] = ()) -> Verified:
    """Re-read a corpus whole; with the raw trees every input's sha256 is taken again too (``--deep``)."""
    problems: list[str] = []
    ids: set[str] = set()
    sides: dict[str, str] = {}
    rows: Counter[tuple[str, str]] = Counter()
    inputs: dict[tuple[str, str], str] = {}
    tally: Tally = {}
    for shard in manifest.shards:
        problems += _check_shard(corpus, shard, ids, sides, tally, inputs if raw else None)
        rows[shard.source, shard.split] += shard.rows
    if not problems:  # the rows of a damaged shard were not counted
        problems += _check_tally(manifest, tally)
    listed = {shard.path for shard in manifest.shards}
    problems += [f"{path} is not in the manifest" for path in corpus.walk("data") if path not in listed]
    problems += _check_counts(corpus, manifest, rows)
    trees = {one.source.name: one.raw for one in raw}
    for (source, path), sha256 in sorted(inputs.items()):
        try:
            if source not in trees:
                problems.append(f"{source}: where its raw files lie is not known")
            elif trees[source].sha256(path) != sha256:
                problems.append(f"{source}: the raw file {path} is not the one that was read")
        except RecordError as error:
            problems.append(f"{source}: the raw file {path}: {error.detail}")
    return Verified(len(manifest.shards), manifest.rows, len(inputs), tuple(problems))


def _check_shard(
    corpus: Store,
    shard: ShardEntry,
    ids: set[str],
    sides: dict[str, str],
    tally: Tally,
    inputs: dict[tuple[str, str], str] | None,
) -> list[str]:
    try:
        if corpus.sha256(shard.path) != shard.sha256:
            return [f"{shard.path} has other bytes than were written: delete it and run the same build again"]
        file = open_shard(corpus, shard)
    except (CorpusError, RecordError) as error:
        return [f"{shard.path}: {error}"]
    if not has_row_schema(file.schema_arrow):
        return [f"{shard.path} has another schema than the row's"]
    if file.metadata.num_rows != shard.rows:
        return [f"{shard.path} has {file.metadata.num_rows} rows and not {shard.rows}"]
    if corpus.identity(shard.path).size != shard.bytes:
        return [f"{shard.path} has another size than the manifest's {shard.bytes} bytes"]
    problems = []
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=list(_CHECKED))
        problems += [f"{shard.path}: {problem}" for problem in _check_rows(table, shard, ids, sides)]
        _count(table, tally.setdefault(shard.source, {}))
        if inputs is not None:
            for of_row in table["provenance"].to_pylist():
                inputs |= {(shard.source, one["path"]): one["sha256"] for one in of_row}
    return problems


def _check_rows(table: pa.Table, shard: ShardEntry, ids: set[str], sides: dict[str, str]) -> list[str]:
    problems = [
        f"a value of {column} is outside its vocabulary"
        for column, known in _VOCABULARIES.items()
        if not pc.all(pc.is_in(table[column], pa.array(list(known)))).as_py()
    ]
    for column, value in (("source", shard.source), ("split", shard.split)):
        if table[column].unique().to_pylist() != [value]:
            problems.append(f"rows of another {column} stand in it")
    for row in table.drop_columns(["domain", "redistribution"]).to_pylist():
        where = row["id"]
        if where in ids:
            problems.append(f"the id {where} stands twice")
        ids.add(where)
        if not row["answer"] or not row["question"] or not row["provenance"]:
            problems.append(f"{where} lacks a question, an answer or its provenance")
        if row["choices"] and not set(row["answer"]) <= set(row["choices"]):
            problems.append(f"{where} has an answer that is none of its choices")
        if row["patient"] and sides.setdefault(row["patient"], row["split"]) != row["split"]:
            problems.append(f"the patient of {where} stands in two splits")
        if not all(_is_box(box, len(row["images"])) for box in row["boxes"]):
            problems.append(f"{where} has an empty box, or one of an image that is not there")
    return problems


def _is_box(box: Mapping[str, Any], images: int) -> bool:
    x0, y0, x1, y1 = box["xyxy"]
    return bool(0 <= x0 < x1 and 0 <= y0 < y1 and 0 <= box["image"] < images)


def _count(table: pa.Table, tally: dict[str, Counter[str]]) -> None:
    """Add a table's rows to the counts that a manifest holds: by task, labels by task, findings by code."""
    for row in table.select(["task", "choices", "answer", "quality"]).to_pylist():
        tally.setdefault("tasks", Counter())[row["task"]] += 1
        if row["choices"]:
            tally.setdefault(f"labels of {row['task']}", Counter()).update(row["answer"])
        tally.setdefault("quality", Counter()).update({finding["code"] for finding in row["quality"]})


def _check_tally(manifest: Manifest, tally: Mapping[str, Mapping[str, Counter[str]]]) -> list[str]:
    problems = []
    for source in manifest.sources:
        said = {"tasks": source.tasks, "quality": source.quality}
        said |= {f"labels of {task}": counts for task, counts in source.labels.items()}
        counted = tally.get(source.name, {})
        for what in sorted({*said, *counted}):
            if dict(said.get(what, {})) != dict(counted.get(what, {})):
                problems.append(f"{source.name}: the rows' {what} are not counted as in the manifest")
    return problems


def _check_counts(corpus: Store, manifest: Manifest, rows: Mapping[tuple[str, str], int]) -> list[str]:
    problems = []
    try:
        skips = from_lines(corpus.read(LEDGER).decode())
    except (RecordError, ValueError, TypeError):
        return [f"{LEDGER} is absent or damaged"]
    strangers = {skip.source for skip in skips} - {source.name for source in manifest.sources}
    problems += [f"{LEDGER} has lines of {name}, which is no source of the corpus" for name in sorted(strangers)]
    for source in manifest.sources:
        counted = {split: count for (name, split), count in rows.items() if name == source.name}
        if counted != dict(source.splits):
            problems.append(f"{source.name}: rows by split are {counted} and not {dict(source.splits)}")
        if source.rows != sum(counted.values()):
            problems.append(f"{source.name}: there are {sum(counted.values())} rows and not {source.rows}")
        reasons = by_reason(skip for skip in skips if skip.source == source.name)
        if reasons != dict(source.skipped):
            problems.append(f"{source.name}: the ledger counts {reasons} and the manifest {dict(source.skipped)}")
    return problems
