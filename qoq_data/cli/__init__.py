"""The command line ``qoq-data``: parse, call, print; decisions are made elsewhere.

Heavy imports stand inside the commands, so that ``qoq-data --help`` answers at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: runs the command and turns the package's errors into one paragraph and an exit code."""
    from qoq_data.cli.app import app
    from qoq_data.errors import QoQError

    try:
        app(standalone_mode=True)
    except QoQError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == 130:  # typer's, for ctrl-C
            sys.stderr.write("stopped. What was finished is kept: run the same command again to go on.\n")
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
