"""``qoq-train``: parse, call, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from qoq_data.errors import QoQError, UsageError

app = typer.Typer(
    name="qoq-train",
    help="Train a vision-language model on a QoQ corpus by DRPO, and evaluate it by domain.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Recipe = Annotated[str, typer.Argument(help="A recipe's file, or the name of one that ships: see 'recipe'.")]
Out = Annotated[Path, typer.Option(help="Folder of the run; a run that is there already goes on.")]
Set = Annotated[list[str], typer.Option("--set", help="key=value over the recipe, e.g. method.advantage=grpo.")]


@app.command()
def drpo(recipe: Recipe, out: Out, settings: Set = []) -> None:  # noqa: B006  (typer copies it)
    """Train by the recipe's method with on-policy completions, after its supervised steps where it has any."""
    from qoq_train.assembly import assemble, start_engine
    from qoq_train.run_folder import RunFolder
    from qoq_train.trainer import Trainer

    resolved, text = _resolved(recipe, settings)
    assembly = assemble(resolved)
    folder = RunFolder(out, text, assembly.corpus.manifest_sha256)
    if resolved.supervised.steps and not (out / "checkpoints").exists():
        _supervise(assembly, folder)
    elif (out / "supervised").is_dir():
        _load_weights(assembly, out / "supervised")
    engine = start_engine(assembly)
    try:
        Trainer(assembly, engine, folder, _line).run()
    finally:
        engine.close()
    _export(assembly, folder, "model")
    typer.echo(f"The model is in {out / 'model'}; every step is in {out / 'metrics.jsonl'}.")


@app.command()
def sft(recipe: Recipe, out: Out, settings: Set = []) -> None:  # noqa: B006
    """Run the recipe's supervised steps alone, which teach the format."""
    from qoq_train.assembly import assemble
    from qoq_train.run_folder import RunFolder

    resolved, text = _resolved(recipe, settings)
    if not resolved.supervised.steps:
        raise UsageError("supervised.steps of the recipe is 0: there is nothing to do.")
    assembly = assemble(resolved)
    _supervise(assembly, RunFolder(out, text, assembly.corpus.manifest_sha256))
    typer.echo(f"The model is in {out / 'supervised'}.")


@app.command("eval")
def evaluate_model(
    recipe: Recipe,
    settings: Set = [],  # noqa: B006
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    most: Annotated[int | None, typer.Option("--rows", min=1, help="At most so many rows, a seeded share.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate the recipe's model (--set model.path=RUN/model) on a split, by data set, domain and overall."""
    from qoq_data.record import Split
    from qoq_train.assembly import assemble, start_engine
    from qoq_train.evaluate import evaluate, report_json, report_table

    if split not in list(Split):
        raise UsageError(f"there is no split {split!r}: take one of {', '.join(Split)}.")
    assembly = assemble(_resolved(recipe, settings)[0])
    engine = start_engine(assembly)
    try:
        found, left_out = evaluate(assembly, engine, Split(split), most=most)
    finally:
        engine.close()
    if as_json:
        typer.echo(json.dumps(report_json(found) | {"left_out": [one.row_id for one in left_out]}))
        return
    typer.echo(report_table(found), nl=False)
    typer.echo("\nA figure, its 95 % interval by patient, and in brackets what the best constant answer reaches.")
    if left_out:
        typer.echo(f"{len(left_out)} rows were too long for data.max_prompt_tokens and are not in it.", err=True)


@app.command("recipe")
def print_recipe(name: Annotated[str, typer.Argument(help="A recipe that ships.")]) -> None:
    """Print a recipe with every key, to edit."""
    from qoq_train.recipe import find_train_recipe, parse_train_recipe, train_recipe_text

    text, where = find_train_recipe(name)
    typer.echo(train_recipe_text(parse_train_recipe(text, where)), nl=False)


@app.command("tiny-model")
def tiny_model(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    settings: Set = [],  # noqa: B006
) -> None:
    """Write a model of a million random weights whose tokenizer knows the corpus's words: what 'make demo' trains."""
    from qoq_train.assembly import CONVENTIONS
    from qoq_train.data import Corpus
    from qoq_train.models.tiny import write_tiny_model
    from qoq_train.prompts import fixed_pieces

    resolved, _ = _resolved(recipe, settings)
    pieces = fixed_pieces(Corpus(resolved.data), resolved.prompt.template, CONVENTIONS["qwen2_5_vl"])
    write_tiny_model(out, answer_pieces=pieces, seed=resolved.seed)
    typer.echo(f"{out}: {len(pieces)} pieces of text are one token each.")


def main() -> None:
    """The entry point: a user's mistake is one paragraph, and its exit code that of ``qoq_data.errors``."""
    try:
        app()
    except QoQError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def _resolved(recipe: str, settings: list[str]) -> tuple[Any, str]:
    from qoq_train.recipe import find_train_recipe, parse_train_recipe, train_recipe_text

    text, where = find_train_recipe(recipe)
    overrides = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting!r} is not key=value.")
        overrides[key] = yaml.safe_load(value)
    resolved = parse_train_recipe(text, where, overrides)
    return resolved, train_recipe_text(resolved)


def _supervise(assembly: Any, folder: Any) -> None:
    from qoq_train.sft import supervise

    def log(figures: dict[str, float]) -> None:
        folder.log("supervised", figures)
        if figures["step"] % 25 == 0:
            _line(figures)

    (folder.path / "supervised.jsonl").unlink(missing_ok=True)
    supervise(assembly, log)
    _export(assembly, folder, "supervised")


def _export(assembly: Any, folder: Any, name: str) -> None:
    """The model in transformers' layout, adapters merged, so that anything can load it."""
    from qoq_train.models.loading import transformers_model
    from qoq_train.models.weights import state_for_engine

    def write(path: Path) -> None:
        inner = transformers_model(assembly.policy.model)
        inner.save_pretrained(path, state_dict=dict(state_for_engine(assembly.policy.model)))
        (assembly.policy.processor or assembly.policy.tokenizer).save_pretrained(path)

    folder.export(name, write)


def _load_weights(assembly: Any, path: Path) -> None:
    from safetensors.torch import load_file

    from qoq_train.models.loading import transformers_model

    state: dict[str, Any] = {}
    for file in sorted(path.glob("*.safetensors")):
        state |= load_file(file)
    transformers_model(assembly.policy.model).load_state_dict(state, strict=False)


_SHOWN = ("loss", "reward", "overall/macro_f1", "overall/exact_match", "unreadable", "rollout_gap/max", "grad_norm")


def _line(figures: dict[str, float]) -> None:
    told = [f"{name} {figures[name]:.3f}" for name in _SHOWN if name in figures]
    seconds = sum(value for name, value in figures.items() if name.startswith("seconds/"))
    told += [f"{seconds:.1f} s"] if seconds else []
    typer.echo(f"step {figures['step']:.0f}  {'  '.join(told)}", err=True)


if __name__ == "__main__":
    main()
