"""An endpoint as a server on this machine: what is sent, what comes back, and all that can go wrong on the way."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qoq_data.errors import UsageError
from qoq_data.licence import Redistribution
from qoq_data.record import Split
from qoq_train.coordinates import Convention
from qoq_train.data.corpus import Corpus
from qoq_train.endpoint.client import (
    Answered,
    Clock,
    Destination,
    Endpoint,
    EndpointChoice,
    EndpointError,
    Failed,
    Question,
    Refused,
    read_key,
)
from qoq_train.endpoint.evaluation import EndpointAsker, check_may_leave, evaluate_endpoint
from qoq_train.recipe import TrainRecipe
from qoq_train.targets import target_text

Answer = tuple[int, dict[str, str], bytes]
Handler = Callable[[dict[str, Any], int], Answer]

QUESTIONS = [Question(f"row-{i}", f"question {i}") for i in range(12)]


def completion(text: Any, ended: str = "stop", **more: Any) -> Answer:
    message = {"role": "assistant", "content": text, **more}
    return 200, {}, json.dumps({"choices": [{"message": message, "finish_reason": ended}]}).encode()


def fault(status: int, code: str = "", **headers: str) -> Answer:
    body = {"error": {"message": "patient Jane Roe, key sk-secret-9", "code": code}}
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode()


def text_of(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[-1]["text"])


class Server:
    """Answers by a function of the body and of how often this text came before; keeps what it was sent."""

    def __init__(self) -> None:
        self.handler: Handler = lambda body, _: completion(f"to {text_of(body)}")
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.most_at_once = 0
        self._seen: dict[str, int] = {}
        self._inside = 0
        self._lock = threading.Lock()
        outer = self

        class Handle(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                outer._answer(self, json.loads(data))

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handle)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def _answer(self, request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
            self.paths.append(request.path)
            before = self._seen.get(text_of(body), 0)
            self._seen[text_of(body)] = before + 1
        try:
            status, headers, data = self.handler(body, before)
        finally:
            with self._lock:
                self._inside -= 1
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        if "Content-Length" not in headers:
            request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that gave up is what some tests ask
            request.wfile.write(data)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


class Waits:
    """A clock whose waits take no time and are kept."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.waits: list[float] = []
        self.clock = Clock(now=lambda: now, sleep=self.waits.append)


def endpoint(server: Server, waits: Waits | None = None, key: str | None = None, **choice: Any) -> Endpoint:
    settings: dict[str, Any] = {"model": "m", "max_tokens": 64, "timeout_s": 20.0, **choice}
    clock = (waits or Waits()).clock
    return Endpoint(Destination.of_url(server.url), EndpointChoice(**settings), key, clock)


def replies(found: Endpoint, questions: list[Question] = QUESTIONS) -> list[Any]:
    pairs = list(found.answers(iter(questions)))
    assert [question for question, _ in pairs] == questions[: len(pairs)]
    return [reply for _, reply in pairs]


def test_what_is_sent(server: Server) -> None:
    pictures = (b"first", b"second")
    question = Question("r", "what is it?", pictures, "be brief")
    made = endpoint(server, key="sk-secret-9", seed=4, temperature=0.5, top_p=0.9)
    assert made.ask(question) == Answered("to what is it?")
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == "Bearer sk-secret-9"
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"], body["n"]) == ("m", 64, 0.5, 0.9, 1)
    assert 0 <= body["seed"] < 2**31
    system, user = body["messages"]
    assert system == {"role": "system", "content": "be brief"}
    assert [part["type"] for part in user["content"]] == ["image_url", "image_url", "text"]
    sent = [part["image_url"]["url"].removeprefix("data:image/png;base64,") for part in user["content"][:2]]
    assert tuple(base64.b64decode(one) for one in sent) == pictures
    assert "sk-secret-9" not in repr(made) + repr(vars(made)["choice"])


def test_without_a_key_none_is_sent_and_other_limits_have_their_name(server: Server) -> None:
    endpoint(server, limit_key="max_completion_tokens").ask(QUESTIONS[0])
    assert "Authorization" not in server.headers[0]
    assert server.bodies[0]["max_completion_tokens"] == 64
    assert "max_tokens" not in server.bodies[0]
    assert "seed" not in server.bodies[0]


