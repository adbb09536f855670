"""The source ``pad-ufes-20``: patients and their lesions, the folders of the pictures, and what must never be told."""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from qoq_data.errors import LayoutError, QoQError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.sources import pad_ufes_20
from qoq_data.sources._item_rows import item_of_path
from tests.sources.skin_corpora import (
    Rows,
    answers,
    built,
    crossing,
    items_of,
    published_training_half,
    read_csv,
    sides_of,
    write_csv,
)

TABLE = pad_ufes_20.TABLE
FIVE = {
    "MEL": "melanoma",
    "NEV": "nevus",
    "BCC": "basal_cell_carcinoma",
    "ACK": "akiec",
    "SCC": "akiec",
    "SEK": "other",
}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pad-ufes-20")
    pad_ufes_20.synthesize(folder, 7, 24)
    return folder


def row(name: str, diagnostic: str = "NEV", **cells: str) -> dict[str, str]:
    pat, patient, lesion, _ = name.split("_")
    plain = {"patient_id": f"{pat}_{patient}", "lesion_id": lesion, "age": "55", "gender": "FEMALE", "region": "NECK"}
    return plain | {"diagnostic": diagnostic, "img_id": f"{name}.png", "biopsed": "False"} | cells


def small_tree(folder: Path, rows: Rows, place: str = "images") -> Path:
    write_csv(folder / TABLE, rows)
    (folder / place).mkdir(parents=True, exist_ok=True)
    for one in rows:
        (folder / place / one["img_id"]).touch()
    return folder


def statistics(tree: Path) -> dict[str, int]:
    return dict(pad_ufes_20.statistics(Store(tree), pad_ufes_20.Options()))


def test_real_table_parsed_whole(realdata: Path) -> None:
    rows = {item_of_path(one["img_id"]): one for one in read_csv(realdata / "pad-ufes-20" / TABLE)}
    items = items_of(pad_ufes_20, realdata / "pad-ufes-20", sex="tell")
    assert len(rows) == items.height == 2_298
    assert answers(items, "six_diagnoses") == {item: one["diagnostic"].lower() for item, one in rows.items()}
    five = answers(items, "five_classes")
    assert five == {item: FIVE[one["diagnostic"]] for item, one in rows.items()}
    counted = {"melanoma": 52, "nevus": 244, "basal_cell_carcinoma": 845, "akiec": 922, "other": 235}
    assert Counter(five.values()) == counted
    for column, field in (("patient", "patient_id"), ("group", "patient_id")):
        assert dict(items.select("item", column).iter_rows()) == {item: one[field] for item, one in rows.items()}
    pairs = {item: f"{one['patient_id']}/{one['lesion_id']}" for item, one in rows.items()}
    assert dict(items.select("item", "study").iter_rows()) == pairs
    for field, column in (("sex", "gender"), ("site", "region")):
        assert Counter(items[f"context.{field}"]) == Counter(one[column].lower() or None for one in rows.values())
    ages = Counter("over 89 years" if int(one["age"]) > 89 else f"{one['age']} years" for one in rows.values())
    assert Counter(items["context.age"]) == ages
    assert items["skip_reason"].null_count() == 2_298
    counts = statistics(realdata / "pad-ufes-20")
    lesions = {one["lesion_id"] for one in rows.values()}
    assert counts["patients"] == len({one["patient_id"] for one in rows.values()}) == 1_373
    assert counts["lesions"] == len(set(pairs.values())) == 1_891
    assert counts["lesion_ids_of_several_patients"] == 1_891 - len(lesions) == 250
    assert counts["proven_by_biopsy"] == sum(one["biopsed"] == "True" for one in rows.values()) == 1_342
    assert (counts["without_gender"], counts["pictures_named_after_another_lesion"]) == (804, 0)


