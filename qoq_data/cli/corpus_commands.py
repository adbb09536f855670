"""``verify``, ``stats``, ``trace``, ``card`` and ``view``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from qoq_data.corpus.manifest import Manifest

Corpus = Annotated[str, typer.Argument(metavar="CORPUS", help="Folder or fsspec address of a built corpus.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Raw = Annotated[str | None, typer.Option(help="Raw folder, as for build; default: where the build found it.")]


def register(app: typer.Typer) -> None:
    for command in (verify, stats, trace, card, view):
        app.command(command.__name__)(command)


def verify(
    corpus: Corpus,
    deep: Annotated[bool, typer.Option("--deep", help="Take the sha256 of every raw file again too.")] = False,
    raw: Raw = None,
    as_json: Json = False,
) -> None:
    """Re-read a corpus and check every digest, count and row."""
    from dataclasses import asdict

    from qoq_data.cli.printing import print_json, print_line
    from qoq_data.corpus.manifest import read_manifest
    from qoq_data.corpus.roots import remembered
    from qoq_data.corpus.verify import verify_corpus
    from qoq_data.errors import CorpusError
    from qoq_data.formats.storage import Store

    store = Store(corpus)
    manifest = read_manifest(store)
    inputs = remembered(manifest, store, raw)[1] if deep else []
    found = verify_corpus(store, manifest, inputs)
    if as_json:
        print_json(asdict(found))
    else:
        for problem in found.problems:
            print_line(problem)
        files = f", {found.files:,} raw files" if deep else ""
        print_line(f"{found.shards:,} shards, {found.rows:,} rows{files} read: {len(found.problems)} problem(s)")
    if found.problems:
        raise CorpusError("The corpus does not agree with its manifest.")


def stats(corpus: Corpus, as_json: Json = False) -> None:
    """Print what a corpus holds, by source, split, task, label, finding and reason skipped."""
    from dataclasses import asdict

    from qoq_data.cli.printing import print_json
    from qoq_data.corpus.manifest import read_manifest
    from qoq_data.formats.storage import Store

    manifest = read_manifest(Store(corpus))
    if as_json:
        print_json([asdict(source) for source in manifest.sources])
        return
    print_corpus(manifest, labels=True)


def trace(
    row_id: Annotated[str, typer.Argument(metavar="ID", help="A row's id: <source>/<item>/<task>.")],
    corpus: Annotated[str, typer.Option(help="Folder or address of the corpus.")],
    raw: Raw = None,
    as_json: Json = False,
) -> None:
    """Show where a row came from, derive it again from the raw files, and say whether it agrees."""
    from dataclasses import asdict

    from qoq_data.cli.printing import print_json, print_line, print_table
    from qoq_data.corpus.manifest import read_manifest
    from qoq_data.corpus.roots import remembered
    from qoq_data.corpus.trace import trace_row
    from qoq_data.engines.local import LocalEngine
    from qoq_data.errors import CorpusError
    from qoq_data.formats.storage import Store

    store = Store(corpus)
    manifest = read_manifest(store)
    recipe, inputs = remembered(manifest, store, raw)
    found = trace_row(store, manifest, recipe, row_id, inputs, LocalEngine())
    if as_json:
        print_json(asdict(found) | {"agrees": found.agrees})
    else:
        said = ("question", "choices", "answer", "context", "split", "licence")
        print_table(["column", "value"], [[name, str(found.row[name])] for name in said], found.row["id"])
        inputs_table = [
            [one["role"], one["path"], one["taken"], one["sha256"][:16], found.files[one["path"]]]
            for one in found.row["provenance"]
        ]
        print_table(["role", "path", "taken", "sha256", "now"], inputs_table, f"\nfrom {found.shard}")
        print_line()
        if found.differing is None:
            print_line("A raw file is absent: the row could not be derived again.")
        elif found.differing:
            print_line(f"Derived again, it differs in: {', '.join(found.differing)}.")
        else:
            print_line("Derived again from the raw files, it agrees in every column.")
    if not found.agrees:
        raise CorpusError("The row does not agree with its raw files.")


def card(
    names: Annotated[list[str] | None, typer.Argument(metavar="[SOURCE...]", help="Sources; all by default.")] = None,
    folder: Annotated[Path, typer.Option(help="Folder of the cards.")] = Path("data_cards"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when a card is stale.")] = False,
) -> None:
    """Write the data cards of sources; what was written by hand in marked blocks stays."""
    from qoq_data.cli.printing import print_line
    from qoq_data.errors import CorpusError
    from qoq_data.publish.source_card import check_cards, write_cards
    from qoq_data.sources import get_source, registry

    sources = [get_source(name) for name in names] if names else list(registry().values())
    if not check:
        for path in write_cards(folder, sources):
            print_line(str(path))
        return
    problems = check_cards(folder, sources)
    for problem in problems:
        print_line(problem)
    if problems:
        raise CorpusError(f"{len(problems)} card(s) are not up to date: run 'qoq-data card'.")
    print_line(f"{len(sources)} cards are up to date")


def view(
    corpus: Corpus,
    png: Annotated[Path, typer.Option(help="The picture to write.")] = Path("rows.png"),
    per_source: Annotated[int, typer.Option(min=1, max=20, help="Rows of each source.")] = 2,
    seed: Annotated[int, typer.Option(help="Which rows.")] = 0,
) -> None:
    """Draw some rows of a corpus into a PNG file: ECGs on paper, images with their boxes, questions and answers."""
    from qoq_data.cli.printing import print_line
    from qoq_data.corpus.manifest import read_manifest
    from qoq_data.formats.new_file import storage_error
    from qoq_data.formats.storage import Store
    from qoq_data.view.sheet import pick_rows, sheet_png

    store = Store(corpus)
    data = sheet_png(pick_rows(store, read_manifest(store), per_source, seed))
    try:
        png.write_bytes(data)
    except OSError as error:
        raise storage_error(error, png.name) from error
    print_line(str(png))


def print_corpus(manifest: Manifest, labels: bool = False) -> None:
    """The corpus as tables: one line a source, and with ``labels`` the counts behind it."""
    from qoq_data.cli.printing import print_table

    table = []
    for source in manifest.sources:
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in source.skipped.items())
        splits = [source.splits.get(split, 0) for split in ("train", "validation", "test")]
        table.append([source.name, source.version, source.items, source.patients, source.rows, *splits, skipped])
    columns = ["source", "version", "items", "patients", "rows", "train", "validation", "test", "skipped"]
    print_table(columns, table)
    if not labels:
        return
    for source in manifest.sources:
        rows = [[task, label, count] for task, counts in source.labels.items() for label, count in counts.items()]
        asked = [[task, "(rows)", count] for task, count in source.tasks.items()]
        print_table(["task", "label", "rows"], sorted(asked + rows), f"\n{source.name}")
        for title, counts in (("finding", source.quality), ("counted by the source", source.statistics)):
            if counts:
                print_table([title, "count"], list(counts.items()), "")
