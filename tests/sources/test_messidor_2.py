"""The source ``messidor-2``: both headers, the pair list, names in any case, published defects, and the real table."""

from __future__ import annotations

import csv
import io
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.doctor import examine
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.manifest import Manifest
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.splits import assign_splits, group_keys
from qoq_data.corpus.trace import trace_row
from qoq_data.corpus.verify import verify_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, SkipLimitError, SourceError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.record import AnswerType
from qoq_data.sources import messidor_2, source_of
from qoq_data.sources._fundus import GRADES
from qoq_data.sources.messidor_2 import Options
from tests.corpus.building import ledger_of, make_recipe, rows_of

SOURCE = source_of(messidor_2)
ORIGINAL = "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable"
COPY = "id_code,diagnosis,adjudicated_dme,adjudicated_gradable"
ALONE = Options(pairs="do_without")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("messidor-2")
    messidor_2.synthesize(folder, 7, 48)
    return folder


def items_of(tree: Path, options: Options = Options()) -> pl.DataFrame:  # noqa: B008 - frozen
    return scan_items(SOURCE, Store(tree), options)


def named_tree(
    folder: Path,
    rows: Iterable[str] = ("a.png,0,0,1", "IM1.jpg,2,1,1"),
    header: str = ORIGINAL,
    files: Iterable[str] = ("a.png", "IM1.JPG"),
    pairs: str | None = "left;right\na.png;IM1.JPG\n",
) -> Path:
    """A tree of empty pictures under a table of these rows."""
    (folder / "IMAGES").mkdir(parents=True)
    for name in files:
        (folder / "IMAGES" / name).touch()
    (folder / "messidor_data.csv").write_text("\n".join((header, *rows)) + "\n")
    if pairs is not None:
        (folder / "messidor-2.csv").write_text(pairs, newline="")
    return folder


def answers(items: pl.DataFrame, task: str = "dr_grade") -> dict[str, list[str] | None]:
    return dict(zip(items["item"].to_list(), items[f"answer.{task}"].to_list(), strict=True))


def paths(items: pl.DataFrame) -> dict[str, str]:
    return {item: media[0]["path"] for item, media in items.select("item", "media").iter_rows()}


def built(out: Path, tree: Path, **keys: Any) -> tuple[Manifest, list[SourceInput], Any]:
    recipe = make_recipe("messidor-2", **keys)
    inputs = [SourceInput(SOURCE, recipe.sources[0], Store(tree))]
    return build_corpus(recipe, inputs, Store(out), LocalEngine(1)), inputs, recipe