def test_real_pictures_are_built_verified_and_traced(realdata: Path, tmp_path: Path) -> None:
    images = realdata / "pad-ufes-20" / "images"
    names = {path.name for path in images.iterdir()}
    table = read_csv(realdata / "pad-ufes-20" / TABLE)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "images").symlink_to(images)
    kept = {one["img_id"]: one for one in table[:20] + [one for one in table if one["img_id"] in names]}
    write_csv(tmp_path / "raw" / TABLE, list(kept.values()))
    rows, ledger = built(pad_ufes_20, tmp_path / "raw", tmp_path / "out")
    assert len(rows) == 12
    assert len(ledger) == len(kept) - 6
    assert {line["reason"] for line in ledger} == {"file_missing"}
    texts = {choice.key: choice.text for choice in pad_ufes_20.SPEC.task("six_diagnoses").choices}
    told = {
        one["provenance"][0]["path"].partition("/")[2]: one for one in rows.values() if one["task"] != "five_classes"
    }
    assert told.keys() == names
    assert {name: one["answer"] for name, one in told.items()} == {
        name: [texts[kept[name]["diagnostic"].lower()]] for name in names
    }
    assert len({tuple(one["answer"]) for one in told.values()}) == 6
    assert not [one for one in rows.values() if "PAT" in f"{one['id']}{one['context']}{one['patient']}{one['study']}"]
    assert "alpha" in str(told["PAT_187_287_482.png"]["provenance"])
    assert "alpha" not in str(told["PAT_369_755_733.png"]["provenance"])


def test_unseeded_draws_of_two_runs_overlap_in_the_published_way_and_ours_is_the_same_each_time(realdata: Path) -> None:
    items = items_of(pad_ufes_20, realdata / "pad-ufes-20")
    classes = answers(items, "five_classes")
    training = published_training_half(classes, run=1)
    validation = set(classes) - published_training_half(classes, run=2)
    assert len(training & validation) > 200
    again = items_of(pad_ufes_20, realdata / "pad-ufes-20")
    assert sides_of(pad_ufes_20, items, 1) == sides_of(pad_ufes_20, again, 1)


def test_s03_patients_and_lesions_cross_in_the_published_way_and_never_in_ours(realdata: Path) -> None:
    items = items_of(pad_ufes_20, realdata / "pad-ufes-20")
    patients = dict(items.select("item", "patient").iter_rows())
    lesions = dict(items.select("item", "study").iter_rows())
    published = published_training_half(answers(items, "five_classes"), run=1)
    assert crossing(patients, published) > 150
    assert crossing(lesions, published) > 50
    for seed in range(3):
        sides = sides_of(pad_ufes_20, items, seed)
        for side in ("train", "validation", "test"):
            inside = {item for item, found in sides.items() if found == side}
            assert inside
            assert crossing(patients, inside) == crossing(lesions, inside) == 0


def test_lesion_id_alone_merges_two_patients_and_a_split_by_lesion_parts_one(realdata: Path) -> None:
    rows = read_csv(realdata / "pad-ufes-20" / TABLE)
    people, lesions = defaultdict(set), defaultdict(set)
    for one in rows:
        people[one["lesion_id"]].add(one["patient_id"])
        lesions[one["patient_id"]].add(one["lesion_id"])
    assert Counter(map(len, people.values())) == {1: 1_391, 2: 250}
    assert sum(len(found) > 1 for found in lesions.values()) == 355
    items = items_of(pad_ufes_20, realdata / "pad-ufes-20")
    in_group = defaultdict(set)
    for group, patient, study in items.select("group", "patient", "study").iter_rows():
        in_group[group].add(patient)
        assert study.startswith(f"{patient}/")
    assert set(map(len, in_group.values())) == {1}
    assert len(in_group) == 1_373


def test_two_patients_with_one_lesion_id_neither_join_nor_conflict(tmp_path: Path) -> None:
    rows = [row("PAT_1_7_1", "MEL"), row("PAT_2_7_1", "NEV"), row("PAT_1_8_1", "NEV")]
    items = items_of(pad_ufes_20, small_tree(tmp_path, rows))
    assert items["skip_reason"].null_count() == 3
    assert Counter(items["group"]) == {"PAT_1": 2, "PAT_2": 1}
    assert Counter(items["study"]) == {"PAT_1/7": 1, "PAT_2/7": 1, "PAT_1/8": 1}
    assert statistics(tmp_path)["lesion_ids_of_several_patients"] == 1


