"""Slices of volumes into pictures and boxes: the same whatever the orientation of the file, and back to its voxels."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical.transform import Transform
from qoq_data.clinical.volumes import PLANES, box_to_canonical, canonical_axes, canonical_to_stored
from qoq_data.clinical.windowing import display_window, to_grey, window_levels
from qoq_data.corpus import pictures
from qoq_data.corpus.inspect import inspect_items
from qoq_data.corpus.inspectors import INSPECTORS
from qoq_data.corpus.pictures import read_layers, read_picture
from qoq_data.corpus.references import MediaReference
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.storage import RecordingStore, Store
from qoq_data.record import Media
from qoq_data.source import MEDIA_TYPE
from tests.corpus.volumes import NAMES, ORIENTATIONS, canonical_affine, references, render, stored_as, write

SHAPE = (40, 37, 33)
EDGES = (1.0, 1.0, 3.0)
SLICES = {"axial": 14, "coronal": 17, "sagittal": 20}


def phantom() -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A body that no turn or flip leaves as it is, in HU, and its labels: an L, a rod that runs askew, two specks."""
    x, y, z = np.indices(SHAPE)
    values = (-150 + 3 * x + 2 * y + 4 * z).astype(np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:30, 6:14, 10:20] = 1
    labels[8:14, 6:30, 10:20] = 1
    labels[(np.abs(x - 20) <= 2) & (np.abs(y - z - 3) <= 1) & (z > 4)] = 2
    labels[35, 30, 14] = labels[3, 34, 14] = 3
    values[labels > 0] += (50 * labels[labels > 0]).astype(np.int16)
    return values, labels


VALUES, LABELS = phantom()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    write(folder, "image.nii.gz", VALUES, canonical_affine(EDGES))
    write(folder, "labels.nii.gz", LABELS, canonical_affine(EDGES))
    return folder


def section(labels: NDArray[Any], plane: str, value: int) -> NDArray[np.bool_]:
    """Where a value stands on the slice, as it is shown: worked out by hand, without the code under test."""
    index = SLICES[plane]
    cut = {"axial": labels[:, :, index], "coronal": labels[:, index, :], "sagittal": labels[index, :, :]}[plane]
    return np.flipud(np.fliplr(cut.T)) == value


