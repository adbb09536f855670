"""The recipe: everything that decides what a corpus holds, validated whole before any work.

A recipe is YAML. Unknown keys name the nearest known one, and all problems are reported at once. Where the raw files
lie is not part of it: that is ``--raw`` or ``QOQ_RAW``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from qoq_data.errors import RecipeError, UnknownNameError
from qoq_data.recipe_text import Section, key_lines, nearest, problem_text, recipe_file, recipe_tree, scalar
from qoq_data.source import Source, SourceOptions


class SplitRecipe(Section):
    validation: float = Field(0.1, ge=0, lt=0.5, description="share of groups without an official split")
    test: float = Field(0.1, ge=0, lt=0.5, description="share of groups without an official split")


class PaperRecipe(Section):
    layout: Literal["3x4", "column", "single"] = Field(
        "3x4", description="3x4 over a rhythm strip of lead II, one row a lead, or one lead in a small picture"
    )
    pixels_per_mm: float = Field(4.0, ge=0.5, le=20, description="of 3x4 and column")
    lead: str = Field("II", description="of single")
    side_px: int = Field(112, ge=16, le=4096, description="of single, which is square")


class SignalRecipe(Section):
    resample_hz: float | None = Field(None, gt=0, le=4000, description="null keeps the native rate")
    window_s: float | None = Field(None, gt=0, le=3600, description="first seconds; shorter ones are padded with gaps")
    leads: tuple[str, ...] | None = Field(
        None, min_length=1, description="by name; null keeps all as recorded; a missing limb lead is computed"
    )
    checksum_mismatch: Literal["skip", "finding"] = Field("skip", description="when samples disagree with the header")
    paper: PaperRecipe | None = Field(
        None, description="e.g. {layout: 3x4, pixels_per_mm: 4} adds an image; layouts: 3x4, column, single"
    )


class ImageRecipe(Section):
    max_pixels: int = Field(524_288, ge=1024, le=100_000_000, description="larger pictures are scaled down")
    longest_side: int = Field(1024, ge=32, le=20_000, description="in pixels")
    encoding: Literal["jpeg", "png"] = Field("jpeg", description="of pictures whose pixels changed")
    quality: int = Field(95, ge=50, le=100, description="of JPEG")


class BoxRecipe(Section):
    per: Literal["component", "mask", "union"] = Field(
        "component", description="a box a connected component, a box a mask file, or one box round all"
    )
    min_area_px: int = Field(0, ge=0, description="smaller components give no box; 0 keeps all")
    min_area_mm2: float | None = Field(None, gt=0, description="the same where the spacing is known")


class ShardRecipe(Section):
    rows: int | None = Field(None, ge=1, le=100_000, description="target; null is the source's own")
    compression: Literal["lz4", "zstd", "none"] = Field("lz4", description="of the parquet pages")


class SourceRecipe(Section):
    name: str = Field(description="a source of 'qoq-data list'")
    tasks: tuple[str, ...] | None = Field(None, min_length=1, description="null asks the source's default tasks")
    skip_limit: float | None = Field(None, ge=0, le=1, description="share that may be skipped; null: the source's own")
    options: dict[str, Any] = Field(default_factory=dict, description="keys of the source's own")


class Recipe(Section):
    """A corpus: its sources and how their items become rows."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="of the corpus")
    sources: tuple[SourceRecipe, ...] = Field(min_length=1)
    rows_per_record: Literal["one", "all"] = Field("one", description="one task drawn a record, or all it can answer")
    sample: float = Field(
        1.0, strict=True, gt=0, le=1, description="seeded share of patients, the same ones every time"
    )
    seed: int = Field(0, strict=True, ge=0, lt=1 << 63, description="of every draw")
    patient_key: str = Field(
        "qoq", min_length=1, max_length=64, description="key of the hash that replaces patient ids"
    )
    near_duplicates: bool = Field(
        default=True, strict=True, description="keep near-duplicate pictures on one side, also turned or flipped"
    )
    label_conflict: Literal["skip", "keep"] = Field("skip", description="when the same content has two answers")
    split: SplitRecipe = SplitRecipe()
    signals: SignalRecipe = SignalRecipe()
    images: ImageRecipe = ImageRecipe()
    boxes: BoxRecipe = BoxRecipe()
    masks: bool = Field(default=False, strict=True, description="store the label mask of each image as PNG")
    shards: ShardRecipe = ShardRecipe()


