"""A push: refused where the terms forbid it, whatever is tried; what goes up; and a Hub on the loopback address.

Decisions are tested with an object that has the Hub's calls, the calls themselves with ``huggingface_hub`` against a
small server of ours that speaks them.
"""

from __future__ import annotations

import base64
import importlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from qoq_data.errors import UsageError
from qoq_data.licence import Redistribution
from qoq_train.data.corpus import Corpus
from qoq_train.publish.model_card import card_text
from qoq_train.publish.model_licence import ModelLicence, folder_licence, model_licence
from qoq_train.publish.push import PushError, model_files, push_run
from qoq_train.publish.terms import PushRefusedError, Terms, check_terms, record_model_licence, run_terms
from qoq_train.recipe import TrainRecipe, train_recipe_text
from tests.train.test_trainer import recipe_of

httpx: Any = importlib.import_module(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
"""The library below the Hub's client, whichever this version has."""
REPOSITORY = "lab/model"
CANARY = "the patient said so"


def not_found() -> RepositoryNotFoundError:
    request = httpx.Request("GET", "http://127.0.0.1/api/models/lab/model")
    return RepositoryNotFoundError("none", response=httpx.Response(404, request=request))


class FakeHub:
    """The Hub's calls in memory; ``private`` None where there is no repository yet."""

    def __init__(self, private: bool | None = None, licences: dict[str, Any] | None = None) -> None:
        self.private = private
        self.licences = licences or {}
        self.made_public_anyway = False
        self.calls: list[str] = []
        self.files: dict[str, bytes] = {}

    def model_info(self, repo_id: str) -> Any:
        if repo_id in self.licences:
            return SimpleNamespace(card_data={"license": self.licences[repo_id]}, private=False)
        if repo_id != REPOSITORY or self.private is None:
            raise not_found()
        return SimpleNamespace(private=self.private, card_data=None)

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append(f"create {private}")
        self.private = private and not self.made_public_anyway

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str) -> None:
        self.calls.append("commit")
        for one in operations:
            with one.as_file() as file:
                self.files[one.path_in_repo] = file.read()


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, text in {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}"}.items():
        (folder / name).write_text(text)
    return folder


def write_run(folder: Path, recipe: TrainRecipe) -> Path:
    write_model(folder / "model")
    (folder / "model" / "notes.txt").write_text(CANARY)
    (folder / "completions").mkdir()
    (folder / "completions" / "step-000001.parquet").write_text(CANARY)
    (folder / "recipe.yaml").write_text(train_recipe_text(recipe))
    digest = Corpus(recipe.data).manifest_sha256
    (folder / "corpus.json").write_text(json.dumps({"manifest_sha256": digest}))
    (folder / "versions.json").write_text(json.dumps({"torch": "2.13.0"}))
    figures = {"step": 4, "left_out": 0, "overall/macro_f1": 0.5, "fundus/macro_f1": 0.25, "fundus/box_iou": 0.125}
    (folder / "evaluations.jsonl").write_text(json.dumps(figures) + "\n")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "base")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    return folder


def open_recipe(corpus: Path, base: Path, **changes: Any) -> TrainRecipe:
    """On the sources of the corpus that may be passed on."""
    return recipe_of(corpus, base, data__sources=["ptb-xl"], rewards={}, **changes)


