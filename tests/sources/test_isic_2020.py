"""The source ``isic-2020``: both versions of its table, the publisher's pairs, and what must never be told."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from qoq_data.errors import LayoutError, QoQError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.sources import isic_2020
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

V2, V1 = isic_2020.TABLES


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("isic-2020")
    isic_2020.synthesize(folder, 7, 24)
    return folder


@pytest.fixture(scope="module")
def real(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real tables beside the folder of the pictures, of which there is none but a name."""
    folder = tmp_path_factory.mktemp("isic-2020-real")
    for path in (realdata / "isic-2020").glob("*.csv"):
        shutil.copyfile(path, folder / path.name)
    (folder / "train").mkdir()
    (folder / "train" / "ISIC_2637011.jpg").touch()
    return folder


def picture(name: str, patient: str, target: str = "0", **cells: str) -> dict[str, str]:
    label = "malignant" if target == "1" else "benign"
    row = {"image_name": name, "patient_id": patient, "lesion_id": f"IL_{name}", "sex": "male", "age_approx": "45"}
    row |= {"anatom_site_general_challenge": "torso", "diagnosis": "unknown", "benign_malignant": label}
    return row | {"target": target} | cells


def small_tree(folder: Path, rows: Rows, pairs: list[tuple[str, str]] | None = None) -> Path:
    write_csv(folder / V2, rows)
    if pairs is not None:
        write_csv(folder / isic_2020.PAIRS, [{"image_name_1": a, "image_name_2": b} for a, b in pairs])
    (folder / "train").mkdir(exist_ok=True)
    for row in rows:
        (folder / "train" / f"{row['image_name']}.jpg").touch()
    return folder


def statistics(tree: Path, **options: str) -> dict[str, int]:
    return dict(isic_2020.statistics(Store(tree), isic_2020.Options.model_validate(options)))


@pytest.mark.parametrize("version", [V2, V1])
def test_real_tables_parsed_whole(version: str, real: Path, tmp_path: Path) -> None:
    for name in (version, isic_2020.PAIRS):
        shutil.copyfile(real / name, tmp_path / name)
    shutil.copytree(real / "train", tmp_path / "train")
    rows = read_csv(real / version)
    items = items_of(isic_2020, tmp_path)
    assert len(rows) == items.height == 33_126
    assert isic_2020.detect_version(Store(tmp_path)) == ("2" if version == V2 else "1")
    assert answers(items, "malignancy") == {row["image_name"]: row["benign_malignant"] for row in rows}
    assert Counter(answers(items, "malignancy").values()) == {"benign": 32_542, "malignant": 584}
    of_patient = dict(items.select("item", "patient").iter_rows())
    assert of_patient == {row["image_name"]: row["patient_id"] for row in rows}
    studies = dict(items.select("item", "study").iter_rows())
    assert studies == {row["image_name"]: row.get("lesion_id") for row in rows}
    for field, column in (("sex", "sex"), ("site", "anatom_site_general_challenge")):
        assert Counter(items[f"context.{field}"]) == Counter(row[column] or None for row in rows)
    ages = Counter(f"{row['age_approx']} years" if row["age_approx"] else None for row in rows)
    ages["over 89 years"] = ages.pop("90 years")
    assert Counter(items["context.age"]) == ages
    assert items["skip_reason"].null_count() == 33_126
    counts = statistics(tmp_path)
    assert counts["patients"] == counts["groups_of_patients"] == len({row["patient_id"] for row in rows}) == 2_056
    assert (counts["without_sex"], counts["without_age_approx"]) == (65, 68)
    assert counts["without_anatom_site_general_challenge"] == 527


