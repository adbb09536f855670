"""The command line ``qoq-train``: parse, call, print; decisions are made elsewhere.

Heavy imports stand inside the commands, so that ``qoq-train --help`` answers at once.
"""

from __future__ import annotations


def main() -> None:
    """Entry point: runs the command and turns the package's errors into one paragraph and an exit code."""
    from qoq_data.cli.frame import run
    from qoq_train.cli.app import app

    run(app, "Checkpoints are kept: run the same command again to go on from the last one.")
