"""Rollout by vLLM servers of other processes or hosts, as ``qoq-train serve`` starts them: weights over, ids back.

What is drawn is what one engine in the trainer's process would draw: each row's seeds are its own, and all prompts of
a row go to one server, so that it counts their occurrences as one engine would.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, TypeVar

from qoq_data.errors import UsageError
from qoq_train.models.loading import Policy, transformers_model
from qoq_train.models.weights import check_complete, engine_weight_names
from qoq_train.rollout import Completion, Prompt, RolloutError, Sampling, weight_chunks, wire
from qoq_train.rollout.connection import ServerChoice, ServerConnection
from qoq_train.rollout.model_facts import differences, model_facts
from qoq_train.rollout.serve import token_of_environment
from qoq_train.rollout.service import Version

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")

BATCH_BYTES: Final = 256 << 20
"""Prompts with their pictures that are asked of a server at one time."""

_PROMPT_BYTES: Final = 1024  # of a prompt in a message, besides its pixels and ids


class VllmServerEngine:
    """A ``RolloutEngine`` over servers, at ``addresses`` such as ``10.0.0.5:8600``, that hold the policy's model.

    ``run`` names the trainer whose weights they hold; None makes a name up. Of several ranks, all are given the same
    name and one has ``sends_weights``; the others go through the weights with it, and wait for it before they draw.

    Raises:
        UsageError: no address, a bad one or one twice, or a server that holds another model.
        RolloutError: a server cannot be reached or refuses.
    """

    def __init__(
        self,
        policy: Policy,
        addresses: Sequence[str],
        choice: ServerChoice = ServerChoice(),  # noqa: B008  (it is frozen)
        *,
        run: str | None = None,
        sends_weights: bool = True,
    ) -> None:
        if not addresses or len(set(addresses)) < len(addresses):
            raise UsageError("rollout.servers must name at least one server, and none twice.")
        self._policy = policy
        self._names = engine_weight_names(transformers_model(policy.model).config)
        self._version = Version(secrets.token_hex(8) if run is None else run, 0)
        self._sends_weights = sends_weights
        token = token_of_environment()
        self._servers = [ServerConnection(address, token, choice) for address in addresses]
        self._threads = ThreadPoolExecutor(len(addresses), "rollout")
        with ExitStack() as undo:
            undo.callback(self.close)
            own = model_facts(policy)
            self._body_limit = min(self._check(*told, own) for told in self._of_all(ServerConnection.facts))
            undo.pop_all()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """As ``RolloutEngine``.

        Raises:
            RolloutError: weights were never loaded, or a server failed, took too long, or holds another version.
        """
        if self._version.number == 0:
            raise RolloutError("the servers have not been given the policy's weights yet; call load_weights first")
        shared = self._version.to_message() | wire.pack_sampling(sampling)

        def ask(server: ServerConnection, places: Sequence[int]) -> list[list[Completion]]:
            told, tensors = wire.pack_prompts([prompts[place] for place in places])
            message, found = server.post("generate", wire.pack(shared | told, tensors))
            self._require(server, message)
            return server.read(
                lambda: wire.unpack_completions(message, found, prompts=len(places), completions=sampling.completions)
            )

        return self._spread(prompts, ask)

    def log_probabilities(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> list[list[float]]:
        """As ``RolloutEngine``.

        Raises:
            RolloutError: a server failed, took too long, or holds another version.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts, and {len(completions)} completions")

        def ask(server: ServerConnection, places: Sequence[int]) -> list[list[float]]:
            import torch

            told, tensors = wire.pack_prompts([prompts[place] for place in places])
            tensors |= wire.pack_lists("completions", [completions[place] for place in places], torch.int64)
            message, found = server.post("score", wire.pack(self._version.to_message() | told, tensors))
            self._require(server, message)
            values = server.read(lambda: wire.unpack_lists(found, "values", torch.float64))
            if [len(one) for one in values] != [len(completions[place]) for place in places]:
                raise server.error("its log-probabilities do not pair with the tokens that it was given")
            return values

        return self._spread(prompts, ask)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Send all weights to all servers at once, a chunk at a time, as the next version.

        Each server checks every name and shape and that all came, and empties its caches. At most two chunks are held
        here, and three by a server. After an error no server completes anything until a whole set has come.

        Raises:
            ValueError: a weight is missing, a tied head included, or is none of the model's.
            RolloutError: a server failed, took too long, or refused.
        """
        self._version = version = Version(self._version.run, self._version.number + 1)
        if not self._sends_weights:
            check_complete({name for name, _ in weights}, self._names)
            return
        self._post_all("weights/begin", wire.pack(version.to_message()))
        sent: set[str] = set()
        on_the_way: list[Future[object]] = []
        for number, chunk in enumerate(weight_chunks(weights)):
            names = {name for name, _ in chunk}
            check_complete(names | self._names, self._names)
            body = wire.pack_weights(version.to_message() | {"chunk": number}, chunk)
            _finish(on_the_way)
            on_the_way = self._start_all("weights/chunk", body)
            sent |= names
        _finish(on_the_way)
        check_complete(sent, self._names)
        self._post_all("weights/finish", wire.pack(version.to_message()))

    def sleep(self) -> None:
        """Nothing: a server's device is not the trainer's."""

    def close(self) -> None:
        """End the connections; the servers go on."""
        self._threads.shutdown()
        for server in self._servers:
            server.close()

    def _spread(
        self, prompts: Sequence[Prompt], ask: Callable[[ServerConnection, Sequence[int]], list[Result]]
    ) -> list[Result]:
        """What the servers say of their shares, in the order of the prompts."""
        shares = spread([prompt.row_id for prompt in prompts], len(self._servers))
        found: dict[int, Result] = {}

        def ask_all(server: ServerConnection, share: Sequence[int]) -> None:
            for places in batches(prompts, share, min(BATCH_BYTES, self._body_limit)):
                found.update(zip(places, ask(server, places), strict=True))

        _finish([self._threads.submit(ask_all, *one) for one in zip(self._servers, shares, strict=True)])
        return [found[place] for place in range(len(prompts))]

    def _check(self, server: ServerConnection, facts: dict[str, Any], own: dict[str, Any]) -> int:
        if facts.get("protocol") != wire.PROTOCOL:
            raise server.error(f"it speaks protocol {facts.get('protocol')!r}, and this trainer {wire.PROTOCOL}")
        limit = server.read(lambda: wire.field(facts, "body_limit", int))
        theirs = server.read(lambda: wire.field(facts, "model", dict))
        differing = differences(own, theirs)
        if differing or facts.get("tensors") != len(self._names):
            told = "; ".join(differing) or "number of weights"
            raise UsageError(f"The rollout server {server.address} holds another model than the trainer: {told}.")
        return int(limit)

    def _require(self, server: ServerConnection, message: wire.Message) -> None:
        if server.read(lambda: Version.of_message(message)) != self._version:
            raise server.error("it answered under another version of the weights than was asked for")

    def _of_all(self, call: Callable[[ServerConnection], Result]) -> list[tuple[ServerConnection, Result]]:
        running = [self._threads.submit(call, server) for server in self._servers]
        _finish(running)
        return [(server, one.result()) for server, one in zip(self._servers, running, strict=True)]

    def _start_all(self, action: str, body: wire.Body) -> list[Future[object]]:
        return [self._threads.submit(server.post, action, body) for server in self._servers]

    def _post_all(self, action: str, body: wire.Body) -> None:
        _finish(self._start_all(action, body))


def spread(row_ids: Sequence[str], servers: int) -> list[list[int]]:
    """Places of prompts for each server: distinct rows in turn, all prompts of a row to one server, in their order."""
    owner: dict[str, int] = {}
    shares: list[list[int]] = [[] for _ in range(servers)]
    for place, row_id in enumerate(row_ids):
        shares[owner.setdefault(row_id, len(owner) % servers)].append(place)
    return shares


def batches(prompts: Sequence[Prompt], share: Sequence[int], limit_bytes: int) -> Iterator[list[int]]:
    """A share in messages of at most so many bytes, prompts of one row never apart, since their seeds count them."""
    rows: dict[str, list[int]] = {}
    for place in share:
        rows.setdefault(prompts[place].row_id, []).append(place)
    held: list[int] = []
    size = 0
    for places in rows.values():
        added = sum(_size(prompts[place]) for place in places)
        if held and size + added > limit_bytes:
            yield held
            held, size = [], 0
        held += places
        size += added
    if held:
        yield held


def _size(prompt: Prompt) -> int:
    return _PROMPT_BYTES + 8 * len(prompt.token_ids) + sum(3 * one.width * one.height for one in prompt.pictures)


def _finish(running: Sequence[Future[Any]]) -> None:
    """Wait for all, then raise the first error in the order of the servers."""
    wait(running)
    for one in running:
        one.result()
