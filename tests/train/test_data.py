"""A corpus as training sees it: opened or refused, filtered, read in order, its media there or an error."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import qoq_train.data.shards
from qoq_data.clinical.ecg_paper import column_layout, draw_ecg_paper, picture_layout, standard_layout
from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.shard import table_to_parquet
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import CorpusError, UnknownNameError, UsageError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution
from qoq_data.recipe import Recipe
from qoq_data.record import MISSING, SCHEMA, Split, millivolts
from qoq_data.sources import get_source
from qoq_train.data.corpus import Corpus, Example, SplitRows
from qoq_train.recipe import DataRecipe
from tests.train.conftest import Changed, Row

TRAIN = Split.TRAIN


def opened(folder: Path, **keys: Any) -> Corpus:
    return Corpus(DataRecipe(corpus=str(folder), **keys))


def examples(rows: SplitRows) -> Iterator[Example]:
    return (rows.example(place) for place in range(len(rows)))


def stored_rows(folder: Path) -> dict[str, Row]:
    return {row["id"]: row for path in (folder / "data").rglob("*.parquet") for row in pq.read_table(path).to_pylist()}


def only(rows: SplitRows, row_id: str) -> Example:
    places = [place for place in range(len(rows)) if rows._table["id"][place].as_py() == row_id]  # type: ignore[index]
    return rows.example(places[0])


def test_a_corpus_states_its_manifest_and_its_strictest_terms(corpus_folder: Path) -> None:
    corpus = opened(corpus_folder)
    assert corpus.manifest_sha256 == hashlib.sha256((corpus_folder / "manifest.json").read_bytes()).hexdigest()
    assert corpus.redistribution is Redistribution.IDS
    assert corpus.licence == "LicenseRef-BUSI AND CC-BY-NC-SA-4.0 AND CC-BY-4.0"
    assert corpus.sources_with_boxes == {"busi", "ham10000"}
    open_ones = opened(corpus_folder, sources=("jichi", "ptb-xl"))
    assert (open_ones.licence, open_ones.redistribution) == ("CC-BY-4.0", Redistribution.OPEN)


def test_every_example_is_its_row(corpus_folder: Path) -> None:
    corpus, rows = opened(corpus_folder), stored_rows(corpus_folder)
    seen = {}
    for split in Split:
        for example in examples(corpus.rows(split)):
            row = seen[example.row_id] = rows[example.row_id]
            assert row["split"] == split
            for name in (
                "source",
                "domain",
                "task",
                "question",
                "answer_type",
                "tolerance",
                "licence",
                "redistribution",
            ):
                assert getattr(example, name) == row[name]
            assert (example.licence, example.redistribution) == (row["licence"], row["redistribution"])
            assert (example.patient, example.context) == (row["patient"] or "", row["context"] or "")
            assert (list(example.choices), list(example.answer)) == (row["choices"], row["answer"])
            assert [(b.label, b.image, list(b.xyxy)) for b in example.boxes] == [
                (b["label"], b["image"], b["xyxy"]) for b in row["boxes"]
            ]
            roles = {one["role"] for one in row["provenance"]}
            assert example.boxes_known == (bool(row["boxes"]) or "mask" in roles)
            assert example.source_has_boxes == (example.source in ("busi", "ham10000"))
            for picture, image in zip(example.pictures, row["images"] or [None], strict=True):
                if image is not None:
                    assert np.array_equal(np.asarray(picture), np.asarray(Image.open(io.BytesIO(image["bytes"]))))
    assert seen.keys() == rows.keys()
    assert {row["source"] for row in rows.values()} == {"busi", "ham10000", "jichi", "ptb-xl"}


def test_a_normal_picture_is_known_to_have_no_box(corpus_folder: Path) -> None:
    normal = [e for e in examples(opened(corpus_folder, sources=("busi",)).rows(TRAIN)) if e.answer == ("Normal",)]
    assert normal
    assert all(example.boxes_known and not example.boxes for example in normal)


def test_filters_keep_what_they_name_with_its_own_pictures(corpus_folder: Path, changed: Changed) -> None:
    whole = {e.row_id: e for e in examples(opened(corpus_folder).rows(TRAIN))}
    # Built anew a shard is one row group, of which the filters keep some rows here and there.
    corpus = opened(changed(lambda row: None), sources=("ham10000", "ptb-xl"), tasks=("seven_diagnoses", "rhythm"))
    found = list(examples(corpus.rows(TRAIN)))
    wanted = {e.row_id for e in whole.values() if e.task in ("seven_diagnoses", "rhythm")}
    assert {e.row_id for e in found} == wanted
    assert len(found) == len(wanted) > 5
    for example in found:
        assert [p.tobytes() for p in example.pictures] == [p.tobytes() for p in whole[example.row_id].pictures]


def test_a_name_that_is_not_there_names_the_nearest(corpus_folder: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"data\.sources: .*'ham1000'\. Did you mean 'ham10000'\?"):
        opened(corpus_folder, sources=("busi", "ham1000"))
    with pytest.raises(UnknownNameError, match=r"data\.tasks: .*'rythm'\. Did you mean 'rhythm'\?"):
        opened(corpus_folder, tasks=("rythm",))
    with pytest.raises(UnknownNameError, match=r"no task 'rhythm'\. There are: diagnosis\."):
        opened(corpus_folder, sources=("busi",), tasks=("rhythm",))


def test_a_split_without_rows_is_empty_and_cannot_be_trained_on(corpus_folder: Path, changed: Changed) -> None:
    def to_test(row: Row) -> None:
        row["split"] = "test"

    folder = changed(to_test)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"split": "train"', '"split": "test"'))
    rows = opened(folder).rows(TRAIN)
    assert (len(rows), rows.nbytes, rows.texts("question"), rows.choice_lists()) == (0, 0, [], [])
    assert rows.sample(3, 0).size == 0
    with pytest.raises(UsageError, match="no row in train"):
        rows.batches(4, seed=0)


def test_what_is_no_finished_corpus_is_one_clear_error(corpus_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="There is no corpus here"):
        opened(tmp_path / "nowhere")
    begun = tmp_path / "begun"
    (begun / ".qoq").mkdir(parents=True)
    with pytest.raises(CorpusError, match="not finished"):
        opened(begun)
    (begun / "manifest.json").write_text('{"format": 1, "shards": [{')
    with pytest.raises(CorpusError, match="damaged"):
        opened(begun)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def grown(data: bytes) -> bytes:
    return data + b"PAR1"


def emptied(data: bytes) -> bytes:
    return data[:0]


def flipped(data: bytes) -> bytes:
    at = len(data) // 3
    return data[:at] + bytes(255 - byte for byte in data[at : at + 4000]) + data[at + 4000 :]


@pytest.mark.parametrize("damage", [cut, flipped, grown, emptied, None])
def test_a_damaged_shard_is_one_clear_error(
    corpus_folder: Path, tmp_path: Path, damage: Callable[[bytes], bytes] | None
) -> None:
    folder = Path(shutil.copytree(corpus_folder, tmp_path / "copy"))
    shard = max((folder / "data").rglob("train*.parquet"), key=lambda path: path.stat().st_size)
    data = shard.read_bytes()
    shard.unlink()
    if damage is not None:
        shard.write_bytes(damage(data))
    with pytest.raises(CorpusError, match=r"\.parquet|/") as caught:
        list(examples(opened(folder).rows(TRAIN)))
    assert str(folder) not in str(caught.value)


def test_a_shard_of_another_schema_or_length_is_refused(corpus_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(corpus_folder, tmp_path / "copy"))
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = next(one for one in manifest["shards"] if one["split"] == "train")
    table = pq.read_table(folder / entry["path"])
    for other in (table.drop_columns(["context"]), table.slice(1)):
        pq.write_table(other, folder / entry["path"])
        entry["bytes"] = (folder / entry["path"]).stat().st_size
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(CorpusError, match="not as it was built"):
            opened(folder).rows(TRAIN)


def test_batches_are_the_order_and_every_row_comes_once_an_epoch(corpus_folder: Path) -> None:
    rows = opened(corpus_folder, shuffle_window=3).rows(TRAIN)
    steps = rows.steps(7)
    assert steps == -(-len(rows) // 7)
    ids = [e.row_id for batch in islice(rows.batches(7, seed=5), steps) for e in batch]
    assert len(set(ids[: len(rows)])) == len(rows)
    assert len(ids) == 7 * steps
    assert ids == [rows._table["id"][int(i)].as_py() for i in rows.order(5).rows(0, 7 * steps)]  # type: ignore[index]
    other = [e.row_id for batch in islice(rows.batches(7, seed=6), steps) for e in batch]
    assert other != ids
    shares = [[e.row_id for e in next(rows.batches(7, 2, seed=5, rank=rank, ranks=3))] for rank in range(3)]
    assert [row_id for share in shares for row_id in share] == ids[14:21]


def test_resuming_reads_only_the_groups_of_its_own_rows(corpus_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = opened(corpus_folder, shuffle_window=2).rows(TRAIN)
    wanted = [e.row_id for e in list(islice(undisturbed.batches(4, seed=1), 11))[10]]
    rows = opened(corpus_folder, shuffle_window=2).rows(TRAIN)
    assert len(rows._groups) > 12
    reads = counted_reads(monkeypatch)
    assert [e.row_id for e in next(rows.batches(4, 10, seed=1))] == wanted
    assert 1 <= len(reads) <= 4


def test_a_window_of_groups_is_read_once(corpus_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = opened(corpus_folder, shuffle_window=4).rows(TRAIN)
    reads = counted_reads(monkeypatch)
    # Batches of one row end with the epoch, so that no group of the next is read.
    assert len(list(islice(rows.batches(1, seed=3), len(rows)))) == len(rows)
    assert len(reads) == len(set(reads)) == len(rows._groups)
    assert len(rows._media._held) == 4


def test_the_group_used_longest_ago_is_let_go(corpus_folder: Path) -> None:
    rows = opened(corpus_folder).rows(TRAIN)
    cache = qoq_train.data.shards.RowGroupCache(Store(corpus_folder), 2, qoq_train.data.shards.read_media)
    a, b, c = rows._groups[:3]
    for group in (a, b, a, c):
        cache.get(*group)
    assert list(cache._held) == [(a[0].path, a[1]), (c[0].path, c[1])]


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The row groups whose images are read from now on."""
    reads = []
    read = qoq_train.data.shards.read_group

    def counting(store: Any, shard: Any, group: int, column: str, kept: Any) -> Any:
        if column == "images":
            reads.append((shard.path, group))
        return read(store, shard, group, column, kept)

    monkeypatch.setattr(qoq_train.data.shards, "read_group", counting)
    return reads


