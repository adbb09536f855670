"""Rollout servers: their messages, what they refuse, how their client bears a bad network, and the same draws."""

from __future__ import annotations

import http.client
import importlib.util
import json
import math
import os
import random
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qoq_data.errors import UsageError
from qoq_train.models.loading import Policy
from qoq_train.models.weights import state_for_engine
from qoq_train.rollout import (
    Completion,
    Prompt,
    RolloutEngine,
    RolloutError,
    Sampling,
    largest_gap,
    seed_of_prompt,
    vllm_server,
    weight_chunks,
    wire,
)
from qoq_train.rollout.connection import ServerChoice, ServerConnection
from qoq_train.rollout.model_facts import differences, model_facts
from qoq_train.rollout.serve import TOKEN_VARIABLE, RolloutServer, ServerAddress
from qoq_train.rollout.service import Refused, Service
from qoq_train.rollout.vllm_engine import VllmChoice, VllmEngine
from qoq_train.rollout.vllm_server import VllmServerEngine, batches, spread
from tests.train.policies import COMPLETIONS, change, model_folder, policy_at, three_prompts

NEEDS_VLLM = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
TOKEN = "a long enough secret"
IMPATIENT = ServerChoice(timeout_s=20, tries=3, pause_s=0)
SAMPLING = Sampling(3, 6, seed=4)

Weights = Iterable[tuple[str, torch.Tensor]]


class Scripted:
    """An engine whose draws follow from the row's seed, and whose probabilities from its weights and pictures."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.size = 0.0
        self.fails_after: int | None = None
        self.closed = False

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        times: Counter[str] = Counter()
        drawn = []
        for prompt in prompts:
            rng = random.Random(seed_of_prompt(sampling.seed, prompt.row_id, times[prompt.row_id]))
            times[prompt.row_id] += 1
            drawn.append([self._one(rng, self._level(prompt), sampling) for _ in range(sampling.completions)])
        return drawn

    def _one(self, rng: random.Random, level: float, sampling: Sampling) -> Completion:
        ids = tuple(rng.randrange(100) for _ in range(rng.randint(1, sampling.max_tokens)))
        return Completion(ids, tuple(-rng.random() - level for _ in ids), rng.random() < 0.5)

    def _level(self, prompt: Prompt) -> float:
        pixels = sum(float(np.asarray(picture, dtype=np.float64).mean()) for picture in prompt.pictures)
        return pixels / 256 + self.size

    def load_weights(self, weights: Weights) -> None:
        self.weights = {}
        for number, (name, tensor) in enumerate(weights):
            if number == self.fails_after:
                self.fails_after = None
                raise RuntimeError("the device is gone")
            self.weights[name] = tensor.clone()
        self.size = math.fsum(float(weight.double().abs().mean()) for weight in self.weights.values())

    def log_probabilities(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> list[list[float]]:
        pairs = zip(prompts, completions, strict=True)
        return [[-self._level(prompt) - token for token in ids] for prompt, ids in pairs]

    def sleep(self) -> None:
        raise AssertionError("a server's engine is not put to sleep")

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return policy_at(model_folder("qwen2_5_vl", tmp_path_factory.mktemp("served") / "model"))


Serve = Callable[..., tuple[RolloutServer, Scripted]]


@pytest.fixture
def serve(policy: Policy) -> Iterator[Serve]:
    """Starts servers of scripted engines on free ports of the loopback address."""
    started: list[tuple[RolloutServer, threading.Thread]] = []

    def start(
        kind: type[Service] = Service, server_kind: type[RolloutServer] = RolloutServer, token: str | None = None,
        engine: RolloutEngine | None = None, **facts: Any,
    ) -> tuple[RolloutServer, Any]:  # fmt: skip
        scripted = engine or Scripted()
        told = {"model": model_facts(policy) | facts}
        service = kind(lambda: scripted, policy.model.state_dict(), told)
        server = server_kind(ServerAddress(port=0), service, token)
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        started.append((server, thread))
        return server, scripted

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()
        server.service.close()


@contextmanager
def client(policy: Policy, *servers: RolloutServer, **choices: Any) -> Iterator[VllmServerEngine]:
    engine = VllmServerEngine(policy, [server.address for server in servers], IMPATIENT, **choices)
    try:
        yield engine
    finally:
        engine.close()


def ask(server: RolloutServer, method: str, path: str, body: Any = b"", **headers: str) -> tuple[int, str]:
    """One raw request, its status and why it was refused."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    try:
        connection.request(method, path, body, {"Content-Type": wire.CONTENT_TYPE, **headers})
        response = connection.getresponse()
        answer = response.read()
        return response.status, json.loads(answer)["error"] if response.status != 200 else ""
    finally:
        connection.close()


