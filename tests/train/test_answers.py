"""The answer reader: what is read, what is not, and that hostile text costs nothing."""

from __future__ import annotations

import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.record import AnswerType
from qoq_train.answers import (
    AnswerKey,
    ReadAnswer,
    Unreadable,
    after_thinking,
    boxed_content,
    is_exact,
    is_within_tolerance,
    outside_thinking,
    read_answer,
)

ONE, SEVERAL, NUMBER = AnswerType.ONE, AnswerType.SEVERAL, AnswerType.NUMBER
PAIR = ("Benign", "Malignant")
BLOCKS = (
    "Second degree AV block, Mobitz I", "Second degree AV block, Mobitz II", "ST and T wave change", "Hypertrophy",
    "Second degree AV block",
)  # fmt: skip
quick = settings(derandomize=True, deadline=None, max_examples=60)


def labels(text: str, choices: tuple[str, ...] = PAIR, kind: AnswerType = SEVERAL) -> tuple[tuple[str, ...], int]:
    read = read_answer(text, choices, kind)
    return read.labels, read.extras


def why(text: str, choices: tuple[str, ...] = PAIR, kind: AnswerType = ONE) -> Unreadable | None:
    return read_answer(text, choices, kind).unreadable


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{Benign} no, \boxed{\text{Malignant}}", r"\text{Malignant}"),
        (r"\boxed{a{b{c}d}e}", "a{b{c}d}e"),
        (r"} } \boxed{A} } {", "A"),
        (r"\boxed{A\}B}", r"A\}B"),
        (r"\boxed{\boxed{A}, B}", r"\boxed{A}, B"),
        (r"\boxed{A} then \boxed{B", "A"),
        (r"\boxed {A}", "A"),
        (r"\\boxed{A}", "A"),
        (r"\boxed{oh \boxed{A}", "A"),
        (r"\boxed{A", Unreadable.UNCLOSED),
        (r"\boxed{A {B}", Unreadable.UNCLOSED),
        ("boxed{A}", Unreadable.NO_BOX),
        (r"\boxed A", Unreadable.NO_BOX),
    ],
)
def test_w01_last_balanced_box(text: str, content: str) -> None:
    assert boxed_content(text) == content


@pytest.mark.parametrize(
    "boxed",
    ["B", "b", "(b)", "(B)", "B.", "B)", "2", "(2)", "Malignant", " malignant. ", "MALIGNANT", r"\text{Malignant}",
     "B. Malignant", "(b) malignant", "2. Malignant", "1) Malignant", "Option B", "**Malignant**", "`malignant`",
     '"Malignant"', "Ｍａｌｉｇｎａｎｔ", "Ｂ", r"\mathrm{ Malignant }", r"$\text{\textbf{Malignant}}$", '["Malignant"]',  # noqa: E501
     "- Malignant", "Malignant, malignant, B", "mal\u200bignant", r"\{Malignant\}"],
)  # fmt: skip
def test_ways_to_name_one_choice(boxed: str) -> None:
    assert labels(f"\\boxed{{{boxed}}}", kind=ONE) == (("Malignant",), 0)


@pytest.mark.parametrize(
    ("boxed", "expected", "extras"),
    [
        ("Second degree AV block, Mobitz I", (BLOCKS[0],), 0),
        ("Second degree AV block, Mobitz II and Hypertrophy", (BLOCKS[1], BLOCKS[3]), 0),
        ("Second degree AV block, Hypertrophy", (BLOCKS[3], BLOCKS[4]), 0),
        ("ST and T wave change and Hypertrophy", (BLOCKS[2], BLOCKS[3]), 0),
        ("st AND t wave change; second degree av block ,mobitz i\nD", (BLOCKS[0], BLOCKS[2], BLOCKS[3]), 0),
        ('["Second degree AV block, Mobitz I", "Hypertrophy"]', (BLOCKS[0], BLOCKS[3]), 0),
        ("['ST and T wave change', 'Second degree AV block, Mobitz II']", (BLOCKS[1], BLOCKS[2]), 0),
        ("(b) Second degree AV block, Mobitz II & d", (BLOCKS[1], BLOCKS[3]), 0),
        ("1. Hypertrophy\n2. ST and T wave change", (BLOCKS[2], BLOCKS[3]), 0),
        ("Hypertrophy, Hypertrophy and hypertrophy", (BLOCKS[3],), 0),
        ("Hypertrophy, banana", (BLOCKS[3],), 1),
        ("banana, Hypertrophy, banana, kiwi", (BLOCKS[3],), 2),
        ("ST, Hypertrophy", (BLOCKS[3],), 1),
        ("a, and 4", (BLOCKS[0], BLOCKS[3]), 0),
    ],
)
def test_several_answers(boxed: str, expected: tuple[str, ...], extras: int) -> None:
    assert labels(f"\\boxed{{{boxed}}}", BLOCKS) == (expected, extras)


