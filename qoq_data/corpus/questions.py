"""Labels into questions: which task a record is asked, in which words, and what the row's answer is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from qoq_data.corpus.draws import draw, draws
from qoq_data.record import AnswerType
from qoq_data.source import SourceSpec, Task


@dataclass(frozen=True, slots=True)
class Question:
    """What a row says, in prose: made at render, so that a plan holds keys only."""

    question: str
    choices: tuple[str, ...]
    answer: tuple[str, ...]
    answer_type: AnswerType
    tolerance: float | None


def tasks_asked(spec: SourceSpec, wanted: tuple[str, ...] | None) -> tuple[Task, ...]:
    """The tasks of a recipe's entry, in the order of the SPEC."""
    return tuple(task for task in spec.tasks if (task.default if wanted is None else task.name in wanted))


def ask(items: pl.DataFrame, tasks: tuple[Task, ...], seed: int, every_task: bool) -> pl.DataFrame:
    """A row a question: the items' columns with ``task`` and ``answer`` in place of ``answer.<task>``.

    An item that can answer several of the tasks gets one, drawn by its name, or all of them. Items that can answer
    none are not in the result: they are what ``unanswerable`` returns. ``answer`` is a list of label keys, or one
    number as text.
    """
    columns = [f"answer.{task.name}" for task in tasks]
    answerable = pl.concat_list(
        pl.when(pl.col(column).is_not_null()).then(pl.lit(index, dtype=pl.Int32))
        for index, column in enumerate(columns)
    ).list.drop_nulls()
    asked = items.with_columns(answerable.alias("tasks")).filter(pl.col("tasks").list.len() > 0)
    if not every_task:
        drawn = pl.Series("drawn", draws(seed, "task", asked["item"].to_list()), dtype=pl.UInt64)
        which = (pl.lit(drawn) % pl.col("tasks").list.len().cast(pl.UInt64)).cast(pl.Int64)
        asked = asked.with_columns(pl.col("tasks").list.get(which))
    else:
        asked = asked.explode("tasks")
    answer = pl.lit(None, dtype=pl.List(pl.String))
    for index, (task, column) in enumerate(zip(tasks, columns, strict=True)):
        value = (
            pl.concat_list(pl.col(column).cast(pl.String)) if task.answer_type is AnswerType.NUMBER else pl.col(column)
        )
        answer = pl.when(pl.col("tasks") == index).then(value).otherwise(answer)
    name = pl.col("tasks").replace_strict(
        list(range(len(tasks))), [task.name for task in tasks], return_dtype=pl.String
    )
    every = [column for column in items.columns if not column.startswith("answer.")]
    return asked.select(*every, name.alias("task"), answer.alias("answer"))


def unanswerable(items: pl.DataFrame, tasks: tuple[Task, ...]) -> pl.DataFrame:
    """The items that have no answer to any of the tasks."""
    return items.filter(pl.all_horizontal(pl.col(f"answer.{task.name}").is_null() for task in tasks))


def phrase(task: Task, row_id: str, answer: tuple[str, ...], seed: int) -> Question:
    """A row's question, choices and answer as text; the wording follows from the row's id.

    Answers stand in the order of the choices, whatever order the labels came in.
    """
    wording = task.wordings[draw(seed, "wording", row_id) % len(task.wordings)]
    if task.answer_type is AnswerType.NUMBER:
        return Question(wording, (), (number_text(float(answer[0])),), task.answer_type, task.tolerance)
    texts = tuple(choice.text for choice in task.choices)
    given = tuple(choice.text for choice in task.choices if choice.key in answer)
    return Question(wording, texts, given, task.answer_type, None)


def number_text(value: float) -> str:
    """A number as a person writes it: no more than two decimals, none where it is whole."""
    return np.format_float_positional(round(value, 2) + 0.0, trim="-")  # + 0.0: a person writes 0 and not -0


def context_text(fields: dict[str, str | None]) -> str:
    """The known fields of a row as one line: ``Age: 56 years; sex: male``."""
    known = [f"{name.replace('_', ' ')}: {value}" for name, value in fields.items() if value]
    text = "; ".join(known)
    return text[:1].upper() + text[1:]
