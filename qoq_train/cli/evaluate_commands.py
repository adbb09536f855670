"""``eval``, ``compare`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qoq_train.cli.arguments import Json, Recipe, RunFolder, Set, resolved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qoq_data.record import Split
    from qoq_train.evaluation.metrics import Report
    from qoq_train.evaluation.outcomes import Outcome
    from qoq_train.recipe import TrainRecipe

Tables = Annotated[Path | None, typer.Option("--out", help="Folder to write the tables into, Markdown and JSON.")]
_LEGEND = "\nA figure, its 95 % interval by patient, and in brackets what the best constant answer reaches.\n"
Told = tuple[str, dict[str, Any]]
"""An evaluation as Markdown and as plain values."""


def register(app: typer.Typer) -> None:
    app.command("eval")(evaluate_model)
    app.command("compare")(compare_runs)
    app.command("report")(report_run)


def evaluate_model(
    recipe: Recipe,
    settings: Set = [],  # noqa: B006  (typer copies it)
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    most: Annotated[int | None, typer.Option("--rows", min=1, help="At most so many rows, a seeded share.")] = None,
    per_class: Annotated[
        int | None,
        typer.Option(min=1, help="Beside it, a seeded subset of at most so many rows a class; published: 24."),
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option(help="An earlier state, RUN/supervised: what was gained on the same rows."),
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Ask an OpenAI-compatible server: https://host/v1.")] = None,
    endpoint_model: Annotated[str | None, typer.Option(help="The model's name there; default: model.path.")] = None,
    thousandths: Annotated[bool, typer.Option("--thousandths", help="It states boxes in thousandths.")] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Your agreements let these rows go to that machine.")
    ] = False,
    out: Tables = None,
    as_json: Json = False,
) -> None:
    """Evaluate the recipe's model (--set model.path=RUN/model) on a split, by data set, domain and overall."""
    from qoq_data.cli.printing import print_json, print_line
    from qoq_data.errors import UsageError
    from qoq_data.record import Split

    if split not in list(Split):
        raise UsageError(f"there is no split {split!r}: take one of {', '.join(Split)}.")
    if endpoint is None and (endpoint_model or thousandths or allow_remote):
        raise UsageError("--endpoint-model, --thousandths and --allow-remote belong to an --endpoint.")
    if before is not None and (endpoint is not None or per_class is not None):
        raise UsageError("--before goes with neither --endpoint nor --per-class.")
    chosen = resolved(recipe, settings)
    if endpoint is None:
        found = _of_model(chosen, Split(split), most, per_class, before)
    else:
        name = endpoint_model or chosen.model.path
        found = _of_endpoint(
            chosen, Split(split), most, per_class, url=endpoint, name=name, thousandths=thousandths, remote=allow_remote
        )
    if found is None:
        return
    _write(out, "evaluation", *found)
    if as_json:
        print_json(found[1])
    else:
        print_line(found[0].rstrip("\n"))


def compare_runs(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs; all against the first.")],
    best_by: Annotated[str, typer.Option(help="The figure on validation that says which step was best.")] = "macro_f1",
    out: Tables = None,
    as_json: Json = False,
) -> None:
    """Set runs side by side: what differs in what they were, and in what came of them, patient by patient."""
    from qoq_data.cli.printing import print_json, print_line
    from qoq_train.compare import compare, comparison_json, comparison_markdown

    found = compare(runs, best_by=best_by)
    text, tree = comparison_markdown(found), comparison_json(found)
    _write(out, "comparison", text, tree)
    if as_json:
        print_json(tree)
    else:
        print_line(text.rstrip("\n"))


def report_run(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="The page to write; default: report.html in the folder.")] = None,
    samples: Annotated[int, typer.Option(min=0, max=1000, help="Completions of the first and the last step.")] = 6,
    with_restricted: Annotated[
        bool,
        typer.Option("--with-restricted-completions", help="Show them of a corpus that may not be passed on, too."),
    ] = False,
) -> None:
    """Write a run as a page with its pictures."""
    from qoq_data.cli.printing import print_line
    from qoq_train.report.page import write_report

    print_line(str(write_report(run, out=out, samples=samples, with_restricted_completions=with_restricted)))