def test_t08_a_lesion_of_two_diagnoses_is_a_conflict_in_all_its_pictures(tmp_path: Path) -> None:
    rows = [row("PAT_1_7_1", "MEL"), row("PAT_1_7_2", "NEV"), row("PAT_1_8_1", "NEV"), row("PAT_3_9_1", "")]
    items = items_of(pad_ufes_20, small_tree(tmp_path, rows))
    skipped = dict(items.select("study", "skip_reason").iter_rows())
    assert skipped == {"PAT_1/7": "label_conflict", "PAT_1/8": None, "PAT_3/9": None}
    assert items["skip_reason"].null_count() == 2
    assert answers(items, "five_classes")[item_of_path("PAT_3_9_1.png")] is None
    assert statistics(tmp_path)["pictures_of_lesions_with_two_diagnoses"] == 2


def test_t08_a_picture_named_after_another_lesion_than_its_row_is_a_conflict(tmp_path: Path) -> None:
    rows = [row("PAT_1_7_1"), row("PAT_1_71_1", lesion_id="7"), row("PAT_11_7_1", patient_id="PAT_1"), row("PAT_2_9_1")]
    items = items_of(pad_ufes_20, small_tree(tmp_path, rows))
    conflicts = items.drop_nulls("skip_reason")
    assert set(conflicts["item"]) == {item_of_path("PAT_1_71_1.png"), item_of_path("PAT_11_7_1.png")}
    assert set(conflicts["skip_detail"]) == {"its name is not of its row's patient and lesion"}
    assert statistics(tmp_path)["pictures_named_after_another_lesion"] == 2


def test_s03_biopsed_gives_the_class_away_and_is_told_nowhere(realdata: Path, tmp_path: Path) -> None:
    rows = read_csv(realdata / "pad-ufes-20" / TABLE)
    assert {one["biopsed"] for one in rows if one["diagnostic"] in ("BCC", "SCC", "MEL")} == {"True"}
    (tmp_path / "images").symlink_to(realdata / "pad-ufes-20" / "images")
    for biopsed in ("", "UNK", "TRUE", "false"):
        write_csv(tmp_path / TABLE, [one | {"biopsed": biopsed} for one in rows])
        changed = items_of(pad_ufes_20, tmp_path, sex="tell")
        assert changed.equals(items_of(pad_ufes_20, realdata / "pad-ufes-20", sex="tell"))
        assert statistics(tmp_path)["proven_by_biopsy"] == (2_298 if biopsed == "TRUE" else 0)


def test_s03_a_blank_gender_rules_a_cancer_out_so_it_is_told_only_where_the_recipe_says_so(realdata: Path) -> None:
    rows = read_csv(realdata / "pad-ufes-20" / TABLE)
    cancers = [one["gender"] for one in rows if one["diagnostic"] in ("BCC", "SCC", "MEL")]
    others = [one["gender"] for one in rows if one["diagnostic"] not in ("BCC", "SCC", "MEL")]
    assert "" not in cancers
    assert (len(others), len(others) - others.count("")) == (1_209, 405)
    items = items_of(pad_ufes_20, realdata / "pad-ufes-20")
    assert "context.sex" not in items.columns
    for field in ("age", "site"):
        assert items[f"context.{field}"].null_count() == 0
    assert Counter(items_of(pad_ufes_20, realdata / "pad-ufes-20", sex="tell")["context.sex"])[None] == 804


def test_the_published_class_of_squamous_cell_carcinoma_says_what_it_holds(synthetic: Path) -> None:
    items = items_of(pad_ufes_20, synthetic)
    joined = defaultdict(set)
    five = answers(items, "five_classes")
    for item, diagnosis in answers(items, "six_diagnoses").items():
        joined[five[item]].add(diagnosis)
    assert joined["akiec"] == {"ack", "scc"}
    assert joined["other"] == {"sek"}
    fourth = pad_ufes_20.SPEC.task("five_classes").choices[3]
    assert (fourth.key, fourth.text) == ("akiec", "Actinic keratosis or squamous cell carcinoma (AKIEC)")
    assert all(len(set(task.wordings)) >= 5 for task in pad_ufes_20.SPEC.tasks)
    assert not re.search("AKIEC|carcinoma|keratos|nev|melan", " ".join(pad_ufes_20.SPEC.tasks[0].wordings))


