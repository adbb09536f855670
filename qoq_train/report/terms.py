"""Whether what a model wrote about the rows of a corpus may stand on a page that others will see."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from qoq_data.errors import QoQError
from qoq_data.licence import Redistribution
from qoq_train.report.record import RunRecord

_UNKNOWN = (
    "the licence of the corpus is not known here: the run does not name it, "
    "and the corpus that its recipe names is gone or is another"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """The corpus's licence and what may be passed on of it; None where neither the run nor the corpus says.

    ``reason`` is why nothing of a row may be shown; empty where it may.
    """

    licence: str | None
    redistribution: Redistribution | None
    reason: str


def terms_of(run: RunRecord) -> Terms:
    """What the run's folder says of its corpus, or the corpus itself, where it still is the one of the run.

    Only a corpus whose strictest row is open has its rows shown; what is not known counts as closed.
    """
    if run.redistribution in list(Redistribution):
        return _terms(run.licence, Redistribution(run.redistribution))
    try:
        found = _of_corpus(run)
    except (QoQError, ValidationError, OSError, ValueError):
        found = None
    if found is None:
        return Terms(None, None, _UNKNOWN)
    return _terms(*found)


def _terms(licence: str | None, redistribution: Redistribution) -> Terms:
    if redistribution is Redistribution.OPEN:
        return Terms(licence, redistribution, "")
    of = f" ({licence})" if licence else ""
    return Terms(licence, redistribution, f"the corpus{of} lets its rows be passed on as '{redistribution}' only")


def _of_corpus(run: RunRecord) -> tuple[str, Redistribution] | None:
    from qoq_train.data.corpus import Corpus
    from qoq_train.recipe import DataRecipe

    section = (run.recipe or {}).get("data")
    if not isinstance(section, dict):
        return None
    known = {key: value for key, value in section.items() if key in ("corpus", "sources", "tasks")}
    corpus = Corpus(DataRecipe.model_validate(known))
    return (corpus.licence, corpus.redistribution) if corpus.manifest_sha256 == run.corpus_sha256 else None
