"""Which rows of a corpus to look at: some of each source, as unlike each other as can be had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from qoq_data.corpus.draws import draws
from qoq_data.corpus.manifest import Manifest, ShardEntry
from qoq_data.corpus.reader import open_shard
from qoq_data.formats.storage import Store
from qoq_data.record import Split

COLUMNS = (
    "id",
    "source",
    "task",
    "split",
    "question",
    "choices",
    "answer",
    "answer_type",
    "tolerance",
    "context",
    "images",
    "views",
    "signals",
    "boxes",
    "quality",
    "licence",
    "redistribution",
)
"""Columns of a row that a sheet shows."""

SYNTHETIC = "synthetic"
"""Beside the columns: whether a row is of a generated tree, which the manifest knows and the sheet has to say."""

_LIGHT = ["id", "task", "answer", "answer_type"]
_MOST_SHARDS = 4
_MOST_GROUPS = 4


@dataclass(frozen=True, slots=True)
class _Candidate:
    file: pq.ParquetFile
    group: int
    place: int
    split: str
    task: str
    labels: tuple[str, ...]


def pick_rows(corpus: Store, manifest: Manifest, per_source: int, seed: int) -> list[dict[str, Any]]:
    """``per_source`` rows of every source, fewer where it has fewer, in the columns of ``COLUMNS`` and ``SYNTHETIC``.

    Each next row is one of the task, the label and the split that were shown least; ties fall by the seed. A few
    shards of each split are looked into, by columns that are small; media are read of the chosen rows alone. The same
    corpus and seed give the same rows. Raises ``CorpusError`` for a shard that is absent or damaged.
    """
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(shard.source for shard in manifest.shards):
        shards = [shard for shard in manifest.shards if shard.source == name]
        candidates = list(_candidates(corpus, shards, seed))
        synthetic = any(entry.synthetic for entry in manifest.sources if entry.name == name)
        rows += [_read(candidate) | {SYNTHETIC: synthetic} for candidate in _spread(candidates, per_source)]
    return rows


def _candidates(corpus: Store, shards: Sequence[ShardEntry], seed: int) -> Iterator[_Candidate]:
    """Rows of a few shards of each split, in an order that the seed decides."""
    found: dict[str, _Candidate] = {}
    for split in Split:
        of_split = [shard for shard in shards if shard.split == str(split)]
        order = np.argsort(draws(seed, "sheet shards", [shard.path for shard in of_split]), kind="stable")
        for index in order[:_MOST_SHARDS]:
            file = open_shard(corpus, of_split[index])
            for group in range(min(file.num_row_groups, _MOST_GROUPS)):
                for place, row in enumerate(file.read_row_group(group, columns=_LIGHT).to_pylist()):
                    labels = () if row["answer_type"] == "number" else tuple(row["answer"])
                    found[row["id"]] = _Candidate(file, group, place, str(split), row["task"], labels)
    ids = list(found)
    for index in np.argsort(draws(seed, "sheet rows", ids), kind="stable"):
        yield found[ids[index]]


def _spread(candidates: list[_Candidate], wanted: int) -> Iterator[_Candidate]:
    """Up to ``wanted`` of the candidates, each the first of those whose kind was shown least."""
    tasks: Counter[str] = Counter()
    labels: Counter[tuple[str, str]] = Counter()
    splits: Counter[str] = Counter()
    left = list(candidates)
    for _ in range(min(wanted, len(left))):
        chosen = min(
            left,
            key=lambda one: (
                tasks[one.task],
                max((labels[one.task, label] for label in one.labels), default=0),
                splits[one.split],
            ),
        )
        left.remove(chosen)
        tasks[chosen.task] += 1
        splits[chosen.split] += 1
        labels.update((chosen.task, label) for label in chosen.labels)
        yield chosen


def _read(candidate: _Candidate) -> dict[str, Any]:
    table = candidate.file.read_row_group(candidate.group, columns=list(COLUMNS))
    row: dict[str, Any] = table.slice(candidate.place, 1).to_pylist()[0]
    return row
