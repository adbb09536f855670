"""What the answer is worth: set F1 on the row's choices, or a number within its tolerance."""

from __future__ import annotations

from typing import Literal

from qoq_data.record import AnswerType
from qoq_train.answers import AnswerKey, ReadAnswer, is_within_tolerance

AnswerScore = Literal["guarded", "f1"]


def answer_reward(read: ReadAnswer, key: AnswerKey, score: AnswerScore = "guarded") -> float:
    """The worth of an answer in [0, 1]; 0 where it is unreadable.

    ``f1`` is the published set F1 of named and true choices, 2 |both| / (|named| + |true|), an unknown word counting
    as named. It pays 2/3 for naming both of two choices, more than a guess earns. ``guarded`` is ours: a question
    with one answer is right or wrong, and with several the F1 is multiplied by the share of the wrong choices that
    were left out, so that naming every choice earns nothing and an answer without a wrong choice its plain F1.
    A number is right within the tolerance and else wrong in both.
    """
    if key.answer_type is AnswerType.NUMBER:
        return float(is_within_tolerance(read, key))
    if read.unreadable is not None:
        return 0.0
    both = len(set(read.labels).intersection(key.answer))
    named = len(read.labels) + read.extras
    if named == 0 and not key.answer:
        return 1.0
    f1 = 2 * both / (named + len(key.answer))
    if score == "f1":
        return f1
    if key.answer_type is AnswerType.ONE:
        return float(f1 == 1.0)
    wrong, could_be_wrong = named - both, len(key.choices) - len(key.answer)
    return f1 * max(0.0, 1 - wrong / could_be_wrong) if could_be_wrong else f1
