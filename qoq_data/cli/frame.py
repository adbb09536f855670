"""What both command lines are made of: an application of command groups, and how one ends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from qoq_data.errors import QoQError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Group(Protocol):
    """A module of commands."""

    def register(self, app: typer.Typer) -> None: ...


def make_app(name: str, about: str, groups: Iterable[Group]) -> typer.Typer:
    """The application ``name`` with the commands of its groups, in their order, and ``--version``."""
    app = typer.Typer(
        name=name,
        help=about,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_common)
    for group in groups:
        group.register(app)
    return app


def run(app: Callable[..., object], stopped: str) -> None:
    """Run an application: an error of the package is one paragraph and its exit code, and ctrl-C says ``stopped``."""
    try:
        app(standalone_mode=True)
    except QoQError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == 130:  # typer's, for ctrl-C
            sys.stderr.write(f"stopped. {stopped}\n")
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _print_version(wanted: bool) -> None:
    if wanted:
        from qoq_data import __version__

        typer.echo(__version__)
        raise typer.Exit


def _common(
    version: Annotated[  # noqa: ARG001 - typer calls _print_version with it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    return
