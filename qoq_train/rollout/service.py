"""What a rollout server does with the messages it is given, whatever engine it holds and however they came.

One engine, used from one thread. Its weights are a numbered version of one trainer's run; what is asked of another
version is refused, so no completion is ever drawn from weights that the trainer does not hold.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Full, Queue
from typing import Any, Final, TypeVar

import torch

from qoq_train.rollout import RolloutEngine, wire

Result = TypeVar("Result")
Pairs = list[tuple[str, torch.Tensor]]

_LEAST_BODY_BYTES: Final = 320 << 20
_WATCH_S: Final = 0.5  # between looks at whether an engine that takes no more weights has failed


class Refused(Exception):  # noqa: N818  (it is an answer, and no error of the server's)
    """What is asked cannot be done as asked; ``status`` is HTTP's number for it."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Version:
    """The weights of a run, numbered by its trainer."""

    run: str
    number: int

    @classmethod
    def of_message(cls, message: Mapping[str, Any]) -> Version:
        """The version that a message names."""
        return cls(wire.field(message, "run", str), wire.field(message, "version", int))

    def to_message(self) -> dict[str, Any]:
        """The version as part of a message."""
        return {"run": self.run, "version": self.number}


class _Abandoned(Exception):  # noqa: N818
    """The rest of an update will not come."""


@dataclass(slots=True, eq=False)
class _Update:
    """Weights on their way: chunks go in by number, and come out as the iterator that the engine reads."""

    version: Version
    chunks: Queue[Pairs | _Abandoned | None] = field(default_factory=lambda: Queue(1))
    taken: int = 0
    names: set[str] = field(default_factory=set)
    loaded: Future[None] | None = None

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        while (chunk := self.chunks.get()) is not None:
            if isinstance(chunk, _Abandoned):
                raise chunk
            yield from chunk

    def put(self, chunk: Pairs | _Abandoned | None) -> None:
        """Hand a chunk on, unless the engine has ended before it: then its error is raised."""
        assert self.loaded is not None  # noqa: S101
        while True:
            if self.loaded.done():
                result(self.loaded)
                raise Refused(409, "the engine took no more weights")
            try:
                return self.chunks.put(chunk, timeout=_WATCH_S)
            except Full:
                continue


