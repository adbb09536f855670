"""The source ``cbis-ddsm``: its tables, both layouts, which file is the mask, and what the published way gets wrong."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical.synthetic_dicom import write_dicom
from qoq_data.corpus.doctor import examine, is_healthy
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.planning import SourceInput, SourcePlan, plan_corpus
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.corpus.splits import assign_splits, group_keys
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, Reason, RecordError, TableError
from qoq_data.formats.dicom import decode_dicom_mask
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.recipe import Recipe, SourceRecipe
from qoq_data.record import Media
from qoq_data.source import SourceOptions
from qoq_data.sources import _cbis_ddsm_files, _cbis_ddsm_tables, _cbis_ddsm_tree, _mammography, cbis_ddsm, source_of
from qoq_data.sources._published_files import csv_bytes

CBIS = source_of(cbis_ddsm)
MASS, CALC = "mass_case_description_train_set.csv", "calc_case_description_train_set.csv"
Row = dict[str, str]
Pixels = NDArray[Any]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cbis-ddsm")
    cbis_ddsm.synthesize(folder, 7, 13)
    return folder


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cbis-ddsm-kaggle")
    _cbis_ddsm_tree.write_kaggle(folder, 7, 13)
    return folder


@pytest.fixture(scope="module")
def real_rows(realdata: Path) -> list[Row]:
    """Every row of the four real tables by plain ``csv``, with its table's kind and side."""
    rows = []
    for kind in ("mass", "calc"):
        for side in ("train", "test"):
            path = realdata / "cbis-ddsm" / f"{kind}_case_description_{side}_set.csv"
            with path.open(newline="", encoding="utf-8") as file:
                rows += [row | {"kind": kind, "side": side} for row in csv.DictReader(file)]
    return rows


@pytest.fixture(scope="module")
def real_items(realdata: Path, real_rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The real tables scanned in Kaggle's layout, which needs no picture to be there; sizes are made up."""
    folder = tmp_path_factory.mktemp("cbis-ddsm-real")
    shutil.copytree(realdata / "cbis-ddsm", folder / "csv")
    (folder / "jpeg").mkdir()
    info = {}
    for row in real_rows:
        for place, (column, size) in enumerate(
            (("image", (4616, 3016)), ("cropped image", (301, 280)), ("ROI mask", (4616, 3016)))
        ):
            uid = row[f"{column} file path"].split("/")[2]
            name = f"CBIS-DDSM/jpeg/{uid}/1-00{place}.jpg"
            info[name] = (uid, name, *size)
    table = csv_bytes(("SeriesInstanceUID", "image_path", "Rows", "Columns"), info.values())
    (folder / "csv" / "dicom_info.csv").write_bytes(table)
    return items_of(folder)


def items_of(folder: Path) -> pl.DataFrame:
    return scan_items(CBIS, Store(folder), SourceOptions())


def planned(folder: Path) -> SourcePlan:
    entry = SourceRecipe(name="cbis-ddsm", skip_limit=1.0)
    recipe = Recipe(name="test", sources=(entry,))
    (plan,) = plan_corpus(recipe, [SourceInput(CBIS, entry, Store(folder))], None, LocalEngine(1))
    return plan


def media_of(plan: SourcePlan) -> dict[str, list[dict[str, Any]]]:
    return {row["item"]: row["media"] for shard in plan.shards for row in shard.rows.iter_rows(named=True)}


def rendered(folder: Path, media: Sequence[Mapping[str, Any]]) -> Media:
    recipe = Recipe(name="test", sources=(SourceRecipe(name="cbis-ddsm"),))
    return render_media(Store(folder), [MediaReference.of(one) for one in media], recipe)


def reasons(plan: SourcePlan) -> dict[str, str]:
    return {skip.item: skip.reason for skip in plan.skips}


def views(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["patient_id"], row["left or right breast"], row["image view"]), []).append(row)
    return found


def table_rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rewrite(path: Path, change: Callable[[list[Row]], object]) -> None:
    """A table changed in place by a function of its rows."""
    rows = table_rows(path)
    header = list(rows[0])
    change(rows)
    path.write_bytes(csv_bytes(header, ([row[column] for column in header] for row in rows)))


