"""Paired differences of two evaluations, and the table of rows that they are taken from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qoq_data.errors import UsageError
from qoq_data.licence import Redistribution
from qoq_data.record import AnswerType, Split
from qoq_train.answers import AnswerKey, ReadAnswer, Unreadable
from qoq_train.evaluation.metrics import Outcome, at_most_per_class, differences, report
from qoq_train.evaluation.outcomes import EvaluatedRows, read_rows, write_rows
from tests.train.run_folders import answered, outcome


def test_the_difference_is_that_of_the_reports() -> None:
    first, second = answered(0.4, 1), answered(0.9, 2)
    found = differences(first, second, replicates=20)
    a, b = report(first, replicates=0), report(second, replicates=0)
    assert found.rows == len(first)
    assert set(found.overall) == set(a.overall.figures)
    for name, one in found.overall.items():
        assert one.value == pytest.approx(b.overall.figures[name].value - a.overall.figures[name].value)
        assert one.low <= one.value + 1e-9
        assert one.value - 1e-9 <= one.high
    ct = found.domains["ct"]["macro_f1"].value
    assert ct == pytest.approx(b.domains["ct"].figures["macro_f1"].value - a.domains["ct"].figures["macro_f1"].value)
    assert found.datasets["ct", "ct-1"]["macro_f1"].value == pytest.approx(ct)


def test_an_evaluation_differs_from_itself_by_nothing_in_every_draw() -> None:
    rows = answered(0.5, 1)
    found = differences(rows, list(reversed(rows)), replicates=50)
    assert {(one.value, one.low, one.high) for one in found.overall.values()} == {(0.0, 0.0, 0.0)}


def test_swapped_sides_mirror_the_interval() -> None:
    first, second = answered(0.4, 1), answered(0.9, 2)
    there, back = differences(first, second, replicates=50), differences(second, first, replicates=50)
    for name, one in there.overall.items():
        assert (one.value, one.low, one.high) == pytest.approx(
            (-back.overall[name].value, -back.overall[name].high, -back.overall[name].low)
        )


def test_the_interval_is_that_of_a_slow_paired_bootstrap() -> None:
    first, second = answered(0.4, 1, domains=("ct",)), answered(0.8, 2, domains=("ct",))
    patients = sorted({row.group for row in first})
    right = [
        np.array([[row.read.labels == row.key.answer for row in side if row.group == p] for p in patients], float)
        for side in (first, second)
    ]
    gain = (right[1] - right[0]).mean(axis=1)  # each patient has two rows
    draw = np.random.default_rng(7)
    slow = gain[draw.integers(len(patients), size=(4000, len(patients)))].mean(axis=1)
    found = differences(first, second, replicates=4000).overall["exact_match"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, (0.025, 0.975))), abs=0.03)


def test_a_gain_in_a_few_rows_shows_although_the_intervals_of_both_overlap() -> None:
    first = answered(0.3, 1)
    second = [replace(row, read=ReadAnswer(row.key.answer)) if i % 4 == 0 else row for i, row in enumerate(first)]
    one = differences(first, second, replicates=400).overall["exact_match"]
    sides = [report(side, replicates=400).overall.figures["exact_match"] for side in (first, second)]
    assert sides[0].high is not None
    assert sides[1].low is not None
    assert sides[1].low < sides[0].high
    assert one.low > 0  # draws of its own for each side would reach below 0


def test_what_cannot_be_paired() -> None:
    rows = answered(0.5, 1)
    with pytest.raises(ValueError, match="same rows"):
        differences(rows, rows[:-1])
    with pytest.raises(ValueError, match="two outcomes"):
        differences([*rows, rows[0]], rows)
    with pytest.raises(ValueError, match="no row's id"):
        differences([replace(row, row_id="") for row in rows[:1]], rows[:1])
    with pytest.raises(ValueError, match="replicates"):
        differences(rows, rows, replicates=0)
    for change in ({"group": "someone"}, {"domain": "ecg"}, {"key": AnswerKey(("a", "z"), ("z",), AnswerType.ONE)}):
        with pytest.raises(ValueError, match=r"ct/0 was another"):
            differences(rows, [replace(rows[0], **change), *rows[1:]])


def test_boxes_are_compared_only_where_the_same_rows_were_asked_for_them() -> None:
    rows = answered(0.5, 1)
    boxed = [replace(row, box_iou=0.5, constant_box_iou=0.1) for row in rows]
    better = [replace(row, box_iou=0.75) for row in boxed]
    found = differences(boxed, better, replicates=20)
    assert found.overall["box_iou"].value == pytest.approx(0.25)
    some = [*boxed[:5], *rows[5:]]
    assert "box_iou" not in differences(boxed, some, replicates=20).overall
    assert "box_iou" not in differences(boxed, rows, replicates=20).overall


@pytest.mark.parametrize("iou", [float("nan"), -0.1, 1.5, float("inf")])
def test_a_box_iou_that_is_none_is_an_error_and_not_a_figure_that_vanishes(iou: float) -> None:
    with pytest.raises(ValueError, match="IoU"):
        outcome(0, "a", box_iou=iou)
    with pytest.raises(ValueError, match="IoU"):
        outcome(0, "a", constant_box_iou=iou)


def test_rows_in_which_nothing_is_true_are_a_class_of_at_most_24() -> None:
    ids = [f"r{i}" for i in range(100)]
    kept = at_most_per_class(ids, ["x"] * 100, [()] * 60 + [("a",)] * 40, limit=24)
    assert (sum(i < 60 for i in kept), sum(i >= 60 for i in kept)) == (24, 24)


def every_kind() -> tuple[Outcome, ...]:
    several = AnswerKey(("a, b", "é\n"), ("a, b", "é\n"), AnswerType.SEVERAL)
    number = AnswerKey((), ("72.5",), AnswerType.NUMBER, 2.5)
    return (
        outcome(0, "a", box_iou=0.25, constant_box_iou=0.125),
        outcome(1, None),
        replace(outcome(2, "a"), key=several, read=ReadAnswer(("é\n",), 3)),
        replace(outcome(3, "a"), key=replace(several, answer=()), read=ReadAnswer()),
        replace(outcome(4, "a"), key=number, read=ReadAnswer(number=71.25)),
        replace(outcome(5, "a"), key=number, read=ReadAnswer(unreadable=Unreadable.SEVERAL_NUMBERS)),
    )


def rows_of(outcomes: tuple[Outcome, ...]) -> EvaluatedRows:
    return EvaluatedRows(Split.TEST, 20, "ab" * 32, "CC0-1.0", Redistribution.OPEN, outcomes)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "evaluations" / "step-000020-test.parquet"
    rows = rows_of(every_kind())
    write_rows(file, rows)
    assert read_rows(file) == rows
    data = file.read_bytes()
    write_rows(file, rows)
    assert file.read_bytes() == data
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_rows_without_an_id_or_twice_are_not_written(tmp_path: Path) -> None:
    for outcomes in ((outcome(0, "a", row_id=""),), (outcome(0, "a"), outcome(0, "b"))):
        with pytest.raises(ValueError, match="id of its row"):
            write_rows(tmp_path / "x.parquet", rows_of(outcomes))
    assert not list(tmp_path.iterdir())


def test_a_damaged_table_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "step-000020-test.parquet"
    write_rows(file, rows_of(every_kind()))
    whole = file.read_bytes()
    table = pq.read_table(file)
    told = json.loads(table.schema.metadata[b"qoq_evaluation_rows"])

    def changed(**values: object) -> pa.Table:
        return table.replace_schema_metadata({b"qoq_evaluation_rows": json.dumps(told | values).encode()})

    damaged = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "no parquet": b"{}",
    }
    for name, data in damaged.items():
        file.write_bytes(data)
        with pytest.raises(UsageError, match=r"step-000020-test\.parquet is damaged"):
            read_rows(file)
        assert name
    tables = [
        table.replace_schema_metadata(None),
        table.drop_columns(["labels"]),
        changed(split="dev"),
        changed(step="soon"),
        table.set_column(table.schema.get_field_index("box_iou"), "box_iou", pa.array([float("nan")] * 6)),
        table.set_column(table.schema.get_field_index("row_id"), "row_id", pa.nulls(6, pa.string())),
        table.set_column(table.schema.get_field_index("number"), "number", pa.array([float("inf")] * 6)),
    ]
    for one in tables:
        pq.write_table(one, file)
        with pytest.raises(UsageError, match="damaged"):
            read_rows(file)
    pq.write_table(changed(format=2), file)
    with pytest.raises(UsageError, match="format 2"):
        read_rows(file)
    with pytest.raises(UsageError, match="damaged"):
        read_rows(tmp_path / "absent.parquet")