def test_order_and_replies_do_not_depend_on_concurrency(server: Server) -> None:
    meeting = [threading.Barrier(2)]

    def late_first(body: dict[str, Any], _: int) -> Answer:
        if text_of(body) in ("question 0", "question 3"):  # so neither is over before the other is there
            for barrier in meeting:
                barrier.wait(60)
        if text_of(body) == "question 5":
            return fault(400)
        return completion(f"{text_of(body)} {body['seed']}")

    server.handler = late_first
    together = replies(endpoint(server, concurrency=4, seed=1))
    assert 2 <= server.most_at_once <= 4
    server.most_at_once = 0
    meeting.clear()
    assert replies(endpoint(server, concurrency=1, seed=1)) == together
    assert server.most_at_once == 1
    assert together[5] == Failed("status 400")
    assert len({reply.text for reply in together if isinstance(reply, Answered)}) == 11


def test_questions_are_read_ahead_only_a_little(server: Server) -> None:
    drawn = []

    def source() -> Iterator[Question]:
        for question in QUESTIONS:
            drawn.append(question)
            yield question

    found = endpoint(server, concurrency=2).answers(source())
    next(found)
    assert len(drawn) == 4
    found.close()


def test_busy_servers_are_asked_again_after_what_they_say_or_ever_longer(server: Server) -> None:
    at = datetime.fromtimestamp(1_000_007, UTC)
    said = [
        fault(429, Retry_After="3"), fault(503, Retry_After=format_datetime(at, usegmt=True)),
        fault(500), fault(429), fault(529),
    ]  # fmt: skip
    server.handler = lambda body, before: said[before] if before < len(said) else completion("at last")
    waits = Waits()
    assert endpoint(server, waits, tries=6).ask(QUESTIONS[0]) == Answered("at last")
    assert waits.waits[:2] == [3.0, 7.0]
    for wait, longest in zip(waits.waits[2:], (4, 8, 16), strict=True):
        assert longest / 2 <= wait <= longest
    again = Waits()
    server._seen.clear()
    endpoint(server, again, tries=6).ask(QUESTIONS[0])
    assert again.waits == waits.waits


def test_pauses_have_a_limit_and_so_has_what_a_server_may_ask_for(server: Server) -> None:
    server.handler = lambda *_: fault(500)
    waits = Waits()
    assert endpoint(server, waits, tries=12).ask(QUESTIONS[0]) == Failed("status 500, in 12 tries")
    assert len(waits.waits) == 11
    assert max(waits.waits) <= 60
    server.handler = lambda *_: fault(429, "rate_limit_exceeded", Retry_After="86400")
    waits = Waits()
    (failed,) = replies(endpoint(server, waits), QUESTIONS[:1])
    assert failed == Failed("status 429, rate_limit_exceeded, and to be asked again only after 86400 s")
    assert waits.waits == []


@pytest.mark.parametrize("said", ["soon", "", "-4", "1e400", "Wed, 99 Foo 2026"])
def test_a_retry_after_that_says_nothing_is_none(server: Server, said: str) -> None:
    server.handler = lambda _, before: completion("ok") if before else fault(429, Retry_After=said)
    waits = Waits()
    assert endpoint(server, waits).ask(QUESTIONS[0]) == Answered("ok")
    assert 0.5 <= waits.waits[0] <= 1


