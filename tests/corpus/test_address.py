"""Raw trees and corpora at an ``fsspec`` address: the same bytes as in a local folder."""

from __future__ import annotations

from pathlib import Path

import fsspec

from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.manifest import read_manifest
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.verify import verify_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.formats.storage import Store
from qoq_data.recipe import default_recipe
from qoq_data.sources import get_source


def test_a_corpus_built_from_and_to_an_address_has_the_bytes_of_a_local_one(tmp_path: Path) -> None:
    source = get_source("busi")
    raw = tmp_path / "raw"
    raw.mkdir()
    source.synthesize(raw, 0, 12)
    memory = fsspec.filesystem("memory")
    for path in raw.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/address-raw/{path.relative_to(raw).as_posix()}", path.read_bytes())
    recipe = default_recipe(source)
    here = [SourceInput(source, recipe.sources[0], Store(raw))]
    there = [SourceInput(source, recipe.sources[0], Store("memory://address-raw"))]
    local, remote = Store(tmp_path / "corpus"), Store("memory://address-corpus")
    wanted = build_corpus(recipe, here, local, LocalEngine())
    assert build_corpus(recipe, there, remote, LocalEngine()) == wanted
    assert read_manifest(remote).to_json() == read_manifest(local).to_json()
    for shard in wanted.shards:
        assert remote.read(shard.path) == local.read(shard.path)
    assert verify_corpus(remote, wanted, there).problems == ()
    rendered: list[bool] = []
    build_corpus(recipe, there, remote, LocalEngine(), lambda done, total, reused: rendered.append(not reused))
    assert not any(rendered)
