"""Publishers' tables: codes stay text, every defect is one clear error with the right line, no row is lost or made."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.errors import LayoutError, TableError
from qoq_data.formats import tables
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table

TEXT = {"id": pl.String, "x": pl.String}
NUMBER = {"id": pl.String, "x": pl.Float64}
PATIENT = "Erika Mustermann"


@pytest.fixture
def table(tmp_path: Path) -> Any:
    def read(content: str | bytes, columns: Any = TEXT, **keys: Any) -> list[tuple[Any, ...]]:
        (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(Store(tmp_path), "t.csv", columns, **keys).rows()

    return read


def said(table: Any, content: str | bytes, columns: Any = TEXT, **keys: Any) -> str:
    with pytest.raises(TableError) as caught:
        table(content, columns, **keys)
    assert PATIENT not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "code", ["00001", "1e5", "0870", "1.0", "NaN", "null", "NA", "true", "-", "1_000", "2024-01-01"]
)
def test_t07_a_code_stays_the_text_that_it_is(table: Any, code: str) -> None:
    assert table(f"id,x\n{code},1\n1,{code}\n") == [(code, "1"), ("1", code)]


def test_t07_late_text_in_a_number_column_is_one_error_with_its_line(table: Any) -> None:
    rows = "".join(f"{n},{n}\n" for n in range(1, 201))
    assert (
        said(table, f"id,x\n{rows}201,{PATIENT}\n", NUMBER) == "t.csv, line 202: the cell of column 'x' is no Float64."
    )


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_t07_lines_are_counted_right_after_cells_that_hold_newlines(table: Any, newline: str) -> None:
    lines = ["id,note,x", '1,"a', "b", '",1', '2,"c,"",', 'd",2', f"3,,{PATIENT}", ""]
    assert said(table, newline.join(lines), NUMBER).startswith("t.csv, line 7: ")


def test_t07_the_first_bad_cell_is_the_one_named(table: Any) -> None:
    assert said(table, "id,x\n1,1\n2,\n3,b\n4,c\n", NUMBER).startswith("t.csv, line 4: ")
    assert said(table, "id,x\na,1\n", {"id": pl.Int64, "x": pl.Float64}).startswith(
        "t.csv, line 2: the cell of column 'id'"
    )


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "NaN", "1,5", "0x10", "1 000", "½"])
def test_t07_what_is_no_finite_number_is_an_error(table: Any, cell: str) -> None:
    assert "line 3" in said(table, f'id,x\n1,2\n2,"{cell}"\n', NUMBER)


@pytest.mark.parametrize("cell", ["2.0", "2.5", "99999999999999999999", "1e3"])
def test_t07_what_is_no_whole_number_is_no_int(table: Any, cell: str) -> None:
    assert "line 2" in said(table, f"id,x\n1,{cell}\n", {"id": pl.String, "x": pl.Int64})


def test_numbers_are_read_with_spaces_round_them_and_blanks_are_null(table: Any) -> None:
    assert table('id,x\n1, 2.5 \n2,\n3,"  "\n4,-1e3\n', NUMBER) == [
        ("1", 2.5),
        ("2", None),
        ("3", None),
        ("4", -1000.0),
    ]
    assert table("id,x\n, \n") == [(None, None)]


@pytest.mark.parametrize("columns", [{"id": pl.String}, TEXT])
def test_t07_a_latin_1_byte_is_named_with_its_line(table: Any, columns: Any) -> None:
    content = f"id,x\n1,\xe4\n2,{PATIENT}\n3,\xe9\n".encode("latin-1").replace(b"\xe4", b"a")
    message = said(table, content, columns)
    assert message == "t.csv could not be read as a table: line 4 is not UTF-8 text."


def test_t07_a_header_that_is_not_utf_8(table: Any) -> None:
    assert "header" in said(table, "id,gr\xf6\xdfe,x\n1,2,3\n".encode("latin-1"))
    assert "UTF-8" in said(table, "id,x\n1,2\n".encode("utf-16"))


def test_t07_a_byte_order_mark_is_no_part_of_the_first_name(table: Any) -> None:
    assert table("\ufeffid,x\n1,2\n") == table('\ufeff"id",x\n1,2\n') == [("1", "2")]
    assert table(gzip.compress("\ufeffid,x\n1,2\n".encode())) == [("1", "2")]


def test_t07_newlines_and_separators_inside_quotes_are_content(table: Any) -> None:
    assert table('id,x\n"a,b","c\nd"\n"e""f",g\n') == [("a,b", "c\nd"), ('e"f', "g")]


def test_windows_line_ends_are_no_part_of_a_cell(table: Any) -> None:
    assert table("id,x\r\n1,2\r\n3,4\r\n") == [("1", "2"), ("3", "4")]


def test_line_ends_of_carriage_returns_alone_are_refused(table: Any) -> None:
    assert "carriage returns" in said(table, "id,x\r1,2\r3,4\r")
    assert "carriage returns" in said(table, "id,x\r1,2\r3,4\r", {"id": pl.String})


def test_gzip_is_read_by_what_the_file_is_and_not_by_its_name(table: Any) -> None:
    assert table(gzip.compress(b"id,x\n1,2\n")) == [("1", "2")]
    assert table(gzip.compress(b"id,x\n1,2\n") + gzip.compress(b"3,4\n")) == [("1", "2"), ("3", "4")]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-9],
        lambda data: data[: len(data) // 2],
        lambda data: data[:10],
        lambda data: data + b"xx",
        lambda data: data[:30] + b"\xff" * 20 + data[50:],
        lambda data: data[:-8] + b"\0\0\0\0" + data[-4:],
    ],
)
def test_damaged_gzip_is_said_so(table: Any, spoil: Any) -> None:
    content = "id,x\n" + "".join(f"{n},{n * n % 997}\n" for n in range(500))
    assert said(table, spoil(gzip.compress(content.encode()))) == "t.csv is a damaged gzip file: fetch it again."


def test_gzip_that_inflates_without_end_is_stopped_at_the_limit(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(b"id,x\n" + b"1,2\n" * 100_000)
    assert len(bomb) < 5_000
    monkeypatch.setattr(tables, "TABLE_LIMIT", 100_000)
    assert said(table, bomb) == "t.csv inflates to more than 100000 bytes."


def test_a_table_larger_than_the_limit_is_not_read(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TABLE_LIMIT", 8)
    with pytest.raises(LayoutError, match="more than the limit"):
        table("id,x\n1,2\n")


@pytest.mark.parametrize("page", ["<!DOCTYPE html><html>", "\n  <HTML lang='en'>", "<!doctype HTML>\n"])
def test_a_web_page_in_place_of_a_table_is_recognised(table: Any, page: str) -> None:
    assert "web page" in said(table, page)


def test_t08_a_file_that_is_not_there_says_which_and_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"^list/a\.csv is not in the raw folder\. 'qoq-data doctor'") as caught:
        read_table(Store(tmp_path), "list/a.csv", TEXT)
    assert str(tmp_path) not in str(caught.value)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(LayoutError, match="cannot be read"):
        read_table(Store(tmp_path), "folder.csv", TEXT)


def test_t08_a_column_of_another_release_is_named_with_those_there_are(table: Any) -> None:
    message = said(table, "id,X,y\n1,2,3\n")
    assert message.startswith("t.csv lacks the column 'x'; it has: id, X, y.")
    assert "lacks the column 'x'" in said(table, "id, x\n1,2\n")


def test_t08_a_column_that_stands_twice_is_refused_also_where_it_is_not_wanted(table: Any) -> None:
    assert said(table, "id,x,x\n1,2,3\n") == "t.csv has the column 'x' twice."
    assert said(table, "id,x,y,y\n1,2,3,4\n") == "t.csv has the column 'y' twice."


def test_columns_come_in_the_order_asked_for_and_optional_ones_as_nulls(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c\n1,2,3\n", encoding="utf-8")
    frame = read_table(Store(tmp_path), "t.csv", {"c": pl.Int64, "z": pl.Float64, "a": pl.String}, optional=("z",))
    assert frame.schema == {"c": pl.Int64, "z": pl.Float64, "a": pl.String}
    assert frame.rows() == [(3, None, "1")]


@pytest.mark.parametrize("content", ["", "\n", "\n\n", "\ufeff"])
def test_an_empty_file_is_said_so(table: Any, content: str) -> None:
    assert said(table, content) == "t.csv is empty."


@pytest.mark.parametrize("content", ["id,x", "id,x\n", "id,x\n\n\n"])
def test_a_header_alone_is_a_table_without_rows(table: Any, content: str) -> None:
    assert table(content) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,x\n1,2\n3\n4,5\n", "t.csv, line 3: it has 1 fields and not 2 as the header."),
        ('id,y,x\n1,"a\nb",3\n4,5', "t.csv, line 4: it has 2 fields and not 3 as the header."),
        ("id,x\n1,2\n\n3,4\n", "t.csv, line 3: it has 0 fields and not 2 as the header."),
        ("x,id,z\n1,2,\n3,4\n", "t.csv, line 3: it has 2 fields and not 3 as the header."),
    ],
)
def test_t07_a_short_row_is_not_filled_up(table: Any, content: str, message: str) -> None:
    assert said(table, content) == message


def test_t07_a_row_with_more_fields_than_the_header(table: Any) -> None:
    assert "more fields than the header" in said(table, f"id,x\n1,2\n3,4,{PATIENT}\n")


def test_t07_quotes_that_do_not_close(table: Any) -> None:
    assert "quoting" in said(table, f'id,x\n"{PATIENT},2\n3,4\n')


def test_a_blank_last_column_is_no_short_row(table: Any) -> None:
    assert table("id,x,z\n1,2,\n3,4,\n") == [("1", "2"), ("3", "4")]
    assert table('id,x\n1,""\n2,\n') == [("1", None), ("2", None)]


def test_a_cell_longer_than_csv_takes_by_default_is_no_error(table: Any) -> None:
    long = "a" * 200_000
    assert table(f"id,x\n{long},\n") == [(long, None)]


def test_blank_lines_at_the_end_are_no_rows(table: Any) -> None:
    assert table("id,x\n1,2\n\n\n") == table("id,x\r\n1,2\r\n\r\n") == table("id,x\n1,2") == [("1", "2")]


def test_a_column_name_that_holds_a_newline(table: Any) -> None:
    content = 'id,"x\ny"\n1,2\n'
    assert table(content, {"x\ny": pl.String}, newline_in_header=True) == [("2",)]
    assert "line break" in said(table, content, {"id": pl.String})


def test_a_column_without_a_name_is_read_by_that_name(table: Any) -> None:
    assert table(",x\na,1\n", {"": pl.String, "x": pl.String}) == [("a", "1")]


def test_tabs_separate_where_they_are_said_to(table: Any) -> None:
    assert table("id\tx\na,b\t2\n", separator="\t") == [("a,b", "2")]
    assert "line 3: it has 1 fields" in said(table, "id\tx\na\t2\nb,3\n", separator="\t")


_CELLS = st.lists(st.sampled_from([*'ab1,;"\n\t é0.', "\r\n"]), max_size=5).map("".join)


@settings(derandomize=True, deadline=None, max_examples=120)
@given(
    st.lists(st.tuples(_CELLS, _CELLS, _CELLS), max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.booleans(),
)
def test_t07_rows_and_cells_are_those_of_the_standard_library(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], newline: str, quoting: Any, squeeze: bool
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=newline, quoting=quoting)
    writer.writerow(["id", "y", "x"])
    writer.writerows(rows)
    content = text.getvalue().encode()
    folder = tmp_path_factory.getbasetemp() / "tables"
    folder.mkdir(exist_ok=True)
    (folder / "t.csv").write_bytes(gzip.compress(content) if squeeze else content)
    frame = read_table(Store(folder), "t.csv", {"id": pl.String, "y": pl.String, "x": pl.String})
    expected = list(csv.reader(io.StringIO(content.decode(), newline="")))[1:]
    assert frame.height == len(expected) == len(rows)
    assert frame.rows() == [tuple(cell if cell.strip() else None for cell in row) for row in expected]
