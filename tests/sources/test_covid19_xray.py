"""The source ``covid19-xray``: its three folders, what the published conversion gets wrong, and its synthetic tree."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from qoq_data.contract.workspace import build, item_of, tables
from qoq_data.corpus.items import scan_items
from qoq_data.errors import LayoutError, SkipLimitError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.source import SourceOptions
from qoq_data.sources import covid19_xray, source_of
from qoq_data.sources._class_folders import is_picture

SOURCE = source_of(covid19_xray)
LABELS = tuple(covid19_xray.CLASSES)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("covid19-xray")
    covid19_xray.synthesize(folder, 7, 32)
    return folder


@pytest.fixture
def tree(synthetic: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(synthetic, tmp_path / "raw"))


@pytest.fixture(scope="module")
def sides(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The side of every picture in a corpus built from the synthetic tree, by its path."""
    out = tmp_path_factory.mktemp("covid19-xray-corpus") / "out"
    build(SOURCE, synthetic, out)
    found = {
        item_of(row["id"], "covid19-xray"): row["split"]
        for table in tables(out, ["id", "split"])
        for row in table.to_pylist()
    }
    paths = {item: media[0]["path"] for item, media in items_of(synthetic).select("item", "media").iter_rows()}
    return {paths[item]: side for item, side in found.items()}


def items_of(folder: Path) -> pl.DataFrame:
    return scan_items(SOURCE, Store(folder), SourceOptions())


def paths_of(folder: Path) -> list[str]:
    return sorted(media[0]["path"] for media in items_of(folder)["media"])


def published_walk(folder: Path, part: str) -> list[tuple[str, str]]:
    """The published way: every picture below a part, its label the folder that it is in."""
    found = (path for path in sorted((folder / part).rglob("*")) if is_picture(path.name))
    return [(path.relative_to(folder).as_posix(), path.parent.name) for path in found]


def test_items_are_the_pictures_of_the_original_films_and_of_the_test_part(synthetic: Path) -> None:
    items = items_of(synthetic)
    for part, side in (("NonAugmentedTrain", "train"), ("ValData", "test")):
        for label in LABELS:
            expected = sorted(path.relative_to(synthetic).as_posix() for path in (synthetic / part / label).iterdir())
            here = items.filter(pl.col("label_row") == f"folder {part}/{label}")
            assert sorted(here["label_file"]) == expected
            assert here["official_split"].unique().to_list() == [side]
            assert here["answer.pneumonia_type"].unique().to_list() == [[label]]
    assert items.height == 34
    assert covid19_xray.detect_version(Store(synthetic)) == "films as taken"


def test_the_published_walk_takes_augmented_copies_and_ours_counts_them(synthetic: Path) -> None:
    walked = published_walk(synthetic, "TrainData")
    oversampled = {path for path, _ in walked if "/OversampledAugmentedCOVID-19/" in path}
    assert len(oversampled) == 10
    assert {label for path, label in walked if path in oversampled} == {"COVID-19"}
    assert not set(paths_of(synthetic)) & {path for path, _ in walked}
    counts = covid19_xray.statistics(Store(synthetic), SourceOptions())
    assert counts["oversampled_copies_left_out"] == len(oversampled)
    assert counts["augmented_films_left_out"] == len(walked) - len(oversampled)


def test_without_the_original_films_the_augmented_are_read_and_the_oversampled_never(tree: Path) -> None:
    shutil.rmtree(tree / "NonAugmentedTrain")
    train = [path for path in paths_of(tree) if path.startswith("TrainData/")]
    assert sorted(train) == sorted(path for path, _ in published_walk(tree, "TrainData") if "Oversampled" not in path)
    counts = covid19_xray.statistics(Store(tree), SourceOptions())
    assert (counts["augmented_films_left_out"], counts["oversampled_copies_left_out"]) == (0, 10)
    assert covid19_xray.detect_version(Store(tree)) == "augmented films"


def test_without_the_augmented_films_nothing_changes(tree: Path) -> None:
    before = items_of(tree)
    shutil.rmtree(tree / "TrainData")
    assert items_of(tree).equals(before)


