"""DICOM files as media of an item: the picture and the masks in the row, and what the inspect step reads of headers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from qoq_data.clinical.synthetic_dicom import view_attributes, write_dicom
from qoq_data.corpus.inspectors import INSPECTORS
from qoq_data.corpus.pictures import read_picture
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.storage import RecordingStore, Store
from qoq_data.recipe import Recipe, SourceRecipe
from qoq_data.record import Media

RECIPE = Recipe(name="made", sources=(SourceRecipe(name="made"),))
FILM = (np.add.outer(np.arange(1500), np.arange(1200)) % 4096).astype(np.uint16)
MASK = np.zeros(FILM.shape, np.uint8)
MASK[300:600, 400:700] = 255
PICTURE = MediaReference("image", "dicom", "film.dcm", "CC")


def put(folder: Path, name: str, pixels: np.ndarray, **attributes: Any) -> None:
    data = write_dicom(pixels, study="s", series="e", instance=name, kind="MG", attributes=attributes)
    (folder / name).write_bytes(data)


@pytest.fixture
def tree(tmp_path: Path) -> Store:
    side = {"ImageLaterality": "R", "InstanceNumber": 2, "BurnedInAnnotation": "YES", **view_attributes("CC")}
    put(tmp_path, "film.dcm", FILM, PixelSpacing=[0.2, 0.1], WindowCenter=2048, WindowWidth=4096, **side)
    put(tmp_path, "mask.dcm", MASK)
    put(tmp_path, "plain.dcm", FILM[:10, :20])
    return Store(tmp_path)


def rendered(tree: Store, *references: MediaReference) -> Media:
    return render_media(tree, references, RECIPE)


def test_a_row_has_the_picture_with_its_side_window_spacing_and_findings(tree: Store) -> None:
    media = rendered(tree, PICTURE)
    stored = Image.open(io.BytesIO(media.images[0]))
    assert (stored.format, stored.mode) == ("JPEG", "L")
    assert stored.height / stored.width == pytest.approx(1500 * 2 / 1200, rel=0.01)  # pixels twice as high as wide
    view = media.views[0]
    assert (view.view, view.window, view.laterality) == ("CC", "2048/4096", "right")
    assert view.spacing_mm == pytest.approx((1500 * 0.2 / stored.height, 1200 * 0.1 / stored.width))
    assert [finding.code for finding in media.quality] == ["burned_in_annotation"]
    assert "window 2048/4096" in media.provenance[0].taken
    assert media.images[0] != (tree.read("film.dcm"))


def test_the_publishers_side_comes_before_the_files(tree: Store) -> None:
    reference = MediaReference("image", "dicom", "film.dcm", "CC", laterality="left")
    assert rendered(tree, reference).views[0].laterality == "left"


def test_boxes_of_a_dicom_mask_lie_on_the_stored_picture(tree: Store) -> None:
    media = rendered(tree, PICTURE, MediaReference("mask", "dicom_mask", "mask.dcm", "mass"))
    width, height = Image.open(io.BytesIO(media.images[0])).size
    assert [box.label for box in media.boxes] == ["mass"]
    expected = (400 * width / 1200, 300 * height / 1500, 700 * width / 1200, 600 * height / 1500)
    assert media.boxes[0].xyxy == pytest.approx(expected, abs=1)


def test_a_display_window_is_the_references(tmp_path: Path) -> None:
    put(tmp_path, "ct.dcm", FILM[:64, :64], RescaleSlope=1, RescaleIntercept=-1024)
    read = read_picture(Store(tmp_path), MediaReference("image", "dicom", "ct.dcm", "", display="lung"))
    assert read.decoded.window == "lung, -600/1500"
    assert read.original is None


def test_a_frame_of_a_file_with_several_is_the_one_that_is_named(tmp_path: Path) -> None:
    films = np.stack([FILM[:64, :64], FILM[:64, :64][::-1], FILM[:64, :64].T])
    marks = np.zeros((3, 64, 64), np.uint8)
    marks[1, 10:20, 30:50] = 1
    put(tmp_path, "films.dcm", films, WindowCenter=60, WindowWidth=128)
    put(tmp_path, "marks.dcm", marks)
    entry = {"role": "image", "kind": "dicom", "path": "films.dcm", "part": "", "frame": 1}
    mark = {"role": "mask", "kind": "dicom_mask", "path": "marks.dcm", "part": "mass", "frame": 1}
    media = rendered(Store(tmp_path), MediaReference.of(entry), MediaReference.of(mark))
    hand = np.clip(((films[1] - 59.5) / 127 + 0.5) * 255, 0, 255)
    stored = np.asarray(Image.open(io.BytesIO(media.images[0])))
    assert np.abs(stored - hand).mean() < 2
    assert np.abs(stored - hand[::-1]).mean() > 20
    assert "frame 2 of 3" in media.provenance[0].taken
    assert [box.xyxy for box in media.boxes] == [(30, 10, 50, 20)]
    first = rendered(
        Store(tmp_path), MediaReference.of(entry | {"frame": None}), MediaReference.of(mark | {"frame": 0})
    )
    assert first.images != media.images
    assert first.boxes == ()
    with pytest.raises(RecordError) as caught:
        rendered(Store(tmp_path), MediaReference.of(entry | {"frame": 3}))
    assert caught.value.reason == Reason.HEADER_MISMATCH


def test_headers_are_facts(tree: Store) -> None:
    inspector = INSPECTORS["dicom_headers"]
    seen = RecordingStore(tree.address)
    mask = MediaReference("mask", "dicom_mask", "mask.dcm", "mass")
    facts = inspector.measure(seen, [PICTURE, mask, MediaReference("image", "dicom", "plain.dcm", "")])
    frame = pl.DataFrame([facts], schema=inspector.schema)["files"].explode().struct.unnest()
    assert frame.rows(named=True) == [
        {
            "path": "film.dcm", "laterality": "right", "view": "CC", "view_code": "399162004", "instance_number": 2,
            "rows": 1500, "columns": 1200, "burned_in": True,
        },
        {
            "path": "plain.dcm", "laterality": "", "view": "", "view_code": "", "instance_number": None, "rows": 10,
            "columns": 20, "burned_in": None,
        },
    ]  # fmt: skip
    assert sorted(seen.seen) == ["film.dcm", "plain.dcm"]


@pytest.mark.parametrize("name", ["absent.dcm", "text.dcm"])
def test_a_header_that_cannot_be_read_is_a_reason(tree: Store, name: str) -> None:
    Path(tree.address, "text.dcm").write_text("no such thing" * 20)
    with pytest.raises(RecordError) as caught:
        INSPECTORS["dicom_headers"].measure(tree, [MediaReference("image", "dicom", name, "")])
    assert caught.value.reason in (Reason.FILE_MISSING, Reason.FORMAT_UNSUPPORTED)
    assert caught.value.path == name
