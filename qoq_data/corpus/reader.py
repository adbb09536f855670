"""Reading a finished corpus: its rows, column by column, from the shards that the manifest names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qoq_data.corpus.manifest import Manifest, ShardEntry
from qoq_data.errors import CorpusError, RecordError, UnknownNameError
from qoq_data.formats.storage import Store


def open_shard(corpus: Store, shard: ShardEntry) -> pq.ParquetFile:
    """A shard's parquet file, memory-mapped where it is local; raises ``CorpusError`` when it is absent or damaged."""
    try:
        return open_parquet(corpus, shard.path)
    except (OSError, pa.ArrowInvalid, RecordError) as error:
        raise CorpusError(f"{shard.path} is absent or damaged: run the same build again to make it anew.") from error


def open_parquet(corpus: Store, path: str) -> pq.ParquetFile:
    if corpus.folder is not None:
        return pq.ParquetFile(corpus.full_path(path), memory_map=True)
    return pq.ParquetFile(pa.BufferReader(corpus.read(path)))


def iter_rows(corpus: Store, shard: ShardEntry, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a shard as dictionaries, one row group in memory at a time."""
    file = open_shard(corpus, shard)
    for group in range(file.num_row_groups):
        yield from file.read_row_group(group, columns=list(columns) if columns else None).to_pylist()


def find_row(corpus: Store, manifest: Manifest, row_id: str) -> tuple[ShardEntry, pa.Table]:
    """The row of an id, as a table of one row, and its shard; reads ids only until it is found."""
    source = row_id.split("/", 1)[0]
    for shard in manifest.shards:
        if shard.source != source:
            continue
        file = open_shard(corpus, shard)
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["id"])["id"].to_pylist()
            if row_id in ids:
                return shard, file.read_row_group(group).slice(ids.index(row_id), 1)
    raise UnknownNameError(f"There is no row {row_id!r} in this corpus; ids look like <source>/<item>/<task>.")
