"""What a completion answers: one reader, for the reward and for evaluation alike.

The answer is the content of the last ``\\boxed{...}`` whose braces close, after the thinking. It names choices by
letter, by number or by their text, or it is one number. What cannot be read is told apart from what is wrong, with
the reason. Time and memory are linear in the length of the text, which is bounded; nothing recurses.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from qoq_data.record import AnswerType
from qoq_train.choices import fold, plain_text, vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MAX_TEXT_CHARACTERS", "AnswerKey", "ReadAnswer", "Unreadable", "after_thinking", "boxed_answer", "boxed_content",
    "fold", "is_exact", "is_within_tolerance", "outside_thinking", "read_answer",
]  # fmt: skip

MAX_TEXT_CHARACTERS: Final = 1 << 18
"""A longer completion is not read at all: some eight times what 8,192 marks of prose hold."""

_ANSWER_CHARACTERS: Final = 4096  # of a boxed answer, beyond twice the length of all choices
_NUMBER_CHARACTERS: Final = 32

_PLAIN_BOX = re.compile(r"\\boxed\{([^{}\\]*)\}")  # what nearly every completion has, and quick to tell
_BRACE = re.compile(r"\\boxed\s{0,8}\{|\\[{}]|[{}]")
_NUMBER = re.compile(
    r"(?:[=≈]|about|approximately|approx\.?|around)? ?"
    r"([+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?(?:e[+-]?[0-9]{1,3})?|[+-]?\.[0-9]+)"
    r"(?: ?[a-zα-ω°µμ%/(][^0-9]*)?"
)
_SEVERAL_NUMBERS = re.compile(r"[0-9] ?(?:[,;&/\n-]|and|or|to) ?[+-]?[0-9]")


class Unreadable(StrEnum):
    """Why no answer could be read."""

    NO_BOX = "no_box"
    UNCLOSED = "unclosed"
    ONLY_IN_THINKING = "only_in_thinking"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    NO_CHOICE = "no_choice"
    NOT_A_NUMBER = "not_a_number"
    SEVERAL_NUMBERS = "several_numbers"


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """What a row holds to judge an answer by, as in the corpus; raises ``ValueError`` where that cannot be right.

    ``answer`` are texts out of ``choices``; of a number question it is the one number as text, and ``tolerance`` is
    the largest absolute difference, in the unit that the question names, that still counts as right.
    """

    choices: tuple[str, ...]
    answer: tuple[str, ...]
    answer_type: AnswerType
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.answer_type is AnswerType.NUMBER:
            if len(self.answer) != 1 or not math.isfinite(float(self.answer[0])):
                raise ValueError("a number question has exactly one finite number as its answer")
            if self.tolerance is None or not 0 <= self.tolerance < math.inf:
                raise ValueError("a number question needs a tolerance of 0 or more")
            return
        vocabulary_of(self.choices)
        if len(set(self.answer)) != len(self.answer) or not set(self.answer) <= set(self.choices):
            raise ValueError("an answer stands twice or is none of the choices")
        if self.answer_type is AnswerType.ONE and len(self.answer) != 1:
            raise ValueError(f"a question with one answer has {len(self.answer)}")

    @property
    def number(self) -> float:
        """The true number; raises ``ValueError`` for a question about choices."""
        if self.answer_type is not AnswerType.NUMBER:
            raise ValueError("a question about choices has no number")
        return float(self.answer[0])


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """What was read: ``labels`` in the order of the choices, each once; or ``number``; or why it is ``unreadable``.

    ``extras`` counts what stood among the answers and is none of the choices, each text once.
    """

    labels: tuple[str, ...] = ()
    extras: int = 0
    number: float | None = None
    unreadable: Unreadable | None = None


def read_answer(text: str, choices: Sequence[str], answer_type: AnswerType | str) -> ReadAnswer:
    """Read the answer out of a completion.

    Choices are named by letter (``A``, ``(b)``), number counted from 1, or text, whatever its case, blanks and
    full-width forms; several stand apart by commas, ``and``, ``&``, ``;``, lines, or in a list. A choice that itself
    holds a comma or ``and`` stays whole: the longest is taken first. A letter or number that is part of another
    choice's text is not taken for a position. A number may carry a unit, which is not converted. Raises
    ``ValueError`` for choices that read alike, or none.
    """
    kind = answer_type if isinstance(answer_type, AnswerType) else AnswerType(answer_type)
    content = boxed_answer(text)
    if isinstance(content, Unreadable):
        return ReadAnswer(unreadable=content)
    return _read_number(content) if kind is AnswerType.NUMBER else _read_choices(content, tuple(choices), kind)


@lru_cache(maxsize=4)  # the reward for form asks for what the reader has just found
def boxed_answer(text: str) -> str | Unreadable:
    """The content of the last box after the thinking, with its TeX, or why there is none."""
    if len(text) > MAX_TEXT_CHARACTERS:
        return Unreadable.TOO_LONG
    content = boxed_content(after_thinking(text))
    return Unreadable.ONLY_IN_THINKING if content is Unreadable.NO_BOX and "\\boxed" in text else content


def after_thinking(text: str) -> str:
    """What follows the last ``</think>``, up to a thinking that opens again; the whole text where none is marked."""
    end = text.rfind("</think>")
    tail = text if end < 0 else text[end + 8 :]
    again = tail.find("<think>")
    return tail if again < 0 else tail[:again]


def outside_thinking(text: str) -> str:
    """The text before the first ``<think>`` and after the last ``</think>``."""
    begin, end = text.find("<think>"), text.rfind("</think>")
    if begin < 0:
        return after_thinking(text)
    return text[:begin] if end < begin else text[:begin] + "\n" + after_thinking(text)


def boxed_content(text: str) -> str | Unreadable:
    """The content of the ``\\boxed{...}`` that closes last, nested braces included; ``\\{`` and ``\\}`` are letters."""
    first = text.find("\\boxed")
    if first < 0:
        return Unreadable.NO_BOX
    plain = _PLAIN_BOX.match(text, first)
    if plain is not None and text.find("\\boxed", plain.end()) < 0:
        return plain[1]
    opened: list[int] = []
    found: tuple[int, int] | None = None
    seen = False
    for match in _BRACE.finditer(text, first):
        mark = match[0]
        if mark == "}":
            if opened and (start := opened.pop()) >= 0:
                found = start, match.start()
        elif mark == "{":
            opened.append(-1)
        elif len(mark) > 2:
            seen = True
            opened.append(match.end())
    if found is None:
        return Unreadable.UNCLOSED if seen else Unreadable.NO_BOX
    return text[found[0] : found[1]]


def is_exact(read: ReadAnswer, key: AnswerKey) -> bool:
    """Whether exactly the true choices were named and nothing else, or the number is within the tolerance."""
    if key.answer_type is AnswerType.NUMBER:
        return is_within_tolerance(read, key)
    return read.unreadable is None and read.extras == 0 and set(read.labels) == set(key.answer)


def is_within_tolerance(read: ReadAnswer, key: AnswerKey) -> bool:
    """Whether the number read differs from the true one by no more than the tolerance, its edge included."""
    truth = key.number
    if read.number is None or key.tolerance is None:
        return False
    # Decimal fractions have no exact binary form: 0.4 is within 0.1 of 0.3.
    slack = 1e-9 * max(key.tolerance, abs(truth) * 1e-3)
    return abs(read.number - truth) <= key.tolerance + slack


@lru_cache(maxsize=2048)  # the completions of a question give few different answers
def _read_choices(content: str, choices: tuple[str, ...], kind: AnswerType) -> ReadAnswer:
    vocabulary = vocabulary_of(choices)
    if len(content) > _ANSWER_CHARACTERS + vocabulary.more_characters:
        return ReadAnswer(unreadable=Unreadable.TOO_LONG)
    plain = plain_text(content)
    if not plain:
        return ReadAnswer(unreadable=Unreadable.EMPTY)
    chosen, extras = vocabulary.read(plain)
    if chosen:
        return ReadAnswer(tuple([choices[i] for i in sorted(chosen)]), extras)
    if kind is AnswerType.SEVERAL and vocabulary.is_nothing(plain):
        return ReadAnswer()
    return ReadAnswer(extras=extras, unreadable=Unreadable.NO_CHOICE)


def _read_number(content: str) -> ReadAnswer:
    if len(content) > _ANSWER_CHARACTERS:
        return ReadAnswer(unreadable=Unreadable.TOO_LONG)
    plain = plain_text(content).strip(" *`'\"[]").rstrip(" .")
    if not plain:
        return ReadAnswer(unreadable=Unreadable.EMPTY)
    match = _NUMBER.fullmatch(plain)
    # A superscript or a vulgar fraction folds to plain digits, and 10² would read as 102.
    if match is None or any(unicodedata.category(c) == "No" for c in content):
        several = match is None and _SEVERAL_NUMBERS.search(plain) is not None
        return ReadAnswer(unreadable=Unreadable.SEVERAL_NUMBERS if several else Unreadable.NOT_A_NUMBER)
    value = float(match[1].replace(",", "")) if len(match[1]) <= _NUMBER_CHARACTERS else math.inf
    return ReadAnswer(number=value) if math.isfinite(value) else ReadAnswer(unreadable=Unreadable.NOT_A_NUMBER)
