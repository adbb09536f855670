"""The source ``mimic-cxr``: its tables, what the published conversion gets wrong, and its synthetic tree."""

from __future__ import annotations

import csv
import gzip
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
from qoq_data.errors import BuildError, LayoutError, SourceError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Access, Redistribution, strictest
from qoq_data.recipe import Recipe
from qoq_data.sources import chexpert, mimic_cxr, mimic_ecg, source_of
from qoq_data.sources._chexpert_labels import FINDINGS, KEYS
from qoq_data.sources._mimic_cxr_tree import write_tree
from qoq_data.sources.mimic_cxr import LABELS, METADATA, NEGBIO, SPLIT, Options
from tests.corpus.building import rows_of

SOURCE = source_of(mimic_cxr)
ALPHABETICAL = tuple(sorted(FINDINGS))
Row = Mapping[str, str]
HEADERS = {
    SPLIT: ("dicom_id", "study_id", "subject_id", "split"),
    METADATA: ("dicom_id", "subject_id", "study_id", "ViewPosition", "Rows"),
    LABELS: ("subject_id", "study_id", *ALPHABETICAL),
    NEGBIO: ("subject_id", "study_id", *ALPHABETICAL),
}


def picture(number: int, study: int = 1, patient: int = 32, split: str = "train", view: str = "AP") -> Row:
    ids = {"study_id": str(50_000_000 + study), "subject_id": str(10_000_000 + patient)}
    return {"dicom_id": f"0000000{number}-aaaaaaaa", **ids, "split": split, "ViewPosition": view}


def labelled(study: int = 1, patient: int = 32, **cells: str) -> Row:
    ids = {"study_id": str(50_000_000 + study), "subject_id": str(10_000_000 + patient)}
    return {**ids, **{name: cells[key] for name, key in KEYS.items() if key in cells}}


