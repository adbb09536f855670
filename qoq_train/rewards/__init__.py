"""What a completion is worth: its answer, its boxes, its form and, as published, its length, in one number.

Every part is a pure function of the text and the row's facts, with a value in [0, 1] or None where it does not apply
to the row. A preset says which functions and weights: ``paper`` and ``released`` as published, ``default`` ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal

from qoq_data.errors import UnknownNameError, UsageError
from qoq_data.recipe_text import nearest
from qoq_train.answers import ReadAnswer, read_answer
from qoq_train.rewards.answer import AnswerScore, answer_reward
from qoq_train.rewards.box import BoxTruth, Overlap, TrueBox, TrueMask, Truth, box_reward
from qoq_train.rewards.boxes_in_text import StatedBoxes, read_boxes
from qoq_train.rewards.facts import RowFacts
from qoq_train.rewards.format import binary_format_reward, graded_format_reward
from qoq_train.rewards.length import released_length_reward
from qoq_train.rewards.user import UserReward, load_reward

__all__ = [
    "PRESETS", "AnswerScore", "BoxTruth", "Missing", "Overlap", "Reward", "RewardSettings", "RewardWeights", "RowFacts",
    "StatedBoxes", "TrueBox", "TrueMask", "Truth", "UserReward", "answer_reward", "binary_format_reward", "box_reward",
    "graded_format_reward", "load_reward", "read_boxes", "released_length_reward", "reward_of", "rewards_of",
    "settings_of",
]  # fmt: skip

Missing = Literal["renormalise", "zero"]


@dataclass(frozen=True, slots=True)
class RewardWeights:
    """The share of each part; ``user`` by the names of the user's rewards. Only their ratios matter.

    Raises ``ValueError`` naming a weight that is negative or not finite, and where all are 0.
    """

    answer: float = 0.0
    box: float = 0.0
    format: float = 0.0
    length: float = 0.0
    user: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        named = self.by_name()
        if len(named) != 4 + len(self.user):
            raise ValueError("a user's reward has the name of another part, or stands twice among the weights")
        for name, weight in named.items():
            if not math.isfinite(weight) or weight < 0:
                raise ValueError(f"the weight of the reward {name!r} is {weight}; it must be finite and 0 or more")
        if not sum(named.values()) > 0:
            raise ValueError("all weights are 0, so every completion is worth the same")

    def by_name(self) -> dict[str, float]:
        """Every weight, the user's last."""
        return dict(self.shares())

    def shares(self) -> tuple[tuple[str, float], ...]:
        """Names and weights, the user's last."""
        own = ("answer", self.answer), ("box", self.box), ("format", self.format), ("length", self.length)
        return own + self.user if self.user else own


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """Which functions, with which weights, and what becomes of the weight of a part that does not apply to a row.

    ``renormalise`` divides by the weights of the parts that apply; ``zero`` lets the part count as 0, as published,
    so that a row without a true box can never earn the box's share. ``truth`` says what boxes are judged against:
    the row's boxes, or its masks where it stores them. Raises ``ValueError`` for labels to match against masks.
    """

    weights: RewardWeights
    missing: Missing = "renormalise"
    answer_score: AnswerScore = "guarded"
    overlap: Overlap = "matched"
    truth: Truth = "boxes"
    match_labels: bool = False
    format: Literal["binary", "graded"] = "binary"

    def __post_init__(self) -> None:
        if self.match_labels and self.truth == "masks":
            raise ValueError("labels cannot be matched against masks, which have none: take boxes as the truth")


PRESETS: Final[Mapping[str, RewardSettings]] = MappingProxyType(
    {
        "paper": RewardSettings(
            RewardWeights(answer=0.6, box=0.2, format=0.2), "zero", "f1", overlap="max", format="binary"
        ),
        "released": RewardSettings(
            RewardWeights(answer=0.5, box=0.3, format=0.1, length=0.1),
            "zero",
            "f1",
            overlap="mean",
            truth="masks",
            format="graded",
        ),
        # The answer is what is evaluated, so it outweighs the rest together; boxes are worth drawing where they can
        # be judged; form is soon learnt and then constant, which a normalised advantage ignores. Nothing for length:
        # it pays for padding and for nothing else.
        "default": RewardSettings(RewardWeights(answer=0.7, box=0.2, format=0.1)),
    }
)


