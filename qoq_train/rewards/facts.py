"""What a reward may know of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qoq_train.answers import AnswerKey
    from qoq_train.rewards.box import BoxTruth


@dataclass(frozen=True, slots=True)
class RowFacts:
    """The facts of one row that its completions are judged by.

    ``boxes`` is None where the row's source knows no boxes; ``boxes_expected`` says that the prompt asked for them.
    The names are the row's own, for rewards that differ between them and for messages.
    """

    key: AnswerKey
    boxes: BoxTruth | None = None
    boxes_expected: bool = False
    id: str = ""
    source: str = ""
    domain: str = ""
    task: str = ""
    question: str = ""