# Messages


def packed(message: wire.Message, tensors: Any = None) -> bytes:
    """A whole container."""
    return b"".join(wire.pack(message, tensors or {}))


@given(st.lists(st.lists(st.integers(-(2**40), 2**40), max_size=5), max_size=6))
def test_lists_come_back(lists: list[list[int]]) -> None:
    _, tensors = wire.unpack(packed({}, wire.pack_lists("ids", lists, torch.int64)))
    assert wire.unpack_lists(tensors, "ids", torch.int64) == lists


def test_pictures_and_numbers_come_back_to_the_last_bit(policy: Policy) -> None:
    prompts = three_prompts(policy)
    back = wire.unpack_prompts(*wire.unpack(packed(*wire.pack_prompts(prompts))))
    assert [(p.row_id, p.token_ids) for p in back] == [(p.row_id, p.token_ids) for p in prompts]
    assert [[one.tobytes() for one in p.pictures] for p in back] == [[o.tobytes() for o in p.pictures] for p in prompts]
    assert [[one.size for one in p.pictures] for p in back] == [[one.size for one in p.pictures] for p in prompts]
    drawn = [[Completion((7,), (-0.1 - 2**-50,), stopped=True), Completion((), (), stopped=False)]]
    message, tensors = wire.unpack(packed(*wire.pack_completions(drawn)))
    assert wire.unpack_completions(message, tensors, prompts=1, completions=2) == drawn
    assert wire.unpack_sampling(wire.pack_sampling(SAMPLING)) == SAMPLING
    with pytest.raises(ValueError, match="row: a picture has pixels of mode L"):
        wire.pack_prompts([Prompt("row", (1,), (Image.new("L", (4, 4)),))])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3), (1,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_the_library_reads_what_is_sent(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensors = {"a": torch.ones(3, dtype=torch.bool), "b": torch.randint(0, 2, shape).to(dtype), "c": torch.ones(1)}
    message, back = wire.unpack(packed({"x": "é"}, tensors))
    assert message == {"x": "é"}
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) and back[name].dtype == tensors[name].dtype for name in back)


def test_tied_and_turned_weights_come_back_as_they_are() -> None:
    whole = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    _, back = wire.unpack(
        b"".join(wire.pack_weights({}, [("a", whole), ("tied", whole), ("turned", whole.T), ("part", whole[1])]))
    )
    assert {name: tensor.tolist() for name, tensor in back.items()} == {
        "a": whole.tolist(), "tied": whole.tolist(), "turned": whole.T.tolist(), "part": whole[1].tolist(),
    }  # fmt: skip
    assert back["turned"].dtype == torch.bfloat16
    with pytest.raises(ValueError, match="a is of torch.complex64, which is not sent"):
        wire.pack({}, {"a": torch.zeros(1, dtype=torch.complex64)})
    with pytest.raises(ValueError, match="twice"):
        wire.pack_weights({}, [("a", whole), ("a", whole)])


