"""The source ``bcss``: its tables, which tiles it asks about, and what the published conversion gets wrong."""

from __future__ import annotations

import csv
import hashlib
import random
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from qoq_data.clinical.tiling import tile_rectangle
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.planning import SourceInput, SourcePlan, plan_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.recipe import Recipe, SourceRecipe
from qoq_data.sources import _bcss_tree, bcss, source_of

BCSS = source_of(bcss)
CODE = {"tumor": 1, "stroma": 2, "inflammatory": 3, "necrosis": 4}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bcss")
    bcss.synthesize(folder, 7, 12)
    return folder


@pytest.fixture
def copied(synthetic: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(synthetic, tmp_path / "raw"))


def scanned(folder: Path, **options: Any) -> pl.DataFrame:
    return scan_items(BCSS, Store(folder), bcss.Options(**options))


def planned(folder: Path, skip_limit: float = 1.0, **options: Any) -> SourcePlan:
    entry = SourceRecipe(name="bcss", skip_limit=skip_limit, options=options)
    recipe = Recipe(name="test", sources=(entry,))
    (plan,) = plan_corpus(recipe, [SourceInput(BCSS, entry, Store(folder))], None, LocalEngine(1))
    return plan


def rows_of(plan: SourcePlan) -> list[dict[str, Any]]:
    return [row for shard in plan.shards for row in shard.rows.iter_rows(named=True)]


def window(row: dict[str, Any]) -> tuple[int, int, int, int]:
    corners = row["media"][0]["window"]
    return corners["x0"], corners["y0"], corners["x1"], corners["y1"]


def labels_of(folder: Path, row: dict[str, Any]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(folder / row["label_file"]))


def one_roi(folder: Path, labels: NDArray[np.uint8], site: str = "A1") -> Path:
    """A tree of a single ROI with these labels; its picture is grey."""
    name = f"TCGA-{site}-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500.png"
    for below, pixels in (("images", np.full((*labels.shape, 3), 128, np.uint8)), ("masks", labels)):
        (folder / below).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / below / name)
    (folder / "meta").mkdir()
    codes = "".join(f"{meaning}\t{code}\n" for code, meaning in enumerate(_bcss_tree.CODES))
    (folder / bcss.CODES_TABLE).write_text(f"label\tGT_code\n{codes}")
    (folder / bcss.BOUNDS_TABLE).write_text(f",xmin,ymin,xmax,ymax,mask_link\n{name[:16]},45749,25055,1,1,x\n")
    return folder


def published_crops(labels: NDArray[np.uint8]) -> list[tuple[int, tuple[int, int, int, int]]]:
    """The published way: the rectangle round each region of the codes 1 to 4, asked for that code."""
    crops = []
    for code in range(1, 5):
        for rows, columns in ndimage.find_objects(ndimage.label(labels == code, np.ones((3, 3)))[0]):
            rectangle = (columns.start, rows.start, columns.stop, rows.stop)
            crops += [(code, tile) for tile in tile_rectangle(rectangle, labels.shape[::-1])]
    return crops


# What the real tables hold


def test_the_real_code_table_is_the_one_that_is_written_here(realdata: Path) -> None:
    tree = Store(realdata / "bcss")
    _bcss_tree.check_codes(tree)
    with (realdata / "bcss" / bcss.CODES_TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["label"], int(row["GT_code"])) for row in rows] == [(m, c) for c, m in enumerate(bcss.CODES)]
    assert len(rows) == 22


