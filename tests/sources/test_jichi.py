"""The source ``jichi``: patients in names, two gradings never mixed, published defects, and real photographs."""

from __future__ import annotations

import csv
import io
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.doctor import examine
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.manifest import Manifest
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.splits import assign_splits, group_keys
from qoq_data.corpus.trace import trace_row
from qoq_data.corpus.verify import verify_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.record import AnswerType
from qoq_data.sources import jichi, source_of
from qoq_data.sources.jichi import Options
from tests.corpus.building import ledger_of, make_recipe, rows_of

SOURCE = source_of(jichi)
HEADER = "Image,Davis_grading_of_concatenated_figures,Davis_grading_of_one_figure"
CONCATENATED = Options(grading="concatenated")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jichi")
    jichi.synthesize(folder, 7, 40)
    return folder


def items_of(tree: Path, options: Options = Options()) -> pl.DataFrame:  # noqa: B008 - frozen
    return scan_items(SOURCE, Store(tree), options)


def named_tree(folder: Path, rows: Iterable[str], header: str = HEADER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list.csv").write_text("\n".join((header, *rows)) + "\n")
    return folder


def answers(items: pl.DataFrame) -> dict[str, list[str] | None]:
    return dict(zip(items["item"].to_list(), items["answer.davis_stage"].to_list(), strict=True))


def list_of(tree: Path) -> list[dict[str, str]]:
    with (tree / "list.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def built(out: Path, tree: Path, **keys: Any) -> tuple[Manifest, list[SourceInput], Any]:
    recipe = make_recipe("jichi", **keys)
    inputs = [SourceInput(SOURCE, recipe.sources[0], Store(tree))]
    return build_corpus(recipe, inputs, Store(out), LocalEngine(1)), inputs, recipe


def published_split(table: Mapping[str, str]) -> dict[str, str]:
    """The published way: of each stage's pictures ``int(0.8 * count)`` drawn for training, whoever they are of."""
    by_stage = defaultdict(list)
    for name, stage in table.items():
        by_stage[stage].append(name)
    drawn = {name for names in by_stage.values() for name in random.Random(0).sample(names, int(0.8 * len(names)))}
    return {name: "train" if name in drawn else "test" for name in table}


def test_patient_and_study_come_from_the_name(tmp_path: Path) -> None:
    rows = (
        "1_1_R.jpg,ndr,ndr",
        "1_2_L.jpg,ndr,ndr",
        "12_1_R.jpg,pdr,pdr",
        "12_1_L.JPG,pdr,ppdr",
        "2740_2_L.jpg,sdr,sdr",
    )
    items = items_of(named_tree(tmp_path, rows))
    assert items.select("item", "patient", "group", "study").rows() == [
        ("12_1_L", "12", "12", "12_1"),
        ("12_1_R", "12", "12", "12_1"),
        ("1_1_R", "1", "1", "1_1"),
        ("1_2_L", "1", "1", "1_2"),
        ("2740_2_L", "2740", "2740", "2740_2"),
    ]
    assert items["media"][0][0]["path"] == "12_1_L.JPG"
    assert jichi.statistics(Store(tmp_path), Options())["numbers_with_several_pictures"] == 1


def test_a_name_of_another_form_has_no_patient_and_is_a_ledger_line_and_a_list_of_such_is_an_error(
    tmp_path: Path,
) -> None:
    odd = ["x_1_R.jpg", "1_1.jpg", "1_1_R.png", "01_1_R.jpg", "1_1_R_2.jpg", "../1_1_R.jpg", "1_1_B.jpg"]
    tree = named_tree(tmp_path / "a", ("1_1_R.jpg,ndr,ndr", *(f"{name},ndr,sdr" for name in odd)))
    items = items_of(tree)
    skipped = items.filter(pl.col("skip_reason") == "format_unsupported")
    assert sorted(skipped["item"]) == sorted(odd)
    assert skipped["patient"].null_count() == skipped["study"].null_count() == len(odd)
    assert jichi.statistics(Store(tree), Options())["names_of_another_form"] == len(odd)
    with pytest.raises(TableError, match=r"list\.csv: no name in its column 'Image'"):
        items_of(named_tree(tmp_path / "b", (f"{name},ndr,ndr" for name in odd)))


def test_the_two_gradings_are_never_mixed(synthetic: Path, tmp_path: Path) -> None:
    rows = list_of(synthetic)
    both = {option: answers(items_of(synthetic, option)) for option in (Options(), CONCATENATED)}
    for option, column in ((Options(), "one_figure"), (CONCATENATED, "concatenated_figures")):
        expected = {row["Image"][:-4]: [row[f"Davis_grading_of_{column}"]] for row in rows}
        assert both[option] == expected
    disagree = sum(row["Davis_grading_of_one_figure"] != row["Davis_grading_of_concatenated_figures"] for row in rows)
    counts = jichi.statistics(Store(synthetic), Options())
    assert (
        counts["stages_that_disagree"]
        == disagree
        == sum(both[Options()][i] != both[CONCATENATED][i] for i in both[Options()])
    )
    assert disagree > 10

    tree = named_tree(tmp_path, ("1_1_R.jpg,pdr,", "1_2_L.jpg,,sdr", "1_3_R.jpg,ppdr,ppdr"))
    mixed = {
        row["Image"][:-4]: row["Davis_grading_of_one_figure"] or row["Davis_grading_of_concatenated_figures"]
        for row in list_of(tree)
    }
    assert mixed["1_1_R"] == "pdr"
    assert answers(items_of(tree)) == {"1_1_R": None, "1_2_L": ["sdr"], "1_3_R": ["ppdr"]}
    assert answers(items_of(tree, CONCATENATED)) == {"1_1_R": ["pdr"], "1_2_L": None, "1_3_R": ["ppdr"]}
    counts = jichi.statistics(Store(tree), Options())
    assert (counts["without_one_figure_stage"], counts["without_concatenated_stage"]) == (1, 1)
    assert counts["stages_that_disagree"] == 0
    assert items_of(tree)["label_row"][0] == "1_1_R.jpg, Davis_grading_of_one_figure"


def test_stages_are_read_in_any_case_where_the_published_way_stops(tmp_path: Path) -> None:
    rows = ("1_1_R.jpg,NDR,Ndr", "1_2_L.jpg,SDR, sdr ", "2_1_R.jpg,PPDR,PPDR", "2_2_L.jpg,pdr,PDR")
    tree = named_tree(tmp_path, rows)
    known = ("ndr", "sdr", "ppdr", "pdr")
    assert not any(row["Davis_grading_of_one_figure"] in known for row in list_of(tree))
    assert answers(items_of(tree)) == {"1_1_R": ["ndr"], "1_2_L": ["sdr"], "2_1_R": ["ppdr"], "2_2_L": ["pdr"]}


def test_a_patient_crosses_in_the_published_split_and_never_in_ours(synthetic: Path) -> None:
    sides = published_split({row["Image"]: row["Davis_grading_of_one_figure"] for row in list_of(synthetic)})
    by_patient = defaultdict(set)
    for name, side in sides.items():
        by_patient[name.split("_")[0]].add(side)
    assert sum(len(found) > 1 for found in by_patient.values()) > 5

    items = items_of(synthetic)
    assert items["patient"].n_unique() == len(by_patient) == 40
    assert items["official_split"].null_count() == items.height
    keyed = items.with_columns(group_keys(items, "jichi", "jichi"), pl.lit("jichi").alias("source"))
    for seed in range(10):
        ours = keyed.with_columns(assign_splits(keyed, seed, 0.2, 0.2).alias("split"))
        assert ours.group_by("patient").agg(pl.col("split").n_unique())["split"].max() == 1
        assert ours["split"].n_unique() == 3


def test_all_four_stages_have_their_davis_names_and_one_is_asked() -> None:
    (task,) = SOURCE.spec.tasks
    published = ("No DR", "Mild DR", "Severe DR", "Proliferative DR")
    assert task.answer_type is AnswerType.ONE
    assert [choice.key for choice in task.choices] == ["ndr", "sdr", "ppdr", "pdr"]
    texts = [choice.text for choice in task.choices]
    assert len(texts) == len(published)
    assert not any("Mild" in text or "Severe" in text for text in texts)
    assert [text.split()[0] for text in texts] == ["No", "Simple", "Preproliferative", "Proliferative"]
    assert len(set(task.wordings)) >= 5
    assert not any("phrase" in wording.lower() for wording in task.wordings)


def test_real_photographs_under_the_publishers_names_are_built_verified_and_traced(
    realdata: Path, tmp_path: Path
) -> None:
    tree = named_tree(tmp_path / "raw", ("1_1_R.jpg,sdr,ndr", "1_2_L.jpg,pdr,pdr", "2_1_R.jpg,ndr,ndr"))
    for photograph, name in (("IDRiD_02", "1_1_R"), ("IDRiD_15", "1_2_L")):
        shutil.copy(realdata / "idrid" / f"{photograph}.jpg", tree / f"{name}.jpg")
    out = tmp_path / "out"
    manifest, inputs, recipe = built(out, tree)
    rows = rows_of(out)
    assert {row_id: row["answer"] for row_id, row in rows.items()} == {
        "jichi/1_1_R/davis_stage": ["No diabetic retinopathy"],
        "jichi/1_2_L/davis_stage": ["Proliferative diabetic retinopathy"],
    }
    assert [(line["item"], line["reason"]) for line in ledger_of(out)] == [("2_1_R", "file_missing")]
    for row in rows.values():
        with Image.open(io.BytesIO(row["images"][0]["bytes"])) as stored:
            width, height = stored.size
        assert width * height <= recipe.images.max_pixels
        assert max(width, height) <= recipe.images.longest_side
        assert width / height == pytest.approx(3410 / 2848, rel=0.01)
    assert len({(row["patient"], row["split"]) for row in rows.values()}) == 1
    assert verify_corpus(Store(out), manifest, inputs).problems == ()
    for row_id in rows:
        assert trace_row(Store(out), manifest, recipe, row_id, inputs, LocalEngine()).agrees


def test_s01_the_same_picture_of_two_patients_is_one_group_and_two_stages_of_it_are_ledger_lines(
    tmp_path: Path,
) -> None:
    tree = tmp_path / "raw"
    jichi.synthesize(tree, 3, 12)
    table = (tree / "list.csv").read_text()
    shutil.copy(tree / "1_1_R.jpg", tree / "101_1_R.jpg")
    shutil.copy(tree / "2_1_R.jpg", tree / "102_1_R.jpg")
    (tree / "list.csv").write_text(table + "101_1_R.jpg,sdr,sdr\n102_1_R.jpg,ndr,ndr\n")
    assert {row["Image"]: row["Davis_grading_of_one_figure"] for row in list_of(tree)}["1_1_R.jpg"] == "sdr"
    alone = 0
    for seed in range(6):
        out = tmp_path / f"out-{seed}"
        built(out, tree, seed=seed, split={"validation": 0.3, "test": 0.3})
        rows = rows_of(out)
        assert rows["jichi/1_1_R/davis_stage"]["split"] == rows["jichi/101_1_R/davis_stage"]["split"]
        assert {line["item"] for line in ledger_of(out)} == {"2_1_R", "102_1_R"}
        items = items_of(tree)
        keyed = items.with_columns(group_keys(items, "jichi", "jichi"), pl.lit("jichi").alias("source"))
        sides = dict(zip(items["item"], assign_splits(keyed, seed, 0.3, 0.3), strict=True))
        alone += sides["1_1_R"] != sides["101_1_R"]
    assert alone > 0


def test_b04_a_turned_photograph_is_stored_upright_and_without_its_tag(tmp_path: Path) -> None:
    tree = tmp_path / "raw"
    jichi.synthesize(tree, 3, 1)
    with Image.open(tree / "1_1_R.jpg") as file:
        upright = file.convert("RGB")
    tag = Image.Exif()
    tag[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tree / "1_1_R.jpg", exif=tag, quality=95)
    built(tmp_path / "out", tree)
    data = rows_of(tmp_path / "out")["jichi/1_1_R/davis_stage"]["images"][0]["bytes"]
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.size == upright.size
        assert not stored.getexif()


def test_t07_a_list_in_another_encoding_or_with_short_rows_is_told_by_file_and_row(tmp_path: Path) -> None:
    tree = named_tree(tmp_path, ("1_1_R.jpg,ndr,ndr",))
    (tree / "list.csv").write_bytes(b"\xef\xbb\xbf" + (tree / "list.csv").read_bytes())
    assert items_of(tree).height == 1
    (tree / "list.csv").write_bytes(f"{HEADER}\n1_1_R.jpg,ndr,ndr\n2_1_R.jpg,\xe9,ndr\n".encode("latin-1"))
    with pytest.raises(TableError, match=r"list\.csv.*line 3 is not UTF-8"):
        items_of(tree)


def test_t08_without_its_list_the_scan_stops_and_doctor_says_which_file_and_where_from(
    synthetic: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "raw"
    shutil.copytree(synthetic, tree)
    (tree / "list.csv").unlink()
    with pytest.raises(LayoutError, match=r"list\.csv is not in the raw folder"):
        items_of(tree)
    told = [one for one in examine(SOURCE, Store(tree), checksums=False) if one.where == "list.csv"]
    assert [one.severity for one in told] == ["error"]
    assert "figshare.com" in told[0].what


@pytest.mark.parametrize(
    ("rows", "header", "told"),
    [
        (("1_1_R.jpg,ndr,npdr",), HEADER, "row 2: its Davis_grading_of_one_figure is none of ndr, sdr, ppdr, pdr"),
        (("1_1_R.jpg,0,ndr",), HEADER, "row 2: its Davis_grading_of_concatenated_figures is none of"),
        (("1_1_R.jpg,ndr,ndr", "1_1_R.jpg,ndr,ndr"), HEADER, "row 2: its Image stands in another row too"),
        ((",ndr,ndr",), HEADER, "row 2: its Image is blank"),
        (("1_1_R.jpg,ndr",), HEADER, "line 2: it has 2 fields"),
        (("1_1_R.jpg,ndr,ndr",), HEADER.replace("Image", "image"), "lacks the column 'Image'"),
        (("1_1_R.jpg,ndr,ndr",), HEADER.replace("one_figure", "figure"), "lacks the column 'Davis_grading_of_one"),
        (("<p>",), "<html>", "is a web page"),
    ],
)
def test_a_list_that_is_wrong_is_one_error(rows: tuple[str, ...], header: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=told):
        items_of(named_tree(tmp_path, rows, header))


def test_pictures_and_list_are_open() -> None:
    assert strictest(SOURCE.spec.licences.values()) == ("CC-BY-4.0", Redistribution.OPEN)


def test_synthetic_tree_has_the_published_layout(synthetic: Path) -> None:
    assert (synthetic / "list.csv").read_text().splitlines()[0] == HEADER
    rows = list_of(synthetic)
    assert {row["Image"] for row in rows} == {file.name for file in synthetic.glob("*.jpg")}
    stages = Counter(row["Davis_grading_of_one_figure"] for row in rows)
    assert min(stages[stage] for stage in ("ndr", "sdr", "ppdr", "pdr")) > 10