def oval(shape: tuple[int, int], top: int = 20) -> Pixels:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    return np.asarray(np.hypot((x - 30) / 12, (y - top - 12) / 10) <= 1)


def one_view(folder: Path, files: Mapping[str, Sequence[Pixels]], size: tuple[int, int] = (160, 120)) -> Path:
    """A tree of one mammogram with one mass, whose series ``crop`` and ``mask`` (or ``both``) hold these files."""
    rng = np.random.default_rng(1)
    film = (rng.random(size) * 60000).astype(np.uint16)
    series = {"image": [film], **files}
    lines = []
    for name, every in series.items():
        below = folder / "CBIS-DDSM" / name / "08-29-2017-DDSM-NA-1" / f"1.000000-{name}"
        below.mkdir(parents=True)
        location = f"./{below.relative_to(folder).as_posix()}"
        row = dict.fromkeys(_mammography.SERIES_HEADER, "x")
        row |= {"Series UID": name, "Number of Images": str(len(every)), "File Location": location}
        lines.append(list(row.values()))
        for number, pixels in enumerate(every, 1):
            data = write_dicom(pixels, study="s", series=name, instance=f"{name}{number}")
            (below / f"1-{number}.dcm").write_bytes(data)
    (folder / "metadata.csv").write_bytes(csv_bytes(_mammography.SERIES_HEADER, lines))
    crop, mask = ("both", "both") if "both" in files else ("crop", "mask")
    values = ("P_00001", 2, "LEFT", "CC", 1, "mass", "OVAL", "NA", 4, "MALIGNANT", 3)
    paths = ("a/s/image/000000.dcm", f"a_1/s/{crop}/000000.dcm", f"a_1/s/{mask}/000001.dcm\n")
    for name, (kind, _) in _cbis_ddsm_tables.TABLES.items():
        header = list(_cbis_ddsm_tree._header(kind))
        (folder / name).write_bytes(csv_bytes(header, [(*values, *paths)] if name == MASS else []))
    return folder


def as_mask(mask: Pixels) -> Pixels:
    return mask.astype(np.uint8) * 255


CROP = (np.arange(40 * 50) % 900).reshape(40, 50).astype(np.uint16)


# What the real tables hold


def test_the_real_tables_are_read_whole(real_rows: list[Row], real_items: pl.DataFrame) -> None:
    assert len(real_rows) == 3_568
    expected = views(real_rows)
    assert real_items["item"].to_list() == sorted("-".join(key) for key in expected)
    assert (real_items.height, real_items["patient"].n_unique()) == (3_032, 1_566)
    assert real_items["skip_reason"].null_count() == 3_032
    masks = real_items["media"].list.eval(pl.element().filter(pl.element().struct.field("kind") == "mask")).list.len()
    assert masks.sum() == 3_568
    pictures = real_items["media"].list.len() - masks
    assert bool((pictures == 1).all())


def test_the_real_answers_agree_with_a_plain_query(real_rows: list[Row], real_items: pl.DataFrame) -> None:
    answers = {row["item"]: row for row in real_items.iter_rows(named=True)}
    for key, rows in views(real_rows).items():
        found = answers["-".join(key)]
        highest = max(int(row["assessment"]) for row in rows)
        assert found["answer.assessment"] == ([str(highest)] if highest else None)
        malignant = "MALIGNANT" in {row["pathology"] for row in rows}
        assert found["answer.pathology"] == ["malignant" if malignant else "benign"]
        kinds = {"mass": "mass", "calc": "calcification"}
        assert found["answer.abnormality"] == [kinds[kind] for kind in kinds if kind in {row["kind"] for row in rows}]
        masses = [row for row in rows if row["kind"] == "mass"]
        if len(masses) != 1 or masses[0]["mass margins"] == "NA":
            assert found["answer.mass_margins"] is None
        else:
            assert found["answer.mass_margins"] == masses[0]["mass margins"].split("-")
        (density,) = {row.get("breast_density") or row.get("breast density") for row in rows}
        assert found["answer.density"] == (None if density == "0" else [density])
    assert real_items["answer.density"].null_count() == 2
    assert real_items["answer.assessment"].null_count() == 236
    calcifications = [[row for row in rows if row["kind"] == "calc"] for rows in views(real_rows).values()]
    words = {word for rows in calcifications if len(rows) == 1 for word in rows[0]["calc type"].split("-")}
    assert set(real_items["answer.calc_type"].drop_nulls().explode()) == words - {"NA", "LUCENT_CENTERED"}


