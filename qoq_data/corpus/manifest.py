"""What was built from what: one JSON file at the corpus's root, put together from the parts of its shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from qoq_data.errors import CorpusError, Reason, RecordError
from qoq_data.formats.storage import Store

MANIFEST = "manifest.json"
LEDGER = "skipped.jsonl"
WORK_FOLDER = ".qoq"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One finished shard: its path, split and size, and the digest of its bytes."""

    path: str
    source: str
    split: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """What became of a source: items found, asked, skipped by reason, rows by split and task, labels by task.

    ``moved`` counts items whose group put them on another side than the publisher's; ``statistics`` is what the source
    itself counted (statements it does not know, values outside their range).
    """

    name: str
    version: str
    items: int
    patients: int
    rows: int
    skipped: Mapping[str, int]
    splits: Mapping[str, int]
    tasks: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    quality: Mapping[str, int]
    moved: int
    synthetic: bool
    statistics: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole corpus; holds no clock, host name, worker count or path outside it."""

    name: str
    package_version: str
    recipe: Mapping[str, Any]
    sources: tuple[SourceEntry, ...]
    shards: tuple[ShardEntry, ...]
    format: int = FORMAT

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def read_manifest(corpus: Store) -> Manifest:
    """The manifest of a finished corpus; raises ``CorpusError`` where there is none, or one that is not ours."""
    try:
        tree = json.loads(corpus.read(MANIFEST))
        if tree["format"] != FORMAT:
            raise CorpusError(f"The corpus has manifest format {tree['format']}; this version reads {FORMAT}.")
        sources = tuple(SourceEntry(**entry) for entry in tree.pop("sources"))
        shards = tuple(ShardEntry(**entry) for entry in tree.pop("shards"))
        return Manifest(sources=sources, shards=shards, **tree)
    except RecordError as error:
        if error.reason is not Reason.FILE_MISSING:
            raise CorpusError(f"{MANIFEST} cannot be read: {error.detail}.") from error
        begun = corpus.is_folder(WORK_FOLDER)
        raise CorpusError(
            "This build is not finished: run the same build again, and it goes on where it stopped."
            if begun
            else f"There is no corpus here: no {MANIFEST}. 'qoq-data build' makes one."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{MANIFEST} is damaged: run the same build again.") from error
