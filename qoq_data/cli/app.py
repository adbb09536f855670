"""The application that the command groups add themselves to."""

from __future__ import annotations

from typing import Annotated

import typer

from qoq_data.cli import build_commands, corpus_commands, source_commands

app = typer.Typer(
    name="qoq-data",
    help="Clinical sources, as their publishers ship them, into one question-answer corpus.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
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


for group in (source_commands, build_commands, corpus_commands):
    group.register(app)