def test_real_pairs_are_counted_and_by_a_recipe_key_left_out(real: Path) -> None:
    pairs = [(row["image_name_1"], row["image_name_2"]) for row in read_csv(real / isic_2020.PAIRS)]
    table = {row["image_name"]: row for row in read_csv(real / V2)}
    counts = statistics(real)
    assert counts["pairs_listed"] == len(pairs) == 425
    assert counts["pairs_of_two_patients"] == sum(table[a]["patient_id"] != table[b]["patient_id"] for a, b in pairs)
    assert counts["pictures_in_pairs_with_two_targets"] == sum(
        table[a]["target"] != table[b]["target"] for a, b in pairs
    )
    assert counts["pairs_outside_the_table"] == counts["copies_left_out"] == 0
    left_out = items_of(isic_2020, real, duplicates="leave_out").drop_nulls("skip_reason")
    assert set(left_out["item"]) == {max(pair) for pair in pairs}
    assert set(left_out["skip_reason"]) == {"withdrawn"}
    assert left_out.height <= isic_2020.SPEC.skip_limit * 33_126


def test_unseeded_draws_of_two_runs_overlap_in_the_published_way_and_ours_is_the_same_each_time(real: Path) -> None:
    items = items_of(isic_2020, real)
    classes = answers(items, "malignancy")
    training = published_training_half(classes, run=1)
    validation = set(classes) - published_training_half(classes, run=2)
    assert len(training & validation) > 3_000
    assert sides_of(isic_2020, items, 1) == sides_of(isic_2020, items_of(isic_2020, real), 1)


def test_s03_patients_and_s01_duplicates_cross_in_the_published_way_and_never_in_ours(real: Path) -> None:
    items = items_of(isic_2020, real)
    of_patient = dict(items.select("item", "patient").iter_rows())
    in_pair = {row[f"image_name_{n}"]: row["image_name_1"] for row in read_csv(real / isic_2020.PAIRS) for n in (1, 2)}
    published = published_training_half(answers(items, "malignancy"), run=1)
    assert crossing(of_patient, published) > 1_500
    assert crossing(in_pair, published) > 80
    for seed in range(3):
        ours = {item for item, side in sides_of(isic_2020, items, seed).items() if side == "train"}
        assert crossing(of_patient, ours) == crossing(in_pair, ours) == 0


def test_s01_a_pair_of_two_patients_joins_all_pictures_of_both(tmp_path: Path) -> None:
    rows = [picture(f"ISIC_{n}", f"IP_{n // 2}") for n in range(40)]
    chain = [("ISIC_1", "ISIC_10"), ("ISIC_11", "ISIC_38"), ("ISIC_4", "ISIC_9999999")]
    items = items_of(isic_2020, small_tree(tmp_path, rows, chain))
    groups = dict(items.select("item", "group").iter_rows())
    assert {item for item, group in groups.items() if group == "IP_0"} == {f"ISIC_{n}" for n in (0, 1, 10, 11, 38, 39)}
    assert len(set(groups.values())) == 18
    for seed in range(20):
        sides = sides_of(isic_2020, items, seed)
        assert len({sides[f"ISIC_{n}"] for n in (0, 1, 10, 11, 38, 39)}) == 1
    counts = statistics(tmp_path)
    assert (counts["pairs_listed"], counts["pairs_outside_the_table"], counts["pairs_of_two_patients"]) == (3, 1, 2)
    assert counts["groups_of_patients"] == 18
    small_tree(tmp_path, rows, [(b, a) for a, b in reversed(chain)])
    assert items_of(isic_2020, tmp_path).equals(items)


def test_of_a_chain_of_copies_one_stays_whatever_the_order_of_its_pairs(tmp_path: Path) -> None:
    rows = [picture(f"ISIC_{n}", "IP_1") for n in "dbac"]
    for pairs in ([("ISIC_a", "ISIC_b"), ("ISIC_b", "ISIC_a")], [("ISIC_c", "ISIC_b"), ("ISIC_b", "ISIC_a")]):
        named = {name for pair in pairs for name in pair}
        items = items_of(isic_2020, small_tree(tmp_path, rows, pairs), duplicates="leave_out")
        assert set(items.drop_nulls("skip_reason")["item"]) == named - {"ISIC_a"}
        assert statistics(tmp_path, duplicates="leave_out")["copies_left_out"] == len(named) - 1
    with pytest.raises(LayoutError, match="'leave_out' needs it"):
        (tmp_path / isic_2020.PAIRS).unlink()
        items_of(isic_2020, tmp_path, duplicates="leave_out")