def table(rows: list[Row], header: tuple[str, ...]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def tree_of(folder: Path, pictures: list[Row], labels: list[Row], **changed: list[Row]) -> Store:
    """A tree of tables without pictures; ``metadata`` and ``negbio`` where they are not what follows from the rest."""
    contents = {SPLIT: pictures, METADATA: changed.get("metadata", pictures), LABELS: labels}
    contents |= {NEGBIO: changed["negbio"]} if "negbio" in changed else {}
    folder.mkdir(parents=True, exist_ok=True)
    for path, rows in contents.items():
        (folder / path).write_bytes(gzip.compress(table(rows, HEADERS[path])))
    return Store(folder)


def items_of(tree: Store, **options: Any) -> pl.DataFrame:
    return scan_items(SOURCE, tree, Options(**options))


def built(tree: Store, out: Path, **options: Any) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows of a corpus of the default tasks, and its ledger's reasons."""
    entry = {"name": "mimic-cxr", "skip_limit": 1.0, "options": options}
    recipe = Recipe.model_validate({"name": "x", "sources": [entry]})
    build_corpus(recipe, [SourceInput(SOURCE, recipe.sources[0], tree)], Store(out), LocalEngine(1))
    columns = ["id", "split", "patient", "context", "views", "images", "redistribution"]
    rows = [one for part in tables(out, columns) for one in part.to_pylist()]
    return rows, Counter(skip.reason for skip in from_lines((out / LEDGER).read_text()))


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("mimic-cxr")
    mimic_cxr.synthesize(folder, 7, 40)
    return Store(folder)


def published_rows(tree: Store) -> list[tuple[str, str, list[str]]]:
    """The published way: id, side and answer; blank and -1 are 0, rows without a positive label go, two sides only."""
    read = {
        path: list(csv.DictReader(io.StringIO(gzip.decompress(tree.read(path)).decode()))) for path in (SPLIT, LABELS)
    }
    labels = {one["study_id"]: one for one in read[LABELS]}
    rows = []
    for one in read[SPLIT]:
        cells = labels.get(one["study_id"], {})
        answer = [name for name in ALPHABETICAL if float(cells.get(name) or 0) == 1]
        if answer:
            rows.append((one["dicom_id"], "train" if one["split"] == "train" else "test", answer))
    return rows


def test_a_picture_of_the_publisher(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [picture(1)], [labelled(atelectasis="1.0", edema="-1.0", fracture="0.0")])
    item = items_of(tree).row(0, named=True)
    assert (item["item"], item["patient"], item["group"], item["study"], item["official_split"]) == (
        "00000001-aaaaaaaa",
        "10000032",
        "10000032",
        "50000001",
        "train",
    )
    path = "files/p10/p10000032/s50000001/00000001-aaaaaaaa.jpg"
    assert item["media"] == [{"role": "image", "kind": "image", "path": path, "part": "AP"}]
    assert (item["label_file"], item["label_row"]) == (LABELS, "study_id=50000001")
    assert item["answer.findings"] == ["atelectasis"]
    assert (item["answer.edema_status"], item["answer.fracture_status"]) == (["uncertain"], ["absent"])
    assert not [name for name in item if name.startswith("context.")]


def test_u_zeros_silently_and_here_a_recipe_key_says_what_a_hedge_counts_as(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [picture(1)], [labelled(pneumonia="-1.0", lung_opacity="1.0", edema="0.0")])
    assert published_rows(tree)[0][2] == ["Lung Opacity"]
    assert items_of(tree)["answer.findings"].to_list() == [["lung_opacity"]]
    assert items_of(tree, uncertain="positive")["answer.findings"].to_list() == [["lung_opacity", "pneumonia"]]
    assert items_of(tree, uncertain="no_answer")["answer.findings"].to_list() == [None]


def test_no_positive_label_is_a_ledger_line_where_the_published_way_drops_it(tmp_path: Path) -> None:
    pictures = [picture(n, study=n) for n in range(1, 6)]
    labels = [
        labelled(1, edema="1.0"),
        labelled(2, edema="0.0"),
        labelled(3, edema="-1.0"),
        labelled(4),
        labelled(9, edema="1.0"),
    ]
    tree = tree_of(tmp_path / "raw", pictures, labels)
    assert len(published_rows(tree)) == 1
    tree.write("files/p10/p10000032/s50000001/00000001-aaaaaaaa.jpg", jpeg())
    rows, reasons = built(tree, tmp_path / "out")
    assert (len(rows), dict(reasons)) == (1, {"no_label": 4})
    counts = mimic_cxr.statistics(tree, Options())
    assert counts["without_a_positive_label"] == 3
    assert counts["images_of_studies_without_labels"] == 1
    assert counts["labelled_studies_without_an_image"] == 1
    detail = items_of(tree).filter(pl.col("item").str.starts_with("00000005"))["skip_detail"].item()
    assert detail == "the table of labels has no row for its study"


def jpeg() -> bytes:
    Image.new("L", (40, 30), 90).save(data := io.BytesIO(), "JPEG")
    return data.getvalue()


def test_skip_limit_takes_the_published_share_of_rows_without_an_answer_and_not_twice_it() -> None:
    share = (377_110 - 356_225) / 377_110
    assert share < mimic_cxr.SPEC.skip_limit < 2 * share


def test_the_published_test_side_is_test_and_validate_together_and_here_each_is_its_own(synthetic: Store) -> None:
    official = dict(items_of(synthetic).select("item", "official_split").iter_rows())
    published = Counter((side, official[item]) for item, side, _ in published_rows(synthetic))
    assert published["test", "validation"] > 0
    assert published["test", "test"] > 0
    assert set(official.values()) == {"train", "validation", "test"}


def test_published_options_are_alphabetical_in_one_source_and_not_in_the_other_and_here_in_one_order(
    tmp_path: Path,
) -> None:
    assert ALPHABETICAL != FINDINGS
    assert mimic_cxr.SPEC.task("findings").choices == chexpert.SPEC.task("findings").choices
    assert mimic_cxr.SPEC.tasks == chexpert.SPEC.tasks
    tree = tree_of(tmp_path, [picture(1)], [labelled(support_devices="1.0", no_finding="1.0", atelectasis="0.0")])
    assert items_of(tree)["answer.findings"].to_list() == [["no_finding", "support_devices"]]


def test_i03_a_blank_view_is_unknown_and_never_frontal(tmp_path: Path) -> None:
    views = ["", "AP", "PA", "LATERAL", "LL", "AP AXIAL", " "]
    pictures = [picture(n, view=view) for n, view in enumerate(views)]
    taken_for_frontal = [one["dicom_id"] for one in pictures if one["ViewPosition"] not in ("LATERAL", "LL")]
    tree = tree_of(tmp_path, [*pictures, picture(8)], [labelled(edema="1.0")], metadata=pictures)
    found = [media[0]["part"] for media in items_of(tree)["media"].to_list()]
    assert found == ["unknown", "AP", "PA", "LATERAL", "LL", "AP AXIAL", "unknown", "unknown"]
    assert pictures[0]["dicom_id"] in taken_for_frontal
    counts = mimic_cxr.statistics(tree, Options())
    assert (counts["images_of_unknown_view"], counts["images_without_metadata"]) == (3, 1)


def test_i03_labels_are_the_studys_and_a_study_is_never_on_two_sides(tmp_path: Path) -> None:
    pictures = [picture(1, view="PA"), picture(2, view="LATERAL", split="test"), picture(3, study=2, patient=40)]
    tree = tree_of(tmp_path, pictures, [labelled(edema="1.0"), labelled(2, 40, fracture="1.0")])
    items = items_of(tree)
    assert items["answer.findings"].to_list() == [["edema"], ["edema"], ["fracture"]]
    rows = items.with_columns(group_keys(items, "mimic-cxr", "mimic"), pl.lit("mimic-cxr").alias("source"))
    for seed in range(5):
        assert assign_splits(rows, seed, 0.0, 0.0).to_list() == ["test", "test", "train"]
    assert mimic_cxr.statistics(tree, Options())["patients_on_several_official_sides"] == 1


def test_s01_a_patient_of_the_test_side_here_is_on_it_with_the_ecgs_too(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "cxr", [picture(1, split="test")], [labelled(edema="1.0")])
    mimic_ecg.synthesize(tmp_path / "ecg", 3, 2)
    ecg = scan_items(source_of(mimic_ecg), Store(tmp_path / "ecg"), mimic_ecg.Options())
    ecg = ecg.with_columns(pl.lit("10000032").alias("patient"), pl.lit("10000032").alias("group"))
    assert mimic_cxr.SPEC.identity_group == mimic_ecg.SPEC.identity_group
    parts = [
        items.select("official_split", group_keys(items, name, "mimic"), pl.lit(name).alias("source"))
        for items, name in ((items_of(tree), "mimic-cxr"), (ecg, "mimic-ecg"))
    ]
    assert set(assign_splits(pl.concat(parts), 0, 0.1, 0.1)) == {"test"}


def test_patients_are_spelt_as_in_the_real_ecg_tables(realdata: Path, tmp_path: Path) -> None:
    ecg = scan_items(source_of(mimic_ecg), Store(realdata / "mimic-iv-ecg"), mimic_ecg.Options())
    cxr = items_of(tree_of(tmp_path, [picture(1, patient=32)], [labelled(patient=32, edema="1.0")]))
    assert group_keys(cxr, "mimic-cxr", "mimic")[0] in set(group_keys(ecg, "mimic-ecg", "mimic"))


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("subject_id", "10000032.0", "subject_id is not eight digits"),
        ("subject_id", "1e7", "subject_id is not eight digits"),
        ("subject_id", "", "subject_id is not eight digits"),
        ("study_id", "5000000", "study_id is not eight digits"),
        ("dicom_id", "../../secret", "dicom_id is no DICOM id"),
        ("dicom_id", "00000001-aaaaaaaa", "the dicom_id stands twice"),
        ("split", "valid", "split is none of train, validate and test"),
        ("split", "", "split is none of train, validate and test"),
        ("study_id", "50000001", "the study has another patient above"),
    ],
)
def test_t07_ids_are_text_and_a_bad_one_is_one_error_with_its_row(
    column: str, cell: str, message: str, tmp_path: Path
) -> None:
    bad = {**picture(2, study=2, patient=40), column: cell}
    with pytest.raises(TableError, match=f"^{SPLIT}, row 3: {message}") as caught:
        items_of(tree_of(tmp_path, [picture(1), bad], [labelled(edema="1.0")]))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "metadata", "message"),
    [
        ([labelled(patient=33)], [picture(1)], f"^{SPLIT}, row 2: {LABELS} has another patient for its study"),
        ([labelled()], [picture(1, study=2)], f"^{SPLIT}, row 2: {METADATA} has another study for it"),
        ([labelled()], [picture(1, patient=33)], f"^{SPLIT}, row 2: {METADATA} has another patient for it"),
        ([labelled()], [picture(1), picture(1)], f"^{METADATA}, row 3: the dicom_id stands twice"),
        ([labelled(), labelled(edema="1.0")], [picture(1)], f"^{LABELS}, row 3: the study_id stands twice"),
        ([{**labelled(), "study_id": ""}], [picture(1)], f"^{LABELS}, row 2: subject_id or study_id is blank"),
        ([labelled(edema="0.5")], [picture(1)], f"^{LABELS}, row 2: Edema is none of 1, 0, -1 and blank"),
        ([labelled(edema="yes")], [picture(1)], f"^{LABELS}, line 2: the cell of column 'Edema'"),
    ],
)
def test_t08_tables_that_disagree_and_bad_labels_are_one_error(
    labels: list[Row], metadata: list[Row], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TableError, match=message):
        items_of(tree_of(tmp_path, [picture(1)], labels, metadata=metadata))


