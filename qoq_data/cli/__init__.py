"""The command line ``qoq-data``: parse, call, print; decisions are made elsewhere.

Heavy imports stand inside the commands, so that ``qoq-data --help`` answers at once.
"""

from __future__ import annotations


def main() -> None:
    """Entry point: runs the command and turns the package's errors into one paragraph and an exit code."""
    from qoq_data.cli.app import app
    from qoq_data.cli.frame import run

    run(app, "What was finished is kept: run the same command again to go on.")