def settings_of(
    preset: str,
    *,
    weights: Mapping[str, float] | None = None,
    missing: Missing | None = None,
    overlap: Overlap | None = None,
    truth: Truth | None = None,
    match_labels: bool | None = None,
) -> RewardSettings:
    """A preset with what is given in place of its own; ``weights`` by part, the user's under their names.

    Weights that are given replace all of the preset's. Raises ``UnknownNameError`` for a preset, ``ValueError`` for
    weights, that cannot be.
    """
    if preset not in PRESETS:
        raise UnknownNameError(f"There is no preset {preset!r} of rewards.{nearest(preset, list(PRESETS))}")
    changes: dict[str, Any] = {"missing": missing, "overlap": overlap, "truth": truth, "match_labels": match_labels}
    if weights is not None:
        own = {part.name for part in fields(RewardWeights)} - {"user"}
        user = tuple((name, weight) for name, weight in weights.items() if name not in own)
        changes["weights"] = RewardWeights(**{name: weights.get(name, 0.0) for name in sorted(own)}, user=user)
    return replace(PRESETS[preset], **{name: value for name, value in changes.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Reward:
    """What one completion is worth: ``total`` in [0, 1], every part by name (None: does not apply), and the reading."""

    total: float
    parts: Mapping[str, float | None]
    answer: ReadAnswer


def reward_of(
    text: str, row: RowFacts, settings: RewardSettings = PRESETS["default"], user_rewards: Sequence[UserReward] = ()
) -> Reward:
    """The worth of one completion of a row's question; parts without weight are not computed.

    The form is judged as released only where boxes were asked for, since that score is of boxes alone. Raises
    ``UsageError`` where no part with a weight applies to the row, a user's reward is not a number in [0, 1], or
    weights and the user's rewards do not name each other.
    """
    weights = settings.weights
    if weights.user or user_rewards:
        _check_names(weights, user_rewards)
    read = read_answer(text, row.key.choices, row.key.answer_type)
    parts: dict[str, float | None] = {"answer": answer_reward(read, row.key, settings.answer_score)}
    if weights.box:
        parts["box"] = (
            None
            if row.boxes is None
            else box_reward(read_boxes(text), row.boxes, overlap=settings.overlap, match_labels=settings.match_labels)
        )
    if weights.format:
        if settings.format == "binary":
            parts["format"] = binary_format_reward(text, boxes_expected=row.boxes_expected)
        else:
            parts["format"] = graded_format_reward(text) if row.boxes_expected else None
    if weights.length:
        parts["length"] = released_length_reward(text)
    for user_reward in user_rewards:
        parts[user_reward.name] = user_reward(text, row)
    return Reward(_total(parts, weights, settings.missing, row), parts, read)


def rewards_of(
    texts: Sequence[Sequence[str]],
    rows: Sequence[RowFacts],
    settings: RewardSettings = PRESETS["default"],
    user_rewards: Sequence[UserReward] = (),
) -> list[list[Reward]]:
    """The worth of each completion of each row: ``texts`` [rows][completions], as many rows as facts."""
    return [
        [reward_of(text, row, settings, user_rewards) for text in completions]
        for completions, row in zip(texts, rows, strict=True)
    ]


def _check_names(weights: RewardWeights, user_rewards: Sequence[UserReward]) -> None:
    named, given = sorted(name for name, _ in weights.user), sorted(reward.name for reward in user_rewards)
    if named != given:
        raise UsageError(f"The weights name the rewards {named} of the user, and those loaded are {given}.")


def _total(parts: Mapping[str, float | None], weights: RewardWeights, missing: Missing, row: RowFacts) -> float:
    earned = applying = whole = 0.0
    for name, weight in weights.shares():
        value = parts.get(name)
        whole += weight
        if value is not None:
            earned += weight * value
            applying += weight
    if missing == "zero":
        return earned / whole
    if not applying > 0:
        where = f" {row.id}" if row.id else ""
        raise UsageError(f"No reward with a weight applies to the row{where}; give the answer a weight.")
    return earned / applying