def container(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def message_text(text: str) -> bytes:
    return container({"__metadata__": {"message": text}})


@pytest.mark.parametrize(
    "body",
    [
        b"", b"1234567", b"\xff" * 64, container(b"{"), container({}), container([]), message_text("[1]"),
        message_text("x"), message_text("[" * 100_000), container({"__metadata__": {}}),
        container({"a": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 4]}}, b"1234"),
        container({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}, b"1234"),
        container({"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}, b"12345678"),
        (1 << 63).to_bytes(8, "little") + b"{}",
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.unpack(body)


def test_a_message_that_is_cut_anywhere_is_refused(policy: Policy) -> None:
    body = packed(*wire.pack_prompts(three_prompts(policy)))
    for end in (*range(0, len(body), len(body) // 50), len(body) - 1):
        with pytest.raises(wire.WireError):
            wire.unpack(body[:end])


def changed(message: wire.Message, tensors: wire.Tensors, **values: Any) -> tuple[wire.Message, wire.Tensors]:
    for name, value in values.items():
        (tensors if name in tensors else message)[name] = value
    return message, tensors


@pytest.mark.parametrize(
    "values",
    [
        {"row_ids": ["a"]}, {"row_ids": [1, "b", "c"]}, {"row_ids": "abc"}, {"pictures": [2, 0, 2]},
        {"pictures": [4, 0, -1]}, {"pictures": [True, 1, 1]}, {"token_ids": torch.zeros(3)},
        {"token_ids_lengths": torch.tensor([1, 2, 3])}, {"token_ids_lengths": torch.zeros(2, 2, dtype=torch.int64)},
        {"picture0": torch.zeros(2, 2, 3)}, {"picture0": torch.zeros(2, 2, 4, dtype=torch.uint8)},
        {"picture0": torch.zeros(0, 2, 3, dtype=torch.uint8)},
    ],
)  # fmt: skip
def test_prompts_that_do_not_pair_are_refused(policy: Policy, values: dict[str, Any]) -> None:
    with pytest.raises(wire.WireError):
        wire.unpack_prompts(*changed(*wire.pack_prompts(three_prompts(policy)), **values))


@pytest.mark.parametrize(
    "values",
    [{"completions": 0}, {"completions": True}, {"max_tokens": 1 << 40}, {"temperature": -1}, {"top_p": 0},
     {"top_p": "1"}, {"seed": 1.5}, {"temperature": float("nan")}],
)  # fmt: skip
def test_sampling_out_of_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(wire.WireError):
        wire.unpack_sampling(wire.pack_sampling(SAMPLING) | values)


@pytest.mark.parametrize(
    "values",
    [{"groups": [1]}, {"groups": [2, 2]}, {"log_probabilities_lengths": torch.tensor([2, 0])},
     {"stopped": torch.tensor([True])}, {"log_probabilities": torch.tensor([float("nan"), 0], dtype=torch.float64)}],
)  # fmt: skip
def test_r11_completions_that_do_not_pair_are_refused(values: dict[str, Any]) -> None:
    drawn = [[Completion((1,), (-1.0,), stopped=True), Completion((2,), (-2.0,), stopped=False)]]
    with pytest.raises(wire.WireError):
        wire.unpack_completions(*changed(*wire.pack_completions(drawn), **values), prompts=1, completions=2)


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 20))
def test_chunks_keep_all_weights_in_order_and_under_the_limit(sizes: list[int], limit: int) -> None:
    weights = [(str(number), torch.zeros(size)) for number, size in enumerate(sizes)]
    chunks = list(weight_chunks(iter(weights), 4 * limit))
    assert [name for chunk in chunks for name, _ in chunk] == [name for name, _ in weights]
    assert all(len(chunk) == 1 or sum(t.numel() for _, t in chunk) <= limit for chunk in chunks)
    assert all(chunks)


# How prompts are shared out


def test_a_row_stays_with_one_server_in_its_order() -> None:
    assert spread(["a", "b", "a", "c", "b", "d"], 2) == [[0, 2, 3], [1, 4, 5]]
    assert spread([], 3) == [[], [], []]
    prompts = [Prompt(row, (1,)) for row in "abacbd"]
    assert list(batches(prompts, range(6), 1)) == [[0, 2], [1, 4], [3], [5]]
    assert list(batches(prompts, range(6), 1 << 30)) == [[0, 2, 1, 4, 3, 5]]


@pytest.mark.parametrize("limit", [1, 1 << 30])
def test_r05_draws_do_not_depend_on_the_servers(
    policy: Policy, serve: Serve, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_server, "BATCH_BYTES", limit)
    a, b, c = three_prompts(policy)
    prompts = [a, b, a, c, b, a]
    alone = Scripted()
    alone.load_weights(state_for_engine(policy.model))
    expected = alone.generate(prompts, SAMPLING)
    tokens = [[1, 2], [], [3], [4], [5, 6], [7]]
    for count in (1, 2, 3):
        with client(policy, *[serve()[0] for _ in range(count)]) as engine:
            engine.load_weights(state_for_engine(policy.model))
            assert engine.generate(prompts, SAMPLING) == expected
            assert engine.generate([], SAMPLING) == []
            assert engine.log_probabilities(prompts, tokens) == alone.log_probabilities(prompts, tokens)


# Weights and their versions


def test_r03_weights_go_to_all_servers_in_bounded_pieces(
    policy: Policy, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_server, "weight_chunks", partial(weight_chunks, limit_bytes=1 << 18))
    servers, engines = zip(*[serve() for _ in range(2)], strict=True)
    names = list(policy.model.state_dict())
    ahead = []

    def read() -> Iterator[tuple[str, torch.Tensor]]:
        for number, (name, tensor) in enumerate(state_for_engine(policy.model)):
            ahead.append(number - min(len(engine.weights) for engine in engines))
            yield name, tensor

    with client(policy, *servers) as engine:
        with pytest.raises(RolloutError, match="have not been given the policy's weights"):
            engine.generate(three_prompts(policy), SAMPLING)
        engine.load_weights(read())
    assert all(one.weights.keys() == set(names) for one in engines)
    own = policy.model.state_dict()
    assert all(torch.equal(one.weights[name], own[name]) for one in engines for name in names)
    assert max(ahead) < len(names) * 0.75


def test_a_head_that_is_left_out_is_refused_and_nothing_is_drawn_after(policy: Policy, serve: Serve) -> None:
    server, _ = serve()
    weights = dict(state_for_engine(policy.model))
    with client(policy, server) as engine:
        engine.load_weights(weights.items())
        engine.generate(three_prompts(policy), SAMPLING)
        headless = {name: tensor for name, tensor in weights.items() if name != "lm_head.weight"}
        for wrong in (headless, weights | {"other": torch.zeros(1)}):
            with pytest.raises(ValueError, match=r"lm_head.weight|unknown, the first other"):
                engine.load_weights(wrong.items())
            with pytest.raises(RolloutError, match=f"{server.address}: .* the server holds no weights"):
                engine.generate(three_prompts(policy), SAMPLING)
        engine.load_weights(weights.items())
        engine.generate(three_prompts(policy), SAMPLING)


def test_another_trainers_weights_are_refused(policy: Policy, serve: Serve) -> None:
    server, _ = serve()
    with client(policy, server) as first, client(policy, server) as second:
        first.load_weights(state_for_engine(policy.model))
        second.load_weights(state_for_engine(policy.model))
        with pytest.raises(RolloutError, match="version 1 were asked for, and the server holds version 1 of another"):
            first.generate(three_prompts(policy), SAMPLING)
        with pytest.raises(RolloutError, match="of another run"):
            first.log_probabilities(three_prompts(policy), [[1], [2], [3]])
        second.load_weights(state_for_engine(policy.model))
        assert server.service.facts()["holds"][1] == 2
    with (
        client(policy, server, run="shared") as sender,
        client(policy, server, run="shared", sends_weights=False) as rank,
    ):
        sender.load_weights(state_for_engine(policy.model))
        rank.load_weights(state_for_engine(policy.model))
        assert rank.generate(three_prompts(policy), SAMPLING) == sender.generate(three_prompts(policy), SAMPLING)
        sender.load_weights(state_for_engine(policy.model))
        with pytest.raises(RolloutError, match="version 1 were asked for, and the server holds version 2 of the same"):
            rank.generate(three_prompts(policy), SAMPLING)


def post(service: Service, action: str, message: wire.Message, tensors: Any = None) -> None:
    wire.unpack(b"".join(service.answer(action, packed({"run": "r", "version": 1} | message, tensors or {}))))


def test_an_update_takes_each_weight_once_and_whole() -> None:
    engine = Scripted()
    whole = {"a": torch.ones(2), "b": torch.ones(3, dtype=torch.bfloat16)}
    service = Service(lambda: engine, whole, {})
    try:
        post(service, "weights/begin", {})
        post(service, "weights/chunk", {"chunk": 0}, {"a": whole["a"]})
        post(service, "weights/chunk", {"chunk": 0}, {"a": whole["a"]})  # its answer was lost on the way
        for status, message, tensors in (
            (409, {"chunk": 2}, {"b": whole["b"]}),
            (409, {"chunk": 1, "version": 2}, {"b": whole["b"]}),
            (422, {"chunk": 1}, {"c": whole["b"]}),
            (422, {"chunk": 1}, {"a": whole["a"]}),
            (422, {"chunk": 1}, {"b": torch.ones(4)}),
            (422, {"chunk": 1}, {"b": torch.ones(3, dtype=torch.int64)}),
            (400, {"chunk": "1"}, {"b": whole["b"]}),
        ):
            with pytest.raises(Refused) as refused:
                post(service, "weights/chunk", message, tensors)
            assert refused.value.status == status
        with pytest.raises(Refused, match="1 weights never came, the first b"):
            post(service, "weights/finish", {})
        post(service, "weights/chunk", {"chunk": 1}, {"b": whole["b"]})
        post(service, "weights/finish", {})
        post(service, "weights/finish", {})
        assert engine.weights.keys() == whole.keys()
        with pytest.raises(Refused, match="no update to version 1"):
            post(service, "weights/chunk", {"chunk": 2}, {"b": whole["b"]})
    finally:
        service.close()
    assert engine.closed


def test_an_update_that_breaks_is_followed_by_a_whole_one(policy: Policy, serve: Serve) -> None:
    server, engine = serve()
    message = {"run": "gone", "version": 1}
    assert ask(server, "POST", "/weights/begin", packed(message))[0] == 200
    head = {"lm_head.weight": policy.model.state_dict()["lm_head.weight"]}
    assert ask(server, "POST", "/weights/chunk", packed(message | {"chunk": 0}, head))[0] == 200
    with client(policy, server) as trainer:
        trainer.load_weights(state_for_engine(policy.model))
        engine.fails_after = 5
        with pytest.raises(RolloutError, match=f"{server.address}: RuntimeError: the device is gone"):
            trainer.load_weights(state_for_engine(policy.model))
        with pytest.raises(RolloutError, match="holds no weights"):
            trainer.generate(three_prompts(policy), SAMPLING)
        trainer.load_weights(state_for_engine(policy.model))
        assert len(trainer.generate(three_prompts(policy), SAMPLING)) == 3


# A bad network and bad peers


class Cutting(RolloutServer):
    """Cuts its next connections before it has answered."""

    cuts = 0

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.cuts:
            self.cuts -= 1
            request.recv(16)
            return
        super().finish_request(request, client_address)


class Losing(Service):
    """Does what it is asked and then loses every other answer."""

    asked = 0

    def answer(self, action: str, body: bytes) -> wire.Body:
        found = super().answer(action, body)
        self.asked += 1
        if self.asked % 2:
            raise ConnectionResetError
        return found


def test_a_lost_connection_is_tried_again_so_often_and_no_more(policy: Policy, serve: Serve) -> None:
    server, _ = serve(server_kind=Cutting)
    assert isinstance(server, Cutting)
    server.cuts = 2
    with client(policy, server) as engine:
        engine.close()
        server.cuts = 3
    with pytest.raises(RolloutError, match=f"{server.address}: no connection in 3 tries at facts"):
        ServerConnection(server.address, None, IMPATIENT).facts()
    assert server.cuts == 0


@pytest.mark.filterwarnings("ignore")
def test_answers_that_are_lost_change_nothing(
    policy: Policy, serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vllm_server, "weight_chunks", partial(weight_chunks, limit_bytes=1 << 20))
    lossy, engine = serve(Losing)
    sound, _ = serve()
    with client(policy, lossy) as first, client(policy, sound) as second:
        for trainer in (first, second):
            trainer.load_weights(state_for_engine(policy.model))
        assert first.generate(three_prompts(policy), SAMPLING) == second.generate(three_prompts(policy), SAMPLING)
    assert len(engine.weights) == len(policy.model.state_dict())
    assert "ended by ConnectionResetError" in capsys.readouterr().err


def test_no_server_there_is_an_error_with_its_address(policy: Policy) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RolloutError, match=rf"{address}: no connection in 3 tries .*ConnectionRefusedError"):
            VllmServerEngine(policy, [address], IMPATIENT)


def test_a_server_that_says_nothing_is_given_up_at_once(policy: Policy) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RolloutError, match=f"{address}: no answer to facts in 0.05 s"):
            VllmServerEngine(policy, [address], ServerChoice(timeout_s=0.05, tries=9, pause_s=99))


class Failing(Scripted):
    calls = 0

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        self.calls += 1
        raise RuntimeError("out of\nmemory")

    def log_probabilities(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> list[list[float]]:
        return [[0.0] for _ in prompts]


def test_an_engine_that_fails_is_told_once_with_the_servers_name(policy: Policy, serve: Serve) -> None:
    failing = Failing()
    (sound, _), (server, _) = serve(), serve(engine=failing)
    with client(policy, sound, server) as engine:
        engine.load_weights(state_for_engine(policy.model))
        with pytest.raises(RolloutError, match=rf"{server.address}: RuntimeError: out of memory \(HTTP 500"):
            engine.generate(three_prompts(policy), SAMPLING)
        assert failing.calls == 1
        with pytest.raises(RolloutError, match=f"{server.address}: its log-probabilities do not pair"):
            engine.log_probabilities(three_prompts(policy), [[1], [2, 3], [4]])


@pytest.mark.parametrize(
    ("fact", "told"),
    [({"dtype": "bfloat16"}, r"dtype \(here float32, there bfloat16\)"), ({"config": "x"}, "config"),
     ({"picture limits": [1, 2]}, "picture limits")],
)  # fmt: skip
def test_r10_a_server_of_another_model_is_refused(
    policy: Policy, serve: Serve, fact: dict[str, Any], told: str
) -> None:
    server, _ = serve(**fact)
    with pytest.raises(UsageError, match=f"{server.address} holds another model than the trainer: {told}"):
        VllmServerEngine(policy, [server.address], IMPATIENT)


def test_facts_tell_models_apart_and_not_folders(policy: Policy, tmp_path: Path) -> None:
    own = model_facts(policy)
    assert differences(own, model_facts(policy_at(model_folder("qwen2_5_vl", tmp_path / "same")))) == []
    assert differences(own, own | {"transformers": "1.0"}) == []
    other = differences(own, model_facts(policy_at(model_folder("qwen3_vl", tmp_path / "other"))))
    assert {"config", "picture processor"} < set(other)


@pytest.mark.parametrize(
    "address", ["", "host", "ftp://host:1", "host:99999", "host:1/path", "user:word@host:1", "http://[::1:80"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        ServerConnection(address, None)


def test_servers_are_named_and_once(policy: Policy) -> None:
    for addresses in ([], ["a:1", "a:1"]):
        with pytest.raises(UsageError, match="at least one server, and none twice"):
            VllmServerEngine(policy, addresses)


def test_only_the_secret_opens_a_server(policy: Policy, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = serve(token=TOKEN)
    for secret in ("", "wrong", "wrong but long enough"):
        monkeypatch.setenv(TOKEN_VARIABLE, secret)
        with pytest.raises(RolloutError, match=f"the secret in {TOKEN_VARIABLE} is not the server's .HTTP 401"):
            VllmServerEngine(policy, [server.address], IMPATIENT)
    for header in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN} ", "Bearer \xff"):
        assert ask(server, "POST", "/generate", b"{}", Authorization=header)[0] == 401
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with client(policy, server) as engine:
        engine.load_weights(state_for_engine(policy.model))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])  # noqa: S104
def test_other_addresses_than_the_loopback_need_a_secret(host: str) -> None:
    with pytest.raises(UsageError, match=f"set {TOKEN_VARIABLE}"):
        ServerAddress(host).check(None)
    with pytest.raises(UsageError, match="at least 16"):
        ServerAddress(host).check("short")
    ServerAddress(host).check(TOKEN)
    for own in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        ServerAddress(own).check(None)


def test_requests_that_are_none_are_refused_and_the_server_goes_on(serve: Serve) -> None:
    server, _ = serve()
    assert ask(server, "GET", "/") == (404, "there is nothing at '/'")
    assert ask(server, "POST", "/weights", b"x")[0] == 404
    assert ask(server, "POST", "/generate", b"x", **{"Content-Type": "text/plain"})[0] == 415
    for told in ({"Content-Length": "-1"}, {"Content-Length": "1", "Transfer-Encoding": "chunked"}):
        assert ask(server, "POST", "/generate", b"", **told)[0] == 411
    limit = server.service.body_limit
    assert ask(server, "POST", "/generate", b"", **{"Content-Length": str(limit + 1)})[0] == 413
    assert ask(server, "POST", "/generate", b"not a container")[0] == 400
    assert ask(server, "POST", "/generate", packed({"run": "r"}))[0] == 400
    with socket.create_connection(("127.0.0.1", server.server_address[1])) as half:
        head = f"POST /generate HTTP/1.1\r\nContent-Type: {wire.CONTENT_TYPE}\r\nContent-Length: 100\r\n\r\n"
        half.sendall(head.encode() + b"half")
        half.shutdown(socket.SHUT_WR)
        answer = half.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"ended after 4 of 100 bytes" in answer
    assert ask(server, "GET", "/facts")[0] == 200


def test_an_address_that_is_taken_is_told(serve: Serve) -> None:
    server, _ = serve()
    with pytest.raises(UsageError, match="cannot listen on 127.0.0.1"):
        RolloutServer(ServerAddress(port=server.server_address[1]), server.service, None)


# The real engine


@pytest.fixture(scope="module")
def process(policy: Policy) -> Iterator[subprocess.Popen[str]]:
    """A server process of the policy's model, started and not waited for."""
    command = [sys.executable, "-m", "qoq_train.cli", "serve", policy.choice.path, "--port", "0", "--dtype", "float32",
               "--max-model-tokens", "256", "--max-sequences", "16", "--pictures", "2"]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        yield running
        running.terminate()
        assert running.wait(60) == 0


@pytest.fixture(scope="module")
def in_process(process: subprocess.Popen[str], policy: Policy) -> Iterator[VllmEngine]:
    """The engine to compare with, started while the server starts."""
    made = VllmEngine(policy, VllmChoice(max_model_tokens=256, max_sequences=16, pictures_per_prompt=2))
    yield made
    made.close()


@NEEDS_VLLM
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_r01_r03_a_server_draws_and_says_what_the_engine_in_the_process_does(
    process: subprocess.Popen[str], in_process: VllmEngine, policy: Policy
) -> None:
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    prompts, first = three_prompts(policy), [group[0] for group in COMPLETIONS]
    prompts = [*prompts, prompts[0]]
    first = [*first, [5]]
    kept = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    engine = VllmServerEngine(policy, [address], ServerChoice(timeout_s=120))
    try:
        before: Any = None
        for _ in range(2):
            for one in (in_process, engine):
                one.load_weights(state_for_engine(policy.model))
            drawn = engine.generate(prompts, SAMPLING)
            assert drawn == in_process.generate(prompts, SAMPLING)
            assert drawn[0] != drawn[3]
            said = engine.log_probabilities(prompts, first)
            assert largest_gap(said, in_process.log_probabilities(prompts, first)) == 0
            assert before is None or largest_gap(said, before) > 0.05
            before = said
            change(policy, 0.05)
        weights = list(state_for_engine(policy.model))
        for one in (in_process, engine):
            with pytest.raises(ValueError, match="missing"):
                one.load_weights(weights[:30])
            with pytest.raises(RolloutError, match="weights"):
                one.generate(prompts, SAMPLING)
            with pytest.raises(RolloutError, match="weights"):
                one.log_probabilities(prompts, first)
            one.load_weights(weights)
        assert engine.generate(prompts, SAMPLING) == in_process.generate(prompts, SAMPLING) != drawn
    finally:
        engine.close()
        policy.model.load_state_dict(kept)
