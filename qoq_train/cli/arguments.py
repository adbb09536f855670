"""Arguments that several commands take, and a recipe out of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoq_train.recipe import TrainRecipe

Recipe = Annotated[str, typer.Argument(help="A recipe's file, or the name of one that ships: see 'recipe'.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Out = Annotated[Path, typer.Option(help="Folder of the run; a run that is there already goes on.")]
Set = Annotated[list[str], typer.Option("--set", help="key=value over the recipe, e.g. method.advantage=grpo.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def resolved(recipe: str, settings: Sequence[str]) -> TrainRecipe:
    """The recipe with what it builds on and what was set over it; raises ``RecipeError`` and ``UnknownNameError``."""
    from qoq_train.recipe_files import parse_settings, read_train_recipe

    return read_train_recipe(recipe, parse_settings(settings))
