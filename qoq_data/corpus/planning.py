"""From raw trees to the plan of a whole corpus: scan, sample, inspect, split, expand, ask, cut. All sources at once,
since a patient of one may be a patient of another. What a source makes of one item stays on that item's side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from qoq_data.corpus.code_version import code_version
from qoq_data.corpus.draws import fractions, keyed_hashes
from qoq_data.corpus.expand import expand_items
from qoq_data.corpus.inspect import (
    Engine,
    conflict_skips,
    conflicting,
    inspect_items,
    near_content,
    same_content,
    same_original,
)
from qoq_data.corpus.items import scan_items, set_aside
from qoq_data.corpus.ledger import Skip, check_skip_limit
from qoq_data.corpus.plan import ShardPlan, cut_into_shards
from qoq_data.corpus.questions import ask, tasks_asked, unanswerable
from qoq_data.corpus.splits import SEPARATOR, assign_splits, check_splits, group_keys, sides_given
from qoq_data.errors import Reason
from qoq_data.formats.storage import Store
from qoq_data.groups import join_groups
from qoq_data.recipe import Recipe, SourceRecipe, source_options
from qoq_data.source import Source, Task


@dataclass(frozen=True, slots=True)
class SourceInput:
    """One source of a build: its recipe's entry and its raw tree."""

    source: Source
    entry: SourceRecipe
    raw: Store
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """What will become of one source. ``items`` counts those of the sample; ``moved`` those whose group put them on
    another side than the publisher's."""

    input: SourceInput
    version: str
    items: int
    patients: int
    moved: int
    rows: pl.DataFrame
    skips: tuple[Skip, ...]
    shards: tuple[ShardPlan, ...]

    @property
    def name(self) -> str:
        return self.input.source.name

    def statistics(self) -> Mapping[str, int]:
        """What the source itself counts in its tables; a second look at them, so left out of a dry run."""
        source, options = self.input.source, source_options(self.input.entry, self.input.source)
        return dict(source.statistics(self.input.raw, options)) if source.statistics else {}


@dataclass(frozen=True, slots=True)
class _Scanned:
    input: SourceInput
    version: str
    tasks: tuple[Task, ...]
    items: pl.DataFrame
    sides_given: pl.DataFrame
    pictures: Mapping[str, pl.DataFrame]
    facts: pl.DataFrame
    skips: list[Skip]
    found: int


def plan_corpus(
    recipe: Recipe, inputs: Sequence[SourceInput], corpus: Store | None, engine: Engine, keep_facts: bool = True
) -> list[SourcePlan]:
    """The plan of every source, in the order of the recipe; ``corpus`` has what the inspect step found before.

    What it finds now is kept there too, unless ``keep_facts`` is False.

    Raises the errors of the sources, and ``SplitError`` if a patient would stand on two sides.
    """
    scanned = [_scan(recipe, one, corpus, engine, keep_facts) for one in inputs]
    together = pl.concat(
        [
            one.items.select("item", "official_split", "group_key", pl.lit(one.input.source.name).alias("source"))
            for one in scanned
        ]
    )
    offsets = [0]
    for one in scanned:
        offsets.append(offsets[-1] + one.items.height)
    links = _content_links(scanned, offsets, recipe.near_duplicates)
    together = together.with_columns(join_groups(together["group_key"], links))
    given = pl.concat([one.sides_given for one in scanned])
    sides = assign_splits(together, recipe.seed, recipe.split.validation, recipe.split.test, given)
    together = together.with_columns(sides)
    plans = []
    for position, one in enumerate(scanned):
        mine = together.slice(offsets[position], one.items.height)
        plans.append(_plan(recipe, one, one.items.with_columns(mine["group_key"], mine["split"])))
    check_splits(pl.concat([plan.rows.select("patient", "group_key", "split") for plan in plans]))
    return plans