def bounds(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_the_phantom_is_the_same_picture_with_the_same_boxes_in_each_of_48_orientations(
    axes: tuple[int, ...], flips: tuple[bool, ...], plain: Path, tmp_path: Path
) -> None:
    other = ORIENTATIONS[(ORIENTATIONS.index((axes, flips)) + 19) % 48]
    write(tmp_path, "image.nii.gz", *stored_as(VALUES, canonical_affine(EDGES), axes, flips))
    write(tmp_path, "labels.nii.gz", *stored_as(LABELS, canonical_affine(EDGES), *other))
    for plane, index in SLICES.items():
        expected, found = (render(folder, references(plane, index)) for folder in (plain, tmp_path))
        assert found.images == expected.images
        assert found.boxes == expected.boxes
        assert found.views == expected.views
        assert {box.label for box in found.boxes} >= {"liver", "lesion"}
        store, (picture, labels) = Store(tmp_path), references(plane, index)
        decoded = read_picture(store, picture).decoded
        assert np.array_equal(decoded.pixels, hand_made(plane, VALUES))
        for layer in read_layers(store, labels, decoded.full_size, None, picture).layers:
            value = next(key for key, name in NAMES.items() if name == layer.label)
            assert np.array_equal(layer.mask, section(LABELS, plane, value))


def hand_made(plane: str, values: NDArray[np.int16]) -> NDArray[np.uint8]:
    """The picture of a slice without the code under test, but for the window."""
    index = SLICES[plane]
    cut = {"axial": values[:, :, index], "coronal": values[:, index, :], "sagittal": values[index, :, :]}[plane]
    return to_grey(window_levels(np.flipud(np.fliplr(cut.T)), display_window("soft_tissue")))


@pytest.mark.parametrize("plane", PLANES)
def test_every_box_is_tight_and_holds_the_whole_cross_section_of_its_instance(plane: str, plain: Path) -> None:
    picture, labels = references(plane, SLICES[plane])
    decoded = read_picture(Store(plain), picture).decoded
    seen = 0
    for layer in read_layers(Store(plain), labels, decoded.full_size, None, picture).layers:
        value = next(key for key, name in NAMES.items() if name == layer.label)
        assert np.array_equal(np.logical_or.reduce([layer.mask & False, *layer.instances]), layer.mask)
        for mask in layer.instances:
            x0, y0, x1, y1 = bounds(mask)
            inside = np.zeros_like(mask)
            inside[y0:y1, x0:x1] = True
            assert np.array_equal(mask & inside, mask)
            assert (section(LABELS, plane, value)[mask]).all()
            for edge in (mask[y0, x0:x1], mask[y1 - 1, x0:x1], mask[y0:y1, x0], mask[y0:y1, x1 - 1]):
                assert edge.any()
            seen += 1
    assert seen == {"axial": 4, "coronal": 2, "sagittal": 2}[plane]


def stored_boxes(media: Media) -> list[tuple[str, tuple[int, int, int, int]]]:
    return [(box.label, box.xyxy) for box in media.boxes]


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS[::5])
@pytest.mark.parametrize("plane", PLANES)
def test_a_stored_box_goes_back_through_scale_and_affine_to_the_voxels_it_is_of(
    plane: str, axes: tuple[int, ...], flips: tuple[bool, ...], tmp_path: Path
) -> None:
    affine = canonical_affine(EDGES)
    write(tmp_path, "image.nii.gz", *stored_as(VALUES, affine, axes, flips))
    turned, turned_affine = stored_as(LABELS, affine, axes, flips)
    write(tmp_path, "labels.nii.gz", turned, turned_affine)
    index = SLICES[plane]
    media = render(tmp_path, references(plane, index))
    picture, labels = references(plane, index)
    decoded = read_picture(Store(tmp_path), picture).decoded
    layers = read_layers(Store(tmp_path), labels, decoded.full_size, None, picture).layers
    masks = [(layer.label, mask) for layer in layers for mask in layer.instances]
    size = Image.open(io.BytesIO(media.images[0])).size
    assert size == (decoded.full_size[0], decoded.full_size[1] * (1 if plane == "axial" else 3))
    back = Transform.scaled(decoded.full_size, size).inverse()
    assert len(masks) == len(media.boxes)
    for box, (label, mask) in zip(media.boxes, masks, strict=True):
        assert box.label == label
        placed = back.apply_to_box(box)
        assert placed is not None
        assert placed.xyxy == bounds(mask)
        canonical = box_to_canonical(placed.xyxy, plane, index, SHAPE)
        voxels = canonical_to_stored(canonical, canonical_axes(turned_affine), SHAPE)
        value = next(key for key, name in NAMES.items() if name == label)
        assert int((turned[voxels] == value).sum()) >= int(mask.sum())
        x0, y0, x1, y1 = placed.xyxy
        assert np.array_equal(LABELS[canonical], turned_back(turned[voxels], axes, flips))
        assert int(mask[y0:y1, x0:x1].sum()) == int(mask.sum())


def turned_back(values: NDArray[Any], axes: tuple[int, ...], flips: tuple[bool, ...]) -> NDArray[Any]:
    straight = values[tuple(slice(None, None, -1 if one else 1) for one in flips)]
    return straight.transpose(np.argsort(axes))