def test_statistics_of_the_real_tables(realdata: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(realdata / "cbis-ddsm", tmp_path / "raw"))
    (tree / "CBIS-DDSM").mkdir()
    (tree / "metadata.csv").write_bytes(csv_bytes(_mammography.SERIES_HEADER, []))
    assert cbis_ddsm.statistics(Store(tree), SourceOptions()) == {
        "abnormalities": 3_568,
        "mammograms": 3_032,
        "mammograms_of_both_kinds": 71,
        "mammograms_on_both_official_sides": 29,
        "mammograms_of_several_assessments": 50,
        "mammograms_of_both_pathologies": 33,
        "mammograms_without_a_complete_assessment": 236,
        "mammograms_without_density": 2,
        "patients_on_both_official_sides": 31,
    }
    assert set(items_of(tree)["skip_reason"]) == {"file_missing"}


# What the published conversion gets wrong


def test_patients_on_both_official_sides_cross_in_the_published_split_and_not_here(
    real_rows: list[Row], real_items: pl.DataFrame
) -> None:
    def crossing(sides: Mapping[str, set[str]]) -> int:
        return sum(len(one) > 1 for one in sides.values())

    published: dict[str, set[str]] = {}
    for row in real_rows:
        published.setdefault(row["patient_id"], set()).add(row["side"])
    assert crossing(published) == 31
    assert sum(len({row["side"] for row in rows}) > 1 for rows in views(real_rows).values()) == 29

    keys = group_keys(real_items, "cbis-ddsm", "ddsm")
    rows = real_items.with_columns(keys, pl.lit("cbis-ddsm").alias("source"))
    split = rows.with_columns(assign_splits(rows, 0, 0.1, 0.1).alias("split"))
    ours: dict[str, set[str]] = {}
    for patient, side in split.select("patient", "split").iter_rows():
        ours.setdefault(patient, set()).add(side)
    assert crossing(ours) == 0
    of_crossing = split.filter(pl.col("patient").is_in([patient for patient, one in published.items() if len(one) > 1]))
    assert set(of_crossing["split"]) == {"test"}
    assert of_crossing.height == 85
    assert split.filter((pl.col("official_split") == "train") & (pl.col("split") == "test")).height == 35
    assert split.filter(pl.col("split") == "test").height == 641 + 35


def test_the_published_counts_come_out_of_the_tables_and_keep_what_crosses(real_rows: list[Row]) -> None:
    """2,230 and 595 mammograms of assessment 1 or more by side, of which 29 are counted twice."""
    counted = {}
    for side in ("train", "test"):
        highest = [
            max(int(row["assessment"]) for row in rows)
            for rows in views([row for row in real_rows if row["side"] == side]).values()
        ]
        counted[side] = sum(one > 0 for one in highest)
    assert counted == {"train": 2_230, "test": 595}
    both = [max(int(row["assessment"]) for row in rows) for rows in views(real_rows).values()]
    assert sum(one > 0 for one in both) == 2_796 < 2_230 + 595


def test_an_incomplete_assessment_loses_its_question_only_where_the_published_way_drops_the_mammogram(
    real_items: pl.DataFrame,
) -> None:
    incomplete = real_items.filter(pl.col("answer.assessment").is_null())
    assert incomplete.height == 236
    assert incomplete["answer.pathology"].null_count() == incomplete["answer.abnormality"].null_count() == 0


def test_lesions_of_different_assessment_take_the_highest_and_not_the_first(
    real_rows: list[Row], real_items: pl.DataFrame
) -> None:
    answers = dict(real_items.select("item", "answer.assessment").iter_rows())
    several = {key: rows for key, rows in views(real_rows).items() if len({row["assessment"] for row in rows}) > 1}
    assert len(several) == 50
    first = {key: rows[0]["assessment"] for key, rows in several.items()}
    assert any(first[key] != answers["-".join(key)][0] for key in several)
    assert all(answers["-".join(key)] == [max(row["assessment"] for row in rows)] for key, rows in several.items())


