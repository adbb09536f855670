"""The boxes that a completion states, as it states them: in the model's own coordinates.

Read are JSON items with ``bbox_2d`` (or ``bbox``), in a code fence or bare, lists of four numbers in a fence, and
``<box>`` forms. The text is searched with patterns of bounded reach and never parsed, so that cut or broken JSON
still yields its boxes and deep nesting costs nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from qoq_train.answers import MAX_TEXT_CHARACTERS, fold, outside_thinking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoq_train.coordinates import Xyxy

MAX_BOXES: Final = 256
"""More boxes than this in one completion are no statement about a picture."""

_FENCES: Final = 64
_SECTION_CHARACTERS: Final = 1 << 15
_NUMBER: Final = r"\s{0,16}(-?[0-9]{1,9}(?:\.[0-9]{0,12})?)\s{0,16}"
_PLAIN_ITEM: Final = (
    r"\{\"bbox_2d\": ?\[(-?[0-9]{1,9}(?:\.[0-9]{1,12})?), ?(-?[0-9]{1,9}(?:\.[0-9]{1,12})?)"
    r", ?(-?[0-9]{1,9}(?:\.[0-9]{1,12})?), ?(-?[0-9]{1,9}(?:\.[0-9]{1,12})?)\]"
    r", ?\"label\": ?\"([^\"\\{}\x00-\x1f]{0,512})\"(?:, ?\"image\": ?([0-9]{1,4}))?\}"
)
_PLAIN_ITEMS = re.compile(_PLAIN_ITEM)
_folded = lru_cache(maxsize=4096)(fold)
_FOUR = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]")
_PAIRS = re.compile(rf"\({_NUMBER},{_NUMBER}\)\s{{0,16}},?\s{{0,16}}\({_NUMBER},{_NUMBER}\)")
_BARE_FOUR = re.compile(rf"{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}")
_OBJECT = re.compile(r"\{[^{}]*\}?")
_BOX_KEY = re.compile(r"[\"']bbox(?:_2d)?[\"']\s{0,16}:")
_LABEL = re.compile(r"[\"']label[\"']\s{0,16}:\s{0,16}(?:\"([^\"]{0,512})\"|'([^']{0,512})')")
_IMAGE = re.compile(r"[\"']image[\"']\s{0,16}:\s{0,16}([0-9]{1,4})(?![0-9.])")
_EMPTY_LIST = re.compile(r"\[\s{0,64}\]")
_EMPTY_LINE = re.compile(r"^[ \t]{0,64}\[[ \t]{0,64}\][ \t]{0,64}$", re.MULTILINE)
_TAGGED = re.compile(
    r"(?:(?:<ref>|<\|object_ref_start\|>)([^<]{0,512})(?:</ref>|<\|object_ref_end\|>)\s{0,16})?"
    r"(?:<box>|<\|box_start\|>)([^<]{0,2048})(?:</box>|<\|box_end\|>)"
)


class StatedBox(NamedTuple):  # made some ten thousand times a step, at half of the cost of a dataclass
    """A box in the model's coordinates, of the picture ``image`` of the prompt, counted from 0; label as folded."""

    xyxy: Xyxy
    label: str = ""
    image: int = 0


class StatedBoxes(NamedTuple):
    """The boxes of a completion; ``malformed`` counts items that hold none.

    ``stated`` is false where nothing was said of boxes at all, which differs from an empty list. ``too_many`` says
    that there were more than ``MAX_BOXES``; the boxes are those up to there.
    """

    boxes: tuple[StatedBox, ...] = ()
    malformed: int = 0
    stated: bool = False
    too_many: bool = False


