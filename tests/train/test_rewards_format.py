"""Form: the paper's all or nothing and the released score, by hand, and what cannot be parsed in bounded time."""

from __future__ import annotations

import pytest

from qoq_train.rewards.format import binary_format_reward, graded_format_reward

ITEM = '{"bbox_2d": [1, 2, 3, 4], "label": "x"}'
WHOLE = f"```json\n[{ITEM}]\n```\n<think>seen</think>\n\\boxed{{A}}"


@pytest.mark.parametrize("text", [WHOLE, WHOLE.replace(f"[{ITEM}]", "[]"), WHOLE.replace(ITEM, f"{ITEM},\n{ITEM}"),
    WHOLE.replace('"x"', '"a \\" b"'), WHOLE.replace("[1, 2, 3, 4]", "[ 1.5 , -2, 3e1, 4 ]"),
    f"<think>seen</think>\n```json\n[{ITEM}]\n```\n\\boxed{{A}}"])  # fmt: skip
def test_whole_form(text: str) -> None:
    assert binary_format_reward(text, boxes_expected=True) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<think>seen</think>", ""), ("seen", "  "), ("</think>", ""), ("<think>", ""), ("seen", "a</think><think>b"),
        ("\\boxed{A}", "A"), ("\\boxed{A}", "\\boxed{A"), ("\\boxed{A}", "\\boxed{}"), ("```json", "```"), (ITEM, f"{ITEM},"),  # noqa: E501
        ('"label": "x"', '"name": "x"'), ('"x"', '" "'), ("1, 2, 3, 4", "1, 2, 3"), ("[1, 2, 3, 4]", '"all"'), ("[1,", "[true,"),  # noqa: E501
        ("[1,", "[NaN,"), ("[1,", "[1e400,"), ("[1,", "[01,"), (f"[{ITEM}]", ITEM), (ITEM, "3"), (ITEM, f"{ITEM} {ITEM}"),  # noqa: E501
        ("4]", "4" * 5000 + "]"),
    ],
)  # fmt: skip
def test_one_thing_amiss(old: str, new: str) -> None:
    assert old in WHOLE
    assert binary_format_reward(WHOLE.replace(old, new, 1), boxes_expected=True) == 0


def test_without_boxes_to_ask_for() -> None:
    assert binary_format_reward("<think>a</think> \\boxed{A}", boxes_expected=False) == 1
    assert binary_format_reward("<think>a</think> \\boxed{A}", boxes_expected=True) == 0
    assert binary_format_reward("\\boxed{A} <think>a</think>", boxes_expected=False) == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (WHOLE, 1.0),
        (f"```\n[{ITEM}]\n```", 0.9),
        ("```json\nnot it\n```", 0.3),
        (f"```json\n{ITEM}\n```", 0.5),
        ("```json\n[{'bbox_2d': [1, 2, 3, 4], 'label': 'x'}]\n```", 0.9),
        (f'```json\n[{ITEM}, {{"bbox_2d": [1, 2], "label": "y"}}]\n```', 0.8),
        (f'```json\n[{ITEM}, {{"bbox_2d": [1, 2, 3, 4]}}, 7, []]\n```', 0.7),
        ("```json\n[]\n```", 1.0),
        ("no fence", 0.0),
    ],
)
def test_released_score_by_hand(text: str, value: float) -> None:
    assert graded_format_reward(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, "[" * 3_000 + "]" * 3_000, "-" * 10_000 + "1", "~" * 5_000, "9" * 10_000, "(" * 5_000, "1+" * 5_000 + "1",  # noqa: E501
     "__import__('os').getcwd()", "[1] * 10**9", "9**9**9", "'" * 9_999, '[{"a": ' * 2_000, "{[]: 1}", "{" * 100 + "}" * 100,  # noqa: E501
     f"[{','.join([ITEM] * 300)}" , "[" + ITEM.replace("x", "x" * 50) + ("," + ITEM) * 200 + "!]"],
)  # fmt: skip
def test_exploit_json_bombs(content: str) -> None:
    assert graded_format_reward(f"```json\n{content}\n```") <= 0.6
    assert binary_format_reward(WHOLE.replace(f"[{ITEM}]", content), boxes_expected=True) == 0
