"""The source ``ct-ich``: its real tables, its folders, its masks, and what the published conversion gets wrong."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy import ndimage

from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.corpus.trace import trace_row
from qoq_data.corpus.verify import verify_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, Reason, RecordError, TableError
from qoq_data.formats.image import decode_mask
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.recipe import Recipe, SourceRecipe
from qoq_data.source import SourceOptions
from qoq_data.sources import _ct_ich_tree, ct_ich, source_of
from tests.corpus.building import rows_of

CT_ICH = source_of(ct_ich)
TYPES = ("Intraventricular", "Intraparenchymal", "Subarachnoid", "Epidural", "Subdural")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct-ich")
    ct_ich.synthesize(folder, 7, 10)
    return folder


@pytest.fixture
def copied(synthetic: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(synthetic, tmp_path / "raw"))


@pytest.fixture(scope="module")
def real(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real tables, and empty files in the place of the pictures and of the outlines of positive slices."""
    folder = tmp_path_factory.mktemp("real")
    for name in (ct_ich.SLICES, ct_ich.DEMOGRAPHICS):
        shutil.copy(realdata / "ct-ich" / name, folder / name)
    for row in table_of(folder / ct_ich.SLICES):
        home = folder / "Patients_CT" / f"{int(row['PatientNumber']):03d}"
        for window in ("brain", "bone"):
            (home / window).mkdir(parents=True, exist_ok=True)
            (home / window / f"{row['SliceNumber']}.jpg").touch()
        if row["No_Hemorrhage"] == "0":
            (home / "brain" / f"{row['SliceNumber']}_HGE_Seg.jpg").touch()
    return folder


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def scanned(folder: Path) -> pl.DataFrame:
    return scan_items(CT_ICH, Store(folder), SourceOptions())


def aside(items: pl.DataFrame) -> dict[str, str]:
    return dict(items.filter(pl.col("skip_reason").is_not_null()).select("item", "skip_reason").iter_rows())


def rewrite(path: Path, change: Any, encoding: str = "utf-8") -> None:
    rows = table_of(path)
    header = list(rows[0])
    changed = change(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows if changed is None else changed)
    path.write_bytes(text.getvalue().encode(encoding))


def set_cell(row: int, column: str, value: str) -> Any:
    return lambda rows: rows[row].__setitem__(column, value)


# The real tables


def test_the_real_tables_are_read_whole(real: Path) -> None:
    rows, items = table_of(real / ct_ich.SLICES), scanned(real)
    assert items.height == len(rows) == 2501
    assert items["patient"].n_unique() == 82
    assert aside(items) == {}
    types = items["answer.haemorrhage_types"].drop_nulls().explode(empty_as_null=False)
    assert Counter(types) == {name.lower(): sum(row[name] == "1" for row in rows) for name in TYPES}
    assert Counter(types) == {
        "intraventricular": 24, "intraparenchymal": 73, "subarachnoid": 18, "epidural": 173, "subdural": 56,
    }  # fmt: skip
    assert Counter(items["answer.haemorrhage"].list.first()) == {"none": 2183, "present": 318}
    assert Counter(items["answer.fracture"].list.first()) == {"no": 2306, "yes": 195}
    assert items.filter(pl.col("answer.haemorrhage_types").is_not_null())["patient"].n_unique() == 36
    for row in rows[::97]:
        found = items.row(
            by_predicate=pl.col("item") == f"{row['PatientNumber']:0>3}-{row['SliceNumber']:0>3}", named=True
        )
        assert found["answer.haemorrhage_types"] == ([n.lower() for n in TYPES if row[n] == "1"] or None)
        assert rows[int(found["label_row"].removeprefix("line ")) - 2] == row