def read_boxes(text: str) -> StatedBoxes:
    """The boxes of the last list outside the thinking, or, where there is none, of the last one inside it.

    An item's ``image`` is the number of the picture in the prompt, counted from 1; without it, it is the first.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        return StatedBoxes()
    found = _in_fences(fences_outside_thinking(text))
    if found is None:
        found = _outside_fences(outside_thinking(text))
    if found.stated or "think>" not in text:
        return found
    return _in_fences(fences(text)) or _outside_fences(text)


def fences(text: str) -> list[tuple[str, str]]:
    """Language and content of the code fences, at most ``_FENCES``; one that does not close goes on to the end."""
    found: list[tuple[str, str]] = []
    start = text.find("```")
    while start >= 0 and len(found) < _FENCES:
        end = text.find("```", start + 3)
        inner = text[start + 3 : end if end >= 0 else len(text)]
        language = inner[:4].lower() == "json"
        found.append(("json", inner[4:]) if language else ("", inner))
        start = text.find("```", end + 3) if end >= 0 else -1
    return found


@lru_cache(maxsize=4)  # the rewards for boxes and for form look at the same ones
def fences_outside_thinking(text: str) -> tuple[tuple[str, str], ...]:
    """The ``fences`` of ``outside_thinking``."""
    return tuple(fences(outside_thinking(text)))


def _in_fences(found: Sequence[tuple[str, str]]) -> StatedBoxes | None:
    for _, content in reversed(found):
        boxes = _in_list(content[:_SECTION_CHARACTERS], fenced=True)
        if boxes.stated:
            return boxes
    return None


def _outside_fences(text: str) -> StatedBoxes:
    if "bbox" in text:
        begin = max(0, text.rfind("\n\n", 0, text.rfind("bbox")))
        found = _in_list(text[begin : begin + _SECTION_CHARACTERS], fenced=False)
        if found.stated:
            return found
    if "<box>" in text or "<|box_start|>" in text:
        return _in_tags(text)
    return StatedBoxes(stated=_EMPTY_LINE.search(text) is not None)


def _in_list(content: str, *, fenced: bool) -> StatedBoxes:
    plain = _PLAIN_ITEMS.findall(content)
    if plain and len(plain) == content.count("{"):  # what nearly every completion has
        boxes = [
            StatedBox((float(x0), float(y0), float(x1), float(y1)), _folded(label), int(image) - 1 if image else 0)
            for x0, y0, x1, y1, label, image in plain[: MAX_BOXES + 1]
        ]
        return _stated(boxes, 0)
    boxes = []
    items = with_boxes = 0
    for item in _OBJECT.findall(content):
        items += len(item) > 1
        key = _BOX_KEY.search(item)
        if key is None:
            continue
        label, image = _LABEL.search(item), _IMAGE.search(item)
        name = fold(label[1] or label[2] or "") if label else ""
        found: list[tuple[str, str, str, str]] = _FOUR.findall(item, key.end())
        boxes += [StatedBox(_xyxy(four), name, int(image[1]) - 1 if image else 0) for four in found]
        with_boxes += bool(found)
        if len(boxes) > MAX_BOXES:
            break
    if boxes or _BOX_KEY.search(content):
        return _stated(boxes, items - with_boxes)
    if not fenced:
        return StatedBoxes()
    boxes = [StatedBox(_xyxy(four)) for four in _FOUR.findall(content)]
    return _stated(boxes, 0) if boxes else StatedBoxes(stated=_EMPTY_LIST.fullmatch(content.strip()) is not None)


def _in_tags(text: str) -> StatedBoxes:
    boxes: list[StatedBox] = []
    malformed = 0
    for match in _TAGGED.finditer(text):
        content = match[2]
        pattern = next((p for p in (_PAIRS, _FOUR, _BARE_FOUR) if p.search(content)), None)
        if pattern is None:
            malformed += bool(content.strip(" []"))
        else:
            boxes += [StatedBox(_xyxy(four), fold(match[1] or "")) for four in pattern.findall(content)]
        if len(boxes) > MAX_BOXES:
            break
    return _stated(boxes, malformed)


def _stated(boxes: list[StatedBox], malformed: int) -> StatedBoxes:
    return StatedBoxes(tuple(boxes[:MAX_BOXES]), malformed, True, len(boxes) + malformed > MAX_BOXES)  # noqa: FBT003


def _xyxy(four: tuple[str, str, str, str]) -> Xyxy:
    return float(four[0]), float(four[1]), float(four[2]), float(four[3])
