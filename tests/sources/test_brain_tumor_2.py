"""The source ``brain-tumor-2``: two folders, their repeat, and what the published conversion gets wrong."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from qoq_data.contract.workspace import build, item_of, tables
from qoq_data.corpus.doctor import examine
from qoq_data.corpus.items import scan_items
from qoq_data.errors import LayoutError, SkipLimitError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.source import SourceOptions
from qoq_data.sources import brain_tumor_2, source_of
from qoq_data.sources._class_folders import is_picture

SOURCE = source_of(brain_tumor_2)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brain-tumor-2")
    brain_tumor_2.synthesize(folder, 7, 30)
    return folder


@pytest.fixture
def tree(synthetic: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(synthetic, tmp_path / "raw"))


def items_of(folder: Path) -> pl.DataFrame:
    return scan_items(SOURCE, Store(folder), SourceOptions())


def statistics(folder: Path) -> dict[str, int]:
    return dict(brain_tumor_2.statistics(Store(folder), SourceOptions()))


def published_walk(folder: Path) -> list[str]:
    """The published way in short: every picture anywhere below, in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if is_picture(path.name))


def test_the_published_walk_finds_every_picture_twice_and_ours_once(synthetic: Path) -> None:
    walked = published_walk(synthetic)
    items = items_of(synthetic)
    assert len(walked) == 62
    assert sorted(items["label_file"]) == [path for path in walked if not path.startswith("brain_tumor_dataset/")]
    assert items.height == 31
    assert items["answer.tumor"].list.first().to_list() == [path.split("/")[0] for path in items["label_file"]]
    assert items["skip_reason"].null_count() == 31
    counts = statistics(synthetic)
    assert {name: counts[name] for name in counts if counts[name]} == {
        "no_pictures": 12,
        "yes_pictures": 19,
        "repeated_pictures": 31,
    }


def test_s01_repeats_and_copies_cross_in_a_shuffled_split_and_never_in_a_build(synthetic: Path, tmp_path: Path) -> None:
    walked = published_walk(synthetic)
    random.Random(42).shuffle(walked)
    sides = {path: "train" if place < 0.8 * len(walked) else "test" for place, path in enumerate(walked)}
    crossing = [path for path in sides if sides.get(f"brain_tumor_dataset/{path}", sides[path]) != sides[path]]
    assert len(crossing) > 3

    build(SOURCE, synthetic, tmp_path / "out")
    paths = dict(items_of(synthetic).select("item", "label_file").iter_rows())
    rows = [row for table in tables(tmp_path / "out", ["id", "split"]) for row in table.to_pylist()]
    ours = {paths[item_of(row["id"], "brain-tumor-2")]: row["split"] for row in rows}
    assert len(ours) == 31
    assert ours["yes/Y2.jpg"] == ours["yes/Y31.jpg"]
    groups: Counter[str] = Counter(ours.values())
    assert set(groups) == {"train", "validation", "test"}


def test_endings_in_any_letter_case_are_read(synthetic: Path) -> None:
    endings = {path.rpartition(".")[2] for path in items_of(synthetic)["label_file"]}
    assert endings == {"jpg", "JPG", "jpeg", "png"}


def test_a_picture_that_only_the_repeat_has_is_a_ledger_line(tree: Path) -> None:
    (tree / "yes" / "Y1.jpg").unlink()
    row = items_of(tree).filter(pl.col("label_file") == "yes/Y1.jpg").row(0, named=True)
    assert (row["skip_reason"], row["answer.tumor"]) == ("file_missing", None)
    assert row["skip_detail"] == "the picture stands in the repeat under brain_tumor_dataset/ alone"
    assert statistics(tree)["pictures_only_in_the_repeat"] == 1
    assert items_of(tree).height == 31


def test_a_picture_that_the_repeat_lacks_is_an_item_and_counted(tree: Path) -> None:
    (tree / "brain_tumor_dataset" / "no" / "4 no.jpg").unlink()
    (tree / "brain_tumor_dataset" / "yes" / "Y1.jpg").write_bytes(b"")
    items = items_of(tree)
    assert (items.height, items["skip_reason"].null_count()) == (31, 31)
    counts = statistics(tree)
    assert (counts["pictures_not_in_the_repeat"], counts["repeated_pictures"]) == (1, 30)
    assert counts["repeated_pictures_of_another_size"] == 1


def test_without_the_repeat_nothing_changes(tree: Path) -> None:
    before = items_of(tree)
    shutil.rmtree(tree / "brain_tumor_dataset")
    assert items_of(tree).equals(before)
    assert statistics(tree)["pictures_not_in_the_repeat"] == 0


def test_the_repeat_alone_is_refused_and_doctor_says_what_to_type(tree: Path) -> None:
    before = items_of(tree)
    for label in ("no", "yes"):
        shutil.rmtree(tree / label)
    with pytest.raises(LayoutError, match="there is no folder no/ in the raw folder"):
        items_of(tree)
    (finding,) = examine(SOURCE, Store(tree), checksums=False)
    assert (finding.severity, finding.where) == ("error", "brain_tumor_dataset/")
    assert finding.what_to_type.endswith("/brain_tumor_dataset")
    assert items_of(tree / "brain_tumor_dataset").equals(before)


def test_t08_one_name_in_both_folders_has_no_answer(tree: Path) -> None:
    shutil.copy(tree / "yes" / "Y3.jpg", tree / "no" / "y3.JPG")
    clashing = items_of(tree).filter(pl.col("skip_reason") == "label_conflict")
    assert sorted(clashing["label_file"]) == ["no/y3.JPG", "yes/Y3.jpg"]
    assert clashing["answer.tumor"].null_count() == 2
    assert statistics(tree)["names_in_both_folders"] == 1


def test_t08_equal_pictures_in_both_folders_are_asked_in_neither(tree: Path, tmp_path: Path) -> None:
    shutil.copy(tree / "yes" / "Y3.jpg", tree / "no" / "other.jpg")
    with pytest.raises(SkipLimitError, match="label_conflict"):
        build(SOURCE, tree, tmp_path / "out")


def test_s03_no_class_in_question_context_or_id(synthetic: Path) -> None:
    items = items_of(synthetic)
    assert not [column for column in items.columns if column.startswith("context.")]
    assert items["item"].str.contains(r"^[0-9a-f]{16}$").all()
    (task,) = brain_tumor_2.SPEC.tasks
    assert [(choice.key, choice.text) for choice in task.choices] == [("no", "No Tumor"), ("yes", "Has Tumor")]
    assert not re.search("tumou?r", " ".join(task.wordings).lower())


def test_no_split_is_official_and_ids_alone_may_be_passed_on(synthetic: Path) -> None:
    assert items_of(synthetic)["official_split"].null_count() == 31
    assert strictest(brain_tumor_2.SPEC.licences.values()) == ("LicenseRef-Brain-Tumor-2", Redistribution.IDS)


def test_an_empty_folder_and_one_without_pictures_are_refused(tree: Path) -> None:
    for file in (tree / "no").iterdir():
        file.rename(file.with_suffix(".gif"))
    with pytest.raises(LayoutError, match="no/ holds no picture"):
        items_of(tree)


def test_real_folders_of_other_sources_are_refused(realdata: Path) -> None:
    for other in ("brain-tumor-classification-mri", "busi", "ptb-xl"):
        with pytest.raises(LayoutError, match="there is no folder no/"):
            items_of(realdata / other)
