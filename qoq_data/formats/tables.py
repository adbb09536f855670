"""Publishers' tables into polars, with every column declared and every cell text unless a type is asked for.

Types are never inferred: a code ``0870`` stays ``0870``, and a row late in the file cannot change a column. A column
that is absent, bytes that are not the declared encoding, and a cell that is no number are each one clear error.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping

import polars as pl

from qoq_data.errors import LayoutError, Reason, RecordError, TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.workbook import first_sheet

TABLE_LIMIT = 8 << 30


def read_table(
    tree: Store,
    path: str,
    columns: Mapping[str, pl.DataType | type[pl.DataType]],
    *,
    optional: tuple[str, ...] = (),
    separator: str = ",",
    newline_in_header: bool = False,
) -> pl.DataFrame:
    """The named columns of a CSV or TSV file (gzip too) or of an XLSX file's first sheet; blanks are null.

    ``columns`` maps each name to the type wanted. Those in ``optional`` may be absent and are then null. A byte order
    mark is dropped, and so are blank lines at the end. Raises ``LayoutError`` when the file is absent, ``TableError``
    for anything in it that is not as declared (a row with more or fewer fields than the header is not): the message
    names file, column and line, never the cell.
    """
    data = _bytes(tree, path)
    if path.lower().endswith(".xlsx") and not _is_web_page(data):
        data = first_sheet(data, path)
    if data.endswith((b"\n\n", b"\n\r\n")):
        data = data.rstrip(b"\r\n")
    if _is_web_page(data):
        raise TableError(f"{path} is a web page and not a table: the download needs a login. Fetch the file again.")
    header = _header(data, path, separator, newline_in_header)
    missing = [name for name in columns if name not in header and name not in optional]
    if missing:
        raise TableError(
            f"{path} lacks the column {missing[0]!r}; it has: {', '.join(header[:40])}. "
            "Is it the table of another source or release?"
        )
    wanted = [name for name in columns if name in header]
    try:
        frame = pl.read_csv(
            io.BytesIO(data),
            columns=list(dict.fromkeys((*wanted, header[-1]))),
            schema_overrides=dict.fromkeys(header, pl.String),
            separator=separator,
            infer_schema=False,
        )
    except pl.exceptions.ComputeError as error:
        raise TableError(f"{path} could not be read as a table: {_reason(error, data)}.") from error
    except pl.exceptions.NoDataError as error:
        raise TableError(f"{path} is empty.") from error
    if frame[header[-1]].null_count():
        _check_widths(data, path, len(header), separator)
    return frame.select(_typed(frame, data, path, separator, name, dtype) for name, dtype in columns.items())


def _is_web_page(data: bytes) -> bool:
    return data[:64].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _bytes(tree: Store, path: str) -> bytes:
    try:
        data = tree.read(path, TABLE_LIMIT)
    except RecordError as error:
        if error.reason is Reason.FILE_MISSING:
            raise LayoutError(f"{path} is not in the raw folder. 'qoq-data doctor' says what is.") from error
        raise LayoutError(f"{path} cannot be read: {error.detail}.") from error
    if data[:2] == b"\x1f\x8b":
        import gzip
        import zlib

        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(TABLE_LIMIT + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise TableError(f"{path} is a damaged gzip file: fetch it again.") from error
        if len(data) > TABLE_LIMIT:
            raise TableError(f"{path} inflates to more than {TABLE_LIMIT} bytes.")
    return data.removeprefix(b"\xef\xbb\xbf")


def _header(data: bytes, path: str, separator: str, newline_in_header: bool) -> list[str]:
    head = data[: 1 << 16]
    first = head if newline_in_header else head.split(b"\n", 1)[0]
    if not newline_in_header and b"\r" in first.rstrip(b"\r"):
        raise TableError(f"{path} ends its lines with carriage returns alone. Save it with newlines.")
    try:
        text = first.decode("utf-8", errors="ignore" if newline_in_header else "strict")
    except UnicodeDecodeError as error:
        raise TableError(f"{path} is not UTF-8 text: its header has a byte that is none.") from error
    if not newline_in_header and text.count('"') % 2:
        raise TableError(f"{path} has a column whose name holds a line break, which was not expected of it.")
    names = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    if not names:
        raise TableError(f"{path} is empty.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TableError(f"{path} has the column {twice[0]!r} twice.")
    return [name.rstrip("\r") for name in names]


def _reason(error: Exception, data: bytes) -> str:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as broken:
        row = data.count(b"\n", 0, broken.start) + 1
        return f"line {row} is not UTF-8 text"
    text = str(error).lower()
    return "a row has more fields than the header" if "fields" in text else "its quoting or its rows are broken"


def _records(data: bytes, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Every record of a table, its header too, with the line it begins on. Slow: for what polars does not tell."""
    limit = csv.field_size_limit(TABLE_LIMIT)
    try:
        reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""), delimiter=separator)
        line = 1
        for fields in reader:
            yield line, fields
            line = reader.line_num + 1
    finally:
        csv.field_size_limit(limit)


def _check_widths(data: bytes, path: str, width: int, separator: str) -> None:
    """Raise ``TableError`` for a short row, which polars fills up with nulls: the last column is null in each."""
    for line, fields in _records(data, separator):
        if len(fields) != width:
            raise TableError(f"{path}, line {line}: it has {len(fields)} fields and not {width} as the header.")


def _typed(
    frame: pl.DataFrame, data: bytes, path: str, separator: str, name: str, dtype: pl.DataType | type[pl.DataType]
) -> pl.Series:
    if name not in frame.columns:
        return pl.Series(name, [None] * frame.height, dtype=dtype)
    column = frame[name]
    blank = column.str.strip_chars() == ""
    if blank.any():
        column = frame.select(pl.when(~blank).then(pl.col(name)).alias(name)).to_series()
    if dtype == pl.String:
        return column
    typed = column.str.strip_chars().cast(dtype, strict=False)
    bad = typed.is_null() & column.is_not_null()
    if typed.dtype.is_float():
        bad |= ~typed.is_finite().fill_null(value=True)
    if bad.any():
        record = int(bad.arg_max() or 0) + 1
        line, _ = next(itertools.islice(_records(data, separator), record, None))
        raise TableError(f"{path}, line {line}: the cell of column {name!r} is no {dtype}.")
    return typed
