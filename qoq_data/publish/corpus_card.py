"""The card of a built corpus: a README.md that tells ``datasets`` what to load, and a person what it is.

Every number in it comes from the manifest. It holds no row and no content of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import yaml

from qoq_data.corpus.manifest import LEDGER, MANIFEST, Manifest, SourceEntry
from qoq_data.errors import UnknownNameError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.publish.markdown import REDISTRIBUTION_TEXT, licence_rows, plain, sentence, table
from qoq_data.record import Domain, Split
from qoq_data.source import Source

CARD = "README.md"

HUB_LICENCES: Mapping[str, str] = {
    "Apache-2.0": "apache-2.0",
    "CC-BY-3.0": "cc-by-3.0",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "CC-BY-NC-SA-4.0": "cc-by-nc-sa-4.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "CC0-1.0": "cc0-1.0",
    "MIT": "mit",
    "ODbL-1.0": "odbl",
}
"""The Hub's own names of licences; every other one is ``other`` there, with its name beside it."""

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
_WITHOUT_IMAGES = (Domain.ECG, Domain.EHR)
_MOST_STATISTICS = 25
_PLACE = "path/to/this/folder"


def write_corpus_card(manifest: Manifest, sources: Sequence[Source], corpus: Store) -> None:
    """Write ``README.md`` beside the shards; the same manifest and sources give the same bytes.

    Raises ``UnknownNameError`` when a source of the manifest is not among ``sources``, and ``StorageError``.
    """
    corpus.write(CARD, corpus_card_text(manifest, sources).encode())


def corpus_card_text(manifest: Manifest, sources: Sequence[Source]) -> str:
    """The text of the card: a YAML header and the body."""
    by_name = {source.name: source for source in sources}
    for entry in manifest.sources:
        if entry.name not in by_name:
            raise UnknownNameError(f"The corpus holds {entry.name}, and no source of that name is installed.")
    built = [(entry, by_name[entry.name]) for entry in manifest.sources]
    header = yaml.safe_dump(card_header(manifest, sources), sort_keys=False, allow_unicode=True, width=120)
    parts = chain(
        ["---", header.rstrip("\n"), "---", ""],
        _head(manifest),
        _contents(manifest, built),
        _use(manifest),
        _tasks(manifest),
        _findings(manifest),
        _licences(built),
        _citations(built),
        _trace(),
    )
    return "\n".join(parts).rstrip("\n") + "\n"


def card_header(manifest: Manifest, sources: Sequence[Source]) -> dict[str, Any]:
    """The YAML header: configurations for ``datasets``, licence, tags and size in the Hub's words."""
    names = {entry.name for entry in manifest.sources}
    used = [source for source in sources if source.name in names]
    expression, _ = strictest(licence for source in used for licence in source.spec.licences.values())
    hub = HUB_LICENCES.get(expression)
    licence = {"license": hub} if hub else {"license": "other", "license_name": expression.lower().replace(" ", "-")}
    paper = (manifest.recipe.get("signals") or {}).get("paper")
    has_images = bool(paper) or any(source.spec.domain not in _WITHOUT_IMAGES for source in used)
    domains = sorted({str(source.spec.domain).replace("_", "-") for source in used})
    return {
        "pretty_name": manifest.name,
        **licence,
        "language": ["en"],
        "task_categories": [*(["visual-question-answering"] if has_images else []), "question-answering"],
        "tags": ["medical", *domains, *(["synthetic"] if any(one.synthetic for one in manifest.sources) else [])],
        "size_categories": [next((name for limit, name in _SIZES if manifest.rows < limit), "10M<n<100M")],
        "configs": [
            {"config_name": "default", "default": True, "data_files": _data_files(manifest, None)},
            *(
                {"config_name": name, "data_files": _data_files(manifest, name)}
                for name in dict.fromkeys(shard.source for shard in manifest.shards)
            ),
        ],
    }


def _data_files(manifest: Manifest, source: str | None) -> list[dict[str, str]]:
    splits = {shard.split for shard in manifest.shards if source in (None, shard.source)}
    folder = source or "*"
    return [
        {"split": str(split), "path": f"data/{folder}/{split}-*.parquet"} for split in Split if str(split) in splits
    ]


def _head(manifest: Manifest) -> Iterator[str]:
    yield f"# {plain(manifest.name)}"
    yield ""
    generated = [entry.name for entry in manifest.sources if entry.synthetic]
    if generated:
        which = "Every row" if len(generated) == len(manifest.sources) else f"Every row of {', '.join(generated)}"
        yield "> [!WARNING]"
        yield f"> **SYNTHETIC. {which} was generated by a program and shows no patient.**"
        yield "> It serves to try things out. No figure measured on it says anything of a patient, a model or a method."
        yield ""
    files = "the files as their publishers ship them" if len(generated) < len(manifest.sources) else "generated files"
    yield (
        f"Clinical questions with their answers, media and provenance: {manifest.rows:,} rows in "
        f"{len(manifest.shards):,} shards, from {len(manifest.sources)} source(s), made by qoq-data "
        f"{manifest.package_version} from {files}. The recipe stands in `{MANIFEST}`."
    )
    yield ""
    share = manifest.recipe.get("sample", 1.0)
    if share < 1:
        yield f"A sample: a seeded share of {share:g} of the patients of each source."
        yield ""


