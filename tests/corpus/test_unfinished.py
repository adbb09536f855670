"""A corpus that is being changed has no manifest and no card, so that nobody takes it for a whole one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from qoq_data.corpus.build import CARD, build_corpus
from qoq_data.corpus.manifest import MANIFEST, read_manifest
from qoq_data.corpus.planning import SourceInput
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import BuildError, CorpusError
from qoq_data.formats.storage import Store
from qoq_data.recipe import ImageRecipe, default_recipe
from qoq_data.sources import get_source


class StopsAtTheShards:
    """An engine that inspects, and then dies before the first shard."""

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Generator[Any, None, None]:
        if function.__name__ != "_named_run":
            yield from LocalEngine().map(function, jobs)
            return
        raise BuildError("the engine stopped")


def test_a_build_that_stops_leaves_no_manifest_of_the_one_before(tmp_path: Path) -> None:
    source = get_source("busi")
    raw = tmp_path / "raw"
    raw.mkdir()
    source.synthesize(raw, 0, 6)
    recipe = default_recipe(source)
    inputs = [SourceInput(source, recipe.sources[0], Store(raw))]
    corpus = Store(tmp_path / "corpus")
    build_corpus(recipe, inputs, corpus, LocalEngine())
    corpus.write(CARD, b"a card")
    changed = recipe.model_copy(update={"images": ImageRecipe(longest_side=64)})
    with pytest.raises(BuildError, match="the engine stopped"):
        build_corpus(changed, inputs, corpus, StopsAtTheShards())
    assert not corpus.exists(MANIFEST)
    assert not corpus.exists(CARD)
    with pytest.raises(CorpusError, match="not finished: run the same build again"):
        read_manifest(corpus)
    build_corpus(changed, inputs, corpus, LocalEngine())
    assert read_manifest(corpus).recipe["images"]["longest_side"] == 64
