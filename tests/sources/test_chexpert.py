"""The source ``chexpert``: its layouts, what the published conversion gets wrong, its test set, its synthetic tree."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from qoq_data.contract.workspace import tables
from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.ledger import from_lines
from qoq_data.corpus.manifest import LEDGER
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.splits import assign_splits, group_keys
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, SkipLimitError, SourceError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Access, Redistribution, strictest
from qoq_data.recipe import Recipe
from qoq_data.sources import chexpert, source_of
from qoq_data.sources._chexpert_films import case_of, jpeg_bytes, radiograph
from qoq_data.sources._chexpert_labels import FINDINGS, KEYS, LabelOptions

HEADER = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS)
SOURCE = source_of(chexpert)
Row = Mapping[str, str]


def row(path: str, **cells: str) -> Row:
    """A row of the publisher's table; labels by their key, e.g. ``pleural_effusion="1.0"``."""
    named = {name: cells.pop(key) for name, key in KEYS.items() if key in cells}
    view = {"Frontal/Lateral": cells.pop("view", "Frontal"), "AP/PA": cells.pop("projection", "AP")}
    return {"Path": f"{chexpert.HOME}/{path}", "Sex": "Female", "Age": "68", **view, **cells, **named}


TRAIN = row("train/patient00001/study1/view1_frontal.jpg", cardiomegaly="1.0")
VALID = row("valid/patient64541/study1/view1_frontal.jpg", **dict.fromkeys(KEYS.values(), "0.0") | {"edema": "1.0"})


def table(rows: list[Row], header: tuple[str, ...] = HEADER) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def tree_of(folder: Path, *train: Row, valid: tuple[Row, ...] = (VALID,), home: str = chexpert.HOME) -> Store:
    """A tree of tables without pictures."""
    for name, rows in (("train", train or (TRAIN,)), ("valid", valid)):
        (folder / home / name).mkdir(parents=True, exist_ok=True)
        (folder / home / f"{name}.csv").write_bytes(table(list(rows)))
    return Store(folder)


def with_test_set(folder: Path, *pictures: str) -> Path:
    for picture in pictures:
        (folder / "CheXpert" / "test" / picture).parent.mkdir(parents=True, exist_ok=True)
        (folder / "CheXpert" / "test" / picture).touch()
    return folder / "CheXpert"


def items_of(tree: Store, **options: Any) -> pl.DataFrame:
    return scan_items(SOURCE, tree, LabelOptions(**options))


def answers(items: pl.DataFrame, task: str = "findings") -> list[list[str] | None]:
    return items.sort("label_row")[f"answer.{task}"].to_list()


def paths(items: pl.DataFrame) -> list[str]:
    return [media[0]["path"] for media in items["media"].to_list()]


def built(tree: Store, out: Path, **entry: Any) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows of a corpus of the default tasks, and its ledger's reasons."""
    recipe = Recipe.model_validate({"name": "x", "sources": [{"name": "chexpert", "skip_limit": 1.0} | entry]})
    build_corpus(recipe, [SourceInput(SOURCE, recipe.sources[0], tree)], Store(out), LocalEngine(1))
    columns = ["id", "split", "question", "context", "views", "images", "provenance", "redistribution"]
    rows = [one for part in tables(out, columns) for one in part.to_pylist()]
    return rows, Counter(skip.reason for skip in from_lines((out / LEDGER).read_text()))


def put_pictures(tree: Store) -> None:
    """A generated picture wherever the tables say there is one."""
    rng = np.random.default_rng(5)
    for path in paths(items_of(tree)):
        tree.write(path, jpeg_bytes(radiograph(case_of(0), rng)))


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("chexpert")
    chexpert.synthesize(folder, 7, 60)
    return Store(folder)


def published_answer(cells: Row) -> list[str]:
    """The published way: blank and -1 become 0, what is positive is the answer."""
    return [name for name in FINDINGS if max(float(cells.get(name) or 0), 0) == 1]


def test_a_row_of_the_publisher(tmp_path: Path) -> None:
    first = row("train/patient00001/study1/view1_frontal.jpg", no_finding="1.0", pneumothorax="0.0")
    item = items_of(tree_of(tmp_path, {**first, "Support Devices": "1.0"})).row(0, named=True)
    assert (item["item"], item["patient"], item["group"], item["study"], item["official_split"]) == (
        "patient00001-study1-view1_frontal",
        "patient00001",
        "patient00001",
        "patient00001-study1",
        "train",
    )
    medium = {"role": "image", "kind": "image", "path": first["Path"], "part": "frontal AP"}
    assert item["media"] == [medium]
    assert (item["label_file"], item["label_row"]) == (f"{chexpert.HOME}/train.csv", f"Path={first['Path']}")
    assert item["answer.findings"] == ["no_finding", "support_devices"]
    assert (item["context.age"], item["context.sex"]) == ("68 years", "female")


