"""The source ``kits23``: its table, its slices, what the published conversion gets wrong, and the real outlines."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import label, regionprops

from qoq_data.clinical.volume_boxes import find_instances
from qoq_data.clinical.volumes import to_canonical
from qoq_data.corpus.expand import expand_items
from qoq_data.corpus.inspect import inspect_items
from qoq_data.corpus.items import scan_items, set_aside
from qoq_data.corpus.pictures import read_picture
from qoq_data.corpus.planning import SourceInput, plan_corpus
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, SourceError, TableError
from qoq_data.formats.nifti import read_labels
from qoq_data.formats.nifti_write import nifti_bytes
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution, strictest
from qoq_data.recipe import Recipe, SourceRecipe, default_recipe
from qoq_data.sources import kits23, source_of
from qoq_data.sources._kits23_tree import CASES, ROOT, SUBTYPES, read_cases

SOURCE = source_of(kits23)
CHANGE = Callable[[list[dict[str, Any]]], object]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kits23")
    kits23.synthesize(folder, 7, 12)
    return folder


@pytest.fixture
def copied(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "raw"))


def scanned(tree: Path, **options: Any) -> pl.DataFrame:
    return scan_items(SOURCE, Store(tree), kits23.Options(**options))


def parts_of(tree: Path, **options: Any) -> tuple[pl.DataFrame, list[Any]]:
    """The slices that are asked about, and all ledger lines, as a build has them before it renders."""
    chosen = kits23.Options(**options)
    items, skips = set_aside(scan_items(SOURCE, Store(tree), chosen), "kits23")
    facts, unread = inspect_items(items, "kits23", "volume_regions", Store(tree), None, "c", LocalEngine(1))
    items = items.join(facts, on="item", how="semi").with_columns(group_key=pl.col("group"), split=pl.lit("train"))
    named = facts.select("item", *(pl.col(one).alias(f"volume_regions.{one}") for one in facts.columns[1:]))
    parts, aside = expand_items(SOURCE, items, named, chosen)
    return parts, [*skips, *unread, *aside]


def rewrite(tree: Path, change: CHANGE) -> Path:
    path = tree / CASES
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))
    return tree


def volume_of(tree: Path, case: str, name: str) -> NDArray[Any]:
    """Stored values [slice, row, column], as nibabel reads them."""
    return np.asarray(nib.load(tree / ROOT / case / name).dataobj)


def rendered(tree: Path, media: list[dict[str, Any]], **keys: Any) -> Any:
    recipe = Recipe.model_validate({"name": "made", "sources": (SourceRecipe(name="kits23"),), **keys})
    return render_media(Store(tree), [MediaReference.of(one) for one in media], recipe)


def test_a_slice_is_an_item_with_its_plane_and_number_and_what_it_shows(pristine: Path) -> None:
    parts, skips = parts_of(pristine)
    assert skips == []
    assert parts.height > 24
    for row in parts.iter_rows(named=True):
        case, _, name = row["item"].partition("/")
        assert row["patient"] == row["group"] == case
        plane, _, number = name.partition("-")
        picture, outlines = row["media"]
        assert plane == "axial"
        assert picture["slice"] == {"plane": "axial", "index": int(number)}
        assert (picture["display"], picture["part"]) == ("soft_tissue", "axial CT")
        assert outlines["part"] == "1=kidney;2=tumor;3=cyst;least_mm3=20"
        stored = volume_of(pristine, case, "segmentation.nii.gz")
        there = np.bincount(stored[stored.shape[0] - 1 - int(number)].ravel(), minlength=4)
        assert row["answer.structures"] == [kits23.NAMES[value] for value in (1, 2, 3) if there[value]]
        assert (row["answer.malignancy"] is not None) <= bool(there[2])


def test_every_structure_is_cut_where_it_is_largest(pristine: Path) -> None:
    chosen = {tuple(item.split("/axial-")) for item in parts_of(pristine)[0]["item"]}
    for case in sorted({case for case, _ in chosen}):
        canonical = volume_of(pristine, case, "segmentation.nii.gz")[::-1]
        for value in np.unique(canonical[canonical > 0]).tolist():
            numbers = label(canonical == value, connectivity=3)
            for region in regionprops(numbers):
                areas = (numbers == region.label).sum(axis=(1, 2))
                best = {str(index) for index in np.flatnonzero(areas == areas.max())}
                assert region.area * 4.05 < 20 or any((case, index) in chosen for index in best)


def test_pictures_are_upright_with_the_right_on_the_left_and_their_boxes_are_of_the_outlines(pristine: Path) -> None:
    parts, _ = parts_of(pristine)
    for row in parts.head(12).iter_rows(named=True):
        case, _, number = row["item"].partition("/axial-")
        media = rendered(pristine, row["media"], images={"encoding": "png"})
        stored = volume_of(pristine, case, "imaging.nii.gz")
        at = stored.shape[0] - 1 - int(number)  # slices are stored from the head down
        expected = np.clip((stored[at].astype(np.float64) - 39.5) / 399 + 0.5, 0, 1) * 255
        found = np.asarray(Image.open(io.BytesIO(media.images[0])))
        assert np.abs(found - expected).max() <= 0.5001  # rows are stored to the back, columns to the left: as shown
        outlines = volume_of(pristine, case, "segmentation.nii.gz")[at]
        for box in media.boxes:
            value = next(key for key, name in kits23.NAMES.items() if name == box.label)
            x0, y0, x1, y1 = box.xyxy
            assert (outlines[y0:y1, x0:x1] == value).any(axis=0)[[0, -1]].all()
            assert (outlines[y0:y1, x0:x1] == value).any(axis=1)[[0, -1]].all()
        covered = np.zeros(outlines.shape, np.bool_)
        for box in media.boxes:
            covered[box.xyxy[1] : box.xyxy[3], box.xyxy[0] : box.xyxy[2]] = True
        assert covered[outlines > 0].all()


def test_the_malignancy_of_a_case_is_asked_only_where_its_tumour_is_seen(pristine: Path) -> None:
    """The published way asks it of any frames that were sampled: most slices of a volume show no tumour."""
    parts, _ = parts_of(pristine, slices="all")
    asked = parts.filter(pl.col("answer.malignancy").is_not_null())
    silent = parts.filter(pl.col("answer.malignancy").is_null())
    outlines = {case: volume_of(pristine, case, "segmentation.nii.gz") for case in parts["patient"].unique()}
    for frame, shows in ((asked, True), (silent.filter(pl.col("patient") != silent_case(pristine)), False)):
        assert frame.height > 20
        for item in frame["item"].to_list():
            case, _, number = item.partition("/axial-")
            assert bool((outlines[case][-1 - int(number)] == 2).any()) == shows
    frames = sum(len(one) for one in outlines.values())
    assert asked.height < frames / 2


def silent_case(tree: Path) -> str:
    return next(one.case_id for one in read_cases(Store(tree)) if one.malignant is None)


def test_a_case_of_unknown_malignancy_is_asked_what_its_outlines_answer(pristine: Path) -> None:
    """The published way leaves such cases out."""
    case = silent_case(pristine)
    parts, skips = parts_of(pristine)
    mine = parts.filter(pl.col("patient") == case)
    assert mine.height >= 2
    assert mine["answer.malignancy"].null_count() == mine["answer.subtype"].null_count() == mine.height
    assert mine["answer.structures"].null_count() == 0
    assert skips == []


def test_slices_are_cut_by_the_affine_and_not_by_the_first_array_axis(copied: Path) -> None:
    """The published way cuts along axis 0 of the array: of a file with ordinary axes that is sagittal."""
    before, _ = parts_of(copied)
    case = before["patient"][0]
    expected = rendered(copied, before["media"][0].to_list())
    for name in ("imaging.nii.gz", "segmentation.nii.gz"):
        path = copied / ROOT / case / name
        image = nib.load(path)
        turned = nib.as_closest_canonical(image)
        values = np.asarray(turned.dataobj)
        assert values.shape != image.shape
        assert not np.array_equal(values[5], np.asarray(image.dataobj)[5, : values.shape[1], : values.shape[2]])
        path.write_bytes(nifti_bytes(np.ascontiguousarray(values), turned.affine))
    after, _ = parts_of(copied)
    assert after.equals(before)
    found = rendered(copied, after["media"][0].to_list())
    assert found.images == expected.images
    assert found.boxes == expected.boxes


def test_the_window_is_that_of_soft_tissue_and_not_of_the_pulmonary_arteries(pristine: Path) -> None:
    """The published window 700/80 shows 20 HU and 70 HU 18 grey levels apart, ours 32."""
    row = parts_of(pristine)[0].row(0, named=True)
    picture = MediaReference.of(row["media"][0])
    assert read_picture(Store(pristine), picture).decoded.window == "soft tissue, 40/400"
    spread = {}
    for width, display in ((700, "pulmonary_angiography"), (400, "soft_tissue")):
        reference = MediaReference.of({**row["media"][0], "display": display})
        grey = read_picture(Store(pristine), reference).decoded.pixels
        case = row["patient"]
        stored = volume_of(pristine, case, "segmentation.nii.gz")
        at = stored[stored.shape[0] - 1 - row["media"][0]["slice"]["index"]]
        body = np.zeros(at.shape, np.bool_)
        body[20:30, 25:31] = True
        spread[width] = float(grey[at == 1].mean()) - float(grey[body & (at == 0)].mean())
    assert spread[400] > 1.6 * spread[700]


def test_sides_do_not_follow_the_order_of_the_table(pristine: Path, tmp_path: Path) -> None:
    """The published way trains on the first 75 % in order, so that the second numbering is nearly all in its test."""
    kits23.synthesize(tmp_path, 3, 60)
    cases = [case.case_id for case in read_cases(Store(tmp_path))]
    published = dict.fromkeys(cases[: len(cases) * 3 // 4], "train")
    late = [case for case in cases if case >= "case_00400"]
    assert sum(case not in published for case in late) == len(cases) - len(published)
    inputs = [SourceInput(SOURCE, default_recipe(SOURCE).sources[0], Store(tmp_path), synthetic=True)]
    (plan,) = plan_corpus(default_recipe(SOURCE), inputs, None, LocalEngine(1))
    groups = plan.rows.unique("group_key", keep="first", maintain_order=True)
    assert groups.height == len(cases)
    sides = dict(groups.select("group_key", "split").iter_rows())
    trained = [side == "train" for key, side in sides.items() if any(case in key for case in late)]
    assert len(trained) == len(late)
    assert 0.5 < sum(trained) / len(trained) < 1
    assert plan.rows.group_by("group_key").agg(pl.col("split").n_unique())["split"].max() == 1


def test_a_phase_that_nobody_labelled_gives_no_slice(pristine: Path) -> None:
    """The published way takes frames of the whole volume."""
    doubled = [
        case.case_id
        for case in read_cases(Store(pristine))
        if volume_of(pristine, case.case_id, "imaging.nii.gz").shape[0] == 48
    ]
    assert len(doubled) == 2
    for policy in ("all", "every", "largest"):
        parts, _ = parts_of(pristine, slices=policy, planes=("axial", "coronal"))
        for item, structures in (
            parts.filter(pl.col("patient").is_in(doubled)).select("item", "answer.structures").rows()
        ):
            plane, _, number = item.partition("/")[2].partition("-")
            assert plane == "coronal" or int(number) >= 24  # the first phase lies nearer to the head
            assert structures != ["none"]


def test_boxes_come_from_the_outlines_that_the_published_way_leaves_unused(pristine: Path) -> None:
    parts, _ = parts_of(pristine)
    labels = Counter(box.label for row in parts.iter_rows(named=True) for box in rendered(pristine, row["media"]).boxes)
    assert set(labels) == {"kidney", "tumor", "cyst"}


def test_a_case_with_one_of_its_two_files_is_a_ledger_line(copied: Path) -> None:
    """What a download that stopped leaves: an outline alone."""
    names = [case.case_id for case in read_cases(Store(copied))]
    (copied / ROOT / names[0] / "imaging.nii.gz").unlink()
    (copied / ROOT / names[1] / "segmentation.nii.gz").unlink()
    shutil.rmtree(copied / ROOT / names[2])
    (copied / ROOT / "case_00299").mkdir()
    parts, skips = parts_of(copied)
    told = {skip.item: (skip.reason, skip.path) for skip in skips}
    assert told == {
        names[0]: ("file_missing", CASES),
        names[1]: ("mask_missing", CASES),
        names[2]: ("file_missing", CASES),
        "case_00299": ("no_label", CASES),
    }
    assert set(parts["patient"]) == set(names[3:])
    assert kits23.statistics(Store(copied), kits23.Options()) == {
        "cases_malignant": 6,
        "cases_benign": 5,
        "cases_of_unknown_malignancy": 1,
        "cases_without_folder": 1,
        "cases_with_outlines_alone": 1,
        "folders_of_no_case": 1,
    }


def test_outlines_that_cannot_be_right_are_ledger_lines(copied: Path) -> None:
    names = [case.case_id for case in read_cases(Store(copied))]
    for case, change in ((names[0], lambda one: one * 0), (names[1], lambda one: one + 3 * (one == 1))):
        path = copied / ROOT / case / "segmentation.nii.gz"
        image = nib.load(path)
        path.write_bytes(nifti_bytes(change(np.asarray(image.dataobj)).astype(np.uint8), image.affine))
    (copied / ROOT / names[2] / "segmentation.nii.gz").write_bytes(b"no volume")
    _, skips = parts_of(copied)
    assert {skip.item: skip.reason for skip in skips} == {
        names[0]: "no_label",
        names[1]: "mask_conflict",
        names[2]: "file_truncated",
    }


def test_slices_between_structures_say_none_and_only_those(copied: Path) -> None:
    case = read_cases(Store(copied))[0].case_id
    path = copied / ROOT / case / "segmentation.nii.gz"
    image = nib.load(path)
    values = np.asarray(image.dataobj).copy()
    values[9:11] = 0
    path.write_bytes(nifti_bytes(values, image.affine))
    parts, _ = parts_of(copied, slices="all")
    found = parts.filter((pl.col("patient") == case) & (pl.col("answer.structures").list.first() == "none"))
    assert sorted(found["item"]) == [f"{case}/axial-13", f"{case}/axial-14"]
    stood = np.flatnonzero(values[::-1].any(axis=(1, 2)))
    assert parts.filter(pl.col("patient") == case).height == stood[-1] - stood[0] + 1


def test_specks_choose_no_slice_and_get_no_box_unless_the_recipe_keeps_them(pristine: Path) -> None:
    with_speck = read_cases(Store(pristine))[1].case_id
    default, kept = (
        parts_of(pristine, **keys)[0].filter(pl.col("patient") == with_speck)
        for keys in ({}, {"minimum_volume_mm3": 0})
    )
    added = set(kept["item"]) - set(default["item"])
    assert added == {f"{with_speck}/axial-21"}
    row = kept.filter(pl.col("item").is_in(sorted(added))).row(0, named=True)
    assert row["answer.structures"] == ["kidney"]
    assert [box.xyxy for box in rendered(pristine, row["media"]).boxes] == [(28, 40, 29, 41)]
    outlines = {**row["media"][1], "part": default["media"][0][1]["part"]}
    without = rendered(pristine, [row["media"][0], outlines])
    assert without.boxes == ()
    assert "1 instances under 20 mm3 left out" in without.provenance[1].taken


def test_context_has_age_and_sex_and_neither_says_more_than_it_may(pristine: Path) -> None:
    items = scanned(pristine)
    entries = json.loads((pristine / CASES).read_text())
    rows = {row["item"]: row for row in items.iter_rows(named=True)}
    for entry in entries:
        row = rows[entry["case_id"]]
        age = entry["age_at_nephrectomy"]
        assert row["context.age"] == ("over 89 years" if age > 89 else f"{age} years")
        assert row["context.sex"] == (entry["gender"] if entry["gender"] in ("male", "female") else None)
    assert None in set(items["context.sex"])
    assert "over 89 years" in set(items["context.age"])


BAD: dict[str, tuple[CHANGE, str]] = {
    "twice": (lambda all_: all_.append(all_[2]), "entry 13: its case_id stands in entry 3 already"),
    "no id": (lambda all_: all_[1].pop("case_id"), "entry 2: it has no field 'case_id'"),
    "odd id": (lambda all_: all_[1].update(case_id="../x"), "entry 2: its 'case_id' is not like case_00000"),
    "null id": (lambda all_: all_[1].update(case_id=None), "entry 2: its 'case_id' is not like case_00000"),
    "no label": (lambda all_: all_[4].pop("malignant"), "entry 5: it has no field 'malignant'"),
    "label as text": (lambda all_: all_[0].update(malignant="true"), "entry 1: its field 'malignant' is no bool"),
    "label as number": (lambda all_: all_[0].update(malignant=1), "entry 1: its field 'malignant' is no bool"),
    "subtype": (lambda all_: all_[0].update(tumor_histologic_subtype="secret"), "is none of the published ones"),
    "age as text": (lambda all_: all_[0].update(age_at_nephrectomy="60"), "'age_at_nephrectomy' is no int"),
    "age": (lambda all_: all_[0].update(age_at_nephrectomy=400), "'age_at_nephrectomy' is under 0 or over 120"),
    "no case": (lambda all_: all_.insert(0, "case_00000"), "entry 1: it is no case"),  # type: ignore[arg-type]
    "empty": (lambda all_: all_.clear(), "is no list of cases"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_is_not_as_published_is_one_error(name: str, copied: Path) -> None:
    change, said = BAD[name]
    with pytest.raises(TableError, match="dataset/kits23.json") as caught:
        scanned(rewrite(copied, change))
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", [b"", b"<html>", b"{}", b"[1", b'"x"', b'[{"case_id": NaN}]', b"\xff\xfe", b"[" * 9999]
)
def test_what_is_no_list_of_cases_is_one_error(text: bytes, copied: Path) -> None:
    (copied / CASES).write_bytes(text)
    with pytest.raises(TableError, match="dataset/kits23.json is no"):
        scanned(copied)


def test_layouts_that_are_not_the_publishers_are_one_error(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="Give the folder that holds dataset/"):
        scanned(copied / ROOT)
    for folder in (copied / ROOT).glob("case_*"):
        shutil.rmtree(folder)
    with pytest.raises(LayoutError, match="no folder named like case_00000"):
        scanned(copied)
    (copied / CASES).unlink()
    (copied / CASES).mkdir()
    with pytest.raises(LayoutError, match="cannot be read"):
        scanned(copied)
    assert issubclass(LayoutError, SourceError)


def test_a_row_may_be_passed_on_under_the_same_terms() -> None:
    assert strictest(SOURCE.spec.licences.values()) == ("CC-BY-NC-SA-4.0", Redistribution.SAME_TERMS)


def test_the_real_table_is_read_whole(realdata: Path) -> None:
    entries = json.loads((realdata / "kits23" / CASES).read_text())
    cases = read_cases(Store(realdata / "kits23"))
    assert [case.case_id for case in cases] == [entry["case_id"] for entry in entries]
    assert len(cases) == len({case.case_id for case in cases}) == 489
    items = scanned(realdata / "kits23")
    found = Counter(None if one is None else one[0] for one in items["answer.malignancy"].to_list())
    assert found == Counter({True: "malignant", False: "benign", None: None}[one["malignant"]] for one in entries)
    assert found == {"malignant": 439, "benign": 43, None: 7}
    subtypes = Counter(entry["tumor_histologic_subtype"] for entry in entries)
    assert set(subtypes) - {None} == set(SUBTYPES)
    kept = Counter(None if one is None else one[0] for one in items["answer.subtype"].to_list())
    assert kept["clear_cell_rcc"] == subtypes["clear_cell_rcc"] == 310
    assert kept["other"] == sum(count for name, count in subtypes.items() if SUBTYPES.get(name or "") == "other") == 27
    assert kept[None] == subtypes[None] == 6
    sexes = Counter(items["context.sex"].to_list())
    assert sexes == {"male": 306, "female": 182, None: 1}
    ages = [entry["age_at_nephrectomy"] for entry in entries]
    assert Counter(items["context.age"].to_list())["67 years"] == ages.count(67)
    assert Counter(items["skip_reason"].to_list()) == {"file_missing": 489}  # pictures are not in the repository
    assert kits23.statistics(Store(realdata / "kits23"), kits23.Options()) == {
        "cases_malignant": 439,
        "cases_benign": 43,
        "cases_of_unknown_malignancy": 7,
        "cases_without_folder": 478,
        "cases_with_outlines_alone": 11,
        "folders_of_no_case": 0,
    }


class Region:
    """One component of one value as scikit-image finds it, in canonical indices."""

    def __init__(self, value: int, start: tuple[int, ...], image: NDArray[np.bool_]) -> None:
        self.value, self.start, self.image = value, start, image

    def box(self, index: int, shape: tuple[int, ...]) -> tuple[str, tuple[int, int, int, int]] | None:
        """Its box on the picture of an axial slice, by regionprops of its cross-section."""
        at = index - self.start[2]
        if not 0 <= at < self.image.shape[2]:
            return None
        (found,) = regionprops(self.image[:, :, at].astype(np.uint8))
        x0, y0, x1, y1 = found.bbox
        right, top = shape[0] - self.start[0], shape[1] - self.start[1]
        return kits23.NAMES[self.value], (right - x1, top - y1, right - x0, top - y0)


def independently(path: Path) -> tuple[list[Region], tuple[int, ...]]:
    """Every component by nibabel and scikit-image, within the box of what is labelled."""
    image = nib.load(path)
    values = nib.apply_orientation(np.asarray(image.dataobj), nib.io_orientation(image.affine))
    kept = [np.flatnonzero(values.any(axis=tuple(o for o in range(3) if o != axis))) for axis in range(3)]
    corner = [int(one[0]) for one in kept]
    inside = values[tuple(slice(int(one[0]), int(one[-1]) + 1) for one in kept)]
    regions = []
    for value in (1, 2, 3):
        for found in regionprops(label(inside == value, connectivity=3)):
            start = tuple(a + b for a, b in zip(corner, found.bbox[:3], strict=True))
            regions.append(Region(value, start, found.image))
    return regions, values.shape


def real_cases(realdata: Path) -> Iterator[Path]:
    yield from sorted((realdata / "kits23" / ROOT).glob("*/segmentation.nii.gz"))


def test_real_outlines_have_the_instances_and_boxes_that_scikit_image_finds(realdata: Path) -> None:
    """Every instance of the eleven cases, and the boxes on up to 25 slices a case where an instance is largest."""
    slices = 0
    small: Counter[int] = Counter()
    labels: Counter[str] = Counter()
    for path in real_cases(realdata):
        volume = to_canonical(read_labels(path.read_bytes(), path.name))
        found = find_instances(volume.values)
        regions, shape = independently(path)
        assert sorted((one.value, tuple(s.start for s in one.slices), one.voxels) for one in found.instances) == sorted(
            (one.value, one.start, int(one.image.sum())) for one in regions
        )
        voxel = float(np.prod(volume.spacing_mm))
        small.update(one.value for one in found.instances if one.voxels * voxel < 20)
        chosen = sorted({one.largest[2] for one in found.instances})[:25]
        large = [one.largest[2] for one in found.instances if one.voxels * voxel >= 20]
        for index in sorted({*chosen, *large}):
            cut = {"plane": "axial", "index": index}
            file = {"path": path.relative_to(realdata).as_posix()}
            media = [
                {"role": "image", "kind": "volume", "part": "", "slice": cut, "display": "soft_tissue", **file},
                {"role": "mask", "kind": "volume_labels", "part": "1=kidney;2=tumor;3=cyst", **file},
            ]
            boxes = [(box.label, box.xyxy) for box in rendered(realdata, media).boxes]
            assert sorted(boxes) == sorted(box for one in regions if (box := one.box(index, shape)))
            labels.update(name for name, _ in boxes)
            slices += 1
    assert slices >= 100
    assert min(labels["kidney"], labels["tumor"], labels["cyst"]) > 20
    assert small == {1: 109}