def test_position_is_not_read_where_a_choice_holds_it() -> None:
    grades = ("Grade 0", "Grade 1", "Grade 2")
    assert why(r"\boxed{1}", grades) is Unreadable.NO_CHOICE
    assert labels(r"\boxed{b}", grades, ONE) == (("Grade 1",), 0)
    assert labels(r"\boxed{0}", ("2", "1", "0"), ONE) == (("0",), 0)
    assert labels(r"\boxed{2}", ("2", "1", "0"), ONE) == (("2",), 0)
    swapped = ("Type B", "Type A")
    assert why(r"\boxed{A}", swapped) is Unreadable.NO_CHOICE
    assert labels(r"\boxed{Type A}", swapped, ONE) == (("Type A",), 0)
    assert labels(r"\boxed{A}", ("No mass", "Signs of a mass"), ONE) == (("No mass",), 0)
    assert labels(r"\boxed{2}", ("Normal", "Viral", "COVID-19"), ONE) == (("Viral",), 0)


def test_marks_at_the_edge_that_tell_choices_apart_are_kept() -> None:
    assert labels(r"\boxed{HER2-}", ("HER2", "HER2-"), ONE) == (("HER2-",), 0)
    assert labels(r"\boxed{HER2-.}", ("HER2", "HER2-"), ONE) == (("HER2-",), 0)


def test_letter_against_text_is_no_answer() -> None:
    assert why(r"\boxed{A. Malignant}") is Unreadable.NO_CHOICE
    assert labels(r"\boxed{T-wave change}", ("T-wave change", "Other"), ONE) == (("T-wave change",), 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Malignant", Unreadable.NO_BOX),
        (r"\boxed{Malignant", Unreadable.UNCLOSED),
        (r"\boxed{}", Unreadable.EMPTY),
        (r"\boxed{ \text{} }", Unreadable.EMPTY),
        (r"\boxed{the tumour is malignant}", Unreadable.NO_CHOICE),
        (r"\boxed{C}", Unreadable.NO_CHOICE),
        (r"\boxed{3}", Unreadable.NO_CHOICE),
        (r"\boxed{none}", Unreadable.NO_CHOICE),
        (r"\boxed{" + "x" * 9000 + "}", Unreadable.TOO_LONG),
    ],
)
def test_w01_unreadable_apart_from_wrong(text: str, reason: Unreadable) -> None:
    assert why(text) is reason
    assert why(r"\boxed{Benign}") is None


def test_answer_inside_the_thinking_only() -> None:
    assert why(r"<think>\boxed{A}</think> it is benign") is Unreadable.ONLY_IN_THINKING
    assert why(r"\boxed{A} so </think>") is Unreadable.ONLY_IN_THINKING
    assert why(r"<think> \boxed{A}") is Unreadable.ONLY_IN_THINKING
    assert labels(r"<think>\boxed{A}</think> \boxed{B}", kind=ONE) == (("Malignant",), 0)
    assert labels(r"still thinking \boxed{A} </think> \boxed{B}", kind=ONE) == (("Malignant",), 0)
    assert after_thinking("<think>a</think>b<think>c") == "b"
    assert outside_thinking("x<think>a</think>y") == "x\ny"