def parse_recipe(text: str, where: str, sources: Mapping[str, Source], overrides: Mapping[str, Any] = {}) -> Recipe:
    """The recipe of a YAML text, checked against the sources that exist.

    ``overrides`` are dotted keys that win over the text. Raises ``RecipeError`` with every problem found.
    """
    tree = recipe_tree(text, where, overrides)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        unfit = any(detail["loc"][:1] == ("sources",) and len(detail["loc"]) > 1 for detail in details)
        problems = [
            problem_text(detail, Recipe)
            for detail in details
            if not (unfit and detail["loc"] == ("sources",) and detail["type"] == "too_short")
        ]
        problems += [problem for entry in _sound_entries(tree) for problem in _source_problems(entry, sources)]
        raise RecipeError(where, problems) from error
    problems = [problem for entry in recipe.sources for problem in _source_problems(entry, sources)]
    names = [entry.name for entry in recipe.sources]
    problems += [f"sources: {name} stands twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if recipe.split.validation + recipe.split.test >= 1:
        problems.append("split: nothing is left to train on")
    if problems:
        raise RecipeError(where, problems)
    return recipe


def _sound_entries(tree: Mapping[str, Any]) -> Iterator[SourceRecipe]:
    """Those entries that can be looked at although something else in the recipe is wrong."""
    entries = tree.get("sources")
    for entry in entries if isinstance(entries, list) else ():
        with contextlib.suppress(ValidationError):
            yield SourceRecipe.model_validate(entry)


def source_options(entry: SourceRecipe, source: Source) -> SourceOptions:
    return source.options_model.model_validate(entry.options)


def default_recipe(source: Source) -> Recipe:
    """The recipe of a source alone, all keys at their defaults."""
    options = source.options_model().model_dump(mode="json")
    entry = SourceRecipe(name=source.name, options=options)
    return Recipe(name=source.name, sources=(entry,))


def combined_recipe(names: Sequence[str], sources: Mapping[str, Source]) -> str:
    """Text of a recipe of several sources, all keys at their defaults."""
    entries = tuple(default_recipe(sources[name]).sources[0] for name in names)
    return recipe_text(Recipe(name="-".join(names), sources=entries), sources)


def find_recipe(name: str, sources: Mapping[str, Source]) -> tuple[str, str]:
    """Text of a recipe and where it stands: a file's path, a source's name, or a recipe that ships with the package."""
    if (file := recipe_file(name)) is not None:
        return file
    if name in sources:
        return recipe_text(default_recipe(sources[name]), sources), f"the recipe of {name}"
    for folder in _recipe_folders():
        if (folder / f"{name}.yaml").is_file():
            return (folder / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml"
    shipped = [path.stem for folder in _recipe_folders() for path in sorted(folder.glob("*.yaml"))]
    raise UnknownNameError(f"There is no source or recipe {name!r}.{nearest(name, [*sources, *shipped])}")


def _recipe_folders() -> list[Path]:
    package = Path(__file__).parent
    return [folder for folder in (package / "recipes", package.parent / "recipes") if folder.is_dir()]


def recipe_text(recipe: Recipe, sources: Mapping[str, Source]) -> str:
    """The recipe as YAML for a person to edit: every key, each with what it means."""
    return "\n".join(_lines(recipe, sources)) + "\n"


def _lines(recipe: Recipe, sources: Mapping[str, Source]) -> Iterator[str]:
    for name in Recipe.model_fields:
        if name != "sources":
            yield from key_lines(recipe, name, 0)
            continue
        yield "sources:"
        for entry in recipe.sources:
            yield from _source_lines(entry, sources)


def _source_lines(entry: SourceRecipe, sources: Mapping[str, Source]) -> Iterator[str]:
    source = sources[entry.name]
    fields = SourceRecipe.model_fields
    yield f"  - name: {entry.name}"
    names = ", ".join(task.name for task in source.spec.tasks)
    yield f"    tasks: {scalar(entry.tasks)}  # {fields['tasks'].description}; there are: {names}"
    yield f"    skip_limit: {scalar(entry.skip_limit)}  # {fields['skip_limit'].description}"
    options = source.options_model.model_fields
    if options:
        yield "    options:"
        for name, info in options.items():
            comment = f"  # {info.description}" if info.description else ""
            yield f"      {name}: {scalar(entry.options.get(name, info.get_default()))}{comment}"


def _source_problems(entry: SourceRecipe, sources: Mapping[str, Source]) -> list[str]:
    source = sources.get(entry.name)
    if source is None:
        return [f"sources: there is no source {entry.name!r}.{nearest(entry.name, list(sources))}"]
    known = [task.name for task in source.spec.tasks]
    problems = [
        f"sources.{entry.name}.tasks: there is no task {task!r}.{nearest(task, known)}"
        for task in entry.tasks or ()
        if task not in known
    ]
    try:
        source_options(entry, source)
    except ValidationError as error:
        problems += [
            f"sources.{entry.name}.options.{problem_text(detail, source.options_model)}"
            for detail in error.errors(include_url=False, include_input=False)
        ]
    return problems
