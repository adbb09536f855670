"""A right completion of an example, in the form that its prompt asks for: what the supervised stage teaches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Final

from qoq_data.errors import CorpusError
from qoq_data.record import AnswerType
from qoq_train.answers import is_exact, read_answer
from qoq_train.prompts import LeftOut, PromptWriter, Template, asks_for_boxes

if TYPE_CHECKING:
    from qoq_train.coordinates import ModelFrame
    from qoq_train.data.corpus import Example
    from qoq_train.rollout import Prompt

MOST_BOXES: Final = 32
"""A row with more boxes is taught without them: so long a list is no statement about a picture."""

THINK_BEGIN: Final = "<think>"
THINK_END: Final = "</think>\n"
LIST_BEGIN: Final = "```json\n["
LIST_END: Final = "]\n```\n"
BOX_BEGIN: Final = '{"bbox_2d": ['
LABEL: Final = '], "label": '
IMAGE: Final = ', "image": '
ANSWER_BEGIN: Final = "\\boxed{"
ANSWER_END: Final = "}"
NONE: Final = "none"

THOUGHTS: Final = (
    ("As to ", ", what is shown fits: ", "."),
    ("On ", ", the signs taken together speak for: ", "."),
    ("In question is ", "; closest to what I see comes: ", "."),
)
"""What stands before the task, between it and the answer, and after that."""

MEASURED: Final = (
    ("Measuring ", " over what is shown gives ", "."),
    ("As to ", ", I read off about ", "."),
)
"""The same where the answer is a number."""


@dataclass(frozen=True, slots=True)
class Target:
    """A completion's text without its end token; ``answer_spans`` are the half-open spans of characters that answer.

    The answer stands in the thinking first and in the box after it; who weighs the answer more has to weigh both, for
    it is decided in the first and only copied into the second.
    """

    text: str
    answer_spans: tuple[tuple[int, int], ...]


def target_text(example: Example, template: Template, rng: Random, frames: Sequence[ModelFrame] = ()) -> Target:
    """A right completion by a template; which thought it holds is drawn from ``rng``.

    ``frames`` say in which coordinates the model speaks of each picture. Raises ``ValueError`` where boxes are asked
    for and not known, and ``CorpusError`` naming the row where its answer, as written, would be read as another.
    """
    text = ""
    spans = []
    for piece, answers in _pieces(example, template, rng, frames):
        if answers:
            spans.append((len(text), len(text) + len(piece)))
        text += piece
    if not is_exact(read_answer(text, example.choices, example.answer_type), example.key):
        raise CorpusError(
            f"{example.row_id}: its answer, written as one, is read as another; its choices are at fault."
        )
    return Target(text, tuple(spans))


def supervised_pair(writer: PromptWriter, example: Example, rng: Random) -> tuple[Prompt, Target] | LeftOut:
    """The prompt of a row and its target, in one form.

    Where the writer would ask for boxes and the row's are not known, or more than ``MOST_BOXES``, both are by the
    template ``reasoning``. Raises as ``PromptWriter.prompt`` and ``target_text``.
    """
    template = writer.template
    can_be_taught = example.boxes_known and len(example.boxes) <= MOST_BOXES
    if asks_for_boxes(example, template) and not can_be_taught:
        template = "reasoning"
    prompt = writer.prompt(example, template)
    if isinstance(prompt, LeftOut):
        return prompt
    return prompt, target_text(example, template, rng, writer.frames(example))


def with_drawn_answer(example: Example, rng: Random) -> Example:
    """The row with an answer drawn from its choices, of as many as its own; a number, which has none, as it is.

    What is taught so is how an answer is written, and not which it is: that is left to the reward.
    """
    if example.answer_type is AnswerType.NUMBER:
        return example
    drawn = set(rng.sample(example.choices, len(example.answer)))
    return replace(example, answer=tuple(choice for choice in example.choices if choice in drawn))


def target_pieces(template: Template, tasks: Sequence[str], with_boxes: bool) -> Iterator[str]:
    """The fixed texts of targets of these tasks, choices and labels aside."""
    if template != "short":
        yield from (THINK_BEGIN, THINK_END)
        yield from (piece for thought in (*THOUGHTS, *MEASURED) for piece in thought)
        yield from map(task_words, tasks)
    if template == "boxes" and with_boxes:
        yield from (LIST_BEGIN, LIST_END, BOX_BEGIN, LABEL, IMAGE)
    yield ANSWER_BEGIN


def task_words(task: str) -> str:
    """A task's name as words."""
    return task.replace("_", " ")


def _pieces(
    example: Example, template: Template, rng: Random, frames: Sequence[ModelFrame]
) -> Iterator[tuple[str, bool]]:
    """The pieces of a target, and whether they are the answer."""
    answer = ", ".join(example.answer) or NONE
    if template != "short":
        thoughts = MEASURED if example.answer_type is AnswerType.NUMBER else THOUGHTS
        before, between, after = rng.choice(thoughts)
        yield THINK_BEGIN + before + task_words(example.task) + between, False
        yield answer, True
        yield after + THINK_END, False
    if asks_for_boxes(example, template):
        if not example.boxes_known or len(frames) != len(example.pictures):
            raise ValueError(f"{example.row_id}: its boxes are not known, or its pictures' frames are not given")
        yield LIST_BEGIN + ", ".join(_items(example, frames)) + LIST_END, False
    yield ANSWER_BEGIN, False
    yield answer, True
    yield ANSWER_END, False


def _items(example: Example, frames: Sequence[ModelFrame]) -> Iterator[str]:
    for box in example.boxes:
        edges = ", ".join(map(str, frames[box.image].to_model_integers(box.xyxy)))
        picture = f"{IMAGE}{box.image + 1}" if len(frames) > 1 else ""
        yield f"{BOX_BEGIN}{edges}{LABEL}{json.dumps(box.label, ensure_ascii=False)}{picture}}}"
