"""Checks of what a source does with a raw tree that is not right: one clear error, never an empty corpus."""

from __future__ import annotations

import csv
import gzip
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from qoq_data.contract.spec_checks import require
from qoq_data.contract.workspace import SEED, build, linked_copy, synthetic_tree, write_synthetic
from qoq_data.corpus.doctor import examine
from qoq_data.corpus.items import scan_items
from qoq_data.errors import Reason, SkipLimitError, SourceError
from qoq_data.formats.storage import Store
from qoq_data.source import ExpectedFile, Source
from qoq_data.sources import registry

OTHER_SOURCES = 4
"""How many other sources' trees are offered: those of the same domain first."""


def check_missing_files_are_told(source: Source, folder: Path) -> None:
    """Each required file or folder, removed or renamed, is one clear error that names it, and ``doctor`` names it.

    A file of the scan is a ``SourceError``. A folder of media is opened at render only: there every record is a
    ledger line and the build stops at its skip limit.
    """
    for file in source.spec.expected_files:
        if file.required:
            for how, change in (("removed", _remove), ("renamed", _rename)):
                with TemporaryDirectory(dir=folder) as scratch:
                    tree = linked_copy(synthetic_tree(source, folder), Path(scratch) / "raw")
                    require(
                        condition=(tree / file.path).exists(),
                        message=f"{source.name}: its synthetic tree has no {file.path}, which its SPEC requires",
                    )
                    change(tree / file.path)
                    _require_told(source, tree, Path(scratch) / "corpus", file, f"{file.path} {how}")


def check_missing_columns_are_told(source: Source, folder: Path) -> None:
    """Each column that the SPEC names, removed from its table or renamed there, is one error naming file and column."""
    for file in source.spec.expected_files:
        table = synthetic_tree(source, folder) / file.path
        if not file.columns or not table.is_file():
            continue
        header, rows = _read_table(table)
        with TemporaryDirectory(dir=folder) as scratch:
            tree = linked_copy(synthetic_tree(source, folder), Path(scratch) / "raw")
            for column in file.columns:
                where = f"{source.name}: {file.path} with its column {column!r}"
                require(condition=column in header, message=f"{where}: the synthetic table has no such column")
                place = header.index(column)
                without = [row[:place] + row[place + 1 :] for row in [header, *rows]]
                renamed = [[*header[:place], f"{column}_renamed", *header[place + 1 :]], *rows]
                for how, changed in (("removed", without), ("renamed", renamed)):
                    _write_table(tree / file.path, changed)
                    error = _scan_error(source, tree)
                    _require_clear(error, tree, f"{where} {how}", file.path, repr(column))


def check_other_sources_trees_are_told(source: Source, folder: Path) -> None:
    """Another source's raw tree, given by mistake, is one clear ``SourceError``."""
    others = [other for name, other in registry().items() if name != source.name]
    others.sort(key=lambda other: (other.spec.domain is not source.spec.domain, other.name))
    for other in others[:OTHER_SOURCES]:
        with TemporaryDirectory(dir=folder) as scratch:
            tree = Path(scratch) / "raw"
            write_synthetic(other, tree, SEED, 2)
            error = _scan_error(source, tree)
            _require_clear(error, tree, f"{source.name}: the tree of {other.name} given as its own")


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _rename(path: Path) -> None:
    path.rename(path.with_name(f"renamed_{path.name}"))


def _require_told(source: Source, tree: Path, corpus: Path, file: ExpectedFile, what: str) -> None:
    where = f"{source.name}: {what}"
    error = _scan_error(source, tree)
    if error is None:
        try:
            build(source, tree, corpus)
        except SkipLimitError as stopped:
            told = str(Reason.FILE_MISSING) in str(stopped)
            require(condition=told, message=f"{where}: the build stops, but not for missing files: {stopped}")
        except SourceError as stopped:
            _require_clear(stopped, tree, where, file.path)
        else:
            raise AssertionError(f"{where}: a corpus is built all the same")
    else:
        _require_clear(error, tree, where, file.path.rstrip("/"))
    findings = examine(source, Store(tree), checksums=False)
    named = any(one.severity == "error" and one.where == file.path for one in findings)
    require(condition=named, message=f"{where}: doctor does not name it")


def _scan_error(source: Source, tree: Path) -> Exception | None:
    """What scanning a tree raises, whatever it is."""
    try:
        scan_items(source, Store(tree), source.options_model())
        source.version(Store(tree))
    except Exception as error:  # noqa: BLE001 - that it is none but a SourceError is what the caller checks
        return error
    return None


def _require_clear(error: Exception | None, tree: Path, where: str, *named: str) -> None:
    require(condition=error is not None, message=f"{where}: it scans without an error")
    kind = type(error).__name__
    require(condition=isinstance(error, SourceError), message=f"{where}: {kind}, which is no SourceError: {error}")
    text = str(error)
    for name in named:
        require(condition=name in text, message=f"{where}: the error does not name {name}: {text}")
    require(condition="\n" not in text.strip(), message=f"{where}: the error is more than one paragraph")
    require(condition=str(tree) not in text, message=f"{where}: the error holds an absolute path")


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(path))
    return header, rows


def _write_table(path: Path, rows: list[list[str]]) -> None:
    """In place of a hard-linked table, whose other name keeps the old bytes."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=_separator(path), lineterminator="\n").writerows(rows)
    data = text.getvalue().encode()
    path.unlink()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _separator(path: Path) -> str:
    return "\t" if ".tsv" in path.suffixes else ","


TREE_CHECKS: dict[str, Callable[[Source, Path], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (check_missing_files_are_told, check_missing_columns_are_told, check_other_sources_trees_are_told)
}