def test_file_names_of_the_tables_do_not_exist_after_a_download_and_are_not_looked_for(synthetic: Path) -> None:
    rows = [row for name in _cbis_ddsm_tables.TABLES for row in table_rows(synthetic / name)]
    published = [f"CBIS-DDSM/{row['image file path'].strip()}" for row in rows]
    assert not any((synthetic / path).exists() for path in published)
    items = items_of(synthetic)
    assert items["skip_reason"].null_count() == items.height
    assert all((synthetic / one["path"]).is_file() for media in items["media"] for one in media)


def test_a_line_break_that_ends_a_path_cell_is_no_part_of_it(synthetic: Path, real_rows: list[Row]) -> None:
    broken = Counter((row["kind"], column) for row in real_rows for column in row if row[column].endswith("\n"))
    assert broken == {("mass", "ROI mask file path"): 1_696, ("calc", "cropped image file path"): 1_872}
    for table, column in ((MASS, "ROI mask file path"), (CALC, "cropped image file path")):
        cells = [row[column] for row in table_rows(synthetic / table)]
        assert all(cell.endswith("\n") for cell in cells)
    for lesions in _cbis_ddsm_tables.read_views(Store(synthetic)).values():
        for lesion in lesions:
            assert not re.search(r"\s", "".join((lesion.image, lesion.crop, lesion.mask)))


def test_crop_and_mask_swapped_between_kinds_are_told_by_size_and_not_by_name_or_order(
    synthetic: Path, real_rows: list[Row]
) -> None:
    names = Counter((row["kind"], row["ROI mask file path"].strip()[-10:]) for row in real_rows)
    assert names == {("mass", "000001.dcm"): 1_593, ("mass", "000000.dcm"): 103, ("calc", "000000.dcm"): 1_872}

    tree, wrong = Store(synthetic), Counter[str]()
    for media in media_of(planned(synthetic)).values():
        for mask in media[1:]:
            data = tree.read(mask["path"])
            assert decode_dicom_mask(data, "").any()
            folder, _, name = mask["path"].rpartition("/")
            every = sorted(tree.names(folder))
            if len(every) == 2:
                wrong["the second file"] += every[1] != name
                wrong["the first file"] += every[0] != name
    assert wrong["the second file"] > 3
    assert wrong["the first file"] > 3


@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("mask_first", [False, True])
def test_the_mask_is_found_in_one_series_or_two_in_either_order_even_with_the_cells_swapped(
    tmp_path: Path, mask_first: bool, apart: bool, bits: type[np.uint8 | np.uint16]
) -> None:
    mask = oval((160, 120)).astype(bits) * np.iinfo(bits).max
    pair = [mask, CROP] if mask_first else [CROP, mask]
    folder = one_view(tmp_path, {"crop": pair[:1], "mask": pair[1:]} if apart else {"both": pair})
    (media,) = media_of(planned(folder)).values()
    assert [(one["kind"], one["part"], one["laterality"]) for one in media] == [
        ("dicom", "CC", "left"),
        ("dicom_mask", "mass", None),
    ]
    ys, xs = np.nonzero(mask)
    (box,) = rendered(folder, media).boxes
    assert (box.label, box.xyxy) == ("mass", (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))


def test_b01_a_mask_of_another_size_and_the_same_aspect_is_scaled_and_said(tmp_path: Path) -> None:
    folder = one_view(tmp_path, {"both": [CROP, as_mask(oval((345, 460)))]}, size=(300, 400))
    (media,) = media_of(planned(folder)).values()
    found = rendered(folder, media)
    assert "mask scaled from 460 x 345 to 400 x 300" in found.provenance[1].taken
    ys, xs = np.nonzero(oval((345, 460)))
    expected = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / 1.15
    assert np.abs(np.array(found.boxes[0].xyxy) - expected).max() <= 1


