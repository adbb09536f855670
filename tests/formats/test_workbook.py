"""Excel tables: the cells as text, within a budget, and spoilt ones one clear error."""

from __future__ import annotations

import csv
import io
import random
import re
import resource
import zipfile
from pathlib import Path
from xml.etree import ElementTree as ET

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.errors import TableError
from qoq_data.formats import workbook
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.formats.workbook import first_sheet

_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/xl/workbook.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
    '<Override PartName="/xl/worksheets/sheet1.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>'
)
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def sheet_xml(rows: list[list[str | float | None]]) -> str:
    lines = []
    for number, row in enumerate(rows, start=1):
        cells = ""
        for letter, value in zip("ABCDEFGH", row, strict=False):
            if isinstance(value, str):
                cells += f'<c r="{letter}{number}" t="inlineStr"><is><t>{value}</t></is></c>'
            elif value is not None:
                cells += f'<c r="{letter}{number}"><v>{value}</v></c>'
        lines.append(f'<row r="{number}">{cells}</row>')
    return f'<worksheet xmlns="{_MAIN}"><sheetData>{"".join(lines)}</sheetData></worksheet>'


def parts_of(sheet: str) -> dict[str, str]:
    relation = '<Relationship Id="rId1" Type="{}/{}" Target="{}"/>'
    return {
        "[Content_Types].xml": _TYPES,
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}">'
        + relation.format(_OFFICE, "officeDocument", "xl/workbook.xml")
        + "</Relationships>",
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}">'
        '<sheets><sheet name="one" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}">'
        + relation.format(_OFFICE, "worksheet", "worksheets/sheet1.xml")
        + "</Relationships>",
        "xl/worksheets/sheet1.xml": sheet,
    }


def archive(parts: dict[str, str] | dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return data.getvalue()


ROWS: list[list[str | float | None]] = [
    ["id", "age", "kind"],
    ["0870", 44, "mass"],
    ["b", 2.5, None],
    ["c, d", None, "x"],
]


def test_cells_come_as_the_text_that_they_show() -> None:
    assert list(csv.reader(io.StringIO(first_sheet(archive(parts_of(sheet_xml(ROWS))), "t.xlsx").decode()))) == [
        ["id", "age", "kind"],
        ["0870", "44", "mass"],
        ["b", "2.5", ""],
        ["c, d", "", "x"],
    ]


def test_a_workbook_is_read_as_any_table_is(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(archive(parts_of(sheet_xml(ROWS))))
    table = read_table(Store(tmp_path), "t.xlsx", {"id": pl.String, "age": pl.Float64})
    assert table.rows() == [("0870", 44.0), ("b", 2.5), ("c, d", None)]
    with pytest.raises(TableError, match=r"t.xlsx lacks the column 'sex'; it has: id, age, kind"):
        read_table(Store(tmp_path), "t.xlsx", {"sex": pl.String})


def test_the_real_clinical_table_of_cmmd(realdata: Path) -> None:
    """Every cell beside the XML itself, read by the standard library."""
    path = realdata / "cmmd" / "CMMD_clinicaldata_revision.xlsx"
    with zipfile.ZipFile(path) as file:
        shared = [
            "".join(one.itertext())
            for one in ET.fromstring(file.read("xl/sharedStrings.xml"))  # noqa: S314
        ]
        sheet = ET.fromstring(file.read("xl/worksheets/sheet1.xml"))  # noqa: S314
    expected = []
    for row in sheet.iter(f"{{{_MAIN}}}row"):
        cells = dict.fromkeys("ABCDEFG", "")
        for cell in row:
            value = cell.find(f"{{{_MAIN}}}v")
            if value is not None:
                text = value.text or ""
                cells[re.sub(r"\d", "", cell.get("r", ""))] = shared[int(text)] if cell.get("t") == "s" else text
        expected.append(list(cells.values()))
    found = list(csv.reader(io.StringIO(first_sheet(path.read_bytes(), path.name).decode(), newline="")))
    assert len(found) == 1873
    assert found == expected


@pytest.mark.parametrize("cell", ["XFD1048576", "A99999999", "ZZZZZZ1", "zzz999999"])
def test_a_cell_far_out_is_refused_before_memory_is_asked_for(cell: str) -> None:
    sheet = sheet_xml(ROWS).replace('r="A2"', f'r="{cell}"')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TableError, match=r"^t.xlsx spans \d+ rows and \d+ columns, which is no publisher's table.$"):
        first_sheet(archive(parts_of(sheet)), "t.xlsx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_part_that_inflates_beyond_the_budget_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "PART_BYTES", 1 << 20)
    parts = parts_of(sheet_xml(ROWS)) | {"xl/media/image1.bin": "0" * (1 << 21)}
    with pytest.raises(TableError, match=r"^t.xlsx inflates to more than 1048576 bytes.$"):
        first_sheet(archive(parts), "t.xlsx")


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"id,age\n1,2\n", archive({"a.txt": "no workbook"})])
def test_what_is_no_workbook_is_one_clear_error(data: bytes) -> None:
    with pytest.raises(TableError, match=r"^t.xlsx is (no workbook, or )?a damaged"):
        first_sheet(data, "t.xlsx")


def test_a_page_saved_as_a_workbook_is_called_a_page(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"<!DOCTYPE html><html>sign in</html>")
    with pytest.raises(TableError, match="is a web page and not a table"):
        read_table(Store(tmp_path), "t.xlsx", {"id": pl.String})


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(0, 1 << 30), st.booleans())
def test_spoilt_bytes_are_a_table_or_one_clear_error(seed: int, inside: bool) -> None:
    """A few bytes changed, in the archive or in one of its parts."""
    draws = random.Random(seed)
    parts = {name: content.encode() for name, content in parts_of(sheet_xml(ROWS)).items()}
    name = draws.choice(sorted(parts))
    data = bytearray(parts[name] if inside else archive(parts))
    for _ in range(draws.randint(1, 5)):
        data[draws.randrange(len(data))] = draws.choice(b'<>"/=09AZ\xff\0')
    if draws.random() < 0.2:
        del data[draws.randrange(len(data)) :]
    spoilt = archive(parts | {name: bytes(data)}) if inside else bytes(data)
    try:
        found = first_sheet(spoilt, "t.xlsx")
    except TableError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(found.decode(), str)
