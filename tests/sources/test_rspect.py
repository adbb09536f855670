"""The source ``rspect``: labels of slices and of exams, what the published conversion makes of them, bad inputs."""

from __future__ import annotations

import csv
import io
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.manifest import read_manifest
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.verify import verify_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, TableError
from qoq_data.formats.storage import Store
from qoq_data.sources import rspect, source_of
from qoq_data.sources._rspect_tree import IDS, OF_EXAM, ON_SLICE, TABLE
from qoq_data.sources.rspect import Options
from tests.corpus.building import ledger_of, make_recipe, rows_of

SOURCE = source_of(rspect)
HEADER = (*IDS, ON_SLICE, *OF_EXAM)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rspect")
    rspect.synthesize(folder, 3, 42)
    return folder


@pytest.fixture(scope="module")
def corpus(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("corpus") / "out", synthetic)


def built(out: Path, tree: Path, **keys: Any) -> Path:
    recipe = make_recipe("rspect", **keys)
    build_corpus(recipe, [SourceInput(SOURCE, recipe.sources[0], Store(tree))], Store(out), LocalEngine(1))
    return out


def items_of(tree: Path) -> pl.DataFrame:
    return scan_items(SOURCE, Store(tree), Options())


def table_of(tree: Path) -> list[dict[str, str]]:
    with (tree / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def line(study: str = "a1", series: str = "b1", instance: str = "c1", on_slice: object = 0, **exam: object) -> str:
    cells = {**dict.fromkeys(OF_EXAM, 0), "negative_exam_for_pe": int(not (exam or on_slice)), **exam}
    return ",".join(map(str, (study, series, instance, on_slice, *cells.values())))


def tree_of(folder: Path, *lines: str, header: str = ",".join(HEADER)) -> Path:
    (folder / "train").mkdir(parents=True)
    (folder / TABLE).write_text("\n".join((header, *lines)) + "\n")
    return folder


def published_kind(row: dict[str, str]) -> str:
    """The published rule, of the slice's mark and one column of the exam."""
    if row[ON_SLICE] == "0":
        return "none"
    return "chronic" if row["chronic_pe"] == "1" else "acute"


def test_scan_has_a_row_a_slice_and_counts_as_a_plain_reader_does(synthetic: Path) -> None:
    items, table = items_of(synthetic), table_of(synthetic)
    assert items.height == len(table) == 168
    assert set(items["item"]) == {"/".join(row[name] for name in IDS) for row in table}
    assert all((synthetic / media[0]["path"]).is_file() for media in items["media"])
    assert {media[0]["display"] for media in items["media"]} == {"pulmonary_angiography"}
    exams = {row["StudyInstanceUID"]: row for row in table}
    positive = [row for row in table if row[ON_SLICE] == "1"]
    assert rspect.statistics(Store(synthetic), Options()) == {
        "slices": 168,
        "exams": 42,
        "series": 42,
        "slices_with_an_embolus": len(positive),
        "slices_of_acute_and_chronic_emboli": sum(row["acute_and_chronic_pe"] == "1" for row in positive),
        "indeterminate_exams": sum(row["indeterminate"] == "1" for row in exams.values()),
        "exams_without_embolus": sum(row["negative_exam_for_pe"] == "1" for row in exams.values()),
    }
    assert len(positive) > 0


def test_a_built_corpus_is_sound_and_its_window_is_said(corpus: Path, synthetic: Path) -> None:
    recipe = make_recipe("rspect")
    inputs = [SourceInput(SOURCE, recipe.sources[0], Store(synthetic))]
    assert verify_corpus(Store(corpus), read_manifest(Store(corpus)), inputs).problems == ()
    rows = rows_of(corpus)
    assert {row["views"][0]["window"] for row in rows.values()} == {"pulmonary angiography, 80/700"}
    assert {row["views"][0]["view"] for row in rows.values()} == {"axial"}
    assert {tuple(row["views"][0]["spacing_mm"]) for row in rows.values()} == {(0.7, 0.7)}
    assert all(row["patient"] is None and row["study"] for row in rows.values())


def test_an_exam_stands_on_one_side_where_the_published_draw_tears_it_apart(corpus: Path, synthetic: Path) -> None:
    slices = [tuple(row[name] for name in IDS) for row in table_of(synthetic)]
    order = np.random.default_rng(0).permutation(len(slices))
    train = {slices[place][0] for place in order[: 3 * len(slices) // 4]}
    assert train & {slices[place][0] for place in order[3 * len(slices) // 4 :]}
    sides: dict[str, set[str]] = {}
    for row in rows_of(corpus).values():
        sides.setdefault(row["study"], set()).add(row["split"])
    assert {len(side) for side in sides.values()} == {1}
    assert {"train", "validation", "test"} == set().union(*sides.values())


def test_acute_and_chronic_is_not_called_acute(synthetic: Path) -> None:
    table = {"/".join(row[name] for name in IDS): row for row in table_of(synthetic)}
    mixed = {item for item, row in table.items() if row[ON_SLICE] == row["acute_and_chronic_pe"] == "1"}
    assert mixed
    assert {published_kind(table[item]) for item in mixed} == {"acute"}
    ours = {row["item"]: row for row in items_of(synthetic).iter_rows(named=True)}
    assert {ours[item]["answer.pe_type"] for item in mixed} == {None}
    assert all(ours[item]["answer.pe_presence"] == ["yes"] for item in mixed)
    others = {item: row for item, row in table.items() if item not in mixed and row["indeterminate"] == "0"}
    assert {item: ours[item]["answer.pe_type"] for item in others} == {
        item: [published_kind(row)] for item, row in others.items()
    }


def test_an_indeterminate_exam_is_not_called_negative(corpus: Path, synthetic: Path) -> None:
    doubtful = {"/".join(row[name] for name in IDS): row for row in table_of(synthetic) if row["indeterminate"] == "1"}
    assert {published_kind(row) for row in doubtful.values()} == {"none"}
    rows = rows_of(corpus)
    assert not [row for row in rows if row.split("/", 1)[1].rsplit("/", 1)[0] in doubtful]
    reasons = Counter(entry["reason"] for entry in ledger_of(corpus) if entry["item"] in doubtful)
    assert reasons == {"no_label": len(doubtful)}


@pytest.mark.parametrize(("window", "centre", "width"), [("pulmonary_angiography", 80, 700), ("lung", -600, 1500)])
def test_values_go_through_the_named_window_and_nothing_else(
    synthetic: Path, tmp_path: Path, window: str, centre: int, width: int
) -> None:
    import pydicom

    out = built(tmp_path / "out", synthetic, options={"rspect": {"window": window}}, images={"encoding": "png"})
    rows = [row for row in rows_of(out).values() if row["task"] == "pe_presence"]
    for row in rows[:3]:
        path = next(one["path"] for one in row["provenance"] if one["role"] == "slice")
        hounsfield = pydicom.dcmread(synthetic / path).pixel_array.astype(float) - 1024
        by_hand = np.clip(((hounsfield - (centre - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)  # PS3.3 C.11.2.1.2
        stored = np.asarray(Image.open(io.BytesIO(row["images"][0]["bytes"])).convert("L")).astype(float)
        assert np.abs(stored - by_hand).max() <= 0.5 + 1e-9


def test_t07_ids_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "raw", line("00001", "1e5", "0012"), line("00001", "1e5", "12"))
    items = items_of(tree)
    assert items["item"].to_list() == ["00001/1e5/0012", "00001/1e5/12"]
    assert items["group"].to_list() == ["00001"] * 2


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ((line(), line()), r"^train\.csv, row 3: the SOPInstanceUID stands twice\.$"),
        ((line(instance=""),), r"row 2: SOPInstanceUID is no plain UID"),
        ((line(instance="../../c1"),), r"row 2: SOPInstanceUID is no plain UID"),
        ((line(on_slice=2),), r"row 2: pe_present_on_image is neither 0 nor 1"),
        ((line(), line(instance="c2", indeterminate="")), r"row 3: indeterminate is neither 0 nor 1"),
        ((line(), line(instance="c2", qa_motion=1, negative_exam_for_pe=1)), r"row 3: a label of the exam differs"),
        ((line(on_slice=1, negative_exam_for_pe=1),), r"row 2: a slice of an exam without embolus is marked"),
        ((line(on_slice=1, indeterminate=1),), r"row 2: a slice of an indeterminate exam is marked"),
        ((line(chronic_pe=1, acute_and_chronic_pe=1),), r"row 2: the exam is chronic, and acute and chronic"),
        ((line(on_slice="yes"),), r"train\.csv"),
    ],
)
def test_a_row_that_cannot_be_is_named(tmp_path: Path, lines: tuple[str, ...], what: str) -> None:
    with pytest.raises(TableError, match=what) as caught:
        items_of(tree_of(tmp_path / "raw", *lines))
    assert "yes" not in str(caught.value)


def test_a_renamed_column_and_a_page_in_the_place_of_the_table_are_one_clear_error(tmp_path: Path) -> None:
    renamed = ",".join(HEADER).replace("indeterminate", "undetermined")
    with pytest.raises((TableError, LayoutError), match="indeterminate"):
        items_of(tree_of(tmp_path / "renamed", line(), header=renamed))
    with pytest.raises((TableError, LayoutError)):
        items_of(tree_of(tmp_path / "page", "<body>", header="<html>"))


def test_a_slice_that_is_absent_or_cut_is_a_line_of_the_ledger(synthetic: Path, tmp_path: Path) -> None:
    tree = tmp_path / "raw"
    shutil.copytree(synthetic, tree)
    absent, cut = sorted((tree / "train").rglob("*.dcm"))[:2]
    absent.unlink()
    cut.write_bytes(cut.read_bytes()[:-100])
    ledger = {entry["path"]: entry["reason"] for entry in ledger_of(built(tmp_path / "out", tree)) if entry["path"]}
    assert ledger[absent.relative_to(tree).as_posix()] == "file_missing"
    assert ledger[cut.relative_to(tree).as_posix()] == "file_truncated"
