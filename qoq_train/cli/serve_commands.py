"""``serve``."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)


def serve(
    model: Annotated[str, typer.Argument(help="The trainer's model: a folder or a hub name.")],
    host: Annotated[str, typer.Option(help="Any but the loopback address needs QOQ_SERVER_TOKEN.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes one that is free.")] = 8600,
    dtype: Annotated[Literal["bfloat16", "float32"], typer.Option(help="Precision of the engine.")] = "bfloat16",
    min_pixels: Annotated[int | None, typer.Option(min=784, help="As data.min_pixels of the trainer's recipe.")] = None,
    max_pixels: Annotated[int | None, typer.Option(min=784, help="As data.max_pixels of the trainer's recipe.")] = None,
    max_model_tokens: Annotated[int, typer.Option(min=32, help="Of a prompt and its completion.")] = 8192,
    max_sequences: Annotated[int, typer.Option(min=1, help="Completed at one time.")] = 256,
    pictures: Annotated[int, typer.Option(min=1, help="At most in a prompt.")] = 16,
    gpu_memory: Annotated[float, typer.Option(min=0.01, max=1, help="Share of a GPU that the engine may take.")] = 0.9,
) -> None:
    """Serve rollouts by vLLM to trainers elsewhere, until it is told to stop."""
    from qoq_data.cli.printing import print_line
    from qoq_train.models.loading import ModelChoice
    from qoq_train.rollout.serve import ServerAddress
    from qoq_train.rollout.serve import serve as serve_engine
    from qoq_train.rollout.vllm_engine import VllmChoice

    def say(line: str) -> None:
        print_line(line)
        sys.stdout.flush()  # who started it waits for the address, on a pipe too

    chosen = ModelChoice(model, dtype, min_pixels=min_pixels, max_pixels=max_pixels)
    engine = VllmChoice(max_model_tokens, max_sequences, pictures, gpu_memory)
    serve_engine(chosen, engine, ServerAddress(host, port), say)