def test_t08_a_pair_with_two_targets_is_a_conflict_for_both(tmp_path: Path) -> None:
    rows = [picture("ISIC_1", "IP_1", "1"), picture("ISIC_2", "IP_1"), picture("ISIC_3", "IP_1")]
    tree = small_tree(tmp_path, rows, [("ISIC_1", "ISIC_2")])
    for duplicates in ("keep", "leave_out"):
        items = items_of(isic_2020, tree, duplicates=duplicates)
        assert items["skip_reason"].to_list() == ["label_conflict", "label_conflict", None]
        assert "another target" in items["skip_detail"][0]
    assert statistics(tree)["pictures_in_pairs_with_two_targets"] == 2


def test_t08_a_target_that_disagrees_with_its_word_is_a_conflict_and_a_blank_one_no_label(tmp_path: Path) -> None:
    rows = [picture("ISIC_1", "IP_1", "1", benign_malignant="benign"), picture("ISIC_2", "IP_1", target="")]
    items = items_of(isic_2020, small_tree(tmp_path, [*rows, picture("ISIC_3", "IP_1")]))
    assert items["skip_reason"].to_list() == ["label_conflict", None, None]
    assert answers(items, "malignancy")["ISIC_2"] is None
    assert statistics(tmp_path)["pictures_with_disagreeing_targets"] == 1


def test_s03_diagnosis_is_told_nowhere(synthetic: Path, tmp_path: Path) -> None:
    shutil.copytree(synthetic, tmp_path / "raw")
    rows = read_csv(tmp_path / "raw" / V2)
    assert {row["diagnosis"] for row in rows if row["target"] == "1"} == {"melanoma"}
    write_csv(tmp_path / "raw" / V2, [row | {"diagnosis": "zebra"} for row in rows])
    assert items_of(isic_2020, tmp_path / "raw").equals(items_of(isic_2020, synthetic))
    built_rows, _ = built(isic_2020, synthetic, tmp_path / "out")
    (task,) = isic_2020.SPEC.tasks
    shown = [f"{row['question']} {row['context']} {row['choices']} {row['views']}" for row in built_rows.values()]
    assert not [text for text in shown if "melanoma" in text.lower() or "nevus" in text.lower()]
    assert len(set(task.wordings)) >= 5


def test_copies_are_rows_or_ledger_lines_of_the_built_corpus(synthetic: Path, tmp_path: Path) -> None:
    pairs = [tuple(row.values()) for row in read_csv(synthetic / isic_2020.PAIRS)]
    rows, ledger = built(isic_2020, synthetic, tmp_path / "keep")
    sides = {row_id.split("/")[1]: row["split"] for row_id, row in rows.items()}
    assert len(pairs) == 6
    assert all(sides[a] == sides[b] for a, b in pairs)
    assert ledger == []
    rows, ledger = built(isic_2020, synthetic, tmp_path / "leave_out", duplicates="leave_out")
    assert {line["item"] for line in ledger} == {max(pair) for pair in pairs}
    assert len(rows) == len(sides) - 6


def test_t07_ids_are_text_and_marks_of_other_systems_change_nothing(tmp_path: Path) -> None:
    tree = small_tree(tmp_path, [picture("00001", "007"), picture("1e5", "7")])
    plain = items_of(isic_2020, tree)
    assert plain["item"].to_list() == ["00001", "1e5"]
    assert plain["patient"].to_list() == ["007", "7"]
    data = (tree / V2).read_bytes()
    (tree / V2).write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") + b"\r\n")
    assert items_of(isic_2020, tree).equals(plain)