def test_u_zeros_silently_and_here_hedged_denied_and_unspoken_are_three_things(tmp_path: Path) -> None:
    hedged = row("train/patient00001/study1/view1_frontal.jpg", edema="-1.0", pneumothorax="0.0", fracture="1.0")
    assert published_answer(hedged) == ["Fracture"]
    assert published_answer({**hedged, "Edema": "0.0"}) == published_answer({**hedged, "Edema": ""}) == ["Fracture"]
    tree = tree_of(tmp_path, hedged)
    assert answers(items_of(tree))[0] == ["fracture"]
    assert answers(items_of(tree, uncertain="positive"))[0] == ["edema", "fracture"]
    assert answers(items_of(tree, uncertain="no_answer"))[0] is None
    status = items_of(tree).row(0, named=True)
    assert status["answer.edema_status"] == ["uncertain"]
    assert status["answer.pneumothorax_status"] == ["absent"]
    assert status["answer.fracture_status"] == ["present"]
    assert status["answer.pneumonia_status"] is None
    for uncertain in ("positive", "no_answer"):
        items = items_of(tree, uncertain=uncertain).row(0, named=True)
        assert {name: items[name] for name in items if name.endswith("_status")} == {
            name: status[name] for name in status if name.endswith("_status")
        }


def test_the_default_counts_no_hedge_and_status_is_asked_by_name_only() -> None:
    assert LabelOptions().uncertain == "not_stated"
    assert [task.name for task in chexpert.SPEC.tasks if task.default] == ["findings"]
    assert len(chexpert.SPEC.tasks) == 14
    assert not any(task.name == "no_finding_status" for task in chexpert.SPEC.tasks)


def test_published_index_list_repeats_atelectasis_and_here_no_finding_is_used(tmp_path: Path) -> None:
    places = [8, *range(1, 14)]
    cells = row("train/patient00001/study1/view1_frontal.jpg", no_finding="1.0")
    assert [FINDINGS[place] for place in places].count("Atelectasis") == 2
    assert sum(float(cells.get(FINDINGS[place]) or 0) for place in places) == 0
    assert answers(items_of(tree_of(tmp_path, cells)))[0] == ["no_finding"]


def test_t07_columns_go_by_name_whatever_their_order_and_the_choices_are_in_one(tmp_path: Path) -> None:
    cells = row("train/patient00001/study1/view1_frontal.jpg", pleural_effusion="1.0", atelectasis="1.0")
    tree = tree_of(tmp_path)
    (tmp_path / chexpert.HOME / "train.csv").write_bytes(table([cells], tuple(reversed(HEADER))))
    assert answers(items_of(tree))[0] == ["atelectasis", "pleural_effusion"]
    assert [choice.text for choice in chexpert.SPEC.task("findings").choices] == list(FINDINGS)


def test_rows_without_a_positive_label_are_ledger_lines_where_the_published_way_drops_them(tmp_path: Path) -> None:
    at = "train/patient0000{}/study1/view1_frontal.jpg"
    rows = [
        row(at.format(1), cardiomegaly="1.0"),
        row(at.format(2), edema="0.0"),
        row(at.format(3), edema="-1.0"),
        row(at.format(4)),
    ]
    tree = tree_of(tmp_path / "raw", *rows)
    put_pictures(tree)
    kept = [one for one in rows if published_answer(one)]
    assert len(rows) - len(kept) == 3
    corpus, reasons = built(tree, tmp_path / "out")
    assert (len(corpus), dict(reasons)) == (2, {"no_label": 3})
    counts = chexpert.statistics(tree, LabelOptions())
    assert counts["without_a_positive_label"] == counts["without_an_answer_to_findings"] == 3
    assert (counts["of_these_without_any_label"], counts["with_an_uncertain_label"]) == (1, 1)
    assert chexpert.statistics(tree, LabelOptions(uncertain="positive"))["without_an_answer_to_findings"] == 2


def test_skip_limit_takes_the_published_share_of_rows_without_an_answer_and_not_twice_it() -> None:
    share = (11_141 + 9) / 223_648
    assert share < chexpert.SPEC.skip_limit < 2 * share