@pytest.mark.parametrize("longest", [32, 50, 1024])
def test_at_any_scale_a_box_goes_back_to_no_more_than_a_pixel_round_its_section(longest: int, plain: Path) -> None:
    for plane, index in SLICES.items():
        media = render(plain, references(plane, index), images={"longest_side": longest})
        picture, labels = references(plane, index)
        decoded = read_picture(Store(plain), picture).decoded
        layers = read_layers(Store(plain), labels, decoded.full_size, None, picture).layers
        masks = [mask for layer in layers for mask in layer.instances]
        size = Image.open(io.BytesIO(media.images[0])).size
        change = Transform.scaled(decoded.full_size, size)
        for box, mask in zip(media.boxes, masks, strict=True):
            placed = change.inverse().apply_to_box(box)
            assert placed is not None
            tight = bounds(mask)
            room = [max(1, -(-full // stored)) for full, stored in zip(decoded.full_size, size, strict=True)] * 2
            for found, exact, sign, most in zip(placed.xyxy, tight, (-1, -1, 1, 1), room, strict=True):
                assert 0 <= sign * (found - exact) <= most


def test_the_row_says_plane_slice_window_and_millimetres(plain: Path) -> None:
    media = render(plain, references("coronal", 17))
    (view,) = media.views
    assert (view.view, view.window) == ("coronal CT", "soft tissue, 40/400")
    assert view.spacing_mm == pytest.approx((1.0, 1.0))  # slices of 3 mm are drawn out to square pixels
    image, mask = media.provenance
    assert image.taken == (
        "the whole picture; coronal slice 17, head above, the patient's right on the left; placed by its sform; "
        "stored axes RAS; window soft tissue, 40/400; scaled from 40 x 33 to 40 x 99"
    )
    assert mask.taken.endswith("values 1=liver;2=lesion;3=vessel")
    assert image.sha256 == hashlib.sha256((plain / "image.nii.gz").read_bytes()).hexdigest()
    assert mask.sha256 == hashlib.sha256((plain / "labels.nii.gz").read_bytes()).hexdigest()


def test_an_instance_in_two_pieces_on_a_slice_has_one_box_and_a_box_a_mask_is_one_round_all(tmp_path: Path) -> None:
    labels = np.zeros((40, 40, 12), np.uint8)
    labels[5:10, 8:20, 3:9] = labels[25:30, 8:20, 3:9] = 1
    labels[5:30, 8:20, 3] = 1  # a horseshoe, two pieces on the slices above
    labels[34:37, 30:33, 3:9] = 1
    write(tmp_path, "image.nii.gz", labels.astype(np.int16), canonical_affine())
    write(tmp_path, "labels.nii.gz", labels, canonical_affine())
    horseshoe, other = (10, 20, 35, 32), (3, 7, 6, 10)
    boxes = [box.xyxy for box in render(tmp_path, references("axial", 6)).boxes]
    assert boxes == [horseshoe, other]
    for per in ("mask", "union"):
        media = render(tmp_path, references("axial", 6), boxes={"per": per})
        assert [box.xyxy for box in media.boxes] == [(3, 7, 35, 32)]


def test_small_instances_are_left_out_by_millimetres_and_counted(plain: Path) -> None:
    everything = render(plain, references("axial", 14))
    assert [box.label for box in everything.boxes] == ["liver", "lesion", "vessel", "vessel"]
    kept = render(plain, references("axial", 14, least_mm3=3.0))
    assert stored_boxes(kept) == stored_boxes(everything)
    without = render(plain, references("axial", 14, least_mm3=3.1), masks=True)
    assert stored_boxes(without) == stored_boxes(everything)[:2]
    assert without.provenance[1].taken.endswith("least_mm3=3.1; 2 instances under 3.1 mm3 left out")
    assert set(np.unique(np.asarray(Image.open(io.BytesIO(without.masks[0]))))) == {0, 1, 2}


def test_a_volume_is_read_once_for_all_its_slices_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "image.nii.gz", VALUES, canonical_affine(EDGES))
    write(tmp_path, "labels.nii.gz", LABELS, canonical_affine(EDGES))
    reads: list[str] = []
    monkeypatch.setattr(Store, "read", recording(Store.read, reads))
    for plane, index in SLICES.items():
        render(tmp_path, references(plane, index))
    assert reads == ["image.nii.gz", "labels.nii.gz"]
    write(tmp_path, "image.nii.gz", VALUES + 40, canonical_affine(EDGES))
    media = render(tmp_path, references("axial", 14))
    assert reads == ["image.nii.gz", "labels.nii.gz", "image.nii.gz"]
    assert media.provenance[0].sha256 == hashlib.sha256((tmp_path / "image.nii.gz").read_bytes()).hexdigest()
    seen = RecordingStore(tmp_path)
    read_picture(seen, references("axial", 3)[0])
    assert list(seen.seen) == ["image.nii.gz"]  # though it came from memory
    assert len(reads) == 3


def recording(read: Any, reads: list[str]) -> Any:
    def read_and_note(self: Store, path: str, *rest: Any) -> bytes:
        reads.append(path)
        data: bytes = read(self, path, *rest)
        return data

    return read_and_note


def refused(folder: Path, media: list[MediaReference]) -> RecordError:
    with pytest.raises(RecordError) as caught:
        render(folder, media)
    return caught.value


def test_what_cannot_be_a_slice_is_refused_by_its_path(plain: Path, tmp_path: Path) -> None:
    error = refused(plain, references("axial", 33))
    assert (error.reason, error.path) == (Reason.HEADER_MISMATCH, "image.nii.gz")
    whole = MediaReference("image", "volume", "image.nii.gz", "CT")
    assert refused(plain, [whole]).reason is Reason.FORMAT_UNSUPPORTED
    Image.new("L", (40, 37)).save(tmp_path / "a.png")
    write(tmp_path, "labels.nii.gz", LABELS, canonical_affine())
    error = refused(tmp_path, [MediaReference("image", "image", "a.png", ""), references("axial", 3)[1]])
    assert (error.reason, error.path) == (Reason.FORMAT_UNSUPPORTED, "labels.nii.gz")
    assert refused(tmp_path, references("axial", 3)).reason is Reason.FILE_MISSING


def test_a_slice_of_more_pixels_than_a_picture_may_have_is_refused(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 40 * 37 - 1)
    error = refused(plain, references("axial", 3))
    assert (error.reason, error.path) == (Reason.OVER_BUDGET, "image.nii.gz")
    assert render(plain, references("coronal", 3)).images


def test_labels_that_are_noise_are_refused_by_their_path(plain: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    write(tmp_path, "image.nii.gz", VALUES, canonical_affine(EDGES))
    write(tmp_path, "labels.nii.gz", rng.integers(0, 90, SHAPE).astype(np.uint8), canonical_affine(EDGES))
    error = refused(tmp_path, references("axial", 3))
    assert (error.reason, error.path) == (Reason.OVER_BUDGET, "labels.nii.gz")
    assert pictures._last_labels._kept is None


def test_the_inspector_tells_where_each_instance_stands(plain: Path) -> None:
    media = [{"role": "image", "kind": "volume", "path": "image.nii.gz", "part": ""}]
    media += [{"role": "mask", "kind": "volume_labels", "path": "labels.nii.gz", "part": "1=liver"}]
    items = pl.DataFrame({"item": ["a"], "media": [media]}, {"item": pl.String, "media": pl.List(MEDIA_TYPE)})
    facts, skips = inspect_items(items, "made", "volume_regions", Store(plain), None, "code", LocalEngine(1))
    assert skips == []
    row = facts.row(0, named=True)
    assert row["shape"] == list(SHAPE)
    assert row["spacing_mm"] == pytest.approx(EDGES)
    liver = row["instances"][0]
    assert liver["voxels"] == int((LABELS == 1).sum())
    assert liver["volume_mm3"] == pytest.approx(3 * liver["voxels"])
    assert [one["value"] for one in row["instances"]] == [1, 2, 3, 3]
    for one in row["instances"][:2]:
        mask = np.equal(LABELS, one["value"])
        for plane, axis in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
            areas = mask.sum(axis=tuple(other for other in range(3) if other != axis))
            present = np.flatnonzero(areas)
            assert (one[plane]["first"], one[plane]["last"]) == (present[0], present[-1])
            assert areas[one[plane]["largest"]] == areas.max()
    assert set(INSPECTORS["volume_regions"].schema) == {"instances", "shape", "spacing_mm"}
    gone = items.with_columns(pl.Series("media", [[{**media[1], "path": "gone.nii.gz"}]], pl.List(MEDIA_TYPE)))
    _, (skip,) = inspect_items(gone, "made", "volume_regions", Store(plain), None, "code", LocalEngine(1))
    assert (skip.reason, skip.path) == ("file_missing", "gone.nii.gz")


def test_the_phantom_is_as_asymmetric_as_the_proof_needs() -> None:
    for axis in range(3):
        values, labels = np.flip(VALUES, axis), np.flip(LABELS, axis)
        boxes = [[bounds(section(one, plane, 1)) for plane in PLANES] for one in (labels, LABELS)]
        assert boxes[0] != boxes[1], axis
        for plane in PLANES:
            assert not np.array_equal(hand_made(plane, values), hand_made(plane, VALUES)), (plane, axis)
