"""The application that the command groups add themselves to."""

from __future__ import annotations

from typing import Annotated

import typer

from qoq_train.cli import evaluate_commands, publish_commands, recipe_commands, serve_commands, train_commands

app = typer.Typer(
    name="qoq-train",
    help="Train a vision-language model on a QoQ corpus by DRPO, and evaluate it by domain.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from qoq_data import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[  # noqa: ARG001 - typer calls _print_version with it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    return


for group in (recipe_commands, train_commands, evaluate_commands, serve_commands, publish_commands):
    group.register(app)
