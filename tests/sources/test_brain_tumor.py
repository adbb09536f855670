"""The source ``brain-tumor``: its folders, what the published conversion gets wrong, and real pictures."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from qoq_data.contract.workspace import build, item_of, tables
from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.inspect import inspect_items, same_content
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.trace import trace_row
from qoq_data.corpus.verify import verify_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, SkipLimitError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.recipe import Recipe
from qoq_data.source import SourceOptions
from qoq_data.sources import brain_tumor, source_of

SOURCE = source_of(brain_tumor)
LABELS = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brain-tumor")
    brain_tumor.synthesize(folder, 7, 32)
    return folder


@pytest.fixture
def tree(synthetic: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(synthetic, tmp_path / "raw"))


def items_of(folder: Path) -> pl.DataFrame:
    return scan_items(SOURCE, Store(folder), SourceOptions())


def listed(folder: Path) -> dict[str, tuple[str, str]]:
    """Side and class of every picture as the folders have them, by path."""
    return {
        path.relative_to(folder).as_posix(): (path.parts[-3], path.parent.name)
        for path in folder.rglob("*.jpg")
        if path.parent.name in LABELS
    }


def sides_of(corpus: Path, items: pl.DataFrame) -> dict[str, str]:
    """The side of every row of a corpus, by the path of its picture."""
    paths = {item: media[0]["path"] for item, media in items.select("item", "media").iter_rows()}
    rows = [row for table in tables(corpus, ["id", "split"]) for row in table.to_pylist()]
    return {paths[item_of(row["id"], "brain-tumor")]: row["split"] for row in rows}


def test_items_are_the_pictures_of_the_folders(synthetic: Path) -> None:
    expected = listed(synthetic)
    items = items_of(synthetic)
    assert items.height == len(expected) == 34
    for path, side, answer in items.select("label_file", "official_split", "answer.tumor_type").iter_rows():
        part, label = expected[path]
        assert (side, answer) == ({"Training": "train", "Testing": "test"}[part], [label])
    assert brain_tumor.statistics(Store(synthetic), SourceOptions())["files_that_are_no_picture"] == 0


def test_s01_a_copy_crosses_by_folder_and_stands_on_the_test_side_in_a_build(synthetic: Path, tmp_path: Path) -> None:
    build(SOURCE, synthetic, tmp_path / "out")
    sides = sides_of(tmp_path / "out", items_of(synthetic))
    published = {path: part for path, (part, _) in listed(synthetic).items()}
    recoded = ("Training/meningioma_tumor/m (1).jpg", "Testing/meningioma_tumor/image(32).jpg")
    assert {published[path] for path in recoded} == {"Training", "Testing"}
    assert {sides[path] for path in recoded} == {"test"}
    twins = [synthetic / f"Testing/glioma_tumor/{name}.jpg" for name in ("image", "image(2)")]
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in twins}) == 1
    assert {sides[path.relative_to(synthetic).as_posix()] for path in twins} == {"test"}
    assert {"train", "validation"} >= {
        side for path, side in sides.items() if path.startswith("Training/") and path not in recoded
    }
    assert len(sides) == 34


def test_s03_no_class_in_question_context_or_id(synthetic: Path) -> None:
    items = items_of(synthetic)
    assert not [column for column in items.columns if column.startswith("context.")]
    assert items["item"].str.contains(r"^[0-9a-f]{16}$").all()
    (task,) = brain_tumor.SPEC.tasks
    assert not re.search("glioma|meningioma|pituitary|tumou?r", " ".join(task.wordings).lower())
    assert [choice.key for choice in task.choices] == ["no_tumor", *(label for label in LABELS if label != "no_tumor")]
    assert all(any(label in path for label in LABELS) for path in items["label_file"])


def test_t08_equal_pictures_in_two_classes_are_asked_in_neither(tree: Path, tmp_path: Path) -> None:
    shutil.copy(tree / "Testing/glioma_tumor/image(5).jpg", tree / "Training/no_tumor/image(999).jpg")
    with pytest.raises(SkipLimitError, match="label_conflict"):
        build(SOURCE, tree, tmp_path / "out")


@pytest.mark.parametrize("folder", ["Training/glioma_tumor", "Testing/no_tumor"])
def test_an_absent_and_an_empty_folder_are_named(folder: str, tree: Path) -> None:
    for file in (tree / folder).iterdir():
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(LayoutError, match=f"{folder}/ holds no picture"):
        items_of(tree)
    (tree / folder).rename(tree / f"{folder}s")
    with pytest.raises(LayoutError, match=f"there is no folder {folder}/"):
        items_of(tree)


def test_a_cut_picture_and_a_web_page_are_ledger_lines(tree: Path, tmp_path: Path) -> None:
    cut, page = tree / "Training/no_tumor/image(1).jpg", tree / "Training/glioma_tumor/gg (1).jpg"
    cut.write_bytes(cut.read_bytes()[:900])
    page.write_bytes(b"<html><body>Sign in</body></html>")
    with pytest.raises(SkipLimitError) as caught:
        build(SOURCE, tree, tmp_path / "out")
    assert "image_format_not_allowed" in str(caught.value)
    assert "image_undecodable" in str(caught.value)


def test_other_files_are_counted_and_never_items(tree: Path) -> None:
    for name in (
        "Training/no_tumor/Thumbs.db",
        "Training/no_tumor/._image(1).jpg",
        "Testing/no_tumor/old/image(9).jpg",
    ):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
    assert items_of(tree).height == 34
    assert brain_tumor.statistics(Store(tree), SourceOptions())["files_that_are_no_picture"] == 3


def test_ids_alone_of_pictures_may_be_passed_on() -> None:
    assert strictest(brain_tumor.SPEC.licences.values()) == ("LicenseRef-Brain-Tumor-MRI AND MIT", Redistribution.IDS)


def test_a_tree_of_few_patients_has_every_folder(tmp_path: Path) -> None:
    brain_tumor.synthesize(tmp_path, 1, 1)
    assert items_of(tmp_path).height == 8


def test_real_pictures_are_listed_as_they_stand(realdata: Path) -> None:
    folder = realdata / "brain-tumor-classification-mri"
    expected = listed(folder)
    found = items_of(folder).select("label_file", "official_split", "answer.tumor_type").rows()
    assert len(found) == 18
    assert {path: ({"train": "Training", "test": "Testing"}[side], label[0]) for path, side, label in found} == expected


def test_real_pictures_are_built_verified_and_traced(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "brain-tumor-classification-mri"
    recipe = Recipe.model_validate({"name": "test", "sources": [{"name": "brain-tumor"}]})
    inputs = [SourceInput(SOURCE, recipe.sources[0], Store(folder))]
    corpus = Store(tmp_path / "out")
    manifest = build_corpus(recipe, inputs, corpus, LocalEngine(1))
    assert (manifest.rows, manifest.sources[0].items, manifest.sources[0].skipped) == (18, 18, {})
    assert verify_corpus(corpus, manifest, inputs).problems == ()
    rows = [row for table in tables(tmp_path / "out", ["id", "answer", "provenance"]) for row in table.to_pylist()]
    expected = listed(folder)
    for row in rows:
        assert trace_row(corpus, manifest, recipe, row["id"], inputs, LocalEngine()).agrees
        (path,) = {one["path"] for one in row["provenance"]}
        assert row["answer"] == [brain_tumor.CLASSES[expected[path][1]]]
    items = items_of(folder)
    sides = sides_of(tmp_path / "out", items)
    facts, _ = inspect_items(items, "brain-tumor", "picture_content", Store(folder), None, "", LocalEngine(1))
    paths = dict(items.select("item", "label_file").iter_rows())
    (pair,) = same_content(facts)
    twins = [paths[facts["item"][row]] for row in pair]
    assert sorted(twins) == [f"Testing/glioma_tumor/{name}.jpg" for name in ("image(1)", "image")]
    assert len({hashlib.sha256((folder / path).read_bytes()).digest() for path in twins}) == 1
    assert {path for path, side in sides.items() if side == "test"} == {
        path for path, (part, _) in expected.items() if part == "Testing"
    }


def test_real_folder_given_one_level_too_low_and_others_are_refused(realdata: Path) -> None:
    for other in ("brain-tumor-classification-mri/Training", "busi", "pad-ufes-20"):
        with pytest.raises(LayoutError, match="there is no folder Training/no_tumor/"):
            items_of(realdata / other)
