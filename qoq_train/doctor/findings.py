"""One thing that the doctor found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["fails", "warns", "fine"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Which check, how it stands, what was found, and the recipe's key that changes it (blank where none does)."""

    check: str
    verdict: Verdict
    what: str
    key: str = ""
