"""The source ``aptos-2019``: the labelled table, copies across the published split, bad inputs, real photographs."""

from __future__ import annotations

import csv
import io
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from qoq_data.clinical.fingerprints import confirmed_pairs, pixel_digest, thumbnail
from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.doctor import examine
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.manifest import Manifest
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.splits import assign_splits, group_keys
from qoq_data.corpus.trace import trace_row
from qoq_data.corpus.verify import verify_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, TableError
from qoq_data.formats.image import decode_image
from qoq_data.formats.storage import Store
from qoq_data.groups import join_groups
from qoq_data.licence import Redistribution, strictest
from qoq_data.record import AnswerType
from qoq_data.source import SourceOptions
from qoq_data.sources import aptos_2019, source_of
from qoq_data.sources._fundus import GRADES, draw_fundus, picture_bytes
from tests.corpus.building import ledger_of, make_recipe, rows_of

SOURCE = source_of(aptos_2019)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aptos-2019")
    aptos_2019.synthesize(folder, 7, 40)
    return folder


def items_of(tree: Path) -> pl.DataFrame:
    return scan_items(SOURCE, Store(tree), SourceOptions())


def named_tree(folder: Path, rows: Iterable[str], header: str = "id_code,diagnosis") -> Path:
    (folder / "train_images").mkdir(parents=True)
    (folder / "train.csv").write_text("\n".join((header, *rows)) + "\n")
    return folder


def answers(items: pl.DataFrame) -> dict[str, list[str] | None]:
    return dict(zip(items["item"].to_list(), items["answer.dr_grade"].to_list(), strict=True))


def table_of(tree: Path) -> dict[str, str]:
    with (tree / "train.csv").open(newline="") as file:
        return {row["id_code"]: row["diagnosis"] for row in csv.DictReader(file)}


def built(out: Path, tree: Path, **keys: Any) -> tuple[Manifest, list[SourceInput], Any]:
    recipe = make_recipe("aptos-2019", **keys)
    inputs = [SourceInput(SOURCE, recipe.sources[0], Store(tree))]
    return build_corpus(recipe, inputs, Store(out), LocalEngine(1)), inputs, recipe


def published_split(table: Mapping[str, str], seed: int) -> dict[str, str]:
    """The published way: of each grade's pictures ``int(0.8 * count)`` drawn for training, copies or not."""
    by_grade = defaultdict(list)
    for name, grade in table.items():
        by_grade[grade].append(name)
    drawn = {name for names in by_grade.values() for name in random.Random(seed).sample(names, int(0.8 * len(names)))}
    return {name: "train" if name in drawn else "test" for name in table}


def test_scan_has_a_row_a_labelled_picture_and_nothing_of_the_test(synthetic: Path) -> None:
    items = items_of(synthetic)
    table = table_of(synthetic)
    assert answers(items) == {name: [grade] for name, grade in table.items()}
    paths = [media[0]["path"] for media in items["media"]]
    assert sorted(paths) == sorted(f"train_images/{file.name}" for file in (synthetic / "train_images").iterdir())
    assert items["group"].to_list() == [f"picture:{name}" for name in items["item"]]
    for column in ("patient", "study", "official_split"):
        assert items[column].null_count() == items.height == 42
    assert aptos_2019.statistics(Store(synthetic), SourceOptions()) == {
        "rows_in_table": 42,
        "rows_without_grade": 0,
        "files_not_in_table": 0,
        "test_pictures_without_grade": 2,
    }
    hidden = {file.stem for file in (synthetic / "test_images").iterdir()}
    assert len(hidden) == 2
    assert not hidden & set(items["item"])


def test_the_test_may_be_left_out_and_doctor_finds_nothing_wrong(synthetic: Path, tmp_path: Path) -> None:
    tree = tmp_path / "raw"
    shutil.copytree(synthetic, tree)
    shutil.rmtree(tree / "test_images")
    for name in ("test.csv", "sample_submission.csv"):
        (tree / name).unlink()
    assert items_of(tree).equals(items_of(synthetic))
    assert aptos_2019.statistics(Store(tree), SourceOptions())["test_pictures_without_grade"] == 0
    assert not [one for one in examine(SOURCE, Store(tree), checksums=False) if one.severity == "error"]