def test_refusals_and_failures_are_neither_answers_nor_each_other(server: Server) -> None:
    by_text = {
        "question 0": completion(None, "content_filter"),
        "question 1": fault(400, "content_filter"),
        "question 2": completion(None, refusal="I cannot"),
        "question 3": completion(""),
        "question 4": completion("cut in the mid", "length"),
        "question 5": completion([{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]),
        "question 6": fault(413, "Jane Roe 1971"),
        "question 7": completion("", "length"),
    }
    server.handler = lambda body, _: by_text[text_of(body)]
    assert replies(endpoint(server), QUESTIONS[:8]) == [
        Refused(), Refused(), Refused(), Failed("a reply without text"), Answered("cut in the mid", cut=True),
        Answered("in parts"), Failed("status 413"), Answered("", cut=True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (fault(401), "401: it does not accept the key"),
        (fault(403), "403: the key may not"),
        (fault(404), "404: it has no such"),
        (fault(302, Location="https://elsewhere.example/v1"), "302, and sends elsewhere"),
    ],
)
def test_what_is_wrong_for_every_question_stops_at_once(server: Server, answer: Answer, said: str) -> None:
    server.handler = lambda *_: answer
    with pytest.raises(UsageError, match=said) as raised:
        replies(endpoint(server, key="sk-secret-9", concurrency=1))
    assert "secret" not in str(raised.value)
    assert "Jane" not in str(raised.value)
    assert len(server.bodies) <= 3


def test_an_account_with_nothing_left_is_not_asked_again(server: Server) -> None:
    server.handler = lambda *_: fault(429, "insufficient_quota", Retry_After="1")
    waits = Waits()
    with pytest.raises(EndpointError, match="nothing left"):
        replies(endpoint(server, waits, concurrency=1))
    assert waits.waits == []


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"<html>"),
        (200, {}, b"[" * 100_000),
        (200, {}, b"{}"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": null}]}'),
        (200, {"Content-Length": "500"}, b'{"choices": ['),
    ],
)
def test_broken_replies_are_asked_again_and_then_failures(server: Server, answer: Answer) -> None:
    server.handler = lambda *_: answer
    found = endpoint(server, tries=3).ask(QUESTIONS[0])
    assert isinstance(found, Failed)
    assert "in 3 tries" in found.reason
    assert len(server.bodies) == 3


def test_too_long_a_reply_is_not_read_to_its_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qoq_train.endpoint.client._LARGEST_REPLY_BYTES", 1000)
    server.handler = lambda *_: completion("x" * 2000)
    found = endpoint(server, tries=1).ask(QUESTIONS[0])
    assert found == Failed("the connection failed (HTTPException), in 1 tries")


def test_silence_ends_by_the_timeout_and_a_trickle_too(server: Server) -> None:
    ended = threading.Event()

    def silent(*_: Any) -> Answer:
        ended.wait(20)
        return completion("late")

    server.handler = silent
    assert endpoint(server, tries=2, timeout_s=0.1).ask(QUESTIONS[0]) == Failed("no reply within 0.1 s, in 2 tries")
    ended.set()
    server.handler = lambda *_: completion("slow")
    ticks = iter(range(0, 10_000, 30))
    clock = Clock(monotonic=lambda: float(next(ticks)), sleep=lambda _: None)
    choice = EndpointChoice("m", 8, timeout_s=20, tries=1)
    found = Endpoint(Destination.of_url(server.url), choice, None, clock).ask(QUESTIONS[0])
    assert found == Failed("no reply within 20 s, in 1 tries")


def test_nobody_there_is_a_failure_and_too_many_of_them_end_it(server: Server) -> None:
    server.close()
    waits = Waits()
    with pytest.raises(EndpointError, match=r"^3 questions failed for good, the last row-2 \(the connection failed"):
        list(endpoint(server, waits, tries=2, most_failures=2, concurrency=4).answers(QUESTIONS))
    server.server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # for the fixture to close
    server.thread = threading.Thread(target=server.server.serve_forever, kwargs={"poll_interval": 0.01})
    server.thread.start()


def test_as_many_failures_as_allowed_are_told_and_the_rest_goes_on(server: Server) -> None:
    server.handler = lambda body, _: fault(422) if text_of(body) in ("question 3", "question 7") else completion("x")
    found = replies(endpoint(server, most_failures=2))
    assert [i for i, reply in enumerate(found) if isinstance(reply, Failed)] == [3, 7]
    with pytest.raises(EndpointError, match="2 questions failed for good, the last row-7"):
        replies(endpoint(server, most_failures=1))


def test_waits_end_when_the_answers_are_not_wanted_any_more(server: Server) -> None:
    busy = threading.Event()

    def handler(body: dict[str, Any], _: int) -> Answer:
        if text_of(body) == "question 0":
            busy.wait(5)
            return fault(401)
        busy.set()
        return fault(500, Retry_After="250")

    server.handler = handler
    choice = EndpointChoice("m", 8, concurrency=2, timeout_s=20)
    start = time.monotonic()
    with pytest.raises(UsageError, match="401"):
        list(Endpoint(Destination.of_url(server.url), choice).answers(QUESTIONS))  # with a real clock
    assert time.monotonic() - start < 100


