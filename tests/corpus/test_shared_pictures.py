"""A picture that stands in two sources is one picture: test in one of them is test in the other."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.planning import SourceInput
from qoq_data.engines.local import LocalEngine
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe, combined_recipe, parse_recipe
from qoq_data.sources import get_source, registry
from tests.corpus.building import rows_of

NAMES = ("brain-tumor", "brain-tumor-2")


def built(trees: dict[str, Path], out: Path, recipe: Recipe) -> dict[str, str]:
    """Side of each row by the path of its picture, which starts with the source's name."""
    inputs = [SourceInput(get_source(one.name), one, Store(trees[one.name])) for one in recipe.sources]
    build_corpus(recipe, inputs, Store(out), LocalEngine())
    return {f"{row['source']}/{row['provenance'][0]['path']}": row["split"] for row in rows_of(out).values()}


def test_s01_pictures_of_two_sources_are_one_group(tmp_path: Path) -> None:
    trees = {name: tmp_path / name for name in NAMES}
    for name, tree in trees.items():
        get_source(name).synthesize(tree, 3, 24)
    tests = sorted((trees["brain-tumor"] / "Testing").rglob("*.jpg"))[:6]
    for number, path in enumerate(tests):
        copy = trees["brain-tumor-2"] / "yes" / f"copy{number}.png"
        if number % 2:
            with Image.open(path) as picture:
                picture.transpose(Image.Transpose.ROTATE_90).save(copy)
        else:
            shutil.copy(path, copy.with_suffix(".jpg"))
    recipe = parse_recipe(combined_recipe(NAMES, registry()), "both", registry())
    sides = built(trees, tmp_path / "both", recipe)
    copies = {path: side for path, side in sides.items() if path.startswith("brain-tumor-2/yes/copy")}
    assert len(copies) == len(tests)
    assert set(copies.values()) == {"test"}
    alone = recipe.model_copy(update={"sources": recipe.sources[1:]})
    apart = built(trees, tmp_path / "alone", alone)
    assert {apart[path] for path in copies} != {"test"}, "the copies were test by chance: take another seed"
