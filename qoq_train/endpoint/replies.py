"""What an OpenAI-compatible endpoint's reply means: an answer, a refusal, a failure, or that one has to ask again.

What a server writes of an error is not repeated, since it may hold a patient's text or the key; its code is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

from qoq_data.errors import QoQError, UsageError

__all__ = ["Answered", "EndpointError", "Failed", "Refused", "Reply", "TryAgainError", "read_reply"]

_CODE: Final = re.compile(r"[a-z][a-z_]{1,40}")
_WRONG_FOR_ALL: Final = {
    401: "it does not accept the key: set the environment variable that holds it",
    403: "the key may not use this model",
    404: "it has no such address or model",
}
_TRY_AGAIN: Final = (408, 409, 425, 429)


class EndpointError(QoQError):
    """An endpoint did not do its part, so the evaluation cannot be finished."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What was said; ``cut`` where the limit of tokens ended it."""

    text: str
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider's filter kept the answer back, or the model declined by the field made for it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer after every try; ``reason`` holds a status or a kind of fault and nothing that the server wrote."""

    reason: str


Reply = Answered | Refused | Failed


class TryAgainError(Exception):
    """The same question may be answered later: after ``wait_s`` where the server says so."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.wait_s = reason, wait_s


def read_reply(status: int, retry_after: str | None, data: bytes, now: Callable[[], float]) -> Reply:
    """The reply of a status, a ``Retry-After`` header and a body; ``now`` gives seconds since 1970.

    Raises:
        TryAgainError: 408, 409, 425, 429, 5xx, and a body that is no chat completion.
        UsageError: the endpoint would refuse whatever is asked: 401, 403, 404, or it sends elsewhere.
        EndpointError: the account has nothing left.
    """
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = None
    if status == 200:
        return _read_completion(told)
    if status in _WRONG_FOR_ALL:
        raise UsageError(f"The endpoint answers {status}: {_WRONG_FOR_ALL[status]}.")
    if 300 <= status < 400:
        raise UsageError(f"The endpoint answers {status}, and sends elsewhere: give the address itself.")
    code = _code(told)
    if code in ("content_filter", "content_policy_violation"):
        return Refused()
    if code == "insufficient_quota":
        raise EndpointError("The endpoint says that the account has nothing left to spend.")
    reason = f"status {status}{f', {code}' if code else ''}"
    if status in _TRY_AGAIN or status >= 500:
        raise TryAgainError(reason, _seconds(retry_after, now))
    return Failed(reason)


def _read_completion(told: Any) -> Reply:
    try:
        choice = told["choices"][0]
        message = choice["message"]
        text, ended = message.get("content"), choice.get("finish_reason")
        refused = message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise TryAgainError("a reply that is no chat completion") from None
    if ended == "content_filter" or (refused and not text):
        return Refused()
    if isinstance(text, list):
        text = "".join(part["text"] for part in text if isinstance(part, dict) and isinstance(part.get("text"), str))
    if not isinstance(text, str) or (not text and ended != "length"):
        return Failed("a reply without text")
    return Answered(text, ended == "length")


def _code(told: Any) -> str:
    """The code of an error, where it is one word; nothing else of what a server writes is kept."""
    error = told.get("error") if isinstance(told, dict) else None
    for name in ("code", "type"):
        value = error.get(name) if isinstance(error, dict) else None
        if isinstance(value, str) and _CODE.fullmatch(value):
            return value
    return ""


def _seconds(retry_after: str | None, now: Callable[[], float]) -> float | None:
    """What ``Retry-After`` asks for, as a number or a date (RFC 9110, 10.2.3); None where it says nothing readable."""
    if retry_after is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", retry_after.strip()):
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now())
    except (ValueError, OverflowError):
        return None
