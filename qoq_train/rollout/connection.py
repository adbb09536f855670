"""A connection to one rollout server: what is asked is answered, or the error names the server."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from qoq_data.errors import UsageError
from qoq_train.rollout import RolloutError, wire

Result = TypeVar("Result")

_LOST: Final = (ConnectionError, http.client.HTTPException)
"""The connection failed, so the same may be asked again: a server answers it twice alike, or refuses it."""

_LARGEST_ANSWER_BYTES: Final = 8 << 30
_LONGEST_REASON: Final = 2000


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """How patiently servers are asked.

    ``timeout_s`` bounds the wait for one answer, a whole batch of completions included. Only a lost or refused
    connection is tried again: ``tries`` in all, after ``pause_s`` and then twice as long each time.
    """

    timeout_s: float = 3600.0
    tries: int = 5
    pause_s: float = 1.0


class ServerConnection:
    """A server at ``host:port``, or at an ``http://`` or ``https://`` address; used by one thread at a time.

    Raises:
        UsageError: the address is none.
    """

    def __init__(self, address: str, token: str | None, choice: ServerChoice = ServerChoice()) -> None:
        self.address = address
        self._choice = choice
        self._headers = {"Content-Type": wire.CONTENT_TYPE}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        try:
            parts = urlsplit(address if "://" in address else f"http://{address}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UsageError(f"{address!r} is no address of a rollout server: {error}.") from error
        rest = (parts.path.rstrip("/"), parts.query, parts.fragment, parts.username, parts.password)
        if parts.scheme not in ("http", "https") or not host or port is None or any(rest):
            raise UsageError(f"{address!r} is no address of a rollout server: write host:port.")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(host, port, timeout=choice.timeout_s)

    def facts(self) -> dict[str, Any]:
        """What the server says of itself.

        Raises:
            RolloutError: it cannot be reached, refuses, or says nothing that can be read.
        """
        body = self._ask("GET", "facts", [])
        try:
            told = json.loads(body)
        except ValueError as error:
            raise self.error("it answers, and not as a rollout server of this package") from error
        if not isinstance(told, dict):
            raise self.error("it answers, and not as a rollout server of this package")
        return told

    def post(self, action: str, body: wire.Body) -> tuple[wire.Message, wire.Tensors]:
        """The answer to a message.

        Raises:
            RolloutError: the server cannot be reached, took too long, refused, or answered what cannot be read.
        """
        answer = self._ask("POST", action, body)
        return self.read(lambda: wire.unpack(answer))

    def read(self, reader: Callable[[], Result]) -> Result:
        """What ``reader`` makes of an answer; a malformed one is the server's error."""
        try:
            return reader()
        except wire.WireError as error:
            raise self.error(f"its answer is not what was asked for: {error}") from error

    def error(self, reason: str) -> RolloutError:
        """An error that names the server."""
        return RolloutError(f"the rollout server {self.address}: {reason}")

    def close(self) -> None:
        """End the connection; the next question opens another."""
        self._connection.close()

    def _ask(self, method: str, action: str, body: wire.Body) -> bytes:
        choice = self._choice
        for attempt in range(choice.tries):
            try:
                return self._once(method, action, body)
            except _LOST as error:
                self._connection.close()
                if attempt + 1 == choice.tries:
                    told = f"no connection in {choice.tries} tries at {action} ({type(error).__name__})"
                    raise self.error(told) from error
                time.sleep(choice.pause_s * 2**attempt)
            except TimeoutError as error:
                self._connection.close()
                raise self.error(f"no answer to {action} in {choice.timeout_s:g} s") from error
            except OSError as error:
                self._connection.close()
                raise self.error(f"it cannot be reached: {error.strerror or type(error).__name__}") from error
        raise ValueError("a server must be tried at least once")

    def _once(self, method: str, action: str, body: wire.Body) -> bytes:
        headers = self._headers | {"Content-Length": str(sum(part.nbytes for part in body))}
        self._connection.request(method, f"/{action}", body, headers)
        response = self._connection.getresponse()
        length = response.length
        if length is None or length > _LARGEST_ANSWER_BYTES:
            self._connection.close()
            raise self.error(f"its answer to {action} has no length, or is too large")
        answer = response.read()
        if response.status != http.client.OK:
            raise self.error(f"{_reason(answer)} (HTTP {response.status} to {action})")
        return answer


def _reason(answer: bytes) -> str:
    """Why a server refused, on one line."""
    try:
        told = json.loads(answer[: 1 << 16])["error"]
    except (ValueError, KeyError, TypeError):
        told = "it refused without a reason that can be read"
    return " ".join(str(told).split())[:_LONGEST_REASON]
