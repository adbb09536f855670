"""Boxes of a publisher's tables: what an item table may hold of them, and what becomes of them in a stored picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from qoq_data.corpus.items import checked_items
from qoq_data.corpus.references import GivenBox, MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.errors import Reason, RecordError, SourceError
from qoq_data.formats.storage import Store
from qoq_data.source import BOXES_TYPE, ITEM_COLUMNS
from tests.corpus.building import make_recipe, source

BUSI = source("busi")
PNG = make_recipe("busi").model_copy(
    update={"images": make_recipe("busi").images.model_copy(update={"encoding": "png"})}
)
SOUND: dict[str, Any] = {"label": "mass", "image": 0, "x0": 2.0, "y0": 3.0, "x1": 8.5, "y1": 9.0, "agreement": 2 / 3}


def items_with(*boxes: dict[str, Any]) -> pl.DataFrame:
    medium = {"role": "image", "kind": "image", "path": "a.png", "part": ""}
    row = {
        "item": "a", "patient": None, "group": "a", "study": None, "official_split": None,
        "media": [medium, {**medium, "kind": "mask", "path": "m.png"}], "label_file": "t.csv", "label_row": "1",
    }  # fmt: skip
    answers = [pl.Series(f"answer.{task.name}", [None], pl.List(pl.String)) for task in BUSI.spec.tasks]
    table = pl.DataFrame([row], schema=dict(ITEM_COLUMNS)).with_columns(*answers)
    return table.with_columns(pl.Series("boxes", [list(boxes)], BOXES_TYPE))


def rendered(folder: Path, *boxes: GivenBox, size: tuple[int, int] = (40, 30)) -> Any:
    Image.fromarray(np.zeros((size[1], size[0]), np.uint8)).save(folder / "a.png")
    return render_media(Store(folder), [MediaReference("image", "image", "a.png", "")], PNG, boxes=boxes)


def test_sound_boxes_and_none_are_kept() -> None:
    assert checked_items(BUSI, items_with(SOUND, {**SOUND, "agreement": None})).height == 1
    assert checked_items(BUSI, items_with()).height == 1
    nothing = items_with().with_columns(pl.Series("boxes", [None], BOXES_TYPE))
    assert checked_items(BUSI, nothing).height == 1


@pytest.mark.parametrize(
    "change",
    [
        {"label": None}, {"image": 1}, {"image": -1}, {"image": None}, {"x0": 8.5}, {"y1": 3.0}, {"x1": None},
        {"x1": float("inf")}, {"y0": float("nan")}, {"agreement": 1.5}, {"agreement": -0.1},
    ],
)  # fmt: skip
def test_a_box_that_cannot_be_is_a_fault_of_the_source(change: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match=r"^busi: a box of its item table has no label, no area, or is of no picture"):
        checked_items(BUSI, items_with(SOUND, SOUND | change))


def test_a_column_of_another_type_is_named() -> None:
    wrong = items_with().with_columns(pl.Series("boxes", [["a"]], pl.List(pl.String)))
    with pytest.raises(SourceError, match="the column 'boxes' of its item table is List"):
        checked_items(BUSI, wrong)


def test_edges_are_rounded_outwards_and_agreement_stays(tmp_path: Path) -> None:
    media = rendered(tmp_path, GivenBox("mass", 0, (2.2, 3.0, 8.5, 9.9), 2 / 3), GivenBox("mass", 0, (0, 0, 40, 30)))
    assert [box.xyxy for box in media.boxes] == [(2, 3, 9, 10), (0, 0, 40, 30)]
    assert [box.agreement for box in media.boxes] == [2 / 3, None]
    assert not media.quality


def test_a_box_over_the_edge_is_cut_there_and_said(tmp_path: Path) -> None:
    media = rendered(tmp_path, GivenBox("mass", 0, (-4, 3, 8, 31.5)), GivenBox("mass", 0, (-0.5, 3, 8, 30.4)))
    assert [box.xyxy for box in media.boxes] == [(0, 3, 8, 30), (0, 3, 8, 30)]
    assert [(one.code, one.where, one.value) for one in media.quality] == [("box_cut_at_the_edge", "image 0", 1.0)]


def test_a_box_outside_its_picture_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(RecordError) as caught:
        rendered(tmp_path, GivenBox("mass", 0, (40, 3, 48, 9)))
    assert (caught.value.reason, caught.value.path) == (Reason.MASK_CONFLICT, "a.png")


def test_boxes_follow_their_picture_when_it_is_scaled(tmp_path: Path) -> None:
    media = rendered(tmp_path, GivenBox("mass", 0, (100, 200, 300, 600)), size=(2048, 1024))
    with Image.open(io.BytesIO(media.images[0])) as image:
        assert image.size == (1024, 512)
    assert [box.xyxy for box in media.boxes] == [(50, 100, 150, 300)]


def test_boxes_go_to_the_picture_that_they_are_of(tmp_path: Path) -> None:
    for name, width in (("a", 40), ("b", 60)):
        Image.fromarray(np.zeros((30, width), np.uint8)).save(tmp_path / f"{name}.png")
    Image.fromarray(np.pad(np.full((4, 4), 255, np.uint8), ((5, 21), (6, 30)))).save(tmp_path / "m.png")
    references = [
        MediaReference("image", "image", "a.png", ""),
        MediaReference("mask", "mask", "m.png", "drawn"),
        MediaReference("image", "image", "b.png", ""),
    ]
    boxes = [GivenBox("first", 0, (1, 1, 5, 5)), GivenBox("second", 1, (50, 1, 60, 5))]
    media = render_media(Store(tmp_path), references, PNG, boxes=boxes)
    assert [(box.label, box.image, box.xyxy) for box in media.boxes] == [
        ("drawn", 0, (6, 5, 10, 9)),
        ("first", 0, (1, 1, 5, 5)),
        ("second", 1, (50, 1, 60, 5)),
    ]