def test_the_real_demographics_are_read_with_a_line_break_in_the_header(real: Path) -> None:
    people = table_of(real / ct_ich.DEMOGRAPHICS)
    items = scanned(real)
    sexes = dict(items.select("patient", "context.sex").unique().iter_rows())
    ages = dict(items.select("patient", "context.age").unique().iter_rows())
    assert sexes == {row["Patient Number"]: row["Gender"].lower() for row in people}
    assert Counter(sexes.values()) == {"male": 46, "female": 36}
    whole = {row["Patient Number"]: row["Age\n(years)"] for row in people if "." not in row["Age\n(years)"]}
    assert {number: ages[number] for number in whole} == {
        number: f"{age} year{'s' * (age != '1')}" for number, age in whole.items()
    }
    parts = {row["Age\n(years)"]: ages[row["Patient Number"]] for row in people if "." in row["Age\n(years)"]}
    assert parts == {"0.583333333": "7 months", "0.6": "7 months", "0.002747253": "under 1 month"}


def test_statistics_of_the_real_tables(real: Path) -> None:
    assert ct_ich.statistics(Store(real), SourceOptions()) == {
        "slices_intraventricular": 24,
        "slices_intraparenchymal": 73,
        "slices_subarachnoid": 18,
        "slices_epidural": 173,
        "slices_subdural": 56,
        "slices_with_haemorrhage": 318,
        "slices_with_fracture": 195,
        "patients_without_demographics": 0,
        "patients_whose_tables_disagree": 0,
        "pictures_of_no_slice": 0,
    }


# Defects of the published conversion


def test_published_labels_say_whether_and_lose_which(real: Path) -> None:
    rows, items = table_of(real / ct_ich.SLICES), scanned(real)
    kinds = {tuple(row[name] for name in TYPES): int(row["No_Hemorrhage"] == "1") for row in rows}
    assert len(set(kinds.values())) == 2
    assert items["answer.haemorrhage_types"].drop_nulls().n_unique() == len(kinds) - 1 > 5
    several = items["answer.haemorrhage_types"].drop_nulls().list.len()
    assert Counter(several) == {1: 293, 2: 24, 3: 1}


def test_published_join_of_padded_folders_and_numbers_meets_from_patient_100_only(synthetic: Path, real: Path) -> None:
    """As text, the table's ``49`` has no folder ``049``."""
    for tree, met in ((synthetic, 0), (real, 31)):
        folders = {path.name for path in (tree / "Patients_CT").iterdir()}
        numbers = {row["PatientNumber"] for row in table_of(tree / ct_ich.SLICES)}
        assert len(folders & numbers) == met
        assert len(folders) == len(numbers) > met
        assert aside(scanned(tree)) == {}


def test_folders_padded_otherwise_are_found_and_two_of_one_number_are_an_error(copied: Path) -> None:
    (copied / "Patients_CT" / "049").rename(copied / "Patients_CT" / "49")
    items = scanned(copied)
    assert aside(items) == {}
    assert items["media"][0][0]["path"] == "Patients_CT/49/brain/1.jpg"
    (copied / "Patients_CT" / "049").mkdir()
    with pytest.raises(LayoutError, match="two folders of one patient's number"):
        scanned(copied)


def test_published_mask_without_a_threshold_makes_boxes_of_coding_noise(synthetic: Path) -> None:
    """What is not 0 in a JPEG mask is the outline with specks and a rim of coding noise; over 127 is the outline."""
    noisy = 0
    for path in sorted((synthetic / "Patients_CT").rglob("*_HGE_Seg.jpg")):
        grey = np.asarray(Image.open(path))
        published = ndimage.label(grey > 0, np.ones((3, 3)))[0]
        bleeds = int(ndimage.label(grey > 127, np.ones((3, 3)))[1])
        noisy += published.max() > bleeds or (published > 0).sum() > (grey > 127).sum()
        home = path.parent.relative_to(synthetic).as_posix()
        number = path.name.removesuffix("_HGE_Seg.jpg")
        media = render_media(Store(synthetic), mask_media(home, number), recipe())
        assert len(media.boxes) == bleeds in (1, 2)
        drawn = ndimage.find_objects(ndimage.label(grey > 127, np.ones((3, 3)))[0])
        assert [box.xyxy for box in media.boxes] == [(x.start, y.start, x.stop, y.stop) for y, x in drawn]
    assert noisy == 10


def recipe() -> Recipe:
    tasks = tuple(task.name for task in CT_ICH.spec.tasks)
    return Recipe(name="test", rows_per_record="all", sources=(SourceRecipe(name="ct-ich", tasks=tasks),))


