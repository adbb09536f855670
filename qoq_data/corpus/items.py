"""A source's item table, checked against the contract and its SPEC before anything is built on it."""

from __future__ import annotations

from typing import get_args

import polars as pl

from qoq_data.clinical.label_maps import parse_names
from qoq_data.clinical.volume_boxes import parse_volume_names
from qoq_data.clinical.volumes import PLANES
from qoq_data.corpus.ledger import Skip
from qoq_data.errors import Reason, SourceError, TableError
from qoq_data.formats.storage import Store
from qoq_data.record import AnswerType, Split
from qoq_data.source import (
    BOXES_TYPE,
    ITEM_COLUMNS,
    MASK_KINDS,
    MEDIA_TYPE,
    OPTIONAL_MEDIA_FIELDS,
    PICTURE_KINDS,
    SKIP_COLUMNS,
    MediaKind,
    Source,
    SourceOptions,
    Task,
)

BOXES = "boxes"


def scan_items(source: Source, tree: Store, options: SourceOptions) -> pl.DataFrame:
    """All items of a raw tree, sorted by ``item``; raises a ``SourceError`` for a table that breaks the contract."""
    name = source.name
    try:
        items = source.scan(tree, options).collect()
    except pl.exceptions.PolarsError as error:
        raise SourceError(f"{name}: its scan failed inside polars ({type(error).__name__}).") from error
    return checked_items(source, items, whole_volumes=source.expand is not None)


def checked_items(source: Source, items: pl.DataFrame, *, whole_volumes: bool = False) -> pl.DataFrame:
    """An item table that obeys the contract, sorted by ``item``; raises ``SourceError`` for one that does not.

    ``whole_volumes`` allows volumes of which no slice is chosen yet: those of items that ``expand`` will cut.
    """
    name = source.name
    for column, dtype in ITEM_COLUMNS.items():
        if column not in items.columns:
            raise SourceError(f"{name}: its item table lacks the column {column!r}.")
        if items.schema[column] != dtype and not (column == "media" and _is_media(items.schema[column])):
            raise SourceError(
                f"{name}: the column {column!r} of its item table is {items.schema[column]}, not {dtype}."
            )
    if not items.height:
        raise SourceError(f"{name}: no item was found. 'qoq-data doctor {name}' looks at what is in the folder.")
    for column in ("item", "group", "media", "label_file", "label_row"):
        if items[column].null_count():
            raise SourceError(f"{name}: the column {column!r} of its item table has blanks.")
    twice = items.filter(pl.col("item").is_duplicated())
    if twice.height:
        first = twice.sort("item").row(0, named=True)
        raise TableError(
            f"{name}: the item {first['item']} stands more than once ({first['label_file']}, {first['label_row']}). "
            "Ids are unique in the publisher's release: fetch the table again."
        )
    sides = items.filter(~pl.col("official_split").is_in([str(side) for side in Split]))
    if sides.height:
        raise SourceError(f"{name}: its item table has an official split that is none of train, validation, test.")
    _check_columns(source, items)
    _check_media(name, items)
    if not whole_volumes:
        _check_whole_volumes(name, items)
    _check_boxes(name, items)
    return items.sort("item")


def set_aside(items: pl.DataFrame, source: str) -> tuple[pl.DataFrame, list[Skip]]:
    """The items without those that the source itself found cannot be right, and the ledger lines of these."""
    if "skip_reason" not in items.columns:
        return items, []
    aside = items.filter(pl.col("skip_reason").is_not_null())
    columns = ("item", "skip_reason", "label_file", "skip_detail")
    skips = [Skip(source, *row) for row in aside.select(columns).iter_rows()]
    return items.filter(pl.col("skip_reason").is_null()).drop(SKIP_COLUMNS), skips