def test_texts_are_held_once(corpus_folder: Path) -> None:
    rows = opened(corpus_folder).rows(TRAIN)
    plain = sum(len(json.dumps(e.question + str(e.choices))) for e in examples(rows))
    assert rows.nbytes < plain  # with ids, patients, boxes and all else
    assert len(rows.texts("question")) < len(rows)


def test_a_sample_follows_from_seed_and_ids(corpus_folder: Path) -> None:
    rows = opened(corpus_folder).rows(TRAIN)
    chosen = rows.sample(10, 1)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert chosen.size == 10
    assert chosen.tolist() == opened(corpus_folder).rows(TRAIN).sample(10, 1).tolist() != rows.sample(10, 2).tolist()
    assert set(rows.sample(9, 1).tolist()) < set(chosen.tolist())
    assert rows.sample(None, 1).tolist() == rows.sample(10_000, 1).tolist() == list(range(len(rows)))


def test_a_row_that_is_not_there_is_refused(corpus_folder: Path) -> None:
    rows = opened(corpus_folder).rows(TRAIN)
    for place in (-1, len(rows)):
        with pytest.raises(ValueError, match="there is no row"):
            rows.example(place)


def one_of(source: str, split: Split = TRAIN) -> Callable[[Row], bool]:
    """Whether a row is the first that is seen of a source and split."""
    found: list[str] = []

    def is_it(row: Row) -> bool:
        if not found and row["source"] == source and row["split"] == split:
            found.append(row["id"])
        return row["id"] in found

    return is_it


