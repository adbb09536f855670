"""AdamW over what a policy trains, and its learning rate by step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch

from qoq_data.errors import QoQError
from qoq_train.models.weights import whole

if TYPE_CHECKING:
    from torch import nn

Schedule = Literal["constant", "linear"]


class TrainingError(QoQError):
    """Training cannot go on."""


class NotFiniteError(TrainingError):
    """A loss or a gradient is not finite."""


def trained_parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that have gradients, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def make_optimiser(
    model: nn.Module, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW; vectors (norms and biases) do not decay."""
    parameters = list(trained_parameters(model).values())
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, betas=betas)


def learning_rate_share(step: int, warmup_steps: int, steps: int, schedule: Schedule) -> float:
    """The share of the full learning rate at a step, from 0 on: a linear rise, then constant or down to a tenth."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    return 1.0 - 0.9 * (step - warmup_steps) / max(1, steps - warmup_steps)


def update(
    model: nn.Module, optimiser: torch.optim.Optimizer, learning_rate: float, max_grad_norm: float, what: str
) -> float:
    """One step along the gradients that are there, clipped to a norm; gives the norm before, and clears them.

    The norm is that of the whole gradient, also where it is cut over ranks, which then call it together. Raises
    ``NotFiniteError`` and changes no weight where a gradient is not finite.
    """
    norm = float(whole(torch.nn.utils.clip_grad_norm_(trained_parameters(model).values(), max_grad_norm)))
    if not math.isfinite(norm):
        optimiser.zero_grad(set_to_none=True)
        raise NotFiniteError(f"{what}: the gradient is not finite. Lower the learning rate, or train in float32.")
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return norm
