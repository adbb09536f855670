"""A corpus of four sources for the tests of training, built once, and copies of it with rows that were changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import qoq_data.corpus.shard
from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.shard import table_to_parquet
from qoq_data.engines.local import LocalEngine
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe
from qoq_data.record import SCHEMA
from qoq_data.sources import get_source

if TYPE_CHECKING:
    from qoq_train.models.loading import Policy

Row = dict[str, Any]
Changed = Callable[[Callable[[Row], None]], Path]

PATIENTS = {"busi": 12, "ham10000": 8, "jichi": 4, "ptb-xl": 8}
OPTIONS = {"ptb-xl": {"sampling_frequency_hz": 100}}


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished corpus, every task of every record, with shards of 16 rows in several row groups; to be read only."""
    folder = tmp_path_factory.mktemp("corpus")
    recipe = Recipe.model_validate(
        {
            "name": "train",
            "rows_per_record": "all",
            "sources": [{"name": name, "skip_limit": 1.0, "options": OPTIONS.get(name, {})} for name in PATIENTS],
            "shards": {"rows": 16},
        }
    )
    inputs = []
    for entry in recipe.sources:
        raw = tmp_path_factory.mktemp(entry.name)
        source = get_source(entry.name)
        source.synthesize(raw, 3, PATIENTS[entry.name])
        inputs.append(SourceInput(source, entry, Store(raw), synthetic=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qoq_data.corpus.shard, "ROW_GROUP_BYTES", 60_000)
        build_corpus(recipe, inputs, Store(folder), LocalEngine(1), None)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each family, by its name."""
    from tests.train.policies import model_folder, write_text_model

    root = tmp_path_factory.mktemp("models")
    vision = ("qwen2_5_vl", "qwen3_vl")
    return {family: model_folder(family, root / family) for family in vision} | {
        "text": write_text_model(root / "text")
    }


@pytest.fixture(scope="module")
def policies(folders: dict[str, Path]) -> dict[str, Policy]:
    """The same, loaded."""
    from tests.train.policies import policy_at

    return {name: policy_at(folder) for name, folder in folders.items()}


@pytest.fixture
def changed(corpus_folder: Path, tmp_path: Path) -> Changed:
    """A copy of the corpus in which each row went through a change, its manifest as if it had been built so."""

    def make(change: Callable[[Row], None]) -> Path:
        copy = Path(shutil.copytree(corpus_folder, tmp_path / "changed"))
        manifest = json.loads((copy / "manifest.json").read_text())
        for entry in manifest["shards"]:
            rows = pq.read_table(copy / entry["path"]).to_pylist()
            for row in rows:
                change(row)
            data = table_to_parquet(pa.Table.from_pylist(rows, SCHEMA), "lz4")
            (copy / entry["path"]).write_bytes(data)
            entry["bytes"] = len(data)
        (copy / "manifest.json").write_text(json.dumps(manifest))
        return copy

    return make
