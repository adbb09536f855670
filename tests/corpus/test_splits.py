"""Splits: a group on one side, official test above all, and nothing that depends on order or company."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.corpus.draws import fractions
from qoq_data.corpus.splits import assign_splits, check_splits, group_keys, sides_given
from qoq_data.errors import SplitError
from qoq_data.groups import join_groups

MODEST = settings(derandomize=True, deadline=None, max_examples=50)
SIDES = ("train", "validation", "test")


def items(rows: Sequence[tuple[str, str, str | None]]) -> pl.DataFrame:
    schema = {"group_key": pl.String, "source": pl.String, "official_split": pl.String}
    return pl.DataFrame(rows, schema, orient="row")


def sides(
    rows: Sequence[tuple[str, str, str | None]], seed: int = 0, validation: float = 0.1, test: float = 0.1
) -> list[str]:
    found = assign_splits(items(rows), seed, validation, test)
    assert found.null_count() == 0
    return found.to_list()


_ROWS = st.lists(
    st.tuples(
        st.sampled_from([f"g{n}" for n in range(12)]),
        st.sampled_from(["ptb-xl", "busi", "mimic-ecg"]),
        st.sampled_from([None, *SIDES]),
    ),
    min_size=1,
    max_size=40,
)


@MODEST
@given(_ROWS, st.integers(0, 5))
def test_no_group_stands_on_two_sides_and_official_test_is_test_for_all_of_it(
    rows: list[tuple[str, str, str | None]], seed: int
) -> None:
    found = sides(rows, seed)
    officials = defaultdict(set)
    of_group = defaultdict(set)
    for (group, _, official), side in zip(rows, found, strict=True):
        of_group[group].add(side)
        officials[group].add(official)
    for group, given_sides in officials.items():
        assert len(of_group[group]) == 1
        if "test" in given_sides:
            assert of_group[group] == {"test"}
        elif "validation" in given_sides:
            assert of_group[group] == {"validation"}
        elif "train" in given_sides:
            assert "test" not in of_group[group]


@MODEST
@given(_ROWS, st.integers(0, 5))
def test_the_order_of_the_rows_changes_nothing(rows: list[tuple[str, str, str | None]], seed: int) -> None:
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    found = sides(rows, seed)
    shuffled = sides([rows[n] for n in order], seed)
    assert [found[n] for n in order] == shuffled


@MODEST
@given(_ROWS, st.integers(0, 5))
def test_against_the_rule_written_out_by_hand(rows: list[tuple[str, str, str | None]], seed: int) -> None:
    by_source = defaultdict(set)
    for _, source, official in rows:
        by_source[source].add(official)
    for (group, _, _), side in zip(rows, sides(rows, seed, 0.3, 0.2), strict=True):
        mine = [row for row in rows if row[0] == group]
        officials = {official for _, _, official in mine}
        drawn = float(fractions(seed, "split", [group])[0])
        if "test" in officials:
            expected = "test"
        elif "validation" in officials:
            expected = "validation"
        elif "train" in officials:
            lacking = all(by_source[s] - {None} and "validation" not in by_source[s] for _, s, _ in mine)
            expected = "validation" if lacking and drawn < 0.3 else "train"
        else:
            expected = "test" if drawn < 0.2 else "validation" if drawn < 0.5 else "train"
        assert side == expected


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.05, 0.2), (0.0, 0.3), (0.3, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_shares_are_near_those_asked_for(validation: float, test: float, seed: int) -> None:
    counts = Counter(sides([(f"p{n}", "busi", None) for n in range(20_000)], seed, validation, test))
    for side, share in (("validation", validation), ("test", test)):
        spread = 4 * (20_000 * share * (1 - share)) ** 0.5
        assert abs(counts[side] - 20_000 * share) <= spread


def test_a_source_with_train_and_test_only_gets_its_validation_out_of_train() -> None:
    rows = [(f"p{n}", "a", "test" if n % 5 == 0 else "train") for n in range(20_000)]
    found = sides(rows, validation=0.1, test=0.3)
    assert all((side == "test") == (row[2] == "test") for row, side in zip(rows, found, strict=True))
    assert abs(found.count("validation") - 1600) < 4 * (16_000 * 0.09) ** 0.5


def test_a_source_with_all_three_keeps_them_as_they_are() -> None:
    rows = [(f"p{n}", "a", SIDES[n % 3]) for n in range(3000)]
    assert sides(rows, validation=0.4, test=0.4) == [row[2] for row in rows]


def test_another_source_with_validation_changes_nothing_for_one_without() -> None:
    alone = [(f"p{n}", "a", "train") for n in range(2000)]
    beside = [(f"q{n}", "b", "validation") for n in range(10)]
    assert sides(alone + beside)[:2000] == sides(alone)


def test_adding_a_patient_moves_no_other() -> None:
    before = [(f"p{n}", "busi", None) for n in range(3000)]
    after = [*before[:1500], ("new", "busi", None), *before[1500:]]
    found = sides(after)
    assert found[:1500] + found[1501:] == sides(before)


def test_another_seed_is_another_split() -> None:
    rows = [(f"p{n}", "busi", None) for n in range(1000)]
    assert sides(rows, seed=0) != sides(rows, seed=1)


def test_s01_the_same_patient_in_two_sources_of_an_identity_group_is_one_group() -> None:
    table = pl.DataFrame(
        {"patient": ["7", "8", None, None], "group": ["7", "8", "7", "x"]}, {"patient": pl.String, "group": pl.String}
    )
    mimic_ecg, mimic_cxr = group_keys(table, "mimic-ecg", "mimic"), group_keys(table, "mimic-cxr", "mimic")
    other = group_keys(table, "ptb-xl", "ptb")
    assert mimic_ecg[:2].to_list() == mimic_cxr[:2].to_list()
    everyone = [*mimic_ecg, *mimic_cxr[2:], *other]
    assert len(set(everyone)) == len(everyone)
    keys = [*mimic_ecg, *mimic_cxr]
    found = sides([(key, "s", "test" if n == 0 else "train") for n, key in enumerate(keys)])
    assert found[0] == found[4] == "test"


def components(keys: list[str], links: list[tuple[int, int]]) -> list[str]:
    """Joined groups by plain repetition: names flow along links and along equal keys until nothing changes."""
    names = list(keys)
    while True:
        before = list(names)
        for a, b in links:
            names[a] = names[b] = min(names[a], names[b])
        for key in set(keys):
            least = min(name for name, own in zip(names, keys, strict=True) if own == key)
            names = [least if own == key else name for name, own in zip(names, keys, strict=True)]
        if names == before:
            return names


@MODEST
@given(st.data())
def test_s01_joined_groups_are_those_of_plain_repetition_in_any_order_of_links(data: Any) -> None:
    keys = data.draw(st.lists(st.sampled_from(["b", "a", "ab", "Z", "é", "\x1f", "10", "9"]), min_size=1, max_size=10))
    row = st.integers(0, len(keys) - 1)
    links = data.draw(st.lists(st.tuples(row, row), max_size=8))
    expected = components(keys, links)
    series = pl.Series("group_key", keys)
    assert join_groups(series, links).to_list() == expected
    assert join_groups(series, [(b, a) for a, b in reversed(links)]).to_list() == expected
    assert join_groups(series, links).name == "group_key"


def test_a_long_chain_of_links_is_one_group() -> None:
    keys = pl.Series("group_key", [f"{n:05d}" for n in range(20_000)])
    joined = join_groups(keys, ((n, n + 1) for n in range(19_999)))
    assert joined.unique().to_list() == ["00000"]


def test_no_items_have_no_groups() -> None:
    assert join_groups(pl.Series("group_key", [], dtype=pl.String), []).to_list() == []


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("p", "g", "train"), ("p", "h", "test")], "1 patients would stand in two splits"),
        ([("p", "g", "train"), ("q", "g", "test"), ("r", "h", "test")], "1 groups would stand in two splits"),
        ([(None, "g", "train"), (None, "g", "validation")], "1 groups"),
    ],
)
def test_crossings_are_counted_and_stop_the_build(rows: list[tuple[Any, ...]], said: str) -> None:
    schema = {"patient": pl.String, "group_key": pl.String, "split": pl.String}
    with pytest.raises(SplitError, match=said):
        check_splits(pl.DataFrame(rows, schema, orient="row"))


def test_rows_without_a_patient_are_no_crossing() -> None:
    check_splits(pl.DataFrame({"patient": [None, None], "group_key": ["a", "b"], "split": ["train", "test"]}))


def test_a_sample_without_validation_does_not_take_it_from_train() -> None:
    rows: list[tuple[str, str, str | None]] = [(f"g{n}", "ptb-xl", "train") for n in range(400)]
    whole = items([*rows, ("v", "ptb-xl", "validation")])
    sampled = assign_splits(items(rows), 0, 0.1, 0.1, sides_given(whole)).to_list()
    assert sampled == ["train"] * 400
    assert "validation" in assign_splits(items(rows), 0, 0.1, 0.1).to_list()
