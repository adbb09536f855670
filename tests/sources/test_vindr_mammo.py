"""The source ``vindr-mammo``: its tables, what the published conversion gets wrong, and its synthetic tree."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from qoq_data.clinical.dicom_picture import decode_dicom
from qoq_data.contract.workspace import tables
from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.ledger import from_lines
from qoq_data.corpus.manifest import LEDGER
from qoq_data.corpus.planning import SourceInput
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Access, Redistribution, strictest
from qoq_data.recipe import Recipe
from qoq_data.source import SourceOptions
from qoq_data.sources import source_of, vindr_cxr, vindr_mammo
from qoq_data.sources._vindr_files import Encoding, published_film
from qoq_data.sources._vindr_mammo_tables import BREASTS, CATEGORIES, FINDINGS, METADATA, categories_of
from qoq_data.sources._vindr_mammo_tree import KEPT_TAGS
from qoq_data.sources.vindr_mammo import KEYS

SOURCE = source_of(vindr_mammo)
BREAST_HEADER = (
    "study_id", "series_id", "image_id", "laterality", "view_position", "height", "width", "breast_birads",
    "breast_density", "split",
)  # fmt: skip
FINDING_HEADER = (*BREAST_HEADER[:9], "finding_categories", "finding_birads", "xmin", "ymin", "xmax", "ymax", "split")
Row = Mapping[str, object]
BOX = {"xmin": 10.5, "ymin": 20, "xmax": 40, "ymax": 50.25}


def image(number: int, **changed: object) -> Row:
    """One row: of 4 images a study, L CC, L MLO, R CC, R MLO."""
    return {
        "study_id": f"5{number // 4:031x}",
        "series_id": "c" * 32,
        "image_id": f"a{number:031x}",
        "laterality": "LLRR"[number % 4],
        "view_position": ("CC", "MLO")[number % 2],
        "height": 100,
        "width": 80,
        "breast_birads": "BI-RADS 4",
        "breast_density": "DENSITY C",
        "split": "training",
        **changed,
    }


def finding(number: int, categories: Sequence[str], **changed: object) -> Row:
    return {**image(number), "finding_categories": repr(list(categories)), "finding_birads": "BI-RADS 4", **changed}


def table(rows: Sequence[Row], header: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def tree_of(folder: Path, images: Sequence[Row], findings: Sequence[Row] = ()) -> Store:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / BREASTS).write_bytes(table(images, BREAST_HEADER))
    (folder / FINDINGS).write_bytes(table(findings, FINDING_HEADER))
    return Store(folder)


def items_of(tree: Store) -> pl.DataFrame:
    return scan_items(SOURCE, tree, SourceOptions())


def built(tree: Store, out: Path, task: str = "birads") -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The rows of a corpus, and the item and reason of each ledger line."""
    entry = {"name": "vindr-mammo", "skip_limit": 1.0, "tasks": [task]}
    recipe = Recipe.model_validate({"name": "x", "sources": [entry]})
    build_corpus(recipe, [SourceInput(SOURCE, recipe.sources[0], tree)], Store(out), LocalEngine(1))
    columns = ["id", "split", "patient", "study", "context", "views", "boxes", "answer", "quality", "redistribution"]
    rows = [one for part in tables(out, columns) for one in part.to_pylist()]
    return rows, sorted((skip.item, str(skip.reason)) for skip in from_lines((out / LEDGER).read_text()))


def film(pixels: NDArray[np.uint8], how: Encoding, **attributes: Any) -> bytes:
    given = {"RescaleIntercept": 0, "RescaleSlope": 1, "PresentationIntentType": "FOR PRESENTATION"}
    return published_film(pixels, how, "a" * 32, KEPT_TAGS, {**given, **attributes})