def _is_media(dtype: pl.DataType) -> bool:
    """Whether a column's type is that of media with some of the optional fields."""
    fields = dtype.inner.fields if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct) else []
    required = MEDIA_TYPE.fields
    return fields[: len(required)] == required and all(
        OPTIONAL_MEDIA_FIELDS.get(field.name) == field.dtype for field in fields[len(required) :]
    )


def _check_media(name: str, items: pl.DataFrame) -> None:
    media = items.select("item", "media").explode("media", empty_as_null=True).unnest("media")
    if media["kind"].null_count() or media["path"].null_count() or not bool((media["path"] != "").all()):
        raise SourceError(f"{name}: an item of its item table has no medium, or one without a kind or a path.")
    if not bool(media["kind"].is_in(list(get_args(MediaKind))).all()):
        known = ", ".join(get_args(MediaKind))
        raise SourceError(f"{name}: its item table has media of a kind that is none of {known}.")
    if bool(items["media"].list.first().struct.field("kind").is_in(list(MASK_KINDS)).any()):
        raise SourceError(f"{name}: an item of its item table begins with a mask: a mask follows the image it is of.")
    _check_label_maps(name, media)
    if "window" in media.columns:
        _check_windows(name, media)
    _check_slices(name, media)
    if bool(items["item"].str.contains(r"[\x00-\x1f]").any()):
        raise SourceError(f"{name}: an item's id has a control character in it.")


def _check_label_maps(name: str, media: pl.DataFrame) -> None:
    for kind, parse in (("label_map", parse_names), ("volume_labels", parse_volume_names)):
        for text in media.filter(pl.col("kind") == kind)["part"].unique():
            try:
                parse(text or "")
            except ValueError as error:
                raise SourceError(f"{name}: a label map of its item table names no values: {error}.") from error


def _check_windows(name: str, media: pl.DataFrame) -> None:
    windows = media.filter(pl.col("window").struct.field("x0").is_not_null()).unnest("window")
    x0, y0, x1, y1 = (pl.col(corner) for corner in ("x0", "y0", "x1", "y1"))
    sound = (pl.col("kind") == "image") & (x0 >= 0) & (y0 >= 0) & (x0 < x1) & (y0 < y1)
    if windows.filter(~sound.fill_null(value=False)).height:
        raise SourceError(f"{name}: a window of its item table is empty, has no corner, or is of no image.")


def _check_slices(name: str, media: pl.DataFrame) -> None:
    """A slice is of a volume and of a known plane, a display window of what has stored values, a frame of DICOM."""
    if "slice" in media.columns:
        cuts = media.filter(pl.col("slice").struct.field("plane").is_not_null()).unnest("slice")
        sound = (pl.col("kind") == "volume") & pl.col("plane").is_in(PLANES) & (pl.col("index") >= 0)
        if cuts.filter(~sound.fill_null(value=False)).height:
            raise SourceError(f"{name}: a slice of its item table is of no volume, or of no plane, or has no index.")
    if "display" in media.columns:
        shown = media.filter(pl.col("display").is_not_null())
        if not bool(shown["kind"].is_in(["dicom", "volume"]).all()):
            raise SourceError(f"{name}: a medium of its item table with a display window is no DICOM file or volume.")
    if "frame" in media.columns:
        framed = media.filter(pl.col("frame").is_not_null())
        if not bool((framed["kind"].is_in(["dicom", "dicom_mask"]) & (framed["frame"] >= 0)).all()):
            raise SourceError(f"{name}: a frame of its item table is of no DICOM file, or below 0.")


def _check_whole_volumes(name: str, items: pl.DataFrame) -> None:
    rendered = items.filter(pl.col("skip_reason").is_null()) if "skip_reason" in items.columns else items
    media = rendered.select("media").explode("media", empty_as_null=False).unnest("media")
    volumes = media.filter(pl.col("kind") == "volume")
    if volumes.height and ("slice" not in media.columns or volumes["slice"].struct.field("plane").null_count()):
        raise SourceError(f"{name}: a volume of its item table names no slice.")


