"""The command line ``qoq-train``: parse, call, print; decisions are made elsewhere.

Heavy imports stand inside the commands, so that ``qoq-train --help`` answers at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: runs the command and turns the package's errors into one paragraph and an exit code."""
    from qoq_data.errors import QoQError
    from qoq_train.cli.app import app

    try:
        app(standalone_mode=True)
    except QoQError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == 130:  # typer's, for ctrl-C
            sys.stderr.write("stopped. Checkpoints are kept: run the same command again to go on from the last one.\n")
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