def test_no_train_part_a_lost_class_and_a_lost_test_part_are_one_error_each(tree: Path) -> None:
    shutil.rmtree(tree / "NonAugmentedTrain" / "COVID-19")
    with pytest.raises(LayoutError, match="there is no folder NonAugmentedTrain/COVID-19/"):
        items_of(tree)
    (tree / "NonAugmentedTrain").rename(tree / "Train")
    (tree / "TrainData").rename(tree / "Augmented")
    for look in (items_of, lambda folder: covid19_xray.detect_version(Store(folder))):
        with pytest.raises(
            LayoutError, match="neither NonAugmentedTrain/ nor TrainData/ is in the raw folder"
        ) as caught:
            look(tree)
        assert str(tree) not in str(caught.value)
    (tree / "Augmented").rename(tree / "TrainData")
    (tree / "ValData" / "Normal").rename(tree / "ValData" / "normal lungs")
    with pytest.raises(LayoutError, match="there is no folder ValData/Normal/"):
        items_of(tree)


def test_an_empty_class_folder_is_refused(tree: Path) -> None:
    for file in (tree / "ValData" / "ViralPneumonia").iterdir():
        file.unlink()
    with pytest.raises(LayoutError, match="ValData/ViralPneumonia/ holds no picture"):
        items_of(tree)


def test_web_pages_in_the_place_of_pictures_stop_a_build(tree: Path, tmp_path: Path) -> None:
    for file in (tree / "ValData" / "Normal").iterdir():
        file.write_bytes(b"<!doctype html><title>Sign in</title>")
    with pytest.raises(SkipLimitError, match="image_format_not_allowed|image_undecodable"):
        build(SOURCE, tree, tmp_path / "out")


def test_s01_copies_cross_by_folder_and_never_in_a_build(synthetic: Path, sides: dict[str, str]) -> None:
    digests: dict[str, set[str]] = {}
    for part in ("NonAugmentedTrain", "ValData"):
        for path, _ in published_walk(synthetic, part):
            digest = hashlib.sha256((synthetic / path).read_bytes()).hexdigest()
            digests.setdefault(digest, set()).add(part)
    assert sum(len(parts) == 2 for parts in digests.values()) == 1
    copies = ["NonAugmentedTrain/Normal/32.jpeg", "ValData/Normal/1.jpeg"]
    mirrored = ["NonAugmentedTrain/BacterialPneumonia/32.jpeg", "ValData/BacterialPneumonia/1.jpeg"]
    assert {sides[path] for path in copies} == {sides[path] for path in mirrored} == {"test"}
    others = {side for path, side in sides.items() if path.startswith("Non") and path not in copies + mirrored}
    assert others <= {"train", "validation"}
    assert len(sides) == 34


def test_s03_no_class_in_question_context_or_id(synthetic: Path) -> None:
    items = items_of(synthetic)
    assert not [column for column in items.columns if column.startswith("context.")]
    assert items["item"].str.contains(r"^[0-9a-f]{16}$").all()
    said = " ".join(covid19_xray.SPEC.task("pneumonia_type").wordings).lower()
    assert not re.search("normal|bacteri|viral|virus|covid|pneumonia", said)
    published = [path for path, _ in published_walk(synthetic, "ValData")]
    assert all(any(label in path for label in LABELS) for path in published)


def test_t08_pictures_of_equal_content_in_two_classes_are_asked_in_neither(tree: Path, tmp_path: Path) -> None:
    shutil.copy(tree / "ValData/Normal/1.jpeg", tree / "ValData/ViralPneumonia/77.jpeg")
    with pytest.raises(SkipLimitError, match=r"label_conflict"):
        build(SOURCE, tree, tmp_path / "out")


def test_choices_are_the_published_classes_and_ids_alone_may_be_passed_on() -> None:
    (task,) = covid19_xray.SPEC.tasks
    assert [choice.key for choice in task.choices] == ["Normal", "BacterialPneumonia", "ViralPneumonia", "COVID-19"]
    assert [choice.text for choice in task.choices] == ["Normal", "Bacterial pneumonia", "Viral pneumonia", "COVID-19"]
    expression, redistribution = strictest(covid19_xray.SPEC.licences.values())
    assert redistribution is Redistribution.IDS
    assert expression == "LicenseRef-COVID-19-Detection-X-Ray AND CC-BY-4.0"


def test_a_tree_of_few_patients_has_every_folder(tmp_path: Path) -> None:
    covid19_xray.synthesize(tmp_path, 1, 1)
    assert items_of(tmp_path).height == 8


def test_real_folders_of_other_sources_are_refused(realdata: Path) -> None:
    for other in ("brain-tumor-classification-mri", "busi", "coronahack"):
        with pytest.raises(LayoutError, match="neither NonAugmentedTrain/ nor TrainData/"):
            items_of(realdata / other)