@pytest.mark.parametrize(
    ("url", "path", "loopback"),
    [
        ("http://127.0.0.1:8000", "/v1/chat/completions", True),
        ("http://localhost:8000/v1/", "/v1/chat/completions", True),
        ("http://[::1]:8000/v1/chat/completions", "/v1/chat/completions", True),
        ("https://api.example.org/v1", "/v1/chat/completions", False),
        ("https://api.example.org/openai/deployments/x", "/openai/deployments/x/chat/completions", False),
        ("https://localhost.example.org/v1", "/v1/chat/completions", False),
        ("https://127.0.0.1.example.org", "/v1/chat/completions", False),
        ("https://10.0.0.1/v1", "/v1/chat/completions", False),
    ],
)
def test_addresses(url: str, path: str, loopback: bool) -> None:
    found = Destination.of_url(url)
    assert found.path == path
    assert found.is_loopback is loopback


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://api.example.org/v1", "use https"),
        ("http://10.0.0.1:8000", "use https"),
        ("http://127.0.0.1.example.org", "use https"),
        ("api.example.org/v1", "must be http"),
        ("ftp://localhost/v1", "must be http"),
        ("https://user:secret@api.example.org/v1", "without a user"),
        ("https://api.example.org/v1?key=secret", "do not belong"),
        ("https://api.example.org/v1\r\nHost: x", "do not belong|cannot be read|must be http"),
        ("https://api.example.org:99999999/v1", "cannot be read"),
        ("", "must be http"),
    ],
)
def test_addresses_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        Destination.of_url(url)
    assert "secret" not in str(raised.value)


def test_the_key_comes_from_the_environment_and_stands_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert read_key() is None
    monkeypatch.setenv("OPENAI_API_KEY", " sk-1 \n")
    assert read_key() == "sk-1"
    monkeypatch.setenv("MINE", "sk-secret\nX-Other: 1")
    with pytest.raises(UsageError, match="MINE") as raised:
        read_key("MINE")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("changes", [{"tries": 0}, {"concurrency": 0}, {"max_tokens": 0}, {"model": ""}])
def test_choices_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        EndpointChoice(**{"model": "m", "max_tokens": 1, **changes})


def recipe_of(corpus: Path, **data: Any) -> TrainRecipe:
    tree: dict[str, Any] = {
        "name": "endpoint",
        "model": {"path": "nowhere"},
        "data": {"corpus": str(corpus), "min_pixels": 7056, "max_pixels": 50_176, "ecg_layout": "single", **data},
        "prompt": {"template": "boxes"},
    }
    return TrainRecipe.model_validate(tree)