@pytest.mark.parametrize("absent", [SPLIT, METADATA, LABELS])
def test_t08_an_absent_table_a_missing_column_and_a_web_page_are_told(absent: str, tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [picture(1)], [labelled(edema="1.0")])
    last = HEADERS[absent][3]
    header = tuple(name for name in HEADERS[absent] if name != last)
    (tmp_path / absent).write_bytes(gzip.compress(table([picture(1)], header)))
    with pytest.raises(TableError, match=f"{absent} lacks the column '{last}'"):
        items_of(tree)
    (tmp_path / absent).write_bytes(b"<!DOCTYPE html><html>Log in</html>")
    with pytest.raises(TableError, match=f"{absent} is a web page"):
        items_of(tree)
    (tmp_path / absent).unlink()
    with pytest.raises(LayoutError, match=f"{absent} is not in the raw folder"):
        items_of(tree)


def test_tables_that_were_unpacked_are_read_too(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [picture(1)], [labelled(edema="1.0")])
    packed = items_of(tree)
    for path in (SPLIT, METADATA, LABELS):
        (tmp_path / path.removesuffix(".gz")).write_bytes(gzip.decompress((tmp_path / path).read_bytes()))
        (tmp_path / path).unlink()
    unpacked = items_of(tree)
    assert unpacked["label_file"].to_list() == [LABELS.removesuffix(".gz")]
    assert packed.drop("label_file").equals(unpacked.drop("label_file"))


