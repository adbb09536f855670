"""``build`` and ``recipe``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoq_data.corpus.planning import SourcePlan
    from qoq_data.recipe import Recipe


def register(app: typer.Typer) -> None:
    app.command("build")(build)
    app.command("recipe")(recipe)


def build(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Sources, or one recipe by name or file.")],
    out: Annotated[str | None, typer.Option(help="Folder or fsspec address of the corpus; ./NAME by default.")] = None,
    raw: Annotated[
        str | None,
        typer.Option(help="Raw folder; with several sources it holds a folder for each. Default: QOQ_RAW/<source>."),
    ] = None,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Write and build generated raw trees.")] = False,
    patients: Annotated[int, typer.Option(min=4, max=100_000, help="Patients of each synthetic tree.")] = 48,
    sample: Annotated[float | None, typer.Option(min=1e-9, max=1, help="Seeded share of patients.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes; all processors by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Build a corpus from raw folders; a build that was stopped goes on where it was."""
    import tempfile

    from qoq_data.cli.printing import print_json, print_line, row_progress
    from qoq_data.corpus.build import build_corpus
    from qoq_data.corpus.planning import plan_corpus
    from qoq_data.corpus.roots import gather_inputs, remember
    from qoq_data.engines.local import LocalEngine, default_workers
    from qoq_data.formats.storage import Store
    from qoq_data.publish.corpus_card import write_corpus_card

    chosen = _recipe(names, sample)
    corpus = Store(out or chosen.name)
    engine = LocalEngine(workers or default_workers())
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="qoq-") as scratch:  # a synthetic tree has to stand somewhere
            planned = gather_inputs(chosen, raw, Store(scratch), patients if synthetic else None)
            _print_plan(plan_corpus(chosen, planned, None, engine), as_json)
        return
    inputs = gather_inputs(chosen, raw, corpus, patients if synthetic else None)
    with row_progress("rows") as progress:
        manifest = build_corpus(chosen, inputs, corpus, engine, progress)
    remember(chosen, corpus, inputs)  # now that no other build can be writing here
    write_corpus_card(manifest, [one.source for one in inputs], corpus)
    if as_json:
        print_json({"corpus": corpus.address, "rows": manifest.rows, "shards": len(manifest.shards)})
        return
    from qoq_data.cli.corpus_commands import print_corpus

    print_corpus(manifest)
    print_line(f"\n{manifest.rows:,} rows in {len(manifest.shards):,} shards stand in {corpus.address}")
    print_line(f'read them with datasets.load_dataset("{corpus.address}")')


def recipe(name: Annotated[str, typer.Argument(help="A source, or a recipe by name or file.")]) -> None:
    """Print a recipe, every key with what it means, to be edited and built."""
    from qoq_data.cli.printing import print_line
    from qoq_data.recipe import find_recipe, parse_recipe, recipe_text
    from qoq_data.sources import registry

    text, where = find_recipe(name, registry())
    print_line(recipe_text(parse_recipe(text, where, registry()), registry()).rstrip("\n"))


def _recipe(names: Sequence[str], sample: float | None) -> Recipe:
    from qoq_data.errors import UsageError
    from qoq_data.recipe import combined_recipe, find_recipe, parse_recipe
    from qoq_data.sources import registry

    overrides = {} if sample is None else {"sample": sample}
    if len(names) == 1:
        text, where = find_recipe(names[0], registry())
        return parse_recipe(text, where, registry(), overrides)
    unknown = [name for name in names if name not in registry()]
    if unknown:
        raise UsageError(f"Several names are several sources, and {unknown[0]!r} is none: give one recipe, or sources.")
    text = combined_recipe(names, registry())
    return parse_recipe(text, "the recipe of " + ", ".join(names), registry(), overrides)


def _print_plan(plans: Sequence[SourcePlan], as_json: bool) -> None:
    from qoq_data.cli.printing import print_json, print_table
    from qoq_data.corpus.ledger import by_reason

    table = []
    for plan in plans:
        spec = plan.input.source.spec
        sides = {shard.split: 0 for shard in plan.shards}
        for shard in plan.shards:
            sides[shard.split] += shard.rows.height
        table.append(
            {
                "source": plan.name,
                "version": plan.version,
                "items": plan.items,
                "patients": plan.patients,
                "rows": plan.rows.height,
                **{side: sides.get(side, 0) for side in ("train", "validation", "test")},
                "shards": len(plan.shards),
                "bytes": plan.rows.height * spec.bytes_per_row,
                "skipped": by_reason(plan.skips),
                "moved": plan.moved,
            }
        )
    if as_json:
        print_json(table)
        return
    columns = [name for name in table[0] if name != "skipped"]
    print_table([*columns, "skipped"], [[*(row[c] for c in columns), _reasons(row["skipped"])] for row in table])  # type: ignore[arg-type]


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
