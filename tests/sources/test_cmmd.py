"""The source ``cmmd``: its tables, whose images a row has, and what the published conversion gets wrong."""

from __future__ import annotations

import csv
import io
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest
from PIL import Image

from qoq_data.clinical.synthetic_dicom import code_item, write_dicom
from qoq_data.corpus.doctor import examine, is_healthy
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.planning import SourceInput, SourcePlan, plan_corpus
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.corpus.splits import assign_splits, group_keys
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, SourceError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.recipe import Recipe, SourceRecipe
from qoq_data.record import Media
from qoq_data.source import SourceOptions
from qoq_data.sources import _cmmd_tree, _mammography, cmmd, source_of
from qoq_data.sources._cmmd_tables import TABLE
from qoq_data.sources._published_files import csv_bytes

CMMD = source_of(cmmd)
CODES = {"CC": "399162004", "MLO": "399368009"}
Film = tuple[str, str]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cmmd")
    cmmd.synthesize(folder, 7, 16)
    return folder


@pytest.fixture(scope="module")
def real_rows(realdata: Path) -> list[dict[str, str]]:
    """The real workbook's rows, read from its XML by hand."""
    main = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(realdata / "cmmd" / TABLE) as file:
        shared = [
            "".join(text.text or "" for text in one.iter(f"{main}t"))
            for one in ET.fromstring(file.read("xl/sharedStrings.xml")).iter(f"{main}si")  # noqa: S314 - a known file
        ]
        sheet = ET.fromstring(file.read("xl/worksheets/sheet1.xml"))  # noqa: S314 - a known file
    rows = []
    for row in sheet.iter(f"{main}row"):
        cells = {}
        for cell in row.iter(f"{main}c"):
            value = cell.findtext(f"{main}v") or ""
            cells[cell.attrib["r"].rstrip("0123456789")] = shared[int(value)] if cell.get("t") == "s" else value
        rows.append([cells.get(letter, "").strip() for letter in "ABCDEFG"])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:] if any(row)]