def _check_boxes(name: str, items: pl.DataFrame) -> None:
    if BOXES not in items.columns:
        return
    if items.schema[BOXES] != BOXES_TYPE:
        raise SourceError(f"{name}: the column 'boxes' of its item table is {items.schema[BOXES]}, not {BOXES_TYPE}.")
    pictures = pl.col("media").list.eval(pl.element().struct.field("kind").is_in(list(PICTURE_KINDS))).list.sum()
    with_boxes = items.filter(pl.col(BOXES).list.len() > 0).select(pictures.alias("pictures"), BOXES)
    boxes = with_boxes.explode(BOXES, empty_as_null=False).unnest(BOXES)
    edges = [pl.col(edge).is_finite() for edge in ("x0", "y0", "x1", "y1")]
    sound = pl.all_horizontal(
        pl.col("label").is_not_null(),
        pl.col("image").is_between(0, pl.col("pictures") - 1),
        *edges,
        pl.col("x0") < pl.col("x1"),
        pl.col("y0") < pl.col("y1"),
        pl.col("agreement").is_null() | pl.col("agreement").is_between(0, 1),
    ).fill_null(value=False)
    if boxes.filter(~sound).height:
        raise SourceError(f"{name}: a box of its item table has no label, no area, or is of no picture of its item.")


def _check_columns(source: Source, items: pl.DataFrame) -> None:
    spec = source.spec
    expected = {f"answer.{task.name}": task for task in spec.tasks if not task.fact}
    allowed = {f"context.{field}" for field in spec.context_fields}
    _check_set_aside(source.name, items)
    for column in items.columns:
        if column in ITEM_COLUMNS or column in (*SKIP_COLUMNS, BOXES) or column in allowed:
            continue
        if column not in expected:
            raise SourceError(f"{source.name}: the column {column!r} of its item table is not declared in its SPEC.")
    untold = [column for column in allowed & set(items.columns) if items.schema[column] != pl.String]
    if untold:
        raise SourceError(f"{source.name}: the column {min(untold)!r} of its item table is no text.")
    for column, task in expected.items():
        if column not in items.columns:
            raise SourceError(f"{source.name}: its item table lacks the column {column!r}.")
        _check_answers(source.name, items[column], task)


def _check_set_aside(name: str, items: pl.DataFrame) -> None:
    if len(set(SKIP_COLUMNS) & set(items.columns)) == 1:
        raise SourceError(f"{name}: its item table has one of {' and '.join(SKIP_COLUMNS)} without the other.")
    if "skip_reason" in items.columns:
        if not items["skip_reason"].drop_nulls().is_in([str(reason) for reason in Reason]).all():
            raise SourceError(f"{name}: its item table has a skip_reason that is none of the known reasons.")
        if items.filter(pl.col("skip_reason").is_not_null() & pl.col("skip_detail").is_null()).height:
            raise SourceError(f"{name}: its item table sets items aside without a skip_detail.")


def _check_answers(name: str, answers: pl.Series, task: Task) -> None:
    if task.answer_type is AnswerType.NUMBER:
        if answers.dtype != pl.Float64 or not bool(answers.drop_nulls().is_finite().all()):
            raise SourceError(f"{name}: answers of the task {task.name} are not all finite numbers.")
        return
    if answers.dtype != pl.List(pl.String):
        raise SourceError(f"{name}: answers of the task {task.name} are {answers.dtype}, not lists of label keys.")
    labelled = answers.drop_nulls()
    known = [choice.key for choice in task.choices]
    labels = labelled.explode(empty_as_null=False) if labelled.len() else labelled
    if labelled.len() and not bool(labels.is_in(known).fill_null(value=False).all()):
        raise SourceError(f"{name}: an answer of the task {task.name} is outside its vocabulary.")
    counts = labelled.list.len()
    if bool((counts == 0).any()) or (task.answer_type is AnswerType.ONE and bool((counts != 1).any())):
        raise SourceError(f"{name}: an answer of the task {task.name} has the wrong number of labels.")
