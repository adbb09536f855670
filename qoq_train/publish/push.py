"""A run's model on the Hub: refused where the terms of its base model or of its corpus do not let it be passed on.

What is sent are the model's own files and a card. Completions are never among them, since they hold what the rows said,
and no row is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from qoq_data.errors import QoQError, UsageError
from qoq_train.publish.model_card import card_text
from qoq_train.publish.model_licence import CARD, ModelCards, transport_errors
from qoq_train.publish.terms import check_terms, run_recipe, run_terms

MODEL_FOLDER: Final = "model"
_MODEL_FILES: Final = (
    "*.safetensors", "model.safetensors.index.json", "config.json", "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "tokenizer.model", "chat_template.jinja", "chat_template.json", "processor_config.json",
    "preprocessor_config.json", "video_preprocessor_config.json",
)  # fmt: skip


class PushError(QoQError):
    """The Hub did not do what was asked."""


class Hub(ModelCards, Protocol):
    """The calls that a push makes: those of ``huggingface_hub.HfApi``."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """Make a model repository."""

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str) -> Any:
        """Send files as one change, whole or not at all."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of a push: where it stands, whether the server says that it is private, and the files sent."""

    repository: str
    private: bool
    files: tuple[str, ...]
    left: tuple[str, ...]


def push_run(run: Path, repository: str, hub: Hub, *, public: bool = False, vouched: bool = False) -> Pushed:
    """Send a run's model and its card to a repository of the Hub, made private unless ``public`` where there is none.

    Whether it is private is what the server says, before and again after it was made. Raises ``PushRefusedError`` with
    nothing sent, ``UsageError`` for a folder without a finished model, and ``PushError`` for what the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd

    files, left = model_files(run / MODEL_FOLDER)
    terms = run_terms(run, hub)
    private = server_says_private(hub, repository)
    check_terms(terms, private=not public if private is None else private, vouched=vouched)
    card = card_text(run, terms)
    with _hub_errors(repository):
        if private is None:
            hub.create_repo(repository, private=not public, exist_ok=True)
        private = server_says_private(hub, repository) is True
        check_terms(terms, private=private, vouched=vouched)
        operations = [CommitOperationAdd(path.name, str(path)) for path in files]
        operations.append(CommitOperationAdd(CARD, card.encode()))
        hub.create_commit(repository, operations, commit_message=f"The model of the run {run_recipe(run).name}")
    return Pushed(repository, private, (*(path.name for path in files), CARD), tuple(left))


def server_says_private(hub: Hub, repository: str) -> bool | None:
    """Whether the server says that a repository is private; None where it says that there is none.

    Anything but a plain yes counts as public.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    with _hub_errors(repository):
        try:
            return hub.model_info(repository).private is True
        except RepositoryNotFoundError:
            return None


def model_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The model's own files, sorted, and the names of what else stands there and stays.

    Raises ``UsageError`` where there is no finished model, and for a link, which could lead anywhere.
    """
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UsageError(f"{folder.parent.name} has no finished model: 'qoq-train drpo' writes it at the end.")
    every = sorted(folder.iterdir())
    files = [path for path in every if any(path.match(pattern) for pattern in _MODEL_FILES)]
    links = [path.name for path in files if path.is_symlink() or not path.is_file()]
    if links:
        raise UsageError(f"{', '.join(links)} of the model: no plain files; a push sends none of it.")
    return files, [path.name for path in every if path not in files]


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """What the Hub's client raises, as one paragraph; its own texts may hold addresses with tokens."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    unreachable: tuple[type[Exception], ...] = (OSError, *transport_errors())
    try:
        yield
    except HFValidationError as error:
        raise UsageError(f"{repository!r} is no name of a repository: give OWNER/NAME.") from error
    except HfHubHTTPError as error:
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        hint = " Log in with 'hf auth login', by a token that may write there." if status in (401, 403) else ""
        raise PushError(f"The Hub answered {status or 'nothing'} for {repository}.{hint}") from None
    except unreachable as error:
        raise PushError(f"The Hub could not be reached for {repository} ({type(error).__name__}).") from None