@pytest.fixture(scope="module")
def real_items(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    folder = Path(shutil.copytree(realdata / "cmmd", tmp_path_factory.mktemp("cmmd-real") / "raw"))
    (folder / "CMMD").mkdir()
    return items_of(folder)


def items_of(folder: Path) -> pl.DataFrame:
    return scan_items(CMMD, Store(folder), SourceOptions())


def planned(folder: Path, *tasks: str) -> SourcePlan:
    entry = SourceRecipe(name="cmmd", skip_limit=1.0, tasks=tasks or None)
    recipe = Recipe(name="test", sources=(entry,))
    (plan,) = plan_corpus(recipe, [SourceInput(CMMD, entry, Store(folder))], None, LocalEngine(1))
    return plan


def media_of(plan: SourcePlan) -> dict[str, list[dict[str, Any]]]:
    return {row["item"]: row["media"] for shard in plan.shards for row in shard.rows.iter_rows(named=True)}


def rendered(folder: Path, media: Sequence[Mapping[str, Any]]) -> Media:
    recipe = Recipe(name="test", sources=(SourceRecipe(name="cmmd"),))
    return render_media(Store(folder), [MediaReference.of(one) for one in media], recipe)


def one_patient(
    folder: Path,
    films: Sequence[Film],
    rows: Sequence[tuple[object, ...]] = (("D1-0001", "L", 44, 2, "mass", "Benign", ""),),
    *,
    first_number: int = 1,
    **attributes: object,
) -> Path:
    """A tree of one patient's films (side and view), each of its own grey, with other header attributes if given."""
    below = folder / "CMMD/D1-0001/07-18-2010-NA-NA-1/1.000000-NA-2"
    below.mkdir(parents=True)
    for number, (side, view) in enumerate(films, first_number):
        header = {
            "ImageLaterality": side or None,
            "ViewCodeSequence": [code_item(CODES[view], "SCT", "view")] if view in CODES else None,
            "InstanceNumber": number,
            "WindowCenter": 128,
            "WindowWidth": 256,
        }
        pixels = np.full((32, 24), 10 * number, np.uint8)
        data = write_dicom(
            pixels, study="s", series="t", instance=f"{number}", kind="MG", attributes=header | attributes
        )
        (below / f"1-{number - first_number + 1}.dcm").write_bytes(data)
    series = dict.fromkeys(_mammography.SERIES_HEADER, "x") | {"Series UID": "1.2", "Subject ID": "D1-0001"}
    location = ".\\" + below.relative_to(folder).as_posix().replace("/", "\\")
    series |= {"Number of Images": str(len(films)), "File Location": location}
    (folder / "metadata.csv").write_bytes(csv_bytes(_mammography.SERIES_HEADER, [series.values()]))
    (folder / TABLE).write_bytes(_cmmd_tree.workbook_bytes([_cmmd_tree.HEADER, *rows]))
    return folder


BOTH = [("R", "CC"), ("L", "MLO"), ("R", "MLO"), ("L", "CC")]
OPPOSITE = [("D1-0001", "L", 44, 2, "mass", "Benign", ""), ("D1-0001", "R", 44, 2, "both", "Malignant", "")]


# What the real tables hold


def test_the_real_tables_are_read_whole(real_rows: list[dict[str, str]], real_items: pl.DataFrame) -> None:
    assert real_items["item"].to_list() == sorted(f"{row['ID1']}-{row['LeftRight']}" for row in real_rows)
    assert (real_items.height, real_items["patient"].n_unique()) == (1_872, 1_775)
    found = {row["item"]: row for row in real_items.iter_rows(named=True)}
    for row in real_rows:
        item = found[f"{row['ID1']}-{row['LeftRight']}"]
        assert item["answer.classification"] == [row["classification"].lower()]
        assert item["answer.abnormality"] == [row["abnormality"]]
        subtype = row["subtype"].lower().replace(" ", "_").replace("-", "_")
        assert item["answer.subtype"] == ([subtype] if subtype else None)
        assert item["context.age"] == f"{row['Age']} years"
        assert (item["group"], item["official_split"]) == (row["ID1"], None)


def test_the_real_counts(realdata: Path, real_items: pl.DataFrame, tmp_path: Path) -> None:
    def count(task: str) -> dict[str | None, int]:
        return dict(Counter(None if one is None else one[0] for one in real_items[f"answer.{task}"].to_list()))

    assert count("classification") == {"malignant": 1_316, "benign": 556}
    assert count("abnormality") == {"mass": 1_149, "both": 461, "calcification": 262}
    assert count("subtype") == {
        "luminal_b": 376, "luminal_a": 152, "her2_enriched": 135, "triple_negative": 86, None: 1_123,
    }  # fmt: skip
    with_subtype = real_items.filter(pl.col("answer.subtype").is_not_null())["patient"]
    assert set(with_subtype.str.slice(0, 2)) == {"D2"}
    folder = Path(shutil.copytree(realdata / "cmmd", tmp_path / "raw"))
    (folder / "CMMD").mkdir()
    assert cmmd.statistics(Store(folder), SourceOptions()) == {
        "breasts": 1_872,
        "patients": 1_775,
        "patients_with_two_rows": 97,
        "patients_with_opposite_rows": 30,
        "breasts_without_subtype": 1_123,
        "images": 5_202,
        "patients_with_two_images": 949,
        "patients_without_a_row": 0,
    }


def test_every_real_series_is_found_below_the_folder(realdata: Path, real_items: pl.DataFrame) -> None:
    series = _mammography.read_series(Store(realdata / "cmmd"))
    assert len(series) == 1_775
    assert series["1.3.6.1.4.1.14519.5.2.1.1239.1759.623006463861567934606116970244"] == _mammography.Series(
        "D1-0001", "CMMD/D1-0001/07-18-2010-NA-NA-79377/1.000000-NA-70244", 2
    )
    assert set(real_items["skip_reason"]) == {"file_missing"}
    details = real_items["skip_detail"].str.replace("[24] files", "n files")
    assert set(details) == {"its folder holds 0 of the n files that metadata.csv counts"}


# What the published conversion gets wrong


def test_every_row_has_the_images_of_its_side_where_the_published_way_takes_all_of_the_patient(tmp_path: Path) -> None:
    folder = one_patient(tmp_path, BOTH, OPPOSITE)
    scanned = {row["item"]: row for row in items_of(folder).iter_rows(named=True)}
    published = {item: [one["path"] for one in row["media"]] for item, row in scanned.items()}
    assert published["D1-0001-L"] == published["D1-0001-R"]
    assert scanned["D1-0001-L"]["answer.classification"] != scanned["D1-0001-R"]["answer.classification"]

    ours = media_of(planned(folder))
    assert [(one["part"], one["laterality"], one["path"][-7:]) for one in ours["D1-0001-L"]] == [
        ("CC", "left", "1-4.dcm"),
        ("MLO", "left", "1-2.dcm"),
    ]
    assert [(one["part"], one["laterality"], one["path"][-7:]) for one in ours["D1-0001-R"]] == [
        ("CC", "right", "1-1.dcm"),
        ("MLO", "right", "1-3.dcm"),
    ]
    greys = [int(np.asarray(Image.open(io.BytesIO(one)))[0, 0]) for one in rendered(folder, ours["D1-0001-L"]).images]
    assert greys == [40, 20]


def test_no_two_rows_of_the_synthetic_tree_share_an_image_where_published_rows_do(synthetic: Path) -> None:
    published = Counter(one["path"] for media in items_of(synthetic)["media"] for one in media)
    ours = Counter(one["path"] for media in media_of(planned(synthetic)).values() for one in media)
    assert max(published.values()) == 2
    assert max(ours.values()) == 1
    assert all(len(media) == 2 for media in media_of(planned(synthetic)).values())


def test_a_side_without_a_row_is_not_asked(tmp_path: Path) -> None:
    folder = one_patient(tmp_path, BOTH)
    plan = planned(folder)
    assert list(media_of(plan)) == ["D1-0001-L"]
    assert not plan.skips


def test_a_cut_after_three_quarters_of_the_rows_parts_a_patient_and_hashing_does_not(
    real_items: pl.DataFrame, real_rows: list[dict[str, str]]
) -> None:
    patients = [row["ID1"] for row in real_rows]
    cuts = [cut for cut in range(1, len(patients)) if patients[cut - 1] == patients[cut]]
    assert len(cuts) == 97  # as many places at which a cut of the rows has one patient on both sides
    rows = real_items.with_columns(group_keys(real_items, "cmmd", "cmmd"), pl.lit("cmmd").alias("source"))
    for seed in range(3):
        sides = rows.with_columns(assign_splits(rows, seed, 0.1, 0.2).alias("split"))
        assert sides.group_by("patient").agg(pl.col("split").n_unique())["split"].max() == 1
        assert set(sides["split"]) == {"train", "validation", "test"}


def test_folder_names_without_quotes_and_of_both_namings_are_found(synthetic: Path) -> None:
    folders = {one["path"].split("/")[2] for media in items_of(synthetic)["media"] for one in media}
    assert not (synthetic / '"CMMD"').exists()
    assert {bool(re.fullmatch(r"\d\d-\d\d-\d{4}-NA-NA-\d+", name)) for name in folders} == {True, False}
    assert items_of(synthetic)["skip_reason"].null_count() == items_of(synthetic).height


# The headers


def test_d07_views_are_ordered_by_their_code_whatever_the_instance_numbers_and_names(tmp_path: Path) -> None:
    """As of the patient whose two images have InstanceNumber 2 and 3."""
    films = [("L", "MLO"), ("L", "CC")]
    (media,) = media_of(planned(one_patient(tmp_path / "a", films, first_number=2))).values()
    assert [(one["part"], one["path"][-7:]) for one in media] == [("CC", "1-2.dcm"), ("MLO", "1-1.dcm")]
    (media,) = media_of(planned(one_patient(tmp_path / "b", films, ViewCodeSequence=None))).values()
    assert [(one["part"], one["path"][-7:]) for one in media] == [("", "1-1.dcm"), ("", "1-2.dcm")]
    (media,) = media_of(planned(one_patient(tmp_path / "c", films, ViewCodeSequence=None, ViewPosition="MLO"))).values()
    assert [one["part"] for one in media] == ["MLO", "MLO"]


@pytest.mark.parametrize(
    ("films", "reason", "detail"),
    [
        ([("L", "CC"), ("", "MLO")], "header_invalid", "1 of the patient's 2 images say no side"),
        ([("L", "CC"), ("B", "MLO")], "header_invalid", "1 of the patient's 2 images say no side"),
        ([("R", "CC"), ("R", "MLO")], "header_mismatch", "the side has 0 images, and not 2"),
        ([("L", "CC"), ("R", "MLO")], "header_mismatch", "the side has 1 images, and not 2"),
        ([("L", "CC"), ("L", "CC"), ("L", "MLO")], "header_mismatch", "the side has 3 images, and not 2"),
    ],
)
def test_a_side_whose_images_cannot_be_told_is_a_ledger_line(
    tmp_path: Path, films: list[Film], reason: str, detail: str
) -> None:
    (skip,) = planned(one_patient(tmp_path, films)).skips
    assert (skip.item, skip.reason, skip.detail) == ("D1-0001-L", reason, detail)


def test_a_file_that_is_absent_or_no_dicom_and_a_patient_without_series_are_ledger_lines(tmp_path: Path) -> None:
    folder = one_patient(tmp_path, BOTH)
    file = folder / "CMMD/D1-0001/07-18-2010-NA-NA-1/1.000000-NA-2/1-3.dcm"
    file.write_bytes(b"no" * 100)
    (skip,) = planned(folder).skips
    assert (skip.item, skip.reason) == ("D1-0001-L", "format_unsupported")
    file.unlink()
    (skip,) = planned(folder).skips
    assert (skip.reason, skip.detail) == ("file_missing", "its folder holds 3 of the 4 files that metadata.csv counts")
    text = (folder / "metadata.csv").read_text().replace("D1-0001,", "D1-0002,")
    (folder / "metadata.csv").write_text(text)
    (skip,) = planned(folder).skips
    assert (skip.reason, skip.detail) == ("file_missing", "the patient is not in metadata.csv")


def test_the_sixteen_bit_patient_and_all_others_come_out_the_right_way_round(synthetic: Path) -> None:
    items = media_of(planned(synthetic))
    deep = 0
    for item, media in items.items():
        found = rendered(synthetic, media)
        deep += any("65280" in view.window for view in found.views)
        assert [view.view for view in found.views] == ["CC", "MLO"]
        assert {view.laterality for view in found.views} == {"left" if item.endswith("-L") else "right"}
        for data in found.images:
            picture = np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(float)
            wall = picture[40:90, :8].mean() - picture[40:90, -8:].mean()
            assert (wall > 0) == item.endswith("-L")
    assert deep == 1


def test_subtype_is_asked_of_the_second_cohort_alone(synthetic: Path) -> None:
    asked = media_of(planned(synthetic, "subtype"))
    assert asked
    assert all(item.startswith("D2-") for item in asked)


# Tables that are not as published


@pytest.mark.parametrize(
    ("column", "cell", "problem"),
    [
        ("ID1", "", "its ID1 is blank"),
        ("ID1", "D3-0001", "its ID1 is of another form than D1-0001"),
        ("LeftRight", "B", "its LeftRight is none of L, R"),
        ("classification", "Normal", "its classification is none of Benign, Malignant"),
        ("abnormality", "", "its abnormality is blank"),
        ("subtype", "basal", "its subtype is none of Luminal A"),
        ("number", 4, "its number is not 2, a CC and an MLO view"),
        ("Age", 0, "its Age is none"),
    ],
)
def test_a_row_that_is_not_as_published_is_one_error(
    tmp_path: Path, column: str, cell: str | int, problem: str
) -> None:
    row = list(OPPOSITE[0])
    row[_cmmd_tree.HEADER.index(column)] = cell
    folder = one_patient(tmp_path, BOTH, [OPPOSITE[1], tuple(row)])
    with pytest.raises(TableError, match=re.escape(f"{TABLE}, row 3: {problem}")):
        items_of(folder)


def test_two_rows_of_one_side_are_one_error(tmp_path: Path) -> None:
    folder = one_patient(tmp_path, BOTH, [OPPOSITE[0], OPPOSITE[0]])
    with pytest.raises(TableError, match="its patient has another row of the same side"):
        items_of(folder)


@pytest.mark.parametrize("column", _cmmd_tree.HEADER)
def test_a_workbook_without_a_column_names_it(tmp_path: Path, column: str) -> None:
    folder = one_patient(tmp_path, BOTH)
    header = [f"{name}_renamed" if name == column else name for name in _cmmd_tree.HEADER]
    (folder / TABLE).write_bytes(_cmmd_tree.workbook_bytes([header, *OPPOSITE]))
    with pytest.raises(TableError, match=f"{TABLE} lacks the column '{column}'"):
        items_of(folder)


def change_workbook(folder: Path) -> None:
    (folder / TABLE).write_bytes(b"PK no workbook")


def remove_workbook(folder: Path) -> None:
    (folder / TABLE).unlink()


def remove_series(folder: Path) -> None:
    (folder / "metadata.csv").unlink()


def remove_images(folder: Path) -> None:
    shutil.rmtree(folder / "CMMD")


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (change_workbook, TableError, "is no workbook, or a damaged one"),
        (remove_workbook, LayoutError, f"{TABLE} is not in the raw folder"),
        (remove_series, LayoutError, "metadata.csv is not in the raw folder"),
        (remove_images, LayoutError, "CMMD/ is not in the raw folder"),
    ],
)
def test_what_is_absent_or_damaged_is_one_clear_error(
    tmp_path: Path, change: Callable[[Path], None], error: type[SourceError], told: str
) -> None:
    folder = one_patient(tmp_path, BOTH)
    change(folder)
    with pytest.raises(error, match=re.escape(told)):
        items_of(folder)


def test_doctor_finds_nothing_wrong(synthetic: Path) -> None:
    assert is_healthy(examine(CMMD, Store(synthetic), checksums=False))


def test_s03_no_answer_stands_in_id_question_or_view(real_items: pl.DataFrame) -> None:
    shown = " ".join(real_items["item"])
    assert not re.search(r"benign|malig|mass|calc|luminal", shown, re.IGNORECASE)
    assert all(len(set(task.wordings)) >= 5 for task in cmmd.SPEC.tasks)


def test_rows_may_be_passed_on_with_credit() -> None:
    assert strictest(cmmd.SPEC.licences.values()) == ("CC-BY-4.0", Redistribution.OPEN)


def test_the_synthetic_tables_have_the_headers_of_the_real_ones(synthetic: Path, realdata: Path) -> None:
    for folder in (synthetic, realdata / "cmmd"):
        with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
            assert next(csv.reader(file)) == list(_mammography.SERIES_HEADER)