def breast(size: tuple[int, int] = (100, 80)) -> NDArray[np.uint8]:
    """A bright half disc on black, with a bright spot."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    grey = np.where(np.hypot(x / 60, (y - 50) / 45) < 1, 90, 4)
    return np.where(np.hypot(x - 25, y - 35) < 8, 240, grey).astype(np.uint8)


def published_picture(data: bytes) -> NDArray[np.uint8]:
    """The published way: slope and intercept, negatives to 0, over the largest value, MONOCHROME1 turned round."""
    from pydicom import dcmread

    data_set = dcmread(io.BytesIO(data))
    values = data_set.pixel_array * float(data_set.RescaleSlope) + float(data_set.RescaleIntercept)
    values = np.maximum(values, 0) / values.max() * 255
    turned = 255 - values if data_set.PhotometricInterpretation == "MONOCHROME1" else values
    return np.asarray(turned, np.uint8)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("vindr-mammo")
    vindr_mammo.synthesize(folder, 7, 24)
    return Store(folder)


def test_an_image_of_the_publisher(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [image(1)], [finding(1, ["Mass"], **BOX)])
    item = items_of(tree).row(0, named=True)
    study, name = str(image(1)["study_id"]), str(image(1)["image_id"])
    assert (item["item"], item["patient"], item["group"], item["study"]) == (name, None, study, study)
    path = f"images/{study}/{name}.dicom"
    medium = {"role": "image", "kind": "dicom", "path": path, "part": "MLO", "laterality": "left"}
    assert item["media"] == [medium]
    assert (item["label_file"], item["label_row"], item["official_split"]) == (BREASTS, "row 2", "train")
    assert (item["answer.birads"], item["answer.density"], item["answer.findings"]) == (["4"], ["c"], ["mass"])
    edges = {"x0": 10.5, "y0": 20, "x1": 40, "y1": 50.25}
    assert item["boxes"] == [{"label": "Mass", "image": 0, **edges, "agreement": None}]


def test_columns_by_their_place_are_others_in_a_table_of_another_order_and_here_go_by_name(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [image(0, breast_birads="BI-RADS 2")])
    reordered = (*BREAST_HEADER[:7], "breast_density", "breast_birads", "split")
    tree.write(BREASTS, table([image(0, breast_birads="BI-RADS 2")], reordered))
    _, row = csv.reader(io.StringIO(tree.read(BREASTS).decode()))
    assert row[7] == "DENSITY C"  # the published way: the grade is column 7
    assert items_of(tree).select("answer.birads", "answer.density").row(0) == (["2"], ["c"])


def test_the_files_window_is_not_asked_for_in_the_published_way_and_is_applied_here() -> None:
    data = film(breast(), Encoding(14, is_inverted=False, windows=0), WindowCenter=[3000, 9000], WindowWidth=[6000, 10])
    published, ours = published_picture(data), decode_dicom(data, "x").pixels
    tissue, dark = (50, 50), (2, 78)
    assert published[tissue] == 90 * 255 // 240  # of the largest value, whatever the file asks for
    assert ours[tissue] > 235
    assert ours[dark] < 20
    assert "number 1 of 2" in "; ".join(decode_dicom(data, "x").conversions)


def test_negative_values_are_cut_in_the_published_way_and_kept_here() -> None:
    data = film(
        breast(), Encoding(12, is_inverted=False, windows=0), RescaleIntercept=-2048, WindowCenter=0, WindowWidth=4096
    )
    published, ours = published_picture(data), decode_dicom(data, "x").pixels
    assert published[50, 50] == published[2, 78] == 0  # breast and air are one
    assert ours[50, 50] > ours[2, 78] + 60


def test_padding_is_taken_for_tissue_in_the_published_way_and_is_black_here() -> None:
    grey = breast()
    padded = np.array(grey)
    padded[:, -10:] = 255  # stored 0, as padding of a MONOCHROME1 film may be
    data = film(padded, Encoding(12, is_inverted=True, windows=0), PixelPaddingValue=0)
    published, ours = published_picture(data), decode_dicom(data, "x").pixels
    assert published[:, -10:].min() == 255
    assert ours[:, -10:].max() == 0
    assert ours[35, 25] > ours[50, 50] > ours[2, 60]


@pytest.mark.parametrize("bits", [12, 14, 16])
@pytest.mark.parametrize("windows", [0, 1, 2])
def test_d01_both_photometric_interpretations_come_out_the_same(bits: int, windows: int) -> None:
    one, other = (
        decode_dicom(film(breast(), Encoding(bits, is_inverted, windows)), "x").pixels.astype(int)
        for is_inverted in (False, True)
    )
    assert np.abs(one - other).max() <= 1
    assert one[35, 25] > one[50, 50] > one[2, 78]


def test_synthetic_films_are_stored_in_every_way_and_are_seen_the_right_way_round(synthetic: Store) -> None:
    ways: Counter[tuple[str, int, str]] = Counter()
    for media in items_of(synthetic)["media"].to_list():
        decoded = decode_dicom(synthetic.read(media[0]["path"]), "x")
        inner = slice(4, 20) if media[0]["laterality"] == "left" else slice(-20, -4)
        outer = slice(-3, None) if media[0]["laterality"] == "left" else slice(0, 3)
        assert decoded.pixels[40:50, inner].mean() > 30
        assert decoded.pixels[:, outer].max() == 0
        assert decoded.laterality == media[0]["laterality"]
        text = "; ".join(decoded.conversions)
        windows = "none" if "no window" in text else "several" if "of 2" in text else "one"
        ways[decoded.source_mode, decoded.bit_depth, windows] += 1
    assert {mode for mode, _, _ in ways} == {"MONOCHROME1", "MONOCHROME2"}
    assert {bits for _, bits, _ in ways} == {12, 14, 16}
    assert {windows for _, _, windows in ways} == {"none", "one", "several"}


def test_an_image_for_processing_is_shown_in_the_published_way_and_is_a_ledger_line_here(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [image(0), image(1)])
    raw = film(breast(), Encoding(14, is_inverted=False, windows=1), PresentationIntentType="FOR PROCESSING")
    assert published_picture(raw).max() > 0
    uid, intent = "SOP Instance UID", "Presentation Intent Type"
    tags = [{uid: image(number)["image_id"], intent: text} for number, text in ((0, "FOR PROCESSING"), (1, ""))]
    tree.write(METADATA, table(tags, (uid, intent, "Rows")))
    assert items_of(tree)["skip_reason"].to_list() == ["format_unsupported", None]
    tree.write(METADATA, table([{uid: image(0)["image_id"]}], (uid, "Rows")))
    assert items_of(tree)["skip_reason"].to_list() == [None, None]


def test_density_findings_and_boxes_are_left_out_in_the_published_way_and_are_answers_here(synthetic: Store) -> None:
    rows = list(csv.DictReader(io.StringIO(synthetic.read(FINDINGS).decode())))
    expected = Counter(KEYS[name] for row in rows for name in ast.literal_eval(row["finding_categories"]))
    items = items_of(synthetic)
    assert Counter(key for answer in items["answer.findings"].to_list() for key in answer) == expected
    drawn = Counter(name for row in rows if row["xmin"] for name in ast.literal_eval(row["finding_categories"]))
    raw = items.filter(pl.col("skip_reason").is_not_null())["item"].to_list()
    lost = [
        name
        for row in rows
        if row["xmin"] and row["image_id"] in raw
        for name in ast.literal_eval(row["finding_categories"])
    ]
    kept = Counter(box["label"] for boxes in items["boxes"].to_list() for box in boxes)
    assert kept + Counter(lost) == drawn
    densities = Counter(
        row["breast_density"][-1].lower() for row in csv.DictReader(io.StringIO(synthetic.read(BREASTS).decode()))
    )
    assert Counter(answer[0] for answer in items["answer.density"].to_list()) == densities


def test_b09_a_finding_of_two_categories_has_its_box_under_both_names_and_two_findings_stay_two(tmp_path: Path) -> None:
    findings = [
        finding(0, ["Skin Retraction", "Mass"], **BOX),
        finding(0, ["Mass"], **{**BOX, "xmax": 60}),
        finding(0, ["Mass"], **BOX),
    ]
    tree = tree_of(tmp_path, [image(0)], findings)
    item = items_of(tree).row(0, named=True)
    assert item["answer.findings"] == ["mass", "skin_retraction"]
    assert [(box["label"], box["x1"]) for box in item["boxes"]] == [
        ("Skin Retraction", 40),
        ("Mass", 40),
        ("Mass", 60),
        ("Mass", 40),
    ]
    counts = vindr_mammo.statistics(tree, SourceOptions())
    assert (counts["findings_with_a_box"], counts["findings_of_several_categories"]) == (3, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("['Mass']", ("Mass",)),
        ("['Mass', 'Skin Retraction']", ("Mass", "Skin Retraction")),
        (" ['No Finding'] ", ("No Finding",)),
        ("['Mass', 'Mass']", ("Mass",)),
    ],
)
def test_a_list_as_python_writes_it_is_read(text: str, expected: tuple[str, ...]) -> None:
    assert categories_of(text, 2) == expected


@pytest.mark.parametrize(
    "text", ["", "[]", "Mass", "['mass']", "['Mass'", "['Mass' 'Asymmetry']", "__import__('os')", "['Mass', print(1)]"]
)
def test_anything_but_a_list_of_known_categories_is_one_error_and_is_never_run(text: str) -> None:
    with pytest.raises(TableError, match=f"^{FINDINGS}, row 7: finding_categories is no list of the known categories"):
        categories_of(text, 7)


CONTRADICTIONS: Mapping[str, tuple[list[Row], list[Row], str]] = {
    "grades of a breast": ([image(0), image(1, breast_birads="BI-RADS 1")], [], "label_conflict"),
    "densities of a breast": ([image(0), image(1, breast_density="DENSITY A")], [], "label_conflict"),
    "no finding and one": (
        [image(0)],
        [finding(0, ["No Finding"]), finding(0, ["Mass"], **BOX)],
        "label_conflict",
    ),
    "no finding with a box": ([image(0)], [finding(0, ["No Finding"], **BOX)], "mask_conflict"),
    "a finding without a box": ([image(0)], [finding(0, ["Mass"])], "mask_conflict"),
    "no area": ([image(0)], [finding(0, ["Mass"], **{**BOX, "xmax": 10.5})], "mask_conflict"),
    "upside down": ([image(0)], [finding(0, ["Mass"], **{**BOX, "ymax": 3})], "mask_conflict"),
    "right of it": ([image(0)], [finding(0, ["Mass"], **{**BOX, "xmin": 80, "xmax": 90})], "mask_conflict"),
    "below it": ([image(0)], [finding(0, ["Mass"], **{**BOX, "ymin": 100, "ymax": 101})], "mask_conflict"),
    "above it": ([image(0)], [finding(0, ["Mass"], **{**BOX, "ymin": -9, "ymax": 0})], "mask_conflict"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_t08_tables_that_contradict_themselves_are_ledger_lines(case: str, tmp_path: Path) -> None:
    images, findings, reason = CONTRADICTIONS[case]
    tree = tree_of(tmp_path, [*images, image(2)], findings)
    items = items_of(tree)
    assert items["skip_reason"].to_list() == [reason] * len(images) + [None]
    assert items["boxes"].list.len().sum() == 0
    assert vindr_mammo.statistics(tree, SourceOptions())["images_refused"] == len(images)


def test_a_box_that_reaches_out_of_its_image_is_cut_there_and_said_so(tmp_path: Path) -> None:
    reaching = {**BOX, "xmin": 60, "xmax": 90}
    tree = tree_of(tmp_path / "raw", [image(0)], [finding(0, ["Mass"], **reaching)])
    path = items_of(tree)["media"].item()[0]["path"]
    tree.write(path, film(breast(), Encoding(12, is_inverted=True, windows=1)))
    assert vindr_mammo.statistics(tree, SourceOptions())["boxes_that_reach_out_of_their_image"] == 1
    ((row,), ledger) = built(tree, tmp_path / "out")
    assert not ledger
    assert row["boxes"][0]["xyxy"] == [60, 20, 80, 51]
    assert "box_cut_at_the_edge" in [one["code"] for one in row["quality"]]
    assert (row["views"][0]["laterality"], row["views"][0]["view"]) == ("left", "CC")


def test_i03_a_breast_with_one_view_twice_has_no_known_view(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [image(0), image(1, view_position="CC"), image(2), image(3)])
    assert [media[0]["part"] for media in items_of(tree)["media"].to_list()] == ["unknown", "unknown", "CC", "MLO"]
    assert vindr_mammo.statistics(tree, SourceOptions())["images_of_a_view_that_stands_twice"] == 2


def test_an_image_without_a_row_of_findings_has_no_answer_to_that(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [image(0)])
    item = items_of(tree).row(0, named=True)
    assert (item["answer.findings"], item["answer.birads"], item["boxes"]) == (None, ["4"], [])
    assert vindr_mammo.statistics(tree, SourceOptions())["images_without_a_row_of_findings"] == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"study_id": "../up"}, "study_id is no plain id"),
        ({"image_id": ""}, "image_id is no plain id"),
        ({"image_id": image(0)["image_id"]}, "the image_id stands twice"),
        ({"laterality": "B"}, "laterality is none of L, R"),
        ({"view_position": "ML"}, "view_position is none of CC, MLO"),
        ({"breast_birads": "BI-RADS 0"}, "breast_birads is none of BI-RADS 1"),
        ({"breast_birads": "4"}, "breast_birads is none of"),
        ({"breast_density": ""}, "breast_density is none of"),
        ({"split": "validation"}, "split is none of training, test"),
        ({"split": "test"}, "its study has another split above"),
        ({"height": 0}, "height is blank or not over 0"),
        ({"width": ""}, "width is blank or not over 0"),
    ],
)
def test_t07_a_bad_cell_is_one_error_with_its_row(changed: Row, message: str, tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [image(0), image(1, **changed)])
    with pytest.raises(TableError, match=f"^{BREASTS}, row 3: {message}") as caught:
        items_of(tree)
    assert "../up" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_id": "e" * 32}, f"row 2: {BREASTS} has no such image_id, or another study"),
        ({"study_id": "e" * 32}, f"row 2: {BREASTS} has no such image_id, or another study"),
        ({"study_id": ""}, f"row 2: {BREASTS} has no such image_id, or another study"),
        ({"xmin": ""}, "row 2: one edge of its box is blank"),
        ({"xmin": "left"}, "line 2: the cell of column 'xmin'"),
        ({"finding_categories": "['Lump']"}, "row 2: finding_categories is no list"),
    ],
)
def test_t08_findings_of_other_images_and_bad_boxes_are_one_error(changed: Row, message: str, tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [image(0)], [finding(0, ["Mass"], **{**BOX, **changed})])
    with pytest.raises(TableError, match=f"^{FINDINGS}, {message}"):
        items_of(tree)


def test_an_absent_table_a_missing_column_and_a_missing_folder_are_told(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [image(0)])
    tree.write(BREASTS, tree.read(BREASTS).replace(b"breast_birads", b"birads"))
    with pytest.raises(TableError, match=f"{BREASTS} lacks the column 'breast_birads'"):
        items_of(tree)
    (tmp_path / BREASTS).unlink()
    with pytest.raises(LayoutError, match=f"{BREASTS} is not in the raw folder"):
        items_of(tree)
    (tmp_path / "images").rmdir()
    with pytest.raises(LayoutError, match="images/ is not in the raw folder"):
        items_of(tree)


@pytest.mark.parametrize("other", ["cbis-ddsm", "cmmd", "ham10000"])
def test_real_folders_of_other_sources_are_refused(other: str, realdata: Path) -> None:
    with pytest.raises(LayoutError, match="is not in the raw folder"):
        items_of(Store(realdata / other))


def test_an_exam_is_one_group_and_the_publishers_sides_are_kept(synthetic: Store, tmp_path: Path) -> None:
    items = items_of(synthetic)
    assert items.group_by("study").agg(pl.col("official_split").n_unique(), pl.len().alias("n"))["n"].to_list() == (
        [4] * 24
    )
    rows, ledger = built(synthetic, tmp_path / "out")
    assert Counter(row["split"] for row in rows)["test"] == items.filter(pl.col("official_split") == "test").height
    assert len({(row["study"], row["split"]) for row in rows}) == 24
    assert [reason for _, reason in ledger] == ["format_unsupported"]
    assert {row["redistribution"] for row in rows} == {"none"}
    assert {(row["context"], row["patient"]) for row in rows} == {("", None)}
    assert {(row["views"][0]["view"], row["views"][0]["laterality"]) for row in rows} == {
        (view, side) for view in ("CC", "MLO") for side in ("left", "right")
    }


def test_a_download_cut_short_is_a_ledger_line(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "raw", [image(number) for number in range(4)])
    whole = film(breast(), Encoding(12, is_inverted=True, windows=1))
    cut = (whole, whole[:200], whole[: whole.rindex(b"\xe0\x7f\x10\x00")], whole[:-1000])
    for media, data in zip(items_of(tree)["media"].to_list(), cut, strict=True):
        tree.write(media[0]["path"], data)
    rows, ledger = built(tree, tmp_path / "out")
    assert len(rows) == 1
    assert [item for item, _ in ledger] == [image(number)["image_id"] for number in (1, 2, 3)]


def test_l01_the_terms_are_those_for_restricted_access_and_not_for_credentialed_users() -> None:
    assert vindr_mammo.SPEC.access is Access.REGISTERED
    expression, redistribution = strictest(vindr_mammo.SPEC.licences.values())
    assert (expression, redistribution) == ("LicenseRef-PhysioNet-Restricted-1.5.0", Redistribution.NONE)
    assert expression != strictest(vindr_cxr.SPEC.licences.values())[0]


def test_synthetic_grades_counted_by_plain_csv_and_boxes_lie_on_lesions(synthetic: Store) -> None:
    rows = list(csv.DictReader(io.StringIO(synthetic.read(BREASTS).decode())))
    counts = vindr_mammo.statistics(synthetic, SourceOptions())
    for side, name in (("train", "training"), ("test", "test")):
        of_side = Counter(row["breast_birads"][-1] for row in rows if row["split"] == name)
        assert {grade: counts.get(f"{side}_birads_{grade}", 0) for grade in of_side} == of_side
    assert (counts["exams"], counts["exams_without_four_images"], counts["images_meant_for_processing"]) == (24, 0, 1)
    items = items_of(synthetic)
    listed = sorted(media[0]["path"] for media in items["media"].to_list())
    assert listed == sorted(synthetic.walk("images"))
    for media, boxes in items.select("media", "boxes").iter_rows():
        for box in boxes:
            pixels = decode_dicom(synthetic.read(media[0]["path"]), "x").pixels
            x, y = round((box["x0"] + box["x1"]) / 2), round((box["y0"] + box["y1"]) / 2)
            assert pixels[y - 2 : y + 2, x - 2 : x + 2].mean() > 200
    assert {name for answer in items["answer.findings"].to_list() for name in answer} == set(KEYS.values())
    assert len(CATEGORIES) == 11


def test_synthesize_follows_from_its_seed_and_its_checksums_agree(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        vindr_mammo.synthesize(tmp_path / name, seed, 1)
    sums = {name: (tmp_path / name / "SHA256SUMS.txt").read_text() for name in "abc"}
    assert sums["a"] == sums["b"] != sums["c"]
    for line in sums["a"].splitlines():
        digest, path = line.split(" ", 1)
        assert hashlib.sha256((tmp_path / "a" / path).read_bytes()).hexdigest() == digest


def test_synthetic_files_have_ids_that_are_no_uids_and_the_tags_of_the_publishers_list_alone(synthetic: Store) -> None:
    from pydicom import dcmread
    from pydicom.config import disable_value_validation

    path = next(iter(synthetic.walk("images")))
    with disable_value_validation():
        data_set = dcmread(io.BytesIO(synthetic.read(path)))
        assert {element.keyword for element in data_set} <= set(KEPT_TAGS)
        assert path == f"images/{data_set.StudyInstanceUID}/{data_set.SOPInstanceUID}.dicom"
        assert not data_set.SOPInstanceUID.is_valid
