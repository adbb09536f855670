"""The plan: shards cut by content, the same in any order, and named by all that they hold."""

from __future__ import annotations

import random
import statistics
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.corpus.draws import draws
from qoq_data.corpus.plan import ShardPlan, _cuts, cut_into_shards
from qoq_data.source import MEDIA_TYPE

SCHEMA: dict[str, Any] = {
    "item": pl.String,
    "split": pl.String,
    "patient": pl.String,
    "study": pl.String,
    "media": pl.List(MEDIA_TYPE),
    "label_file": pl.String,
    "label_row": pl.String,
    "task": pl.String,
    "answer": pl.List(pl.String),
    "context.age": pl.String,
    "context.sex": pl.String,
}


def row(number: int, **changes: Any) -> dict[str, Any]:
    media = [{"role": "ecg", "kind": "wfdb", "path": f"records/{number:06d}", "part": None}]
    fixed = {
        "item": f"{number:06d}", "split": "train", "patient": f"p{number // 2}", "study": None, "media": media,
        "label_file": "t.csv", "label_row": str(number), "task": "kind", "answer": ["m"], "context.age": None,
        "context.sex": "female",
    }  # fmt: skip
    return fixed | changes


def plans(rows: list[dict[str, Any]], target: int = 64) -> list[ShardPlan]:
    return cut_into_shards(pl.DataFrame(rows, SCHEMA, orient="row"), "busi", target)


def names(rows: list[dict[str, Any]], target: int = 64) -> list[str]:
    return [plan.path for plan in plans(rows, target)]


MANY = [row(n) for n in range(3000)]


def brute_force(marks: list[bool], least: int, greatest: int) -> list[int]:
    """Ends of the chunks, a row at a time."""
    ends: list[int] = []
    start = 0
    while start < len(marks):
        end = start + 1
        while end < len(marks) and end - start < greatest and not (end - start >= least and marks[end - 1]):
            end += 1
        ends.append(end)
        start = end
    return ends


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 12), max_size=60), st.integers(1, 12))
def test_cuts_are_those_of_a_chunker_that_goes_row_by_row(numbers: list[int], target: int) -> None:
    hashes = np.array(numbers, np.uint64)
    least, greatest = max(1, target // 4), 2 * target
    marks = [number % max(1, target - least) == 0 for number in numbers]
    ends = _cuts(hashes, target)
    assert all(end - start <= greatest for start, end in zip([0, *ends], ends, strict=False))
    assert all(end - start >= least for start, end in zip([0, *ends], ends[:-1], strict=False))
    assert ends == brute_force(marks, least, greatest)


def test_every_row_stands_in_exactly_one_shard_in_the_order_of_its_id() -> None:
    rows = [row(n, split=("train", "validation", "test")[n % 3]) for n in range(1000)]
    found = plans(rows)
    together = pl.concat([plan.rows for plan in found])
    assert sorted(together["item"]) == [f"{n:06d}" for n in range(1000)]
    for plan in found:
        assert set(plan.rows["split"]) == {plan.split}
        assert plan.rows["item"].is_sorted()
        assert plan.path == f"data/busi/{plan.split}-{plan.name}.parquet"
    assert len({plan.path for plan in found}) == len(found)


@pytest.mark.parametrize("target", [1, 2, 3, 4, 64, 500])
def test_sizes_stay_within_their_bounds_and_near_the_target(target: int) -> None:
    sizes = [plan.rows.height for plan in plans(MANY[:2000], target)]
    assert max(sizes) <= 2 * target
    assert min(sizes[:-1], default=target) >= max(1, target // 4)
    assert sum(sizes) == 2000
    if target == 64:
        assert 0.6 * target <= statistics.mean(sizes) <= 1.4 * target


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_the_rows_changes_nothing(seed: int) -> None:
    rows = [row(n, task=task) for n in range(600) for task in ("kind", "signs")]
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    assert names(shuffled) == names(rows)
    assert [plan.rows.rows() for plan in plans(shuffled)] == [plan.rows.rows() for plan in plans(rows)]


def test_a_new_row_touches_few_shards() -> None:
    before = set(names(MANY))
    changed = []
    for number in range(0, 3000, 500):
        after = names([*MANY, row(number, item=f"{number:06d}a")])
        changed.append(len(set(after) - before))
    assert statistics.median(changed) == 1
    assert sum(count <= 2 for count in changed) >= 0.8 * len(changed)
    assert max(changed) < len(before) / 3


def test_a_row_that_changes_touches_one_shard() -> None:
    before = names(MANY)
    for number in (0, 1234, 2999):
        after = names([*MANY[:number], row(number, answer=["b"]), *MANY[number + 1 :]])
        assert len(after) == len(before)
        assert len(set(after) - set(before)) == 1


def media(**changes: Any) -> dict[str, Any]:
    one = {"role": "ecg", "kind": "wfdb", "path": "records/000000", "part": None}
    return {"media": [one | changes]}


CHANGES: list[dict[str, Any]] = [
    {"patient": "other"}, {"patient": None}, {"study": "s"}, {"study": ""}, {"label_file": "u.csv"},
    {"task": "signs"}, {"answer": ["b"]}, {"answer": ["m", "b"]}, {"answer": ["b", "m"]}, {"answer": [""]},
    {"answer": []}, {"answer": None}, {"answer": [None]}, {"context.age": ""},
    {"context.age": "female", "context.sex": None},
    {"context.sex": "male"}, {"item": "000000a"}, {"label_row": "7"}, {"media": []},
    media(path="records/000001"), media(role="x"), media(kind="image"), media(part=""), media(part="lead I"),
    {"media": media()["media"] * 2}, media(path=None), media(role=None), {"media": None},
]  # fmt: skip


def test_names_differ_when_any_field_differs() -> None:
    found = [names([row(0)])[0], *(names([row(0, **change)])[0] for change in CHANGES)]
    doubled = {name: [n for n, one in enumerate(found) if one == name] for name in found}
    assert {name: where for name, where in doubled.items() if len(where) > 1} == {}


@pytest.mark.parametrize("column", [column for column in SCHEMA if column != "split"])
def test_each_column_counts_towards_the_name(column: str) -> None:
    if column == "media":
        changed: Any = media(path="elsewhere")["media"]
    else:
        changed = ["elsewhere"] if column == "answer" else "elsewhere"
    assert names([row(0), row(1)]) != names([row(0), row(1, **{column: changed})])


def test_the_same_rows_of_another_split_have_another_path() -> None:
    assert names([row(0)]) != names([row(0, split="test")])


def test_rows_do_not_flow_into_each_other() -> None:
    one = names([row(0, **{"context.sex": "x"}), row(1, **{"context.sex": "y"})])
    other = names([row(0, **{"context.sex": "y"}), row(1, **{"context.sex": "x"})])
    assert one != other


def test_no_rows_no_shards() -> None:
    assert plans([]) == []


def test_cuts_do_not_depend_on_anything_but_the_items() -> None:
    plain = [plan.rows["item"].to_list() for plan in plans(MANY[:500])]
    other = [plan.rows["item"].to_list() for plan in plans([row(n, answer=["b"], patient=None) for n in range(500)])]
    assert plain == other


def test_the_hash_of_a_cut_is_that_of_the_item() -> None:
    items = [f"{n:06d}" for n in range(500)]
    ends = _cuts(draws(0, "cut", items), 64)
    assert np.cumsum([plan.rows.height for plan in plans(MANY[:500])]).tolist() == ends
