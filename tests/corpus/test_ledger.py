"""The skip ledger: every line comes back as it was, counts are right, the limit is a share of the items."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.corpus.ledger import Skip, by_reason, check_skip_limit, from_lines, to_lines
from qoq_data.errors import Reason, RecordError, SkipLimitError

_TEXT = st.text(max_size=8) | st.sampled_from(["\u2028", "a\x85b", "\n", "\r", "\x1c", '"', "\\", "ü"])
_SKIPS = st.lists(
    st.builds(Skip, _TEXT, _TEXT, st.sampled_from([str(reason) for reason in Reason]), _TEXT, _TEXT), max_size=6
)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(_SKIPS)
def test_every_line_comes_back_as_it_was_in_sorted_order(skips: list[Skip]) -> None:
    text = to_lines(skips)
    assert from_lines(text) == sorted(skips)
    assert text.count("\n") == len(skips)
    assert to_lines(reversed(skips)) == text
    assert text.encode().decode() == text


def test_a_line_is_made_of_a_record_error() -> None:
    error = RecordError(Reason.FILE_TRUNCATED, "3 bytes are missing", "a/b.dat")
    assert Skip.of("ptb-xl", "00001", error) == Skip(
        "ptb-xl", "00001", "file_truncated", "a/b.dat", "3 bytes are missing"
    )


def test_reasons_are_counted_in_sorted_order() -> None:
    skips = [Skip("s", str(n), reason, "", "") for n, reason in enumerate(["no_label", "file_missing", "no_label"])]
    assert list(by_reason(skips).items()) == [("file_missing", 1), ("no_label", 2)]
    assert by_reason([]) == {}


def skipped(count: int, reason: Reason = Reason.FILE_MISSING) -> list[Skip]:
    return [Skip("busi", str(n), str(reason), "", "") for n in range(count)]


@pytest.mark.parametrize(
    ("count", "items", "limit"), [(2, 100, 0.02), (0, 100, 0.0), (0, 0, 0.0), (100, 100, 1.0), (1, 3, 0.34)]
)
def test_as_many_as_the_limit_may_be_skipped(count: int, items: int, limit: float) -> None:
    check_skip_limit("busi", skipped(count), items, limit)


@pytest.mark.parametrize(("count", "items", "limit"), [(3, 100, 0.02), (1, 100, 0.0), (1, 1000, 0.0), (100, 100, 0.99)])
def test_more_than_the_limit_stop_the_build_and_the_reasons_are_named(count: int, items: int, limit: float) -> None:
    with pytest.raises(
        SkipLimitError, match=f"busi: {count} of {items} items .*{count} file_missing.*raise skip_limit of busi"
    ):
        check_skip_limit("busi", skipped(count), items, limit)


def test_items_without_a_label_do_not_count_towards_the_limit() -> None:
    check_skip_limit("busi", skipped(50, Reason.NO_LABEL), 100, 0.0)
    both = skipped(50, Reason.NO_LABEL) + skipped(3, Reason.WITHDRAWN)
    random.Random(0).shuffle(both)
    with pytest.raises(SkipLimitError, match=r"3 of 100 items were skipped \(3 withdrawn\)"):
        check_skip_limit("busi", both, 100, 0.02)


@pytest.mark.parametrize("text", ["{", "[]", '{"source": 1}', "null", "3"])
def test_lines_that_are_none_of_ours_are_an_error(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        from_lines(text)