def test_nothing_is_an_answer_to_several_only() -> None:
    for boxed in ("none", "[]", "None of the above.", r"\{\}"):
        assert read_answer(f"\\boxed{{{boxed}}}", PAIR, SEVERAL) == ReadAnswer()
    assert labels(r"\boxed{none}", ("None", "Some")) == (("None",), 0)


@pytest.mark.parametrize(
    ("boxed", "value"),
    [("75", 75.0), ("75 bpm", 75.0), ("75bpm", 75.0), ("about 75 beats/min", 75.0), ("-30°", -30.0), ("−30", -30.0),
     (r"-30^\circ", -30.0), (r"75\,\text{ms}", 75.0), ("1,200 ms", 1200.0), ("1.5e2", 150.0), (".5", 0.5),
     ("７５", 75.0), (r"75\%", 75.0), ("≈ 75", 75.0), ("**75**", 75.0), ("75.", 75.0), ("+3 mm (left)", 3.0)],
)  # fmt: skip
def test_numbers(boxed: str, value: float) -> None:
    assert read_answer(f"\\boxed{{{boxed}}}", (), NUMBER) == ReadAnswer(number=value)


@pytest.mark.parametrize(
    ("boxed", "reason"),
    [("75-80", Unreadable.SEVERAL_NUMBERS), ("75, 80", Unreadable.SEVERAL_NUMBERS), ("72,5", Unreadable.SEVERAL_NUMBERS),  # noqa: E501
     ("75 and 80", Unreadable.SEVERAL_NUMBERS), ("normal", Unreadable.NOT_A_NUMBER), ("<75", Unreadable.NOT_A_NUMBER),
     ("10²", Unreadable.NOT_A_NUMBER), ("7½", Unreadable.NOT_A_NUMBER), (r"\frac{1}{2}", Unreadable.NOT_A_NUMBER),
     ("nan", Unreadable.NOT_A_NUMBER), ("inf", Unreadable.NOT_A_NUMBER), ("1e999", Unreadable.NOT_A_NUMBER),
     ("9" * 400, Unreadable.NOT_A_NUMBER), ("9" * 5000, Unreadable.TOO_LONG), ("", Unreadable.EMPTY)],
)  # fmt: skip
def test_no_number(boxed: str, reason: Unreadable) -> None:
    assert read_answer(f"\\boxed{{{boxed}}}", (), NUMBER).unreadable is reason


def test_tolerance_includes_its_edge() -> None:
    key = AnswerKey((), ("0.3",), NUMBER, 0.1)
    for number, right in ((0.4, True), (0.2, True), (0.401, False), (0.199, False)):
        assert is_within_tolerance(ReadAnswer(number=number), key) is right
    assert not is_within_tolerance(ReadAnswer(unreadable=Unreadable.NO_BOX), key)


def test_exact() -> None:
    key = AnswerKey(BLOCKS, (BLOCKS[0], BLOCKS[3]), SEVERAL)
    assert is_exact(read_answer(r"\boxed{D, A}", BLOCKS, SEVERAL), key)
    assert not is_exact(read_answer(r"\boxed{D, A, banana}", BLOCKS, SEVERAL), key)
    assert not is_exact(read_answer(r"\boxed{D}", BLOCKS, SEVERAL), key)