@pytest.fixture
def open_run(corpus_folder: Path, base: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", open_recipe(corpus_folder, base))


@pytest.fixture
def closed_run(corpus_folder: Path, base: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", recipe_of(corpus_folder, base, rewards={}))


def test_an_open_run_goes_up_without_completions(open_run: Path) -> None:
    hub = FakeHub()
    done = push_run(open_run, REPOSITORY, hub, public=True)
    assert hub.calls == ["create False", "commit"]
    assert done.private is False
    assert sorted(hub.files) == sorted(done.files)
    assert sorted(hub.files) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert done.left == ("notes.txt",)
    assert all(CANARY.encode() not in data for data in hub.files.values())


def test_a_repository_is_made_private_unless_asked(open_run: Path) -> None:
    hub = FakeHub()
    assert push_run(open_run, REPOSITORY, hub).private is True
    assert hub.calls == ["create True", "commit"]


def test_a_closed_corpus_is_refused_for_a_public_repository(closed_run: Path) -> None:
    hub = FakeHub()
    with pytest.raises(PushRefusedError) as raised:
        push_run(closed_run, REPOSITORY, hub, public=True, vouched=True)
    assert raised.value.exit_code == 3
    assert "busi: LicenseRef-BUSI (ids)" in str(raised.value)
    assert "--vouch-private" in str(raised.value)
    assert (hub.calls, hub.files) == ([], {})


def test_a_private_repository_takes_it_if_the_user_vouches(closed_run: Path) -> None:
    hub = FakeHub()
    with pytest.raises(PushRefusedError, match="--vouch-private"):
        push_run(closed_run, REPOSITORY, hub)
    assert hub.calls == []
    assert push_run(closed_run, REPOSITORY, hub, vouched=True).private is True


def test_what_the_server_says_counts_also_when_the_repository_exists(closed_run: Path) -> None:
    public = FakeHub(private=False)
    with pytest.raises(PushRefusedError):
        push_run(closed_run, REPOSITORY, public, vouched=True)
    assert public.calls == []
    private = FakeHub(private=True)
    push_run(closed_run, REPOSITORY, private, public=True, vouched=True)
    assert private.calls == ["commit"]


def test_a_repository_that_came_out_public_gets_nothing(closed_run: Path) -> None:
    hub = FakeHub()
    hub.made_public_anyway = True
    with pytest.raises(PushRefusedError):
        push_run(closed_run, REPOSITORY, hub, vouched=True)
    assert hub.calls == ["create True"]
    assert hub.files == {}


@pytest.mark.parametrize("said", [None, "private", 1, "yes"])
def test_a_visibility_that_is_no_plain_yes_is_public(closed_run: Path, said: Any) -> None:
    hub = FakeHub(private=True)
    hub.private = said if said is not None else False
    with pytest.raises(PushRefusedError):
        push_run(closed_run, REPOSITORY, hub, vouched=True)


def terms_of(redistribution: Redistribution, *problems: str) -> Terms:
    return Terms(ModelLicence("mit", "card"), ("A",), redistribution, (), problems)


@pytest.mark.parametrize(
    ("terms", "public", "private", "vouched"),
    [
        (terms_of(Redistribution.OPEN), True, True, True),
        (terms_of(Redistribution.SAME_TERMS), True, True, True),
        (terms_of(Redistribution.IDS), False, False, True),
        (terms_of(Redistribution.NONE), False, False, False),
        (terms_of(Redistribution.OPEN, "not known"), False, False, True),
        (terms_of(Redistribution.NONE, "not known"), False, False, False),
    ],
)
def test_every_kind_of_terms_against_every_kind_of_repository(
    terms: Terms, public: bool, private: bool, vouched: bool
) -> None:
    def allowed(*, private: bool, vouched: bool) -> bool:
        try:
            check_terms(terms, private=private, vouched=vouched)
        except PushRefusedError:
            return False
        return True

    assert allowed(private=False, vouched=False) is public
    assert allowed(private=False, vouched=True) is public
    assert allowed(private=True, vouched=False) is private
    assert allowed(private=True, vouched=True) is vouched


def test_an_unknown_licence_of_the_base_is_refused(open_run: Path, base: Path) -> None:
    for card in (
        None,
        "# no header\n",
        "---\nlicense: other\nlicense_name: qwen-research\n---\n",
        "---\n{broken\n---\n",
    ):
        (base / "README.md").unlink(missing_ok=True)
        if card is not None:
            (base / "README.md").write_text(card)
        with pytest.raises(PushRefusedError, match="the base model are not known"):
            push_run(open_run, REPOSITORY, FakeHub(), public=True)


def test_the_licence_recorded_at_the_start_stands_in_for_a_model_that_is_gone(
    open_run: Path, base: Path, tmp_path: Path
) -> None:
    record_model_licence(open_run, str(base), None)
    shutil.rmtree(base)
    assert run_terms(open_run, None).is_open
    tree = json.loads((open_run / "model_licence.json").read_text())
    tree["model"] = "another"
    (open_run / "model_licence.json").write_text(json.dumps(tree))
    assert not run_terms(open_run, None).is_known


def test_the_licence_of_a_hosted_model_is_asked_of_the_hub(corpus_folder: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", open_recipe(corpus_folder, Path("Qwen/Known")))
    assert run_terms(run, FakeHub(licences={"Qwen/Known": "Apache-2.0"})).is_open
    assert not run_terms(run, FakeHub()).is_known
    assert not run_terms(run, FakeHub(licences={"Qwen/Known": ["mit", "gpl-3.0"]})).is_known
    assert not run_terms(run, None).is_known


def test_a_corpus_that_is_gone_or_another_is_refused(
    open_run: Path, corpus_folder: Path, base: Path, tmp_path: Path
) -> None:
    (open_run / "corpus.json").write_text(json.dumps({"manifest_sha256": "0" * 64}))
    with pytest.raises(PushRefusedError, match="not the one that run was trained on"):
        push_run(open_run, REPOSITORY, FakeHub(), public=True)
    (open_run / "corpus.json").unlink()
    assert not run_terms(open_run, None).is_known
    gone = open_recipe(corpus_folder, base)
    gone = gone.model_copy(update={"data": gone.data.model_copy(update={"corpus": str(tmp_path / "gone")})})
    (open_run / "recipe.yaml").write_text(train_recipe_text(gone))
    with pytest.raises(PushRefusedError, match="cannot be read"):
        push_run(open_run, REPOSITORY, FakeHub(), public=True)


def test_rows_and_a_manifest_that_were_edited_to_be_open_are_refused(changed: Any, base: Path, tmp_path: Path) -> None:
    def free(row: dict[str, Any]) -> None:
        row["licence"], row["redistribution"] = "CC0-1.0", "open"

    corpus = changed(free)
    run = write_run(tmp_path / "run", recipe_of(corpus, base, rewards={}))
    with pytest.raises(PushRefusedError, match="busi"):
        push_run(run, REPOSITORY, FakeHub(), public=True)


def test_a_source_under_another_name_is_refused(changed: Any, base: Path, tmp_path: Path) -> None:
    def rename(row: dict[str, Any]) -> None:
        row["licence"], row["redistribution"] = "CC0-1.0", "open"

    corpus = changed(rename)
    manifest = (corpus / "manifest.json").read_text().replace('"name": "ptb-xl"', '"name": "mine"')
    (corpus / "manifest.json").write_text(manifest.replace('"source": "ptb-xl"', '"source": "mine"'))
    run = write_run(tmp_path / "run", recipe_of(corpus, base, data__sources=["mine"], rewards={}))
    with pytest.raises(PushRefusedError, match="no source of that name is installed"):
        push_run(run, REPOSITORY, FakeHub(), public=True)


def test_a_manifest_that_gives_rows_to_an_open_source_is_refused(changed: Any, base: Path, tmp_path: Path) -> None:
    def free(row: dict[str, Any]) -> None:
        row["licence"], row["redistribution"] = "CC0-1.0", "open"

    corpus = changed(free)
    tree = json.loads((corpus / "manifest.json").read_text())
    for entry in tree["shards"]:
        entry["source"] = "ptb-xl"
    (corpus / "manifest.json").write_text(json.dumps(tree))
    run = write_run(tmp_path / "run", open_recipe(corpus, base))
    with pytest.raises(PushRefusedError, match="busi"):
        push_run(run, REPOSITORY, FakeHub(), public=True)


def test_the_terms_of_the_run_that_a_model_came_from_go_on_holding(
    closed_run: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    second = write_run(tmp_path / "second", open_recipe(corpus_folder, closed_run / "model"))
    (closed_run / "model" / "README.md").write_text("---\nlicense: mit\n---\n")
    found = run_terms(second, None)
    assert found.redistribution is Redistribution.IDS
    assert found.model.identifier == "apache-2.0"
    assert len(found.corpora) == 2
    with pytest.raises(PushRefusedError, match="busi"):
        push_run(second, REPOSITORY, FakeHub(), public=True)


def test_runs_that_stand_on_each_other_in_a_ring_end(corpus_folder: Path, tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", open_recipe(corpus_folder, tmp_path / "two" / "model"))
    write_run(tmp_path / "two", open_recipe(corpus_folder, tmp_path / "one" / "model"))
    assert not run_terms(one, None).is_known


def test_a_link_among_the_models_files_is_refused(open_run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (open_run / "model" / "vocab.json").symlink_to(tmp_path / "secret")
    hub = FakeHub()
    with pytest.raises(UsageError, match=r"vocab\.json"):
        push_run(open_run, REPOSITORY, hub, public=True)
    assert hub.calls == []


def test_a_folder_without_a_finished_model_is_told(open_run: Path, tmp_path: Path) -> None:
    (open_run / "model" / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="no finished model"):
        model_files(open_run / "model")
    write_model(tmp_path / "other" / "model")
    with pytest.raises(UsageError, match="no run's folder"):
        push_run(tmp_path / "other", REPOSITORY, FakeHub())


def test_the_card_says_what_it_is_and_names_no_folder(open_run: Path, tmp_path: Path, corpus_folder: Path) -> None:
    card = card_text(open_run, run_terms(open_run, None))
    _, header, body = card.split("---\n", 2)
    told = yaml.safe_load(header)
    assert told["license"] == "apache-2.0"
    assert "fundus" in told["tags"]
    assert "base_model" not in told
    assert Corpus(open_recipe(corpus_folder, tmp_path / "base").data).manifest_sha256 in body
    for text in ("0.500", "0.250", "CC-BY-4.0", "ptb-xl", "advantage: drpo", "path: base", "generated", "2.13.0"):
        assert text in body, text
    assert str(tmp_path) not in card
    assert str(corpus_folder.parent) not in card
    assert CANARY not in card


def test_the_card_of_a_closed_run_bears_no_open_licence(closed_run: Path) -> None:
    header = yaml.safe_load(card_text(closed_run, run_terms(closed_run, None)).split("---\n", 2)[1])
    assert header["license"] == "other"
    assert "licenseref-busi" in header["license_name"]


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: MIT\n---\n", "mit"),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense: [mit]\n---\n", "mit"),
        ("---\nlicense: [mit, gpl-3.0]\n---\n", None),
        ("---\nlicense: 3\n---\n", None),
        ("---\nlicense: other\nlicense_name: Own\n---\n", "other: Own"),
        ("---\n- a\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("license: mit\n", None),
        ("", None),
    ],
)
def test_a_card_names_one_licence_or_none(tmp_path: Path, card: str, licence: str | None) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())
    assert folder_licence(tmp_path).identifier == licence


def test_a_hub_that_cannot_be_asked_leaves_the_licence_unknown() -> None:
    class Broken:
        def model_info(self, repo_id: str) -> Any:
            raise httpx.ConnectTimeout("https://user:secret@host")

    found = model_licence("Qwen/Any", Broken())
    assert found.identifier is None
    assert "secret" not in str(found)


def test_what_the_hub_refuses_is_a_paragraph_without_its_address(open_run: Path) -> None:
    class Refusing(FakeHub):
        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            request = httpx.Request("POST", "https://host/api?token=hf_secret")
            raise HfHubHTTPError("hf_secret", response=httpx.Response(403, request=request))

    with pytest.raises(PushError) as raised:
        push_run(open_run, REPOSITORY, Refusing())
    assert "403" in str(raised.value)
    assert "Log in" in str(raised.value)
    assert "hf_secret" not in str(raised.value)


class _Server(ThreadingHTTPServer):
    private: bool | None = None
    log: list[str]
    lines: list[dict[str, Any]]


class _Hub(BaseHTTPRequestHandler):
    """The calls of one push: the repository's facts, its making, what goes in the commit, and the commit."""

    server: _Server

    def do_GET(self) -> None:
        self.server.log.append(f"GET {self.path}")
        if self.server.private is None:
            self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        else:
            facts = {
                "id": REPOSITORY,
                "modelId": REPOSITORY,
                "private": self.server.private,
                "siblings": [],
                "tags": [],
            }
            self._answer(facts)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.log.append(f"POST {self.path.partition('?')[0]}")
        if self.path == "/api/repos/create":
            told = json.loads(body)
            self.server.private = bool(told.get("private", told.get("visibility") == "private"))
            self._answer({"url": f"http://127.0.0.1:{self.server.server_port}/{REPOSITORY}"})
        elif "/preupload/" in self.path:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            self.server.lines += [json.loads(line) for line in body.splitlines()]
            self._answer({"commitUrl": f"http://127.0.0.1/{REPOSITORY}/commit/abc", "commitOid": "abc"})
        else:
            self._answer({"errors": [], "warnings": []})

    def _answer(self, tree: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(tree).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        return


@pytest.fixture
def server() -> Iterator[_Server]:
    found = _Server(("127.0.0.1", 0), _Hub)
    found.log, found.lines = [], []
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def api(server: _Server) -> HfApi:
    return HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token="hf_of_a_test")  # noqa: S106


def test_the_hubs_own_client_sends_it(open_run: Path, server: _Server) -> None:
    done = push_run(open_run, REPOSITORY, api(server))
    assert done.private is True
    sent = {one["value"]["path"]: one["value"] for one in server.lines if one["key"] == "file"}
    assert sorted(sent) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert base64.b64decode(sent["model.safetensors"]["content"]) == b"weights"
    assert [line for line in server.log if "create" in line or "commit" in line] == [
        "POST /api/repos/create", f"POST /api/models/{REPOSITORY}/commit/main",
    ]  # fmt: skip


def test_the_hubs_own_client_is_refused_before_a_file_goes(closed_run: Path, server: _Server) -> None:
    server.private = False
    with pytest.raises(PushRefusedError):
        push_run(closed_run, REPOSITORY, api(server), vouched=True)
    assert not server.lines
    assert all(line.startswith("GET") for line in server.log)