def test_negbio_is_read_where_the_recipe_asks_for_it(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, [picture(1)], [labelled(edema="1.0")], negbio=[labelled(fracture="1.0")])
    item = items_of(tree, labeler="negbio").row(0, named=True)
    assert (item["answer.findings"], item["label_file"]) == (["fracture"], NEGBIO)
    (tmp_path / NEGBIO).unlink()
    assert items_of(tree)["answer.findings"].to_list() == [["edema"]]
    with pytest.raises(LayoutError, match=f"{NEGBIO} is not in the raw folder"):
        items_of(tree, labeler="negbio")


def test_no_finding_beside_another_finding_is_a_conflict_in_the_ledger(tmp_path: Path) -> None:
    labels = [labelled(1, no_finding="1.0", edema="1.0"), labelled(2, no_finding="1.0", support_devices="1.0")]
    tree = tree_of(tmp_path, [picture(1), picture(2, study=2)], labels)
    assert items_of(tree)["skip_reason"].to_list() == ["label_conflict", None]
    assert mimic_cxr.statistics(tree, Options())["against_the_rule_for_no_finding"] == 1


def test_l01_credentialed_rows_are_marked_and_say_no_id_of_the_release(tmp_path: Path) -> None:
    assert mimic_cxr.SPEC.access is Access.CREDENTIALED
    assert strictest(mimic_cxr.SPEC.licences.values())[1] is Redistribution.NONE
    mixed = (*mimic_cxr.SPEC.licences.values(), *mimic_ecg.SPEC.licences.values())
    assert strictest(mixed)[1] is Redistribution.NONE
    tree = tree_of(tmp_path / "raw", [picture(1)], [labelled(edema="1.0")])
    tree.write("files/p10/p10000032/s50000001/00000001-aaaaaaaa.jpg", jpeg())
    ((stored,), _) = built(tree, tmp_path / "out")
    assert (stored["redistribution"], stored["context"]) == ("none", "")
    assert "10000032" not in stored["patient"]
    assert stored["images"][0]["bytes"] == jpeg()


