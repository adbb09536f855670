"""One shard from its plan to its bytes: the work that an engine hands to a worker."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from qoq_data.corpus.ledger import Skip
from qoq_data.corpus.manifest import WORK_FOLDER, ShardEntry
from qoq_data.corpus.plan import ShardPlan
from qoq_data.corpus.questions import context_text, phrase
from qoq_data.corpus.reader import open_parquet
from qoq_data.corpus.references import GivenBox, MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.corpus.shard import Row, SampleBuffer, check_shard, rows_to_table, write_table
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.storage import FileIdentity, RecordingStore, Store
from qoq_data.formats.wfdb import Empty, empty_int16
from qoq_data.licence import strictest
from qoq_data.recipe import Recipe
from qoq_data.record import Media, Provenance
from qoq_data.source import MASK_KINDS, PICTURE_KINDS, Source

_SAMPLES = SampleBuffer()
"""This process's; it renders one shard at a time."""

Tally = dict[str, dict[str, int]]

SECTIONS: Mapping[str, frozenset[str]] = {
    "wfdb": frozenset({"signals"}),
    **dict.fromkeys(PICTURE_KINDS, frozenset({"images"})),
    **dict.fromkeys(MASK_KINDS, frozenset({"boxes", "masks"})),
}
"""Which sections of the recipe decide what a medium of each kind becomes."""


@dataclass(frozen=True, slots=True)
class ShardJob:
    """All that a worker needs. ``label_digests`` are the sha256 of the tables that hold the answers."""

    plan: ShardPlan
    source: Source
    source_version: str
    raw: Store
    corpus: Store
    recipe: Recipe
    label_digests: Mapping[str, str]
    code: str

    @property
    def part_path(self) -> str:
        return f"{WORK_FOLDER}/parts/{self.plan.source}/{self.plan.split}-{self.plan.name}.json"

    @property
    def key(self) -> str:
        """Digest of all that decides the shard's bytes, but for the raw files, whose identities stand in the part."""
        kinds = set(self.plan.rows["media"].explode().struct.field("kind").unique())
        sections = {"seed"}.union(*(SECTIONS[kind] for kind in kinds))
        recipe = self.recipe.model_dump(mode="json", include=sections)
        compression = self.recipe.shards.compression  # the size of shards stands in their names
        labels = dict(sorted(self.label_digests.items()))
        said = [self.plan.name, self.source_version, recipe, compression, labels, self.code]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ShardPart:
    """What one finished shard adds to the manifest. ``entry`` is None when every row of it was skipped."""

    key: str
    inputs: Mapping[str, list[Any] | None]
    entry: ShardEntry | None
    skips: tuple[Skip, ...]
    tally: Tally

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> ShardPart:
        tree = json.loads(text)
        entry = ShardEntry(**tree["entry"]) if tree["entry"] else None
        return cls(tree["key"], tree["inputs"], entry, tuple(Skip(**skip) for skip in tree["skips"]), tree["tally"])


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A part, and the temporary file that has yet to be committed; ``reused`` parts were finished by an earlier run."""

    part: ShardPart
    temporary: str | None
    reused: bool


def run_shard(job: ShardJob) -> ShardResult:
    """Render a shard, or find that an earlier run finished it from the same inputs."""
    finished = _finished_part(job)
    if finished is not None:
        return ShardResult(finished, None, reused=True)
    raw = RecordingStore(job.raw.address)
    rows: list[Row] = []
    skips: list[Skip] = []
    _SAMPLES.clear(job.plan.rows.height)
    for outcome in render_rows(job, raw, _SAMPLES):
        if isinstance(outcome, Row):
            rows.append(outcome)
        else:
            skips.append(outcome)
    inputs = {path: _plain(identity) for path, identity in sorted(raw.seen.items())}
    if not rows:
        return ShardResult(ShardPart(job.key, inputs, None, tuple(skips), {}), None, reused=False)
    with job.corpus.create(job.plan.path) as file:
        write_table(rows_to_table(rows, _SAMPLES), file, job.recipe.shards.compression)
    check_shard(open_parquet(job.corpus, file.temporary), len(rows))
    entry = ShardEntry(job.plan.path, job.plan.source, job.plan.split, len(rows), file.size, file.sha256)
    return ShardResult(ShardPart(job.key, inputs, entry, tuple(skips), _tally(rows)), file.temporary, reused=False)


def render_rows(job: ShardJob, raw: Store, buffer: SampleBuffer | None = None) -> Iterator[Row | Skip]:
    """The rows of a shard in the plan's order, and a ledger line for each item that cannot be right.

    With a ``buffer`` their samples stand in it.
    """
    empty = empty_int16 if buffer is None else buffer.place
    spec = job.source.spec
    licence, redistribution = strictest(spec.licences.values())
    fixed = {
        "source": spec.name,
        "source_version": job.source_version,
        "domain": str(spec.domain),
        "modality": spec.modality,
        "split": job.plan.split,
        "licence": licence,
        "redistribution": str(redistribution),
    }
    item = ""
    rendered: Media | RecordError | None = None
    for planned in job.plan.rows.iter_rows(named=True):
        if planned["item"] != item or rendered is None:
            item = planned["item"]
            rendered = _render_item(job, raw, planned, empty)
            if isinstance(rendered, RecordError):
                yield Skip.of(spec.name, item, rendered)
        if isinstance(rendered, Media):
            row = Row(fixed | _row_text(job, planned), rendered)
            if buffer is not None:
                row = buffer.adopt(row)
                rendered = row.media  # a following row of the same item starts from where the samples are now
            yield row


def _render_item(job: ShardJob, raw: Store, planned: Mapping[str, Any], empty: Empty) -> Media | RecordError:
    try:
        references = [MediaReference.of(one) for one in planned["media"]]
        boxes = [GivenBox.of(one) for one in planned.get("boxes") or ()]
        media = render_media(raw, references, job.recipe, empty, boxes)
        label = _label_provenance(job, planned, media)
    except RecordError as error:
        return error
    except MemoryError:
        return RecordError(Reason.OVER_BUDGET, "there is not enough memory for it")
    return replace(media, provenance=(*media.provenance, label))


def _label_provenance(job: ShardJob, planned: Mapping[str, Any], media: Media) -> Provenance:
    """Where the answer stands: in one of the publisher's tables, or in the place of the medium itself."""
    path = planned["label_file"]
    known = {one.path: one.sha256 for one in media.provenance} | dict(job.label_digests)
    if path not in known:
        raise RecordError(Reason.FILE_MISSING, "the file of the label is none that was read", path)
    return Provenance("label", path, known[path], planned["label_row"])


