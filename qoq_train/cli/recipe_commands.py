"""``recipe`` and ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qoq_train.cli.arguments import Json, Recipe, Set, resolved


def register(app: typer.Typer) -> None:
    app.command("recipe")(recipe)
    app.command("doctor")(doctor)


def recipe(
    name: Annotated[str | None, typer.Argument(help="A shipped recipe or a file; none lists all.")] = None,
    settings: Set = [],  # noqa: B006  (typer copies it)
    as_json: Json = False,
) -> None:
    """List the recipes that ship, or print one with every key, to be edited."""
    from dataclasses import asdict

    from qoq_data.cli.printing import print_json, print_line, print_table
    from qoq_train.recipe import train_recipe_text
    from qoq_train.recipe_files import shipped_recipes

    if name is not None:
        chosen = resolved(name, settings)
        if as_json:
            print_json(chosen.model_dump(mode="json"))
        else:
            print_line(train_recipe_text(chosen).rstrip("\n"))
        return
    found = shipped_recipes()
    if as_json:
        print_json([asdict(one) for one in found])
        return
    print_table(["recipe", "builds on", "what it is"], [[one.name, one.base, one.description] for one in found])


def doctor(
    recipe: Recipe,
    settings: Set = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="Folder that the run is to be written to.")] = None,
    devices: Annotated[int | None, typer.Option(min=1, max=4096, help="Judge by so many GPUs elsewhere.")] = None,
    device_gib: Annotated[float, typer.Option(min=1, max=1024, help="Memory of each of --devices, in GiB.")] = 79.0,
    as_json: Json = False,
) -> None:
    """Say what of a run will fail, before anything starts: device, versions, model, corpus, memory, disk, licence."""
    from huggingface_hub import HfApi

    from qoq_data.cli.printing import print_json, print_line, print_table
    from qoq_train.doctor.diagnosis import diagnose
    from qoq_train.doctor.memory import assumed_machine
    from qoq_train.doctor.text import diagnosis_json, memory_table

    machine = None if devices is None else assumed_machine(devices, device_gib)
    found = diagnose(resolved(recipe, settings), machine, out=out, cards=HfApi())
    if as_json:
        print_json(diagnosis_json(found))
    else:
        rows = [[one.check, one.verdict, one.what, one.key] for one in found.findings]
        print_table(["check", "", "what", "key"], rows)
        columns, table = memory_table(found)
        if table:
            print_table(columns, table, "\nGiB of one device, by arithmetic")
        print_line("\nNothing was found that will fail." if found.is_healthy else "\nIt will fail: see above.")
    if not found.is_healthy:
        raise typer.Exit(1)
