"""The tables of an evaluation, by hand."""

from __future__ import annotations

from qoq_data.record import AnswerType
from qoq_train.answers import AnswerKey, read_answer
from qoq_train.evaluation.metrics import Outcome, differences, report
from qoq_train.evaluation.task_figures import FIGURE_TITLES
from qoq_train.evaluation.text import gain_table, report_json, report_table, scalars

CHOICES = ("yes", "no")


def outcomes(answers: str) -> list[Outcome]:
    """Rows of two domains in turn, of which every truth is yes; ``y`` answers so, ``n`` no, and ``?`` nothing."""
    said = {"y": "\\boxed{yes}", "n": "\\boxed{no}", "?": "who knows"}
    return [
        Outcome(
            row_id=f"row-{i}",
            dataset=f"set_{'ab'[i % 2]}",
            domain="ab"[i % 2],
            task="finding",
            group=f"patient-{i}",
            key=AnswerKey(CHOICES, ("yes",), AnswerType.ONE, None),
            read=read_answer(said[answer], CHOICES, AnswerType.ONE),
        )
        for i, answer in enumerate(answers)
    ]


def rows_of(table: str, title: str) -> list[list[str]]:
    """The cells of the part of a table whose first column is headed by ``title``."""
    lines = table.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {title} |"))
    part = lines[start + 2 : lines.index("", start) if "" in lines[start:] else None]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part]


def test_what_was_gained_stands_beside_before_and_after() -> None:
    before, after = outcomes("ynnn"), outcomes("yyyn")  # domain a: 1 of 2, then 2; domain b: none of 2, then 1
    first, second = (report(rows, replicates=20) for rows in (before, after))
    found = gain_table(first, second, differences(before, after, replicates=20))
    cells = rows_of(found, FIGURE_TITLES["exact_match"])
    assert [row[0] for row in cells] == [
        "all: mean of domains", "domain a", "domain b", "data set set\\_a (a)", "data set set\\_b (b)",
    ]  # fmt: skip
    assert [row[1] for row in cells] == ["4", "2", "2", "2", "2"]
    shown = [(row[2].split()[0], row[3].split()[0], row[4].split()[0]) for row in cells]
    assert shown[:3] == [("0.250", "0.750", "+0.500"), ("0.500", "1.000", "+0.500"), ("0.000", "0.500", "+0.500")]


def test_the_log_has_every_place() -> None:
    found = scalars(report(outcomes("yn?n"), replicates=0))
    assert found["overall/exact_match"] == 0.25
    assert found["a/exact_match"] == found["a/set_a/exact_match"] == 0.5
    assert found["overall/unreadable_rate"] == 0.25


def test_the_table_and_the_plain_values_say_the_same() -> None:
    whole = report(outcomes("yn?n"), replicates=0)
    tree = report_json(whole)
    table = report_table(whole)
    assert tree["domains"]["a"]["figures"]["exact_match"]["value"] == 0.5
    assert tree["domains"]["a"]["unreadable"] == dict(whole.domains["a"].unreadable) != {}
    line = next(line for line in table.splitlines() if line.startswith("| domain a |"))
    assert "0.500" in line
    assert len({len(line.split("|")) for line in table.splitlines()}) == 1