def mask_media(home: str, number: str) -> list[MediaReference]:
    return [
        MediaReference("image", "image", f"{home}/{number}.jpg", ""),
        MediaReference("mask", "mask", f"{home}/{number}_HGE_Seg.jpg", "haemorrhage"),
    ]


def test_jpeg_masks_noise_is_black_a_faint_outline_is_refused_and_black_all_over_is_empty(tmp_path: Path) -> None:
    def coded(high: int, noise: int) -> bytes:
        values = np.random.default_rng(0).integers(0, noise + 1, (64, 64)).astype(np.uint8)
        values[20:30, 20:30] = high or values[20:30, 20:30]
        Image.fromarray(values).save(buffer := io.BytesIO(), "JPEG", quality=75)
        return buffer.getvalue()

    found = decode_mask(coded(255, 12), "m.jpg")
    assert ndimage.find_objects(ndimage.label(found)[0]) == [(slice(20, 30), slice(20, 30))]
    assert found.sum() == 100
    assert not decode_mask(coded(0, 12), "m.jpg").any()
    with pytest.raises(RecordError, match="not over 127") as caught:
        decode_mask(coded(90, 12), "m.jpg")
    assert caught.value.reason is Reason.FORMAT_UNSUPPORTED


def test_slices_of_a_patient_stay_together_where_a_draw_of_slices_parts_them(synthetic: Path, tmp_path: Path) -> None:
    patients = np.array([row["PatientNumber"] for row in table_of(synthetic / ct_ich.SLICES)])
    drawn = np.random.default_rng(42).random(patients.size) < 0.2
    assert set(patients[drawn]) & set(patients[~drawn])
    build_corpus(recipe(), inputs(synthetic), Store(tmp_path), LocalEngine(1))
    sides: dict[str, set[str]] = {}
    for row in rows_of(tmp_path).values():
        sides.setdefault(row["patient"], set()).add(row["split"])
    assert len(sides) == 10
    assert all(len(found) == 1 for found in sides.values())


def inputs(folder: Path) -> list[SourceInput]:
    return [SourceInput(CT_ICH, recipe().sources[0], Store(folder))]


# What a row holds


def test_a_built_row_has_both_windows_and_the_boxes_on_the_brain_window(synthetic: Path, tmp_path: Path) -> None:
    store, engine = Store(tmp_path), LocalEngine(1)
    manifest = build_corpus(recipe(), inputs(synthetic), store, engine)
    assert verify_corpus(store, manifest, inputs(synthetic)).problems == ()
    rows = rows_of(tmp_path)
    assert trace_row(store, manifest, recipe(), "ct-ich/049-002/haemorrhage", inputs(synthetic), engine).agrees
    assert len(rows) == 40 * 2 + 10
    for row_id, row in rows.items():
        assert [view["view"] for view in row["views"]] == ["brain-window CT", "bone-window CT"]
        folder = synthetic / "Patients_CT" / row_id.split("/")[1][:3]
        number = int(row_id.split("/")[1][4:])
        for stored, window in zip(row["images"], ("brain", "bone"), strict=True):
            assert stored["bytes"] == (folder / window / f"{number}.jpg").read_bytes()
        assert {(box["label"], box["image"]) for box in row["boxes"]} <= {("haemorrhage", 0)}
        positive = (folder / "brain" / f"{number}_HGE_Seg.jpg").is_file()
        assert bool(row["boxes"]) == positive
        if row["task"] == "haemorrhage":
            assert row["answer"] == ["Has Hemorrhage" if positive else "No Hemorrhage"]


def test_s03_condition_note_and_type_are_never_shown(synthetic: Path, tmp_path: Path) -> None:
    """The columns that name the diagnosis are not even read: with any text in them the table of items is the same."""
    before = scanned(synthetic)
    copy = Path(shutil.copytree(synthetic, tmp_path / "raw"))
    telling = {"Condition on file": "Subdural HGE", "Note": "seen twice", "Fracture (Yes/No)": "1"}
    rewrite(copy / ct_ich.DEMOGRAPHICS, lambda rows: [row | telling for row in rows])
    assert scanned(copy).equals(before)
    assert set(CT_ICH.spec.context_fields) == {"age", "sex"}
    shown = before.select("item", "context.age", "context.sex").unique().rows()
    assert not any(name[:5].lower() in str(shown).lower() for name in (*TYPES, "hge", "hemorrhage"))


