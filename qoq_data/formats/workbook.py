"""The first sheet of an Excel workbook (``.xlsx``) as the bytes of a CSV table, every cell as text.

Read by ``fastexcel``, which fills a rectangle as large as the farthest cell: one cell at XFD1048576 would ask for 400
GB. So the archive is opened here first, its parts inflated within a budget, the farthest cell looked for, and only
then are the parts handed on, in an archive of our own.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib

from qoq_data.errors import TableError

PART_BYTES = 1 << 28
"""Of all parts of a workbook together, inflated."""
CELLS = 1 << 24
_CELL = re.compile(rb'\br\s*=\s*["\']([A-Za-z]{1,8})([0-9]{1,12})["\']')


def first_sheet(data: bytes, path: str) -> bytes:
    """CSV of the first sheet, blank rows at its end left out; whole numbers print without a point.

    Raises ``TableError``: no workbook, damaged, encrypted, over ``PART_BYTES`` or over ``CELLS``.
    """
    import fastexcel  # here, as few sources ship a workbook

    parts = _parts(data, path)
    _check_extent(parts, path)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, content in parts.items():
            file.writestr(zipfile.ZipInfo(name), content)
    try:
        sheet = fastexcel.read_excel(archive.getvalue()).load_sheet(0, header_row=None, dtypes="string")
        rows = sheet.to_polars().rows()
    except fastexcel.FastExcelError as error:
        raise TableError(f"{path} is a damaged workbook: fetch it again.") from error
    while rows and not any(rows[-1]):
        rows.pop()
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _parts(data: bytes, path: str) -> dict[str, bytes]:
    """Every part of the archive by its name, inflated."""
    parts: dict[str, bytes] = {}
    left = PART_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            for entry in file.infolist():
                with file.open(entry) as part:
                    parts[entry.filename] = part.read(left + 1)
                left -= len(parts[entry.filename])
                if left < 0:
                    raise TableError(f"{path} inflates to more than {PART_BYTES} bytes.")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, NotImplementedError) as error:
        raise TableError(f"{path} is no workbook, or a damaged one: fetch it again.") from error
    return parts


def _check_extent(parts: dict[str, bytes], path: str) -> None:
    rows, columns = 1, 1
    for content in parts.values():
        for letters, number in _CELL.findall(content):
            rows = max(rows, int(number))
            columns = max(columns, _column(letters))
    if rows * columns > CELLS:
        raise TableError(f"{path} spans {rows} rows and {columns} columns, which is no publisher's table.")


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - ord("A") + 1
    return number