def real_rows(realdata: Path) -> list[dict[str, str]]:
    with (realdata / "messidor-2" / "messidor_data.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_real_table_is_parsed_whole(realdata: Path, tmp_path: Path) -> None:
    rows = real_rows(realdata)
    tree = named_tree(tmp_path, files=(), pairs=None)
    shutil.copy(realdata / "messidor-2" / "messidor_data.csv", tree)
    items = items_of(tree, ALONE)
    assert items.height == len(rows) == 1744
    grades = Counter(row["diagnosis"] for row in rows)
    assert [grades[str(grade)] for grade in range(5)] == [1017, 270, 347, 75, 35]
    assert Counter(answer[0] for answer in items["answer.dr_grade"]) == grades
    assert answers(items) == {row["id_code"][:-4]: [row["diagnosis"]] for row in rows}
    assert answers(items, "macular_oedema") == {row["id_code"][:-4]: [row["adjudicated_dme"]] for row in rows}
    assert Counter(path[-4:] for path in paths(items).values()) == {".png": 1057, ".JPG": 687}
    assert set(paths(items).values()) == {f"IMAGES/{row['id_code']}" for row in rows}
    assert messidor_2.detect_version(Store(tree)) == "re-published grades"
    counts = messidor_2.statistics(Store(tree), ALONE)
    assert {name: count for name, count in counts.items() if count} == {
        "rows_in_table": 1744,
        "pictures_in_no_pair": 1744,
    }


def test_real_photographs_under_the_publishers_names_are_built_verified_and_traced(
    realdata: Path, tmp_path: Path
) -> None:
    tree = named_tree(tmp_path / "raw", files=(), pairs="left;right\nIM004831.JPG;IM004832.JPG\n")
    shutil.copy(realdata / "messidor-2" / "messidor_data.csv", tree)
    for photograph, name in (("IDRiD_02", "IM004831.JPG"), ("IDRiD_15", "IM004832.JPG")):
        shutil.copy(realdata / "idrid" / f"{photograph}.jpg", tree / "IMAGES" / name)
    out = tmp_path / "out"
    manifest, inputs, recipe = built(out, tree)
    rows = rows_of(out)
    assert set(rows) == {
        f"messidor-2/{item}/{task}" for item in ("IM004831", "IM004832") for task in ("dr_grade", "macular_oedema")
    }
    assert Counter(line["reason"] for line in ledger_of(out)) == {"file_missing": 1742}
    published = {row["id_code"]: row for row in real_rows(realdata)}
    for item in ("IM004831", "IM004832"):
        row = rows[f"messidor-2/{item}/dr_grade"]
        assert row["answer"] == [GRADES[int(published[f"{item}.JPG"]["diagnosis"])]]
        with Image.open(io.BytesIO(row["images"][0]["bytes"])) as stored:
            width, height = stored.size
            assert width * height <= recipe.images.max_pixels
            assert max(width, height) <= recipe.images.longest_side
            assert width / height == pytest.approx(3410 / 2848, rel=0.01)
            assert not stored.getexif()
    assert len({row["split"] for row in rows.values()}) == len({row["patient"] for row in rows.values()}) == 1
    assert verify_corpus(Store(out), manifest, inputs).problems == ()
    for row_id in rows:
        assert trace_row(Store(out), manifest, recipe, row_id, inputs, LocalEngine()).agrees


def test_both_headers_say_the_same(tmp_path: Path) -> None:
    first = named_tree(tmp_path / "a", ("a.png,0,0,1", "IM1.jpg,4,1,1"))
    second = named_tree(tmp_path / "b", ("a.png,0,0,1", "IM1.JPG,4,1,1"), COPY)
    assert items_of(first).drop("label_row").equals(items_of(second).drop("label_row"))
    versions = [messidor_2.detect_version(Store(tree)) for tree in (first, second)]
    assert versions == ["original grades", "re-published grades"]
    assert SOURCE.spec.versions[0].items == 1748


def test_a_copy_without_the_oedema_column_is_asked_for_grades_alone(tmp_path: Path) -> None:
    tree = named_tree(tmp_path, ("a.png,3,1", "IM1.JPG,1,1"), "id_code,diagnosis,adjudicated_gradable")
    items = items_of(tree)
    assert answers(items) == {"a": ["3"], "IM1": ["1"]}
    assert items["answer.macular_oedema"].null_count() == 2
    assert messidor_2.statistics(Store(tree), Options())["without_macular_oedema_label"] == 2


def test_ungradable_pictures_have_no_answer_and_a_graded_one_called_ungradable_is_a_ledger_line(tmp_path: Path) -> None:
    rows = ("a.png,,,0", "IM1.jpg,2,0,0", "b.png,,,1", "c.png,2.0,1.0,1")
    items = items_of(named_tree(tmp_path, rows))
    assert answers(items) == {"a": None, "IM1": ["2"], "b": None, "c": ["2"]}
    assert answers(items, "macular_oedema") == {"a": None, "IM1": ["0"], "b": None, "c": ["1"]}
    skipped = items.filter(pl.col("skip_reason").is_not_null())
    assert skipped.select("item", "skip_reason").rows() == [("IM1", "label_conflict")]
    assert messidor_2.statistics(Store(tmp_path), Options())["ungradable_pictures"] == 2


def published_split(table: Mapping[str, str]) -> dict[str, str]:
    """The published way: of each grade's pictures ``int(0.8 * count)`` drawn for training, whoever they are of."""
    by_grade = defaultdict(list)
    for name, grade in table.items():
        by_grade[grade].append(name)
    drawn = {name for names in by_grade.values() for name in random.Random(0).sample(names, int(0.8 * len(names)))}
    return {name: "train" if name in drawn else "test" for name in table}


def test_eyes_of_a_pair_cross_in_the_published_split_and_never_in_ours(synthetic: Path) -> None:
    with (synthetic / "messidor_data.csv").open(newline="") as file:
        table = {row["image_id"].lower(): row["adjudicated_dr_grade"] for row in csv.DictReader(file)}
    pairs = [line.lower().split(";") for line in (synthetic / "messidor-2.csv").read_text().splitlines()[1:]]
    sides = published_split(table)
    assert sum(sides[left] != sides[right] for left, right in pairs) > 5

    items = items_of(synthetic)
    assert items["group"].n_unique() == items["patient"].n_unique() == items["study"].n_unique() == len(pairs) == 48
    place = {path.rpartition("/")[2].lower(): row for row, path in enumerate(paths(items).values())}
    keyed = items.with_columns(group_keys(items, "messidor-2", "messidor-2"), pl.lit("messidor-2").alias("source"))
    for seed in range(10):
        ours = assign_splits(keyed, seed, 0.2, 0.2).to_list()
        assert all(ours[place[left]] == ours[place[right]] for left, right in pairs)
        assert len(set(ours)) == 3


def test_upper_casing_names_loses_png_and_lower_case_disks_and_the_listing_loses_none(
    synthetic: Path, tmp_path: Path
) -> None:
    lower = tmp_path / "lower"
    shutil.copytree(synthetic, lower)
    for file in list((lower / "IMAGES").iterdir()):
        file.rename(file.with_name(file.name.lower()))
    with (synthetic / "messidor_data.csv").open(newline="") as file:
        listed = [row["image_id"] for row in csv.DictReader(file)]
    for tree, lost_as_listed, lost_in_capitals in ((synthetic, 48, 48), (lower, 96, 96)):
        on_disk = {file.name for file in (tree / "IMAGES").iterdir()}
        assert sum(name not in on_disk for name in listed) == lost_as_listed
        assert sum(name.upper() not in on_disk for name in listed) == lost_in_capitals
        ours = {path.removeprefix("IMAGES/") for path in paths(items_of(tree)).values()}
        assert ours == on_disk
    assert messidor_2.statistics(Store(synthetic), Options())["pictures_named_in_another_case"] == 48
    assert items_of(lower)["item"].equals(items_of(synthetic)["item"])


def test_files_that_differ_by_case_only_are_told(tmp_path: Path) -> None:
    exact = named_tree(tmp_path / "a", ("IM1.jpg,2,1,1", "a.png,0,0,1"), files=("IM1.JPG", "IM1.jpg", "a.png"))
    assert paths(items_of(exact))["IM1"] == "IMAGES/IM1.jpg"
    assert messidor_2.statistics(Store(exact), Options())["files_that_differ_by_case_only"] == 1
    neither = named_tree(tmp_path / "b", ("im1.jpg,2,1,1", "a.png,0,0,1"), files=("IM1.JPG", "IM1.jpg", "a.png"))
    with pytest.raises(LayoutError, match="differs by letter case only"):
        items_of(neither)


def test_one_grade_is_asked_where_the_published_question_takes_several_phrases() -> None:
    task = SOURCE.spec.task("dr_grade")
    assert task.answer_type is AnswerType.ONE
    assert [choice.text for choice in task.choices] == list(GRADES)
    assert len(set(task.wordings)) >= 5

    def takes_several(question: str) -> bool:
        return any(word in question.lower() for word in ("multiple", "phrases", "all that"))

    assert takes_several("Answer with one or multiple phrases from the following")
    assert not any(takes_several(wording) or "davis" in wording.lower() for wording in task.wordings)


def test_oedema_is_asked_where_the_published_conversion_leaves_it_out(synthetic: Path) -> None:
    items = items_of(synthetic)
    assert Counter(answer[0] for answer in items["answer.macular_oedema"].drop_nulls()).keys() == {"0", "1"}
    assert [choice.text for choice in SOURCE.spec.task("macular_oedema").choices] == ["No", "Yes"]


def test_t08_without_the_pair_list_the_scan_stops_and_doctor_says_which_file_and_where_from(tmp_path: Path) -> None:
    tree = named_tree(tmp_path, pairs=None)
    with pytest.raises(LayoutError, match=r"messidor-2\.csv is not in the raw folder.*two sides.*adcis\.net.*pairs"):
        items_of(tree)
    (told,) = [one for one in examine(SOURCE, Store(tree), checksums=False) if one.where == "messidor-2.csv"]
    assert told.severity == "error"
    assert "adcis.net" in told.what
    items = items_of(tree, ALONE)
    assert items["group"].to_list() == ["picture:IM1", "picture:a"]
    assert items["patient"].null_count() == items["study"].null_count() == 2


def test_t08_a_pair_list_of_another_release_is_told_and_one_with_gaps_is_counted(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="names no picture of messidor_data.csv"):
        items_of(named_tree(tmp_path / "a", pairs="left;right\nx.png;y.png\n"))
    rows = ("a.png,0,0,1", "b.png,0,0,1", "c.png,3,0,1", "d.png,1,0,1")
    tree = named_tree(tmp_path / "b", rows, pairs="left;right\na.png;b.png\nc.png;e.png\n")
    assert items_of(tree)["group"].to_list() == ["a", "a", "c", "picture:d"]
    assert items_of(tree)["patient"].to_list() == ["a", "a", "c", None]
    counts = messidor_2.statistics(Store(tree), Options())
    assert (counts["pictures_in_no_pair"], counts["paired_pictures_not_in_table"]) == (1, 1)


@pytest.mark.parametrize(
    "text",
    [
        "left;right\na.png;IM1.JPG\n",
        "a.png;IM1.JPG",
        "left,right\r\na.png,im1.jpg\r\n\r\n",
        "\ufeffleft;right;\na.png; IM1.JPG;\n",
        '"a.png","IM1.JPG"\n',
    ],
)
def test_pairs_are_read_with_either_separator_and_with_a_header_or_without(text: str, tmp_path: Path) -> None:
    assert items_of(named_tree(tmp_path, pairs=text))["patient"].to_list() == ["a", "a"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("left;right\na.png;IM1.JPG\na.png;b.png\n", "line 3: a picture of it stands in another pair too"),
        ("left;right\na.png\n", "line 2: it does not name two pictures"),
        ("left;right\na.png;A.PNG\n", "line 2: it does not name two pictures"),
        ("left;right\na.png;IM1.JPG;b.png\n", "line 2: it does not name two pictures"),
        ("left;right\na;b\n", "line 2: it does not name two pictures"),
        ("left;right\n", "names no picture"),
        ("", "names no picture"),
        ("<!DOCTYPE html>\n<html>\n", "does not name two pictures"),
    ],
)
def test_a_pair_list_that_is_none_is_one_error(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=told) as caught:
        items_of(named_tree(tmp_path, pairs=text))
    assert "messidor-2.csv" in str(caught.value)