def test_the_real_bounds_are_read_whole(realdata: Path) -> None:
    found = _bcss_tree.read_bounds(Store(realdata / "bcss"))
    with (realdata / "bcss" / bcss.BOUNDS_TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert found == {row[""]: (int(row["xmin"]), int(row["ymin"])) for row in rows}
    assert len(found) == len({slide[:12] for slide in found}) == 151
    sites = Counter(slide[5:7] in ("OL", "LL", "E2", "EW", "GM", "S3") for slide in found)
    assert sites == {True: 45, False: 106}


def test_a_tree_of_the_real_tables_names_every_roi_and_its_side(realdata: Path, tmp_path: Path) -> None:
    """The real tables with empty files in the place of the pictures: 151 ROIs, 45 of them of the six test sites."""
    shutil.copytree(realdata / "bcss" / "meta", tmp_path / "meta")
    with (tmp_path / bcss.BOUNDS_TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for row in rows:
            (tmp_path / folder / f"{row['']}_xmin{row['xmin']}_ymin{row['ymin']}_MPP-0.2500.png").touch()
    items = scanned(tmp_path)
    assert (items.height, items["patient"].n_unique(), items["skip_reason"].drop_nulls().len()) == (151, 151, 0)
    assert Counter(items["official_split"]) == {"train": 106, "test": 45}
    assert set(items["study"]) == {row[""] for row in rows}
    assert bcss.statistics(Store(tmp_path), bcss.Options()) == {
        "rois": 151,
        "rois_not_in_the_table": 0,
        "rois_placed_elsewhere_in_the_table": 0,
        "pictures_standing_twice": 0,
    }


# Defects of the published conversion


def test_published_rectangles_are_asked_though_other_tissue_fills_them(synthetic: Path, tmp_path: Path) -> None:
    """A thin ring of tumour round stroma: its rectangle is asked for tumour there, and is a ledger line here."""
    labels = np.full((400, 400), 2, np.uint8)
    y, x = np.mgrid[0:400, 0:400] - 199.5
    ring = np.abs(np.hypot(x, y) - 150) < 10
    labels[ring] = 1
    published = published_crops(labels)
    asked_wrongly = [code for code, (x0, y0, x1, y1) in published if (labels[y0:y1, x0:x1] == code).mean() < 0.5]
    assert 1 in asked_wrongly
    plan = planned(one_roi(tmp_path / "ring", labels))
    assert [row["answer"] for row in rows_of(plan)] == [["stroma"]] * 2
    (skip,) = plan.skips
    assert (skip.reason, skip.detail) == (
        "no_label", "its tissue covers less than 0.5 of what is annotated in the tile",
    )  # fmt: skip
    assert any((labels_part == code).mean() < 0.5 for code, labels_part in crops_of(synthetic))
    for row in rows_of(planned(synthetic)):
        x0, y0, x1, y1 = window(row)
        part = labels_of(synthetic, row)[y0:y1, x0:x1]
        annotated = ~np.isin(part, bcss.NOT_ANNOTATED)
        assert (part == CODE[row["answer"][0]]).sum() >= 0.5 * annotated.sum() >= 0.25 * part.size


def crops_of(folder: Path) -> list[tuple[int, NDArray[np.uint8]]]:
    found = []
    for path in sorted((folder / "masks").iterdir()):
        labels = np.asarray(Image.open(path))
        found += [(code, labels[y0:y1, x0:x1]) for code, (x0, y0, x1, y1) in published_crops(labels)]
    return found


def test_a_draw_of_tiles_for_validation_parts_a_roi_and_ours_does_not(synthetic: Path) -> None:
    rows = rows_of(planned(synthetic))
    others = [row for row in rows if row["item"][5:7] not in bcss.TEST_SITES]
    shuffled = random.Random(42).sample(others, len(others))
    ten = len(others) // 10 or 1
    validation, train = ({row["item"].split("/")[0] for row in part} for part in (shuffled[:ten], shuffled[ten:]))
    assert validation & train
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["item"][:12], set()).add(row["split"])
    assert all(len(found) == 1 for found in sides.values())


def test_the_official_test_sites_are_test_and_nothing_else_is(synthetic: Path) -> None:
    rows = rows_of(planned(synthetic))
    by_site = {(row["item"][5:7] in ("OL", "LL", "E2", "EW", "GM", "S3"), row["split"] == "test") for row in rows}
    assert by_site == {(True, True), (False, False)}


def test_s03_neither_id_nor_view_nor_anything_shown_says_the_tissue(synthetic: Path) -> None:
    for row in rows_of(planned(synthetic)):
        shown = (row["item"], row["media"][0]["part"])
        assert not any(word in text.lower() for text in shown for word in (*CODE, "lymph", "tissue", "code"))
        assert re.fullmatch(r"TCGA-..-Z\d{3}-DX1_xmin\d+_ymin\d+_MPP-0\.2500/x\d+-y\d+-w\d+-h\d+", row["item"])
    assert BCSS.spec.context_fields == ()


# Which tiles are asked


def test_recipe_of_zero_asks_every_tile_as_published(tmp_path: Path) -> None:
    labels = np.full((600, 700), 2, np.uint8)
    labels[50:90, 60:110], labels[300:580, 400:690], labels[590:600, 0:10] = 3, 1, 4
    tree = one_roi(tmp_path / "tree", labels)
    expected = {(code, tile) for code, tile in published_crops(labels)}
    found = {(CODE[row["answer"][0]], window(row)) for row in rows_of(planned(tree, least_share=0, least_annotated=0))}
    assert found == expected
    assert len(rows_of(planned(tree))) < len(expected)


def test_codes_of_no_annotation_count_neither_for_nor_against(tmp_path: Path) -> None:
    """A tile that is 40 % tumour, 20 % fat and the rest excluded is tumour; with less than half annotated it is not."""
    labels = np.full((224, 224), 7, np.uint8)
    labels[:, :90], labels[:, 90:134] = 1, 9
    (row,) = rows_of(planned(one_roi(tmp_path / "a", labels)))
    assert (row["answer"], window(row)) == (["tumor"], (0, 0, 224, 224))
    labels[:, 90:134], labels[:, 0:20] = 0, 0
    plan = planned(one_roi(tmp_path / "b", labels))
    assert [skip.detail for skip in plan.skips] == ["less than 0.5 of the tile is annotated"]
    assert rows_of(planned(tmp_path / "b", least_annotated=0.3))[0]["answer"] == ["tumor"]


def test_two_tissues_that_claim_one_window_have_no_answer(tmp_path: Path) -> None:
    labels = np.full((224, 224), 2, np.uint8)
    labels[:112] = 1
    plan = planned(one_roi(tmp_path / "tree", labels))
    assert rows_of(plan) == []
    assert [(skip.reason, skip.detail) for skip in plan.skips] == [
        ("label_conflict", "two tissues claim the same window")
    ]
    labels[112] = 1
    shutil.rmtree(tmp_path / "tree")
    assert [row["answer"] for row in rows_of(planned(one_roi(tmp_path / "tree", labels)))] == [["tumor"]]


def test_groupings_differ_in_the_codes_that_count(tmp_path: Path) -> None:
    labels = np.full((224, 800), 21, np.uint8)
    labels[:, :200], labels[:, 280:480], labels[:, 560:760] = 20, 10, 4
    tree = one_roi(tmp_path / "tree", labels)
    assert [row["answer"] for row in rows_of(planned(tree))] == [["necrosis"]]
    challenge = rows_of(planned(tree, grouping="challenge"))
    assert sorted(row["answer"][0] for row in challenge) == ["inflammatory", "necrosis", "tumor"]
    parts = {row["answer"][0]: row["media"][1]["part"] for row in challenge}
    assert parts["tumor"] == "1=tumor;19=tumor;20=tumor"
    assert parts["inflammatory"] == "3=inflammatory;10=inflammatory;11=inflammatory"


def test_a_roi_without_asked_tissue_or_with_an_unknown_code_is_one_ledger_line(tmp_path: Path) -> None:
    fat = np.full((300, 300), 9, np.uint8)
    (skip,) = planned(one_roi(tmp_path / "fat", fat)).skips
    assert (skip.reason, skip.detail) == ("no_label", "it has no asked tissue")
    fat[:250, :250], fat[5, 5] = 1, 22
    (skip,) = planned(one_roi(tmp_path / "odd", fat)).skips
    assert (skip.reason, skip.detail) == ("mask_conflict", "its mask has a code that is not in meta/gtruth_codes.tsv")


# Layouts, and inputs that are not right


def test_pictures_may_be_colour_normalised_and_spread_over_numbered_folders(copied: Path) -> None:
    names = sorted(path.name for path in (copied / "images").iterdir())
    for place, name in enumerate(names):
        folder = copied / f"rgbs_colorNormalized{('', ' (2)', ' (3)')[place % 3]}"
        folder.mkdir(exist_ok=True)
        shutil.copy(copied / "images" / name, folder / name)
    shutil.copy(copied / "images" / names[0], copied / "rgbs_colorNormalized (3)" / names[0])
    counts = bcss.statistics(Store(copied), bcss.Options())
    assert counts["pictures_standing_twice"] == 0
    shutil.rmtree(copied / "images")
    items = scanned(copied)
    assert items["skip_reason"].null_count() == items.height == 12
    folders = Counter(media[0]["path"].split("/")[0] for media in items["media"])
    assert folders == {"rgbs_colorNormalized": 4, "rgbs_colorNormalized (2)": 4, "rgbs_colorNormalized (3)": 4}
    assert items["media"][0][0]["path"] == f"rgbs_colorNormalized/{names[0]}"
    assert bcss.statistics(Store(copied), bcss.Options())["pictures_standing_twice"] == 1


def test_a_picture_without_mask_a_mask_without_picture_and_a_roi_of_the_table_alone(copied: Path) -> None:
    names = sorted(path.name for path in (copied / "images").iterdir())
    (copied / "masks" / names[0]).unlink()
    (copied / "images" / names[1]).unlink()
    for folder in ("images", "masks"):
        (copied / folder / names[2]).unlink()
    items = scanned(copied)
    found = dict(items.filter(pl.col("skip_reason").is_not_null()).select("item", "skip_reason").iter_rows())
    assert found == {
        names[0].removesuffix(".png"): "mask_missing",
        names[1].removesuffix(".png"): "file_missing",
        names[2].split("_")[0]: "file_missing",
    }
    assert items.height == 12


def test_t08_a_table_of_another_release_is_an_error_or_counted(copied: Path) -> None:
    table = copied / bcss.BOUNDS_TABLE
    text = table.read_text()
    table.write_text("\n".join(line for line in text.splitlines() if "TCGA-A1" not in line) + "\n")
    assert bcss.statistics(Store(copied), bcss.Options())["rois_not_in_the_table"] == 1
    assert scanned(copied)["skip_reason"].null_count() == 12
    moved = text.splitlines()
    slide, _, *rest = moved[1].split(",")
    table.write_text("\n".join([moved[0], ",".join([slide, "1", *rest]), *moved[2:]]) + "\n")
    assert bcss.statistics(Store(copied), bcss.Options())["rois_placed_elsewhere_in_the_table"] == 1
    table.write_text(text.replace("TCGA-", "TCGA-Q").replace("TCGA-QA", "TCGA-A").replace("-Z", "-Y"))
    with pytest.raises(TableError, match="row 3: a blank, no slide's name|has none of the slides"):
        scanned(copied)
    table.write_text(text.replace("-Z", "-Y"))
    with pytest.raises(TableError, match="has none of the slides in the folders"):
        scanned(copied)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("necrosis_or_debris\t4", "necrosis_or_debris\t5", "the code 4 does not mean 'necrosis_or_debris'"),
        ("stroma\t2", "stroma_NOS\t2", "the code 2 does not mean 'stroma'"),
        ("other\t21\r\n", "", "has not 22 codes"),
        ("other\t21\r\n", "other\t21\r\nadipose\t22\r\n", "has not 22 codes"),
        ("other\t21", "other\tx", "line 23: the cell of column 'GT_code' is no Int32"),
        ("GT_code", "code", "lacks the column 'GT_code'"),
        ("label\t", "<!doctype html>\t", "is a web page"),
    ],
)
def test_codes_that_mean_something_else_are_one_error(old: str, new: str, said: str, copied: Path) -> None:
    table = copied / bcss.CODES_TABLE
    data = table.read_bytes().decode()
    assert old in data
    table.write_bytes(data.replace(old, new).encode())
    with pytest.raises(TableError, match=said):
        scanned(copied)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [*lines, lines[1]], "row 14: a blank, no slide's name, or one that stands twice"),
        (lambda lines: [lines[0], "x" + lines[1], *lines[2:]], "row 2: a blank, no slide's name"),
        (lambda lines: [lines[0], lines[1].replace(lines[1].split(",")[1], "", 1), *lines[2:]], "row 2: a blank"),
        (lambda lines: [lines[0].replace("ymin", "y"), *lines[1:]], "lacks the column 'ymin'"),
        (lambda lines: [lines[0], lines[1].replace(",", ",x", 1), *lines[2:]], "'xmin' is no Int64"),
    ],
)
def test_t07_bounds_that_are_none(change: Any, said: str, copied: Path) -> None:
    table = copied / bcss.BOUNDS_TABLE
    table.write_text("\n".join(change(table.read_text().splitlines())) + "\n")
    with pytest.raises(TableError, match=re.escape(said) if "(" in said else said):
        scanned(copied)


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_folders_that_are_absent_or_hold_other_files(folder: str, copied: Path) -> None:
    for path in (copied / folder).iterdir():
        path.rename(path.with_name(path.name.replace("_MPP-", "_mpp-")))
    with pytest.raises(LayoutError, match=rf"bcss: {folder}/.* holds no picture named like TCGA"):
        scanned(copied)
    shutil.rmtree(copied / folder)
    with pytest.raises(LayoutError, match=rf"bcss: {folder}/.* is not in the raw folder"):
        scanned(copied)
    shutil.rmtree(copied / "meta")
    with pytest.raises(LayoutError, match="meta/gtruth_codes.tsv is not in the raw folder"):
        scanned(copied)