def test_b01_a_mask_of_another_aspect_is_a_ledger_line(tmp_path: Path) -> None:
    folder = one_view(tmp_path, {"both": [CROP, as_mask(oval((310, 400)))]}, size=(300, 400))
    (media,) = media_of(planned(folder)).values()
    with pytest.raises(RecordError, match="of another aspect") as caught:
        rendered(folder, media)
    assert caught.value.reason is Reason.MASK_SHAPE_MISMATCH


FULL = as_mask(oval((160, 120)))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([FULL, FULL], Reason.MASK_CONFLICT),
        ([as_mask(oval((140, 105))), as_mask(oval((150, 112)))], Reason.MASK_CONFLICT),
        ([CROP, CROP], Reason.MASK_MISSING),
        ([CROP], Reason.MASK_MISSING),
    ],
)
def test_where_no_or_several_files_may_be_the_mask_none_is_guessed(
    tmp_path: Path, files: list[Pixels], reason: Reason
) -> None:
    plan = planned(one_view(tmp_path, {"both": files}))
    assert reasons(plan) == {"P_00001-LEFT-CC": str(reason)}
    assert not media_of(plan)


def test_a_film_of_the_full_size_beside_a_scaled_mask_is_refused_when_it_is_read(tmp_path: Path) -> None:
    film = (np.arange(160 * 120) % 999).reshape(160, 120).astype(np.uint16)
    folder = one_view(tmp_path, {"both": [as_mask(oval((140, 105))), film]})
    (media,) = media_of(planned(folder)).values()
    with pytest.raises(RecordError, match="a mask has two values") as caught:
        rendered(folder, media)
    assert caught.value.reason is Reason.FORMAT_UNSUPPORTED


def test_a_mammogram_of_both_kinds_is_one_item_with_every_mask(synthetic: Path) -> None:
    media = media_of(planned(synthetic))["P_00004-RIGHT-CC"]
    assert [one["part"] for one in media] == ["CC", "mass", "calcification"]
    scanned = items_of(synthetic).filter(pl.col("item") == "P_00004-RIGHT-CC").row(0, named=True)
    assert [one["role"] for one in scanned["media"]][:2] == ["image", "image"]
    assert scanned["answer.abnormality"] == ["mass", "calcification"]
    assert scanned["official_split"] == "test"
    assert len(rendered(synthetic, media).boxes) == 2


def test_two_files_of_one_mammogram_that_differ_in_size_are_a_ledger_line(synthetic: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(synthetic, tmp_path / "raw"))
    (path,) = folder.glob("CBIS-DDSM/Calc-Training_P_00004_RIGHT_CC/*/*/1-1.dcm")
    path.write_bytes(write_dicom(np.zeros((127, 96), np.uint16), study="s", series="t", instance="u"))
    assert reasons(planned(folder)) == {"P_00004-RIGHT-CC": "header_mismatch"}


# The rest of what a tree may hold


def test_slashes_of_either_kind_and_a_leading_dot_say_the_same_folder(synthetic: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(synthetic, tmp_path / "raw"))
    expected = items_of(folder)
    styles: list[Callable[[str], str]] = [
        lambda cell: cell.replace("\\", "/"),
        lambda cell: cell.removeprefix(".\\"),
        lambda cell: cell.replace("\\", "/") + "/",
    ]
    for style in styles:
        table = table_rows(synthetic / "metadata.csv")
        rows = [[*row.values()] for row in (one | {"File Location": style(one["File Location"])} for one in table)]
        (folder / "metadata.csv").write_bytes(csv_bytes(_mammography.SERIES_HEADER, rows))
        assert items_of(folder).equals(expected)


@pytest.mark.parametrize("location", ["../elsewhere", "/etc", "C:\\CBIS-DDSM\\a", ".\\CBIS-DDSM\\..\\..\\a"])
def test_a_location_that_leads_out_of_the_folder_is_one_error(tmp_path: Path, location: str) -> None:
    folder = one_view(tmp_path, {"both": [CROP, FULL]})
    rewrite(folder / "metadata.csv", lambda rows: rows[1].update({"File Location": location}))
    with pytest.raises(TableError, match=r"metadata\.csv, row 3: its File Location leads out of the raw folder"):
        items_of(folder)