def test_t07_a_table_in_another_encoding_or_with_text_among_numbers_is_told_by_file_and_row(tmp_path: Path) -> None:
    rows = [f"{number:05d}.png,0,0,1" for number in range(300)]
    tree = named_tree(tmp_path / "a", rows, pairs="00000.png;00001.png")
    assert items_of(tree)["item"].to_list()[:2] == ["00000", "00001"]
    (tree / "messidor_data.csv").write_bytes(b"\xef\xbb\xbf" + (tree / "messidor_data.csv").read_bytes())
    assert items_of(tree).height == 300
    (tree / "messidor-2.csv").write_bytes("left;right\n00000.png;\xe9.png\n".encode("latin-1"))
    with pytest.raises(TableError, match=r"messidor-2\.csv is not UTF-8"):
        items_of(tree)
    rows[200] = "00200.png,mild,0,1"
    with pytest.raises(TableError, match=r"messidor_data\.csv, line 202.*adjudicated_dr_grade"):
        items_of(named_tree(tmp_path / "b", rows, pairs="00000.png;00001.png"))


@pytest.mark.parametrize(
    ("rows", "header", "told"),
    [
        (("a.png,5,0,1",), ORIGINAL, "row 2: its adjudicated_dr_grade is none of 0 to 4"),
        (("a.png,1.5,0,1",), ORIGINAL, "row 2: its adjudicated_dr_grade is none of 0 to 4"),
        (("a.png,1,2,1",), ORIGINAL, "row 2: its adjudicated_dme is neither 0 nor 1"),
        (("a.png,1,1,yes",), ORIGINAL, "line 2: the cell of column 'adjudicated_gradable'"),
        (("a.png,1,1,3",), ORIGINAL, "row 2: its adjudicated_gradable is neither"),
        ((",1,1,1",), ORIGINAL, "row 2: its image_id is blank"),
        (("../a.png,1,1,1",), ORIGINAL, "row 2: its image_id is no name of a picture"),
        (("a.png,1,1,1", "A.PNG,1,1,1"), ORIGINAL, "row 2: its picture stands in another row too"),
        (("a.png,1,1,1", "b.png,1,1"), ORIGINAL, "line 3: it has 3 fields"),
        (("a.png,1,1,1",), ORIGINAL.replace("image_id", "image"), "lacks the column 'image_id'"),
        (("a.png,1,1,1",), COPY.replace("diagnosis", "grade"), "lacks the column 'diagnosis'"),
        (("a.png,1,1,1",), ORIGINAL.replace("_dme", "_edema"), "lacks the column 'adjudicated_dme'"),
        (("<p>",), "<!doctype html>", "is a web page"),
    ],
)
def test_a_table_that_is_wrong_is_one_error(rows: tuple[str, ...], header: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=told):
        items_of(named_tree(tmp_path, rows, header))


