"""``push``."""

from __future__ import annotations

from typing import Annotated

import typer

from qoq_train.cli.arguments import Json, RunFolder


def register(app: typer.Typer) -> None:
    app.command("push")(push)


def push(
    run: RunFolder,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Make it public where there is none; else private.")] = False,
    vouch: Annotated[
        bool, typer.Option("--vouch-private", help="You vouch that the terms cover all who can read the private repo.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send a run's model and its card to the Hub; refused (exit code 3) where its model or its corpus forbids it."""
    from dataclasses import asdict

    from huggingface_hub import HfApi

    from qoq_data.cli.printing import print_json, print_line
    from qoq_train.publish.push import push_run

    done = push_run(run, repository, HfApi(), public=public, vouched=vouch)
    if as_json:
        print_json(asdict(done))
        return
    print_line(
        f"{len(done.files)} files stand in {done.repository}, which is {'private' if done.private else 'public'}."
    )
    if done.left:
        print_line(f"Not sent: {', '.join(done.left)}.")