def test_a_perfect_endpoint_has_perfect_figures_and_its_gaps_are_told(server: Server, corpus_folder: Path) -> None:
    recipe = recipe_of(corpus_folder, sources=("busi", "ptb-xl"))
    rows = Corpus(recipe.data).rows(Split.TRAIN)
    asker = EndpointAsker(recipe)
    by_text: dict[tuple[str, tuple[str, ...]], str] = {}
    ids = []
    for place in range(len(rows)):
        example = rows.example(place)
        question = asker.question(example)
        template = "boxes" if example.boxes_known else "reasoning"
        frames = asker._frames(example)
        target = target_text(example, template, random.Random(1), frames).text
        pictures = tuple(base64.b64encode(picture).decode() for picture in question.pictures)
        by_text[question.text, pictures] = target
        ids.append(example.row_id)
        sizes = [Image.open(io.BytesIO(picture)).size for picture in question.pictures]
        assert all(side % 28 == 0 for size in sizes for side in size)

    def right(body: dict[str, Any], _: int) -> Answer:
        content = body["messages"][-1]["content"]
        pictures = tuple(p["image_url"]["url"].removeprefix("data:image/png;base64,") for p in content[:-1])
        return completion(by_text[content[-1]["text"], pictures])

    server.handler = right
    done: list[tuple[int, int]] = []
    found = evaluate_endpoint(
        recipe, endpoint(server), Split.TRAIN, replicates=0, progress=lambda *counts: done.append(counts)
    )
    assert found.report.overall.rows == len(rows) == len(done)
    assert done[-1] == (len(rows), len(rows))
    figures = found.report.overall.figures
    assert figures["macro_f1"].value == 1.0
    assert figures["unreadable_rate"].value == 0.0
    assert figures["box_iou"].value > 0.9
    assert [outcome.row_id for outcome in found.outcomes] == ids
    assert found.sentence() == ""
    assert found.told() == {"refused": [], "failed": {}, "cut": []}

    calls = iter(range(10_000))

    def gaps(body: dict[str, Any], before: int) -> Answer:
        number = next(calls)
        if number == 1:
            return completion(None, "content_filter")
        if number == 3:
            return fault(400, "bad_request")
        status, headers, data = right(body, before)
        return (status, headers, data.replace(b'"stop"', b'"length"')) if number == 4 else (status, headers, data)

    server.handler = gaps
    with_gaps = evaluate_endpoint(recipe, endpoint(server, concurrency=1), Split.TRAIN, replicates=0)
    assert with_gaps.refused == (ids[1],)
    assert with_gaps.failed == ((ids[3], "status 400, bad_request"),)
    assert with_gaps.cut == (ids[4],)
    assert with_gaps.report.overall.rows == len(rows) - 2
    assert with_gaps.report.overall.figures["macro_f1"].value == 1.0  # neither counts as a wrong answer
    assert with_gaps.sentence() == (
        f"Of {len(rows)} rows 1 were refused and 1 failed; they are in no figure. "
        "1 answers were cut at the limit of tokens."
    )


def test_boxes_are_read_in_the_frame_of_the_picture_that_was_sent(server: Server, corpus_folder: Path) -> None:
    recipe = recipe_of(corpus_folder, sources=("busi",))
    rows = Corpus(recipe.data).rows(Split.TRAIN)
    place = next(i for i in range(len(rows)) if rows.example(i).boxes)
    example = rows.example(place)
    sent, thousandths = EndpointAsker(recipe), EndpointAsker(recipe, Convention.THOUSANDTHS)
    size = Image.open(io.BytesIO(sent.question(example).pictures[0])).size
    box = example.boxes[0].xyxy
    width, height = example.pictures[0].size
    expected = tuple(edge * (size[i % 2] / (width, height)[i % 2]) for i, edge in enumerate(box))
    assert sent._frames(example)[0].to_model(box) == pytest.approx(expected)
    thousand = thousandths._frames(example)[0].to_model(box)
    assert thousand == pytest.approx(tuple(edge * 1000 / (width, height)[i % 2] for i, edge in enumerate(box)))
    assert "in pixels of the picture" in sent.question(example).text
    assert "in thousandths" in thousandths.question(example).text


def test_rows_that_may_not_leave_do_not(corpus_folder: Path, server: Server) -> None:
    remote, here = Destination.of_url("https://api.example.org/v1"), Destination.of_url(server.url)
    corpora = {
        source: Corpus(recipe_of(corpus_folder, sources=(source,)).data)
        for source in ("busi", "ham10000", "jichi", "ptb-xl")
    }
    open_ones = {name for name, corpus in corpora.items() if corpus.redistribution is Redistribution.OPEN}
    assert open_ones, "the corpus of the tests has an open source"
    assert open_ones != set(corpora)
    for name, corpus in corpora.items():
        check_may_leave(corpus, here, allow_remote=False)
        check_may_leave(corpus, remote, allow_remote=True)
        if name in open_ones:
            check_may_leave(corpus, remote, allow_remote=False)
            continue
        with pytest.raises(UsageError, match="--allow-remote") as raised:
            check_may_leave(corpus, remote, allow_remote=False)
        assert corpus.licence in str(raised.value)
    made = Endpoint(remote, EndpointChoice("m", 8))
    with pytest.raises(UsageError, match="may not be passed on"):
        evaluate_endpoint(recipe_of(corpus_folder), made, Split.TRAIN)


def test_nothing_answered_is_an_error(server: Server, corpus_folder: Path) -> None:
    server.handler = lambda *_: completion(None, "content_filter")
    with pytest.raises(EndpointError, match="none answered"):
        evaluate_endpoint(recipe_of(corpus_folder), endpoint(server), Split.TRAIN, most=3)
