"""Recipes as files: those that ship, what each says of itself, and how one builds on another.

A recipe may begin with ``base: NAME``, the name of a recipe that ships, and then says only what differs. Below a
section (``method``, ``rollout``, ...) a key replaces that of the base; what a key holds is replaced whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from qoq_data.errors import RecipeError, UnknownNameError
from qoq_data.recipe_text import nearest, recipe_file, recipe_tree
from qoq_train.recipe import TrainRecipe, parse_train_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BASE: Final = "base"


@dataclass(frozen=True, slots=True)
class ShippedRecipe:
    """A recipe that ships: its name, the first line of its file, and the recipe it builds on (blank for none)."""

    name: str
    description: str
    base: str


def read_train_recipe(name: str, overrides: Mapping[str, Any] = {}) -> TrainRecipe:
    """The recipe of a file or of a shipped name, with what it builds on; ``overrides`` are dotted keys that win.

    Raises ``UnknownNameError`` where there is none, and ``RecipeError`` with the problems of the whole.
    """
    text, where = find_train_recipe(name)
    whole = _with_bases(recipe_tree(text, where, {}), where)
    return parse_train_recipe(text if whole is None else yaml.safe_dump(whole), where, overrides)


def find_train_recipe(name: str) -> tuple[str, str]:
    """Text of a recipe and where it stands: a file's path, or a recipe that ships with the package."""
    if (file := recipe_file(name)) is not None:
        return file
    shipped = {path.stem: path for path in _files()}
    if name not in shipped:
        raise UnknownNameError(f"There is no training recipe {name!r}.{nearest(name, list(shipped))}")
    return shipped[name].read_text(encoding="utf-8"), f"{name}.yaml"


def shipped_recipes() -> list[ShippedRecipe]:
    """Every recipe that ships, those that stand alone first, then by name."""
    found = []
    for path in _files():
        text = path.read_text(encoding="utf-8")
        base = recipe_tree(text, path.name, {}).get(BASE, "")
        found.append(ShippedRecipe(path.stem, text.partition("\n")[0].removeprefix("#").strip(), str(base)))
    return sorted(found, key=lambda one: (bool(one.base), one.name))


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and values of texts ``key=value``, each value read as YAML.

    Raises ``RecipeError`` naming every text that is none.
    """
    overrides: dict[str, Any] = {}
    problems = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            problems.append(f"--set {setting!r} is not key=value.")
            continue
        try:
            overrides[key.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            problems.append(f"--set {setting!r}: the value is not YAML ({getattr(error, 'problem', None) or error}).")
    if problems:
        raise RecipeError("The command line", problems)
    return overrides


def _with_bases(tree: dict[str, Any], where: str) -> dict[str, Any] | None:
    """The tree laid over its base, and that over its own; None where there is no base."""
    if BASE not in tree:
        return None
    seen: list[str] = []
    while BASE in tree:
        base = tree.pop(BASE)
        known = [path.stem for path in _files()]
        if not isinstance(base, str) or base not in known:
            raise RecipeError(where, [f"base: {base!r} is no recipe that ships; those are {', '.join(known)}"])
        if base in seen:
            raise RecipeError(where, [f"base: {' builds on '.join([*seen, base])}, which has no beginning"])
        seen.append(base)
        text, below = find_train_recipe(base)
        tree = _laid_over(recipe_tree(text, below, {}), tree)
    return tree


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = under | value if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _files() -> list[Path]:
    package = Path(__file__).parent
    folders = (package / "recipes", package.parent / "recipes" / "train")
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.yaml"))]
