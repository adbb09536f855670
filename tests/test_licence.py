"""The licence of a row is the strictest of its inputs, in whatever order they come."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest

from qoq_data.licence import CC0_1, CC_BY_4, ODBL_1, Licence, Redistribution, strictest

NOTHING = Licence("LicenseRef-own", "Own agreement", "https://example.org", Redistribution.NONE)
IDS = Licence("LicenseRef-PhysioNet", "Credentialed", "https://example.org", Redistribution.IDS)
EVERY = (CC0_1, CC_BY_4, ODBL_1, IDS, NOTHING)
RANK = {"none": 0, "ids": 1, "same-terms": 2, "open": 3}
BY_STRICTNESS = ["LicenseRef-own", "LicenseRef-PhysioNet", "ODbL-1.0", "CC-BY-4.0", "CC0-1.0"]


@pytest.mark.parametrize("size", range(1, 6))
def test_every_combination_in_every_order(size: int) -> None:
    for chosen in combinations(EVERY, size):
        least = min((str(one.redistribution) for one in chosen), key=RANK.__getitem__)
        names = {one.identifier for one in chosen}
        expected = " AND ".join(name for name in BY_STRICTNESS if name in names)
        for ordered in permutations(chosen):
            expression, redistribution = strictest(ordered)
            assert (expression, str(redistribution)) == (expected, least)


def test_each_licence_is_named_once() -> None:
    assert strictest([CC_BY_4, CC_BY_4, CC_BY_4]) == ("CC-BY-4.0", Redistribution.OPEN)


def test_one_name_with_two_terms_counts_as_the_stricter() -> None:
    narrower = Licence("CC-BY-4.0", "As a publisher narrows it", "", Redistribution.IDS)
    for ordered in permutations([CC_BY_4, narrower]):
        assert strictest(ordered) == ("CC-BY-4.0", Redistribution.IDS)


def test_an_iterator_will_do_and_its_inputs_stay_as_they_are() -> None:
    given = [ODBL_1, CC0_1]
    assert strictest(iter(given)) == ("ODbL-1.0 AND CC0-1.0", Redistribution.SAME_TERMS)
    assert given == [ODBL_1, CC0_1]


def test_nothing_has_no_licence() -> None:
    with pytest.raises(ValueError, match="at least one"):
        strictest([])


def test_every_redistribution_has_a_place_in_the_order() -> None:
    assert {str(one) for one in Redistribution} == set(RANK)