def test_real_photographs_under_the_publishers_names_are_built_verified_and_traced(
    realdata: Path, tmp_path: Path
) -> None:
    tree = named_tree(tmp_path / "raw", ("000c1434d8d7,2", "001639a390f0,4"))
    for photograph, name in (("IDRiD_02", "000c1434d8d7"), ("IDRiD_15", "001639a390f0")):
        with Image.open(realdata / "idrid" / f"{photograph}.jpg") as file:
            file.resize((1200, 1002)).save(tree / "train_images" / f"{name}.png", compress_level=1)
    out = tmp_path / "out"
    manifest, inputs, recipe = built(out, tree)
    rows = rows_of(out)
    assert {row_id: row["answer"] for row_id, row in rows.items()} == {
        "aptos-2019/000c1434d8d7/dr_grade": ["Moderate DR"],
        "aptos-2019/001639a390f0/dr_grade": ["Proliferative DR"],
    }
    for row in rows.values():
        with Image.open(io.BytesIO(row["images"][0]["bytes"])) as stored:
            width, height = stored.size
        assert width * height <= recipe.images.max_pixels
        assert max(width, height) <= recipe.images.longest_side
        assert width / height == pytest.approx(1200 / 1002, rel=0.01)
        assert row["patient"] is None
    assert verify_corpus(Store(out), manifest, inputs).problems == ()
    for row_id in rows:
        assert trace_row(Store(out), manifest, recipe, row_id, inputs, LocalEngine()).agrees


def test_s01_copies_cross_in_the_published_split_and_never_in_ours(synthetic: Path) -> None:
    items = items_of(synthetic)
    pictures = [decode_image(Store(synthetic).read(media[0]["path"]), "").pixels for media in items["media"]]
    digests = [pixel_digest(picture) for picture in pictures]
    copies = [(i, j) for j in range(len(digests)) for i in range(j) if digests[i] == digests[j]]
    assert len(copies) == 2
    near = confirmed_pairs(np.stack([thumbnail(picture) for picture in pictures]))
    assert [(i, j) for i, j, _ in near] == sorted(copies)

    names, table = items["item"].to_list(), table_of(synthetic)
    keys = group_keys(items, "aptos-2019", "aptos-2019")
    crossings: Counter[str] = Counter()
    for seed in range(10):
        sides = published_split(table, seed)
        crossings["published"] += sum(sides[names[i]] != sides[names[j]] for i, j in copies)
    for way, groups in (("alone", keys), ("joined", join_groups(keys, copies))):
        rows = items.with_columns(groups, pl.lit("aptos-2019").alias("source"))
        for seed in range(10):
            ours = assign_splits(rows, seed, 0.2, 0.2).to_list()
            crossings[way] += sum(ours[i] != ours[j] for i, j in copies)
    assert crossings["published"] > 0
    assert crossings["alone"] > 0
    assert crossings["joined"] == 0


def test_copies_under_two_grades_are_ledger_lines_unless_the_recipe_keeps_them(synthetic: Path, tmp_path: Path) -> None:
    table = table_of(synthetic)
    by_bytes = defaultdict(list)
    for name in table:
        by_bytes[(synthetic / "train_images" / f"{name}.png").read_bytes()].append(name)
    (clash,) = [names for names in by_bytes.values() if len({table[name] for name in names}) > 1]
    manifest, _, _ = built(tmp_path / "out", synthetic, skip_limit=None)
    lines = ledger_of(tmp_path / "out")
    assert {line["item"] for line in lines if line["reason"] == "label_conflict"} == set(clash)
    assert len(lines) == 2
    assert manifest.rows == 40
    manifest, _, _ = built(tmp_path / "kept", synthetic, label_conflict="keep")
    assert manifest.rows == 42
    assert (
        len({row["split"] for name in clash for row in [rows_of(tmp_path / "kept")[f"aptos-2019/{name}/dr_grade"]]})
        == 1
    )


def test_one_grade_is_asked_where_the_published_question_takes_several_phrases() -> None:
    (task,) = SOURCE.spec.tasks
    assert task.answer_type is AnswerType.ONE
    assert [choice.text for choice in task.choices] == list(GRADES)
    assert len(set(task.wordings)) >= 5

    def takes_several(question: str) -> bool:
        return any(word in question.lower() for word in ("multiple", "phrases", "all that"))

    assert takes_several("Answer with one or multiple phrases from the following")
    assert not any(takes_several(wording) or "davis" in wording.lower() for wording in task.wordings)


def test_t07_ids_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    ids = ["00001", "1e5", "0870", "nan", "5e8123456789", "1"]
    tree = named_tree(tmp_path, [f"{name},{grade % 5}" for grade, name in enumerate(ids)])
    items = items_of(tree)
    assert sorted(items["item"]) == sorted(ids)
    assert {media[0]["path"] for media in items["media"]} == {f"train_images/{name}.png" for name in ids}


