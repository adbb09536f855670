"""An example as a model is asked it: pictures, what is known, the question, its choices, and the form of the answer.

The words are ours. A prompt holds one image token a picture, and its pictures have the size that the model's processor
keeps, so its length is known before anything is generated; one that is too long is left out whole and never cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from qoq_data.errors import CorpusError, UsageError
from qoq_data.record import AnswerType, Split
from qoq_train.coordinates import Convention, CoordinateRule, ModelFrame
from qoq_train.rollout import Prompt

if TYPE_CHECKING:
    from PIL import Image

    from qoq_train.data.corpus import Corpus, Example
    from qoq_train.models.pictures import PictureRule
    from qoq_train.recipe import PromptRecipe

Template = Literal["boxes", "reasoning", "short"]

KNOWN: Final = "Known beforehand: "
THINK: Final = "Think it through between <think> and </think>."
BOX_FORM: Final = (
    "Then mark what your answer rests on: a ```json block with a list of "
    '{"bbox_2d": [left, top, right, bottom], "label": "..."}'
)
PICTURE_NUMBER: Final = ', each with "image", the number of its picture'
NOTHING: Final = ", or [] if there is nothing to mark."
UNITS: Final = {
    Convention.RESIZED_PIXELS: ", in pixels of the picture as you see it",
    Convention.THOUSANDTHS: ", in thousandths of the picture's width and height",
    Convention.PIXELS: ", in pixels of the picture",
}
ANSWERS: Final = {
    AnswerType.ONE: "Give your answer in \\boxed{}: one of the choices, as written.",
    AnswerType.SEVERAL: "Give your answer in \\boxed{}: every choice that applies, as written, with commas between.",
    AnswerType.NUMBER: "Give your answer in \\boxed{}: one number, in the unit asked for.",
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row whose prompt has more tokens than the recipe allows, those of its pictures included."""

    row_id: str
    tokens: int


def asks_for_boxes(example: Example, template: Template) -> bool:
    """Whether a prompt asks for boxes: the template does, and the row's source has boxes.

    It is a matter of the source and not of the row, where it would give away that there is something to be found.
    """
    return template == "boxes" and example.source_has_boxes and bool(example.pictures)


def question_pieces(example: Example, template: Template, convention: Convention) -> Iterator[str]:
    """The text of a prompt after its pictures, in the pieces from which it is put together."""
    if example.context:
        yield from (KNOWN, example.context, ".\n")
    yield example.question
    for number, choice in enumerate(example.choices):
        yield from (f"\n{choice_mark(number)} ", choice)
    yield "\n\n"
    if template != "short":
        yield from (THINK, " ")
    if asks_for_boxes(example, template):
        yield from (BOX_FORM, UNITS[convention])
        yield from (PICTURE_NUMBER,) if len(example.pictures) > 1 else ()
        yield from (NOTHING, " ")
    yield ANSWERS[example.answer_type]


def question_text(example: Example, template: Template, convention: Convention) -> str:
    """The text of a prompt after its pictures."""
    return "".join(question_pieces(example, template, convention))


def choice_mark(number: int) -> str:
    """What stands before a choice, counted from 0: a letter, or from the 27th on its number counted from 1."""
    return f"{chr(ord('A') + number)}." if number < 26 else f"{number + 1}."


