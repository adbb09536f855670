"""Evaluation of a model behind an endpoint: the rows of a split as questions, its texts read and judged as our own.

Rows that the endpoint refused or did not answer are told by their ids and stand in no figure: they are no answers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from qoq_data.errors import UsageError
from qoq_data.licence import Redistribution
from qoq_train.coordinates import Convention, ModelFrame
from qoq_train.data.corpus import Corpus
from qoq_train.endpoint.client import Answered, Destination, Endpoint, EndpointError, Question, Refused
from qoq_train.evaluation.judging import outcome_of
from qoq_train.evaluation.metrics import Outcome, Report, report
from qoq_train.models.pictures import PictureRule
from qoq_train.prompts import asks_for_boxes, question_text
from qoq_train.rewards import BoxTruth, RowFacts, settings_of

if TYPE_CHECKING:
    from qoq_data.record import Split
    from qoq_train.data.corpus import Example
    from qoq_train.recipe import TrainRecipe

_THOUSAND: Final = 1000


@dataclass(frozen=True, slots=True)
class EndpointFindings:
    """What an endpoint answered: ``report`` is over ``outcomes`` alone.

    ``refused`` are the ids of rows that its filter kept back, ``failed`` those that it never answered, with why, and
    ``cut`` those whose answer the limit of tokens ended; these are in the report.
    """

    report: Report
    outcomes: tuple[Outcome, ...]
    refused: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    cut: tuple[str, ...]

    def told(self) -> dict[str, Any]:
        """What the report does not say, as plain values."""
        return {"refused": list(self.refused), "failed": dict(self.failed), "cut": list(self.cut)}

    def sentence(self) -> str:
        """The same in words, empty where every row was answered in full."""
        asked = len(self.outcomes) + len(self.refused) + len(self.failed)
        parts = [f"{len(self.refused)} were refused"] if self.refused else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        text = f"Of {asked} rows {' and '.join(parts)}; they are in no figure. " if parts else ""
        return text + (f"{len(self.cut)} answers were cut at the limit of tokens." if self.cut else "")


@dataclass(frozen=True, slots=True)
class EndpointAsker:
    """How a recipe's rows are put to an endpoint.

    Pictures are scaled to between ``data.min_pixels`` and ``data.max_pixels``, sides multiples of 28, a size that
    Qwen2.5-VL's processor keeps. Boxes are asked for and read by ``convention``: pixels of the picture as it is sent,
    or thousandths.
    """

    recipe: TrainRecipe
    convention: Convention = Convention.PIXELS

    def question(self, example: Example) -> Question:
        """A row as it is asked; raises ``UsageError`` naming the row for a picture that cannot be shown."""
        prompt = self.recipe.prompt
        try:
            pictures = tuple(_png(self._rule, picture) for picture in example.pictures)
        except UsageError as error:
            raise UsageError(f"{example.row_id}: {error}") from error
        text = question_text(example, prompt.template, self.convention)
        return Question(example.row_id, text, pictures, prompt.system)

    def facts(self, example: Example) -> RowFacts:
        """What the row's answer is judged by."""
        boxes = BoxTruth.of_row(example.boxes, example.masks, self._frames(example)) if example.boxes_known else None
        return RowFacts(
            key=example.key,
            boxes=boxes,
            boxes_expected=asks_for_boxes(example, self.recipe.prompt.template),
            id=example.row_id,
            source=example.source,
            domain=str(example.domain),
            task=example.task,
            question=example.question,
        )

    def _frames(self, example: Example) -> tuple[ModelFrame, ...]:
        sizes = [picture.size for picture in example.pictures]
        if self.convention is Convention.THOUSANDTHS:
            return tuple(ModelFrame(size, (_THOUSAND, _THOUSAND)) for size in sizes)
        return tuple(ModelFrame(size, self._rule.fitted_size(size)) for size in sizes)

    @property
    def _rule(self) -> PictureRule:
        data = self.recipe.data
        return PictureRule(-1, 14, 2, data.min_pixels, data.max_pixels)


def check_may_leave(corpus: Corpus, destination: Destination, *, allow_remote: bool) -> None:
    """Refuse to send rows to another machine that their terms keep here, unless the user answers for it.

    Raises ``UsageError``.
    """
    if destination.is_loopback or allow_remote or corpus.redistribution is Redistribution.OPEN:
        return
    raise UsageError(
        f"The rows of this corpus are under {corpus.licence or 'no licence'} and may not be passed on freely "
        f"({corpus.redistribution}); {destination.host} is another machine. Evaluate a server on this one, choose open "
        "sources by data.sources, or, where your agreements allow it, say --allow-remote."
    )


def evaluate_endpoint(
    recipe: TrainRecipe,
    endpoint: Endpoint,
    split: Split,
    *,
    allow_remote: bool = False,
    convention: Convention = Convention.PIXELS,
    most: int | None = None,
    replicates: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> EndpointFindings:
    """The figures of the model behind an endpoint on the rows that ``evaluate`` would take; no local model is loaded.

    ``progress`` is called with rows done and rows asked. Raises as ``Corpus``, ``check_may_leave`` and
    ``Endpoint.answers``, and ``EndpointError`` where no row was answered.
    """
    with_masks = settings_of(recipe.rewards.preset, truth=recipe.rewards.box_truth).truth == "masks"
    corpus = Corpus(recipe.data, with_masks=with_masks)
    check_may_leave(corpus, endpoint.destination, allow_remote=allow_remote)
    rows = corpus.rows(split)
    places = rows.sample(most, recipe.seed).tolist()
    if not places:
        raise UsageError(f"The corpus has no row in {split} that passes data.sources and data.tasks.")
    asker = EndpointAsker(recipe, convention)
    facts: list[tuple[Example, RowFacts]] = []

    def questions() -> Iterator[Question]:
        for place in places:
            example = rows.example(place)
            question = asker.question(example)
            facts.append((replace(example, pictures=()), asker.facts(example)))
            yield question

    outcomes: list[Outcome] = []
    refused: list[str] = []
    failed: list[tuple[str, str]] = []
    cut: list[str] = []
    for number, (question, reply) in enumerate(endpoint.answers(questions())):
        if isinstance(reply, Answered):
            outcomes.append(outcome_of(*facts[number], reply.text))
            cut += [question.row_id] if reply.cut else []
        elif isinstance(reply, Refused):
            refused.append(question.row_id)
        else:
            failed.append((question.row_id, reply.reason))
        if progress is not None:
            progress(number + 1, len(places))
    if not outcomes:
        raise EndpointError(f"Of {len(places)} rows {len(refused)} were refused, {len(failed)} failed, none answered.")
    found = report(outcomes, replicates=replicates, seed=recipe.seed)
    return EndpointFindings(found, tuple(outcomes), tuple(refused), tuple(failed), tuple(cut))


def _png(rule: PictureRule, picture: Any) -> bytes:
    data = io.BytesIO()
    rule.fit(picture).save(data, "PNG")
    return data.getvalue()
