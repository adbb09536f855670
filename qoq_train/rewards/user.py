"""A user's own reward: an entry point of the group ``qoq_train.rewards``, or ``module:function``.

It is called with the completion's text and the row's facts, and gives a number in [0, 1], or None where it does not
apply to the row.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qoq_data.errors import UnknownNameError, UsageError
from qoq_data.recipe_text import nearest

if TYPE_CHECKING:
    from qoq_train.rewards.facts import RowFacts

ENTRY_POINT_GROUP: Final = "qoq_train.rewards"


@dataclass(frozen=True, slots=True)
class UserReward:
    """A user's function under its name."""

    name: str
    call: Callable[[str, RowFacts], Any]

    def __call__(self, text: str, row: RowFacts) -> float | None:
        """Its value, checked; raises ``UsageError`` naming the reward for anything but None or a number in [0, 1]."""
        value = self.call(text, row)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise UsageError(f"The reward {self.name!r} gave a {type(value).__name__}; it must give a number or None.")
        if not math.isfinite(value) or not 0 <= value <= 1:
            raise UsageError(
                f"The reward {self.name!r} gave {float(value):g}. A reward lies between 0 and 1: rarity and difficulty "
                "are weighed by mean rewards, which no negative or unbounded value leaves meaningful."
            )
        return float(value)


def load_reward(name: str) -> UserReward:
    """Find a user's reward by its entry point's name, or import it where the name is ``module:function``.

    Raises ``UnknownNameError`` with the nearest name, or ``UsageError`` saying what of it could not be loaded.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon:
        known = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
        if name not in known:
            raise UnknownNameError(
                f"There is no reward {name!r}.{nearest(name, list(known))} Name an entry point of the group "
                f"{ENTRY_POINT_GROUP}, or write module:function."
            )
        module_name, attribute = known[name].module, known[name].attr
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"The reward {name!r} cannot be loaded: {error}.") from error
    if not callable(found):
        raise UsageError(f"The reward {name!r} is a {type(found).__name__} and no function.")
    return UserReward(name, found)