def test_ages_under_a_year_are_months(copied: Path) -> None:
    ages = {"0": "under 1 month", "0.08": "under 1 month", "0.0834": "1 month", "0.166666667": "2 months",
            "0.583333333": "7 months", "0.99": "11 months", "1": "1 year", "1.5": "1 year", "89": "89 years",
            "93": "over 89 years"}  # fmt: skip
    rewrite(
        copied / ct_ich.DEMOGRAPHICS,
        lambda rows: [row | {_ct_ich_tree.AGE: age} for row, age in zip(rows, ages, strict=True)],
    )
    told = scanned(copied).select("patient", "context.age").unique().sort("patient", maintain_order=True)
    by_number = dict(told.iter_rows())
    assert [by_number[str(number)] for number in range(49, 59)] == list(ages.values())


# Inputs that are not right


def test_t08_rows_that_disagree_with_themselves_and_masks_that_disagree_with_rows(copied: Path) -> None:
    rewrite(copied / ct_ich.SLICES, set_cell(0, "No_Hemorrhage", "0"), "utf-8-sig")
    rewrite(copied / ct_ich.SLICES, set_cell(5, "Epidural", "1"), "utf-8-sig")
    home = copied / "Patients_CT" / "049" / "brain"
    shutil.copy(home / "2_HGE_Seg.jpg", home / "4_HGE_Seg.jpg")
    (home / "3_HGE_Seg.jpg").unlink()
    (copied / "Patients_CT" / "052" / "bone" / "1.jpg").unlink()
    (copied / "Patients_CT" / "052" / "brain" / "2.jpg").unlink()
    shutil.rmtree(copied / "Patients_CT" / "053")
    assert aside(scanned(copied)) == {
        "049-001": "label_conflict",
        "049-003": "mask_missing",
        "049-004": "mask_conflict",
        "050-002": "label_conflict",
        "052-001": "file_missing",
        "052-002": "file_missing",
        **{f"053-00{n}": "file_missing" for n in range(1, 5)},
    }