def test_scan_opens_no_picture(copied: Path) -> None:
    for path in (*(copied / "images").iterdir(), *(copied / "masks").iterdir()):
        path.write_bytes(b"")
    assert scanned(copied).height == 12


# The synthetic tree, and the licence


def test_synthesize_follows_from_its_seed_and_shows_what_the_rules_do(tmp_path: Path, synthetic: Path) -> None:
    digests = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        bcss.synthesize(tmp_path / name, seed, 2)
        tree = Store(tmp_path / name)
        digests.append([(path, hashlib.sha256(tree.read(path)).hexdigest()) for path in tree.walk()])
    assert digests[0] == digests[1] != digests[2]
    plan = planned(synthetic)
    answers = Counter(row["answer"][0] for row in rows_of(plan))
    assert answers == {"stroma": 12, "necrosis": 12, "tumor": 8, "inflammatory": 8}
    assert Counter(skip.reason for skip in plan.skips) == {"no_label": 12}
    challenge = Counter(row["answer"][0] for row in rows_of(planned(synthetic, grouping="challenge")))
    assert challenge == dict.fromkeys(CODE, 12)
    codes, bounds = (synthetic / name for name in (bcss.CODES_TABLE, bcss.BOUNDS_TABLE))
    assert codes.read_bytes().startswith(b"label\tGT_code\r\noutside_roi\t0\r\n")
    assert bounds.read_text().startswith(",xmin,ymin,xmax,ymax,mask_link\nTCGA-A1-Z000-DX1,")


def test_anything_may_be_passed_on() -> None:
    assert strictest(BCSS.spec.licences.values()) == ("CC0-1.0", Redistribution.OPEN)
