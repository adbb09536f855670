"""A client of any OpenAI-compatible endpoint: questions in, texts out, in their order whatever the concurrency.

Every question ends in one of three ways: answered, refused by the provider's content filter, or failed for good.
What a server says of an error is not repeated, since it may hold a patient's text or the key; its code is.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from qoq_data.errors import UsageError
from qoq_train.endpoint.replies import Answered, EndpointError, Failed, Refused, Reply, TryAgainError, read_reply
from qoq_train.hosts import is_loopback

__all__ = [
    "Answered", "Clock", "Destination", "Endpoint", "EndpointChoice", "EndpointError", "Failed", "Question", "Refused",
    "Reply", "read_key",
]  # fmt: skip

_LARGEST_REPLY_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Destination:
    """Where questions go: ``path`` of the chat completions on a host."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def of_url(cls, url: str) -> Destination:
        """From a base address, such as ``http://127.0.0.1:8000`` or ``https://host/v1``.

        ``/v1`` is put in where the address has no path. Raises ``UsageError`` for what is no such address, and for
        plain http to another machine.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UsageError("The endpoint's address cannot be read; write https://host/v1.") from error
        if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
            raise UsageError("The endpoint's address must be http:// or https://, a host and a path, without a user.")
        if parts.query or parts.fragment or not re.fullmatch(r"[A-Za-z0-9._~/%-]*", parts.path):
            raise UsageError("The endpoint's address has parts that do not belong to one; write https://host/v1.")
        path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
        secure = parts.scheme == "https"
        found = cls(secure, host, port or (443 if secure else 80), f"{path}/chat/completions")
        if not secure and not found.is_loopback:
            raise UsageError(f"The endpoint {host} is another machine: use https, so that nobody on the way can read.")
        return found

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent stays on this machine."""
        return is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class EndpointChoice:
    """Which model, how it draws, and how patiently it is asked.

    ``timeout_s`` bounds a try, ``tries`` a question, ``most_failures`` the questions that may fail for good.
    Between tries the pause doubles from ``first_pause_s`` to ``longest_pause_s``, or is what the server asks for up to
    ``longest_wait_s``. ``limit_key`` is the name under which the endpoint takes the limit of tokens; ``seed`` None
    sends none.
    """

    model: str
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    concurrency: int = 8
    timeout_s: float = 300.0
    tries: int = 6
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    longest_wait_s: float = 300.0
    most_failures: int = 20
    limit_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    def __post_init__(self) -> None:
        whole = {"max_tokens": self.max_tokens, "concurrency": self.concurrency, "tries": self.tries}
        for name, value in whole.items():
            if value < 1:
                raise UsageError(f"{name} of an endpoint is {value}; it must be 1 or more.")
        if not self.model or self.timeout_s <= 0 or self.most_failures < 0:
            raise UsageError("An endpoint needs a model's name, a timeout above 0 and no negative limit of failures.")


