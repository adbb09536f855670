"""What the size, the first bytes and the structure of one raw file tell, without reading what it means."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Sequence
from typing import BinaryIO

from qoq_data.formats.storage import Store

HEAD_BYTES = 1 << 16
_WEB_PAGES = (".html", ".htm")
_GZIP = (".gz", ".tgz")
_GZIP_WITHOUT_ASKING = 64 << 20
"""Gzip files up to this size are inflated to their end in any case; larger ones when all is to be read."""


def file_problem(tree: Store, path: str, *, whole: bool) -> str:
    """What is wrong with a file, or nothing: empty, a web page, or an archive that ends too soon."""
    try:
        with _open(tree, path) as file:
            return _content_problem(file, path.lower(), whole)
    except IsADirectoryError:
        return "a folder stands where a file should"
    except PermissionError:
        return "reading it is not permitted: change its permissions"
    except OSError as error:
        return f"it cannot be read: {(error.strerror or 'the store failed').lower()}"


def _content_problem(file: BinaryIO, name: str, whole: bool) -> str:
    head = file.read(512)
    if not head:
        return "the file is empty (0 bytes): fetch it again"
    if not name.endswith(_WEB_PAGES) and is_web_page(head):
        return "the file is a web page under this name: the download needs a login. Fetch it again"
    if name.endswith(_GZIP):
        return _gzip_problem(file, whole)
    return _zip_problem(file) if name.endswith(".zip") else ""


def is_web_page(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an HTML page."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html"))


def header_problem(tree: Store, path: str) -> str:
    """Why a table's header cannot be read, or nothing."""
    try:
        return "" if _header(tree, path) else "the table is empty"
    except UnicodeDecodeError:
        return "its header is not UTF-8 text"
    except (OSError, EOFError, zlib.error):
        return "the gzip file is damaged: fetch it again"


def missing_columns(tree: Store, path: str, columns: Sequence[str]) -> list[str]:
    """The columns that a table's header does not have; the header must be readable."""
    header = _header(tree, path)
    return [name for name in columns if name not in header]


def _header(tree: Store, path: str) -> list[str]:
    with _open(tree, path) as file:
        start = file.read(2)
        file.seek(0)
        head = gzip.GzipFile(fileobj=file).read(HEAD_BYTES) if start == b"\x1f\x8b" else file.read(HEAD_BYTES)
    first = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8")
    separator = "\t" if ".tsv" in path.lower() else ","
    return next(csv.reader(io.StringIO(first.rstrip("\r"), newline=""), delimiter=separator), [])


def _gzip_problem(file: BinaryIO, whole: bool) -> str:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    only_begin = not whole and size > _GZIP_WITHOUT_ASKING
    try:
        with gzip.GzipFile(fileobj=file) as inflated:
            while inflated.read(1 << 20) and not only_begin:
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return "the gzip file is damaged or cut short: fetch it again"
    return ""


def _zip_problem(file: BinaryIO) -> str:
    """A zip file's list of contents stands at its end, so that a cut one has none."""
    try:
        with zipfile.ZipFile(file) as archive:
            archive.namelist()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        return "the zip file is damaged or cut short: fetch it again"
    return ""


def _open(tree: Store, path: str) -> BinaryIO:
    full = tree.full_path(path)
    if tree.folder is not None:
        return open(full, "rb")  # noqa: PTH123 - the caller closes it
    import fsspec

    opened: BinaryIO = fsspec.open(f"{tree.address.rstrip('/')}/{path}", "rb").open()
    return opened
