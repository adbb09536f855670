"""The source ``lc25000``: its layout, how the published split leaks, and that copies of an original stay together."""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from PIL import Image

from qoq_data.contract.features import measure_rows, separation
from qoq_data.contract.workspace import build, tables
from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.ledger import from_lines
from qoq_data.corpus.planning import SourceInput
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.recipe import Recipe, SourceRecipe
from qoq_data.source import SourceOptions
from qoq_data.sources import lc25000, source_of
from qoq_data.sources._item_rows import item_of_path

SOURCE = source_of(lc25000)
SEED, PATIENTS = 7, 40


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lc25000")
    lc25000.synthesize(folder, SEED, PATIENTS)
    return folder


@pytest.fixture(scope="module")
def corpus(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    build(SOURCE, synthetic, out)
    return out


def originals() -> dict[str, tuple[str, int]]:
    """What the tree itself does not say: the original of each file."""
    return {copy.path: (copy.label, copy.original) for copy in lc25000.synthetic_copies(SEED, PATIENTS)}


def rows_of(corpus: Path) -> list[dict[str, object]]:
    columns = ["id", "split", "question", "context", "choices", "answer", "images", "provenance"]
    return [row for table in tables(corpus, columns) for row in table.to_pylist()]


def sides(corpus: Path) -> dict[str, str]:
    """Side of each file of the raw tree."""
    return {row["provenance"][0]["path"]: row["split"] for row in rows_of(corpus)}  # type: ignore[index,misc]


def named_tree(folder: Path, *extra: str) -> Store:
    """A tree of empty files: two in each class folder under the publisher's names, and ``extra`` below the root."""
    names = {
        "colon_aca": "colonca",
        "colon_n": "colonn",
        "lung_aca": "lungaca",
        "lung_n": "lungn",
        "lung_scc": "lungscc",
    }
    paths = [
        f"{label.split('_')[0]}_image_sets/{label}/{name}{n}.jpeg" for label, name in names.items() for n in (1, 10)
    ]
    for path in (*paths, *extra):
        file = folder / "lung_colon_image_set" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return Store(folder)


def items_of(tree: Store) -> pl.DataFrame:
    return scan_items(SOURCE, tree, SourceOptions())


def test_s01_every_copy_of_an_original_stands_on_one_side(corpus: Path) -> None:
    found, of = sides(corpus), originals()
    assert found.keys() == of.keys()
    standing = defaultdict(set)
    for path, original in of.items():
        standing[original].add(found[path])
    assert len(standing) == PATIENTS
    assert sum(len(places) > 1 for places in standing.values()) == 0
    assert set(found.values()) == {"train", "validation", "test"}


def test_different_originals_are_not_put_together(corpus: Path) -> None:
    """Of 40 originals about 4 stand in test: with all of a class in one group whole classes would."""
    found, of = sides(corpus), originals()
    by_side = Counter({original: found[path] for path, original in of.items()}.values())
    assert by_side["train"] > by_side["validation"] + by_side["test"]
    assert max(Counter(original[0] for path, original in of.items() if found[path] == "test").values()) < 16


def test_s01_the_published_random_quarter_puts_copies_of_nearly_every_original_on_both_sides() -> None:
    """25 % of each class by a seeded shuffle, at the published size: 250 originals a class and 20 copies each."""
    originals_of_a_class = np.arange(5000) % 250
    crossing = 0
    for label in range(5):
        test = set(Random(42 + label).sample(range(5000), 1250))
        taken = {int(originals_of_a_class[place]) for place in test}
        left = {int(originals_of_a_class[place]) for place in range(5000) if place not in test}
        crossing += len(taken & left)
    assert crossing >= 1240  # of 1,250


def test_s01_the_published_way_leaks_on_the_synthetic_tree(synthetic: Path) -> None:
    of = originals()
    test_side: set[str] = set()
    for folder in lc25000.FOLDERS:
        paths = sorted(path for path in Store(synthetic).walk() if path.startswith(f"{folder.path}/"))
        test_side |= set(Random(42).sample(paths, len(paths) // 4))
    seen = {of[path] for path in of if path not in test_side}
    leaked = [path for path in test_side if of[path] in seen]
    assert len(leaked) > 0.9 * len(test_side) > 0


def test_without_the_inspector_copies_cross(synthetic: Path, tmp_path: Path) -> None:
    """The groups come from ``picture_originals``: few copies have equal pixels or near hashes."""
    plain = replace(SOURCE, spec=replace(lc25000.SPEC, inspectors=("picture_content",)))
    build(plain, synthetic, tmp_path / "out")
    found = sides(tmp_path / "out")
    standing = defaultdict(set)
    for path, original in originals().items():
        standing[original].add(found[path])
    assert sum(len(places) > 1 for places in standing.values()) > PATIENTS // 3


def test_scan_names_items_by_digest_and_opens_no_picture(tmp_path: Path) -> None:
    items = items_of(named_tree(tmp_path))
    path = "lung_colon_image_set/lung_image_sets/lung_scc/lungscc10.jpeg"
    row = items.filter(pl.col("item") == item_of_path(path)).row(0, named=True)
    assert row["answer.diagnosis"] == ["lung_scc"]
    assert row["media"] == [{"role": "image", "kind": "image", "path": path, "part": ""}]
    assert (row["patient"], row["official_split"], row["label_file"]) == (None, None, path)
    assert Counter(answer[0] for answer in items["answer.diagnosis"]) == dict.fromkeys(
        ("colon_aca", "colon_n", "lung_aca", "lung_n", "lung_scc"), 2
    )
    assert items["group"].n_unique() == 10


def test_a_picture_named_after_another_class_has_no_answer(tmp_path: Path) -> None:
    odd = ("lung_aca/lungn7.jpeg", "lung_aca/Thumbs.db", "lung_aca/lungaca01.jpeg")
    tree = named_tree(tmp_path, *(f"lung_image_sets/{name}" for name in odd))
    items = items_of(tree)
    skipped = items.filter(pl.col("skip_reason").is_not_null())
    assert skipped.select("label_file", "skip_reason", "answer.diagnosis").rows() == [
        ("lung_colon_image_set/lung_image_sets/lung_aca/lungn7.jpeg", "label_conflict", None)
    ]
    counts = lc25000.statistics(tree, SourceOptions())
    assert counts == {
        "colon_aca_pictures": 2,
        "colon_n_pictures": 2,
        "lung_aca_pictures": 4,
        "lung_n_pictures": 2,
        "lung_scc_pictures": 2,
        "files_that_are_no_picture": 1,
        "pictures_of_unknown_name": 1,
        "pictures_named_after_another_class": 1,
    }


@pytest.mark.parametrize("absent", [folder.path for folder in lc25000.FOLDERS])
def test_a_missing_or_empty_class_folder_is_named(absent: str, tmp_path: Path) -> None:
    tree = named_tree(tmp_path)
    for file in (tmp_path / absent).iterdir():
        file.unlink()
    with pytest.raises(LayoutError, match=f"{absent}/ holds no picture"):
        items_of(tree)
    (tmp_path / absent).rmdir()
    with pytest.raises(LayoutError, match=f"there is no folder {absent}/"):
        lc25000.statistics(tree, SourceOptions())


def test_the_flattened_copy_is_refused(tmp_path: Path) -> None:
    for folder in ("colon_aca", "colon_n", "lung_aca", "lung_n", "lung_scc"):
        (tmp_path / folder).mkdir()
    with pytest.raises(LayoutError, match="there is no folder lung_colon_image_set/"):
        items_of(Store(tmp_path))


def test_an_html_page_and_a_cut_file_in_place_of_pictures_are_ledger_lines(synthetic: Path, tmp_path: Path) -> None:
    tree = tmp_path / "raw"
    shutil.copytree(synthetic, tree)
    page, cut = (f"{lc25000.FOLDERS[place].path}/{name}1.jpeg" for place, name in ((2, "lungaca"), (3, "lungn")))
    (tree / page).write_bytes(b"<!DOCTYPE html><html>not found</html>")
    (tree / cut).write_bytes((tree / cut).read_bytes()[:1500])
    recipe = Recipe(name="test", sources=(SourceRecipe(name="lc25000", skip_limit=0.1),))
    out = tmp_path / "out"
    build_corpus(recipe, [SourceInput(SOURCE, recipe.sources[0], Store(tree))], Store(out), LocalEngine(1))
    ledger = {skip.path: skip.reason for skip in from_lines((out / "skipped.jsonl").read_text(encoding="utf-8"))}
    assert ledger == {page: "image_format_not_allowed", cut: "image_undecodable"}
    assert len(rows_of(out)) == len(originals()) - 2


def test_s03_no_class_where_a_model_can_read_it(corpus: Path) -> None:
    for row in rows_of(corpus):
        shown = [row["id"], row["question"], row["context"], *(str(image["path"]) for image in row["images"])]  # type: ignore[attr-defined]
        assert not re.search("aca|scc|_n\\b|lung|colon|cancer|carcinoma|normal", " ".join(shown).lower())  # type: ignore[arg-type]
        assert row["choices"] == [
            "colon adenocarcinoma",
            "normal colon tissue",
            "lung adenocarcinoma",
            "normal lung tissue",
            "lung squamous cell carcinoma",
        ]


def test_answers_are_those_of_the_folders(corpus: Path) -> None:
    texts = {choice.key: [choice.text] for choice in lc25000.SPEC.task("diagnosis").choices}
    answers = {row["provenance"][0]["path"]: row["answer"] for row in rows_of(corpus)}  # type: ignore[index]
    assert answers == {path: texts[original[0]] for path, original in originals().items()}


def test_labels_can_be_seen(corpus: Path) -> None:
    (shown,) = lc25000.SPEC.synthetic
    found = separation(measure_rows(corpus, "lc25000", "diagnosis", shown.features))
    assert len(found.classes) == 5
    assert found.balanced_accuracy > 0.8


def test_ids_only_may_be_passed_on() -> None:
    assert strictest(lc25000.SPEC.licences.values()) == ("LicenseRef-LC25000", Redistribution.IDS)


def test_synthesize_follows_from_its_seed_and_needs_few_patients(tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        lc25000.synthesize(tmp_path / name, seed, 5)
        tree = Store(tmp_path / name)
        found.append({path: tree.sha256(path) for path in tree.walk()})
    first, again, other = found
    assert first == again
    assert not set(first.values()) & set(other.values())
    lc25000.synthesize(tmp_path / "d", 3, 1)
    assert items_of(Store(tmp_path / "d"))["answer.diagnosis"].list.first().n_unique() == 5


def test_numbers_of_files_say_nothing_of_their_originals(synthetic: Path) -> None:
    """Neighbours by number are of one original no oftener than by chance, and no file has a date or a comment."""
    numbered = {(label, int(re.findall(r"\d+", path)[-1])): of for path, (label, of) in originals().items()}
    neighbours = [numbered.get((label, n + 1)) == of for (label, n), of in numbered.items()]
    assert np.mean(neighbours) < 0.25
    with Image.open(next(synthetic.rglob("*.jpeg"))) as picture:
        assert (picture.format, picture.mode, picture.width) == ("JPEG", "RGB", picture.height)
        assert not picture.getexif()