def test_synthetic_tables_counted_by_plain_csv(synthetic: Store) -> None:
    expected = Counter(KEYS[name] for _, _, answer in published_rows(synthetic) for name in answer)
    items = items_of(synthetic)
    found = Counter(key for answer in items["answer.findings"].drop_nulls().to_list() for key in answer)
    assert found == expected
    listed = sorted(media[0]["path"] for media in items["media"].to_list())
    assert listed == sorted(synthetic.walk("files")) == synthetic.read("IMAGE_FILENAMES").decode().split()
    with Image.open(f"{synthetic.folder}/{listed[0]}") as opened:
        assert (opened.mode, opened.format) == ("L", "JPEG")
    assert mimic_cxr.detect_version(synthetic) == "2.1.0"


def test_version_is_told_by_the_file_that_the_later_one_adds(tmp_path: Path) -> None:
    assert mimic_cxr.detect_version(tree_of(tmp_path, [picture(1)], [labelled()])) == "2.0.0"


def test_synthesize_follows_from_its_seed_and_its_checksums_agree(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        mimic_cxr.synthesize(tmp_path / name, seed, 5)
    sums = {name: (tmp_path / name / "SHA256SUMS.txt").read_text() for name in "abc"}
    assert sums["a"] == sums["b"] != sums["c"]
    for line in sums["a"].splitlines():
        digest, path = line.split(" ", 1)
        assert hashlib.sha256((tmp_path / "a" / path).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("other", ["mimic-iv-ecg", "coronahack", "ptb-xl"])
def test_real_folders_of_other_sources_are_refused(other: str, realdata: Path) -> None:
    with pytest.raises(SourceError, match=f"^{SPLIT} is not in the raw folder"):
        items_of(Store(realdata / other))


def test_the_dicom_files_give_the_films_of_the_jpegs_the_right_way_round(synthetic: Store, tmp_path: Path) -> None:
    write_tree(tmp_path / "raw", 7, 40, "dicom")
    trees = {"jpg": synthetic, "dicom": Store(tmp_path / "raw")}
    found = {}
    for media, tree in trees.items():
        options: dict[str, Any] = {
            "name": "mimic-cxr",
            "options": {"media": media},
            "tasks": ["findings"],
            "skip_limit": 1,
        }
        recipe = Recipe.model_validate({"name": "test", "sources": [options], "images": {"encoding": "png"}})
        build_corpus(recipe, [SourceInput(SOURCE, recipe.sources[0], tree)], Store(tmp_path / media), LocalEngine(1))
        found[media] = rows_of(tmp_path / media)
    assert found["dicom"].keys() == found["jpg"].keys()
    kinds = Counter()
    for name, row in found["dicom"].items():
        twin = found["jpg"][name]
        assert (row["answer"], row["split"], row["patient"]) == (twin["answer"], twin["split"], twin["patient"])
        assert row["views"][0]["view"] == twin["views"][0]["view"]
        films = [
            np.asarray(Image.open(io.BytesIO(one["images"][0]["bytes"])).convert("L"), float) for one in (row, twin)
        ]
        assert films[0].shape == films[1].shape
        assert np.corrcoef(films[0].ravel(), films[1].ravel())[0, 1] > 0.95  # an inverse film would be at -1
        path = next(one["path"] for one in row["provenance"] if one["role"] == "image")
        assert path.endswith(".dcm")
        kinds[row["views"][0]["window"]] += 1
    assert len(kinds) == 1


def test_dicom_files_in_the_place_of_jpegs_are_no_empty_corpus(tmp_path: Path) -> None:
    write_tree(tmp_path / "raw", 7, 3, "dicom")
    recipe = Recipe.model_validate({"name": "test", "sources": [{"name": "mimic-cxr", "skip_limit": 1}]})
    inputs = [SourceInput(SOURCE, recipe.sources[0], Store(tmp_path / "raw"))]
    with pytest.raises(BuildError, match="No row came out: every item was skipped"):
        build_corpus(recipe, inputs, Store(tmp_path / "out"), LocalEngine(1))