def jpeg(*size: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "file_missing"),
        (b"", "file_missing"),
        (jpeg(40, 60)[:900], "image_undecodable"),
        (b"GIF89a" + bytes(40), "image_format_not_allowed"),
    ],
    ids=["null", "empty", "cut", "gif"],
)
def test_a_picture_that_cannot_be_had_is_an_error_with_the_rows_id(
    changed: Changed, data: bytes | None, reason: str
) -> None:
    is_it = one_of("jichi")
    named: list[str] = []

    def spoil(row: Row) -> None:
        if is_it(row):
            named.append(row["id"])
            row["images"] = [*row["images"], {"bytes": data, "path": None}]

    rows = opened(changed(spoil), sources=("jichi",)).rows(TRAIN)
    with pytest.raises(CorpusError) as caught:
        list(examples(rows))
    assert str(caught.value).startswith(f"{named[0]}: image 2 of 2")
    assert reason in str(caught.value)
    assert sum(1 for place in range(len(rows)) if not_an_error(rows, place)) == len(rows) - 1


def not_an_error(rows: SplitRows, place: int) -> bool:
    try:
        return bool(rows.example(place).pictures)
    except CorpusError:
        return False


@pytest.mark.parametrize("source", ["jichi", "ptb-xl"])
def test_a_row_without_any_medium_is_an_error(changed: Changed, source: str) -> None:
    is_it = one_of(source)

    def strip(row: Row) -> None:
        if is_it(row):
            row["images"] = row["signals"] = []

    with pytest.raises(CorpusError, match=rf"^{source}/.*neither an image nor a signal"):
        list(examples(opened(changed(strip), sources=(source,)).rows(TRAIN)))


