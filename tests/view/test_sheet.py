"""Sheets of rows: boxes where they belong, traces on paper, text that fits, and rows that differ."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render_images import render_image
from qoq_data.corpus.shard import Row, rows_to_table
from qoq_data.errors import CorpusError, UsageError
from qoq_data.formats.image import decode_image, encode_image
from qoq_data.formats.storage import Store
from qoq_data.recipe import default_recipe
from qoq_data.view.lettering import clip, drawable, width, wrap
from qoq_data.view.media import BOX_COLOURS, draw_image, draw_signal
from qoq_data.view.panel import draw_panel
from qoq_data.view.pick import COLUMNS, SYNTHETIC
from qoq_data.view.sheet import draw_sheet, pick_rows, sheet_png
from tests.publish.corpora import BUSI, GAP, PTB_XL, default_rows, ecg_row, picture_row, write_corpus


def plain(*rows: Row) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rows_to_table(rows).to_pylist()
    return found


def box(label: str, *xyxy: int, image: int = 0, agreement: float | None = None) -> dict[str, Any]:
    return {"label": label, "image": image, "xyxy": list(xyxy), "agreement": agreement}


def coloured(picture: np.ndarray[Any, Any], colour: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    return np.argwhere((picture == colour).all(axis=2))


def test_a_box_is_drawn_round_what_it_holds_and_not_over_it() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[50:80, 60:120] = (10, 20, 200)
    data = encode_image(pixels, "PNG")
    bare = draw_image(data, [], 800)
    drawn = draw_image(data, [box("lesion", 60, 50, 120, 80)], 810)  # 800 and a frame of 5
    assert drawn.shape == (410, 810, 3)
    lesion = drawn[205:325, 245:485]
    assert np.array_equal(lesion, bare[200:320, 240:480])
    for line in (drawn[203, 245:485], drawn[326, 245:485], drawn[205:325, 243], drawn[205:325, 486]):
        assert (line == BOX_COLOURS[0]).all()
    for hair in (drawn[204, 245:485], drawn[325, 245:485], drawn[205:325, 244], drawn[205:325, 485]):
        assert (hair == (12, 14, 20)).all()
    tag = coloured(drawn[:200], BOX_COLOURS[0])
    assert len(tag) > 500
    assert tag[:, 1].min() > 235


def test_the_sides_of_a_box_at_the_edge_of_a_picture_are_seen() -> None:
    data = encode_image(np.zeros((100, 200, 3), np.uint8), "PNG")
    drawn = draw_image(data, [box("lesion", 0, 0, 200, 100)], 810)
    for line in (drawn[2, 50:-50], drawn[-3, 200:-50], drawn[50:-50, 2], drawn[50:-50, -3]):
        assert (line == BOX_COLOURS[0]).all()


def test_each_label_has_its_colour_and_a_box_of_another_image_is_not_drawn() -> None:
    row = plain(picture_row(1, "train"))[0]
    row["boxes"] = [box("mass", 10, 10, 20, 20), box("calcification", 40, 30, 60, 50), box("cyst", 1, 1, 9, 9, image=1)]
    panel = draw_panel(row, 600)
    assert len(coloured(panel, BOX_COLOURS[0]))
    assert len(coloured(panel, BOX_COLOURS[1]))
    assert not len(coloured(panel, BOX_COLOURS[2]))


def test_a_box_at_the_edge_keeps_its_label_inside_the_picture() -> None:
    data = encode_image(np.zeros((50, 50, 3), np.uint8), "PNG")
    drawn = draw_image(data, [box("a label that is long", 40, 0, 50, 50, agreement=0.67)], 300)
    assert drawn.shape[1] == drawn.shape[0] == round(0.8 * 292) + 8
    assert len(coloured(drawn, BOX_COLOURS[0])) > 300


def test_a_tall_picture_does_not_fill_the_sheet() -> None:
    data = encode_image(np.zeros((1000, 100, 3), np.uint8), "PNG")
    assert draw_image(data, [], 500).shape == (400, 40, 3)


def test_a_signal_stands_on_paper_as_wide_as_asked_and_a_gap_is_bare() -> None:
    signal = plain(ecg_row(1, "train"))[0]["signals"][0]
    drawn = draw_signal(signal, 900)
    assert drawn.shape[1] == 900
    whole = {**signal, "samples": [[0 if value == -32768 else value for value in lead] for lead in signal["samples"]]}
    differing = np.argwhere((draw_signal(whole, 900) != drawn).any(axis=2))
    assert len(differing)
    # aVR is the second of four in the first row: seconds 1.25 to 2.5 of five; the gap is seconds 1.0 to 1.4.
    share = (differing[:, 1].min() - 58) / (900 - 58)
    assert GAP.stop == 140
    assert 0.2 < share < 0.3
    assert differing[:, 0].max() < drawn.shape[0] / 3


def test_a_signal_with_few_leads_or_seconds_has_a_row_a_lead() -> None:
    signal = plain(ecg_row(1, "train"))[0]["signals"][0]
    two = {name: signal[name][:2] if isinstance(signal[name], list) else signal[name] for name in signal}
    assert draw_signal(two, 600).shape[0] < draw_signal(signal, 600).shape[0]
    short = {**signal, "samples": [lead[:200] for lead in signal["samples"]]}
    assert draw_signal(short, 600).shape[0] > draw_signal(signal, 600).shape[0]


def test_a_signal_in_another_unit_is_said_and_not_drawn() -> None:
    row = plain(ecg_row(1, "train"))[0]
    drawn = draw_panel(row, 600)
    row["signals"][0]["unit"] = "adu"
    assert draw_panel(row, 600).shape[0] < drawn.shape[0] - 100


def test_a_row_that_stores_its_paper_shows_that_and_does_not_draw_it_twice() -> None:
    ecg, picture = plain(ecg_row(1, "train"), picture_row(1, "train"))
    once = draw_panel(ecg, 600)
    ecg["images"], ecg["views"] = picture["images"], [{**picture["views"][0], "view": "ECG paper"}]
    stored = draw_panel(ecg, 600)
    assert len(coloured(once, (255, 250, 247))) > 1000
    assert not len(coloured(stored, (255, 250, 247)))


def test_the_answers_are_marked_and_nothing_else() -> None:
    row = plain(ecg_row(2, "train", answer=("Myocardial infarction", "Hypertrophy")))[0]
    green = (219, 243, 229)
    two = len(coloured(draw_panel(row, 900), green))
    row["answer"] = ["Hypertrophy"]
    one = len(coloured(draw_panel(row, 900), green))
    row["answer"] = []
    assert two > one > 0
    assert not len(coloured(draw_panel(row, 900), green))


def test_a_number_is_shown_with_its_tolerance() -> None:
    row = plain(ecg_row(1, "train"))[0]
    row |= {"choices": [], "answer": ["74"], "answer_type": "number", "tolerance": None}
    bare = draw_panel(row, 600)
    row["tolerance"] = 5.0
    assert len(coloured(draw_panel(row, 600), (219, 243, 229))) > len(coloured(bare, (219, 243, 229)))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.text(max_size=120), st.integers(12, 30), st.integers(30, 400))
def test_lines_fit_their_width_and_lose_no_letter(text: str, size_px: int, width_px: int) -> None:
    lines = wrap(text, size_px, width_px)
    assert all(width(line, size_px) <= width_px or len(line) == 1 for line in lines)
    assert "".join(lines).replace(" ", "") == drawable(text).replace(" ", "")
    assert width(clip(text, size_px, width_px), size_px) <= width_px


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("QRS ≥ 120 ms", "QRS >= 120 ms"),
        ("Müller, 5 µV × 2", "Muller, 5 uV x 2"),
        ("心電図", "???"),
        ("a\n\tb\x00", "a b?"),
    ],
)
def test_letters_that_the_font_lacks_are_written_in_others(text: str, drawn: str) -> None:
    assert drawable(text) == drawn


def test_panels_go_under_the_shortest_column() -> None:
    rows = plain(*default_rows())
    sheet = draw_sheet(rows, 2, 1000)
    assert sheet.shape[1] == 1000
    panels = sum(draw_panel(row, (1000 - 3 * 12) // 2).shape[0] for row in rows)
    assert panels / 2 < sheet.shape[0] < panels * 0.75
    assert np.array_equal(sheet, draw_sheet(rows, 2, 1000))


def test_a_sheet_as_png_is_the_sheet() -> None:
    rows = plain(picture_row(1, "train"))
    decoded = np.asarray(Image.open(io.BytesIO(sheet_png(rows, 2, 700))))
    assert np.array_equal(decoded, draw_sheet(rows, 2, 700))
    assert decoded.shape[1] == 700


def test_no_row_a_narrow_panel_and_a_huge_sheet_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = plain(picture_row(1, "train"))
    with pytest.raises(UsageError, match="no row"):
        draw_sheet([])
    with pytest.raises(UsageError, match="nothing can be read"):
        draw_sheet(rows * 9, 9, 1000)
    with pytest.raises(UsageError, match="nothing can be read"):
        draw_sheet(rows, 0, 1000)
    monkeypatch.setattr("qoq_data.view.sheet.MAX_PIXELS", 500_000)
    with pytest.raises(UsageError, match="draw fewer rows"):
        draw_sheet(rows * 3, 1, 500)


def test_rows_are_picked_from_every_source_task_and_label(tmp_path: Path) -> None:
    sinus = [ecg_row(number, "train", "rhythm", ("Sinus rhythm",)) for number in range(20, 40)]
    manifest = write_corpus(tmp_path, [*default_rows(), *sinus])
    rows = pick_rows(Store(tmp_path), manifest, 4, 0)
    assert set(rows[0]) == {*COLUMNS, SYNTHETIC}
    of_ecg = [row for row in rows if row["source"] == "ptb-xl"]
    assert Counter(row["task"] for row in of_ecg) == {"superclass": 2, "rhythm": 2}
    labels = [label for row in of_ecg for label in row["answer"]]
    assert len(labels) == len(set(labels))
    assert {row["split"] for row in of_ecg} == {"train", "test"}
    assert sorted(row["answer"][0] for row in rows if row["source"] == "busi") == ["Benign", "Benign", "Malignant"]


def test_a_rare_task_is_picked_beside_one_with_many_labels(tmp_path: Path) -> None:
    rhythms = [choice.text for choice in PTB_XL.spec.task("rhythm").choices]
    many = [ecg_row(number, "train", "rhythm", (label,)) for number, label in enumerate(rhythms)]
    manifest = write_corpus(tmp_path, [*many, ecg_row(99, "train")])
    for seed in range(4):
        assert {row["task"] for row in pick_rows(Store(tmp_path), manifest, 2, seed)} == {"rhythm", "superclass"}


def test_the_same_seed_picks_the_same_rows_and_another_picks_others(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, [ecg_row(number, "train") for number in range(40)])
    picks = {tuple(row["id"] for row in pick_rows(Store(tmp_path), manifest, 2, seed)) for seed in (0, 0, 1, 2, 3, 4)}
    assert 3 <= len(picks) <= 5


def test_generated_rows_are_marked_as_such_on_the_sheet(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, default_rows(), synthetic=("busi",))
    for row in pick_rows(Store(tmp_path), manifest, 1, 0):
        marked = len(coloured(draw_panel(row, 600), (176, 42, 48))) > 100
        assert marked == (row["source"] == "busi")


def test_a_shard_that_is_gone_is_an_error_of_the_corpus(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, default_rows())
    (tmp_path / manifest.shards[0].path).unlink()
    with pytest.raises(CorpusError, match="absent or damaged"):
        pick_rows(Store(tmp_path), manifest, 2, 0)


def test_boxes_of_a_real_picture_are_drawn_round_its_masks(realdata: Path) -> None:
    stem = "Dataset_BUSI_with_GT/benign/benign (25)"
    masks = [MediaReference("mask", "mask", f"{stem}{end}.png", "lesion") for end in ("_mask", "_mask_1")]
    tree = Store(realdata / "busi")
    rendered = render_image(tree, MediaReference("image", "image", f"{stem}.png", ""), masks, 0, default_recipe(BUSI))
    drawn = draw_image(rendered.data, [box("lesion", *one.xyxy) for one in rendered.boxes], 900)
    height, wide = decode_image(rendered.data, stem).pixels.shape[:2]
    assert len(rendered.boxes) == 2
    frame = 5
    scale = (900 - 2 * frame) / wide
    for mask in masks:
        inside = np.asarray(Image.open(io.BytesIO(tree.read(mask.path))).convert("L")) > 0
        columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
        left, right = (round(x * wide / inside.shape[1] * scale) + frame for x in (columns[0], columns[-1] + 1))
        middle = round(rows.mean() * height / inside.shape[0] * scale) + frame
        assert (drawn[middle, left - 8 : left + 4] == BOX_COLOURS[0]).all(axis=1).any()
        assert (drawn[middle, right - 4 : right + 8] == BOX_COLOURS[0]).all(axis=1).any()