def test_t08_demographics_that_disagree_and_pictures_of_no_slice_are_counted(copied: Path) -> None:
    rewrite(copied / ct_ich.DEMOGRAPHICS, lambda rows: rows[:-1])
    rewrite(copied / ct_ich.DEMOGRAPHICS, set_cell(0, "Subdural", "1"))
    (copied / "Patients_CT" / "049" / "brain" / "99.jpg").touch()
    (copied / "Patients_CT" / "049" / "brain" / "Thumbs.db").touch()
    counts = ct_ich.statistics(Store(copied), SourceOptions())
    assert counts["patients_without_demographics"] == 1
    assert counts["patients_whose_tables_disagree"] == 1
    assert counts["pictures_of_no_slice"] == 1
    assert scanned(copied).filter(pl.col("context.age").is_null())["patient"].unique().to_list() == ["58"]


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("SLICES", set_cell(3, "Epidural", "2"), "row 5: Epidural is neither 0 nor 1"),
        ("SLICES", set_cell(3, "Fracture_Yes_No", ""), "row 5: Fracture_Yes_No is neither 0 nor 1"),
        ("SLICES", set_cell(3, "SliceNumber", "0"), "row 5: SliceNumber is blank or not over 0"),
        ("SLICES", set_cell(3, "PatientNumber", ""), "row 5: PatientNumber is blank"),
        ("SLICES", set_cell(3, "PatientNumber", "4x"), "line 5: the cell of column 'PatientNumber' is no Int32"),
        ("SLICES", set_cell(3, "SliceNumber", "1"), "item 049-001 stands more than once"),
        ("DEMOGRAPHICS", set_cell(1, "Gender", "unknown"), "row 4: Gender is neither Male nor Female"),
        ("DEMOGRAPHICS", set_cell(1, _ct_ich_tree.AGE, "-3"), "row 4: Age is under 0 or over 120"),
        ("DEMOGRAPHICS", set_cell(1, _ct_ich_tree.AGE, "old"), r"the cell of column 'Age\\n\(years\)' is no Float64"),
        ("DEMOGRAPHICS", set_cell(1, "Patient Number", "49"), "row 3: Patient Number is blank, or stands twice"),
        ("DEMOGRAPHICS", set_cell(1, "Subdural", "3"), "row 4: Subdural is neither 1 nor blank"),
    ],
)
def test_t07_cells_that_are_none(table: str, change: Any, said: str, copied: Path) -> None:
    rewrite(copied / getattr(ct_ich, table), change)
    with pytest.raises(TableError, match=said) as caught:
        scanned(copied)
    assert "unknown" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_t07_with_or_without_a_byte_order_mark(encoding: str, copied: Path) -> None:
    before = scanned(copied)
    for name in (ct_ich.SLICES, ct_ich.DEMOGRAPHICS):
        rewrite(copied / name, lambda rows: None, encoding)
    assert scanned(copied).equals(before)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("SLICES", b"Subdural,", b"Subdural2,", "hemorrhage_diagnosis.csv lacks the column 'Subdural'"),
        ("DEMOGRAPHICS", b"Gender", b"Sex", "patient_demographics.csv lacks the column 'Gender'"),
        ("DEMOGRAPHICS", b"(years)", b"(y)", r"patient_demographics.csv lacks the column 'Age\\n\(years\)'"),
        ("SLICES", b"\xef\xbb\xbf", b"<html>", "hemorrhage_diagnosis.csv is a web page"),
    ],
)
def test_renamed_columns_and_web_pages_are_one_error_of_one_paragraph(
    name: str, old: bytes, new: bytes, said: str, copied: Path
) -> None:
    path = copied / getattr(ct_ich, name)
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(TableError, match=said) as caught:
        scanned(copied)
    assert "\n" not in str(caught.value)


def test_other_layouts_are_told(copied: Path) -> None:
    (copied / "Patients_CT").rename(copied / "elsewhere")
    with pytest.raises(LayoutError, match="Patients_CT/ is not in the raw folder"):
        scanned(copied)
    (copied / "ct_scans").mkdir()
    with pytest.raises(LayoutError, match=r"this is release 1\.3\.1"):
        scanned(copied)
    (copied / ct_ich.DEMOGRAPHICS).unlink()
    with pytest.raises(LayoutError, match=r"patient_demographics\.csv is not in the raw folder"):
        scanned(copied)


def test_scan_opens_no_picture(copied: Path) -> None:
    for path in (copied / "Patients_CT").rglob("*.jpg"):
        path.write_bytes(b"")
    assert aside(scanned(copied)) == {}


# The synthetic tree, and the licence


def test_synthesize_follows_from_its_seed_and_writes_the_publishers_quirks(synthetic: Path, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        ct_ich.synthesize(tmp_path / name, seed, 3)
        tree = Store(tmp_path / name)
        digests.append([(path, hashlib.sha256(tree.read(path)).hexdigest()) for path in tree.walk()])
    assert digests[0] == digests[1] != digests[2]
    assert (synthetic / ct_ich.SLICES).read_bytes().startswith(b"\xef\xbb\xbfPatientNumber,SliceNumber,")
    assert (synthetic / ct_ich.DEMOGRAPHICS).read_bytes().startswith(b'Patient Number,"Age\n(years)",Gender,')
    for path in (synthetic / "Patients_CT").rglob("*.jpg"):
        with Image.open(path) as picture:
            assert (picture.mode, picture.format) == ("L", "JPEG")
    types = scanned(synthetic)["answer.haemorrhage_types"].drop_nulls()
    assert set(types.explode(empty_as_null=False)) == {name.lower() for name in TYPES}


def test_anything_may_be_passed_on() -> None:
    assert strictest(CT_ICH.spec.licences.values()) == ("CC-BY-4.0", Redistribution.OPEN)
