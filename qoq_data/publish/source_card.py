"""The committed data card of a source: everything from its SPEC, and the judgement that a person wrote in it.

A card is a function of the source and of the card that was there; the same two give the same bytes.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from qoq_data.errors import QoQError
from qoq_data.formats.new_file import storage_error
from qoq_data.licence import strictest
from qoq_data.publish.blocks import block_lines, read_blocks
from qoq_data.publish.markdown import REDISTRIBUTION_TEXT, licence_rows, plain, sentence, table
from qoq_data.record import AnswerType
from qoq_data.source import Source, SourceOptions, SourceSpec, Task
from qoq_data.sources import registry

_ANSWER_TEXT = {
    AnswerType.ONE: "one choice",
    AnswerType.SEVERAL: "any number of choices",
    AnswerType.NUMBER: "a number",
}
_NO_CARD = "README.md"


def card_text(source: Source, previous: str | None) -> str:
    """The card of a source, with the blocks by hand of ``previous``.

    Raises ``UsageError`` when the blocks of ``previous`` cannot be told apart: see ``blocks.read_blocks``.
    """
    kept = read_blocks(previous or "", f"{source.name}.md")
    parts = chain(
        _head(source),
        ["## What it is worth", "", *block_lines("judgement", kept)],
        ["## Known defects", "", *block_lines("known-defects", kept)],
        _licence(source.spec),
        _patients(source.spec),
        _versions(source.spec),
        _files(source.spec),
        _tasks(source.spec),
        _context(source.spec),
        _recipe(source),
        _synthetic(source.spec),
    )
    return "\n".join(parts).rstrip("\n") + "\n"


def check_cards(folder: Path, sources: Sequence[Source]) -> list[str]:
    """What is wrong with the committed cards: missing, stale, damaged, or of no source at all. Empty: all is well."""
    problems = []
    for source in sources:
        path = folder / f"{source.name}.md"
        if not path.is_file():
            problems.append(f"{path.name} is missing: run 'qoq-data card {source.name}' and write its blocks.")
            continue
        try:
            committed = _read(path)
            stale = card_text(source, committed) != committed
        except QoQError as error:
            problems.append(str(error))
            continue
        if stale:
            problems.append(f"{path.name} is stale: run 'qoq-data card {source.name}'.")
    known = {*registry(), *(source.name for source in sources)}
    found = sorted(path.name for path in folder.glob("*.md") if path.name != _NO_CARD)
    problems += [f"{name} is the card of no source: remove it." for name in found if name[:-3] not in known]
    return problems


def write_cards(folder: Path, sources: Sequence[Source]) -> list[Path]:
    """Write the card of each source; returns their paths. All are made before the first is written, so that an error
    in one leaves every file as it was."""
    texts = {}
    for source in sources:
        path = folder / f"{source.name}.md"
        texts[path] = card_text(source, _read(path) if path.is_file() else None)
    for path, text in texts.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise storage_error(error, path.name) from error
    return list(texts)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise storage_error(error, path.name) from error
    except UnicodeDecodeError as error:
        raise QoQError(f"{path.name} is not UTF-8: save it as that.") from error


def _head(source: Source) -> Iterator[str]:
    spec = source.spec
    yield f"# {plain(spec.title)} (`{spec.name}`)"
    yield ""
    yield f"<!-- Made by 'qoq-data card {spec.name}' from the source file; only what stands by hand is kept. -->"
    yield ""
    about, _, rest = (ast.get_docstring(ast.parse(source.module_file.read_bytes())) or "").partition("\n\n")
    if about:
        yield sentence(" ".join(about.replace("``", "`").split()))
        yield ""
    expression, redistribution = strictest(spec.licences.values())
    yield from table(
        ("", ""),
        [
            ("domain", str(spec.domain)),
            ("modality", spec.modality),
            ("homepage", f"<{spec.homepage}>"),
            ("access", str(spec.access)),
            ("licence of a row", f"`{expression}`"),
            ("may be passed on", REDISTRIBUTION_TEXT[redistribution]),
            *([("written into the pixels", plain(spec.burned_in_text))] if spec.burned_in_text else []),
            ("source file", f"`{source.module_file.name}`"),
        ],
    )
    yield f"Cite: {plain(spec.citation)}"
    yield ""
    if rest.strip():
        yield "## How it is read"
        yield ""
        yield from rest.replace("``", "`").strip().splitlines()
        yield ""


def _licence(spec: SourceSpec) -> Iterator[str]:
    yield "## Licence and access"
    yield ""
    yield from table(("input", "licence", "identifier", "may be passed on"), licence_rows(spec.licences))
    yield f"Access: {spec.access}. To get the files:"
    yield ""
    yield from (f"{number}. {step}" for number, step in enumerate(spec.access_steps, 1))
    yield ""


def _patients(spec: SourceSpec) -> Iterator[str]:
    yield "## Patients and splits"
    yield ""
    yield f"Identity group: `{spec.identity_group}`. Sources of one group number the same people, on the same sides."
    yield ""
    yield sentence(spec.grouping)
    yield ""


def _versions(spec: SourceSpec) -> Iterator[str]:
    yield "## Versions"
    yield ""
    rows = [(one.name, one.items, one.patients, spec.published_items) for one in spec.versions]
    yield from table(("version", "items", "patients", "items in the paper"), rows)
    yield (
        "Items and patients are the publisher's counts, a dash where none is stated. The paper's count stands beside "
        "them for comparison. Neither is held against a build, which says what it found."
    )
    yield ""


def _files(spec: SourceSpec) -> Iterator[str]:
    yield "## Files"
    yield ""
    rows = [
        (
            f"`{one.path}`",
            "required" if one.required else "optional",
            ", ".join(_columns(one.columns)),
        )
        for one in spec.expected_files
    ]
    yield from table(("in the raw folder", "", "columns that are read"), rows)
    if spec.checksums_file:
        yield f"The publisher's checksums are in `{spec.checksums_file}`: `qoq-data doctor {spec.name} --checksums`."
        yield ""


def _columns(names: Sequence[str]) -> Iterator[str]:
    """Names of columns, a run of numbered ones by its ends."""
    for stem, run in groupby(names, lambda name: re.sub(r"[0-9]+$", "", name)):
        few = [f"`{name}`" if name else "(the first, without a name)" for name in run]
        if stem and len(few) > 3:
            yield f"{few[0]} to {few[-1]}"
        else:
            yield from few


def _tasks(spec: SourceSpec) -> Iterator[str]:
    yield "## Tasks"
    yield ""
    rows = [
        (
            f"`{task.name}`",
            _ANSWER_TEXT[task.answer_type],
            len(task.choices) or None,
            None if task.tolerance is None else f"± {task.tolerance:g}",
            len(task.wordings),
            "yes" if task.default else "when named",
            f"measured: `{task.fact}`" if task.fact else "the publisher's files",
        )
        for task in spec.tasks
    ]
    yield from table(("task", "answer", "choices", "tolerance", "wordings", "asked", "the answer comes from"), rows)
    if any(task.tolerance is not None for task in spec.tasks):
        yield "A tolerance is in the unit that the question names."
        yield ""
    for task in spec.tasks:
        if task.choices:
            yield from _vocabulary(task)


def _vocabulary(task: Task) -> Iterator[str]:
    yield f"### Choices of `{task.name}`"
    yield ""
    yield from table(("label", "text in the row"), [(f"`{one.key}`", plain(one.text)) for one in task.choices])


def _context(spec: SourceSpec) -> Iterator[str]:
    yield "## Context"
    yield ""
    if spec.context_fields:
        fields = ", ".join(f"`{name}`" for name in spec.context_fields)
        yield f"A question may say: {fields}. Nothing else of the tables is shown."
    else:
        yield "A question says nothing beside its medium."
    yield ""


def _recipe(source: Source) -> Iterator[str]:
    yield "## Recipe keys"
    yield ""
    if source.options_model is SourceOptions or not source.options_model.model_fields:
        yield "The source has none of its own."
        yield ""
        return
    yield "Under `options` of the source's entry in a recipe:"
    yield ""
    fields = source.options_model.model_json_schema()["properties"]
    described = any("description" in one for one in fields.values())
    rows = [
        (
            f"`{name}`",
            f"`{_yaml(one.get('default'))}`",
            _values(one),
            *((plain(one.get("description", "")),) if described else ()),
        )
        for name, one in fields.items()
    ]
    yield from table(("key", "default", "values", *(("what it does",) if described else ())), rows)
    text = inspect.cleandoc(source.options_model.__doc__ or "").partition("\n\n")[2].replace("``", "`")
    if text:
        yield from text.splitlines()
        yield ""


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _values(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{_yaml(value)}`" for value in field["enum"])
    bounds = [
        f"{word} {field[name]:g}"
        for name, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if name in field
    ]
    kinds = [one.get("type", "") for one in field.get("anyOf", [field])]
    return " ".join([" or ".join(kind for kind in kinds if kind), *bounds])


def _synthetic(spec: SourceSpec) -> Iterator[str]:
    yield "## Without the files"
    yield ""
    yield (
        f"`qoq-data build {spec.name} --synthetic` writes a generated tree in the same layout and builds it. Its media "
        "show no patient; they are for trying things out, and nothing learned from them holds of a patient."
    )
    yield ""
    rows = [(f"`{one.task}`", ", ".join(f"`{name}`" for name in one.features)) for one in spec.synthetic]
    yield from table(("task whose labels can be seen", "by the measured features"), rows)