def _row_text(job: ShardJob, planned: Mapping[str, Any]) -> dict[str, Any]:
    spec = job.source.spec
    row_id = f"{spec.name}/{planned['item']}/{planned['task']}"
    said = phrase(spec.task(planned["task"]), row_id, tuple(planned["answer"]), job.recipe.seed)
    return {
        "id": row_id,
        "task": planned["task"],
        "patient": planned["patient"],
        "study": planned["study"],
        "question": said.question,
        "choices": list(said.choices),
        "answer": list(said.answer),
        "answer_type": str(said.answer_type),
        "tolerance": said.tolerance,
        "context": context_text({field: planned.get(f"context.{field}") for field in spec.context_fields}),
    }


def _tally(rows: list[Row]) -> Tally:
    """Counts for the manifest: rows by task, labels by task, findings by code."""
    tally: dict[str, Counter[str]] = {"tasks": Counter(), "quality": Counter()}
    for row in rows:
        task = row.text["task"]
        tally["tasks"][task] += 1
        if row.text["choices"]:
            tally.setdefault(f"labels.{task}", Counter()).update(row.text["answer"])
        tally["quality"].update({finding.code for finding in row.media.quality})
    return {name: dict(sorted(counts.items())) for name, counts in sorted(tally.items())}


def _finished_part(job: ShardJob) -> ShardPart | None:
    try:
        part = ShardPart.from_json(job.corpus.read(job.part_path))
    except (RecordError, ValueError, KeyError, TypeError):
        return None
    if part.key != job.key:
        return None
    if part.entry is not None:
        try:
            if job.corpus.identity(part.entry.path).size != part.entry.bytes:
                return None
        except RecordError:
            return None
    return part if all(_plain(_identity(job.raw, path)) == known for path, known in part.inputs.items()) else None


def _identity(raw: Store, path: str) -> FileIdentity | None:
    try:
        return raw.identity(path)
    except RecordError:
        return None


def _plain(identity: FileIdentity | None) -> list[Any] | None:
    return None if identity is None else [identity.size, identity.modified]
