"""Questions: what is asked follows from names, answers keep the order of the choices, numbers read like a person's."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.corpus.questions import ask, context_text, number_text, phrase, tasks_asked, unanswerable
from qoq_data.record import AnswerType
from qoq_data.source import Choice, Task
from qoq_data.sources import registry

CHOICES = (Choice("b", "Benign"), Choice("m", "Malignant"), Choice("a", "Neither"))
KIND = Task("kind", AnswerType.ONE, ("Which?", "What?", "Which one?"), CHOICES)
SIGNS = Task("signs", AnswerType.SEVERAL, ("Which of these?", "What is seen?"), CHOICES)
RATE = Task("rate", AnswerType.NUMBER, ("How many per minute?",), tolerance=5.0)
TASKS = (KIND, SIGNS, RATE)


def table(rows: list[tuple[str, Any, Any, Any]]) -> pl.DataFrame:
    schema: dict[str, Any] = {
        "item": pl.String,
        "answer.kind": pl.List(pl.String),
        "answer.signs": pl.List(pl.String),
        "answer.rate": pl.Float64,
    }
    return pl.DataFrame(rows, schema, orient="row").with_columns(pl.lit("x").alias("context.sex"))


FULL = table([(f"{n:05d}", ["m"], ["a", "b"], n / 7) for n in range(6000)])


def test_answers_stand_in_the_order_of_the_choices_whatever_order_they_came_in() -> None:
    for given_keys in (("a", "b"), ("b", "a")):
        asked = phrase(SIGNS, "s/1/signs", given_keys, 0)
        assert asked.answer == ("Benign", "Neither")
        assert asked.choices == ("Benign", "Malignant", "Neither")
        assert asked.tolerance is None


def test_numbers_have_their_tolerance_and_no_choices() -> None:
    asked = phrase(RATE, "s/1/rate", ("72.50000000000001",), 0)
    assert (asked.answer, asked.choices, asked.tolerance) == (("72.5",), (), 5.0)


def test_the_wording_follows_from_the_id_and_every_wording_is_used_evenly() -> None:
    wordings = [phrase(KIND, f"s/{n}/kind", ("b",), 0).question for n in range(3000)]
    assert wordings[7] == phrase(KIND, "s/7/kind", ("m",), 0).question
    counts = Counter(wordings)
    assert set(counts) == set(KIND.wordings)
    assert max(abs(count - 1000) for count in counts.values()) < 110
    assert wordings != [phrase(KIND, f"s/{n}/kind", ("b",), 1).question for n in range(3000)]


def test_the_wording_says_nothing_of_the_answer() -> None:
    by_answer = {key: [phrase(KIND, f"s/{n}/kind", (key,), 0).question for n in range(50)] for key in "bma"}
    assert by_answer["b"] == by_answer["m"] == by_answer["a"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (72.0, "72"), (72.5, "72.5"), (72.456, "72.46"), (0.0, "0"), (-0.0, "0"), (-0.001, "0"), (0.004, "0"),
        (-1.5, "-1.5"), (1e6, "1000000"), (123456789.125, "123456789.12"), (99.999, "100"), (1e16, "10000000000000000"),
    ],
)  # fmt: skip
def test_numbers_read_as_a_person_writes_them(value: float, text: str) -> None:
    assert number_text(value) == text


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.floats(-1e9, 1e9))
def test_no_number_is_written_in_a_form_that_loses_more_than_half_a_hundredth(value: float) -> None:
    text = number_text(value)
    assert abs(float(text) - value) <= 0.005 + abs(value) * 1e-15
    assert "e" not in text
    assert not text.endswith(".")
    assert len(text.partition(".")[2]) <= 2


def test_one_task_a_record_is_drawn_evenly_from_those_it_can_answer() -> None:
    asked = ask(FULL, TASKS, 0, every_task=False)
    assert asked["item"].to_list() == FULL["item"].to_list()
    counts = Counter(asked["task"].to_list())
    assert set(counts) == {"kind", "signs", "rate"}
    assert max(abs(count - 2000) for count in counts.values()) < 150


def test_a_drawn_task_is_one_that_the_record_can_answer() -> None:
    half = table(
        [(f"{n:05d}", ["m"] if n % 2 else None, ["a"] if n % 3 else None, 1.0 if n % 5 else None) for n in range(900)]
    )
    can = {
        row["item"]: {task.name for task in TASKS if row[f"answer.{task.name}"] is not None}
        for row in half.iter_rows(named=True)
    }
    asked = ask(half, TASKS, 0, every_task=False)
    assert all(row["task"] in can[row["item"]] for row in asked.iter_rows(named=True))
    assert set(asked["item"]) == {item for item, tasks in can.items() if tasks}
    assert set(unanswerable(half, TASKS)["item"]) == {item for item, tasks in can.items() if not tasks}
    every = ask(half, TASKS, 0, every_task=True)
    assert {(row["item"], row["task"]) for row in every.iter_rows(named=True)} == {
        (item, task) for item, tasks in can.items() for task in tasks
    }
    assert every.height == sum(map(len, can.values()))


def test_each_task_has_its_own_answer() -> None:
    one = table([("1", ["m"], ["a", "b"], 0.1)])
    found = {row["task"]: row["answer"] for row in ask(one, TASKS, 0, every_task=True).iter_rows(named=True)}
    assert found == {"kind": ["m"], "signs": ["a", "b"], "rate": ["0.1"]}


def test_columns_are_those_of_the_items_with_task_and_answer_for_the_answers() -> None:
    asked = ask(FULL.head(3), TASKS, 0, every_task=True)
    assert asked.columns == ["item", "context.sex", "task", "answer"]
    assert asked.schema["answer"] == pl.List(pl.String)


def test_what_is_drawn_does_not_depend_on_order_or_company() -> None:
    whole = dict(ask(FULL, TASKS, 0, every_task=False).select("item", "task").iter_rows())
    part = dict(ask(FULL.reverse().head(50), TASKS, 0, every_task=False).select("item", "task").iter_rows())
    assert part == {item: whole[item] for item in part}
    assert whole != dict(ask(FULL, TASKS, 1, every_task=False).select("item", "task").iter_rows())


@pytest.mark.parametrize("every_task", [True, False])
@pytest.mark.parametrize("tasks", [TASKS, (KIND,), (RATE,)])
def test_tables_without_an_answer_give_no_rows(every_task: bool, tasks: tuple[Task, ...]) -> None:
    for items in (FULL.head(0), table([("1", None, None, None)])):
        asked = ask(items, tasks, 0, every_task)
        assert (asked.height, asked.schema["answer"]) == (0, pl.List(pl.String))
        assert unanswerable(items, tasks).height == items.height


def test_tasks_come_in_the_order_of_the_spec_and_default_ones_where_none_is_named() -> None:
    spec = dataclasses.replace(registry()["busi"].spec, tasks=(KIND, dataclasses.replace(SIGNS, default=False), RATE))
    assert [task.name for task in tasks_asked(spec, None)] == ["kind", "rate"]
    assert [task.name for task in tasks_asked(spec, ("rate", "signs"))] == ["signs", "rate"]


def test_context_is_one_line_of_what_is_known() -> None:
    assert context_text({"age": "56 years", "sex": None, "heart_rate": "70"}) == "Age: 56 years; heart rate: 70"
    assert context_text({"age": None, "sex": ""}) == context_text({}) == ""


@pytest.mark.parametrize("name", list(registry()))
def test_every_task_of_every_source_can_be_phrased(name: str) -> None:
    for task in registry()[name].spec.tasks:
        answer = ("70.0",) if task.answer_type is AnswerType.NUMBER else (task.choices[-1].key,)
        asked = phrase(task, f"{name}/1/{task.name}", answer, 0)
        assert asked.question in task.wordings
        assert len(asked.answer) == 1
        assert len(set(asked.choices)) == len(task.choices)
        assert (asked.tolerance is not None) == (task.answer_type is AnswerType.NUMBER)
