"""A corpus as a dataset of TRL's, and our rewards in the signature that TRL calls; neither needs TRL itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qoq_data.errors import UsageError
from qoq_train.prompts import LeftOut, question_text
from qoq_train.rewards import PRESETS, RewardSettings, RowFacts, UserReward, reward_of
from qoq_train.training.assembly import facts_of

if TYPE_CHECKING:
    from qoq_train.data.corpus import SplitRows
    from qoq_train.prompts import PromptWriter


def qoq_rewards(
    settings: RewardSettings = PRESETS["default"], user_rewards: Sequence[UserReward] = ()
) -> Callable[..., list[float]]:
    """Our reward as TRL calls one: a row's ``facts`` (a column of ``RowFacts``) judge each of its completions.

    The mean of every part that applies is logged as ``reward/<part>``. Raises ``UsageError`` without that column.
    """

    def qoq(
        *,
        completions: Sequence[Any],
        facts: Sequence[RowFacts] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float]:
        if facts is None or not all(isinstance(row, RowFacts) for row in facts):
            raise UsageError("The rewards need the dataset's column 'facts' with RowFacts: make it by corpus_dataset.")
        found = [
            reward_of(_text(completion), row, settings, user_rewards)
            for completion, row in zip(completions, facts, strict=True)
        ]
        if log_metric is not None:
            for name in sorted({name for reward in found for name in reward.parts}):
                values = [value for reward in found if (value := reward.parts.get(name)) is not None]
                if values:
                    log_metric(f"reward/{name}", sum(values) / len(values))
            log_metric("unreadable", sum(reward.answer.unreadable is not None for reward in found) / len(found))
        return [reward.total for reward in found]

    return qoq


def corpus_dataset(rows: SplitRows, writer: PromptWriter, *, seed: int = 42) -> Any:
    """A split of a corpus as a ``datasets.Dataset`` for TRL; a row is read when it is drawn.

    Each row has ``prompt`` (messages), ``images`` at the size that the model's processor keeps, ``domain``, ``source``
    and ``facts``. They stand in the corpus's training order of ``seed``, in which neighbours lie in few files: keep it
    with ``GRPOConfig(shuffle_dataset=False)``, or let TRL shuffle and read more. Raises ``UsageError`` where there is
    no row and, when it is drawn, for a row whose prompt is longer than the writer allows.
    """
    from datasets import Dataset

    places = rows.order(seed).rows(0, len(rows))
    return Dataset.from_dict({"place": places}).with_transform(_Reader(rows, writer))


class _Reader:
    """Places of a batch to TRL's columns; a place that stands in it several times is read once."""

    def __init__(self, rows: SplitRows, writer: PromptWriter) -> None:
        self._rows, self._writer = rows, writer

    def __call__(self, batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        read = {place: self._row(place) for place in dict.fromkeys(batch["place"])}
        found = [read[place] for place in batch["place"]]
        return {name: [row[name] for row in found] for name in found[0]}

    def _row(self, place: int) -> dict[str, Any]:
        writer = self._writer
        example = self._rows.example(int(place))
        prompt = writer.prompt(example)
        if isinstance(prompt, LeftOut):
            raise UsageError(
                f"{prompt.row_id}: its prompt has {prompt.tokens} tokens, over data.max_prompt_tokens "
                f"({writer.max_prompt_tokens}). TRL cannot leave a row out: raise that, or lower data.max_pixels."
            )
        text = question_text(example, writer.template, writer.convention)
        system = [{"role": "system", "content": writer.system}] if writer.system else []
        return {
            "prompt": [*system, {"role": "user", "content": text}],
            "images": list(prompt.pictures),
            "domain": str(example.domain),
            "source": example.source,
            "facts": facts_of(example, writer),
        }


def _text(completion: Any) -> str:
    """A completion's text: itself, or what the last of its messages says."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")