def test_a_row_of_text_alone_has_no_pictures(changed: Changed) -> None:
    def as_text(row: Row) -> None:
        if row["source"] == "jichi":
            row |= {"domain": "ehr", "images": [], "signals": []}

    found = list(examples(opened(changed(as_text), sources=("jichi",)).rows(TRAIN)))
    assert found
    assert not any(example.pictures for example in found)


def no_choices(row: Row) -> None:
    row["choices"] = []


def strange_answer(row: Row) -> None:
    row["answer"] = ["Something else"]


def strange_type(row: Row) -> None:
    row["answer_type"] = "some"


def no_question(row: Row) -> None:
    row["question"] = " "


def empty_choice(row: Row) -> None:
    row["choices"] = [*row["choices"], ""]


def null_choice(row: Row) -> None:
    row["choices"] = [*row["choices"], None]


def joined_choice(row: Row) -> None:
    row["choices"] = [*row["choices"], "one\x1fother"]


def wide_box(row: Row) -> None:
    row["boxes"] = [{"label": "lesion", "image": 0, "xyxy": [0, 0, 10_000, 10], "agreement": None}]


def box_elsewhere(row: Row) -> None:
    row["boxes"] = [{"label": "lesion", "image": 3, "xyxy": [0, 0, 10, 10], "agreement": None}]


def empty_box(row: Row) -> None:
    row["boxes"] = [{"label": "lesion", "image": 0, "xyxy": [5, 5, 5, 9], "agreement": None}]


def box_without_label(row: Row) -> None:
    row["boxes"] = [{"label": None, "image": 0, "xyxy": [5, 5, 7, 9], "agreement": None}]


