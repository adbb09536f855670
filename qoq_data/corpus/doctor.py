"""What is wrong with a raw folder, and what to type next: the folder beside the SPEC of its source.

Findings name paths below the root and never a cell's content. Looking is cheap: names, sizes, the first bytes of
files, headers of tables, one scan. ``checksums`` asks for every byte.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import polars as pl

from qoq_data.corpus.checksums import disagreeing, read_checksums
from qoq_data.corpus.files_on_disk import file_problem, header_problem, missing_columns
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.wrong_root import missing_required, typed_root, wrong_root
from qoq_data.errors import QoQError, RecordError
from qoq_data.formats.storage import Store
from qoq_data.source import Source

Severity = Literal["error", "warning", "note"]

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
MOST_TOLD = 20
"""Most findings of one kind; those beyond it are counted in one line."""
FILES_LOOKED_AT = 2_000
"""Files of each expected folder whose size and first bytes are looked at; with ``checksums`` all of them."""
ITEMS_LOOKED_FOR = 1_000
"""Items, evenly spread, whose media are looked for; with ``checksums`` all of them."""
LONGEST_PATH = 200
"""Characters of a path that are told; a link that runs round makes it longer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: what, at which path below the root, and what to type about it (may be blank)."""

    severity: Severity
    what: str
    where: str = ""
    what_to_type: str = ""


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Whether a build can begin: no finding is an error."""
    return all(finding.severity != "error" for finding in findings)


def examine(source: Source, tree: Store, checksums: bool) -> list[Finding]:
    """Everything that can be said of a raw folder, errors first; with ``checksums`` every file that has one is read."""
    try:
        findings = list(_look(source, tree, checksums))
    except RecordError as error:
        findings = [_unreadable(tree, error)]
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _look(source: Source, tree: Store, checksums: bool) -> Iterator[Finding]:
    if not tree.is_folder():
        yield Finding("error", "there is no such folder", "", f"qoq-data info {source.name}")
        return
    absent = missing_required(source.spec, tree)
    elsewhere = wrong_root(source, tree) if absent else None
    if elsewhere is not None:
        yield Finding("error", elsewhere.what, elsewhere.where, elsewhere.what_to_type)
        if len(absent) == sum(file.required for file in source.spec.expected_files):
            return
    for path in absent:
        kind = "folder" if path.endswith("/") else "file"
        what = f"this {kind} of the publisher's release is not there; it comes from {source.spec.homepage}"
        yield Finding("error", what, path, f"qoq-data info {source.name}")
    problems = [*_files(source, tree, checksums), *_columns(source, tree), *_archives(source, tree, bool(absent))]
    yield from problems
    yield from _extra(source, tree)
    known = {one.where for one in problems}
    checked = list(_checksums(source, tree, checksums, known)) if not absent else []
    yield from checked
    if absent or not is_healthy(problems):
        return
    scanned = list(_scanned(source, tree, checksums))
    yield from scanned
    if is_healthy(scanned) and is_healthy(checked):
        build = f"qoq-data build {source.name} --raw {shlex.quote(typed_root(tree))} --out corpora/{source.name}"
        yield Finding("note", "nothing stands in the way of a build", "", build)


def _files(source: Source, tree: Store, every: bool) -> Iterator[Finding]:
    """Files that are empty, cut short, or web pages under another name."""
    found: list[Finding] = []
    for expected in source.spec.expected_files:
        if not expected.path.endswith("/"):
            is_file = tree.exists(expected.path) and not tree.is_folder(expected.path)
            paths: Iterable[str] = [expected.path] if is_file else []
        else:
            below = tree.walk(expected.path.rstrip("/"))
            paths = below if every else islice(below, FILES_LOOKED_AT)
        for path in paths:
            problem = file_problem(tree, path, whole=every)
            if problem:
                found.append(Finding("error", problem, path, f"qoq-data info {source.name}"))
    yield from _shortened(found, "files are empty, cut short or web pages")


def _columns(source: Source, tree: Store) -> Iterator[Finding]:
    for expected in source.spec.expected_files:
        if not expected.columns or not tree.exists(expected.path) or file_problem(tree, expected.path, whole=False):
            continue
        problem = header_problem(tree, expected.path)
        if problem:
            yield Finding("error", problem, expected.path)
            continue
        absent = missing_columns(tree, expected.path, expected.columns)
        if absent:
            names = ", ".join(repr(name) for name in absent)
            what = f"the table lacks {names}: is it of another release? It comes from {source.spec.homepage}"
            yield Finding("error", what, expected.path, f"qoq-data info {source.name}")


