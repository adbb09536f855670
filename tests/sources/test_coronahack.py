"""The source ``coronahack``: its table, what the published conversion gets wrong, and the real table parsed whole."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl
import pytest

from qoq_data.contract.workspace import build, item_of, tables
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.ledger import from_lines
from qoq_data.corpus.manifest import LEDGER
from qoq_data.errors import LayoutError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.source import SourceOptions
from qoq_data.sources import coronahack, source_of

SOURCE = source_of(coronahack)
HEADER = ("", "X_ray_image_name", "Label", "Dataset_type", "Label_2_Virus_category", "Label_1_Virus_category")
ROWS = (
    ("0", "IM-0128-0001.jpeg", "Normal", "TRAIN", "", ""),
    ("1", "person1_bacteria_1.jpeg", "Pnemonia", "TRAIN", "", "bacteria"),
    ("3", "person1_virus_6.jpeg", "Pnemonia", "TEST", "", "Virus"),
)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coronahack")
    coronahack.synthesize(folder, 7, 24)
    return folder


def tree_of(
    folder: Path, *rows: Iterable[str], header: Iterable[str] = HEADER, base: Iterable[Iterable[str]] = ROWS
) -> Path:
    """A tree with a table of some rows and empty folders of films."""
    for side in ("train", "test"):
        (folder / coronahack.HOMES[0] / side).mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *base, *rows])
    (folder / coronahack.TABLE).write_text(text.getvalue(), encoding="utf-8")
    return folder


def items_of(folder: Path) -> pl.DataFrame:
    return scan_items(SOURCE, Store(folder), SourceOptions())


def by_name(folder: Path) -> dict[str, dict[str, object]]:
    rows = items_of(folder).iter_rows(named=True)
    return {row["media"][0]["path"].rpartition("/")[2]: row for row in rows}


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def published_label(row: dict[str, str]) -> str | None:
    """The published way: the first that matches, and None for a row that is dropped."""
    if row["Label"] == "Normal":
        return "Normal"
    if row["Label_1_Virus_category"] == "bacteria":
        return "BacterialPneumonia"
    return "ViralPneumonia" if row["Label_1_Virus_category"] == "Virus" else None


def test_rows_become_items(tmp_path: Path) -> None:
    found = by_name(tree_of(tmp_path))
    first = found["person1_virus_6.jpeg"]
    assert first["media"] == [
        {"role": "image", "kind": "image", "path": f"{coronahack.HOMES[0]}/test/person1_virus_6.jpeg", "part": ""}
    ]
    assert (first["official_split"], first["answer.pneumonia_type"]) == ("test", ["ViralPneumonia"])
    assert (first["label_file"], first["label_row"]) == ("Chest_xray_Corona_Metadata.csv", "line 4")
    assert first["patient"] == first["group"] == "person 1 virus"
    assert found["person1_bacteria_1.jpeg"]["patient"] == "person 1 bacteria"
    normal = found["IM-0128-0001.jpeg"]
    assert (normal["patient"], normal["group"]) == (None, "name:im-0128")


def test_both_depths_of_the_film_folder_give_the_same_items(synthetic: Path, tmp_path: Path) -> None:
    shutil.copytree(synthetic, tmp_path / "raw")
    root = tmp_path / "raw" / coronahack.ROOT
    (root / coronahack.ROOT).rename(tmp_path / "inner")
    root.rmdir()
    (tmp_path / "inner").rename(root)
    nested, flat = items_of(synthetic), items_of(tmp_path / "raw")
    assert flat["media"].list.first().struct.field("path").str.starts_with(f"{coronahack.ROOT}/t").all()
    assert flat.drop("media").equals(nested.drop("media"))
    assert coronahack.statistics(Store(tmp_path / "raw"), SourceOptions())["rows_without_a_picture"] == 1


def test_letter_case_and_blanks_and_both_spellings_do_not_matter(tmp_path: Path) -> None:
    rows = (
        ("7", "a.jpg", "pnemonia ", "train", " covid-19", "VIRUS"),
        ("8", "b.jpg", "PNEUMONIA", "Test", "streptococcus", "Bacteria "),
        ("9", "c.jpg", " normal", "TRAIN", " ", ""),
    )
    found = by_name(tree_of(tmp_path, *rows))
    answers = [found[name]["answer.pneumonia_type"] for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert answers == [["ViralPneumonia"], ["BacterialPneumonia"], ["Normal"]]
    labels = {published_label(dict(zip(HEADER, row, strict=True))) for row in rows}
    assert labels == {None}


def test_rows_that_the_published_way_drops_are_ledger_lines_and_counted(synthetic: Path, tmp_path: Path) -> None:
    rows = read_rows(synthetic / coronahack.TABLE)
    dropped = [row["X_ray_image_name"] for row in rows if published_label(row) is None]
    assert dropped == ["acute-respiratory-distress-syndrome-ards.jpg"]
    manifest = build(SOURCE, synthetic, tmp_path / "out")
    assert manifest.sources[0].skipped == {"file_missing": 1, "no_label": 1}
    assert manifest.rows == len(rows) - 2
    names = {
        row["item"]: row["media"][0]["path"].rpartition("/")[2] for row in items_of(synthetic).iter_rows(named=True)
    }
    skips = from_lines((tmp_path / "out" / LEDGER).read_text(encoding="utf-8"))
    assert {names[skip.item]: skip.reason for skip in skips} == {
        dropped[0]: "no_label",
        "COVID19_0.jpg": "file_missing",
    }
    counts = coronahack.statistics(Store(synthetic), SourceOptions())
    assert counts["pneumonia_of_smoking_rows"] == counts["rows_without_a_picture"] == 1
    assert (counts["rows"], counts["viral_rows_with_covid_19"]) == (len(rows), 2)


def test_a_pneumonia_without_a_cause_has_no_answer_and_is_counted(tmp_path: Path) -> None:
    tree = tree_of(
        tmp_path, ("9", "a.jpg", "Pnemonia", "TRAIN", "", ""), ("9", "b.jpg", "Pnemonia", "TRAIN", "SARS", "")
    )
    found = by_name(tree)
    for name in ("a.jpg", "b.jpg"):
        assert (found[name]["answer.pneumonia_type"], found[name]["skip_reason"]) == (None, None)
    assert coronahack.statistics(Store(tree), SourceOptions())["pneumonia_without_cause_rows"] == 2


CONFLICTS = [
    (("9", "a.jpg", "Normal", "TRAIN", "COVID-19", ""), "Normal", "the table calls the film normal and names a cause"),
    (("9", "a.jpg", "Normal", "TRAIN", "", "Virus"), "Normal", "the table calls the film normal and names a cause"),
    (
        ("9", "a.jpg", "Pnemonia", "TRAIN", "COVID-19", "bacteria"),
        "BacterialPneumonia",
        "the two columns on the cause disagree",
    ),
    (
        ("9", "person9_virus_1.jpeg", "Pnemonia", "TRAIN", "", "bacteria"),
        "BacterialPneumonia",
        "the film's name and the table disagree",
    ),
    (
        ("9", "person9_virus_1.jpeg", "Normal", "TRAIN", "", ""),
        "Normal",
        "the film's name and the table disagree",
    ),
    (
        ("9", "NORMAL2-IM-1427-0001.jpeg", "Pnemonia", "TRAIN", "", "Virus"),
        "ViralPneumonia",
        "the film's name and the table disagree",
    ),
]


@pytest.mark.parametrize(("row", "published", "detail"), CONFLICTS)
def test_t08_what_disagrees_has_no_answer_where_the_published_way_takes_the_first_match(
    row: tuple[str, ...], published: str, detail: str, tmp_path: Path
) -> None:
    assert published_label(dict(zip(HEADER, row, strict=True))) == published
    found = by_name(tree_of(tmp_path, row))[row[1]]
    assert (found["answer.pneumonia_type"], found["skip_reason"], found["skip_detail"]) == (
        None,
        "label_conflict",
        detail,
    )


def test_t08_equal_films_under_two_answers_are_asked_in_neither(synthetic: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(synthetic, tmp_path / "raw"))
    home = tree / coronahack.HOMES[0] / "train"
    viral = min(home.glob("person*_virus_*.jpeg"))
    shutil.copyfile(min(home.glob("*IM-*.jpeg")), viral)
    manifest = build(SOURCE, tree, tmp_path / "out")
    assert manifest.sources[0].skipped["label_conflict"] == 2


BAD_CELLS = [
    ("Label", 2, "Healthy"),
    ("Dataset_type", 3, "VALIDATION"),
    ("Label_2_Virus_category", 4, "MERS"),
    ("Label_1_Virus_category", 5, "fungus"),
]


@pytest.mark.parametrize(("column", "place", "value"), BAD_CELLS)
def test_an_unknown_value_is_one_error_without_the_cell(column: str, place: int, value: str, tmp_path: Path) -> None:
    row = ["9", "a.jpg", "Pnemonia", "TRAIN", "", "Virus"]
    row[place] = value
    with pytest.raises(TableError, match=rf"Metadata\.csv, row 5: the value in column '{column}' is none of") as caught:
        items_of(tree_of(tmp_path, row))
    assert value not in str(caught.value)


@pytest.mark.parametrize(("column", "place"), [("X_ray_image_name", 1), ("Label", 2), ("Dataset_type", 3)])
def test_a_blank_that_may_not_be_is_one_error(column: str, place: int, tmp_path: Path) -> None:
    row = ["9", "a.jpg", "Pnemonia", "TRAIN", "", "Virus"]
    row[place] = ""
    with pytest.raises(TableError, match=rf"row 5: the column '{column}' is blank"):
        items_of(tree_of(tmp_path, row))


@pytest.mark.parametrize("name", ["../a.jpg", "train/a.jpg", "a\\b.jpg", "..", "/etc/a.jpg"])
def test_a_path_in_the_place_of_a_name_is_one_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="row 5: the column 'X_ray_image_name' holds a path"):
        items_of(tree_of(tmp_path, ("9", name, "Normal", "TRAIN", "", "")))


def test_t07_a_renamed_column_and_a_web_page_and_latin_1_are_one_error_each(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, header=(*HEADER[:4], "Label_2", HEADER[5]))
    with pytest.raises(TableError, match=r"Metadata\.csv lacks the column 'Label_2_Virus_category'"):
        items_of(tree)
    (tree / coronahack.TABLE).write_bytes(b"<!DOCTYPE html><html>Sign in to Kaggle</html>")
    with pytest.raises(TableError, match="is a web page and not a table"):
        items_of(tree)
    rows = (("9", "fi\xe8vre.jpg", "Normal", "TRAIN", "", ""),)
    text = "\n".join(",".join(row) for row in (HEADER, *ROWS, *rows)) + "\n"
    (tree / coronahack.TABLE).write_bytes(text.encode("latin-1"))
    with pytest.raises(TableError, match="line 5 is not UTF-8"):
        items_of(tree)


def test_t07_a_byte_order_mark_and_names_that_look_like_numbers_are_read_as_text(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, ("9", "00001.jpg", "Normal", "TRAIN", "", ""), ("10", "1e5", "Normal", "TRAIN", "", ""))
    table = tree / coronahack.TABLE
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert set(by_name(tree)) == {row[1] for row in ROWS} | {"00001.jpg", "1e5"}


def test_a_film_named_twice_on_one_side_is_one_error_and_on_two_sides_one_group(tmp_path: Path) -> None:
    again = ("9", "a.jpg", "Normal", "TRAIN", "", ""), ("10", "a.jpg", "Normal", "TEST", "", "")
    items = items_of(tree_of(tmp_path, *again)).filter(pl.col("group") == "picture:a.jpg")
    assert sorted(items["official_split"]) == ["test", "train"]
    with pytest.raises(TableError, match="stands more than once"):
        items_of(tree_of(tmp_path, *again, again[0]))


def without_table(tree: Path) -> str:
    (tree / coronahack.TABLE).unlink()
    return r"Chest_xray_Corona_Metadata\.csv is not in the raw folder"


def without_train(tree: Path) -> str:
    shutil.rmtree(tree / coronahack.HOMES[0] / "train")
    return f"there is no folder {coronahack.HOMES[0]}/train/"


def without_films(tree: Path) -> str:
    shutil.rmtree(tree / coronahack.ROOT)
    return f"there is no folder {coronahack.HOMES[0]}/train/"


@pytest.mark.parametrize("lose", [without_table, without_train, without_films])
def test_an_absent_table_or_folder_is_one_error(lose: Callable[[Path], str], tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    with pytest.raises(LayoutError, match=lose(tree)):
        items_of(tree)


def test_films_without_a_row_are_counted_and_never_items(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    for name in ("train/person1_bacteria_1.jpeg", "test/person1_bacteria_1.jpeg", "train/.DS_Store"):
        (tree / coronahack.HOMES[0] / name).touch()
    counts = coronahack.statistics(Store(tree), SourceOptions())
    assert (counts["pictures_without_a_row"], counts["rows_without_a_picture"]) == (1, 2)
    assert items_of(tree).height == 3


def test_s01_patients_and_copies_stand_on_one_side_of_a_build_where_the_table_has_them_on_two(
    synthetic: Path, tmp_path: Path
) -> None:
    build(SOURCE, synthetic, tmp_path / "out")
    found = {row["item"]: row for row in items_of(synthetic).iter_rows(named=True)}
    sides: dict[str, set[str]] = defaultdict(set)
    official: dict[str, set[str]] = defaultdict(set)
    for table in tables(tmp_path / "out", ["id", "split"]):
        for row in table.to_pylist():
            item = found[item_of(row["id"], "coronahack")]
            sides[item["group"]].add(row["split"])
            official[item["group"]].add(item["official_split"])
    assert official["person 1 bacteria"] == {"train"}
    assert official["person 24 bacteria"] == {"test"}
    assert sides["person 1 bacteria"] == sides["person 24 bacteria"] == {"test"}
    assert all(len(one) == 1 for one in sides.values())


def test_s03_no_class_in_question_context_or_id(synthetic: Path) -> None:
    items = items_of(synthetic)
    assert not [column for column in items.columns if column.startswith("context.")]
    assert items["item"].str.contains(r"^[0-9a-f]{16}$").all()
    (task,) = coronahack.SPEC.tasks
    assert not re.search("normal|bacteri|viral|virus|covid|pneumonia", " ".join(task.wordings).lower())
    paths = items["media"].list.first().struct.field("path")
    assert paths.str.contains("bacteria|virus|IM-").sum() > items.height - 4


def test_ids_alone_of_films_may_be_passed_on() -> None:
    assert strictest(coronahack.SPEC.licences.values()) == ("LicenseRef-CoronaHack AND CC-BY-4.0", Redistribution.IDS)


@pytest.fixture
def real_tree(realdata: Path, tmp_path: Path) -> Path:
    """The real table beside folders of films that have none of them."""
    tree = tree_of(tmp_path)
    shutil.copyfile(realdata / "coronahack" / coronahack.TABLE, tree / coronahack.TABLE)
    return tree


def test_the_real_table_is_parsed_whole(real_tree: Path) -> None:
    rows = read_rows(real_tree / coronahack.TABLE)
    items = items_of(real_tree)
    assert items.height == len(rows) == 6197
    assert items["skip_reason"].null_count() == 6197
    expected = {(row["Dataset_type"].lower(), row["X_ray_image_name"]): published_label(row) for row in rows}
    for path, side, answer in items.select("media", "official_split", "answer.pneumonia_type").iter_rows():
        name = path[0]["path"].rpartition("/")[2]
        assert (answer[0] if answer else None) == expected.pop((side, name))
    assert not expected
    counts = coronahack.statistics(Store(real_tree), SourceOptions())
    kinds = Counter((row["Label"], row["Label_1_Virus_category"], row["Label_2_Virus_category"]) for row in rows)
    assert counts == {
        "rows": 6197,
        "normal_rows": kinds["Normal", "", ""],
        "bacterial_rows": kinds["Pnemonia", "bacteria", ""] + kinds["Pnemonia", "bacteria", "Streptococcus"],
        "viral_rows": sum(kinds["Pnemonia", "Virus", germ] for germ in ("", "COVID-19", "SARS")),
        "viral_rows_with_covid_19": kinds["Pnemonia", "Virus", "COVID-19"],
        "viral_rows_with_sars": kinds["Pnemonia", "Virus", "SARS"],
        "pneumonia_of_smoking_rows": kinds["Pnemonia", "Stress-Smoking", "ARDS"],
        "pneumonia_without_cause_rows": 0,
        "rows_without_a_picture": 6197,
        "pictures_without_a_row": 0,
    }


def test_the_real_table_less_the_rows_of_june_2020_has_the_published_counts(real_tree: Path, realdata: Path) -> None:
    path = real_tree / coronahack.TABLE
    rows = [row for row in read_rows(path) if not re.fullmatch(r"COVID19_\d+\.jpg", row["X_ray_image_name"])]
    tree_of(real_tree, base=[[row[name] for name in HEADER] for row in rows])
    assert coronahack.SPEC.versions[0].items == len(rows) == 5910
    answered = items_of(real_tree).filter(pl.col("answer.pneumonia_type").is_not_null())
    assert dict(answered["official_split"].value_counts().iter_rows()) == {"train": 5284, "test": 624}
    assert answered.height == coronahack.SPEC.published_items
    summary = read_rows(realdata / "coronahack" / "Chest_xray_Corona_dataset_Summary.csv")
    assert sum(int(row["Image_Count"]) for row in summary) == 5910
    counts = coronahack.statistics(Store(real_tree), SourceOptions())
    stated = {row["Label_2_Virus_category"]: int(row["Image_Count"]) for row in summary}
    assert counts["viral_rows_with_covid_19"] == stated["COVID-19"] == 58


def test_skip_limit_lets_the_table_of_june_2020_through() -> None:
    assert (287 + 2) / 6197 < coronahack.SPEC.skip_limit < 0.1


def crossing(rows: list[dict[str, str]], key: Callable[[str], object]) -> tuple[int, int]:
    """How many keys of names there are, and how many stand in both sides of the table."""
    sides: dict[object, set[str]] = defaultdict(set)
    for row in rows:
        found = key(row["X_ray_image_name"])
        if found is not None:
            sides[found].add(row["Dataset_type"])
    return len(sides), sum(len(one) > 1 for one in sides.values())


def test_s03_numbers_in_real_names_are_patients_with_their_kind_and_not_alone(real_tree: Path) -> None:
    rows = read_rows(real_tree / coronahack.TABLE)

    def person(name: str, parts: slice) -> object:
        match = re.match(r"person(\d+)_(virus|bacteria)_", name)
        return match.groups()[parts] if match else None

    assert crossing(rows, lambda name: person(name, slice(2))) == (2646, 0)
    assert crossing(rows, lambda name: person(name, slice(1))) == (1667, 170)
    kinds = defaultdict(set)
    for row in rows:
        if match := re.match(r"person(\d+)_(virus|bacteria)_", row["X_ray_image_name"]):
            kinds[match[1]].add(match[2])
    assert sum(len(one) == 2 for one in kinds.values()) == 979

    items = items_of(real_tree)
    patients = items.filter(pl.col("patient").is_not_null())
    assert (patients["patient"].n_unique(), patients.height) == (2646, 4265)
    normal = items.filter(pl.col("group").str.contains("^name:(normal2-)?im-"))
    assert (normal["group"].n_unique(), normal.height) == (583 + 853, 1575)
    two = items.group_by("group").agg(pl.col("official_split").n_unique().alias("sides")).filter(pl.col("sides") > 1)
    assert two.height == 0


def test_figures_of_one_paper_are_one_group_of_the_real_table(real_tree: Path) -> None:
    found = by_name(real_tree)
    series = [row["group"] for name, row in found.items() if name.startswith("SARS-")]
    assert len(series) == 4
    assert len(set(series)) == 1
    named = [f"41591_2020_819_Fig1_HTML.webp-day{day}.png" for day in (5, 10)]
    assert found[named[0]]["group"] == found[named[1]]["group"] == "name:41591_2020_819_fig1"
    assert found["COVID19_1.jpg"]["group"] != found["COVID19_2.jpg"]["group"]


def test_the_real_folder_without_films_is_one_error(realdata: Path) -> None:
    with pytest.raises(LayoutError, match="there is no folder Coronahack-Chest-XRay-Dataset/"):
        items_of(realdata / "coronahack")
