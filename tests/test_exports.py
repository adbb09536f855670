"""The tree that ``errors`` draws is the tree that there is, and every error survives the way from a worker."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Iterator

import pytest

from qoq_data import errors
from qoq_data.errors import MissingExtraError, QoQError, Reason, RecipeError, RecordError

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, QoQError) and found.__module__ == errors.__name__
]


def drawn_parents(text: str) -> Iterator[tuple[str, str | None]]:
    """(class, parent) as the drawing says, read by the depth of each line."""
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = re.match(r"^ {4}((?:[│ ] {3})*)(?:[├└]── )?([A-Z]\w+Error)\b", line)
        if match is None:
            continue
        depth = line.index(match[2])
        while above and above[-1][0] >= depth:
            above.pop()
        yield match[2], above[-1][1] if above else None
        above.append((depth, match[2]))


def instance(kind: type[QoQError]) -> QoQError:
    if kind is RecipeError:
        return RecipeError("my.yaml", ["one thing", "another"])
    if kind is MissingExtraError:
        return MissingExtraError("ray", "ray", "The Ray engine")
    if kind is RecordError:
        return RecordError(Reason.FILE_MISSING, "the file is not there", "a/b.dat")
    return kind("what failed, and what to do next")


def test_the_drawn_tree_is_the_tree_of_the_classes() -> None:
    assert errors.__doc__
    drawn = dict(drawn_parents(errors.__doc__))
    built = {kind.__name__: None if kind is QoQError else kind.__bases__[0].__name__ for kind in CLASSES}
    assert drawn == built


def test_every_error_has_one_parent() -> None:
    assert [kind.__name__ for kind in CLASSES if len(kind.__bases__) != 1] == []


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind: type[QoQError]) -> None:
    before = instance(kind)
    after = pickle.loads(pickle.dumps(before))  # noqa: S301 - our own bytes
    assert type(after) is kind
    assert str(after) == str(before)
    assert vars(after) == vars(before)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_exit_codes_are_two_for_usage_and_one_else(kind: type[QoQError]) -> None:
    assert kind.exit_code == (2 if issubclass(kind, errors.UsageError) else 1)


def test_reason_codes_are_unique_and_in_one_form() -> None:
    codes = [str(reason) for reason in Reason.__members__.values()]
    assert len(set(codes)) == len(codes) == len(Reason)
    assert [name for name, reason in Reason.__members__.items() if name.lower() != str(reason)] == []


def test_a_recipe_error_lists_each_problem_on_a_line_of_its_own() -> None:
    assert str(RecipeError("my.yaml", ["one", "two"])).splitlines() == [
        "my.yaml has 2 problem(s):",
        "  - one",
        "  - two",
    ]