def test_a_series_with_fewer_files_than_counted_or_in_no_table_is_a_ledger_line(tmp_path: Path) -> None:
    folder = one_view(tmp_path, {"both": [CROP, FULL]})
    (folder / "CBIS-DDSM/both/08-29-2017-DDSM-NA-1/1.000000-both/1-2.dcm").unlink()
    (skip,) = planned(folder).skips
    assert (skip.reason, skip.detail) == (
        "file_missing",
        "its folder holds 1 of the 2 files that metadata.csv counts",
    )
    rewrite(folder / "metadata.csv", lambda rows: rows[1].update({"Series UID": "another"}))
    (skip,) = planned(folder).skips
    assert (skip.reason, skip.detail) == ("file_missing", "a series of it is not in metadata.csv")
    rewrite(folder / "metadata.csv", lambda rows: rows.append(rows[0] | {"File Location": "./CBIS-DDSM/b"}))
    with pytest.raises(TableError, match="two rows of one Series UID that differ"):
        items_of(folder)


@pytest.mark.parametrize(
    ("column", "cell", "problem"),
    [
        ("patient_id", "", "its patient_id is blank"),
        ("left or right breast", "BOTH", "its left or right breast is none of LEFT, RIGHT"),
        ("image view", "XCCL", "its image view is none of CC, MLO"),
        ("abnormality type", "calcification", "its abnormality type is none of mass"),
        ("pathology", "UNPROVEN", "its pathology is none of BENIGN"),
        ("breast_density", "5", "its breast_density is none of 0, 1, 2, 3, 4"),
        ("assessment", "6", "its assessment is not from 0 to 5"),
        ("assessment", "", "its assessment is blank"),
        ("image file path", "a/b", "its image file path is not of the form a/b/c/d"),
        ("mass shape", "OVAL-SQUARE", "its mass shape has a word that is not known"),
    ],
)
def test_a_row_that_is_not_as_published_is_one_error_without_its_cell(
    tmp_path: Path, column: str, cell: str, problem: str
) -> None:
    folder = one_view(tmp_path, {"both": [CROP, FULL]})
    rewrite(folder / MASS, lambda rows: rows[0].update({column: cell}))
    with pytest.raises(TableError, match=re.escape(f"{MASS}, row 2: {problem}")) as caught:
        items_of(folder)
    assert cell == "" or len(cell) < 2 or cell in problem or cell not in str(caught.value)


def test_an_abnormality_that_stands_twice_and_a_number_that_is_none_are_one_error(tmp_path: Path) -> None:
    folder = one_view(tmp_path, {"both": [CROP, FULL]})
    rewrite(folder / MASS, lambda rows: rows.append(dict(rows[0])))
    with pytest.raises(TableError, match="has an abnormality of one mammogram twice"):
        items_of(folder)
    rewrite(folder / MASS, lambda rows: rows[1].update({"abnormality id": "one"}))
    with pytest.raises(TableError, match="the cell of column 'abnormality id' is no Int64"):
        items_of(folder)