def _archives(source: Source, tree: Store, something_absent: bool) -> Iterator[Finding]:
    """Archives at the root: still to be unpacked where something is absent, else only taking space."""
    expected = {file.path for file in source.spec.expected_files}
    for name in tree.names():
        if name in expected or not name.lower().endswith(ARCHIVES):
            continue
        problem = file_problem(tree, name, whole=False)
        if problem:
            yield Finding("error", problem, name, f"qoq-data info {source.name}")
        elif something_absent:
            into, archive = shlex.quote(typed_root(tree)), shlex.quote(f"{typed_root(tree)}/{name}")
            unpack = f"unzip -d {into} {archive}" if name.lower().endswith(".zip") else f"tar -C {into} -xf {archive}"
            yield Finding("error", "this archive is not unpacked yet", name, unpack)


def _extra(source: Source, tree: Store) -> Iterator[Finding]:
    named = [path for file in source.spec.expected_files for path in (file.path, *file.other_names)]
    known = {path.partition("/")[0] for path in named}
    found = [
        Finding("note", "is no part of the publisher's layout, and is not read", name)
        for name in tree.names()
        if name.rstrip("/") not in known and not name.lower().endswith(ARCHIVES)
    ]
    yield from _shortened(found, "more entries are no part of the publisher's layout")


def _checksums(source: Source, tree: Store, every: bool, known: set[str]) -> Iterator[Finding]:
    """The publisher's digests against the tables, or against all that the list names but what is ``known`` as wrong."""
    path = source.spec.checksums_file
    if path is None:
        return
    try:
        listed = read_checksums(tree, path)
    except RecordError as error:
        yield Finding("note", f"nothing could be held against the publisher's checksums: {error.detail}", path)
        return
    if listed.unreadable_lines:
        yield Finding("warning", f"{listed.unreadable_lines} of its lines are no checksum and path", path)
    tables = {file.path for file in source.spec.expected_files if file.columns}
    asked = {
        name: digest
        for name, digest in listed.digests.items()
        if name not in known and (every or (name in tables and tree.exists(name)))
    }
    wrong = [Finding("error", error.detail, name) for name, error in disagreeing(tree, asked)]
    yield from _shortened(wrong, f"files do not agree with {path}")
    if not wrong and asked:
        more = "" if every else f"; --checksums reads all {len(listed.digests):,}"
        yield Finding("note", f"{len(asked):,} files agree with the publisher's checksums{more}", path)


def _scanned(source: Source, tree: Store, every: bool) -> Iterator[Finding]:
    """What a scan says: an error of the tables, else the version and the counts beside the publisher's."""
    try:
        version = source.version(tree)
        items = scan_items(source, tree, source.options_model())
    except QoQError as error:
        yield Finding("error", str(error))
        return
    yield from _counts(source, version, items)
    yield from _media(source, tree, items, every)


def _counts(source: Source, version: str, items: pl.DataFrame) -> Iterator[Finding]:
    published = next((one for one in source.spec.versions if one.name == version), None)
    patients = items["patient"].drop_nulls().n_unique()
    people = f" of {patients:,} patients" if patients else ""
    found = f"version {version}: {items.height:,} items{people}"
    if published is None or published.items is None:
        yield Finding("note", f"{found}; the publisher states no count")
        return
    theirs = f"{published.items:,} items" + (f" of {published.patients:,} patients" if published.patients else "")
    same = items.height == published.items and published.patients in (None, patients)
    if same:
        yield Finding("note", f"{found}, as its publisher says")
    else:
        yield Finding("warning", f"{found}; its publisher says {theirs}. An excerpt builds too")


def _media(source: Source, tree: Store, items: pl.DataFrame, every: bool) -> Iterator[Finding]:
    """Whether the files that the items name are there."""
    step = 1 if every else max(1, items.height // ITEMS_LOOKED_FOR)
    looked_for = items.gather_every(step)
    absent: list[str] = []
    for media in looked_for["media"]:
        path = next((one["path"] for one in media if not _is_there(tree, one["path"])), None)
        absent += [path] if path is not None else []
    if not absent:
        return
    what = (
        f"{len(absent):,} of {looked_for.height:,} items looked at lack a file and become ledger lines: this one first"
    )
    limit = source.spec.skip_limit
    if len(absent) > limit * looked_for.height:
        what += f". A build stops when more than {limit:g} are skipped: if this is what you have, raise skip_limit"
    yield Finding("warning", what, absent[0])


def _is_there(tree: Store, path: str) -> bool:
    try:
        tree.identity(path)
    except RecordError:
        return False
    return True


def _shortened(findings: Sequence[Finding], rest: str) -> Iterator[Finding]:
    yield from findings[:MOST_TOLD]
    if len(findings) > MOST_TOLD:
        yield Finding(findings[0].severity, f"{len(findings) - MOST_TOLD:,} more: {rest}")


def _unreadable(tree: Store, error: RecordError) -> Finding:
    """A folder that cannot be listed ends the look; a path that a link runs round in is told by its beginning."""
    where = error.path if len(error.path) <= LONGEST_PATH else f"{error.path[:LONGEST_PATH]}…"
    allow = f"chmod -R u+rX {shlex.quote(typed_root(tree))}" if "permission" in error.detail else ""
    return Finding("error", f"the folder cannot be read: {error.detail}", where, allow)