def _contents(manifest: Manifest, built: Sequence[tuple[SourceEntry, Source]]) -> Iterator[str]:
    yield "## What is in it"
    yield ""
    columns = ("source", "version", "items", "patients", "rows", *map(str, Split), "skipped", "moved", "")
    rows = [
        (
            f"`{entry.name}`",
            plain(entry.version),
            entry.items,
            entry.patients or None,
            entry.rows,
            *(entry.splits.get(str(split), 0) for split in Split),
            sum(entry.skipped.values()),
            entry.moved,
            "**synthetic**" if entry.synthetic else "from the publisher",
        )
        for entry in manifest.sources
    ]
    yield from table(columns, rows)
    yield (
        "Patients are counted where the publisher numbers them. Moved are items whose group put them on another side "
        "than the publisher's. What keeps the sides of a split apart:"
    )
    yield ""
    for entry, source in built:
        yield f"* `{entry.name}`: {sentence(source.spec.grouping)}"
    yield ""
    reasons = [
        (f"`{entry.name}`", f"`{reason}`", count)
        for entry in manifest.sources
        for reason, count in entry.skipped.items()
    ]
    if reasons:
        yield f"Items that are no rows, by reason; each is a line of `{LEDGER}`:"
        yield ""
        yield from table(("source", "reason", "items"), reasons)
    else:
        yield f"No item was skipped; `{LEDGER}` is empty."
        yield ""


def _use(manifest: Manifest) -> Iterator[str]:
    first = next(iter(dict.fromkeys(shard.source for shard in manifest.shards)))
    split = next(str(side) for side in Split if any(shard.split == str(side) for shard in manifest.shards))
    yield "## How to load it"
    yield ""
    yield "```python"
    yield "from datasets import load_dataset"
    yield ""
    yield f'rows = load_dataset("{_PLACE}")  # all sources, by split'
    yield f'rows = load_dataset("{_PLACE}", "{first}", split="{split}")  # one source'
    yield "```"
    yield ""
    yield (
        "`images` are decoded pictures; `boxes` are half-open pixel boxes on them. A signal's `samples` are integers "
        "as recorded, leads in rows; in millivolts, with gaps as NaN:"
    )
    yield ""
    yield "```python"
    yield "from qoq_data.record import millivolts"
    yield ""
    yield 'volts = millivolts(rows.with_format("numpy")[0]["signals"][0])  # of a row that has a signal'
    yield "```"
    yield ""


def _tasks(manifest: Manifest) -> Iterator[str]:
    yield "## Questions and labels"
    yield ""
    rows = [
        (f"`{entry.name}`", f"`{task}`", count) for entry in manifest.sources for task, count in entry.tasks.items()
    ]
    yield from table(("source", "task", "rows"), rows)
    for entry in manifest.sources:
        labels = [
            (f"`{task}`", plain(label), count)
            for task, counts in entry.labels.items()
            for label, count in counts.items()
        ]
        if labels:
            yield f"### Labels of `{entry.name}`"
            yield ""
            yield from table(("task", "label", "rows"), labels)


def _findings(manifest: Manifest) -> Iterator[str]:
    yield "## Quality and other counts"
    yield ""
    rows = [(f"`{entry.name}`", f"`{code}`", n) for entry in manifest.sources for code, n in entry.quality.items()]
    if rows:
        yield "Findings that rows carry in `quality`; nothing was changed for them:"
        yield ""
        yield from table(("source", "finding", "times"), rows)
    else:
        yield "No row carries a quality finding."
        yield ""
    for entry in manifest.sources:
        yield from _statistics(entry)


def _statistics(entry: SourceEntry) -> Iterator[str]:
    if not entry.statistics:
        return
    yield f"### Counted in the files of `{entry.name}`"
    yield ""
    counts = [(plain(what.replace("_", " ")), count) for what, count in entry.statistics.items()]
    yield from table(("what", "count"), counts[:_MOST_STATISTICS])
    if len(counts) > _MOST_STATISTICS:
        yield f"{len(counts) - _MOST_STATISTICS:,} more counts stand in `{MANIFEST}`."
        yield ""


def _licences(built: Sequence[tuple[SourceEntry, Source]]) -> Iterator[str]:
    yield "## Licence"
    yield ""
    expression, redistribution = strictest(one for _, source in built for one in source.spec.licences.values())
    yield f"The whole: `{expression}`. May be passed on: {REDISTRIBUTION_TEXT[redistribution]}."
    yield ""
    if redistribution in (Redistribution.NONE, Redistribution.IDS):
        yield "**So this folder goes to nobody else and into no public repository.**"
        yield ""
    yield "A row's own terms are in its columns `licence` and `redistribution`."
    yield ""
    rows = [
        (f"`{entry.name}`", *licence, str(source.spec.access))
        for entry, source in built
        for licence in licence_rows(source.spec.licences)
    ]
    yield from table(("source", "input", "licence", "identifier", "may be passed on", "access"), rows)


def _citations(built: Sequence[tuple[SourceEntry, Source]]) -> Iterator[str]:
    yield "## Cite the sources"
    yield ""
    for entry, source in built:
        yield f"* `{entry.name}`: {sentence(plain(source.spec.citation))} <{source.spec.homepage}>"
    yield ""


def _trace() -> Iterator[str]:
    yield "## Where a row comes from"
    yield ""
    yield (
        "A row's `provenance` names each file below the source's folder, its sha256 and what was taken of it. With "
        "those files at hand the row is made again and compared:"
    )
    yield ""
    yield "```"
    yield f"qoq-data trace ID --corpus {_PLACE} --raw path/to/the/raw/folder"
    yield f"qoq-data verify {_PLACE}"
    yield "```"
    yield ""
