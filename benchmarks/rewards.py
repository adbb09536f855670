"""A batch of rewards at the published size, 512 questions x 5 completions, ours beside the released computation.

The peer is the released scheme written down here from its description: a pattern for the boxed answer, a split at
the first separator, JSON in a fence, and each box drawn as a float mask against the true one. Both judge the same
texts on one core. The least possible is finding the last box in each text.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Result, seconds_in_turn
from qoq_data.record import AnswerType
from qoq_train import answers
from qoq_train.answers import AnswerKey
from qoq_train.coordinates import STORED_PIXELS
from qoq_train.rewards import PRESETS, BoxTruth, RewardSettings, RowFacts, TrueBox, TrueMask, rewards_of

WIDTH, HEIGHT = 800, 640
COMPLETIONS = 5
UNIT = "ms a batch"
CHOICES = (
    "No Finding", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis",
    "Pneumothorax", "Pleural Effusion", "Fracture", "Support Devices",
)  # fmt: skip

Row = tuple[str, NDArray[np.float32]]


def run(quick: bool) -> Result:
    """Time both over the same texts; scores of one box against one box are checked equal first."""
    questions, rounds = (64, 3) if quick else (512, 7)
    rows, masks, texts = _batch(questions)
    masked = [
        RowFacts(row.key, BoxTruth((TrueMask.of(mask > 0),), _frames()), boxes_expected=True)
        for row, mask in zip(rows, masks, strict=True)
    ]
    peer_rows = [(", ".join(row.key.answer), mask) for row, mask in zip(rows, masks, strict=True)]
    _check(rows, masks, texts)
    whole = questions * COMPLETIONS
    seconds = seconds_in_turn(
        {
            "ours, boxes": lambda: _ours(texts, rows),
            "ours, boxes, answers seen before": lambda: rewards_of(texts, rows),
            "ours, masks": lambda: _ours(texts, masked),
            "ours, the released preset": lambda: _ours(texts, rows, PRESETS["released"]),
            "finding the last box": lambda: [text.rfind("\\boxed") for each in texts for text in each],
        },
        rounds,
    )
    # Half a second and more a round of 64 questions, so fewer rounds and questions; scaled to the batch.
    some = min(questions, 32)
    peer = seconds_in_turn({"released": lambda: _released(peer_rows[:some], texts[:some])}, 1 if quick else 3)
    seconds["released, masks drawn"] = peer["released"] * questions / some
    integrals = seconds_in_turn({"integrals": lambda: [TrueMask.of(mask > 0) for mask in masks[:some]]}, 3)
    seconds["once a row: integral images"] = integrals["integrals"] * questions / some
    scaled = {name: value * 1e3 * 512 * COMPLETIONS / whole for name, value in seconds.items()}
    ours, other, limit = (scaled[name] for name in ("ours, boxes", "released, masks drawn", "finding the last box"))
    table = tuple((name, f"{value:.2f}", f"{other / value:.1f}") for name, value in scaled.items())
    return Result("rewards", ours, other, limit, other / ours, UNIT, ("way", UNIT, "times released"), table)


def _ours(texts: list[list[str]], rows: list[RowFacts], settings: RewardSettings = PRESETS["default"]) -> None:
    """One batch, with no answer remembered from the batch before."""
    answers._read_choices.cache_clear()  # noqa: SLF001
    rewards_of(texts, rows, settings)


def _frames() -> tuple[Any, ...]:
    return (STORED_PIXELS.frame((WIDTH, HEIGHT)),)


def _batch(questions: int) -> tuple[list[RowFacts], list[NDArray[np.float32]], list[list[str]]]:
    generator = np.random.default_rng(0)
    rows, masks, texts = [], [], []
    thinking = "The heart is enlarged and the costophrenic angle is blunted on one side; the lungs are clear. " * 12
    for _ in range(questions):
        answer = tuple(c for c in CHOICES if generator.random() < 0.15) or CHOICES[:1]
        x0, y0 = int(generator.integers(WIDTH - 200)), int(generator.integers(HEIGHT - 200))
        box = (x0, y0, x0 + int(generator.integers(40, 200)), y0 + int(generator.integers(40, 200)))
        mask = np.zeros((HEIGHT, WIDTH), np.float32)
        mask[box[1] : box[3], box[0] : box[2]] = 1
        key = AnswerKey(CHOICES, answer, AnswerType.SEVERAL)
        rows.append(RowFacts(key, BoxTruth((TrueBox(box, "finding"),), _frames()), boxes_expected=True))
        masks.append(mask)
        completions = []
        for _ in range(COMPLETIONS):
            shifted = [[int(edge + generator.integers(-20, 21)) for edge in box] for _ in range(3)]
            stated = [{"bbox_2d": [max(0, edge) for edge in each], "label": "finding"} for each in shifted]
            named = ", ".join(c for c in CHOICES if generator.random() < 0.15) or "No Finding"
            completions.append(
                f"```json\n{json.dumps(stated)}\n```\n<think>{thinking}</think>\nThe answer is $\\boxed{{{named}}}$."
            )
        texts.append(completions)
    return rows, masks, texts


def _check(rows: list[RowFacts], masks: list[NDArray[np.float32]], texts: list[list[str]]) -> None:
    peer = [(", ".join(row.key.answer), mask) for row, mask in zip(rows[:4], masks[:4], strict=True)]
    theirs = _released(peer, texts[:4])
    ours = rewards_of(texts[:4], rows[:4], PRESETS["released"])
    assert np.allclose(theirs, [[reward.total for reward in each] for each in ours], atol=1e-6), "they do not agree"


def _released(rows: list[Row], texts: list[list[str]]) -> list[list[float]]:
    return [
        [_released_one(text, answer, mask) for text in each] for (answer, mask), each in zip(rows, texts, strict=True)
    ]


def _released_one(text: str, answer: str, mask: NDArray[np.float32]) -> float:
    boxed = re.findall(r"\\boxed\{(.*?)\}", text)
    named, true = _conditions(boxed[-1] if boxed else ""), _conditions(answer)
    f1 = 2 * len(named & true) / (len(named) + len(true))
    fence = re.search(r"```json(.*?)```", text, re.DOTALL)
    overlap, form = 0.0, 0.0
    if fence:
        items = json.loads(fence[1])
        form = 0.6 + 0.4 * sum(len(item.get("bbox_2d", ())) == 4 and "label" in item for item in items) / len(items)
        overlap = sum(_drawn_iou(item["bbox_2d"], mask) for item in items) / len(items)
    length = 1.0 if len(text) > 600 else 0.001 * len(text)
    return 0.5 * f1 + 0.3 * overlap + 0.1 * form + 0.1 * length


def _drawn_iou(box: list[int], mask: NDArray[np.float32]) -> float:
    drawn = np.zeros_like(mask)
    drawn[box[1] : box[3], box[0] : box[2]] = 1
    both = np.minimum(drawn, mask).sum(dtype=np.float64)
    return float(both / np.maximum(drawn, mask).sum(dtype=np.float64))


def _conditions(text: str) -> set[str]:
    for separator in (", ", " and ", " & ", ",", "&"):
        if separator in text:
            return {part.strip() for part in text.split(separator)}
    return {text.strip()}
