"""A text as the outcome of a row: read and judged as the reward does it, whoever wrote the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qoq_train.answers import read_answer
from qoq_train.evaluation.outcomes import Outcome
from qoq_train.rewards import box_reward, read_boxes
from qoq_train.rewards.box import whole_picture_boxes

if TYPE_CHECKING:
    from qoq_train.data.corpus import Example
    from qoq_train.rewards import RowFacts


def outcome_of(example: Example, facts: RowFacts, text: str) -> Outcome:
    """What was answered of a row; boxes count where its prompt asked for them and they are known."""
    asked = facts.boxes if facts.boxes_expected else None
    return Outcome(
        row_id=example.row_id,
        dataset=example.source,
        domain=str(example.domain),
        task=example.task,
        group=example.patient or example.row_id,
        key=example.key,
        read=read_answer(text, example.choices, example.answer_type),
        box_iou=None if asked is None else box_reward(read_boxes(text), asked),
        constant_box_iou=None if asked is None else box_reward(whole_picture_boxes(asked), asked),
    )