def number_without_tolerance(row: Row) -> None:
    row |= {"answer_type": "number", "answer": ["5"], "choices": [], "tolerance": None}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_choices, "has none"),
        (strange_answer, "none of the choices"),
        (strange_type, "'some'"),
        (no_question, "no question"),
        (empty_choice, "its choices"),
        (null_choice, "its choices"),
        (joined_choice, "its choices"),
        (wide_box, "leaves its picture"),
        (box_elsewhere, "leaves its picture"),
        (empty_box, "leaves its picture"),
        (box_without_label, "lacks its label"),
        (number_without_tolerance, "tolerance"),
    ],
)
def test_a_row_that_cannot_be_right_is_an_error_with_its_id(
    changed: Changed, spoil: Callable[[Row], None], says: str
) -> None:
    is_it = one_of("busi")
    named: list[str] = []

    def spoil_one(row: Row) -> None:
        if is_it(row):
            named.append(row["id"])
            spoil(row)

    with pytest.raises(CorpusError) as caught:
        list(examples(opened(changed(spoil_one), sources=("busi",)).rows(TRAIN)))
    assert str(caught.value).startswith(f"{named[0]}: ")
    assert says in str(caught.value)


def test_a_signal_is_drawn_on_paper_as_the_recipe_says(corpus_folder: Path) -> None:
    row_id, row = next(
        (i, r) for i, r in stored_rows(corpus_folder).items() if r["source"] == "ptb-xl" and r["split"] == "train"
    )
    signal = row["signals"][0]
    names = signal["lead_names"]
    layouts = {
        ("3x4", 4.0, "II"): standard_layout(4.0),
        ("column", 2.0, "II"): column_layout(names, pixels_per_mm=2.0),
        ("single", 2.0, "V5"): picture_layout("V5", 125, 125),
    }
    for (layout, pixels_per_mm, lead), paper in layouts.items():
        keys = {"ecg_layout": layout, "ecg_pixels_per_mm": pixels_per_mm, "ecg_lead": lead}
        example = only(opened(corpus_folder, sources=("ptb-xl",), **keys).rows(TRAIN), row_id)
        drawn = draw_ecg_paper(millivolts(signal), signal["sampling_frequency_hz"], names, paper)
        assert len(example.pictures) == 1
        assert np.array_equal(np.asarray(example.pictures[0]), drawn)


def without_v6(signal: Row) -> None:
    at = signal["lead_names"].index("V6")
    for name in ("lead_names", "samples", "scale", "offset"):
        del signal[name][at]


def in_volts(signal: Row) -> None:
    signal["unit"] = "V"


def of_gaps(signal: Row) -> None:
    signal["samples"] = [[MISSING] * len(lead) for lead in signal["samples"]]


def of_unequal_leads(signal: Row) -> None:
    signal["samples"][3] = signal["samples"][3][:-1]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_v6, "lead_missing). Set data.ecg_layout to column."),
        (in_volts, "unit_unknown"),
        (of_gaps, "signal_all_missing"),
        (of_unequal_leads, "header_mismatch"),
    ],
)
def test_a_signal_that_cannot_be_drawn_is_an_error_with_the_rows_id(
    changed: Changed, spoil: Callable[[Row], None], says: str
) -> None:
    is_it = one_of("ptb-xl")
    named: list[str] = []

    def spoil_one(row: Row) -> None:
        if is_it(row):
            named.append(row["id"])
            spoil(row["signals"][0])

    folder = changed(spoil_one)
    with pytest.raises(CorpusError) as caught:
        list(examples(opened(folder, sources=("ptb-xl",)).rows(TRAIN)))
    assert str(caught.value).startswith(f"{named[0]}: ")
    assert says in str(caught.value)
    if spoil is without_v6:
        found = only(opened(folder, sources=("ptb-xl",), ecg_layout="column").rows(TRAIN), named[0])
        assert found.pictures[0].height == column_layout(["I"] * 11).shape_px[0]


# Label maps


