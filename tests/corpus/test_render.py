"""Rows of recipes against what wfdb, scipy and Pillow make of the same files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal

from qoq_data.clinical.ecg_paper import draw_ecg_paper, standard_layout
from qoq_data.record import millivolts
from tests.corpus.building import build, ledger_of, make_recipe, record_path, rewrite_record, rows_of

Trees = Callable[[str], Path]
PICTURES = "Dataset_BUSI_with_GT"


def ecg_rows(tree: Path, out: Path, **signals: Any) -> dict[str, dict[str, Any]]:
    build(out, make_recipe("ptb-xl", signals=signals), {"ptb-xl": tree})
    return {key.split("/")[1]: row for key, row in rows_of(out).items()}


def picture_rows(tree: Path, out: Path, **keys: Any) -> dict[str, dict[str, Any]]:
    build(out, make_recipe("busi", **keys), {"busi": tree})
    return {key.split("/")[1]: row for key, row in rows_of(out).items()}


def physical(tree: Path, ecg_id: str) -> NDArray[np.float64]:
    """Leads in rows, in millivolts, as wfdb reads them."""
    return np.asarray(wfdb.rdrecord(str(record_path(tree, int(ecg_id)))).p_signal).T


def test_rows_hold_what_wfdb_reads(pristine: Trees, tmp_path: Path) -> None:
    tree = pristine("ptb-xl")
    rows = ecg_rows(tree, tmp_path / "out")
    assert len(rows) == 16
    for ecg_id, row in rows.items():
        stored = row["signals"][0]
        digital = wfdb.rdrecord(str(record_path(tree, int(ecg_id))), physical=False)
        assert stored["lead_names"] == digital.sig_name
        assert stored["sampling_frequency_hz"] == digital.fs == 100
        assert np.array_equal(np.array(stored["samples"]), digital.d_signal.T)
        assert np.abs(millivolts(stored) - physical(tree, ecg_id)).max() < 1e-6
        assert row["images"] == []
        for one in row["provenance"]:
            assert hashlib.sha256((tree / one["path"]).read_bytes()).hexdigest() == one["sha256"]
        assert [one["role"] for one in row["provenance"]] == ["ecg header", "ecg", "label"]


def test_resampling_agrees_with_scipy_inside_a_recording(pristine: Trees, tmp_path: Path) -> None:
    rows = ecg_rows(pristine("ptb-xl"), tmp_path / "out", resample_hz=250)
    for ecg_id in ("00001", "00002"):
        stored = rows[ecg_id]["signals"][0]
        assert stored["sampling_frequency_hz"] == 250
        assert np.array(stored["samples"]).shape == (12, 2500)
        expected = signal.resample_poly(physical(pristine("ptb-xl"), ecg_id), 5, 2, axis=1, padtype="line")
        error = np.abs(millivolts(stored) - expected)[:, 50:-50]
        assert error.max() < 0.02 * np.abs(expected).max()
        assert "resampled from 100 to 250 Hz" in rows[ecg_id]["provenance"][1]["taken"]


def test_a_window_is_the_first_seconds_and_a_short_recording_ends_in_gaps(copied: Trees, tmp_path: Path) -> None:
    tree = copied("ptb-xl")
    rewrite_record(record_path(tree, 2), lambda samples, names: (samples[:, :300], names))
    rows = ecg_rows(tree, tmp_path / "out", window_s=5)
    whole = np.array(rows["00001"]["signals"][0]["samples"])
    digital = wfdb.rdrecord(str(record_path(tree, 1)), physical=False).d_signal.T
    assert np.array_equal(whole, digital[:, :500])
    short = millivolts(rows["00002"]["signals"][0])
    assert short.shape == (12, 500)
    assert np.isnan(short[:, 300:]).all()
    assert np.abs(short[:, :300] - physical(tree, "00002")).max() < 0.001


def test_leads_are_taken_by_name(pristine: Trees, tmp_path: Path) -> None:
    rows = ecg_rows(pristine("ptb-xl"), tmp_path / "out", leads=["V5", "aVR", "II"])
    stored = rows["00001"]["signals"][0]
    names = wfdb.rdrecord(str(record_path(pristine("ptb-xl"), 1))).sig_name
    expected = physical(pristine("ptb-xl"), "00001")[[names.index("V5"), names.index("AVR"), names.index("II")]]
    assert stored["lead_names"] == ["V5", "aVR", "II"]
    assert stored["derived_leads"] == []
    assert np.abs(millivolts(stored) - expected).max() < 0.0006


def test_e03_gaps_stay_gaps_through_every_step(copied: Trees, tmp_path: Path) -> None:
    """Three samples of the code for 'missing' in V3: a gap in the row, no spike, and no gap anywhere else."""
    tree = copied("ptb-xl")

    def gap(samples: Any, names: list[str]) -> tuple[Any, list[str]]:
        samples[names.index("V3"), 400:403] = -32768
        return samples, names

    rewrite_record(record_path(tree, 1), gap)
    recipes: tuple[dict[str, Any], ...] = ({}, {"resample_hz": 250, "window_s": 8, "leads": ["V2", "V3", "V4"]})
    for number, signals in enumerate(recipes):
        stored = ecg_rows(tree, tmp_path / str(number), **signals)["00001"]["signals"][0]
        values = millivolts(stored)
        at = stored["lead_names"].index("V3")
        rate = stored["sampling_frequency_hz"]
        missing = np.flatnonzero(np.isnan(values[at])) / rate
        assert missing.size
        assert missing.min() >= 3.9
        assert missing.max() <= 4.12
        others = np.delete(values, at, axis=0)
        assert not np.isnan(others).any()
        assert np.nanmax(np.abs(values)) < 6


def test_paper_is_the_drawing_of_the_stored_signal(pristine: Trees, tmp_path: Path) -> None:
    rows = ecg_rows(pristine("ptb-xl"), tmp_path / "out", paper={"layout": "3x4", "pixels_per_mm": 2})
    row = rows["00001"]
    drawn = np.asarray(Image.open(io.BytesIO(row["images"][0]["bytes"])))
    stored = row["signals"][0]
    assert np.array_equal(drawn, draw_ecg_paper(millivolts(stored), 100, stored["lead_names"], standard_layout(2)))
    assert row["views"][0]["view"] == "ECG paper"
    assert row["views"][0]["spacing_mm"] == [0.5, 0.5]
    one = ecg_rows(pristine("ptb-xl"), tmp_path / "one", paper={"layout": "single", "lead": "V1", "side_px": 64})
    assert Image.open(io.BytesIO(one["00001"]["images"][0]["bytes"])).size == (64, 64)
    assert one["00001"]["images"] != one["00002"]["images"]


def test_checksum_mismatch_as_a_finding(copied: Trees, tmp_path: Path) -> None:
    tree = copied("ptb-xl")
    data = record_path(tree, 3).with_suffix(".dat")
    spoilt = bytearray(data.read_bytes())
    spoilt[1000] ^= 1
    data.write_bytes(spoilt)
    build(tmp_path / "skip", make_recipe("ptb-xl"), {"ptb-xl": tree})
    assert [line["reason"] for line in ledger_of(tmp_path / "skip")] == ["checksum_mismatch"]
    rows = ecg_rows(tree, tmp_path / "out", checksum_mismatch="finding")
    findings = {
        ecg_id for ecg_id, row in rows.items() if "checksum_mismatch" in {one["code"] for one in row["quality"]}
    }
    assert findings == {"00003"}


def mask_of(path: Path) -> NDArray[np.bool_]:
    with Image.open(path) as image:
        return np.asarray(image.convert("L")) > 127


def extents(mask: NDArray[np.bool_]) -> list[int]:
    y, x = np.nonzero(mask)
    return [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]


def test_boxes_per_component_mask_and_union(pristine: Trees, tmp_path: Path) -> None:
    tree = pristine("busi")
    rows = {per: picture_rows(tree, tmp_path / per, boxes={"per": per}) for per in ("component", "mask", "union")}
    folder = tree / PICTURES
    several = 0
    for item in rows["mask"]:
        label, number = item.split("-")
        files = sorted((folder / label).glob(f"{label} ({number})_mask*.png"))
        masks = [mask_of(path) for path in files]
        united = np.logical_or.reduce(masks)
        labelled, count = ndimage.label(united, structure=np.ones((3, 3)))
        expected = {
            "component": [extents(labelled == one) for one in range(1, count + 1)],
            "mask": [extents(mask) for mask in masks if mask.any()],
            "union": [extents(united)] if united.any() else [],
        }
        several += len(files) > 1
        for per, boxes in expected.items():
            assert sorted(box["xyxy"] for box in rows[per][item]["boxes"]) == sorted(boxes), (per, item)
            assert {box["label"] for box in rows[per][item]["boxes"]} <= {"lesion"}
    assert several


def test_untouched_pictures_pass_through_and_scaled_ones_keep_their_boxes(pristine: Trees, tmp_path: Path) -> None:
    tree = pristine("busi")
    native = picture_rows(tree, tmp_path / "native")
    small = picture_rows(tree, tmp_path / "small", images={"longest_side": 100, "encoding": "png"})
    passed = 0
    for item, row in native.items():
        label, number = item.split("-")
        data = (tree / PICTURES / label / f"{label} ({number}).png").read_bytes()
        original = Image.open(io.BytesIO(data))
        stored = Image.open(io.BytesIO(row["images"][0]["bytes"]))
        passed += row["images"][0]["bytes"] == data
        assert stored.size == original.size
        shrunk = Image.open(io.BytesIO(small[item]["images"][0]["bytes"]))
        assert shrunk.format == "PNG"
        assert max(shrunk.size) == 100
        factor = 100 / max(original.size)
        assert abs(min(shrunk.size) - min(original.size) * factor) <= 1
        reference = np.asarray(original.convert("L").resize(shrunk.size, Image.Resampling.LANCZOS), float)
        assert np.abs(np.asarray(shrunk.convert("L"), float) - reference).mean() < 6
        for large, box in zip(row["boxes"], small[item]["boxes"], strict=True):
            assert np.abs(np.array(large["xyxy"]) * factor - box["xyxy"]).max() <= 1.5
            assert box["xyxy"][2] <= shrunk.size[0]
            assert box["xyxy"][3] <= shrunk.size[1]
        assert "scaled from" in small[item]["provenance"][0]["taken"]
    assert passed


def test_jpeg_where_pixels_changed(pristine: Trees, tmp_path: Path) -> None:
    rows = picture_rows(pristine("busi"), tmp_path / "out", images={"longest_side": 100, "quality": 60})
    assert {Image.open(io.BytesIO(row["images"][0]["bytes"])).format for row in rows.values()} == {"JPEG"}


def test_masks_stand_in_the_frame_of_the_stored_picture(pristine: Trees, tmp_path: Path) -> None:
    rows = picture_rows(pristine("busi"), tmp_path / "out", masks=True, images={"longest_side": 120})
    for row in rows.values():
        picture = Image.open(io.BytesIO(row["images"][0]["bytes"]))
        stored = np.asarray(Image.open(io.BytesIO(row["masks"][0]["bytes"])))
        assert stored.shape == picture.size[::-1]
        assert set(np.unique(stored)) <= {0, 1}
        assert bool(stored.any()) == bool(row["boxes"])
        for box in row["boxes"]:
            x0, y0, x1, y1 = box["xyxy"]
            assert stored[y0:y1, x0:x1].any()
        outside = stored.copy()
        for x0, y0, x1, y1 in (box["xyxy"] for box in row["boxes"]):
            outside[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = 0
        assert not outside.any()


def test_small_components_are_dropped_only_as_asked_and_said_so(copied: Trees, tmp_path: Path) -> None:
    tree = copied("busi")
    path = tree / PICTURES / "malignant/malignant (3)_mask.png"
    mask = mask_of(path)
    mask[0, 0] = True
    Image.fromarray(mask).save(path)
    kept = picture_rows(tree, tmp_path / "kept")["malignant-3"]
    assert [0, 0, 1, 1] in [box["xyxy"] for box in kept["boxes"]]
    assert kept["quality"] == []
    dropped = picture_rows(tree, tmp_path / "dropped", boxes={"min_area_px": 5})["malignant-3"]
    assert [0, 0, 1, 1] not in [box["xyxy"] for box in dropped["boxes"]]
    assert [(one["code"], one["value"]) for one in dropped["quality"]] == [("small_components_dropped", 1.0)]


@pytest.mark.parametrize("seed", [0, 1])
def test_answers_are_choices_and_the_draw_of_one_task_is_a_row_of_all(
    seed: int, pristine: Trees, tmp_path: Path
) -> None:
    recipe = make_recipe("ptb-xl", seed=seed)
    build(tmp_path / "all", recipe, {"ptb-xl": pristine("ptb-xl")})
    one = recipe.model_copy(update={"rows_per_record": "one"})
    build(tmp_path / "one", one, {"ptb-xl": pristine("ptb-xl")})
    every, drawn = rows_of(tmp_path / "all"), rows_of(tmp_path / "one")
    assert len({key.split("/")[1] for key in drawn}) == len(drawn) == 16
    assert all(every[key] == row for key, row in drawn.items())
    for row in every.values():
        assert set(row["answer"]) <= set(row["choices"])
        assert row["answer"] == [choice for choice in row["choices"] if choice in row["answer"]]
