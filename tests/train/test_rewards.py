"""What a completion is worth as a whole: weights, presets, parts that do not apply, a user's own reward, exploits."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.errors import UnknownNameError, UsageError
from qoq_data.record import AnswerType
from qoq_train.answers import AnswerKey, read_answer
from qoq_train.coordinates import STORED_PIXELS
from qoq_train.rewards import (
    PRESETS,
    BoxTruth,
    RewardSettings,
    RewardWeights,
    RowFacts,
    TrueBox,
    UserReward,
    answer_reward,
    load_reward,
    released_length_reward,
    reward_of,
    rewards_of,
    settings_of,
)

quick = settings(derandomize=True, deadline=None, max_examples=60)
FIVE = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon")
FRAMES = (STORED_PIXELS.frame((100, 100)),)
ONE = RowFacts(AnswerKey(FIVE[:2], ("Alpha",), AnswerType.ONE), id="one")
SEVERAL = RowFacts(AnswerKey(FIVE, ("Alpha", "Beta"), AnswerType.SEVERAL), id="several")
BOXED = RowFacts(ONE.key, BoxTruth((TrueBox((0, 0, 50, 50)),), FRAMES), boxes_expected=True, id="boxed")
GOOD = '```json\n[{"bbox_2d": [0, 0, 50, 50], "label": "x"}]\n```\n<think>seen</think>\n\\boxed{A}'


def worth(boxed: str, row: RowFacts, score: str = "guarded") -> float:
    read = read_answer(f"\\boxed{{{boxed}}}", row.key.choices, row.key.answer_type)
    return answer_reward(read, row.key, score)  # type: ignore[arg-type]


def test_set_f1_by_hand() -> None:
    # 2 of 2 and one more: precision 2/3, recall 1: F1 0.8. One of 2 named alone: 2/3.
    assert worth("A, B, C", SEVERAL, "f1") == pytest.approx(0.8)
    assert worth("A", SEVERAL, "f1") == pytest.approx(2 / 3)
    assert worth("A, C, banana", SEVERAL, "f1") == pytest.approx(2 / 5)
    # Guarded: two of the three wrong choices left out; none left in; one wrong and one unknown of three.
    assert worth("A, B, C", SEVERAL) == pytest.approx(0.8 * 2 / 3)
    assert worth("A", SEVERAL) == pytest.approx(2 / 3)
    assert worth("A, C, banana", SEVERAL) == pytest.approx(2 / 5 / 3)
    assert worth("B, A", SEVERAL) == worth("B, A", SEVERAL, "f1") == 1.0


@quick
@given(st.sets(st.sampled_from(FIVE)), st.sets(st.sampled_from(FIVE), min_size=1))
def test_f1_equals_its_definition(named: set[str], true: set[str]) -> None:
    row = RowFacts(AnswerKey(FIVE, tuple(sorted(true)), AnswerType.SEVERAL))
    precision = len(named & true) / len(named) if named else 0.0
    recall = len(named & true) / len(true)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert worth(", ".join(named) or "none", row, "f1") == pytest.approx(f1)
    assert worth(", ".join(named) or "none", row) <= f1 + 1e-12


def test_no_true_answer() -> None:
    row = RowFacts(AnswerKey(FIVE, (), AnswerType.SEVERAL))
    assert [worth(boxed, row) for boxed in ("none", "A", "")] == [1.0, 0.0, 0.0]


def test_number_within_tolerance() -> None:
    row = RowFacts(AnswerKey((), ("75",), AnswerType.NUMBER, 5.0))
    assert [worth(boxed, row) for boxed in ("80 bpm", "80.1", "70", "fast")] == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("row", [ONE, SEVERAL])
def test_exploit_listing_every_choice(row: RowFacts) -> None:
    everything = ", ".join(row.key.choices)
    assert worth(everything, row, "f1") > 0.5
    assert worth(everything, row) == 0.0


def test_exploit_answer_written_twice() -> None:
    assert worth("A, A, Alpha", SEVERAL) == worth("A", SEVERAL)
    assert reward_of("\\boxed{A} \\boxed{A}", ONE).parts["answer"] == 1.0
    assert reward_of("\\boxed{A} \\boxed{B}", ONE).parts["answer"] == 0.0


def test_exploit_answer_inside_the_thinking_only() -> None:
    assert reward_of("<think>\\boxed{A}</think>", ONE).total == 0.0


def test_exploit_length_padding() -> None:
    padded = GOOD.replace("seen", "seen " * 500)
    assert reward_of(padded, BOXED).total == reward_of(GOOD, BOXED).total == 1.0
    assert reward_of(padded, BOXED, PRESETS["released"]).total > reward_of(GOOD, BOXED, PRESETS["released"]).total
    assert [released_length_reward("x" * n) for n in (0, 250, 600, 601)] == [0.0, 0.25, 0.6, 1.0]


def test_exploit_nested_braces_and_huge_integers() -> None:
    assert reward_of("\\boxed" + "{" * 100_000 + "A" + "}" * 100_000, ONE).total < 1
    row = RowFacts(AnswerKey((), ("75",), AnswerType.NUMBER, 5.0))
    assert reward_of("\\boxed{" + "9" * 100_000 + "}", row).total == 0.0


def test_presets_by_hand() -> None:
    # Right answer, box of IoU 1, right form, 85 characters or so.
    assert reward_of(GOOD, BOXED, PRESETS["paper"]).total == pytest.approx(1.0)
    assert reward_of(GOOD, BOXED, PRESETS["released"]).total == pytest.approx(0.9 + 0.1 * 0.001 * len(GOOD))
    # Without a true box: published, the box's share is lost; ours, the rest counts whole.
    row = RowFacts(ONE.key, None, boxes_expected=True)
    assert reward_of(GOOD, row, PRESETS["paper"]).total == pytest.approx(0.8)
    assert reward_of(GOOD, row, settings_of("paper", missing="renormalise")).total == pytest.approx(1.0)
    assert reward_of(GOOD, row).total == pytest.approx(1.0)
    assert reward_of(GOOD, row).parts == {"answer": 1.0, "box": None, "format": 1.0}
    wrong = reward_of(GOOD.replace("{A}", "{B}"), BOXED)
    assert (wrong.total, wrong.parts["answer"], wrong.answer.labels) == (pytest.approx(0.3), 0.0, ("Beta",))


def test_settings_of_a_recipe() -> None:
    assert settings_of("default") == PRESETS["default"]
    changed = settings_of("released", weights={"answer": 2, "mine": 1}, overlap="max")
    assert changed.weights == RewardWeights(answer=2, user=(("mine", 1),))
    assert (changed.overlap, changed.missing) == ("max", "zero")
    with pytest.raises(UnknownNameError, match="paper"):
        settings_of("papr")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RewardWeights(answer=-0.1), "'answer' is -0.1"),
        (lambda: RewardWeights(answer=1, box=math.nan), "'box' is nan"),
        (lambda: RewardWeights(answer=1, user=(("mine", math.inf),)), "'mine' is inf"),
        (RewardWeights, "all weights are 0"),
        (lambda: RewardWeights(answer=1, user=(("length", 1.0),)), "name of another part"),
    ],
)
def test_weights_that_cannot_be(make: Callable[[], RewardWeights], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_nothing_that_applies_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(UsageError, match="row one"):
        reward_of(GOOD, ONE, RewardSettings(RewardWeights(box=1)))


MINE = RewardSettings(RewardWeights(answer=1, user=(("mine", 1.0),)))


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf, 1.5, "0.5", True, [1]])
def test_a_users_reward_that_is_none(value: object) -> None:
    with pytest.raises(UsageError, match="'mine' gave"):
        reward_of(GOOD, ONE, MINE, [UserReward("mine", lambda text, row: value)])


def test_a_users_reward() -> None:
    half = UserReward("mine", lambda text, row: 0.5 if row.id == "one" else None)
    assert reward_of(GOOD, ONE, MINE, [half]).total == pytest.approx(0.75)
    assert reward_of(GOOD, BOXED, MINE, [half]).parts["mine"] is None
    assert reward_of(GOOD, BOXED, MINE, [half]).total == 1.0
    with pytest.raises(UsageError, match=r"\['mine'\].*\[\]"):
        reward_of(GOOD, ONE, MINE)
    with pytest.raises(UsageError, match="mine"):
        reward_of(GOOD, ONE, PRESETS["default"], [half])


def test_a_users_reward_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("qoq_test_reward")
    module.short = lambda text, row: float(len(text) < 10)  # type: ignore[attr-defined]
    module.number = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "qoq_test_reward", module)
    assert load_reward("qoq_test_reward:short")("abc", ONE) == 1.0
    for name, says in [
        ("qoq_test_reward:absent", "absent"), ("qoq_no_such_module:f", "qoq_no_such_module"),
        ("qoq_test_reward:number", "no function"), ("qoq_test_reward:", "cannot be loaded"), (":f", "cannot be loaded"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=says):
            load_reward(name)
    point = EntryPoint("brevity", "qoq_test_reward:short", "qoq_train.rewards")
    monkeypatch.setattr("qoq_train.rewards.user.entry_points", lambda group: EntryPoints([point]))
    assert load_reward("brevity").name == "brevity"
    with pytest.raises(UnknownNameError, match="brevity"):
        load_reward("brevty")


def test_a_batch_keeps_its_shape() -> None:
    batch = rewards_of([[GOOD, "nothing"], [GOOD, GOOD]], [ONE, BOXED])
    assert [[round(reward.total, 6) for reward in each] for each in batch] == [[1.0, 0.0], [1.0, 1.0]]
    with pytest.raises(ValueError, match="zip"):
        rewards_of([[GOOD]], [ONE, BOXED])


FRAGMENTS = st.sampled_from(
    ["\\boxed{", "A", "Beta", "}", "{", "<think>", "</think>", "```", "json", "[", "]", '"bbox_2d"', ":", "1", ", ", "9" * 60,  # noqa: E501
     '"label"', "<box>", "</box>", "\n", "and", "'", "\\", "-", "(", ")"]
)  # fmt: skip


@quick
@given(st.lists(FRAGMENTS, max_size=60).map("".join), st.sampled_from(sorted(PRESETS)))
def test_every_part_of_any_text_lies_between_0_and_1(text: str, preset: str) -> None:
    for row in (ONE, SEVERAL, BOXED):
        reward = reward_of(text, row, PRESETS[preset])
        assert 0 <= reward.total <= 1
        assert all(value is None or 0 <= value <= 1 for value in reward.parts.values())
