"""A corpus from its plan: every shard rendered or found finished, then the ledger and the manifest.

Shards are written by workers and made final here, one by one, so that a build can be stopped at any moment and goes
on where it was. While it runs there is no manifest: a corpus with one is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from qoq_data import __version__
from qoq_data.corpus.code_version import code_version
from qoq_data.corpus.inspect import Engine
from qoq_data.corpus.ledger import Skip, by_reason, check_skip_limit, to_lines
from qoq_data.corpus.manifest import LEDGER, MANIFEST, WORK_FOLDER, Manifest, SourceEntry
from qoq_data.corpus.planning import SourceInput, SourcePlan, plan_corpus
from qoq_data.corpus.shard_job import ShardJob, ShardPart, ShardResult, run_shard
from qoq_data.errors import BuildError, CorpusLockedError
from qoq_data.formats.new_file import TEMPORARY_SUFFIX, storage_error
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe

CARD = "README.md"
_COMMITS_AT_ONCE = 2

Progress = Callable[[int, int, bool], None]
"""Called with rows done, rows planned, and whether the last shard was found finished."""


def build_corpus(
    recipe: Recipe, inputs: Sequence[SourceInput], corpus: Store, engine: Engine, progress: Progress | None = None
) -> Manifest:
    """Build the recipe's corpus into ``corpus`` and return its manifest.

    Raises the errors of the sources, ``SkipLimitError``, ``StorageError``, ``CorpusLockedError``. Whatever is raised,
    finished shards stay, and the next run of the same build goes on from them.
    """
    with _locked(corpus):
        plans = plan_corpus(recipe, inputs, corpus, engine)
        for plan in plans:
            check_skip_limit(plan.name, plan.skips, plan.items, _limit(plan))
        jobs = [job for plan in plans for job in shard_jobs(recipe, plan, corpus)]
        parts = _run(jobs, corpus, engine, progress)
        manifest, skips = _manifest(recipe, plans, parts)
        _remove_stale(corpus, {shard.path for shard in manifest.shards}, {job.part_path for job in jobs})
        corpus.write(LEDGER, to_lines(skips).encode())
        corpus.write(MANIFEST, manifest.to_json().encode())
        return manifest


def shard_jobs(recipe: Recipe, plan: SourcePlan, corpus: Store) -> list[ShardJob]:
    """The jobs of one source; the tables that hold its answers are hashed here, once."""
    source = plan.input.source
    files = sorted({path for shard in plan.shards for path in shard.rows["label_file"].unique()})
    media = {path for shard in plan.shards for path in shard.rows["media"].explode().struct.field("path").unique()}
    digests = {path: plan.input.raw.sha256(path) for path in files if path not in media}
    code = code_version(source)
    return [
        ShardJob(shard, source, plan.version, plan.input.raw, corpus, recipe, digests, code) for shard in plan.shards
    ]


def _limit(plan: SourcePlan) -> float:
    limit = plan.input.entry.skip_limit
    return plan.input.source.spec.skip_limit if limit is None else limit


def _run(jobs: Sequence[ShardJob], corpus: Store, engine: Engine, progress: Progress | None) -> dict[str, ShardPart]:
    """Parts of all shards by their part's path. Workers write; this process makes what they wrote last."""
    _start(corpus)
    by_shard = {f"{job.plan.source}/{job.plan.split}-{job.plan.name}": job for job in jobs}
    total = sum(job.plan.rows.height for job in jobs)
    done = 0
    parts: dict[str, ShardPart] = {}
    with ThreadPoolExecutor(_COMMITS_AT_ONCE) as committer:
        waiting: list[Future[None]] = []
        results = engine.map(_named_run, list(by_shard.items()))
        with contextlib.closing(results):  # an error here ends the workers at once
            for name, result in results:
                job = by_shard[name]
                parts[job.part_path] = result.part
                if not result.reused:
                    waiting.append(committer.submit(_commit, corpus, job, result))
                while waiting and (waiting[0].done() or len(waiting) > _COMMITS_AT_ONCE):
                    waiting.pop(0).result()
                done += job.plan.rows.height
                if progress is not None:
                    progress(done, total, result.reused)
        for one in waiting:
            one.result()
    return parts