def _of_model(
    recipe: TrainRecipe, split: Split, most: int | None, per_class: int | None, before: Path | None
) -> Told | None:
    """The recipe's own model; None on a process that has nothing to say."""
    from qoq_train.training.assembly import assemble, start_engine
    from qoq_train.training.evaluate import evaluate_outcomes
    from qoq_train.training.runs import load_model

    assembly = assemble(recipe)
    engine = start_engine(assembly)
    earlier: Sequence[Outcome] = ()
    try:
        outcomes, left_out = evaluate_outcomes(assembly, engine, split, most=most)
        if before is not None:
            load_model(assembly, before)
            assembly.load_engine(engine)
            earlier, _ = evaluate_outcomes(assembly, engine, split, most=most)
    finally:
        engine.close()
    assembly.ranks.close()
    if not assembly.ranks.is_first:
        return None
    missing = f"{len(left_out)} rows were too long for data.max_prompt_tokens and are not in it." if left_out else ""
    more = {"left_out": [one.row_id for one in left_out]}
    if before is not None:
        return _gained(recipe, earlier, outcomes, missing, more)
    whole, few = _reports(recipe, outcomes, per_class)
    return _told(whole, few, per_class, missing, more)


def _gained(
    recipe: TrainRecipe, before: Sequence[Outcome], after: Sequence[Outcome], missing: str, more: Mapping[str, Any]
) -> Told:
    from dataclasses import asdict

    from qoq_train.evaluation.metrics import differences, report
    from qoq_train.evaluation.text import gain_table, report_json

    first, second = (report(outcomes, seed=recipe.seed) for outcomes in (before, after))
    found = differences(before, after, seed=recipe.seed)
    gained = {name: asdict(one) for name, one in found.overall.items()}
    tree = report_json(second) | {"before": report_json(first), "after_less_before": gained} | dict(more)
    return gain_table(first, second, found) + _LEGEND + (f"\n{missing}\n" if missing else ""), tree


def _of_endpoint(
    recipe: TrainRecipe,
    split: Split,
    most: int | None,
    per_class: int | None,
    *,
    url: str,
    name: str,
    thousandths: bool,
    remote: bool,
) -> Told:
    """A model behind an endpoint; its key is the variable ``OPENAI_API_KEY``."""
    from qoq_data.cli.printing import row_progress
    from qoq_train.coordinates import Convention
    from qoq_train.endpoint.client import Destination, Endpoint, EndpointChoice, read_key
    from qoq_train.endpoint.evaluation import evaluate_endpoint

    choice = EndpointChoice(name, recipe.rollout.max_tokens, recipe.run.evaluation_temperature, seed=recipe.seed)
    asked = Endpoint(Destination.of_url(url), choice, read_key())
    with row_progress("rows") as bar:
        found = evaluate_endpoint(
            recipe,
            asked,
            split,
            allow_remote=remote,
            convention=Convention.THOUSANDTHS if thousandths else Convention.PIXELS,
            most=most,
            replicates=0,
            progress=lambda done, total: bar(done, total, False),  # noqa: FBT003
        )
    whole, few = _reports(recipe, found.outcomes, per_class)
    return _told(whole, few, per_class, found.sentence(), found.told())


def _reports(recipe: TrainRecipe, outcomes: Sequence[Outcome], per_class: int | None) -> tuple[Report, Report | None]:
    """Of all outcomes, and of those that are at most so many a class."""
    from qoq_train.evaluation.metrics import report
    from qoq_train.evaluation.subset import few_per_class

    whole = report(outcomes, seed=recipe.seed)
    if per_class is None:
        return whole, None
    return whole, report(few_per_class(outcomes, per_class, seed=recipe.seed), seed=recipe.seed)


def _told(whole: Report, few: Report | None, per_class: int | None, missing: str, more: Mapping[str, Any]) -> Told:
    from qoq_train.evaluation.text import report_json, report_table

    tree, text = report_json(whole) | dict(more), report_table(whole)
    if few is not None:
        tree["per_class"] = {"limit": per_class, **report_json(few)}
        text += f"\nOf these, at most {per_class} a class, a seeded subset:\n\n{report_table(few)}"
    return text + _LEGEND + (f"\n{missing.strip()}\n" if missing else ""), tree


def _write(folder: Path | None, name: str, text: str, tree: Mapping[str, Any]) -> None:
    import json

    from qoq_data.formats.new_file import storage_error

    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
        (folder / f"{name}.json").write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise storage_error(error, folder.name) from error
