"""What form is worth: the paper's all or nothing, and the released code's graded score of the JSON."""

from __future__ import annotations

import ast
import json
import math
import re
from typing import Any, Final

from qoq_train.answers import MAX_TEXT_CHARACTERS, Unreadable, boxed_answer
from qoq_train.rewards.boxes_in_text import fences, fences_outside_thinking

_JSON_CHARACTERS: Final = 1 << 14
_JSON_DEPTH: Final = 8
_AS_JSON: Final = 0.2
_JSON_NUMBER: Final = r" ?-?(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,12})?"
_PLAIN_ITEM: Final = (  # atomic, so that a list that ends wrong costs no second look at its items
    rf"(?>\{{\"bbox_2d\": ?\[{_JSON_NUMBER},{_JSON_NUMBER},{_JSON_NUMBER},{_JSON_NUMBER}\]"
    r", ?\"label\": ?\"[^\"\\\s\x00-\x1f][^\"\\\x00-\x1f]*\"(?:, ?\"image\": ?[1-9][0-9]{0,3})?\})"
)
_PLAIN_LIST = re.compile(rf"\n?\[{_PLAIN_ITEM}(?:,\s?{_PLAIN_ITEM})*\]\n?")
_LITERAL = re.compile(
    r"(?:\s|[\[\](),:{}]|'[^'\\\n]*'|\"[^\"\\\n]*\"|-?[0-9]{1,9}(?:\.[0-9]{0,12})?(?![\w.])|True\b|False\b|None\b)*+"
)


def binary_format_reward(text: str, *, boxes_expected: bool) -> float:
    """1 where the whole form is kept, else 0 (the paper's).

    The form: one thinking, closed and not empty; a boxed answer after it; and where boxes are expected a fenced JSON
    list outside the thinking, each item of it a box with its label. An empty list is of the right form.
    """
    begin, end = text.find("<think>"), text.find("</think>")
    if len(text) > MAX_TEXT_CHARACTERS or not 0 <= begin < end or not text[begin + 7 : end].strip():
        return 0.0
    if text.count("think>") > 2 and (text.count("<think>") > 1 or text.count("</think>") > 1):
        return 0.0
    content = boxed_answer(text)
    if isinstance(content, Unreadable) or not content.strip():
        return 0.0
    if not boxes_expected:
        return 1.0
    return float(any(_is_box_list(inner) for language, inner in fences_outside_thinking(text) if language == "json"))


def graded_format_reward(text: str) -> float:
    """The released code's score of the last fence, in [0, 1]; it asks for neither thinking nor a boxed answer.

    0.2 for a code fence, 0.1 if it is marked JSON, 0.2 if it parses as JSON (0.1 if only as Python literals), 0.1 if
    that is a list, 0.4 x the share of its items with four numbers under ``bbox_2d`` and a label. The share of an empty
    list is 1: none of its items is wrong.
    """
    found = fences(text) if len(text) <= MAX_TEXT_CHARACTERS else []
    if not found:
        return 0.0
    language, content = next((fence for fence in reversed(found) if fence[0] == "json"), found[-1])
    score = 0.2 + 0.1 * (language == "json")
    value, worth = _parsed(content)
    score += worth
    if isinstance(value, list):
        score += 0.1 + 0.4 * (sum(map(_is_box_item, value)) / len(value) if value else 1.0)
    return score


def _is_box_list(content: str) -> bool:
    if len(content) <= _JSON_CHARACTERS and _PLAIN_LIST.fullmatch(content) is not None:
        return True
    items, worth = _parsed(content)
    return worth == _AS_JSON and isinstance(items, list) and all(map(_is_box_item, items))


def _parsed(content: str) -> tuple[Any, float]:
    """The value of a fence, and what the released score gives for how it parsed; no value where it does not."""
    content = content.strip()
    if len(content) > _JSON_CHARACTERS or _is_deep(content):
        return None, 0.0
    try:
        return json.loads(content), _AS_JSON
    except (ValueError, RecursionError):  # ValueError also for an integer of more digits than Python reads
        pass
    # Only what can be nothing but a short-numbered literal reaches Python's own parser.
    if not content or _LITERAL.fullmatch(content) is None:
        return None, 0.0
    try:
        return ast.literal_eval(content), 0.1
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None, 0.0


def _is_deep(content: str) -> bool:
    depth = 0
    for mark in re.findall(r"[\[\](){}]", content):
        depth += 1 if mark in "[({" else -1
        if depth > _JSON_DEPTH:
            return True
    return False


def _is_box_item(item: object) -> bool:
    if not isinstance(item, dict):
        return False
    box, label = item.get("bbox_2d"), item.get("label")
    if not isinstance(box, list) or len(box) != 4 or not isinstance(label, str) or not label.strip():
        return False
    return all(isinstance(edge, (int, float)) and not isinstance(edge, bool) and _is_finite(edge) for edge in box)


def _is_finite(edge: float) -> bool:
    return -1e9 < edge < 1e9 and not math.isnan(edge)