@pytest.fixture(scope="module")
def masked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of two sources with masks, whose recipe stores the label maps, and one that has none."""
    folder, inputs = tmp_path_factory.mktemp("masked"), []
    names = {"busi": 8, "ham10000": 4, "jichi": 3}
    recipe = Recipe.model_validate({"name": "masked", "masks": True, "sources": [{"name": name} for name in names]})
    for entry in recipe.sources:
        raw = tmp_path_factory.mktemp(entry.name)
        get_source(entry.name).synthesize(raw, 5, names[entry.name])
        inputs.append(SourceInput(get_source(entry.name), entry, Store(raw), synthetic=True))
    build_corpus(recipe, inputs, Store(folder), LocalEngine(1), None)
    return folder


def test_label_maps_are_those_of_the_row_and_its_boxes(masked_folder: Path) -> None:
    rows = stored_rows(masked_folder)
    corpus = Corpus(DataRecipe(corpus=str(masked_folder)), with_masks=True)
    marked = set()
    for split in Split:
        for example in examples(corpus.rows(split)):
            stored = rows[example.row_id]["masks"]
            if example.source == "jichi":
                assert (stored, example.masks) == ([], ())
                continue
            (mask,) = example.masks
            assert mask.shape[::-1] == example.pictures[0].size
            assert np.array_equal(mask, np.asarray(Image.open(io.BytesIO(stored[0]["bytes"]))) > 0)
            inside = np.zeros_like(mask)
            for box in example.boxes:
                x0, y0, x1, y1 = box.xyxy
                inside[y0:y1, x0:x1] = True
                assert mask[y0:y1, x0:x1].any()
            assert not (mask & ~inside).any()
            marked.add(bool(mask.any()))
    assert marked == {True, False}


def test_label_maps_are_read_only_where_they_are_asked_for(masked_folder: Path) -> None:
    assert all(example.masks == () for example in examples(opened(masked_folder).rows(TRAIN)))


def test_filters_keep_each_rows_own_label_map(masked_folder: Path, tmp_path: Path) -> None:
    # Every second row is given another task, and is left out.
    folder = Path(shutil.copytree(masked_folder, tmp_path / "copy"))
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["shards"]:
        rows = pq.read_table(folder / entry["path"]).to_pylist()
        for number, row in enumerate(rows):
            row["task"] = "other" if number % 2 == 0 else row["task"]
        data = table_to_parquet(pa.Table.from_pylist(rows, SCHEMA), "lz4")
        (folder / entry["path"]).write_bytes(data)
        entry["bytes"] = len(data)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    whole = Corpus(DataRecipe(corpus=str(masked_folder)), with_masks=True)
    masks = {e.row_id: e.masks for split in Split for e in examples(whole.rows(split))}
    kept = Corpus(DataRecipe(corpus=str(folder), sources=("busi",), tasks=("diagnosis",)), with_masks=True)
    found = [e for split in Split for e in examples(kept.rows(split))]
    assert len(found) > 1
    assert all(np.array_equal(e.masks[0], masks[e.row_id][0]) for e in found)


def a_map(values: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(values, np.uint8)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([a_map([[1]]), a_map([[1]])], r"2 label map\(s\) do not say which of 1 pictures.*rewards\.box_truth"),
        ([a_map(np.ones((3, 2)))], "label map 1 is 2 x 3, its picture"),
        ([{"bytes": None, "path": None}], "label map 1 of 1 has no bytes"),
        ([None], "label map 1 of 1 has no bytes"),
        ([a_map(np.zeros((4, 4, 3)))], "label map 1 of 1: pixels of mode RGB"),
        ([{"bytes": a_map(np.ones((9, 9)))["bytes"][:50], "path": None}], "label map 1 of 1: "),
    ],
)
def test_b01_a_label_map_that_cannot_be_right_names_its_row(
    masks: list[Any], message: str, corpus_folder: Path, changed: Changed
) -> None:
    row_id = min(name for name, row in stored_rows(corpus_folder).items() if row["source"] == "busi")

    def change(row: Row) -> None:
        if row["id"] == row_id:
            row["masks"] = masks

    folder = changed(change)
    split = Split(stored_rows(folder)[row_id]["split"])
    corpus = Corpus(DataRecipe(corpus=str(folder)), with_masks=True)
    with pytest.raises(CorpusError, match=f"^{row_id}: .*{message}"):
        only(corpus.rows(split), row_id)
    assert only(opened(folder).rows(split), row_id).masks == ()