@pytest.mark.parametrize("place", ["images", "images/imgs_part_2", "images/imgs_part_3/imgs_part_3", "imgs_part_1"])
def test_pictures_are_found_flat_and_in_the_folders_of_the_archives_under_the_same_ids(
    place: str, tmp_path: Path
) -> None:
    rows = [row("PAT_1_7_1"), row("PAT_2_7_1")]
    items = items_of(pad_ufes_20, small_tree(tmp_path, rows, place))
    assert sorted(media[0]["path"] for media in items["media"]) == [f"{place}/{one['img_id']}" for one in rows]
    assert set(items["item"]) == {item_of_path(one["img_id"]) for one in rows}
    assert not any("PAT" in item for item in items["item"])


def test_t07_ids_are_text_and_names_without_their_ending_are_the_same_pictures(tmp_path: Path) -> None:
    tree = small_tree(tmp_path, [row("PAT_007_0042_1"), row("PAT_7_1e5_1")])
    plain = items_of(pad_ufes_20, tree)
    assert set(plain["study"]) == {"PAT_007/0042", "PAT_7/1e5"}
    write_csv(tree / TABLE, [one | {"img_id": one["img_id"][:-4]} for one in read_csv(tree / TABLE)])
    assert items_of(pad_ufes_20, tree).equals(plain)
    data = (tree / TABLE).read_bytes()
    (tree / TABLE).write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") + b"\r\n")
    assert items_of(pad_ufes_20, tree).equals(plain)


def with_cell(column: str, value: str) -> Callable[[Path], None]:
    return lambda tree: write_csv(tree / TABLE, [row("PAT_1_7_1"), row("PAT_1_7_2") | {column: value}])


def web_page(tree: Path) -> None:
    (tree / TABLE).write_text("<!DOCTYPE html><html>Log in</html>")


def still_packed(tree: Path) -> None:
    for path in (tree / "images").iterdir():
        path.unlink()
    (tree / "images" / "imgs_part_1.zip").touch()


def without_folder(tree: Path) -> None:
    shutil.rmtree(tree / "images")


def without_table(tree: Path) -> None:
    (tree / TABLE).unlink()


def renamed_column(tree: Path) -> None:
    (tree / TABLE).write_text((tree / TABLE).read_text().replace("diagnostic", "diagnosis", 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_cell("img_id", "PAT_1_7_1.png"), "row 3: the picture of this img_id was already there"),
        (with_cell("img_id", "PAT_1_7_1"), "row 3: the picture of this img_id was already there"),
        (with_cell("img_id", ""), "row 3: patient_id, lesion_id or img_id is blank"),
        (with_cell("patient_id", ""), "row 3: patient_id, lesion_id or img_id is blank"),
        (with_cell("lesion_id", ""), "row 3: patient_id, lesion_id or img_id is blank"),
        (with_cell("diagnostic", "secret"), "row 3: diagnostic is none of the six diagnoses"),
        (with_cell("gender", "secret"), "row 3: gender is neither male nor female nor unknown"),
        (with_cell("age", "121"), "row 3: age is no age of 0 to 120 years"),
        (with_cell("age", "secret"), "line 3: the cell of column 'age' is no Float64"),
        (with_cell("region", "secret"), "row 3: region is none of the publisher's sites"),
        (with_cell("biopsed", "secret"), "row 3: biopsed is neither true nor false nor unknown"),
        (web_page, "is a web page and not a table"),
        (still_packed, r"no \.png file stands in images/\. Unpack the archives there"),
        (without_folder, "neither images/ nor"),
        (without_table, "metadata.csv is not in the raw folder"),
        (renamed_column, "lacks the column 'diagnostic'"),
    ],
)
def test_bad_input_is_one_clear_error(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    tree = small_tree(tmp_path, [row("PAT_1_7_1"), row("PAT_1_7_2")])
    damage(tree)
    with pytest.raises((LayoutError, TableError), match=message) as caught:
        items_of(pad_ufes_20, tree)
    assert "secret" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_rows_may_be_passed_on_with_the_authors_named() -> None:
    assert strictest(pad_ufes_20.SPEC.licences.values()) == ("CC-BY-4.0", Redistribution.OPEN)


def test_other_real_folders_are_refused(realdata: Path) -> None:
    for other in ("ham10000", "isic-2020", "cmmd"):
        with pytest.raises(QoQError, match=r"metadata\.csv (is not in the raw folder|lacks the column)"):
            items_of(pad_ufes_20, realdata / other)
