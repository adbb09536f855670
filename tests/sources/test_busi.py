"""The source ``busi``: its layout, what the published conversion gets wrong, its synthetic tree, and real files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical.boxes import boxes_from_mask
from qoq_data.clinical.fingerprints import (
    confirm_pair,
    near_duplicate_pairs,
    pixel_digest,
    thumbnail,
    thumbnail_hashes,
)
from qoq_data.clinical.image_features import FEATURES
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.splits import assign_splits, group_keys
from qoq_data.errors import LayoutError
from qoq_data.formats.image import decode_image, decode_mask
from qoq_data.formats.storage import Store
from qoq_data.groups import join_groups
from qoq_data.licence import Redistribution, strictest
from qoq_data.source import SourceOptions
from qoq_data.sources import busi, source_of

PLAIN = ("benign (1).png", "benign (1)_mask.png", "malignant (1).png", "malignant (1)_mask.png")
NORMAL = ("normal (1).png", "normal (1)_mask.png")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("busi")
    busi.synthesize(folder, 7, 48)
    return Store(folder)


def items_of(tree: Store) -> pl.DataFrame:
    return scan_items(source_of(busi), tree, SourceOptions())


def named_tree(folder: Path, *extra: str, root: str = busi.ROOT) -> Store:
    """A tree of empty files: every picture of PLAIN and NORMAL in its class folder, and ``extra`` as folder/name."""
    for path in (*(f"{name.split()[0]}/{name}" for name in PLAIN + NORMAL), *extra):
        file = folder / root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return Store(folder)


def paths(items: pl.DataFrame, item: str, role: str) -> list[str]:
    media = items.filter(pl.col("item") == item)["media"].item()
    return [entry["path"].rsplit("/", 1)[1] for entry in media if entry["role"] == role]


def answers(items: pl.DataFrame) -> dict[str, list[str] | None]:
    return dict(zip(items["item"].to_list(), items["answer.diagnosis"].to_list(), strict=True))


def pixels_of(tree: Store, items: pl.DataFrame) -> dict[str, NDArray[np.uint8]]:
    return {
        item: decode_image(tree.read(media[0]["path"]), media[0]["path"]).pixels
        for item, media in items.select("item", "media").iter_rows()
    }


def published_split(tree: Store) -> dict[str, str]:
    """The published way: names without ``mask``, in string order a class, the first 75 % for training."""
    sides: dict[str, str] = {}
    for label in busi.LABELS:
        names = sorted(name for name in tree.names(f"{busi.ROOT}/{label}") if "mask" not in name)
        sides |= {name: "train" if place < int(0.75 * len(names)) else "test" for place, name in enumerate(names)}
    return sides


def test_scan_opens_no_picture_and_goes_by_number(tmp_path: Path) -> None:
    tree = named_tree(tmp_path, *(f"benign/benign ({n}){end}.png" for n in (2, 10) for end in ("", "_mask")))
    items = busi.scan(tree, SourceOptions()).collect()
    assert items["item"].to_list() == ["normal-1", "benign-1", "benign-2", "benign-10", "malignant-1"]
    first = items.row(1, named=True)
    assert first["media"] == [
        {"role": "image", "kind": "image", "path": f"{busi.ROOT}/benign/benign (1).png", "part": ""},
        {"role": "mask", "kind": "mask", "path": f"{busi.ROOT}/benign/benign (1)_mask.png", "part": "lesion"},
    ]
    assert (first["group"], first["label_row"]) == ("picture:benign-1", "folder benign")
    assert first["label_file"] == first["media"][0]["path"]
    for column in ("patient", "study", "official_split"):
        assert items[column].null_count() == items.height


def test_scan_in_a_bucket() -> None:
    tree = Store("memory://busi-scan")
    for name in PLAIN + NORMAL:
        tree.write(f"{busi.ROOT}/{name.split()[0]}/{name}", b"")
    assert answers(items_of(tree)) == {f"{label}-1": [label] for label in busi.LABELS}


def test_a_missing_mask_a_lost_picture_and_a_gap_stay_as_paths_to_be_found_missing(tmp_path: Path) -> None:
    extra = ("benign (2).png", "benign (3)_mask.png", "benign (4).png", "benign (4)_mask_2.png")
    tree = named_tree(tmp_path, *(f"benign/{name}" for name in extra))
    items = items_of(tree)
    assert paths(items, "benign-2", "mask") == ["benign (2)_mask.png"]
    assert paths(items, "benign-3", "image") == ["benign (3).png"]
    assert paths(items, "benign-4", "mask") == [f"benign (4)_mask{end}.png" for end in ("", "_1", "_2")]
    counts = busi.statistics(tree, SourceOptions())
    assert (counts["pictures_without_mask"], counts["masks_without_picture"]) == (1, 1)
    assert counts["benign_pictures"] == 3


def test_t08_a_picture_named_after_another_class_or_in_two_folders_has_no_answer(tmp_path: Path) -> None:
    stray = ("malignant/benign (1).png", "malignant/benign (1)_mask.png", "normal/benign (7).png")
    tree = named_tree(tmp_path, *stray)
    assert answers(items_of(tree)) == {
        "benign-1": None,
        "malignant-1": ["malignant"],
        "malignant-benign-1": None,
        "normal-1": ["normal"],
        "normal-benign-7": None,
    }
    assert busi.statistics(tree, SourceOptions())["pictures_named_after_another_class"] == 2


def test_names_are_matched_whole_where_the_published_way_takes_all_without_mask(tmp_path: Path) -> None:
    odd = ["benign (1) - Copy.png", "benign (1)_MASK.png", "Thumbs.db", "benign (01).png", "benign (1)_mask_123.png"]
    tree = named_tree(tmp_path, *(f"benign/{name}" for name in odd))
    assert set(odd) - set(published_split(tree)) == {"benign (1)_mask_123.png"}
    assert answers(items_of(tree)) == {f"{label}-1": [label] for label in busi.LABELS}
    assert busi.statistics(tree, SourceOptions())["files_of_unknown_name"] == len(odd)


def one_level_too_high(folder: Path) -> Path:
    named_tree(folder / "archive")
    return folder


def nested_twice(folder: Path) -> Path:
    named_tree(folder / busi.ROOT)
    return folder


def one_level_too_low(folder: Path) -> Path:
    named_tree(folder)
    return folder / busi.ROOT


def two_levels_too_low(folder: Path) -> Path:
    named_tree(folder)
    return folder / busi.ROOT / "normal"


@pytest.mark.parametrize("layout", [one_level_too_high, nested_twice, one_level_too_low, two_levels_too_low])
def test_a_folder_off_by_a_level_says_what_to_type_and_that_works(
    layout: Callable[[Path], Path], tmp_path: Path
) -> None:
    given = layout(tmp_path)
    with pytest.raises(LayoutError, match="the raw folder is") as caught:
        items_of(Store(given))
    assert str(tmp_path) not in str(caught.value)
    advice = re.search(r"Type the same with (\S+) after it\.", str(caught.value))
    assert advice
    assert items_of(Store(f"{given}{advice[1]}")).height == 3


@pytest.mark.parametrize("absent", busi.LABELS)
def test_a_missing_and_an_empty_class_folder_are_named(absent: str, tmp_path: Path) -> None:
    tree = named_tree(tmp_path, "../copy/Dataset_BUSI_with_GT/benign/benign (1).png")
    folder = tmp_path / busi.ROOT / absent
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(LayoutError, match=f"{busi.ROOT}/{absent}/ holds no picture"):
        items_of(tree)
    folder.rmdir()
    with pytest.raises(LayoutError, match=f"{busi.ROOT}/{absent}/ is not in the raw folder"):
        busi.statistics(tree, SourceOptions())


@pytest.mark.parametrize("other", ["ptb-xl", "pad-ufes-20", "brain-tumor-classification-mri"])
def test_real_folders_of_other_sources_are_refused(other: str, realdata: Path) -> None:
    with pytest.raises(LayoutError, match=r"is not in the raw folder\. Is it another source's"):
        items_of(Store(realdata / other))


def test_an_archive_not_unpacked_and_an_absent_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Dataset_BUSI.zip").write_bytes(b"PK")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(LayoutError, match="not unpacked yet"):
            items_of(Store(folder))


def test_s03_no_class_in_question_context_or_box_label(synthetic: Store) -> None:
    items = items_of(synthetic)
    assert not [column for column in items.columns if column.startswith("context.")]
    parts = items["media"].explode(empty_as_null=False).struct.field("part").unique().to_list()
    task = busi.SPEC.task("diagnosis")
    assert len(set(task.wordings)) >= 4
    assert sorted(parts) == ["", "lesion"]
    assert not re.search("normal|benign|malignan|cancer", " ".join((*task.wordings, *parts)).lower())


def test_ids_only_may_be_passed_on() -> None:
    assert strictest(busi.SPEC.licences.values()) == ("LicenseRef-BUSI", Redistribution.IDS)


def test_every_mask_of_a_picture_is_kept_where_the_published_way_keeps_none(synthetic: Store) -> None:
    items = items_of(synthetic)
    assert not [name for name in published_split(synthetic) if "_mask" in name]
    assert paths(items, "benign-2", "mask") == ["benign (2)_mask.png", "benign (2)_mask_1.png"]
    listed = [entry["path"] for media in items["media"].to_list() for entry in media]
    assert sorted(listed) == sorted(synthetic.walk())
    assert busi.statistics(synthetic, SourceOptions())["pictures_with_several_masks"] == 3


def test_s01_copies_cross_in_the_published_split_and_never_in_ours(synthetic: Store) -> None:
    sides = published_split(synthetic)
    twins = ["benign (9).png", "benign (17).png"]
    assert len({hashlib.sha256(synthetic.read(f"{busi.ROOT}/benign/{name}")).digest() for name in twins}) == 1
    assert {sides[name] for name in twins} == {"train", "test"}

    items = items_of(synthetic)
    pixels = pixels_of(synthetic, items)
    ids = list(pixels)
    digests = [pixel_digest(picture) for picture in pixels.values()]
    exact = [(i, j) for j in range(len(ids)) for i in range(j) if digests[i] == digests[j]]
    thumbnails = np.stack([thumbnail(picture) for picture in pixels.values()])
    near = near_duplicate_pairs(thumbnail_hashes(thumbnails))
    confirmed = [(i, j) for i, j, _ in near if confirm_pair(thumbnails[i], thumbnails[j])]
    label_conflict = {"benign-4", "malignant-18"}
    assert [{ids[i], ids[j]} for i, j in exact] == [{"benign-17", "benign-9"}, label_conflict]
    planted = {frozenset(pair) for pair in ({"benign-17", "benign-9"}, label_conflict, {"malignant-1", "malignant-17"})}
    assert {frozenset((ids[i], ids[j])) for i, j in confirmed} == planted

    crossings: Counter[str] = Counter()
    separate = group_keys(items, "busi", busi.SPEC.identity_group)
    for way, keys in (("alone", separate), ("joined", join_groups(separate, confirmed))):
        rows = items.with_columns(keys, pl.lit("busi").alias("source"))
        for seed in range(10):
            sides_of = assign_splits(rows, seed, 0.1, 0.1).to_list()
            crossings[way] += sum(sides_of[i] != sides_of[j] for i, j in confirmed)
    assert crossings["alone"] > 0
    assert crossings["joined"] == 0


def test_b01_b03_masks_fit_their_pictures_and_only_lesions_have_boxes(synthetic: Store) -> None:
    for item, media, answer in items_of(synthetic).select("item", "media", "answer.diagnosis").iter_rows():
        shape = decode_image(synthetic.read(media[0]["path"]), item).pixels.shape[:2]
        for entry in media[1:]:
            mask = decode_mask(synthetic.read(entry["path"]), entry["path"])
            boxes = boxes_from_mask(mask, entry["part"]).boxes
            assert mask.shape == shape
            assert mask.mean() < 0.2
            assert len(boxes) == (0 if answer == ["normal"] else 1), item
            for box in boxes if item != "malignant-18" else ():
                x0, y0, x1, y1 = box.xyxy
                assert (y1 - y0 > x1 - x0) == (answer == ["malignant"]), item


def test_modes_of_the_published_files_and_a_four_channel_mask_that_is_opaque_all_over(synthetic: Store) -> None:
    modes: Counter[tuple[str, bool, str]] = Counter()
    for path in synthetic.walk():
        with Image.open(f"{synthetic.folder}/{path}") as file:
            modes["normal" if "/normal/" in path else "lesion", "_mask" in path, file.mode] += 1
            if file.mode == "RGBA" and "_mask" in path:
                assert np.asarray(file).any(axis=-1).all()
    assert modes["lesion", True, "1"] > 20
    assert modes["normal", True, "RGB"] == 16
    assert modes["lesion", False, "RGBA"] == modes["lesion", True, "RGBA"] == 4
    assert modes["normal", True, "1"] == modes["lesion", True, "RGB"] == 0


def test_synthetic_labels_can_be_seen_in_the_pictures(synthetic: Store) -> None:
    items = items_of(synthetic).filter(~pl.col("item").is_in(["benign-17", "malignant-17", "malignant-18"]))
    pixels = pixels_of(synthetic, items)
    (shown,) = busi.SPEC.synthetic
    measured = np.array([[FEATURES[name](picture) for name in shown.features] for picture in pixels.values()])
    truth = np.array([answer[0] for answer in items["answer.diagnosis"].to_list()])
    training = np.arange(len(truth)) % 2 == 0
    scores = (measured - measured[training].mean(axis=0)) / measured[training].std(axis=0)
    centroids = np.stack([scores[training & (truth == label)].mean(axis=0) for label in busi.LABELS])
    nearest = np.argmin(((scores[~training, None, :] - centroids) ** 2).sum(axis=2), axis=1)
    assert len(truth) == 48
    assert np.mean(np.array(busi.LABELS)[nearest] == truth[~training]) >= 0.8


def digest_of(folder: Path, seed: int, patients: int) -> dict[str, bytes]:
    busi.synthesize(folder, seed, patients)
    tree = Store(folder)
    return {path: hashlib.sha256(tree.read(path)).digest() for path in tree.walk()}


def test_synthesize_follows_from_its_seed_and_needs_few_patients(tmp_path: Path) -> None:
    first, again, other = (digest_of(tmp_path / name, seed, 7) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[path] != other[path] for path in first if "normal" not in path)
    busi.synthesize(tmp_path / "d", 3, 1)
    assert items_of(Store(tmp_path / "d")).height == 3
    assert items_of(Store(tmp_path / "a")).height == 9


def test_real_pictures_and_their_masks(realdata: Path) -> None:
    tree = Store(realdata / "busi")
    items = items_of(tree)
    assert answers(items) == {
        **{f"benign-{number}": ["benign"] for number in (20, 25, 37)},
        **{f"malignant-{number}": ["malignant"] for number in (1, 14, 15)},
        **{f"normal-{number}": ["normal"] for number in (1, 50)},
    }
    assert paths(items, "benign-25", "mask") == ["benign (25)_mask.png", "benign (25)_mask_1.png"]
    for item, media in items.select("item", "media").iter_rows():
        shape = decode_image(tree.read(media[0]["path"]), item).pixels.shape[:2]
        masks = [decode_mask(tree.read(entry["path"]), item) for entry in media[1:]]
        assert [mask.shape for mask in masks] == [shape] * (2 if item == "benign-25" else 1)
        assert all(mask.any() for mask in masks) == (not item.startswith("normal"))
    counts = busi.statistics(tree, SourceOptions())
    assert {name: count for name, count in counts.items() if count} == {
        "normal_pictures": 2,
        "benign_pictures": 3,
        "malignant_pictures": 3,
        "pictures_with_several_masks": 1,
    }


def test_real_folder_given_one_level_too_low(realdata: Path) -> None:
    with pytest.raises(LayoutError, match=r"Type the same with /\.\. after it"):
        items_of(Store(realdata / "busi" / busi.ROOT))
    with pytest.raises(LayoutError, match="Type the same with /busi after it"):
        items_of(Store(realdata))
