"""Draws follow from seed, purpose and name alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from qoq_data.corpus.draws import draws, fractions, keyed_hashes

NAMES = [f"item {n}" for n in range(20_000)]


def test_a_draw_is_the_keyed_hash_that_it_says() -> None:
    salt = hashlib.blake2b(b"7\x1fsplit", digest_size=32).digest()
    expected = [
        int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=salt).digest(), "little")
        for name in ("a", "ü")
    ]
    assert draws(7, "split", ["a", "ü"]).tolist() == expected


def test_draws_written_down_once_are_the_same_on_every_machine() -> None:
    assert draws(0, "task", ["00001", ""]).tolist() == [11013599738233046742, 14726228292035246631]


def test_a_name_draws_the_same_in_any_company_and_order() -> None:
    together = dict(zip(NAMES, draws(1, "x", NAMES).tolist(), strict=True))
    backwards = dict(zip(NAMES[::-1], draws(1, "x", NAMES[::-1]).tolist(), strict=True))
    assert together == backwards
    assert draws(1, "x", ["item 5"]).tolist() == [together["item 5"]]


def test_no_names_no_draws() -> None:
    assert draws(0, "x", []).shape == fractions(0, "x", []).shape == (0,)
    assert keyed_hashes("k", []) == []


def test_fractions_are_uniform_and_below_one() -> None:
    values = fractions(0, "split", NAMES)
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001


@pytest.mark.parametrize(("one", "other"), [((0, "a"), (1, "a")), ((0, "a"), (0, "b")), ((1, "1"), (11, ""))])
def test_other_seeds_and_purposes_are_independent(one: tuple[int, str], other: tuple[int, str]) -> None:
    first, second = fractions(*one, NAMES), fractions(*other, NAMES)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert not np.any(first == second)


def test_keyed_hashes_depend_on_key_and_name_and_are_32_hex_digits() -> None:
    one, other = keyed_hashes("qoq", NAMES), keyed_hashes("another", NAMES)
    assert len({*one, *other}) == 2 * len(NAMES)
    assert {len(text) for text in one} == {32}
    assert set("".join(one[:50])) <= set("0123456789abcdef")
    assert keyed_hashes("qoq", ["item 3"]) == [one[3]]
