"""Two synthetic corpora of seven domains for the tiny model: a very uneven one to train on, an even one to judge by."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.planning import SourceInput
from qoq_data.engines.local import LocalEngine
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe
from qoq_data.sources import get_source

if TYPE_CHECKING:
    from collections.abc import Mapping

TASKS: Final = {
    "ct-ich": "haemorrhage",
    "pad-ufes-20": "five_classes",
    "lc25000": "diagnosis",
    "jichi": "davis_stage",
    "coronahack": "pneumonia_type",
    "busi": "diagnosis",
    "brain-tumor": "tumor_type",
}
"""One source a domain, the most frequent first, and what is asked of it."""

UNEVEN: Final = {
    "ct-ich": 110, "pad-ufes-20": 100, "lc25000": 72, "jichi": 72, "coronahack": 80, "busi": 70, "brain-tumor": 50,
}  # fmt: skip
"""Patients of the generated trees that make a training corpus whose domains fall from a third to three in a hundred."""

EVEN: Final = {
    "ct-ich": 20, "pad-ufes-20": 50, "lc25000": 28, "jichi": 40, "coronahack": 70, "busi": 110, "brain-tumor": 150,
}  # fmt: skip
"""Patients, other ones, that make about 90 rows of each."""


def build(folder: Path, name: str, patients: Mapping[str, int], seed: int) -> Path:
    """The corpus of these sources in ``folder``, built unless it is finished there already; gives the folder."""
    if (folder / "manifest.json").exists():
        return folder
    entries: list[dict[str, Any]] = [
        {"name": source, "tasks": [TASKS[source]], "skip_limit": 1.0} for source in patients
    ]
    recipe = Recipe.model_validate({"name": name, "rows_per_record": "all", "sources": entries})
    with tempfile.TemporaryDirectory(prefix="qoq-") as scratch:
        inputs = []
        for entry in recipe.sources:
            raw = Path(scratch) / entry.name
            source = get_source(entry.name)
            source.synthesize(raw, seed, patients[entry.name])
            inputs.append(SourceInput(source, entry, Store(raw), synthetic=True))
        build_corpus(recipe, inputs, Store(folder), LocalEngine(1), None)
    return folder
