"""Rows of a corpus as verl reads them, and the reward of their completions: verl's ``compute_score``.

What a completion is judged by travels in the row itself, as JSON in ``reward_model.ground_truth``, so that a worker
needs the row alone. Pictures are written at the size that the model's processor keeps, so nothing resizes them again.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from qoq_data.errors import CorpusError, UsageError
from qoq_train.answers import AnswerKey, is_exact
from qoq_train.coordinates import ModelFrame
from qoq_train.rewards import (
    BoxTruth,
    RewardSettings,
    RowFacts,
    TrueBox,
    UserReward,
    load_reward,
    reward_of,
    settings_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from qoq_train.rollout import Prompt

PLACEHOLDERS: Final = ("<image>", "<video>", "<audio>")
"""Texts for which verl puts a medium."""


def verl_row(facts: RowFacts, text: str, prompt: Prompt, *, split: str, index: int, system: str = "") -> dict[str, Any]:
    """A row of verl's table: ``text`` is the question after its pictures, those of ``prompt`` at their fitted size.

    ``index`` is the row's number in the table. Raises ``CorpusError`` where a text holds what verl takes for a
    picture's place.
    """
    found = next((one for one in PLACEHOLDERS if one in text or one in system), None)
    if found:
        raise CorpusError(f"{facts.id}: its text holds {found}, which verl takes for the place of a medium.")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": "<image>" * len(prompt.pictures) + text})
    return {
        "data_source": facts.source,
        "prompt": messages,
        "images": [{"bytes": _png(picture)} for picture in prompt.pictures],
        "ability": facts.task,
        "reward_model": {"style": "rule", "ground_truth": ground_truth_of(facts)},
        "extra_info": {"index": index, "id": facts.id, "domain": facts.domain, "task": facts.task, "split": split},
    }


def ground_truth_of(facts: RowFacts) -> str:
    """What a row's completions are judged by, as JSON; ``facts_of_row`` reads it back.

    Raises ``ValueError`` for true masks, which a row of text cannot hold.
    """
    boxes = None
    if facts.boxes is not None:
        regions = []
        for region in facts.boxes.regions:
            if not isinstance(region, TrueBox):
                raise ValueError(f"{facts.id}: a row for verl holds boxes and no masks")
            regions.append(
                {"xyxy": [float(edge) for edge in region.xyxy], "label": region.label, "image": region.image}
            )
        frames = [
            {"picture": list(frame.picture_size), "model": list(frame.model_size)} for frame in facts.boxes.frames
        ]
        boxes = {"regions": regions, "frames": frames}
    key = facts.key
    return json.dumps(
        {
            "choices": list(key.choices),
            "answer": list(key.answer),
            "answer_type": str(key.answer_type),
            "tolerance": key.tolerance,
            "boxes": boxes,
            "boxes_expected": facts.boxes_expected,
            "question": facts.question,
        },
        ensure_ascii=False,
        sort_keys=True,
    )


def facts_of_row(data_source: str, ground_truth: str, extra_info: Mapping[str, Any]) -> RowFacts:
    """The facts that ``verl_row`` wrote; raises ``UsageError`` naming the row for anything else."""
    row = str(extra_info.get("id") or extra_info.get("index") or "a row without an id")
    try:
        return _facts(
            ground_truth, row, data_source, str(extra_info.get("domain") or ""), str(extra_info.get("task") or "")
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{row}: reward_model.ground_truth is none that qoq-train wrote ({type(error).__name__}). Write the rows "
            "anew, or train rows of other origin with another reward function."
        ) from error


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    preset: str = "default",
    weights: Mapping[str, float] | None = None,
    custom: Sequence[str] = (),
    **_: Any,
) -> dict[str, float]:
    """verl's reward function: ``score`` is what the trainer of this package gives the same completion.

    ``acc`` is whether exactly the truth was answered, ``unreadable`` whether no answer could be read. ``preset``,
    ``weights`` and ``custom`` are those of a recipe's rewards and come from verl's ``reward_kwargs``.
    """
    facts = facts_of_row(data_source, ground_truth, extra_info or {})
    named = None if weights is None else tuple(sorted((str(name), float(weight)) for name, weight in weights.items()))
    settings, user_rewards = _judges(preset, named, tuple(custom))
    reward = reward_of(solution_str, facts, settings, user_rewards)
    if not math.isfinite(reward.total):
        raise UsageError(f"{facts.id}: its reward is {reward.total}.")
    return {
        "score": reward.total,
        "acc": float(is_exact(reward.answer, facts.key)),
        "unreadable": float(reward.answer.unreadable is not None),
    }


@lru_cache(maxsize=8)
def _judges(
    preset: str, weights: tuple[tuple[str, float], ...] | None, custom: tuple[str, ...]
) -> tuple[RewardSettings, tuple[UserReward, ...]]:
    settings = settings_of(preset, weights=None if weights is None else dict(weights))
    return settings, tuple(load_reward(name) for name in custom)


@lru_cache(maxsize=4096)  # the completions of a question share it
def _facts(ground_truth: str, row: str, source: str, domain: str, task: str) -> RowFacts:
    from qoq_data.record import AnswerType

    told = json.loads(ground_truth)
    tolerance = told["tolerance"]
    key = AnswerKey(
        tuple(map(str, told["choices"])),
        tuple(map(str, told["answer"])),
        AnswerType(told["answer_type"]),
        None if tolerance is None else float(tolerance),
    )
    boxes = None
    if told["boxes"] is not None:
        regions = tuple(
            TrueBox(_edges(one["xyxy"]), str(one["label"]), int(one["image"])) for one in told["boxes"]["regions"]
        )
        frames = tuple(ModelFrame(_size(one["picture"]), _size(one["model"])) for one in told["boxes"]["frames"])
        boxes = BoxTruth(regions, frames)
    return RowFacts(key, boxes, bool(told["boxes_expected"]), row, source, domain, task, str(told["question"]))


def _edges(values: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1


def _size(values: Sequence[int]) -> tuple[int, int]:
    width, height = map(int, values)
    return width, height


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()
