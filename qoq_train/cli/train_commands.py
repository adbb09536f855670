"""``drpo``, ``sft`` and ``tiny-model``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qoq_train.cli.arguments import Out, Recipe, Set, resolved

if TYPE_CHECKING:
    from qoq_train.recipe import TrainRecipe


def register(app: typer.Typer) -> None:
    app.command("drpo")(drpo)
    app.command("sft")(sft)
    app.command("tiny-model")(tiny_model)


def drpo(recipe: Recipe, out: Out, settings: Set = []) -> None:  # noqa: B006  (typer copies it)
    """Train by the recipe's method with on-policy completions, after its supervised steps where it has any."""
    from qoq_data.cli.printing import print_line
    from qoq_train.cli.progress import progress
    from qoq_train.recipe import train_recipe_text
    from qoq_train.training.runs import train

    chosen = resolved(recipe, settings)
    if train(chosen, train_recipe_text(chosen), out, progress(chosen.rollout.completions)):
        _keep_licence(chosen, out)
        print_line(f"The model is in {out / 'model'}; every step is in {out / 'metrics.jsonl'}.")


def sft(recipe: Recipe, out: Out, settings: Set = []) -> None:  # noqa: B006
    """Run the recipe's supervised steps alone, which teach the format."""
    from qoq_data.cli.printing import print_line
    from qoq_train.cli.progress import progress
    from qoq_train.recipe import train_recipe_text
    from qoq_train.training.runs import train_supervised

    chosen = resolved(recipe, settings)
    if train_supervised(chosen, train_recipe_text(chosen), out, progress(chosen.rollout.completions)):
        _keep_licence(chosen, out)
        print_line(f"The model is in {out / 'supervised'}.")


def tiny_model(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    settings: Set = [],  # noqa: B006
) -> None:
    """Write a model of a million random weights whose tokenizer knows the corpus's words: what 'make demo' trains."""
    from qoq_data.cli.printing import print_line
    from qoq_train.data.corpus import Corpus
    from qoq_train.models.tiny import write_tiny_model
    from qoq_train.prompts import fixed_pieces
    from qoq_train.training.assembly import CONVENTIONS

    chosen = resolved(recipe, settings)
    pieces = fixed_pieces(Corpus(chosen.data), chosen.prompt.template, CONVENTIONS["qwen2_5_vl"])
    write_tiny_model(out, answer_pieces=pieces, seed=chosen.seed)
    print_line(f"{out}: {len(pieces)} pieces of text are one token each.")


def _keep_licence(recipe: TrainRecipe, out: Path) -> None:
    """A push asks for the base model's licence, also when the model is no longer here."""
    from huggingface_hub import HfApi

    from qoq_train.publish.terms import record_model_licence

    record_model_licence(out, recipe.model.path, HfApi())
