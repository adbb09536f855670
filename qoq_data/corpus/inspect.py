"""The inspect step: what only the files know, read before anything is split, and kept by the files' identity.

Facts of an item whose media, files and code have not changed come from the cache of an earlier run; what cannot be read
is a ledger line, and the item leaves the plan. What can be measured stands in ``inspectors``.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import polars as pl

from qoq_data.clinical.fingerprints import THUMBNAIL_SHAPE, confirmed_pairs
from qoq_data.clinical.ring_spectra import COPY_SHAPE
from qoq_data.clinical.rotated_copies import rotated_copy_links
from qoq_data.corpus.inspectors import INSPECTORS
from qoq_data.corpus.ledger import Skip
from qoq_data.corpus.manifest import WORK_FOLDER
from qoq_data.corpus.references import MediaReference
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.storage import RecordingStore, Store

ITEMS_A_JOB = 64

Job = TypeVar("Job")
Result = TypeVar("Result")


class Engine(Protocol):
    """Where jobs run; results come in any order, and closing the generator ends what still runs."""

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Generator[Result, None, None]: ...


@dataclass(frozen=True, slots=True)
class _Job:
    inspector: str
    raw: Store
    items: tuple[tuple[str, tuple[MediaReference, ...]], ...]


_BOOKKEEPING = dict.fromkeys(("item", "media", "identity", "reason", "path", "detail"), pl.String)


def _inspect(job: _Job) -> list[dict[str, Any]]:
    inspector = INSPECTORS[job.inspector]
    rows = []
    for item, media in job.items:
        tree = RecordingStore(job.raw.address)
        row: dict[str, Any] = dict.fromkeys((*_BOOKKEEPING, *inspector.schema)) | {"item": item}
        try:
            row |= inspector.measure(tree, media)
        except RecordError as error:
            row |= {"reason": str(error.reason), "path": error.path, "detail": error.detail}
        except MemoryError:
            row |= {"reason": str(Reason.OVER_BUDGET), "path": "", "detail": "there is not enough memory for it"}
        row |= {"media": _media_text(media), "identity": _identity_text(job.raw, sorted(tree.seen))}
        rows.append(row)
    return rows


def inspect_items(
    items: pl.DataFrame,
    source: str,
    inspector_name: str,
    raw: Store,
    corpus: Store | None,
    code: str,
    engine: Engine,
    keep: bool = True,
) -> tuple[pl.DataFrame, list[Skip]]:
    """Facts of the items that could be read (a row an item, by ``item``), and ledger lines of the others.

    With a ``corpus`` the facts are taken from there where neither file nor code changed, and kept there if ``keep``.
    """
    inspector = INSPECTORS[inspector_name]
    schema = _BOOKKEEPING | dict(inspector.schema)
    cache = f"{WORK_FOLDER}/inspect/{source}-{inspector_name}-{code[:16]}.parquet"
    known = _cached(corpus, cache, schema)
    wanted = {
        row["item"]: tuple(MediaReference.of(one) for one in row["media"])
        for row in items.select("item", "media").iter_rows(named=True)
    }
    kept = {
        row["item"]: row
        for row in known
        if row["item"] in wanted
        and row["media"] == _media_text(wanted[row["item"]])
        and row["identity"] == _identity_text(raw, _paths(row["identity"]))
    }
    missing = [entry for entry in wanted.items() if entry[0] not in kept]
    jobs = [
        _Job(inspector_name, raw, tuple(missing[start : start + ITEMS_A_JOB]))
        for start in range(0, len(missing), ITEMS_A_JOB)
    ]
    for rows in engine.map(_inspect, jobs):
        kept |= {row["item"]: row for row in rows}
    facts = pl.DataFrame([kept[item] for item in wanted], schema=schema).sort("item")
    if corpus is not None and keep and jobs:
        buffer = io.BytesIO()
        facts.write_parquet(buffer)
        corpus.write(cache, buffer.getvalue())
        folder, _, current = cache.rpartition("/")
        for name in corpus.names(folder):
            if name.startswith(f"{source}-{inspector_name}-") and name != current:
                corpus.remove(f"{folder}/{name}")
    unreadable = facts.filter(pl.col("reason").is_not_null())
    skips = [
        Skip(source, row["item"], row["reason"], row["path"], row["detail"]) for row in unreadable.iter_rows(named=True)
    ]
    return facts.filter(pl.col("reason").is_null()).select("item", *inspector.schema), skips


def _media_text(media: Sequence[MediaReference]) -> str:
    """What an item consists of; facts of fewer or other files are none of it."""
    return hashlib.sha256(repr(media).encode()).hexdigest()


def _identity_text(raw: Store, paths: Sequence[str]) -> str:
    parts = []
    for path in paths:
        try:
            identity = raw.identity(path)
            parts.append(f"{path}\x1f{identity.size}\x1f{identity.modified}")
        except RecordError:
            parts.append(f"{path}\x1f\x1f")
    return "\x1e".join(parts)


def _paths(identity: str) -> list[str]:
    return [part.split("\x1f")[0] for part in identity.split("\x1e")]


def _cached(corpus: Store | None, path: str, schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    if corpus is None:
        return []
    try:
        frame = pl.read_parquet(io.BytesIO(corpus.read(path)))
    except (RecordError, pl.exceptions.PolarsError):
        return []
    return frame.to_dicts() if frame.schema == pl.Schema(schema) else []


def same_content(facts: pl.DataFrame) -> list[tuple[int, int]]:
    """Pairs of rows of ``picture_content`` facts that hold exactly the same pixels."""
    first: dict[str, int] = {}
    return [(first[digest], row) for row, digest in enumerate(facts["digest"]) if first.setdefault(digest, row) != row]


def near_content(facts: pl.DataFrame) -> list[tuple[int, int]]:
    """Pairs of rows of ``picture_content`` facts that show the same picture, maybe turned, flipped or re-encoded."""
    thumbnails = np.frombuffer(b"".join(facts["thumbnail"]), np.uint8).reshape(-1, *THUMBNAIL_SHAPE)
    return [(i, j) for i, j, _ in confirmed_pairs(thumbnails)]


def same_original(facts: pl.DataFrame) -> list[tuple[int, int]]:
    """Pairs of rows of ``picture_originals`` facts that join the turned, flipped and zoomed copies of an original."""
    thumbnails = np.frombuffer(b"".join(facts["copy_thumbnail"]), np.uint8).reshape(-1, *COPY_SHAPE)
    return rotated_copy_links(thumbnails)


def conflicting(facts: pl.DataFrame, items: pl.DataFrame) -> set[str]:
    """Items that hold exactly the same pixels as another but a different answer to a task."""
    answers = [column for column in items.columns if column.startswith("answer.")]
    joined = facts.select("item", "digest").join(items.select("item", *answers), on="item")
    clashing: set[str] = set()
    for column in answers:
        labelled = joined.filter(pl.col(column).is_not_null())
        answer = pl.col(column)
        text = answer.list.sort().list.join("\x1f") if labelled.schema[column] == pl.List else answer.cast(pl.String)
        counts = labelled.with_columns(text.alias("text"))
        clashes = counts.group_by("digest").agg(pl.col("text").n_unique().alias("kinds")).filter(pl.col("kinds") > 1)
        clashing |= set(labelled.join(clashes, on="digest", how="semi")["item"])
    return clashing


def conflict_skips(source: str, items: pl.DataFrame, clashing: set[str]) -> list[Skip]:
    rows = items.filter(pl.col("item").is_in(sorted(clashing))).select("item", "label_file").iter_rows()
    return [
        Skip(source, item, str(Reason.LABEL_CONFLICT), path, "the same picture stands under another answer too")
        for item, path in rows
    ]