def _named_run(named: tuple[str, ShardJob]) -> tuple[str, ShardResult]:
    return named[0], run_shard(named[1])


def _commit(corpus: Store, job: ShardJob, result: ShardResult) -> None:
    if result.temporary is not None:
        corpus.commit(result.temporary, job.plan.path)
    corpus.write(job.part_path, result.part.to_json().encode())


def _start(corpus: Store) -> None:
    """From here to the end there is no manifest, so nobody takes a half-changed corpus for a whole one."""
    for path in (MANIFEST, CARD):
        corpus.remove(path)
    folders = ("data", f"{WORK_FOLDER}/parts", f"{WORK_FOLDER}/inspect")
    left = [path for folder in folders for path in corpus.walk(folder)]
    left += [*corpus.names(), *(f"{WORK_FOLDER}/{name}" for name in corpus.names(WORK_FOLDER))]
    for path in left:
        if path.endswith(TEMPORARY_SUFFIX):
            corpus.remove(path)


def _remove_stale(corpus: Store, shards: set[str], parts: set[str]) -> None:
    for folder, wanted in (("data", shards), (f"{WORK_FOLDER}/parts", parts)):
        for path in list(corpus.walk(folder)):
            if path not in wanted:
                corpus.remove(path)


def _manifest(recipe: Recipe, plans: Sequence[SourcePlan], parts: dict[str, ShardPart]) -> tuple[Manifest, list[Skip]]:
    every_skip: list[Skip] = []
    entries = []
    for plan in plans:
        mine = [part for path, part in sorted(parts.items()) if path.startswith(f"{WORK_FOLDER}/parts/{plan.name}/")]
        skips = sorted({*plan.skips, *(skip for part in mine for skip in part.skips)})
        check_skip_limit(plan.name, skips, plan.items, _limit(plan))
        every_skip += skips
        entries.append(_source_entry(plan, mine, skips))
    shards = sorted((part.entry for part in parts.values() if part.entry), key=lambda entry: entry.path)
    if not shards:
        raise BuildError("No row came out: every item was skipped or had no answer. See the reasons with --dry-run.")
    manifest = Manifest(
        name=recipe.name,
        package_version=__version__,
        recipe=recipe.model_dump(mode="json", exclude={"patient_key"}),  # it would undo the hash of the patients
        sources=tuple(entries),
        shards=tuple(shards),
    )
    return manifest, every_skip


def _source_entry(plan: SourcePlan, parts: Sequence[ShardPart], skips: Sequence[Skip]) -> SourceEntry:
    tally: dict[str, Counter[str]] = {}
    splits: Counter[str] = Counter()
    for part in parts:
        if part.entry is not None:
            splits[part.entry.split] += part.entry.rows
        for name, counts in part.tally.items():
            tally.setdefault(name, Counter()).update(counts)
    ordered = {name: dict(sorted(counts.items())) for name, counts in sorted(tally.items())}
    return SourceEntry(
        name=plan.name,
        version=plan.version,
        items=plan.items,
        patients=plan.patients,
        rows=sum(splits.values()),
        skipped=by_reason(skips),
        splits=dict(splits),
        tasks=ordered.get("tasks", {}),
        labels={name.removeprefix("labels."): counts for name, counts in ordered.items() if name.startswith("labels.")},
        quality=ordered.get("quality", {}),
        moved=plan.moved,
        synthetic=plan.input.synthetic,
        statistics=plan.statistics(),
    )


@contextlib.contextmanager
def _locked(corpus: Store) -> Iterator[None]:
    """One build at a time in a folder; the lock goes with the process, so a killed build leaves none behind.

    Object stores have no such lock: there two builds into one place are the user's to avoid.
    """
    if corpus.folder is None:
        yield
        return
    path = Path(corpus.full_path(f"{WORK_FOLDER}/lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise storage_error(error, WORK_FOLDER) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CorpusLockedError(
                "Another build is writing into this folder. Wait for it, or choose another --out."
            ) from None
        yield
    finally:
        os.close(descriptor)
