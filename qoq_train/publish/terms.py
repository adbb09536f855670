"""What binds a trained model: the terms of its base and of every corpus it learned from, and where it may go.

A push asks this and nothing else; nothing overrides it for a public repository.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qoq_data.errors import QoQError, UsageError
from qoq_data.licence import Redistribution, strictest
from qoq_train.data.corpus import Corpus
from qoq_train.data.shards import read_columns
from qoq_train.publish.model_licence import ModelLicence, model_licence
from qoq_train.recipe import TrainRecipe, parse_train_recipe

if TYPE_CHECKING:
    from qoq_train.publish.model_licence import ModelCards

LICENCE_FILE: Final = "model_licence.json"
_MOST_RUNS: Final = 16
_CLOSED: Final = (Redistribution.NONE, Redistribution.IDS)


class PushRefusedError(QoQError):
    """The terms do not let the model be passed on so; nothing was sent."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Terms:
    """What binds a model: its base's licence, and the licences and redistribution of each corpus it learned from.

    ``problems`` say why something is not known; with any, the terms count as unknown.
    """

    model: ModelLicence
    corpora: tuple[str, ...]
    redistribution: Redistribution
    restricting: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def is_known(self) -> bool:
        """Whether every part of the terms is known."""
        return not self.problems

    @property
    def is_open(self) -> bool:
        """Whether the model may be passed on with credit alone."""
        return self.is_known and self.redistribution is Redistribution.OPEN


def record_model_licence(run: Path, path: str, cards: ModelCards | None) -> ModelLicence:
    """Write the base model's licence into a run's folder, where a push finds it when the model is gone from here."""
    found = model_licence(path, cards)
    if found.identifier is not None:
        tree = {"model": shown_name(path), "licence": found.identifier, "where": found.where}
        (run / LICENCE_FILE).write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    return found


def run_terms(run: Path, cards: ModelCards | None) -> Terms:
    """The terms of a run's model: of its base, of its corpus, and of the runs before it where its base came from one.

    The corpus has to be where the recipe says and as the run read it. Its licence is the stricter of what its rows say
    and what their sources are known to ask. Raises ``UsageError`` where the folder is no run's.
    """
    corpora: list[str] = []
    problems: list[str] = []
    restricting: list[str] = []
    found: list[Redistribution] = []
    current, recipe = run, run_recipe(run)
    for _ in range(_MOST_RUNS):
        of_corpus = _corpus_terms(current, recipe)
        corpora.append(of_corpus.licence)
        problems += of_corpus.problems
        restricting += of_corpus.restricting
        found.append(of_corpus.redistribution)
        before = Path(recipe.model.path).parent
        if not (Path(recipe.model.path).is_dir() and (before / "recipe.yaml").is_file()):
            break
        current, recipe = before, run_recipe(before)
    else:
        problems.append(f"more than {_MOST_RUNS} runs stand one on the other")
    licence = model_licence(recipe.model.path, cards)
    if licence.identifier is None:
        licence = _recorded_licence(current, recipe.model.path) or licence
    if licence.redistribution is None:
        problems.append(f"the terms of the base model are not known: {licence}")
    else:
        found.append(licence.redistribution)
        if licence.redistribution in _CLOSED:
            restricting.append(f"the base model: {licence}")
    least = min(found, key=list(Redistribution).index)
    return Terms(licence, tuple(dict.fromkeys(corpora)), least, tuple(dict.fromkeys(restricting)), tuple(problems))