@dataclass(frozen=True, eq=False)  # no slots: the control tokens are looked up once and kept
class PromptWriter:
    """Writes prompts for one model.

    ``chat`` is its processor, or of a text model its tokenizer, with the chat template; ``pictures`` is None for a
    text model; ``convention`` is how it states boxes; ``system`` is a message before the question, or empty.
    """

    chat: Any
    pictures: PictureRule | None
    convention: Convention
    template: Template = "boxes"
    system: str = ""
    max_prompt_tokens: int = 4000
    tokenizer: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokenizer", getattr(self.chat, "tokenizer", self.chat))
        found = self._control_token_in(self.system)
        if found:
            raise UsageError(f"prompt.system holds the control token {found!r}; write it in plain words.")

    @classmethod
    def of_recipe(
        cls,
        chat: Any,
        pictures: PictureRule | None,
        convention: Convention,
        recipe: PromptRecipe,
        max_prompt_tokens: int,
    ) -> PromptWriter:
        """A writer with a recipe's template and system message."""
        return cls(chat, pictures, convention, recipe.template, recipe.system, max_prompt_tokens)

    def prompt(self, example: Example, template: Template | None = None) -> Prompt | LeftOut:
        """The prompt of a row by the writer's template, or another one; too long a one is left out.

        Raises ``UsageError`` for pictures that the model cannot be shown, and ``CorpusError`` for a row whose text
        holds a control token of the model, which would be read as one; both name the row.
        """
        found = self._control_token_in("\n".join((example.question, example.context, *example.choices)))
        if found:
            raise CorpusError(f"{example.row_id}: its text holds the control token {found!r} of the model.")
        if example.pictures and self.pictures is None:
            raise UsageError(
                f"{example.row_id}: it has pictures, and the model reads text alone. "
                "Take a vision-language model, or set data.sources to sources of text."
            )
        text = question_text(example, template or self.template, self.convention)
        ids = self._token_ids(text, len(example.pictures))
        pictures: tuple[Image.Image, ...] = ()
        tokens = len(ids)
        if self.pictures is not None:
            try:
                pictures = tuple(self.pictures.fit(picture) for picture in example.pictures)
            except UsageError as error:
                raise UsageError(f"{example.row_id}: {error}") from error
            places = ids.count(self.pictures.image_token_id)
            if places != len(pictures):
                raise UsageError(
                    f"{example.row_id}: the model's chat template makes {places} image tokens of {len(pictures)} "
                    "picture(s); it needs one for each."
                )
            tokens += sum(self.pictures.token_count(picture.size) - 1 for picture in pictures)
        if tokens > self.max_prompt_tokens:
            return LeftOut(example.row_id, tokens)
        return Prompt(example.row_id, ids, pictures)

    def frames(self, example: Example) -> tuple[ModelFrame, ...]:
        """In which coordinates the model speaks of each picture; raises ``UsageError`` as ``prompt``."""
        frames = []
        for picture in example.pictures:
            if self.convention is not Convention.RESIZED_PIXELS or self.pictures is None:
                frames.append(CoordinateRule(self.convention).frame(picture.size))
                continue
            try:
                frames.append(ModelFrame(picture.size, self.pictures.fitted_size(picture.size)))
            except UsageError as error:
                raise UsageError(f"{example.row_id}: {error}") from error
        return tuple(frames)

    def _token_ids(self, text: str, pictures: int) -> tuple[int, ...]:
        content: Any = text
        if pictures:
            content = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        whole = self.chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tuple(self.tokenizer(whole, add_special_tokens=False)["input_ids"])

    def _control_token_in(self, text: str) -> str | None:
        return next((token for token in self._control_tokens if token in text), None)

    @cached_property
    def _control_tokens(self) -> tuple[str, ...]:
        added = (str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)
        return tuple(dict.fromkeys(token for token in (*self.tokenizer.all_special_tokens, *added) if token))


def fixed_pieces(corpus: Corpus, template: Template, convention: Convention) -> tuple[str, ...]:
    """The distinct fixed texts of the corpus's prompts and targets, which a tiny tokenizer may hold as whole tokens.

    Those of the template, the wordings of the questions, the choices, the tasks and the labels of boxes; what a row
    alone says (its context, a number, the edges of a box) is none of them.
    """
    from qoq_train.targets import target_pieces

    every = [corpus.rows(split) for split in Split]
    found = {column: {t for rows in every for t in rows.texts(column)} for column in ("question", "choices", "boxes")}
    most = max((len(choices) for rows in every for choices in rows.choice_lists()), default=0)
    pieces = [KNOWN, ".\n", "\n\n", *(f"\n{choice_mark(number)} " for number in range(most))]
    if template != "short":
        pieces.append(THINK)
    if template == "boxes" and corpus.sources_with_boxes:
        pieces += [BOX_FORM, UNITS[convention], PICTURE_NUMBER, NOTHING]
    types = {kind for rows in every for kind in rows.texts("answer_type")}
    pieces += [text for kind, text in ANSWERS.items() if kind in types]
    tasks = {text for rows in every for text in rows.texts("task")}
    pieces += [*target_pieces(template, sorted(tasks), bool(corpus.sources_with_boxes))]
    for column in ("question", "choices", "boxes"):
        pieces += sorted(found[column])
    return tuple(dict.fromkeys(pieces))
