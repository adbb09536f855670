"""A rollout server: one engine behind HTTP, for trainers on other processes or hosts.

It listens on the loopback address unless told otherwise, and on any other only with a shared secret in the variable
``QOQ_SERVER_TOKEN``, which the trainer must then have too. The secret is sent as it is: between hosts use a private
network or an encrypting proxy. ``qoq-train serve MODEL`` starts one.
"""

from __future__ import annotations

import hmac
import json
import os
import signal
import socket
import socketserver
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from qoq_data.errors import UsageError
from qoq_train.hosts import is_loopback
from qoq_train.rollout import wire
from qoq_train.rollout.service import Refused, Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from qoq_train.models.loading import ModelChoice
    from qoq_train.rollout.vllm_engine import VllmChoice

TOKEN_VARIABLE: Final = "QOQ_SERVER_TOKEN"  # noqa: S105  (a variable's name)
_SHORTEST_TOKEN: Final = 16
_BODIES: Final = 4  # requests whose body is held at one time; others wait
_SOCKET_TIMEOUT_S: Final = 600.0
_DRAINED_BYTES: Final = 1 << 20
_DRAIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server listens; port 0 takes one that is free."""

    host: str = "127.0.0.1"
    port: int = 8600

    def check(self, token: str | None) -> None:
        """Refuse what would let anyone on a network use the engine.

        Raises:
            UsageError: not the loopback address and no secret, or one that is short or not plain letters.
        """
        if token is not None and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
            raise UsageError(f"{TOKEN_VARIABLE} must be at least {_SHORTEST_TOKEN} printable ASCII characters.")
        if token is None and not is_loopback(self.host):
            raise UsageError(
                f"A server on {self.host} can be reached by others: set {TOKEN_VARIABLE} to a long secret here and "
                "where the trainer runs."
            )


class RolloutServer(ThreadingHTTPServer):
    """A service on an address. ``serve_forever`` answers until ``shutdown``; ``server_close`` frees the address."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: ServerAddress, service: Service, token: str | None) -> None:
        address.check(token)
        self.service, self.token = service, token
        self.bodies = threading.BoundedSemaphore(_BODIES)
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            super().__init__((address.host, address.port), _Handler)
        except OSError as error:
            raise UsageError(f"The server cannot listen on {address.host}:{address.port}: {error.strerror}.") from error

    @property
    def address(self) -> str:
        """The address as a trainer's recipe writes it."""
        host, port = self.server_address[0], self.server_address[1]
        return f"[{host!s}]:{port}" if self.address_family == socket.AF_INET6 else f"{host!s}:{port}"

    def server_bind(self) -> None:
        """Bind without asking a name server what this host is called, which can take long and is not needed."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A peer that goes away costs one line and not a traceback."""
        told = f"rollout server: a connection ended by {type(sys.exception()).__name__}"
        sys.stderr.write(f"{told}\n")


class _Handler(BaseHTTPRequestHandler):
    """Reads one request, hands it to the service and writes the answer."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "qoq-rollout", ""
    timeout = _SOCKET_TIMEOUT_S
    disable_nagle_algorithm = True
    server: RolloutServer

    _unread = 0  # bytes of the body that were told and not read

    def do_GET(self) -> None:
        self._answer(self._facts, "application/json")

    def do_POST(self) -> None:
        self._answer(self._action, wire.CONTENT_TYPE)

    def _facts(self) -> wire.Body:
        if self.path != "/facts":
            raise Refused(404, f"there is nothing at {self.path[:64]!r}")
        return [memoryview(json.dumps(self.server.service.facts()).encode())]

    def _action(self) -> wire.Body:
        service, action = self.server.service, self.path.removeprefix("/")
        if not service.knows(action):
            raise Refused(404, f"there is nothing at {self.path[:64]!r}")
        if self.headers.get("Content-Type") != wire.CONTENT_TYPE:
            raise Refused(415, f"the body must be {wire.CONTENT_TYPE}")
        length = self._body_length()
        if length is None:
            raise Refused(411, "the length of the body must be told")
        if length > service.body_limit:
            raise Refused(413, f"the body is larger than {service.body_limit} bytes")
        with self.server.bodies:
            self._unread = 0
            body = self.rfile.read(length)
            if len(body) < length:
                raise Refused(400, f"the body ended after {len(body)} of {length} bytes")
            return service.answer(action, body)

    def _body_length(self) -> int | None:
        told = self.headers.get("Content-Length", "")
        plain = told.isascii() and told.isdigit() and len(told) <= 18
        return int(told) if plain and not self.headers.get("Transfer-Encoding") else None

    def _answer(self, make: Callable[[], wire.Body], kind: str) -> None:
        self._unread = self._body_length() or 0
        try:
            self._check_token()
            status, body = 200, make()
        except Refused as refusal:
            status, kind = refusal.status, "application/json"
            body = [memoryview(json.dumps({"error": str(refusal)}).encode())]
            self.close_connection |= self.command == "POST"  # part of the body may not have been read
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(sum(part.nbytes for part in body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        for part in body:
            self.wfile.write(part)
        if self._unread:
            self._drain()

    def _drain(self) -> None:
        """Read some of a refused body, else the connection is reset and a peer that still writes misses the answer."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_DRAIN_S)
            self.rfile.read(min(self._unread, _DRAINED_BYTES))

    def _check_token(self) -> None:
        if self.server.token is None:
            return
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(given, f"Bearer {self.server.token}".encode()):
            raise Refused(401, f"the secret in {TOKEN_VARIABLE} is not the server's")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: a line a request would be noise."""


def token_of_environment() -> str | None:
    """The shared secret, None where there is none."""
    return os.environ.get(TOKEN_VARIABLE) or None


def start_service(model: ModelChoice, choice: VllmChoice) -> Service:
    """vLLM with a model, as a service. The model's weights stay on disk until a trainer sends its own.

    Raises:
        UsageError: there is no such model.
        MissingExtraError: vLLM is not installed.
    """
    from dataclasses import asdict, replace

    from qoq_train.models.loading import load_policy, transformers_model
    from qoq_train.rollout.model_facts import model_facts
    from qoq_train.rollout.vllm_engine import VllmEngine

    loaded = load_policy(model)
    policy = replace(loaded, model=loaded.model.to("meta"))
    facts = {"model": model_facts(policy), "limits": asdict(choice)}
    return Service(lambda: VllmEngine(policy, choice), transformers_model(policy.model).state_dict(), facts)


def serve(model: ModelChoice, choice: VllmChoice, address: ServerAddress, say: Callable[[str], None]) -> None:
    """Serve until the process is told to stop (SIGTERM or SIGINT); ``say`` is given the address once it answers.

    Raises:
        UsageError: the model or the address cannot be served.
    """
    token = token_of_environment()
    address.check(token)
    service = start_service(model, choice)
    try:
        with RolloutServer(address, service, token) as server:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
            say(f"serving {model.path} at {server.address}")
            server.serve_forever()
    finally:
        service.close()
