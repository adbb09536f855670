"""The source ``ham10000``: two releases with the same items, lesion masks, and what must never be told."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qoq_data.errors import LayoutError, QoQError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.source import SourceOptions
from qoq_data.sources import ham10000
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

TABLE = "HAM10000_metadata.csv"
GROUND_TRUTH = "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"
GROUPINGS = "ISIC2018_Task3_Training_LesionGroupings.csv"
INPUT = "ISIC2018_Task3_Training_Input"
MARKS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
FIVE = {"mel": "melanoma", "nv": "nevus", "bcc": "basal_cell_carcinoma", "akiec": "akiec"}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ham10000")
    ham10000.synthesize(folder, 7, 24)
    return folder


def row(name: str, lesion: str = "HAM_1", dx: str = "nv", **cells: str) -> dict[str, str]:
    plain = {"lesion_id": lesion, "image_id": name, "dx": dx, "dx_type": "histo", "age": "45.0", "sex": "male"}
    return plain | {"localization": "back"} | cells


def small_tree(folder: Path, rows: Rows) -> Path:
    write_csv(folder / TABLE, rows)
    (folder / "images").mkdir(exist_ok=True)
    for one in rows:
        (folder / "images" / f"{one['image_id']}.jpg").touch()
    return folder


def as_challenge(folder: Path, rows: Rows) -> Path:
    """The same rows as task 3 of ISIC 2018 has them, sorted by picture, the lesions in another order."""
    ordered = sorted(rows, key=lambda one: one["image_id"])
    marks = [{mark: f"{float(mark.lower() == one['dx']):.1f}" for mark in MARKS} for one in ordered]
    write_csv(
        folder / GROUND_TRUTH, [{"image": one["image_id"]} | given for one, given in zip(ordered, marks, strict=True)]
    )
    confirmed = [
        {"image": one["image_id"], "lesion_id": one["lesion_id"], "diagnosis_confirm_type": one["dx_type"]}
        for one in reversed(ordered)
    ]
    write_csv(folder / GROUPINGS, confirmed)
    (folder / INPUT).mkdir()
    (folder / INPUT / f"{ordered[0]['image_id']}.jpg").touch()
    return folder


def statistics(tree: Path) -> dict[str, int]:
    return dict(ham10000.statistics(Store(tree), SourceOptions()))


def test_real_table_parsed_whole(realdata: Path) -> None:
    rows = read_csv(realdata / "ham10000" / TABLE)
    items = items_of(ham10000, realdata / "ham10000")
    assert len(rows) == items.height == 10_015
    assert answers(items, "seven_diagnoses") == {one["image_id"]: one["dx"] for one in rows}
    assert answers(items, "five_classes") == {one["image_id"]: FIVE.get(one["dx"], "other") for one in rows}
    five = Counter(answers(items, "five_classes").values())
    assert five == {"nevus": 6_705, "melanoma": 1_113, "basal_cell_carcinoma": 514, "akiec": 327, "other": 1_356}
    groups = dict(items.select("item", "group").iter_rows())
    assert groups == {one["image_id"]: f"lesion:{one['lesion_id']}" for one in rows}
    assert items["patient"].null_count() == 10_015
    for field, column in (("sex", "sex"), ("site", "localization")):
        told = Counter(None if one[column] == "unknown" else one[column] for one in rows)
        assert Counter(items[f"context.{field}"]) == told
    ages = Counter(f"{float(one['age']):.0f} years" if one["age"] else None for one in rows)
    assert Counter(items["context.age"]) == ages
    counts = statistics(realdata / "ham10000")
    assert counts["lesions"] == len({one["lesion_id"] for one in rows}) == 7_470
    repeats = Counter(one["lesion_id"] for one in rows)
    assert counts["lesions_with_several_pictures"] == sum(count > 1 for count in repeats.values())
    assert (counts["without_age"], counts["without_sex"], counts["pictures_vasc"]) == (57, 57, 142)
    assert counts["pictures_of_lesions_with_two_diagnoses"] == counts["mask_files"] == 0


def test_real_pictures_are_built_verified_and_traced(realdata: Path, tmp_path: Path) -> None:
    names = sorted(path.stem for path in (realdata / "ham10000" / "images").iterdir())
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "images").symlink_to(realdata / "ham10000" / "images")
    table = {one["image_id"]: one for one in read_csv(realdata / "ham10000" / TABLE)}
    write_csv(tmp_path / "raw" / TABLE, [*table.values()][:20] + [table[name] for name in names])
    rows, ledger = built(ham10000, tmp_path / "raw", tmp_path / "out")
    texts = {choice.key: choice.text for choice in ham10000.SPEC.task("seven_diagnoses").choices}
    found = {row_id.split("/")[1]: one for row_id, one in rows.items() if one["task"] == "seven_diagnoses"}
    assert sorted(found) == names
    assert len(rows) == 10
    assert len(ledger) == 20
    assert {line["reason"] for line in ledger} == {"file_missing"}
    for name, one in found.items():
        assert one["answer"] == [texts[table[name]["dx"]]]
        assert one["images"][0]["bytes"] == (realdata / "ham10000" / "images" / f"{name}.jpg").read_bytes()
        assert one["boxes"] == []
        assert table[name]["sex"] in one["context"]


def test_both_releases_give_the_same_items_and_answers(realdata: Path, tmp_path: Path) -> None:
    harvard = items_of(ham10000, realdata / "ham10000")
    tree = as_challenge(tmp_path, read_csv(realdata / "ham10000" / TABLE))
    challenge = items_of(ham10000, tree)
    for column in ("item", "group", "study", "answer.five_classes", "answer.seven_diagnoses", "skip_reason"):
        assert challenge[column].equals(harvard[column]), column
    assert challenge["context.age"].null_count() == 10_015
    assert ham10000.detect_version(Store(tree)) == "isic-2018"
    assert ham10000.detect_version(Store(realdata / "ham10000")) == "harvard"
    for place in (GROUND_TRUTH.rpartition("/")[2], GROUPINGS):
        inner = tree / "ISIC2018_Task3_Training_GroundTruth" / place
        if inner.exists():
            inner.rename(tree / place)
        else:
            (tree / place).rename(inner)
    assert items_of(ham10000, tree).drop("label_file").equals(challenge.drop("label_file"))


def test_unseeded_draws_of_two_runs_overlap_in_the_published_way_and_ours_is_the_same_each_time(realdata: Path) -> None:
    items = items_of(ham10000, realdata / "ham10000")
    classes = answers(items, "five_classes")
    training = published_training_half(classes, run=1)
    validation = set(classes) - published_training_half(classes, run=2)
    assert len(training & validation) > 1_000
    again = items_of(ham10000, realdata / "ham10000")
    assert sides_of(ham10000, items, 1) == sides_of(ham10000, again, 1)


def test_s03_repeats_of_a_lesion_cross_in_the_published_way_and_never_in_ours(realdata: Path) -> None:
    rows = read_csv(realdata / "ham10000" / TABLE)
    lesions = {one["image_id"]: one["lesion_id"] for one in rows}
    items = items_of(ham10000, realdata / "ham10000")
    assert crossing(lesions, published_training_half(answers(items, "five_classes"), run=1)) > 500
    for seed in range(3):
        sides = sides_of(ham10000, items, seed)
        assert crossing(lesions, {item for item, side in sides.items() if side == "train"}) == 0
        assert crossing(lesions, {item for item, side in sides.items() if side == "test"}) == 0


def test_s03_dx_type_gives_the_class_away_and_is_told_nowhere(realdata: Path, tmp_path: Path) -> None:
    rows = read_csv(realdata / "ham10000" / TABLE)
    assert {one["dx"] for one in rows if one["dx_type"] == "follow_up"} == {"nv"}
    assert {one["dx_type"] for one in rows if one["dx"] in ("mel", "bcc")} == {"histo"}
    (tmp_path / "images").symlink_to(realdata / "ham10000" / "images")
    write_csv(tmp_path / TABLE, [one | {"dx_type": "zebra"} for one in rows])
    items = items_of(ham10000, realdata / "ham10000")
    assert items_of(ham10000, tmp_path).equals(items)
    assert not any("zebra" in str(value) for value in items_of(ham10000, tmp_path).rows())
    assert not set(ham10000.SPEC.context_fields) - {"age", "sex", "site"}


def test_classes_that_the_published_way_joins_stay_seven_in_a_task_of_their_own(synthetic: Path) -> None:
    items = items_of(ham10000, synthetic)
    joined = defaultdict(set)
    five = answers(items, "five_classes")
    for item, dx in answers(items, "seven_diagnoses").items():
        joined[five[item]].add(dx)
    assert joined["other"] == {"bkl", "df", "vasc"}
    assert joined["akiec"] == {"akiec"}
    texts = [choice.text for choice in ham10000.SPEC.task("five_classes").choices]
    assert texts[3] == "Actinic keratosis or Bowen's disease (AKIEC)"
    assert all(len(set(task.wordings)) >= 5 for task in ham10000.SPEC.tasks)


def test_a_row_with_no_one_has_no_answer_and_one_with_two_is_a_conflict(tmp_path: Path) -> None:
    tree = as_challenge(tmp_path, [row(f"ISIC_{n}", f"HAM_{n}", "nv") for n in (1, 2, 3)])
    cells = read_csv(tree / GROUND_TRUTH)
    write_csv(tree / GROUND_TRUTH, [cells[0] | {"NV": "0.0"}, cells[1] | {"MEL": "1.0"}, cells[2]])
    items = items_of(ham10000, tree)
    assert list(answers(items, "seven_diagnoses").values()) == [None, None, "nv"]
    assert items["skip_reason"].to_list() == [None, "label_conflict", None]
    assert "several diagnoses" in items["skip_detail"][1]
    assert statistics(tree)["pictures_without_diagnosis"] == 2


def test_predictions_in_place_of_ones_and_zeros_are_refused(tmp_path: Path) -> None:
    tree = as_challenge(tmp_path, [row("ISIC_1"), row("ISIC_2")])
    cells = read_csv(tree / GROUND_TRUTH)
    for value in ("0.93", ""):
        write_csv(tree / GROUND_TRUTH, [cells[0], cells[1] | {"NV": value}])
        with pytest.raises(TableError, match=r"GroundTruth\.csv, row 3: NV is neither 0 nor 1"):
            items_of(ham10000, tree)


def test_a_challenge_picture_without_its_lesion_and_a_tree_without_lesions_are_refused(tmp_path: Path) -> None:
    tree = as_challenge(tmp_path, [row("ISIC_1"), row("ISIC_2")])
    lesions = read_csv(tree / GROUPINGS)
    write_csv(tree / GROUPINGS, lesions[1:])
    with pytest.raises(TableError, match="row 3: its picture has no name or no lesion_id"):
        items_of(ham10000, tree)
    write_csv(tree / GROUPINGS, [*lesions, lesions[0]])
    with pytest.raises(TableError, match=f"{GROUPINGS}, row 4: its picture was already there"):
        items_of(ham10000, tree)
    (tree / GROUPINGS).unlink()
    with pytest.raises(LayoutError, match=GROUPINGS):
        items_of(ham10000, tree)


def test_t08_a_lesion_of_two_diagnoses_is_a_conflict_in_all_its_pictures(tmp_path: Path) -> None:
    rows = [row("ISIC_1"), row("ISIC_2", dx="mel"), row("ISIC_3", "HAM_2", "mel"), row("ISIC_4", "HAM_3", "")]
    items = items_of(ham10000, small_tree(tmp_path, rows))
    assert items["skip_reason"].to_list() == ["label_conflict", "label_conflict", None, None]
    assert answers(items, "five_classes")["ISIC_4"] is None
    assert statistics(tmp_path)["pictures_of_lesions_with_two_diagnoses"] == 2


def test_pictures_are_found_in_either_part_by_listing_each_folder_once(synthetic: Path) -> None:
    listed: list[str] = []

    class Counting(Store):
        def names(self, path: str = "") -> list[str]:
            listed.append(path)
            return super().names(path)

        def read(self, path: str, limit: int = 1 << 32) -> bytes:
            assert path.endswith(".csv")
            return super().read(path, limit)

    items = ham10000.scan(Counting(synthetic), SourceOptions()).collect()
    paths = [media[0]["path"] for media in items["media"].to_list()]
    assert Counter(path.partition("/")[0] for path in paths).keys() == set(ham10000.FOLDERS[:2])
    assert all((synthetic / path).is_file() for path in paths)
    assert sorted(listed) == sorted(ham10000.FOLDERS[:2])


def test_a_name_in_both_parts_counts_once_and_one_in_neither_is_looked_for_in_the_first(tmp_path: Path) -> None:
    write_csv(tmp_path / TABLE, [row("ISIC_1"), row("ISIC_2")])
    for part in ham10000.FOLDERS[:2]:
        (tmp_path / part).mkdir()
        (tmp_path / part / "ISIC_1.jpg").touch()
    items = items_of(ham10000, tmp_path)
    first = ham10000.FOLDERS[0]
    assert [media[0]["path"] for media in items["media"].to_list()] == [f"{first}/ISIC_1.jpg", f"{first}/ISIC_2.jpg"]
    assert statistics(tmp_path)["pictures_in_two_folders"] == 1


def test_b03_masks_become_boxes_called_lesion_that_hold_every_pixel(synthetic: Path, tmp_path: Path) -> None:
    rows, ledger = built(ham10000, synthetic, tmp_path / "out")
    assert ledger == []
    assert len(rows) == 90
    for row_id, one in rows.items():
        mask = np.asarray(Image.open(synthetic / ham10000.MASKS / f"{row_id.split('/')[1]}_segmentation.png")) > 0
        y, x = np.nonzero(mask)
        boxes = [(box["label"], *box["xyxy"]) for box in one["boxes"]]
        assert boxes == [("lesion", x.min(), y.min(), x.max() + 1, y.max() + 1)], row_id
    (tmp_path / "bare").mkdir()
    for name in (TABLE, *ham10000.FOLDERS[:2]):
        (tmp_path / "bare" / name).symlink_to(synthetic / name)
    assert all(len(media) == 1 for media in items_of(ham10000, tmp_path / "bare")["media"].to_list())


def test_b01_b04_a_mask_of_another_shape_or_absent_is_a_ledger_line_and_a_turned_picture_keeps_its_box(
    tmp_path: Path,
) -> None:
    names = ("ISIC_fits", "ISIC_half", "ISIC_long", "ISIC_none", "ISIC_turn", "ISIC_void")
    tree = small_tree(tmp_path / "raw", [row(name, f"HAM_{name}") for name in names])
    (tree / ham10000.MASKS).mkdir()
    sizes = {"ISIC_half": (60, 40), "ISIC_long": (120, 60), "ISIC_turn": (80, 120)}
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).integers(0, 255, (80, 120, 3), dtype=np.uint8)
        exif = Image.Exif()
        if name == "ISIC_turn":
            exif[0x0112] = 6
        Image.fromarray(noise).save(tree / "images" / f"{name}.jpg", exif=exif)
        width, height = sizes.get(name, (120, 80))
        mask = np.zeros((height, width), np.uint8)
        if name != "ISIC_void":
            mask[height // 4 : height // 2, width // 4 : width // 2] = 255
        if name != "ISIC_none":
            Image.fromarray(mask).save(tree / ham10000.MASKS / f"{name}_segmentation.png")
    rows, ledger = built(ham10000, tree, tmp_path / "out")
    found = {row_id.split("/")[1]: one["boxes"] for row_id, one in rows.items()}
    corners = {item: [tuple(box["xyxy"]) for box in boxes] for item, boxes in found.items()}
    wide, tall = (30, 20, 60, 40), (20, 30, 40, 60)
    assert corners == {"ISIC_fits": [wide], "ISIC_half": [wide], "ISIC_turn": [tall], "ISIC_void": []}
    reasons = {line["item"]: line["reason"] for line in ledger}
    assert reasons == {"ISIC_long": "mask_shape_mismatch", "ISIC_none": "file_missing"}


def test_t07_ids_are_text_and_marks_of_other_systems_change_nothing(tmp_path: Path) -> None:
    tree = small_tree(tmp_path, [row("00001", "01"), row("1e5", "1"), row("2", "1", " NV ")])
    plain = items_of(ham10000, tree)
    assert plain["item"].to_list() == ["00001", "1e5", "2"]
    assert plain["group"].to_list() == ["lesion:01", "lesion:1", "lesion:1"]
    assert plain["skip_reason"].null_count() == 3
    data = (tree / TABLE).read_bytes()
    (tree / TABLE).unlink()
    (tree / "HAM10000_metadata").write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") + b"\r\n")
    again = items_of(ham10000, tree)
    assert again.drop("label_file").equals(plain.drop("label_file"))
    assert set(again["label_file"]) == {"HAM10000_metadata"}


def with_cell(column: str, value: str) -> Callable[[Path], None]:
    return lambda tree: write_csv(tree / TABLE, [row("ISIC_1"), row("ISIC_2") | {column: value}])


def web_page(tree: Path) -> None:
    (tree / TABLE).write_text("<!DOCTYPE html><html>Log in</html>")


def without_pictures(tree: Path) -> None:
    for path in (tree / "images").iterdir():
        path.unlink()


def without_folder(tree: Path) -> None:
    shutil.rmtree(tree / "images")


def without_table(tree: Path) -> None:
    (tree / TABLE).unlink()


def renamed_column(tree: Path) -> None:
    (tree / TABLE).write_text((tree / TABLE).read_text().replace("dx,", "diagnosis,", 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_cell("image_id", "ISIC_1"), "row 3: its picture was already there"),
        (with_cell("image_id", ""), "row 3: its picture has no name"),
        (with_cell("lesion_id", ""), "row 3: its picture has no name or no lesion_id"),
        (with_cell("dx", "secret"), "row 3: dx is none of the seven diagnoses"),
        (with_cell("sex", "secret"), "row 3: sex is neither male nor female nor unknown"),
        (with_cell("age", "-1"), "row 3: age is no age of 0 to 120 years"),
        (with_cell("age", "secret"), "line 3: the cell of column 'age' is no Float64"),
        (with_cell("localization", "secret"), "row 3: localization is none of the publisher's sites"),
        (web_page, "is a web page and not a table"),
        (without_pictures, r"no \.jpg file stands in images/"),
        (without_folder, "neither HAM10000_images_part_1/ nor"),
        (without_table, f"neither {TABLE} nor HAM10000_metadata nor {GROUND_TRUTH}"),
        (renamed_column, "lacks the column 'dx'"),
    ],
)
def test_bad_input_is_one_clear_error(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    tree = small_tree(tmp_path, [row("ISIC_1"), row("ISIC_2")])
    damage(tree)
    with pytest.raises((LayoutError, TableError), match=message) as caught:
        items_of(ham10000, tree)
    assert "secret" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_non_commercial_terms_follow_the_rows() -> None:
    assert strictest(ham10000.SPEC.licences.values()) == ("CC-BY-NC-SA-4.0", Redistribution.SAME_TERMS)


def test_other_real_folders_are_refused(realdata: Path) -> None:
    for other in ("isic-2020", "pad-ufes-20", "busi"):
        with pytest.raises(QoQError, match="there is no table of labels"):
            items_of(ham10000, realdata / other)