def check_terms(terms: Terms, *, private: bool, vouched: bool) -> None:
    """Raise ``PushRefusedError`` where a repository of this kind may not have the model.

    Public: only where every term is known and lets it be passed on; nothing overrides that. Private: also where they
    are not known or allow ids alone, if the user vouches for all who can read it; never where nothing may be passed on.
    """
    reasons = [*terms.restricting, *terms.problems]
    free = terms.is_known and terms.redistribution not in _CLOSED
    if free:
        return
    told = "; ".join(reasons) or f"its corpus is {', '.join(terms.corpora)}"
    if terms.redistribution is Redistribution.NONE:
        raise PushRefusedError(f"Refused: nothing made from this may be passed on. {told}.")
    if not private:
        raise PushRefusedError(
            f"Refused for a public repository: {told}. A private one can have it, if you vouch with --vouch-private "
            "that the terms cover everyone who can read it."
        )
    if not vouched:
        raise PushRefusedError(
            f"Refused: {told}. If these terms cover everyone who can read the private repository, say so with "
            "--vouch-private."
        )


def run_recipe(run: Path) -> TrainRecipe:
    """The recipe that a run's folder holds; raises ``UsageError`` where there is none."""
    file = run / "recipe.yaml"
    if not file.is_file():
        raise UsageError(f"{run.name} is no run's folder: it has no recipe.yaml.")
    return parse_train_recipe(file.read_text(encoding="utf-8"), f"{run.name}/recipe.yaml")


@dataclass(frozen=True, slots=True)
class _CorpusTerms:
    licence: str
    redistribution: Redistribution
    restricting: tuple[str, ...]
    problems: tuple[str, ...]


def _corpus_terms(run: Path, recipe: TrainRecipe) -> _CorpusTerms:
    from qoq_data.sources import registry

    unknown = _CorpusTerms("unknown", Redistribution.IDS, (), ())
    try:
        corpus = Corpus(recipe.data)
        by_rows = corpus.redistribution
        named = _sources_of_rows(corpus)
    except QoQError as error:
        return _with_problem(unknown, f"the corpus of {run.name} cannot be read, so its terms are not known: {error}")
    if recorded_hash(run) != corpus.manifest_sha256:
        return _with_problem(unknown, f"the corpus is not the one that {run.name} was trained on")
    restricting, problems, found = [], [], [by_rows]
    for name in sorted({*corpus.sources, *named}):
        source = registry().get(name)
        if source is None:
            problems.append(f"the corpus holds {name}, and no source of that name is installed that says its terms")
            continue
        expression, redistribution = strictest(source.spec.licences.values())
        found.append(redistribution)
        if redistribution in _CLOSED:
            restricting.append(f"{name}: {expression} ({redistribution})")
    least = min(found, key=list(Redistribution).index)
    if least in _CLOSED and not restricting:
        restricting.append(f"rows of the corpus: {corpus.licence} ({least})")
    return _CorpusTerms(corpus.licence, least, tuple(restricting), tuple(problems))


def _sources_of_rows(corpus: Corpus) -> set[str]:
    """Sources as the rows name them, whatever the manifest says of their shards."""
    tables = (read_columns(corpus.store, shard, ["source"])[0] for shard in corpus.shards())
    return {str(name) for table in tables for name in table["source"].unique().to_pylist()}


def _with_problem(terms: _CorpusTerms, problem: str) -> _CorpusTerms:
    return _CorpusTerms(terms.licence, terms.redistribution, terms.restricting, (*terms.problems, problem.rstrip(".")))


def recorded_hash(run: Path) -> str | None:
    """The hash of the manifest of the corpus that a run was trained on."""
    tree = read_json(run / "corpus.json")
    found = tree.get("manifest_sha256")
    return found if isinstance(found, str) else None


def _recorded_licence(run: Path, path: str) -> ModelLicence | None:
    """What was recorded at the run's start, where it is of this model."""
    tree = read_json(run / LICENCE_FILE)
    found = tree.get("licence")
    if not isinstance(found, str) or tree.get("model") != shown_name(path):
        return None
    return ModelLicence(found, f"as {run.name} recorded it: {tree.get('where', '')}")


def read_json(file: Path) -> dict[str, Any]:
    """A file's JSON object; an empty one where there is none that can be read."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def shown_name(path: str) -> str:
    """A model's name without the folders above it, where it is a folder here."""
    return Path(path).name if Path(path).is_absolute() or Path(path).is_dir() else path