def test_valid_is_validation_where_the_published_way_calls_it_test(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    assert items_of(tree)["official_split"].to_list() == ["train", "validation"]
    home = with_test_set(tmp_path, "patient64741/study1/view1_frontal.jpg")
    (home / "groundtruth.csv").write_bytes(
        table(
            [{"Study": "CheXpert-v1.0/test/patient64741/study1", **dict.fromkeys(FINDINGS, "0"), "Edema": "1"}],
            ("Study", *FINDINGS),
        )
    )
    assert items_of(tree)["official_split"].to_list() == ["train", "validation", "test"]


def test_i03_the_view_is_kept_and_a_blank_is_unknown(tmp_path: Path) -> None:
    at = "train/patient00001/study{}/view1_frontal.jpg"
    shown = [("Frontal", "AP"), ("Frontal", "LL"), ("Frontal", "RL"), ("Lateral", ""), ("", ""), ("Frontal", "")]
    rows = [row(at.format(n), view=view, projection=one, edema="1.0") for n, (view, one) in enumerate(shown, 1)]
    tree = tree_of(tmp_path, *rows)
    views = [media[0]["part"] for media in items_of(tree)["media"].to_list()[:6]]
    assert views == ["frontal AP", "frontal LL", "frontal RL", "lateral", "unknown", "frontal"]
    counts = chexpert.statistics(tree, LabelOptions())
    assert {name: count for name, count in counts.items() if name.startswith("view_")} == {
        "view_frontal": 1,
        "view_frontal AP": 2,
        "view_frontal LL": 1,
        "view_frontal RL": 1,
        "view_lateral": 1,
        "view_unknown": 1,
    }


def test_age_0_is_kept_and_unknown_sex_is_no_context(tmp_path: Path) -> None:
    rows = [
        row("train/patient33093/study1/view1_frontal.jpg", Age="0", Sex="Unknown", edema="1.0"),
        row("train/patient33094/study1/view1_frontal.jpg", Age="90", Sex="Male", edema="1.0"),
    ]
    context = items_of(tree_of(tmp_path, *rows)).select("context.age", "context.sex").rows()
    assert context[:2] == [("0 years", None), ("over 89 years", "male")]


def test_no_finding_beside_another_finding_stated_or_hedged_is_a_conflict_and_devices_are_none(tmp_path: Path) -> None:
    at = "train/patient0000{}/study1/view1_frontal.jpg"
    rows = [
        row(at.format(1), no_finding="1.0", edema="1.0"),
        row(at.format(2), no_finding="1.0", edema="-1.0"),
        row(at.format(3), no_finding="1.0", edema="0.0", support_devices="1.0"),
        row(at.format(4), no_finding="0.0", edema="1.0"),
    ]
    tree = tree_of(tmp_path, *rows)
    for uncertain in ("not_stated", "positive", "no_answer"):
        reasons = items_of(tree, uncertain=uncertain)["skip_reason"].to_list()
        assert reasons == ["label_conflict", "label_conflict", None, None, None]
    assert chexpert.statistics(tree, LabelOptions())["against_the_rule_for_no_finding"] == 2


def test_t08_pictures_of_a_study_with_different_labels_are_a_conflict_and_not_first_wins(tmp_path: Path) -> None:
    study = "train/patient00001/study1/view{}_{}.jpg"
    rows = [
        row(study.format(1, "frontal"), edema="1.0"),
        row(study.format(2, "lateral"), view="Lateral", projection="", edema="-1.0"),
        row("train/patient00001/study2/view1_frontal.jpg", edema="0.0", fracture="1.0"),
        row("train/patient00002/study1/view1_frontal.jpg", edema="0.0", fracture="1.0"),
    ]
    tree = tree_of(tmp_path, *rows)
    assert items_of(tree)["skip_reason"].to_list() == ["label_conflict"] * 2 + [None] * 3
    assert chexpert.statistics(tree, LabelOptions())["images_whose_study_disagrees"] == 2


@pytest.mark.parametrize(
    ("patient", "batch"),
    [(1, 2), (21_513, 2), (21_514, 3), (43_017, 3), (43_018, 4), (64_540, 4)],
)
@pytest.mark.parametrize("level", ["", "/train"])
def test_in_the_batches_a_patients_number_tells_the_folder(
    patient: int, batch: int, level: str, tmp_path: Path
) -> None:
    tree = tree_of(
        tmp_path, row(f"train/patient{patient:05d}/study1/view1_frontal.jpg", edema="1.0"), home=chexpert.FIRST_BATCH
    )
    (tmp_path / chexpert.FIRST_BATCH / "train").rmdir()
    folders = {2: "batch 2 (train 1)", 3: "batch 3 (train 2)", 4: "batch 4 (train 3)"}
    for one in folders.values():
        (tmp_path / f"CheXpert-v1.0 {one}{level}").mkdir(parents=True)
    train, valid = paths(items_of(tree))
    assert train == f"CheXpert-v1.0 {folders[batch]}{level}/patient{patient:05d}/study1/view1_frontal.jpg"
    assert valid == "CheXpert-v1.0 batch 1 (validate & csv)/valid/patient64541/study1/view1_frontal.jpg"
    assert chexpert.detect_version(tree) == "1.0"


def test_small_and_full_have_the_same_ids_and_each_its_own_paths(tmp_path: Path) -> None:
    full = tree_of(tmp_path / "full")
    small_rows = [{**one, "Path": one["Path"].replace("v1.0/", "v1.0-small/")} for one in (TRAIN, VALID)]
    small = tree_of(tmp_path / "small", small_rows[0], valid=(small_rows[1],), home=chexpert.SMALL)
    assert items_of(full)["item"].to_list() == items_of(small)["item"].to_list()
    assert all(path.startswith("CheXpert-v1.0-small/") for path in paths(items_of(small)))
    assert (chexpert.detect_version(full), chexpert.detect_version(small)) == ("1.0", "1.0-small")


def test_no_tables_two_releases_and_a_folder_too_low_are_each_one_clear_error(tmp_path: Path) -> None:
    tree_of(tmp_path / "both")
    tree_of(tmp_path / "both", home=chexpert.SMALL)
    with pytest.raises(LayoutError, match=r"CheXpert-v1\.0/ and CheXpert-v1\.0-small/ both hold a train\.csv"):
        items_of(Store(tmp_path / "both"))
    with pytest.raises(LayoutError, match="Give the folder above it"):
        items_of(Store(tmp_path / "both" / chexpert.HOME))
    with pytest.raises(LayoutError, match="which holds nothing"):
        items_of(Store(tmp_path / "empty"))
    (tmp_path / "both" / chexpert.SMALL / "train.csv").unlink()
    (tmp_path / "both" / chexpert.HOME / "valid.csv").unlink()
    with pytest.raises(LayoutError, match=r"CheXpert-v1\.0/valid\.csv is not in the raw folder"):
        items_of(Store(tmp_path / "both"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Path": f"{chexpert.HOME}/valid/patient00001/study1/view1_frontal.jpg"}, "row 3: Path is no train/patient"),
        ({"Path": "train/patient1/study1/view1_frontal.jpg"}, "row 3: Path is no train/patient"),
        ({"Path": f"{chexpert.HOME}/train/../../secret.jpg"}, "row 3: Path is no train/patient"),
        ({"Path": ""}, "row 3: Path is no train/patient"),
        ({"Path": TRAIN["Path"]}, "row 3: the Path stands twice"),
        ({"Sex": "F"}, "row 3: Sex is none of Female"),
        ({"Age": "-1"}, "row 3: Age is no age"),
        ({"Age": "old"}, "line 3: the cell of column 'Age'"),
        ({"Frontal/Lateral": "Oblique"}, "row 3: Frontal/Lateral is none of"),
        ({"AP/PA": "XX"}, "row 3: AP/PA is none of"),
        ({"Edema": "2.0"}, "row 3: Edema is none of 1, 0, -1 and blank"),
        ({"Edema": "yes"}, "line 3: the cell of column 'Edema'"),
    ],
)
def test_a_bad_cell_is_one_error_with_file_row_and_column_and_without_the_cell(
    change: Row, message: str, tmp_path: Path
) -> None:
    bad = {**row("train/patient00002/study1/view1_frontal.jpg"), **change}
    with pytest.raises(TableError, match=f"^CheXpert-v1.0/train.csv, {message}") as caught:
        items_of(tree_of(tmp_path, TRAIN, bad))
    assert "secret" not in str(caught.value)


def test_a_missing_column_and_a_web_page_for_a_table_are_told(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    file = tmp_path / chexpert.HOME / "train.csv"
    file.write_bytes(table([TRAIN], tuple(name for name in HEADER if name != "Edema")))
    with pytest.raises(TableError, match="lacks the column 'Edema'"):
        items_of(tree)
    file.write_bytes(b"<!DOCTYPE html><html><body>Sign in</body></html>")
    with pytest.raises(TableError, match=r"CheXpert-v1\.0/train\.csv is a web page"):
        items_of(tree)


def test_a_missing_picture_is_a_ledger_line_and_many_stop_the_build(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "raw")
    put_pictures(tree)
    (tmp_path / "raw" / TRAIN["Path"]).unlink()
    rows, reasons = built(tree, tmp_path / "out")
    assert ([one["split"] for one in rows], dict(reasons)) == (["validation"], {"file_missing": 1})
    with pytest.raises(SkipLimitError, match="file_missing"):
        built(tree, tmp_path / "strict", skip_limit=None)


def truth(*rows: Row, key: str) -> bytes:
    return table([{**dict.fromkeys(FINDINGS, "0"), **one} for one in rows], (key, *FINDINGS))


def test_the_test_set_by_study_and_by_picture(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    study = "patient64741/study1"
    home = with_test_set(tmp_path, f"{study}/view1_frontal.jpg", f"{study}/view2_lateral.jpg", f"{study}/notes.txt")
    with pytest.raises(LayoutError, match=r"CheXpert/test/ is there, but neither CheXpert/groundtruth\.csv nor"):
        items_of(tree)
    pictures = [{"Path": f"test/{study}/{name}.jpg", "Edema": "1"} for name in ("view1_frontal", "view2_lateral")]
    (home / "test_labels.csv").write_bytes(truth(*pictures, key="Path"))
    by_picture = items_of(tree).filter(pl.col("official_split") == "test")
    (home / "groundtruth.csv").write_bytes(truth({"Study": f"CheXpert-v1.0/test/{study}", "Edema": "1"}, key="Study"))
    by_study = items_of(tree).filter(pl.col("official_split") == "test")
    for items, file in ((by_picture, "test_labels.csv"), (by_study, "groundtruth.csv")):
        assert answers(items) == [["edema"]] * 2
        assert set(items["label_file"]) == {f"CheXpert/{file}"}
        assert [media[0]["part"] for media in items["media"].to_list()] == ["frontal", "lateral"]
        assert items["context.age"].null_count() == items["context.sex"].null_count() == 2
    assert paths(by_study) == [f"CheXpert/test/{study}/view1_frontal.jpg", f"CheXpert/test/{study}/view2_lateral.jpg"]
    assert chexpert.detect_version(tree) == "1.0+test"
    assert chexpert.statistics(tree, LabelOptions())["test_files_of_unknown_name"] == 1


def test_t08_test_labels_that_are_absent_or_differ_within_a_study_leave_the_pictures_without_an_answer(
    tmp_path: Path,
) -> None:
    tree = tree_of(tmp_path)
    names = ["patient64741/study1/view1_frontal.jpg", "patient64741/study1/view2_lateral.jpg"]
    home = with_test_set(tmp_path, *names, "patient64742/study1/view1_frontal.jpg")
    rows = [{"Path": f"test/{name}", "Edema": str(n)} for n, name in enumerate(names)]
    (home / "test_labels.csv").write_bytes(truth(*rows, key="Path"))
    items = items_of(tree).filter(pl.col("official_split") == "test")
    assert items["skip_reason"].to_list() == ["label_conflict", "label_conflict", "no_label"]
    assert chexpert.statistics(tree, LabelOptions())["test_images_without_labels"] == 1
    (home / "test_labels.csv").write_bytes(truth(rows[0], rows[0], key="Path"))
    with pytest.raises(TableError, match=r"CheXpert/test_labels\.csv, row 3: the Path stands twice"):
        items_of(tree)
    (home / "test_labels.csv").write_bytes(truth({"Path": "elsewhere.jpg"}, key="Path"))
    with pytest.raises(TableError, match=r"row 2: Path is no patient/study/stem"):
        items_of(tree)


def test_a_test_folder_without_a_picture_is_told(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    home = with_test_set(tmp_path, "README.txt")
    (home / "groundtruth.csv").write_bytes(truth(key="Study"))
    with pytest.raises(LayoutError, match="holds no picture named like"):
        items_of(tree)


def test_s01_a_patient_and_all_questions_about_a_picture_stand_on_one_side(synthetic: Store) -> None:
    items = items_of(synthetic)
    keys = group_keys(items, "chexpert", chexpert.SPEC.identity_group)
    rows = items.with_columns(keys, pl.lit("chexpert").alias("source"))
    for seed in range(3):
        sides = rows.with_columns(assign_splits(rows, seed, 0.1, 0.1))
        assert sides["split"].to_list() == items["official_split"].to_list()
        assert sides.group_by("patient").agg(pl.col("split").n_unique())["split"].max() == 1
    assert items.group_by("study").len()["len"].max() == 2


def test_b04_a_picture_lying_on_its_side_by_its_tag_is_stored_upright_without_it(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "raw", valid=())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (40, 20), 90).save(tmp_path / "raw" / "x.jpg", "JPEG", exif=exif)
    tree.write(TRAIN["Path"], (tmp_path / "raw" / "x.jpg").read_bytes())
    ((stored,), _) = built(tree, tmp_path / "out")
    with Image.open(io.BytesIO(stored["images"][0]["bytes"])) as picture:
        assert (picture.size, dict(picture.getexif())) == ((20, 40), {})
    assert "EXIF orientation 6" in stored["provenance"][0]["taken"]


def test_l01_nothing_of_a_row_may_be_passed_on_and_the_context_has_age_and_sex_alone(tmp_path: Path) -> None:
    assert chexpert.SPEC.access is Access.OWN_AGREEMENT
    assert strictest(chexpert.SPEC.licences.values()) == ("LicenseRef-Stanford-RUA", Redistribution.NONE)
    tree = tree_of(tmp_path / "raw", valid=())
    put_pictures(tree)
    ((stored,), _) = built(tree, tmp_path / "out")
    assert stored["redistribution"] == "none"
    assert stored["context"] == "Age: 68 years; sex: female"
    assert "patient" not in stored["question"] + stored["context"] + stored["views"][0]["view"]


def test_wordings_are_our_own_and_name_no_finding() -> None:
    published = "What is the diagnosis of the patient in the X-ray image?"
    for task in chexpert.SPEC.tasks:
        assert len(set(task.wordings)) >= 5
        assert not any(published in wording or "Above is" in wording for wording in task.wordings)
    asked = " ".join(chexpert.SPEC.task("findings").wordings).lower()
    assert not [name for name in FINDINGS if name.lower() in asked]


def test_synthetic_tables_counted_by_plain_csv(synthetic: Store) -> None:
    expected: Counter[str] = Counter()
    files = ("CheXpert-v1.0/train.csv", "CheXpert-v1.0/valid.csv")
    rows = [one for file in files for one in csv.DictReader(io.StringIO(synthetic.read(file).decode()))]
    for one in rows:
        expected.update(name for name in FINDINGS if one[name] == "1.0")
    studies = {
        one["Study"].split("/test/")[1]: one
        for one in csv.DictReader(io.StringIO(synthetic.read("CheXpert/groundtruth.csv").decode()))
    }
    tested = [path for path in synthetic.walk("CheXpert/test") if path.endswith(".jpg")]
    for path in tested:
        patient, study = path.split("/")[2:4]
        expected.update(name for name in FINDINGS if studies[f"{patient}/{study}"][name] == "1")
    items = items_of(synthetic)
    assert items.height == len(rows) + len(tested)
    found = Counter(key for answer in items["answer.findings"].drop_nulls().to_list() for key in answer)
    assert found == {KEYS[name]: count for name, count in expected.items()}
    assert sorted(paths(items)) == sorted(path for path in synthetic.walk() if path.endswith(".jpg"))
    with Image.open(f"{synthetic.folder}/{paths(items)[0]}") as opened:
        assert (opened.mode, opened.format) == ("L", "JPEG")


def test_synthesize_follows_from_its_seed_and_needs_few_patients(tmp_path: Path) -> None:
    def digests(name: str, seed: int) -> dict[str, bytes]:
        chexpert.synthesize(tmp_path / name, seed, 7)
        tree = Store(tmp_path / name)
        return {path: hashlib.sha256(tree.read(path)).digest() for path in tree.walk()}

    first, again, other = digests("a", 3), digests("b", 3), digests("c", 4)
    assert first == again
    assert first.keys() == other.keys()
    assert first != other
    chexpert.synthesize(tmp_path / "d", 3, 2)
    assert set(items_of(Store(tmp_path / "d"))["official_split"]) == {"train", "validation"}


@pytest.mark.parametrize("other", ["busi", "ptb-xl", "pad-ufes-20", "coronahack"])
def test_real_folders_of_other_sources_are_refused(other: str, realdata: Path) -> None:
    with pytest.raises(SourceError, match=r"^chexpert: CheXpert-v1\.0/train\.csv is not in the raw folder"):
        items_of(Store(realdata / other))