class Service:
    """An engine behind messages.

    ``start`` makes the engine, in the thread that will use it. ``weights`` are all of its model's by name, of which
    only shape and kind are looked at: they may be on torch's meta device. ``facts`` are told to whoever asks, so that
    a trainer can see whether the server's model is its own.
    """

    def __init__(
        self,
        start: Callable[[], RolloutEngine],
        weights: Mapping[str, torch.Tensor],
        facts: Mapping[str, Any],
    ) -> None:
        self._weights = {name: (tuple(one.shape), one.is_floating_point()) for name, one in weights.items()}
        self._told = dict(facts)
        largest = max((one.numel() for one in weights.values()), default=0)
        self.body_limit = max(_LEAST_BODY_BYTES, 4 * largest + (1 << 20))
        self._lock = threading.Lock()  # of the version and the update
        self._held: Version | None = None
        self._update: _Update | None = None
        self._thread = ThreadPoolExecutor(1, "engine")
        self._engine = self._thread.submit(start).result()
        self._actions: dict[str, Callable[[wire.Message, wire.Tensors], wire.Body]] = {
            "generate": self._generate,
            "score": self._score,
            "weights/begin": self._begin,
            "weights/chunk": self._chunk,
            "weights/finish": self._finish,
        }

    def facts(self) -> dict[str, Any]:
        """What the server is, and which weights it holds."""
        held = self._held
        told = {"protocol": wire.PROTOCOL, "body_limit": self.body_limit, "tensors": len(self._weights)}
        return {**self._told, **told, "holds": None if held is None else [held.run, held.number]}

    def knows(self, action: str) -> bool:
        """Whether there is such an action."""
        return action in self._actions

    def answer(self, action: str, body: bytes) -> wire.Body:
        """The answer to a message.

        Raises:
            Refused: it cannot be read, is of another version, or the engine failed at it.
        """
        try:
            return self._actions[action](*wire.unpack(body))
        except wire.WireError as error:
            raise Refused(400, str(error)) from error

    def close(self) -> None:
        """End an update that is under way, then the engine."""
        with self._lock:
            self._abandon()
        self._thread.submit(self._engine.close).result()
        self._thread.shutdown()

    def _generate(self, message: wire.Message, tensors: wire.Tensors) -> wire.Body:
        version, sampling = Version.of_message(message), wire.unpack_sampling(message)
        prompts = wire.unpack_prompts(message, tensors)
        drawn = self._under(version, lambda: self._engine.generate(prompts, sampling))
        told, found = wire.pack_completions(drawn)
        return wire.pack(version.to_message() | told, found)

    def _score(self, message: wire.Message, tensors: wire.Tensors) -> wire.Body:
        version, prompts = Version.of_message(message), wire.unpack_prompts(message, tensors)
        completions = wire.unpack_lists(tensors, "completions", torch.int64)
        if len(completions) != len(prompts):
            raise wire.WireError(f"{len(prompts)} prompts, and {len(completions)} completions")
        values = self._under(version, lambda: self._engine.log_probabilities(prompts, completions))
        return wire.pack(version.to_message(), wire.pack_lists("values", values, torch.float64))

    def _under(self, version: Version, call: Callable[[], Result]) -> Result:
        """What the engine says, if it holds this version when its turn has come."""

        def checked() -> Result:
            self._require(version)
            return call()

        self._require(version)
        return result(self._thread.submit(checked))

    def _require(self, version: Version) -> None:
        if self._held != version:
            held = (
                "no weights" if self._held is None else f"version {self._held.number} of {_whose(self._held, version)}"
            )
            raise Refused(409, f"weights of version {version.number} were asked for, and the server holds {held}")

    def _begin(self, message: wire.Message, _: wire.Tensors) -> wire.Body:
        version = Version.of_message(message)
        with self._lock:
            self._abandon()
            self._held = None
            update = _Update(version)
            update.loaded = self._thread.submit(self._load, update)
            self._update = update
        return wire.pack(version.to_message())

    def _load(self, update: _Update) -> None:
        self._engine.load_weights(update.weights())

    def _chunk(self, message: wire.Message, tensors: wire.Tensors) -> wire.Body:
        version, number = Version.of_message(message), wire.field(message, "chunk", int)
        with self._lock:
            update = self._open(version)
            if number == update.taken - 1:  # the answer to it was lost on the way
                return wire.pack(version.to_message())
            if number != update.taken:
                raise Refused(409, f"chunk {number} of the weights came where {update.taken} was due")
            self._check(update, tensors)
            update.put(list(tensors.items()))
            update.taken += 1
            update.names |= set(tensors)
        return wire.pack(version.to_message())

    def _check(self, update: _Update, tensors: wire.Tensors) -> None:
        """Look at every weight before the engine sees it: half a layer of wrong shapes would break it."""
        for name, tensor in tensors.items():
            if name not in self._weights:
                raise Refused(422, f"the model has no weight {name}")
            if name in update.names:
                raise Refused(422, f"the weight {name} came twice")
            if (tuple(tensor.shape), tensor.is_floating_point()) != self._weights[name]:
                raise Refused(422, f"the weight {name} is {tensor.dtype} {tuple(tensor.shape)}")

    def _finish(self, message: wire.Message, _: wire.Tensors) -> wire.Body:
        version = Version.of_message(message)
        with self._lock:
            if self._update is None and self._held == version:
                return wire.pack(version.to_message())
            update = self._open(version)
            missing = sorted(self._weights.keys() - update.names)
            if missing:
                raise Refused(422, f"{len(missing)} weights never came, the first {missing[0]}")
            update.put(None)
            assert update.loaded is not None  # noqa: S101
            self._update = None
            result(update.loaded)
            self._held = version
        return wire.pack(version.to_message())

    def _open(self, version: Version) -> _Update:
        if self._update is None or self._update.version != version:
            raise Refused(409, f"no update to version {version.number} is under way")
        return self._update

    def _abandon(self) -> None:
        """Let the engine give up on an update whose rest did not come."""
        update, self._update = self._update, None
        if update is None or update.loaded is None:
            return
        while not update.loaded.done():
            try:
                update.chunks.put(_Abandoned(), timeout=_WATCH_S)
                break
            except Full:
                continue
        update.loaded.exception()


def result(future: Future[Result]) -> Result:
    """A call's result; an error of any kind is told as a refusal, since the server itself goes on."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Refused):
        raise error
    raise Refused(500, f"{type(error).__name__}: {error}") from error


def _whose(held: Version, asked: Version) -> str:
    return "the same run" if held.run == asked.run else "another run"