@dataclass(frozen=True, slots=True)
class Question:
    """One row as it is asked: its pictures as PNG, in their order, and then its text."""

    row_id: str
    text: str
    pictures: tuple[bytes, ...] = ()
    system: str = ""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the client sees it: seconds that only rise, seconds since 1970, and a wait (None: a real one)."""

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], object] | None = None


def read_key(variable: str = "OPENAI_API_KEY") -> str | None:
    """The key in an environment variable, None where there is none; it is never part of a message.

    Raises ``UsageError`` for one that no header can hold.
    """
    key = os.environ.get(variable, "").strip()
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise UsageError(f"The key in {variable} holds blanks or marks that no key has.")
    return key or None


class Endpoint:
    """An endpoint that answers questions."""

    def __init__(
        self, destination: Destination, choice: EndpointChoice, key: str | None = None, clock: Clock = Clock()
    ) -> None:
        self.destination, self.choice = destination, choice
        self._authorization = {"Authorization": f"Bearer {key}"} if key else {}
        self._clock = clock
        self._stopped = threading.Event()
        self._sleep = clock.sleep or self._stopped.wait

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        """Each question with its reply, in the order of the questions; some are read ahead, ``concurrency`` asked.

        Raises:
            UsageError: the endpoint refuses whatever is asked (key, model or address).
            EndpointError: more questions failed than ``most_failures``.
        """
        failures = 0
        self._stopped.clear()
        waiting: deque[tuple[Question, Future[Reply]]] = deque()
        source = iter(questions)
        pool = ThreadPoolExecutor(self.choice.concurrency, thread_name_prefix="endpoint")
        try:
            while True:
                while len(waiting) < 2 * self.choice.concurrency and (following := next(source, None)) is not None:
                    waiting.append((following, pool.submit(self.ask, following)))
                if not waiting:
                    return
                question, future = waiting.popleft()
                reply = future.result()
                if isinstance(reply, Failed):
                    failures += 1
                    if failures > self.choice.most_failures:
                        raise EndpointError(
                            f"{failures} questions failed for good, the last {question.row_id} ({reply.reason}). The "
                            f"endpoint may be down or overloaded; {self.choice.most_failures} failures are allowed."
                        )
                yield question, reply
        finally:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)

    def ask(self, question: Question) -> Reply:
        """One question, tried again where that can help; raises ``UsageError`` where nothing asked can be answered."""
        body = self._body(question)
        reason = ""
        for number in range(self.choice.tries):
            try:
                return self._try(body)
            except TryAgainError as fault:
                reason = fault.reason
                wait_s = self._pause_s(question.row_id, number) if fault.wait_s is None else fault.wait_s
            if wait_s > self.choice.longest_wait_s:
                return Failed(f"{reason}, and to be asked again only after {wait_s:.0f} s")
            if number + 1 < self.choice.tries:
                self._sleep(wait_s)
                if self._stopped.is_set():
                    break
        return Failed(f"{reason}, in {self.choice.tries} tries")

    def _body(self, question: Question) -> bytes:
        choice = self.choice
        content: Any = question.text
        if question.pictures:
            urls = [f"data:image/png;base64,{base64.b64encode(picture).decode()}" for picture in question.pictures]
            content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            content.append({"type": "text", "text": question.text})
        messages = [{"role": "system", "content": question.system}] if question.system else []
        asked: dict[str, Any] = {
            "model": choice.model,
            "messages": [*messages, {"role": "user", "content": content}],
            choice.limit_key: choice.max_tokens,
            "temperature": choice.temperature,
            "top_p": choice.top_p,
            "n": 1,
        }
        if choice.seed is not None:
            asked["seed"] = _number(f"{choice.seed}\n{question.row_id}") >> 33
        return json.dumps(asked).encode()

    def _try(self, body: bytes) -> Reply:
        where = self.destination
        kind = http.client.HTTPSConnection if where.secure else http.client.HTTPConnection
        connection = kind(where.host, where.port, timeout=self.choice.timeout_s)
        try:
            connection.request("POST", where.path, body, {"Content-Type": "application/json", **self._authorization})
            with connection.getresponse() as response:
                data = self._read(response)
        except TimeoutError as error:
            raise TryAgainError(f"no reply within {self.choice.timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise TryAgainError(f"the connection failed ({type(error).__name__})") from error
        finally:
            connection.close()
        return read_reply(response.status, response.headers.get("Retry-After"), data, self._clock.now)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        end = self._clock.monotonic() + self.choice.timeout_s
        parts, size = [], 0
        while part := response.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if size > _LARGEST_REPLY_BYTES:
                raise http.client.HTTPException("too long a reply")
            if self._clock.monotonic() > end:
                raise TimeoutError
        return b"".join(parts)

    def _pause_s(self, row_id: str, number: int) -> float:
        """Doubling, and shortened by up to a half by row and try, so that not all come back at once."""
        pause = min(self.choice.longest_pause_s, self.choice.first_pause_s * 2.0**number)
        return pause * (1 - _number(f"{row_id}\n{number}") / 2**65)


def _number(text: str) -> int:
    """A number below 2^64 that follows from a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