def test_t07_late_text_in_the_grades_and_another_encoding_are_told_by_file_and_row(tmp_path: Path) -> None:
    rows = [f"{number:05d},0" for number in range(300)]
    tree = named_tree(tmp_path / "a", rows)
    (tree / "train.csv").write_bytes(b"\xef\xbb\xbf" + (tree / "train.csv").read_bytes())
    assert items_of(tree).height == 300
    (tree / "train.csv").write_bytes(b"id_code,diagnosis\n00001,0\n\xe9,1\n")
    with pytest.raises(TableError, match=r"train\.csv.*line 3 is not UTF-8"):
        items_of(tree)
    rows[200] = "00200,mild"
    with pytest.raises(TableError, match=r"train\.csv, line 202.*'diagnosis'"):
        items_of(named_tree(tmp_path / "b", rows))


def test_t08_without_its_table_the_scan_stops_and_doctor_says_which_file_and_where_from(
    synthetic: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "raw"
    shutil.copytree(synthetic, tree)
    (tree / "train.csv").unlink()
    with pytest.raises(LayoutError, match=r"train\.csv is not in the raw folder"):
        items_of(tree)
    (told,) = [one for one in examine(SOURCE, Store(tree), checksums=False) if one.severity == "error"]
    assert told.where == "train.csv"
    assert "kaggle.com" in told.what


def test_i01_a_picture_of_16_bits_keeps_its_256_levels(tmp_path: Path) -> None:
    tree = named_tree(tmp_path / "raw", ("a1,0",))
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).repeat(128).reshape(256, 128).T
    Image.fromarray(np.ascontiguousarray(ramp)).save(tree / "train_images" / "a1.png")
    clipped = np.clip(ramp, 0, 255)
    assert (clipped == 255).mean() > 0.99
    built(tmp_path / "out", tree, images={"encoding": "png"})
    (row,) = rows_of(tmp_path / "out").values()
    with Image.open(io.BytesIO(row["images"][0]["bytes"])) as stored:
        assert len(np.unique(np.asarray(stored.convert("L")))) == 256


def test_a_blank_grade_has_no_answer_and_a_missing_or_cut_picture_is_a_ledger_line(tmp_path: Path) -> None:
    tree = named_tree(tmp_path / "raw", ("a1,0", "a2,", "a3,1", "a4,2"))
    data = [picture_bytes(draw_fundus(np.random.default_rng(number), 0.5), "PNG") for number in range(3)]
    for name, picture in zip(("a1", "a2", "a3"), (data[0], data[1], data[2][:2000]), strict=True):
        (tree / "train_images" / f"{name}.png").write_bytes(picture)
    built(tmp_path / "out", tree)
    assert set(rows_of(tmp_path / "out")) == {"aptos-2019/a1/dr_grade"}
    reasons = {line["item"]: line["reason"] for line in ledger_of(tmp_path / "out")}
    assert reasons == {"a2": "no_label", "a3": "image_undecodable", "a4": "file_missing"}
    assert aptos_2019.statistics(Store(tree), SourceOptions())["rows_without_grade"] == 1


@pytest.mark.parametrize(
    ("rows", "header", "told"),
    [
        (("a,5",), "id_code,diagnosis", "row 2: its diagnosis is none of 0 to 4"),
        (("a,0", "b,-1"), "id_code,diagnosis", "row 3: its diagnosis is none of 0 to 4"),
        (("a,0", "a,0"), "id_code,diagnosis", "row 2: its id_code stands in another row too"),
        ((",0",), "id_code,diagnosis", "row 2: its id_code is blank"),
        (("a,0",), "id_code,label", "lacks the column 'diagnosis'"),
        (("a,0",), "image,diagnosis", "lacks the column 'id_code'"),
        (("<p>",), "<!DOCTYPE html>", "is a web page"),
        (("a",), "id_code,diagnosis", "line 2: it has 1 fields"),
    ],
)
def test_a_table_that_is_wrong_is_one_error(rows: tuple[str, ...], header: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=told):
        items_of(named_tree(tmp_path, rows, header))


def test_without_its_folder_the_scan_stops(tmp_path: Path) -> None:
    tree = named_tree(tmp_path, ("a,0",))
    (tree / "train_images").rmdir()
    with pytest.raises(LayoutError, match="train_images/ is not in the raw folder"):
        items_of(tree)


def test_nothing_may_be_passed_on() -> None:
    assert strictest(SOURCE.spec.licences.values()) == ("LicenseRef-APTOS-2019", Redistribution.NONE)