def test_the_kaggle_layout_gives_the_same_items_answers_and_boxes(synthetic: Path, kaggle: Path) -> None:
    ours, theirs = items_of(synthetic), items_of(kaggle)
    same = [column for column in ours.columns if column not in ("media", "label_file")]
    assert theirs.select(same).equals(ours.select(same))
    assert set(theirs["media"].explode().struct.field("kind")) == {"image", "mask"}
    assert (cbis_ddsm.detect_version(Store(synthetic)), cbis_ddsm.detect_version(Store(kaggle))) == ("TCIA", "Kaggle")
    tcia_media, kaggle_media = media_of(planned(synthetic)), media_of(planned(kaggle))
    assert tcia_media.keys() == kaggle_media.keys()
    for item, media in kaggle_media.items():
        dicom, jpeg = rendered(synthetic, tcia_media[item]), rendered(kaggle, media)
        assert [box.label for box in jpeg.boxes] == [box.label for box in dicom.boxes]
        gaps = np.array([box.xyxy for box in jpeg.boxes]) - np.array([box.xyxy for box in dicom.boxes])
        assert np.abs(gaps).max() <= 1, item
        pictures = [np.asarray(Image.open(io.BytesIO(one.images[0])).convert("L")).astype(int) for one in (dicom, jpeg)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 4
        assert dicom.views[0].laterality == jpeg.views[0].laterality


@pytest.mark.parametrize(
    ("column", "cell", "problem"),
    [
        ("image_path", "CBIS-DDSM/jpeg/1/..", "of another form"),
        ("image_path", "CBIS-DDSM/jpeg/1/1-1.dcm", "of another form"),
        ("SeriesInstanceUID", "../1", "of another form"),
        ("Rows", "", "its Rows is blank"),
    ],
)
def test_a_bad_row_of_the_kaggle_table_is_one_error(
    kaggle: Path, tmp_path: Path, column: str, cell: str, problem: str
) -> None:
    folder = Path(shutil.copytree(kaggle, tmp_path / "raw"))
    rewrite(folder / "csv/dicom_info.csv", lambda rows: rows[4].update({column: cell}))
    with pytest.raises(TableError, match=rf"csv/dicom_info\.csv, row 6: .*{problem}"):
        items_of(folder)


def test_doctor_finds_nothing_wrong_with_either_layout_and_names_what_is_absent(
    synthetic: Path, kaggle: Path, tmp_path: Path
) -> None:
    for folder in (synthetic, kaggle):
        assert is_healthy(examine(CBIS, Store(folder), checksums=False))
    with pytest.raises(LayoutError, match=r"metadata\.csv is not in the raw folder"):
        items_of(tmp_path)
    for folder, absent in ((synthetic, "CBIS-DDSM"), (kaggle, "jpeg")):
        bare = tmp_path / absent
        shutil.copytree(folder, bare, ignore=lambda _, names: [one for one in names if one == absent])  # noqa: B023
        with pytest.raises(LayoutError, match=f"cbis-ddsm: {absent}/ is not in the raw folder"):
            items_of(bare)


def test_s03_neither_kind_nor_side_of_the_publisher_stands_in_id_question_or_view(real_items: pl.DataFrame) -> None:
    shown = " ".join([*real_items["item"], *real_items["media"].list.first().struct.field("part").unique()])
    assert not re.search(r"mass|calc|train|test|benign|malig", shown, re.IGNORECASE)
    assert all(len(set(task.wordings)) >= 5 for task in cbis_ddsm.SPEC.tasks)
    assert not [column for column in real_items.columns if column.startswith("context.")]


def test_rows_may_be_passed_on_with_credit() -> None:
    assert strictest(cbis_ddsm.SPEC.licences.values()) == ("CC-BY-3.0", Redistribution.OPEN)


def test_the_picture_is_the_right_way_round_and_the_boxes_are_on_bright_lesions(synthetic: Path) -> None:
    for item, media in media_of(planned(synthetic)).items():
        found = rendered(synthetic, media)
        picture = np.asarray(Image.open(io.BytesIO(found.images[0])).convert("L")).astype(float)
        wall = picture[40:90, :8].mean() - picture[40:90, -8:].mean()
        assert (wall > 0) == (found.views[0].laterality == "left") == ("LEFT" in item)
        bright = picture > 200
        bright[:9] = False  # the lead marker
        outside = bright.copy()
        for x0, y0, x1, y1 in (box.xyxy for box in found.boxes):
            assert bright[y0:y1, x0:x1].mean() > 0.1
            outside[y0:y1, x0:x1] = False
        assert not outside.any()


def test_a_large_synthetic_tree_has_a_mask_of_another_aspect_and_a_scaled_one(tmp_path: Path) -> None:
    masks = {patient: _cbis_ddsm_tree._mask_file(oval((128, 96)), patient, 0) for patient in (6, 38)}
    assert (masks[6].shape, masks[38].shape) == ((112, 84), (128, 88))
    assert _cbis_ddsm_files.mask_among((128, 96), {"crop": (40, 30), "mask": (112, 84)}) == "mask"
    cbis_ddsm.synthesize(tmp_path, 1, 1)
    assert items_of(tmp_path).height == 2
