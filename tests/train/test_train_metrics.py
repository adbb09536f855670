"""Evaluation: figures by hand and against scikit-learn, intervals, constant baselines, the published subset."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.record import AnswerType
from qoq_train.answers import AnswerKey, ReadAnswer, Unreadable
from qoq_train.evaluation.metrics import FIGURES, Outcome, Report, Scores, at_most_per_class, report

quick = settings(derandomize=True, deadline=None, max_examples=40)
FIVE = ("a", "b", "c", "d", "e")


def one(true: str, named: str | None, group: str = "p", **names: str) -> Outcome:
    read = ReadAnswer((named,)) if named else ReadAnswer(unreadable=Unreadable.NO_BOX)
    place = {"dataset": "d", "domain": "ct", "task": "t"} | names
    return Outcome(**place, group=group, key=AnswerKey(FIVE, (true,), AnswerType.ONE), read=read)


def several(true: str, named: str, group: str = "p", extras: int = 0) -> Outcome:
    key = AnswerKey(FIVE, tuple(true), AnswerType.SEVERAL)
    return Outcome("d", "ct", "t", group, key, ReadAnswer(tuple(named), extras))


def number(true: float, said: float | None, group: str = "p") -> Outcome:
    read = ReadAnswer(number=said) if said is not None else ReadAnswer(unreadable=Unreadable.NOT_A_NUMBER)
    return Outcome("d", "ecg", "rate", group, AnswerKey((), (str(true),), AnswerType.NUMBER, 5.0), read)


def values(scores: Scores) -> dict[str, float]:
    return {name: figure.value for name, figure in scores.figures.items()}


def constants(scores: Scores) -> dict[str, float | None]:
    return {name: figure.constant for name, figure in scores.figures.items()}


def overall(*outcomes: Outcome) -> Scores:
    return report(outcomes, replicates=0).overall


def test_one_answer_by_hand() -> None:
    # true a a b c; named a b b (unreadable). a: TP 1 FN 1, F1 2/3, right 3/4. b: TP 1 FP 1, F1 2/3, 3/4. c: 0, 3/4.
    found = values(overall(one("a", "a"), one("a", "b"), one("b", "b"), one("c", None)))
    assert found == pytest.approx(
        {"macro_f1": 4 / 9, "accuracy_one_vs_rest": 3 / 4, "exact_match": 1 / 2, "unreadable_rate": 1 / 4}
    )


def test_published_rule_a_label_that_is_never_true_is_skipped() -> None:
    # d is named once and never true: it costs its row's label a miss, and is no label of its own.
    found = values(overall(one("a", "a"), one("a", "d")))
    assert (found["macro_f1"], found["accuracy_one_vs_rest"]) == pytest.approx((2 / 3, 1 / 2))


def test_several_answers_by_hand() -> None:
    # ab / ab+unknown, ac / a, b / bc. a: 1. b: 1. c: TP 0 FP 1 FN 1: 0 and right in 1 of 3.
    found = values(overall(several("ab", "ab", extras=1), several("ac", "a"), several("b", "bc")))
    assert found == pytest.approx(
        {"macro_f1": 2 / 3, "accuracy_one_vs_rest": 7 / 9, "exact_match": 0, "unreadable_rate": 0}
    )


def test_numbers_by_hand() -> None:
    scores = overall(number(70, 75), number(80, 86), number(78, None), number(120, 120))
    assert values(scores) == {"within_tolerance": 0.5, "unreadable_rate": 0.25}
    # 70 and 80 are within 5 of 75, 78 too: three of four.
    assert constants(scores) == {"within_tolerance": 0.75, "unreadable_rate": None}
    assert scores.unreadable == {"not_a_number": 1}


def test_constant_of_five_equal_classes_is_the_published_one() -> None:
    # 24 of each of 5 classes, always 'a': accuracy .68, macro-F1 .0667, as several published rows have it.
    scores = overall(*(one(true, "a") for true in FIVE for _ in range(24)))
    assert values(scores)["accuracy_one_vs_rest"] == pytest.approx(0.68)
    assert values(scores)["macro_f1"] == pytest.approx(0.0667, abs=5e-5)
    for name in ("accuracy_one_vs_rest", "macro_f1", "exact_match"):
        assert scores.figures[name].constant == pytest.approx(scores.figures[name].value)
    # 24 and 3 of two classes: .8889 / .4706.
    scores = overall(*[one("a", "a")] * 24, *[one("b", "a")] * 3)
    assert values(scores)["accuracy_one_vs_rest"] == pytest.approx(0.8889, abs=5e-5)
    assert values(scores)["macro_f1"] == pytest.approx(0.4706, abs=5e-5)


@quick
@given(st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=12))
def test_no_constant_answer_beats_the_baseline_and_one_reaches_it(true: list[set[str]]) -> None:
    best: dict[str, float] = {}
    for mask in range(8):
        named = "".join(label for i, label in enumerate("abc") if mask >> i & 1)
        scores = overall(*(several("".join(sorted(each)), named) for each in true))
        for name, value in values(scores).items():
            best[name] = max(best.get(name, 0), value)
    best.pop("unreadable_rate")
    found = constants(scores)
    assert {name: found[name] for name in best} == pytest.approx(best)


@quick
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
def test_no_constant_choice_beats_the_baseline(true: list[str]) -> None:
    best: dict[str, float] = {}
    for named in sorted(set(true)):
        scores = overall(*(one(each, named) for each in true))
        for name, value in values(scores).items():
            best[name] = max(best.get(name, 0), value)
    best.pop("unreadable_rate")
    found = constants(scores)
    assert {name: found[name] for name in best} == pytest.approx(best)


def test_naming_no_true_label_beats_the_constant_in_the_papers_accuracy() -> None:
    # Why exact match stands beside it: five equal classes, no answer readable, .80 against .68 of a constant guess.
    scores = overall(*(one(true, None) for true in FIVE))
    figure = scores.figures["accuracy_one_vs_rest"]
    assert (figure.value, figure.constant) == pytest.approx((0.8, 0.68))
    assert values(scores)["exact_match"] == 0


def test_boxes() -> None:
    rows = [
        replace(one("a", "a"), box_iou=0.5, constant_box_iou=0.1),
        replace(one("a", "a"), box_iou=0.7, constant_box_iou=0.2),
    ]
    scores = overall(*rows, one("a", "a"))
    assert scores.figures["box_iou"].value == pytest.approx(0.6)
    assert scores.figures["box_iou"].constant == pytest.approx(0.15)


def test_levels_are_means_of_means() -> None:
    rows = [
        one("a", "a", dataset="x", task="t1"), one("a", "b", dataset="x", task="t2"), one("b", "b", dataset="x", task="t2"),  # noqa: E501
        one("a", "a", dataset="y"), one("a", "b", dataset="z", domain="mri"), number(70, 70),
    ]  # fmt: skip
    found = report(rows, replicates=0)
    exact = {name: scores.figures["exact_match"].value for name, scores in found.datasets.items() if name[0] != "ecg"}
    assert exact == {("ct", "x"): 0.75, ("ct", "y"): 1.0, ("mri", "z"): 0.0}
    assert found.domains["ct"].figures["exact_match"].value == 0.875
    assert found.overall.figures["exact_match"].value == pytest.approx(0.4375)
    assert found.overall.figures["within_tolerance"].value == 1.0
    assert (found.overall.rows, found.domains["ct"].rows) == (6, 4)
    assert list(found.tasks) == [
        ("ct", "x", "t1"), ("ct", "x", "t2"), ("ct", "y", "t"), ("ecg", "d", "rate"), ("mri", "z", "t")
    ]  # fmt: skip


def random_rows(count: int, seed: int, groups: int = 40) -> list[Outcome]:
    draw = random.Random(seed)
    return [
        several(
            "".join(sorted(draw.sample("abcde", draw.randint(1, 3)))),
            "".join(sorted(draw.sample("abcde", draw.randint(0, 3)))),
            group=str(draw.randrange(groups)),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_equals_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rows = random_rows(60, seed)
    true, named = (
        np.array([[label in labels for label in FIVE] for labels in each])
        for each in ([row.key.answer for row in rows], [row.read.labels for row in rows])
    )
    seen = np.flatnonzero(true.any(axis=0))
    found = values(overall(*rows))
    expected = metrics.f1_score(true[:, seen], named[:, seen], average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(true, named))
    by_label = [metrics.accuracy_score(true[:, i], named[:, i]) for i in seen]
    assert found["accuracy_one_vs_rest"] == pytest.approx(np.mean(by_label))


def bounds(found: Report, name: str = "macro_f1") -> tuple[float, float]:
    figure = found.overall.figures[name]
    assert figure.low is not None
    assert figure.high is not None
    return figure.low, figure.high


def test_intervals_hold_the_value_and_depend_on_seed_alone() -> None:
    rows = random_rows(200, 0)
    found = report(rows, replicates=300)
    for name in FIGURES:
        if name in found.overall.figures:
            figure = found.overall.figures[name]
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low <= figure.value <= figure.high
    shuffled = list(rows)
    random.Random(1).shuffle(shuffled)
    assert bounds(report(shuffled, replicates=300)) == bounds(found)
    assert bounds(report(rows, replicates=300, seed=1)) != bounds(found)
    other = one("a", "a", dataset="other", domain="mri")
    with_other = report([*rows, other], replicates=300)
    assert with_other.domains["ct"].figures == found.domains["ct"].figures


def test_interval_equals_a_slow_bootstrap_of_groups() -> None:
    rows = random_rows(60, 3, groups=12)
    by_group = {group: [row for row in rows if row.group == group] for group in {row.group for row in rows}}
    names = sorted(by_group)
    draw = np.random.default_rng(5)
    slow = [
        values(overall(*(row for i in draw.integers(len(names), size=len(names)) for row in by_group[names[i]])))["macro_f1"]  # noqa: E501
        for _ in range(400)
    ]  # fmt: skip
    low, high = bounds(report(rows, replicates=4000))
    assert (low, high) == pytest.approx(tuple(np.quantile(slow, (0.025, 0.975))), abs=0.03)


def test_a_label_that_a_draw_lacks_is_skipped_in_it() -> None:
    # Draws of the first patient alone have F1 1, of the second alone 0, of both (2/3 + 0) / 2.
    found = report([one("a", "a", group="1"), one("b", "a", group="2")], replicates=200)
    assert bounds(found) == (0, 1)
    assert values(found.overall)["macro_f1"] == pytest.approx(1 / 3)


def test_rows_of_one_patient_go_together() -> None:
    # Ten patients of 20 equal rows each: the interval is that of ten draws, not of two hundred.
    rows = [one("a", "a" if patient % 2 else "b", group=str(patient)) for patient in range(10) for _ in range(20)]
    alone = [replace(row, group=str(i)) for i, row in enumerate(rows)]
    wide, narrow = (bounds(report(each, replicates=500), "exact_match") for each in (rows, alone))
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_what_cannot_be_evaluated() -> None:
    with pytest.raises(ValueError, match="nothing"):
        report([])
    with pytest.raises(ValueError, match="patient"):
        report([one("a", "a", group="")])
    with pytest.raises(ValueError, match="kinds"):
        report([one("a", "a"), several("a", "a")])


def test_w01_unreadable_is_counted_apart_from_wrong() -> None:
    wrong, unreadable = overall(one("a", "b")), overall(one("a", None))
    assert values(wrong)["exact_match"] == values(unreadable)["exact_match"] == 0
    assert (values(wrong)["unreadable_rate"], values(unreadable)["unreadable_rate"]) == (0, 1)
    assert (wrong.unreadable, unreadable.unreadable) == ({}, {"no_box": 1})


def test_at_most_24_a_class() -> None:
    answers = [("a",)] * 100 + [("b",)] * 10 + [("a", "b")] * 30
    ids = [f"r{i}" for i in range(len(answers))]
    tasks = ["x"] * len(answers)
    kept = at_most_per_class(ids, tasks, answers, limit=24)
    counts = Counter(label for i in kept for label in answers[i])
    assert counts["a"] == 24
    assert counts["b"] <= 24
    assert kept == sorted(kept)
    order = list(range(len(ids)))
    random.Random(0).shuffle(order)
    again = at_most_per_class([ids[i] for i in order], tasks, [answers[i] for i in order], limit=24)
    assert {ids[order[i]] for i in again} == {ids[i] for i in kept}
    assert at_most_per_class(ids, tasks, answers, seed=1) != kept
    assert len(at_most_per_class(["1", "2"], ["x", "y"], [("a",), ("a",)], limit=1)) == 2


def test_all_of_a_hundred_thousand_rows_counts() -> None:
    rows = random_rows(2_000, 9, groups=500) * 50
    found = report(rows, replicates=10)
    assert found.overall.rows == 100_000
    assert values(found.overall) == pytest.approx(values(report(rows[:2_000], replicates=0).overall))
