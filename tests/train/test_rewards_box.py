"""Boxes: how they are read out of text, and what they are worth against boxes and masks."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.record import BoxOnImage
from qoq_train.coordinates import QWEN3_VL, STORED_PIXELS
from qoq_train.rewards import PRESETS, settings_of
from qoq_train.rewards.box import BoxTruth, TrueBox, TrueMask, box_iou, box_reward, mask_iou, whole_picture_boxes
from qoq_train.rewards.boxes_in_text import MAX_BOXES, StatedBox, StatedBoxes, fences, read_boxes

quick = settings(derandomize=True, deadline=None, max_examples=60)
FRAMES = (STORED_PIXELS.frame((100, 100)),)
ITEM = '{"bbox_2d": [1, 2, 3, 4.5], "label": "Mass"}'
BOX = StatedBox((1, 2, 3, 4.5), "mass")


def truth(*boxes: tuple[float, float, float, float], label: str = "") -> BoxTruth:
    return BoxTruth(tuple(TrueBox(box, label) for box in boxes), FRAMES)


def stated(*boxes: tuple[float, float, float, float]) -> StatedBoxes:
    return StatedBoxes(tuple(StatedBox(box) for box in boxes), stated=True)


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n[{ITEM}]\n```", f"```\n[{ITEM}]\n```", f"```json\n{ITEM}\n```", f"see [{ITEM}] there", f"```json\n[{ITEM}",  # noqa: E501
        "```json\n[{'bbox_2d': [1, 2, 3, 4.5], 'label': 'Mass'}]\n```", f"```json\n[{ITEM},]\n``` \\boxed{{A}}",
        f"```json\n[{ITEM}]\n```\n<think>no, ```json\n[]\n```</think>", f"<think>```json\n[{ITEM}]\n```</think> \\boxed{{A}}",  # noqa: E501
        '```JSON\n[ { "label" : "Mass", "bbox" : [1,2,3,4.5] } ]\n```', f"```json\n[{ITEM}]\n```\n```python\nprint(3)\n```",  # noqa: E501
        f'```json\n[{ITEM}]\n```\n```json\n{{"answer": "A"}}\n```', f"```json\n[]\n```\n```json\n[{ITEM}]\n```",
        f"```json\n{json.dumps([json.loads(ITEM)], indent=2)}\n```", "<ref>Mass</ref><box>(1,2),(3,4.5)</box>",
        "<|object_ref_start|>Mass<|object_ref_end|><|box_start|>(1, 2), (3, 4.5)<|box_end|>", "<ref>mass</ref><box>[1, 2, 3, 4.5]</box>",  # noqa: E501
        "<ref>mass</ref> <box>1, 2, 3, 4.5</box>", "<ref>mass</ref><box>[[1, 2, 3, 4.5]]</box>",
    ],
)  # fmt: skip
def test_w03_forms_that_are_read(text: str) -> None:
    assert read_boxes(text) == StatedBoxes((BOX,), stated=True)


def test_w03_three_boxes_and_bare_lists() -> None:
    items = ", ".join(f'{{"bbox_2d": [{i}, 0, {i + 1}, 1], "label": "x"}}' for i in range(3))
    assert [box.xyxy[0] for box in read_boxes(f"```json\n[{items}]\n```").boxes] == [0, 1, 2]
    assert [box.xyxy[0] for box in read_boxes("```json\n[[0,0,1,1],[1,0,2,1]]\n```").boxes] == [0, 1]
    assert [box.xyxy[0] for box in read_boxes("<box>[[0,0,1,1],[1,0,2,1]]</box><box>(5,0),(6,1)</box>").boxes] == [
        0,
        1,
        5,
    ]
    several = read_boxes('[{"bbox_2d": [0,0,1,1], "image": 2, "label": "a"}, {"image": 1, "bbox_2d": [1,0,2,1]}]')
    assert [(box.image, box.label) for box in several.boxes] == [(1, "a"), (0, "")]


@pytest.mark.parametrize(
    ("text", "malformed"),
    [
        ('```json\n[{"bbox_2d": [1, 2, 3], "label": "a"}]\n```', 1),
        ('```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"label": "b"}, {"bbox_2d": "left"}]\n```', 2),
        ('```json\n[{"bbox_2d": [1, 2, 3, ' + "9" * 5000 + "]}]\n```", 1),
        ('```json\n[{"bbox_2d": [0, 0, NaN, 1e400], "label": "a"}]\n```', 1),
        ("<box>somewhere</box>", 1),
    ],
)
def test_items_without_a_box_are_counted(text: str, malformed: int) -> None:
    found = read_boxes(text)
    assert (found.malformed, found.stated) == (malformed, True)


@pytest.mark.parametrize("text", ["```json\n[]\n```", "```\n[ ]\n```", "\n[]\n\\boxed{A}", "<box></box>"])
def test_w03_empty_list_is_a_statement(text: str) -> None:
    assert read_boxes(text) == StatedBoxes(stated=True)


@pytest.mark.parametrize(
    "text", ["", "none", "\\boxed{A}", "```json\nnothing\n```", "```python\nx = {}\n```", "an index [] here"]
)
def test_nothing_said_is_no_statement(text: str) -> None:
    assert read_boxes(text) == StatedBoxes()


def test_fences() -> None:
    assert fences("a ```json x``` b ```y```c```z") == [("json", " x"), ("", "y"), ("", "z")]


@pytest.mark.parametrize(
    "text",
    [
        "```json\n" + "[" * 100_000 + "]" * 100_000, "```json\n" + "{" * 200_000, '```json\n{"bbox_2d":' * 9_000,
        "```json\n" + "{\"bbox_2d\": [" * 15_000, "[[" * 60_000 + "bbox", "<box>" * 50_000, "<ref>" * 50_000 + "<box>",
        "```" * 80_000, "```json\n[" + f"{ITEM}, " * 5_000 + "]```", "```json\n[1" + " " * 200_000 + "```", "x" * 1_000_000,  # noqa: E501
        "```json\n" + '{"bbox_2d": [' + "9" * 30_000 + "]}```", "\n[" * 100_000, "```json\n" + "[1," * 80_000,
    ],
)  # fmt: skip
def test_hostile_text_costs_little(text: str) -> None:
    found = read_boxes(text)
    assert len(found.boxes) <= MAX_BOXES
    assert 0 <= box_reward(found, truth((0, 0, 50, 50))) <= 1


def test_iou_by_hand() -> None:
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    for broken in ((10, 0, 0, 10), (5, 5, 5, 5), (0, 10, 10, 0)):
        assert box_iou(broken, (0, 0, 10, 10)) == 0
    assert box_iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1


def test_overlaps_by_hand() -> None:
    # Two truths; a perfect box, one of IoU 1/3 with the second, and one that meets nothing.
    true, said = truth((0, 0, 10, 10), (20, 0, 30, 10)), stated((25, 0, 35, 10), (0, 0, 10, 10), (80, 80, 90, 90))
    assert box_reward(said, true) == pytest.approx((1 + 1 / 3) / 3)
    assert box_reward(said, true, overlap="mean") == pytest.approx((1 + 1 / 3) / 3)
    assert box_reward(said, true, overlap="max") == 1
    assert box_reward(stated((0, 0, 10, 10)), true) == pytest.approx(1 / 2)
    assert box_reward(stated((0, 0, 10, 10)), true, overlap="mean") == 1
    # The same box twice: one truth takes it once.
    assert box_reward(stated((0, 0, 10, 10), (0, 0, 10, 10)), true) == pytest.approx(1 / 2)
    with_broken = StatedBoxes((StatedBox((0, 0, 10, 10)),), malformed=1, stated=True)
    assert box_reward(with_broken, truth((0, 0, 10, 10))) == pytest.approx(1 / 2)
    assert box_reward(with_broken, truth((0, 0, 10, 10)), overlap="mean") == pytest.approx(1 / 2)


def test_pairs_are_the_best_and_not_the_first() -> None:
    # Greedy takes a-0 at 1 and leaves b with 0; the best pairs are a-1 and b-0.
    true = truth((0, 0, 10, 10), (0, 0, 10, 8))
    said = stated((0, 0, 10, 9), (0, 0, 10, 10))
    assert box_reward(said, true) == pytest.approx((8 / 9 + 1) / 2)


def test_labels_and_pictures() -> None:
    frames = FRAMES * 2
    true = BoxTruth.of_boxes([BoxOnImage("Left Kidney", 1, (0, 0, 10, 10))], frames)
    for label, image, plain, labelled in [
        ("left kidney", 1, 1.0, 1.0), ("spleen", 1, 1.0, 0.0), ("left kidney", 0, 0.0, 0.0), ("left kidney", 7, 0.0, 0.0),  # noqa: E501
    ]:  # fmt: skip
        said = StatedBoxes((StatedBox((0, 0, 10, 10), label, image),), stated=True)
        assert (box_reward(said, true), box_reward(said, true, match_labels=True)) == (plain, labelled)
    with pytest.raises(ValueError, match="picture 2"):
        BoxTruth((TrueBox((0, 0, 1, 1), image=2),), frames)


def test_coordinates_change_frame_once() -> None:
    true = BoxTruth((TrueBox((0, 0, 50, 100)),), (QWEN3_VL.frame((100, 200)),))
    assert box_reward(stated((0, 0, 500, 500)), true) == 1


@pytest.mark.parametrize("overlap", ["matched", "mean", "max"])
def test_w03_empty_for_empty(overlap: str) -> None:
    empty = BoxTruth((), FRAMES)
    said = [StatedBoxes(stated=True), StatedBoxes(), stated((0, 0, 1, 1)), StatedBoxes(malformed=1, stated=True)]
    assert [box_reward(each, empty, overlap=overlap) for each in said] == [1, 0, 0, 0]  # type: ignore[arg-type]
    assert box_reward(StatedBoxes(stated=True), truth((0, 0, 1, 1)), overlap=overlap) == 0  # type: ignore[arg-type]


def test_w03_exploit_a_box_that_covers_everything() -> None:
    true = truth((0, 0, 50, 50))
    assert box_reward(whole_picture_boxes(true), true) == pytest.approx(0.25)
    assert box_reward(stated((-900, -900, 900, 900)), true) < 0.001
    mask = np.zeros((100, 100), bool)
    mask[:50, :50] = True
    assert box_reward(stated((0, 0, 100, 100)), BoxTruth.of_masks([mask], FRAMES)) == pytest.approx(0.25)
    assert box_reward(stated((-100, 0, 100, 100)), BoxTruth.of_masks([mask], FRAMES)) == pytest.approx(0.125)


def test_exploit_many_boxes() -> None:
    grid = stated(*((x, y, x + 10, y + 10) for x in range(0, 100, 10) for y in range(0, 100, 10)))
    assert box_reward(grid, truth((0, 0, 10, 10))) == pytest.approx(0.01)
    assert box_reward(grid, truth((0, 0, 10, 10)), overlap="max") == 1
    many = "```json\n[" + ", ".join([ITEM] * (MAX_BOXES + 1)) + "]\n```"
    assert read_boxes(many).too_many
    assert box_reward(read_boxes(many), truth((1, 2, 3, 4.5)), overlap="max") == 0


def test_a_mask_stands_before_the_boxes_of_its_picture() -> None:
    frames = FRAMES * 3
    corner = np.zeros((100, 100), bool)
    corner[:20, :20] = True
    corner[10:20, 10:20] = False  # three quarters of its box
    nothing = np.zeros((100, 100), bool)
    boxes = [BoxOnImage("mass", 0, (0, 0, 20, 20)), BoxOnImage("mass", 1, (0, 0, 20, 20))]
    true = BoxTruth.of_row(boxes, [corner, nothing, nothing], frames)
    values = {}
    for image in range(3):
        said = StatedBoxes((StatedBox((0, 0, 20, 20), "mass", image),), stated=True)
        values[image] = (box_reward(said, true, overlap="max"), box_reward(said, true))
    assert values == {0: (0.75, 0.375), 1: (1.0, 0.5), 2: (0.0, 0.0)}
    assert BoxTruth.of_row([], [nothing] * 3, frames).regions == ()
    assert BoxTruth.of_row(boxes, (), frames).regions == BoxTruth.of_boxes(boxes, frames).regions


def test_b01_masks_are_one_a_picture_and_of_its_size() -> None:
    frame = STORED_PIXELS.frame((40, 30))
    assert BoxTruth.of_row((), [np.ones((30, 40), bool)], [frame]).regions[0].image == 0
    for masks in ([np.ones((40, 30), bool)], [np.ones((30, 40), bool)] * 2):
        with pytest.raises(ValueError, match="not those of the row's pictures"):
            BoxTruth.of_row((), masks, [frame])


def test_which_truth_is_the_presets_or_what_is_given() -> None:
    assert {name: settings_of(name).truth for name in PRESETS} == {
        "paper": "boxes", "released": "masks", "default": "boxes",
    }  # fmt: skip
    assert settings_of("default", truth="masks").truth == "masks"
    assert settings_of("released", truth="boxes", match_labels=True).match_labels
    with pytest.raises(ValueError, match="which have none"):
        settings_of("released", match_labels=True)


EDGE = st.integers(-5, 45)
CORNERS = st.tuples(EDGE, EDGE, st.integers(1, 30), st.integers(1, 30)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def drawn(box: tuple[float, float, float, float], side: int = 120, offset: int = 40) -> np.ndarray:
    x0, y0, x1, y1 = (int(edge) + offset for edge in box)
    canvas = np.zeros((side, side), bool)
    canvas[y0:y1, x0:x1] = True
    return canvas


@quick
@given(CORNERS, CORNERS)
def test_box_iou_equals_drawn_pixels(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> None:
    one, other = drawn(a), drawn(b)
    assert box_iou(a, b) == pytest.approx((one & other).sum() / (one | other).sum())
    assert box_iou(a, b) == box_iou(b, a)


@quick
@given(CORNERS, st.integers(0, 2**31), st.sampled_from([0.02, 0.5, 1.0]))
def test_mask_iou_equals_drawn_pixels(box: tuple[int, int, int, int], seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((40, 40)) < share
    mask[7, 9] = True
    canvas = np.zeros((120, 120), bool)
    canvas[40:80, 40:80] = mask
    filled = drawn(box)
    expected = (filled & canvas).sum() / (filled | canvas).sum()
    assert mask_iou(box, TrueMask.of(mask)) == pytest.approx(expected)


def test_a_pixel_is_filled_if_its_centre_is_inside() -> None:
    mask = TrueMask.of(np.ones((2, 2), bool))
    assert mask_iou((0.4, 0, 1.6, 2), mask) == 1
    assert mask_iou((0.6, 0, 2, 2), mask) == 0.5
    assert mask_iou((0.6, 0, 1.4, 2), mask) == 0
    with pytest.raises(ValueError, match="empty"):
        TrueMask.of(np.zeros((2, 2), bool))


@quick
@given(st.lists(CORNERS, min_size=1, max_size=4), st.lists(CORNERS, min_size=1, max_size=4), st.randoms())
def test_matching_equals_trying_every_pairing(
    said: list[tuple[int, int, int, int]], true: list[tuple[int, int, int, int]], random: object
) -> None:
    few, many = sorted((said, true), key=len)
    best = max(
        sum(box_iou(a, b) for a, b in zip(few, order, strict=False)) for order in itertools.permutations(many, len(few))
    )
    value = box_reward(stated(*said), truth(*true))
    assert value == pytest.approx(best / max(len(said), len(true)))
    shuffled = list(said)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert box_reward(stated(*shuffled), truth(*true)) == pytest.approx(value)
    assert box_reward(stated(*said, (90, 90, 95, 95)), truth(*true)) <= value + 1e-9