def test_without_its_folder_the_scan_stops_and_a_missing_picture_is_a_ledger_line(
    synthetic: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "raw"
    shutil.copytree(synthetic, tree)
    (tree / "IMAGES" / "IM004002.JPG").unlink()
    assert paths(items_of(tree))["IM004002"] == "IMAGES/IM004002.jpg"
    shutil.rmtree(tree / "IMAGES")
    with pytest.raises(SourceError, match="IMAGES/ is not in the raw folder"):
        items_of(tree)


def test_b04_a_turned_photograph_is_stored_upright_and_without_its_tag(tmp_path: Path) -> None:
    tree = named_tree(tmp_path / "raw", files=())
    messidor_2.synthesize(tmp_path / "other", 3, 2)
    with Image.open(tmp_path / "other" / "IMAGES" / "IM004002.JPG") as file:
        upright = file.convert("RGB")
    tag = Image.Exif()
    tag[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tree / "IMAGES" / "IM1.JPG", exif=tag, quality=95)
    shutil.copy(next((tmp_path / "other" / "IMAGES").glob("*.png")), tree / "IMAGES" / "a.png")
    built(tmp_path / "out", tree)
    stored = Image.open(io.BytesIO(rows_of(tmp_path / "out")["messidor-2/IM1/dr_grade"]["images"][0]["bytes"]))
    assert stored.size == upright.size
    assert not stored.getexif()


def test_skips_beyond_the_limit_stop_the_build(tmp_path: Path) -> None:
    messidor_2.synthesize(tmp_path / "raw", 1, 3)
    (tmp_path / "raw" / "IMAGES" / "IM004002.JPG").unlink()
    with pytest.raises(SkipLimitError, match="file_missing"):
        built(tmp_path / "out", tmp_path / "raw", skip_limit=None)


def test_pictures_and_grades_have_their_own_licences() -> None:
    assert SOURCE.spec.licences["labels"].identifier == "CC0-1.0"
    assert strictest(SOURCE.spec.licences.values()) == ("LicenseRef-Messidor AND CC0-1.0", Redistribution.IDS)


def test_synthetic_tree_has_the_published_quirks(synthetic: Path) -> None:
    assert (synthetic / "messidor_data.csv").read_text().splitlines()[0] == ORIGINAL
    assert (synthetic / "messidor-2.csv").read_text().startswith("left;right\n")
    counts = messidor_2.statistics(Store(synthetic), Options())
    assert counts["rows_in_table"] == 96
    assert counts["ungradable_pictures"] == 1
    assert counts["pairs_with_retinopathy_of_two_grades"] > 0
    assert counts["files_not_in_table"] == counts["pictures_in_no_pair"] == 0
    signatures = Counter(file.read_bytes()[1:4] for file in (synthetic / "IMAGES").iterdir())
    assert signatures == {b"PNG": 48, b"\xd8\xff\xe0": 48}
