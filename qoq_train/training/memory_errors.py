"""Out of memory, told as what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import torch

from qoq_train.training.optimiser import TrainingError

Phase = Literal["start", "generate", "score", "update", "weights", "evaluate", "supervised"]
_LESS: Final[dict[Phase, str]] = {
    "start": "rollout.gpu_memory, or give the model to more processes",
    "generate": "rollout.gpu_memory, rollout.max_tokens or data.max_pixels",
    "score": "optimiser.micro_tokens or data.max_pixels, or rollout.gpu_memory where the engine keeps too much",
    "update": "optimiser.micro_tokens or data.max_pixels; set model.gradient_checkpointing, train by model.lora, "
    "or give the model to more processes",
    "weights": "rollout.gpu_memory; it is the engine that takes the weights over",
    "evaluate": "rollout.gpu_memory, rollout.max_tokens or data.max_pixels",
    "supervised": "supervised.batch or data.max_pixels; set model.gradient_checkpointing, or train by model.lora",
}
_OF_THE_HOST: Final = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")
_Device: Final = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)


@contextmanager
def memory_told(phase: Phase, what: str) -> Iterator[None]:
    """Inside, running out of memory is a ``TrainingError`` that says what to lower; other errors pass.

    ``what`` names the step.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        where = _where(error)
        if where is None:
            raise
        text = str(error).strip().split("\n", 1)[0]
        raise TrainingError(
            f"{what}: out of memory on the {where} ({phase}). Lower {_LESS[phase]}. It said: {text}"
        ) from error


def _where(error: BaseException) -> str | None:
    if isinstance(error, _Device):
        return "GPU"
    if isinstance(error, MemoryError) or any(text in str(error) for text in _OF_THE_HOST):
        return "host"
    return None