def _scan(recipe: Recipe, one: SourceInput, corpus: Store | None, engine: Engine, keep_facts: bool) -> _Scanned:
    source = one.source
    options = source_options(one.entry, source)
    items = scan_items(source, one.raw, options)
    version = source.version(one.raw)
    items = items.with_columns(group_keys(items, source.name, source.spec.identity_group))
    given = sides_given(items.with_columns(pl.lit(source.name).alias("source")))
    if recipe.sample < 1:
        groups = items["group_key"].unique().sort()
        taken = groups.filter(pl.Series(fractions(recipe.seed, "sample", groups.to_list())) < recipe.sample)
        items = items.filter(pl.col("group_key").is_in(taken.implode()))
    tasks = tasks_asked(source.spec, one.entry.tasks)
    found = items.height
    items, skips = set_aside(items, source.name)
    pictures: dict[str, pl.DataFrame] = {}
    every_fact = items.select("item")
    inspectors = dict.fromkeys((*source.spec.inspectors, *(task.fact.split(".")[0] for task in tasks if task.fact)))
    for name in inspectors:
        code = code_version(source)
        facts, unreadable = inspect_items(items, source.name, name, one.raw, corpus, code, engine, keep_facts)
        skips += unreadable
        items = items.join(facts, on="item", how="semi", maintain_order="left")
        if source.expand is not None:
            named = facts.select("item", *(pl.col(column).alias(f"{name}.{column}") for column in facts.columns[1:]))
            every_fact = every_fact.join(named, on="item", maintain_order="left")
        for task in tasks:
            inspector, _, column = task.fact.partition(".")
            if inspector == name:
                answers = facts.select("item", pl.col(column).alias(f"answer.{task.name}"))
                items = items.join(answers, on="item", how="left", maintain_order="left")
        if name == "picture_content" and recipe.label_conflict == "skip":
            clashing = conflicting(facts, items)
            skips += conflict_skips(source.name, items, clashing)
            items = items.filter(~pl.col("item").is_in(sorted(clashing)))
        if name in ("picture_content", "picture_originals"):
            pictures[name] = facts
    return _Scanned(one, version, tasks, items, given, pictures, every_fact, skips, found)


def _content_links(scanned: Sequence[_Scanned], offsets: Sequence[int], near: bool) -> list[tuple[int, int]]:
    """Pairs of rows of all sources' items together that share content: equal pixels, and with ``near`` copies too.

    Pictures are compared across sources, since ids of two of them do not join (ISIC and HAM10000 share pictures).
    """
    found: dict[str, list[pl.DataFrame]] = {}
    for one, offset in zip(scanned, offsets, strict=False):
        rows = one.items.select("item").with_row_index("row", offset)
        for name, facts in one.pictures.items():
            found.setdefault(name, []).append(rows.join(facts, on="item", maintain_order="left"))
    tables = [(same_content, table) for table in _together(found.get("picture_content"))]
    if near:
        tables += [(near_content, table) for table in _together(found.get("picture_content"))]
        tables += [(same_original, table) for table in found.get("picture_originals", [])]
    links: list[tuple[int, int]] = []
    for pairs_of, table in tables:
        places = table["row"].to_list()
        links += [(places[a], places[b]) for a, b in pairs_of(table)]
    return links


def _together(tables: Sequence[pl.DataFrame] | None) -> list[pl.DataFrame]:
    return [pl.concat(tables)] if tables else []


def _plan(recipe: Recipe, one: _Scanned, items: pl.DataFrame) -> SourcePlan:
    source = one.input.source
    skips, found = one.skips, one.found
    if source.expand is not None:
        entry = one.input.entry  # one scanned item that is lost is as many items as would have been made of it
        check_skip_limit(
            source.name, skips, found, source.spec.skip_limit if entry.skip_limit is None else entry.skip_limit
        )
        found -= items.height
        items, aside = expand_items(source, items, one.facts, source_options(entry, source))
        skips, found = skips + aside, found + items.height + len(aside)
    silent = unanswerable(items, one.tasks)
    skips = skips + [
        Skip(source.name, item, str(Reason.NO_LABEL), path, "no answer to any of the recipe's tasks")
        for item, path in silent.select("item", "label_file").iter_rows()
    ]
    rows = ask(items, one.tasks, recipe.seed, recipe.rows_per_record == "all")
    group = source.spec.identity_group
    rows = rows.with_columns(
        _hashed(rows, "patient", f"{group}{SEPARATOR}patient", recipe.patient_key),
        _hashed(rows, "study", f"{group}{SEPARATOR}study", recipe.patient_key),
    )
    moved = items.filter(pl.col("official_split").is_not_null() & (pl.col("official_split") != pl.col("split")))
    target = recipe.shards.rows or source.spec.rows_per_shard
    kept = ["item", "split", "patient", "study", "media", "label_file", "label_row", "task", "answer"]
    kept += [column for column in rows.columns if column == "boxes" or column.startswith("context.")]
    return SourcePlan(
        input=one.input,
        version=one.version,
        items=found,
        patients=items["patient"].drop_nulls().n_unique(),
        moved=moved.height,
        rows=rows.select("patient", "group_key", "split", "task"),
        skips=tuple(sorted(skips)),
        shards=tuple(cut_into_shards(rows.select(kept), source.name, target)),
    )


def _hashed(rows: pl.DataFrame, column: str, prefix: str, key: str) -> pl.Series:
    """The column's ids replaced by keyed hashes; each distinct id is hashed once."""
    distinct = rows[column].drop_nulls().unique().sort()
    if not distinct.len():
        return pl.Series(column, [None] * rows.height, dtype=pl.String)
    hashes = keyed_hashes(key, [f"{prefix}{SEPARATOR}{one}" for one in distinct])
    return rows[column].replace_strict(distinct, pl.Series(hashes), default=None, return_dtype=pl.String)