def test_both_places_of_the_pictures_and_a_picture_that_is_in_neither(tmp_path: Path) -> None:
    tree = small_tree(tmp_path, [picture("ISIC_1", "IP_1"), picture("ISIC_2", "IP_1"), picture("ISIC_3", "IP_2")])
    other = tree / isic_2020.FOLDERS[1]
    other.mkdir(parents=True)
    (tree / "train" / "ISIC_2.jpg").rename(other / "ISIC_2.jpg")
    (tree / "train" / "ISIC_3.jpg").unlink()
    paths = [media[0]["path"] for media in items_of(isic_2020, tree)["media"].to_list()]
    assert paths == ["train/ISIC_1.jpg", f"{isic_2020.FOLDERS[1]}/ISIC_2.jpg", "train/ISIC_3.jpg"]
    assert statistics(tree)["pictures_in_two_folders"] == 0


def with_cell(column: str, value: str) -> Callable[[Path], None]:
    return lambda tree: write_csv(tree / V2, [picture("ISIC_1", "IP_1"), picture("ISIC_2", "IP_1") | {column: value}])


def web_page(tree: Path) -> None:
    (tree / V2).write_text("<!DOCTYPE html><html>Log in</html>")


def without_pictures(tree: Path) -> None:
    for path in (tree / "train").iterdir():
        path.unlink()


def without_folder(tree: Path) -> None:
    shutil.rmtree(tree / "train")


def without_table(tree: Path) -> None:
    (tree / V2).unlink()


def renamed_column(tree: Path) -> None:
    (tree / V2).write_text((tree / V2).read_text().replace("target", "label", 1))


def half_a_pair(tree: Path) -> None:
    (tree / isic_2020.PAIRS).write_text("image_name_1,image_name_2\nISIC_1,\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_cell("image_name", "ISIC_1"), "row 3: the picture of this image_name was already there"),
        (with_cell("image_name", ""), "row 3: image_name is blank"),
        (with_cell("patient_id", ""), "row 3: patient_id is blank"),
        (with_cell("target", "2"), "row 3: target is neither 0 nor 1"),
        (with_cell("benign_malignant", "secret"), "row 3: benign_malignant is neither"),
        (with_cell("sex", "secret"), "row 3: sex is neither male nor female nor unknown"),
        (with_cell("age_approx", "145"), "row 3: age_approx is no age of 0 to 120 years"),
        (with_cell("age_approx", "secret"), "line 3: the cell of column 'age_approx' is no Float64"),
        (with_cell("anatom_site_general_challenge", "secret"), "row 3: anatom_site_general_challenge is none of"),
        (web_page, "is a web page and not a table"),
        (without_pictures, r"no \.jpg file stands in train/"),
        (without_folder, "neither train/ nor ISIC_2020_Training_JPEG/train/"),
        (without_table, f"neither {V2} nor {V1}"),
        (renamed_column, "lacks the column 'target'"),
        (half_a_pair, f"{isic_2020.PAIRS}, row 2: it does not name two pictures"),
    ],
)
def test_bad_input_is_one_clear_error(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    tree = small_tree(tmp_path, [picture("ISIC_1", "IP_1"), picture("ISIC_2", "IP_1")])
    damage(tree)
    with pytest.raises((LayoutError, TableError), match=message) as caught:
        items_of(isic_2020, tree)
    assert "secret" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_non_commercial_terms_follow_the_rows() -> None:
    assert strictest(isic_2020.SPEC.licences.values()) == ("CC-BY-NC-4.0", Redistribution.SAME_TERMS)


def test_other_real_folders_are_refused(realdata: Path) -> None:
    for other in ("ham10000", "pad-ufes-20", "busi"):
        with pytest.raises(QoQError, match="there is no table of labels"):
            items_of(isic_2020, realdata / other)
