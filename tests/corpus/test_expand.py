"""From one scanned item to many: regions found by the inspect step, windows of pictures, parts on their item's side."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical.boxes import Box, boxes_from_mask
from qoq_data.clinical.transform import Transform
from qoq_data.corpus.build import build_corpus, shard_jobs
from qoq_data.corpus.expand import expand_items
from qoq_data.corpus.inspect import inspect_items
from qoq_data.corpus.items import checked_items, scan_items
from qoq_data.corpus.manifest import Manifest
from qoq_data.corpus.planning import SourceInput, SourcePlan, plan_corpus
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.corpus.trace import trace_row
from qoq_data.corpus.verify import verify_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import Reason, RecordError, SkipLimitError, SourceError
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe, SourceRecipe, default_recipe
from qoq_data.record import Media
from qoq_data.source import ITEM_COLUMNS, Source, media_type
from qoq_data.sources import bcss, source_of
from tests.corpus.building import ledger_of, rows_of

BCSS = source_of(bcss)
Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bcss")
    bcss.synthesize(folder, 5, 6)
    return folder


@pytest.fixture
def copied(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "raw"))


def recipe_of(source: Source, **keys: Any) -> Recipe:
    return default_recipe(source).model_copy(update=keys)


def plan_of(source: Source, tree: Path, recipe: Recipe | None = None) -> SourcePlan:
    recipe = recipe or recipe_of(source)
    inputs = [SourceInput(source, recipe.sources[0], Store(tree))]
    (plan,) = plan_corpus(recipe, inputs, None, LocalEngine(1))
    return plan


def rows_in(plan: SourcePlan) -> pl.DataFrame:
    return pl.concat([shard.rows.select("item", "split") for shard in plan.shards]).sort("item")


# The inspector


def test_label_regions_are_those_of_the_file_and_come_from_the_cache(pristine: Path, tmp_path: Path) -> None:
    items = scan_items(BCSS, Store(pristine), bcss.Options()).head(2)
    facts, skips = inspect_items(
        items, "bcss", "label_regions", Store(pristine), Store(tmp_path), "a" * 64, LocalEngine(1)
    )
    assert skips == []
    for item, media in items.select("item", "media").iter_rows():
        labels = np.asarray(Image.open(pristine / media[1]["path"]))
        found = facts.filter(pl.col("item") == item).row(0, named=True)
        assert sum(one["pixels"] for one in found["regions"]) == np.count_nonzero(labels)
        for tile in found["tiles"]:
            part = labels[tile["y0"] : tile["y1"], tile["x0"] : tile["x1"]]
            assert {one["value"]: one["pixels"] for one in tile["counts"]} == {
                int(value): int((part == value).sum()) for value in np.unique(part)
            }
            assert tile["value"] in part

    def measured(function: Any, jobs: Any) -> Any:
        assert not jobs
        yield from ()

    engine = LocalEngine(1)
    engine.map = measured  # type: ignore[method-assign]
    again, _ = inspect_items(items, "bcss", "label_regions", Store(pristine), Store(tmp_path), "a" * 64, engine)
    assert again.equals(facts)


def test_a_mask_that_is_a_picture_or_absent_is_a_ledger_line(copied: Path) -> None:
    masks = sorted((copied / "masks").iterdir())
    noise = np.random.default_rng(0).integers(0, 22, (480, 492), dtype=np.uint8)
    Image.fromarray(noise).save(masks[0])
    Image.fromarray(noise).convert("RGB").save(masks[1])
    masks[2].write_bytes(b"no picture at all")
    plan = plan_of(BCSS, copied, recipe_with_limit(1.0))
    found = {skip.item: (skip.reason, skip.path) for skip in plan.skips if "/" not in skip.item}
    assert found == {
        masks[0].stem: ("format_unsupported", f"masks/{masks[0].name}"),
        masks[1].stem: ("format_unsupported", f"masks/{masks[1].name}"),
        masks[2].stem: ("image_format_not_allowed", f"masks/{masks[2].name}"),
    }
    assert {item.split("/")[0] for item in rows_in(plan)["item"]} == {path.stem for path in masks[3:]}


def recipe_with_limit(limit: float) -> Recipe:
    return recipe_of(BCSS, sources=(SourceRecipe(name="bcss", skip_limit=limit),))


def test_scanned_items_that_are_lost_count_as_such_and_not_as_one_of_many_tiles(copied: Path) -> None:
    """One ROI of six is a sixth of the source, though its line is one among some thirty of tiles."""
    next((copied / "masks").iterdir()).unlink()
    with pytest.raises(SkipLimitError, match="1 of 6 items were skipped"):
        plan_of(BCSS, copied, recipe_with_limit(0.1))
    assert plan_of(BCSS, copied, recipe_with_limit(0.2)).rows.height


# What the frame asks of an expand


def expanded(source: Source, tree: Path) -> tuple[pl.DataFrame, list[Any]]:
    items = scan_items(source, Store(tree), bcss.Options())
    facts, _ = inspect_items(items, "bcss", "label_regions", Store(tree), None, "", LocalEngine(1))
    named = facts.rename({column: f"label_regions.{column}" for column in ("regions", "tiles")})
    items = items.drop("skip_reason", "skip_detail").with_columns(
        pl.col("patient").alias("group_key"), pl.lit("train").alias("split")
    )
    return expand_items(source, items, named, bcss.Options())


def changing(change: Change) -> Source:
    return replace(BCSS, expand=lambda items, facts, options: change(bcss.expand(items, facts, options)))


def first_item(value: Any, column: str) -> pl.Expr:
    return pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)


def test_parts_are_sorted_and_take_the_side_of_their_item(pristine: Path) -> None:
    parts, aside = expanded(BCSS, pristine)
    assert parts["item"].is_sorted()
    assert (parts["group_key"] == parts["patient"]).all()
    assert set(parts["split"]) == {"train"}
    assert parts.schema["media"] == pl.List(media_type("window"))
    assert {skip.reason for skip in aside} == {"no_label"}
    assert parts.height + len(aside) > 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda parts: parts.with_columns(first_item("stranger/x0", "item")), "does not begin with a scanned item's"),
        (lambda parts: parts.filter(~pl.col("item").str.starts_with(parts["item"][0][:30])), "made nothing of 1 items"),
        (lambda parts: parts.with_columns(first_item("TCGA-XX-0000", "patient")), "changed the column 'patient'"),
        (lambda parts: parts.with_columns(first_item("TCGA-XX-0000", "group")), "changed the column 'group'"),
        (lambda parts: parts.with_columns(first_item(None, "study")), "changed the column 'study'"),
        (lambda parts: parts.with_columns(pl.lit("test").alias("official_split")), "changed the column 'official_spl"),
        (lambda parts: pl.concat([parts, parts.head(1)]), "stands more than once"),
        (lambda parts: parts.drop("answer.tissue"), "lacks the column 'answer.tissue'"),
        (lambda parts: parts.with_columns(pl.lit("x").alias("context.site")), "is not declared in its SPEC"),
        (lambda parts: parts.with_columns(pl.lit(["fat"]).alias("answer.tissue")), "outside its vocabulary"),
        (lambda parts: parts.select(pl.col("no such column")), "failed inside polars"),
    ],
)
def test_an_expand_that_breaks_the_contract(change: Change, said: str, pristine: Path) -> None:
    with pytest.raises(SourceError, match=said):
        expanded(changing(change), pristine)


def test_an_item_may_stay_as_it_is(pristine: Path) -> None:
    kept = replace(BCSS, expand=lambda items, facts, options: items)
    parts, aside = expanded(kept, pristine)
    assert (parts["item"].to_list(), aside) == (scan_items(BCSS, Store(pristine), bcss.Options())["item"].to_list(), [])


def test_facts_come_with_the_name_of_their_inspector(pristine: Path) -> None:
    seen: list[list[str]] = []

    def expand(items: pl.DataFrame, facts: pl.DataFrame, options: Any) -> pl.DataFrame:
        seen.append(facts.columns)
        assert facts["item"].to_list() == items["item"].to_list()
        return bcss.expand(items, facts, options)

    plan_of(replace(BCSS, expand=expand), pristine)
    assert seen == [["item", "label_regions.regions", "label_regions.tiles"]]


def test_parts_of_two_patients_with_one_picture_stay_on_one_side(copied: Path) -> None:
    """The same picture under two patients, one of them officially test: content joins them before anything is cut."""
    pictures = sorted((copied / "images").iterdir())
    test, train = (next(p for p in pictures if (p.name[5:7] in bcss.TEST_SITES) is test) for test in (True, False))
    alone = rows_in(plan_of(BCSS, copied))
    sides = dict(alone.select(pl.col("item").str.split("/").list.first(), "split").iter_rows())
    assert (sides[test.stem], sides[train.stem]) == ("test", "train")
    for folder in ("images", "masks"):
        shutil.copy(copied / folder / test.name, copied / folder / train.name)
    both = replace(BCSS, spec=replace(BCSS.spec, inspectors=("label_regions", "picture_content")))
    joined = rows_in(plan_of(both, copied))
    sides = dict(joined.select(pl.col("item").str.split("/").list.first(), "split").iter_rows())
    assert (sides[test.stem], sides[train.stem]) == ("test", "test")


# A whole corpus of parts


def test_a_corpus_of_tiles_is_built_verified_traced_and_found_again(pristine: Path, tmp_path: Path) -> None:
    recipe = recipe_of(BCSS)
    inputs = [SourceInput(BCSS, recipe.sources[0], Store(pristine))]
    store, engine = Store(tmp_path / "out"), LocalEngine(1)
    manifest: Manifest = build_corpus(recipe, inputs, store, engine)
    rows, ledger = rows_of(tmp_path / "out"), ledger_of(tmp_path / "out")
    assert manifest.sources[0].items == len(rows) + len(ledger) == plan_of(BCSS, pristine).items
    assert verify_corpus(store, manifest, inputs).problems == ()
    assert all(trace_row(store, manifest, recipe, row_id, inputs, engine).agrees for row_id in sorted(rows)[::7])
    for row in rows.values():
        x0, y0, x1, y1 = window_of(row)
        picture, mask = (np.asarray(Image.open(pristine / row["provenance"][i]["path"])) for i in (0, 1))
        stored = np.asarray(Image.open(io.BytesIO(row["images"][0]["bytes"])))
        assert stored.shape == (y1 - y0, x1 - x0, 3)
        assert np.abs(stored.astype(int) - picture[y0:y1, x0:x1]).mean() < 4
        value = {"Tumor": 1, "Stroma": 2, "Inflammatory": 3, "Necrosis": 4}[row["answer"][0]]
        plain = boxes_from_mask(mask[y0:y1, x0:x1] == value, row["answer"][0].lower()).boxes
        assert [(box["label"], tuple(box["xyxy"])) for box in row["boxes"]] == [(box.label, box.xyxy) for box in plain]


def window_of(row: dict[str, Any]) -> tuple[int, ...]:
    numbers = row["provenance"][0]["taken"].split(" of ")[0].removeprefix("the window ").replace(" to ", ",")
    return tuple(int(one) for one in numbers.split(","))


def test_which_recipe_keys_decide_a_shard_of_label_maps(pristine: Path, tmp_path: Path) -> None:
    def key(**keys: Any) -> str:
        recipe = recipe_of(BCSS, **keys)
        return shard_jobs(recipe, plan_of(BCSS, pristine, recipe), Store(tmp_path))[0].key

    plain = key()
    assert key(boxes=recipe_of(BCSS).boxes.model_copy(update={"min_area_px": 9})) != plain
    assert key(masks=True) != plain
    assert key(signals=recipe_of(BCSS).signals.model_copy(update={"resample_hz": 100})) == plain


# A window of a picture


def made_up(folder: Path, height: int = 90, width: int = 120) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = np.zeros((height, width), np.uint8)
    labels[10:30, 10:50] = 1
    labels[40:60, 30:100] = 2
    labels[60:70, 30:40] = 5
    labels[80:90, 110:120] = 1
    Image.fromarray(pixels).save(folder / "p.png")
    Image.fromarray(labels).save(folder / "l.png")
    Image.fromarray((labels == 2).astype(np.uint8) * 255).save(folder / "m.png")
    return pixels, labels


def rendered(folder: Path, window: Any, recipe: Recipe | None = None, *masks: MediaReference) -> Media:
    masks = masks or (MediaReference("mask", "label_map", "l.png", "1=a;2=b;5=b"),)
    picture = MediaReference("image", "image", "p.png", "", window)
    recipe = recipe or recipe_of(BCSS)
    png = recipe.images.model_copy(update={"encoding": "png"})
    return render_media(Store(folder), [picture, *masks], recipe.model_copy(update={"images": png}))


def found_boxes(media: Media) -> list[tuple[str, tuple[int, ...]]]:
    return [(box.label, box.xyxy) for box in media.boxes]


def test_a_window_is_cut_in_original_pixels_and_boxes_follow(tmp_path: Path) -> None:
    pixels, _ = made_up(tmp_path)
    window = (20, 5, 110, 65)
    media = rendered(tmp_path, window)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(media.images[0]))), pixels[5:65, 20:110])
    change = Transform.cropped((120, 90), window)
    whole = [("a", (10, 10, 50, 30)), ("b", (30, 40, 100, 70))]
    moved = [change.apply_to_box(Box(label, 0, xyxy)) for label, xyxy in whole]
    assert found_boxes(media) == [(box.label, box.xyxy) for box in moved if box]
    assert [one.taken for one in media.provenance] == [
        "the window 20,5 to 110,65 of 120 x 90",
        "the window 20,5 to 110,65; values 1=a;2=b;5=b",
    ]
    for one in media.provenance:
        assert one.sha256 == hashlib.sha256((tmp_path / one.path).read_bytes()).hexdigest()


def test_boxes_are_of_what_can_be_seen_and_not_of_what_was_cut_off(tmp_path: Path) -> None:
    """A region in the shape of a U, of which the window shows the two ends: two boxes, and not one round both."""
    made_up(tmp_path)
    labels = np.zeros((90, 120), np.uint8)
    labels[10:80, 10:20] = labels[10:80, 90:100] = labels[70:80, 10:100] = 1
    Image.fromarray(labels).save(tmp_path / "l.png")
    media = rendered(tmp_path, (0, 0, 120, 40), None, MediaReference("mask", "label_map", "l.png", "1=a"))
    assert found_boxes(media) == [("a", (10, 10, 20, 40)), ("a", (90, 10, 100, 40))]


def test_a_window_over_the_budget_is_scaled_after_it_was_cut(tmp_path: Path) -> None:
    made_up(tmp_path)
    recipe = recipe_of(BCSS)
    small = recipe.model_copy(update={"images": recipe.images.model_copy(update={"longest_side": 45})})
    media = rendered(tmp_path, (20, 5, 110, 65), small)
    assert Image.open(io.BytesIO(media.images[0])).size == (45, 30)
    assert media.provenance[0].taken == "the window 20,5 to 110,65 of 120 x 90; scaled from 90 x 60 to 45 x 30"
    assert found_boxes(media) == [("a", (0, 2, 15, 13)), ("b", (5, 17, 40, 30))]


def test_a_mask_of_its_own_is_cut_with_the_picture_and_stored_where_asked(tmp_path: Path) -> None:
    made_up(tmp_path)
    mask, labels = MediaReference("mask", "mask", "m.png", "m"), MediaReference("mask", "label_map", "l.png", "1=a")
    recipe = recipe_of(BCSS, masks=True)
    media = rendered(tmp_path, (20, 5, 110, 65), recipe, mask, labels)
    assert found_boxes(media) == [("m", (10, 35, 80, 55)), ("a", (0, 5, 30, 25))]
    stored = np.asarray(Image.open(io.BytesIO(media.masks[0])))
    expected = np.zeros((60, 90), np.uint8)
    expected[35:55, 10:80] = 1
    expected[5:25, 0:30] = 2
    assert np.array_equal(stored, expected)
    assert media.provenance[1].taken == "the window 20,5 to 110,65"


def test_b01_a_scaled_mask_is_cut_after_it_was_aligned_and_says_both(tmp_path: Path) -> None:
    made_up(tmp_path)
    with Image.open(tmp_path / "m.png") as mask:
        mask.resize((240, 180), Image.Resampling.NEAREST).save(tmp_path / "m.png")
    media = rendered(tmp_path, (20, 5, 110, 65), None, MediaReference("mask", "mask", "m.png", "m"))
    assert found_boxes(media) == [("m", (10, 35, 80, 55))]
    assert media.provenance[1].taken.endswith("nearest neighbour; the window 20,5 to 110,65")


def test_b04_a_window_is_of_the_upright_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "p.png", exif=exif)
    reference = MediaReference("image", "image", "p.png", "", (2, 30, 18, 40))
    recipe = recipe_of(BCSS)
    png = recipe.model_copy(update={"images": recipe.images.model_copy(update={"encoding": "png"})})
    media = render_media(Store(tmp_path), [reference], png)
    upright = np.rot90(pixels, -1)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(media.images[0]))), upright[30:40, 2:18])


def test_without_a_window_a_label_map_gives_boxes_of_the_whole_and_bytes_pass_through(tmp_path: Path) -> None:
    made_up(tmp_path)
    media = rendered(tmp_path, None)
    assert media.images[0] == (tmp_path / "p.png").read_bytes()
    assert found_boxes(media) == [("a", (10, 10, 50, 30)), ("a", (110, 80, 120, 90)), ("b", (30, 40, 100, 70))]
    assert [one.taken for one in media.provenance] == ["the whole picture", "the whole mask; values 1=a;2=b;5=b"]


def test_values_without_a_name_get_no_box(tmp_path: Path) -> None:
    made_up(tmp_path)
    media = rendered(tmp_path, None, None, MediaReference("mask", "label_map", "l.png", "5=b;9=c"))
    assert found_boxes(media) == [("b", (30, 60, 40, 70))]


@pytest.mark.parametrize("per", ["component", "mask", "union"])
def test_boxes_per_name_of_a_label_map(per: str, tmp_path: Path) -> None:
    made_up(tmp_path)
    recipe = recipe_of(BCSS)
    media = rendered(tmp_path, None, recipe.model_copy(update={"boxes": recipe.boxes.model_copy(update={"per": per})}))
    apart = [("a", (10, 10, 50, 30)), ("a", (110, 80, 120, 90))] if per == "component" else [("a", (10, 10, 120, 90))]
    assert found_boxes(media) == [*apart, ("b", (30, 40, 100, 70))]


@pytest.mark.parametrize("window", [(0, 0, 121, 90), (0, 0, 120, 91), (5, 5, 5, 9), (-1, 0, 20, 20)])
def test_a_window_that_leaves_the_picture_is_refused(window: Any, tmp_path: Path) -> None:
    made_up(tmp_path)
    with pytest.raises(RecordError, match="leaves the picture") as caught:
        rendered(tmp_path, window)
    assert (caught.value.reason, caught.value.path) == (Reason.MASK_SHAPE_MISMATCH, "p.png")


@pytest.mark.parametrize("window", [None, (0, 0, 10, 10)])
def test_b01_a_label_map_of_another_size_is_refused_even_of_the_same_aspect(window: Any, tmp_path: Path) -> None:
    made_up(tmp_path)
    with Image.open(tmp_path / "l.png") as labels:
        labels.resize((240, 180), Image.Resampling.NEAREST).save(tmp_path / "l.png")
    with pytest.raises(RecordError, match="label map is 240 x 180, its picture 120 x 90") as caught:
        rendered(tmp_path, window)
    assert (caught.value.reason, caught.value.path) == (Reason.MASK_SHAPE_MISMATCH, "l.png")


def test_n01_values_of_a_label_map_are_taken_as_they_are(tmp_path: Path) -> None:
    """Palette indices and 16-bit values: neither is scaled to 8 bits or looked up in a palette."""
    made_up(tmp_path)
    labels = np.zeros((90, 120), np.uint16)
    labels[10:20, 10:20], labels[30:40, 10:20] = 300, 44  # 300 would be 44 in a byte
    Image.fromarray(labels).save(tmp_path / "l.png")
    media = rendered(tmp_path, (0, 0, 60, 60), None, MediaReference("mask", "label_map", "l.png", "300=a;44=b"))
    assert found_boxes(media) == [("a", (10, 10, 20, 20)), ("b", (10, 30, 20, 40))]
    palette = Image.new("P", (120, 90))
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.paste(1, (10, 10, 20, 20))
    palette.save(tmp_path / "l.png")
    media = rendered(tmp_path, None, None, MediaReference("mask", "label_map", "l.png", "1=a"))
    assert found_boxes(media) == [("a", (10, 10, 20, 20))]


# Item tables with windows


def one_item(media: list[dict[str, Any]]) -> pl.DataFrame:
    items = pl.DataFrame(
        {
            "item": ["x"], "patient": ["x"], "group": ["x"], "study": [None], "official_split": [None],
            "media": [media], "label_file": ["x"], "label_row": ["x"], "answer.tissue": [["tumor"]],
        },
        schema={
            **ITEM_COLUMNS, "media": pl.List(media_type("window")), "answer.tissue": pl.List(pl.String),
        },
    )  # fmt: skip
    return checked_items(BCSS, items)


IMAGE = {"role": "image", "kind": "image", "path": "p.png", "part": ""}
LABELS = {"role": "mask", "kind": "label_map", "path": "l.png", "part": "1=a"}
SOUND = {"x0": 0, "y0": 0, "x1": 2, "y1": 2}


def test_an_item_table_may_have_windows() -> None:
    found = one_item([IMAGE | {"window": SOUND}, LABELS, IMAGE])
    references = [MediaReference.of(one) for one in found["media"][0]]
    assert [one.window for one in references] == [(0, 0, 2, 2), None, None]
    assert MediaReference.of(IMAGE).window is None


@pytest.mark.parametrize(
    ("media", "said"),
    [
        ([IMAGE | {"window": SOUND | {"x1": 0}}], "a window of its item table is empty"),
        ([IMAGE | {"window": SOUND | {"y0": -1}}], "a window of its item table is empty"),
        ([IMAGE | {"window": SOUND | {"y1": None}}], "a window of its item table is empty, has no corner"),
        ([IMAGE, LABELS | {"window": SOUND}], "is of no image"),
        ([LABELS, IMAGE], "begins with a mask"),
        ([IMAGE, LABELS | {"part": ""}], "a label map of its item table names no values"),
        ([IMAGE, LABELS | {"part": "0=a"}], "a label map of its item table names no values"),
        ([IMAGE, LABELS | {"part": None}], "a label map of its item table names no values"),
    ],
)
def test_windows_and_label_maps_that_are_none(media: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        one_item(media)