@pytest.mark.parametrize(
    ("choices", "answer", "kind", "tolerance", "says"),
    [(PAIR, ("Maybe",), ONE, None, "none of the choices"), (PAIR, PAIR, ONE, None, "has 2"), ((), ("A",), ONE, None, "none"),  # noqa: E501
     (("A b", "a  B"), ("A b",), ONE, None, "reads like"), (("A", " "), ("A",), ONE, None, "empty"),
     ((), ("1",), NUMBER, None, "tolerance"), ((), ("nan",), NUMBER, 1.0, "finite"), ((), ("1", "2"), NUMBER, 1.0, "one")],  # noqa: E501
)  # fmt: skip
def test_a_key_that_cannot_be_right(
    choices: tuple[str, ...], answer: tuple[str, ...], kind: AnswerType, tolerance: float | None, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        AnswerKey(choices, answer, kind, tolerance)


HOSTILE = {
    "open braces": "\\boxed" + "{" * 100_000,
    "closed braces": "\\boxed{A" + "}" * 100_000,
    "nested": "\\boxed" + "{" * 50_000 + "A" + "}" * 50_000,
    "nested boxes": "\\boxed{" * 30_000 + "A" + "}" * 30_000,
    "nested text": "\\boxed{" + "\\text{" * 500 + "A" + "}" * 500 + "}",
    "megabyte": "\\boxed{" + "A, " * 350_000 + "}",
    "and": "\\boxed{" + "a and " * 50_000 + "}",
    "short and": "\\boxed{" + "a and " * 600 + "}",
    "blanks": "\\boxed{" + " " * 4000 + "and" + " " * 50 + "}",
    "lines": "\\boxed{" + "\n" * 4000 + "A}",
    "json": "\\boxed{" + "[" * 2000 + "]" * 2000 + "}",
    "integer": "\\boxed{" + "9" * 4000 + "}",
    "boxes": "\\boxed{A} " * 25_000,
    "commas": "\\boxed{" + "," * 4000 + "}",
    "think": "<think>" * 20_000 + "</think>" * 10_000 + "\\boxed{A}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_costs_little(name: str) -> None:
    tracemalloc.start()
    for kind, choices in ((SEVERAL, BLOCKS), (ONE, PAIR), (NUMBER, ())):
        read = read_answer(HOSTILE[name], choices, kind)
        assert len(read.labels) <= len(choices)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_hostile_answers_are_read_for_what_they_are() -> None:
    assert labels(HOSTILE["nested text"]) == (("Benign",), 0)
    assert labels(HOSTILE["short and"], kind=ONE) == (("Benign",), 0)
    assert why(HOSTILE["open braces"]) is Unreadable.UNCLOSED
    assert labels(HOSTILE["closed braces"], kind=ONE) == (("Benign",), 0)
    assert why(HOSTILE["megabyte"]) is Unreadable.TOO_LONG


WORDS = st.sampled_from(
    ["block", "wave", "and", "of", "AV", "ST", "type", "left", "mild,", "severe;", "(old)", "x-ray"]
)
CHOICES = st.lists(
    st.lists(WORDS, min_size=1, max_size=4).map(" ".join), min_size=2, max_size=6, unique_by=lambda c: re.sub(r"\W", "", c).lower()  # noqa: E501
).map(tuple)  # fmt: skip


@quick
@given(CHOICES, st.data())
def test_every_choice_reads_as_itself(choices: tuple[str, ...], data: st.DataObject) -> None:
    for choice in choices:
        if re.search(r"\w", choice) and choice.lower() not in ("and", "of"):
            assert read_answer(f"\\boxed{{{choice}}}", choices, ONE).labels == (choice,)
            assert read_answer(f"\\boxed{{\\text{{{choice.upper()}}}}}", choices, ONE).labels == (choice,)


@quick
@given(st.sets(st.sampled_from(BLOCKS)), st.sampled_from([", ", " and ", "; ", "\n", " & ", ","]), st.randoms())
def test_any_set_in_any_order_reads_as_the_set(chosen: set[str], separator: str, random: object) -> None:
    order = sorted(chosen)
    random.shuffle(order)  # type: ignore[attr-defined]
    # The bare block followed by a comma and a lone 'Mobitz I' is another choice; no other two run together.
    read = read_answer(f"\\boxed{{{separator.join(order) or 'none'}}}", BLOCKS, SEVERAL)
    assert (set(read.labels), read.extras, read.unreadable) == (chosen, 0, None)


@quick
@given(st.text(alphabet="\\boxed{}AB, and[]\"'<think>/\n", max_size=300), st.sampled_from([ONE, SEVERAL]))
def test_any_text_is_read_without_error(text: str, kind: AnswerType) -> None:
    read = read_answer(text, PAIR, kind)
    assert set(read.labels) <= set(PAIR)
    assert not (read.labels and read.unreadable)


@quick
@given(st.text(alphabet="ab{}", max_size=40).filter(lambda t: boxed_content("\\boxed{" + t + "}") == t))
def test_content_agrees_with_a_plain_count_of_braces(text: str) -> None:
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
