"""Item tables: what breaks the contract is said by column, and items set aside become ledger lines."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from qoq_data.corpus.items import checked_items, scan_items, set_aside
from qoq_data.corpus.ledger import Skip
from qoq_data.errors import SourceError, TableError
from qoq_data.formats.storage import Store
from qoq_data.record import AnswerType
from qoq_data.source import ITEM_COLUMNS, Choice, Source, SourceOptions, Task, media_type
from qoq_data.sources import registry

CHOICES = (Choice("b", "Benign"), Choice("m", "Malignant"))
TASKS = (
    Task("kind", AnswerType.ONE, ("Which?",), CHOICES),
    Task("signs", AnswerType.SEVERAL, ("Which?",), CHOICES),
    Task("rate", AnswerType.NUMBER, ("How many?",), tolerance=1.0),
    Task("size", AnswerType.NUMBER, ("How large?",), tolerance=1.0, fact="mask.size"),
)


def items(count: int = 3) -> pl.DataFrame:
    numbers = [str(n) for n in range(count)]
    fixed = {
        "item": numbers, "patient": [None] * count, "group": numbers, "study": [None] * count,
        "official_split": [None, "train", "test"][:count],
        "media": [[{"role": "image", "kind": "image", "path": "a.png", "part": ""}]] * count,
        "label_file": ["t.csv"] * count, "label_row": numbers,
    }  # fmt: skip
    answers = [
        pl.Series("answer.kind", [["b"], ["m"], None][:count], pl.List(pl.String)),
        pl.Series("answer.signs", [["b", "m"], ["m"], None][:count], pl.List(pl.String)),
        pl.Series("answer.rate", [1.5, None, -2.0][:count], pl.Float64),
    ]
    return pl.DataFrame(fixed, dict(ITEM_COLUMNS)).with_columns(*answers)


def source_with(table: pl.DataFrame) -> Source:
    busi = registry()["busi"]
    spec = dataclasses.replace(busi.spec, name="made-up", tasks=TASKS, context_fields=("sex",))
    return dataclasses.replace(busi, spec=spec, scan=lambda tree, options: table.lazy())


def scan(table: pl.DataFrame) -> pl.DataFrame:
    return scan_items(source_with(table), Store(Path("/nowhere")), SourceOptions())


def test_a_table_that_keeps_the_contract_comes_back_sorted() -> None:
    assert scan(items().reverse()).equals(items())


@pytest.mark.parametrize("column", [*ITEM_COLUMNS, "answer.kind", "answer.signs", "answer.rate"])
def test_a_column_that_is_absent_is_named(column: str) -> None:
    with pytest.raises(SourceError, match=f"made-up: its item table lacks the column '{column}'"):
        scan(items().drop(column))


@pytest.mark.parametrize("column", list(ITEM_COLUMNS))
def test_a_column_of_another_type_is_named(column: str) -> None:
    with pytest.raises(SourceError, match=f"the column '{column}' of its item table is Int64"):
        scan(items().with_columns(pl.lit(1, pl.Int64).alias(column)))


@pytest.mark.parametrize("column", ["item", "group", "media", "label_file", "label_row"])
def test_blanks_are_refused_where_there_can_be_none(column: str) -> None:
    blank = pl.when(pl.col("item") != "1").then(pl.col(column)).alias(column)
    with pytest.raises(SourceError, match=f"the column '{column}' of its item table has blanks"):
        scan(items().with_columns(blank))


def test_an_item_that_stands_twice_is_named_with_its_row() -> None:
    doubled = pl.concat([items(), items().filter(pl.col("item") == "1").with_columns(pl.lit("99").alias("label_row"))])
    with pytest.raises(TableError, match=r"made-up: the item 1 stands more than once \(t\.csv, (1|99)\)"):
        scan(doubled)


def test_no_item_at_all_says_where_to_look() -> None:
    with pytest.raises(SourceError, match=r"no item was found\. 'qoq-data doctor made-up'"):
        scan(items(0))


def lists(*values: Any) -> pl.Series:
    return pl.Series(values, dtype=pl.List(pl.String))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("official_split", pl.Series(["train", "dev", "test"]), "official split that is none of train"),
        ("answer.kind", lists(["b"], ["x"], None), "an answer of the task kind is outside its vocabulary"),
        ("answer.kind", lists(["b"], [None], None), "an answer of the task kind"),
        ("answer.kind", lists(["b"], ["b", "m"], None), "the task kind has the wrong number of labels"),
        ("answer.kind", lists(["b"], [], None), "the task kind has the wrong number of labels"),
        ("answer.signs", lists(["b"], [], None), "the task signs has the wrong number of labels"),
        ("answer.signs", pl.Series(["b", "m", None]), "answers of the task signs are String"),
        ("answer.rate", pl.Series([1.0, float("nan"), None]), "the task rate are not all finite"),
        ("answer.rate", pl.Series([1.0, float("inf"), None]), "the task rate are not all finite"),
        ("answer.rate", pl.Series([1, 2, 3]), "the task rate are not all finite"),
        ("answer.size", pl.Series([1.0, 2.0, 3.0]), "'answer.size' of its item table is not declared"),
        ("answer.colour", lists(["b"], ["b"], None), "'answer.colour' of its item table is not declared"),
        ("context.report", pl.Series(["a", "b", "c"]), "'context.report' of its item table is not declared"),
        ("age", pl.Series(["a", "b", "c"]), "'age' of its item table is not declared"),
        ("skip_reason", pl.Series([None, "withdrawn", None]), "one of skip_reason and skip_detail without the other"),
    ],
)
def test_what_breaks_the_contract_is_said_by_column_or_task(column: str, values: pl.Series, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        scan(items().with_columns(values.alias(column)))


@pytest.mark.parametrize(
    ("reason", "detail", "said"),
    [("odd", "x", "a skip_reason that is none of the known reasons"), ("withdrawn", None, "without a skip_detail")],
)
def test_what_is_set_aside_has_a_known_reason_and_a_sentence(reason: str, detail: str | None, said: str) -> None:
    columns = (
        pl.Series("skip_reason", [None, reason, None]),
        pl.Series("skip_detail", [None, detail, None], pl.String),
    )
    with pytest.raises(SourceError, match=said):
        scan(items().with_columns(*columns))


def test_context_that_is_declared_is_allowed() -> None:
    assert "context.sex" in scan(items().with_columns(pl.lit("male").alias("context.sex"))).columns


def test_items_set_aside_become_ledger_lines_and_leave_the_table() -> None:
    aside = items().with_columns(
        pl.Series("skip_reason", [None, "withdrawn", None]),
        pl.Series("skip_detail", [None, "the publisher withdrew it", None]),
    )
    kept, skips = set_aside(scan(aside), "made-up")
    assert kept.equals(items().filter(pl.col("item") != "1"))
    assert skips == [Skip("made-up", "1", "withdrawn", "t.csv", "the publisher withdrew it")]
    same, none = set_aside(items(), "made-up")
    assert same.equals(items())
    assert none == []


MEDIUM = {"role": "image", "kind": "image", "path": "a.png", "part": ""}


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ([], "has no medium"),
        ([MEDIUM | {"path": None}], "without a kind or a path"),
        ([MEDIUM | {"path": ""}], "without a kind or a path"),
        ([MEDIUM | {"kind": "video"}], "of a kind that is none of"),
        ([MEDIUM | {"kind": "mask"}], "begins with a mask"),
    ],
)
def test_media_that_no_reader_knows_are_refused(media: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        scan(items(2).with_columns(pl.Series("media", [[MEDIUM], media], dtype=ITEM_COLUMNS["media"])))


VOLUME = MEDIUM | {"kind": "volume", "path": "a.nii.gz"}
LABELS = MEDIUM | {"role": "mask", "kind": "volume_labels", "path": "b.nii.gz", "part": "1=liver;least_mm3=2.5"}


def volumes(cut: dict[str, Any] | None, **changed: Any) -> pl.DataFrame:
    """Items of a volume and its labels, the first of them with this slice, the others with a sound one."""
    sound = {"plane": "axial", "index": 3}
    media = [[{**VOLUME, "slice": one, **changed}, LABELS] for one in (cut, sound)]
    return items(2).with_columns(pl.Series("media", media, pl.List(media_type("slice"))))


def expanding(table: pl.DataFrame) -> Source:
    return dataclasses.replace(source_with(table), expand=lambda table, facts, options: table)


def test_a_volume_that_is_rendered_names_its_slice_and_one_that_is_cut_later_need_not() -> None:
    assert scan(volumes({"plane": "coronal", "index": 0})).height == 2
    whole = volumes(None)
    with pytest.raises(SourceError, match="names no slice"):
        scan(whole)
    assert scan_items(expanding(whole), Store(Path("/nowhere")), SourceOptions()).height == 2
    with pytest.raises(SourceError, match="names no slice"):
        checked_items(expanding(whole), whole)
    bare = whole.with_columns(pl.Series("media", [[VOLUME, LABELS]] * 2, ITEM_COLUMNS["media"]))
    with pytest.raises(SourceError, match="names no slice"):
        scan(bare)
    aside = whole.with_columns(
        pl.Series("skip_reason", ["no_label", None]), pl.Series("skip_detail", ["nothing is outlined", None])
    )
    assert checked_items(expanding(aside), aside).height == 2


@pytest.mark.parametrize(
    ("cut", "changed"),
    [
        ({"plane": "oblique", "index": 1}, {}),
        ({"plane": "axial", "index": -1}, {}),
        ({"plane": "axial", "index": None}, {}),
        ({"plane": "axial", "index": 1}, {"kind": "image"}),
    ],
)
def test_a_slice_is_of_a_volume_and_of_a_known_plane(cut: dict[str, Any], changed: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="a slice of its item table is of no volume"):
        scan(volumes(cut, **changed))


@pytest.mark.parametrize(
    ("kind", "frame", "sound"),
    [("dicom", 0, True), ("dicom", 3, True), ("image", None, True), ("dicom", -1, False), ("image", 0, False)],
)
def test_a_frame_is_of_a_dicom_file_and_counted_from_0(kind: str, frame: int | None, sound: bool) -> None:
    media = [[MEDIUM | {"kind": kind, "frame": frame}, MEDIUM | {"kind": "dicom_mask", "frame": 1}]] * 2
    table = items(2).with_columns(pl.Series("media", media, pl.List(media_type("frame"))))
    if sound:
        assert scan(table).height == 2
        return
    with pytest.raises(SourceError, match="a frame of its item table is of no DICOM file, or below 0"):
        scan(table)


@pytest.mark.parametrize("part", ["", "liver", "1=liver;least_mm3=-1", "1=liver;least_mm3=x"])
def test_the_names_and_the_smallest_volume_of_a_label_volume_are_checked(part: str) -> None:
    table = volumes({"plane": "axial", "index": 1})
    media = [
        [medium | {"part": part} if medium["role"] == "mask" else medium for medium in row] for row in table["media"]
    ]
    with pytest.raises(SourceError, match="a label map of its item table names no values"):
        scan(table.with_columns(pl.Series("media", media, table.schema["media"])))
