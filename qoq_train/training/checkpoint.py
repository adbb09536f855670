"""What a run needs to go on from a step: weights, optimiser, the method's memory and random states, whole.

Sharded states are gathered to the first rank, which writes them once, and are cut again where they are read: a run may
go on with another number of processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from qoq_train.advantages import DrpoState
from qoq_train.training.optimiser import trained_parameters

if TYPE_CHECKING:
    from torch import nn

    from qoq_train.training.ranks import Ranks


def gathered_state(
    step: int, model: nn.Module, optimiser: torch.optim.Optimizer, drpo: DrpoState, ranks: Ranks
) -> dict[str, Any]:
    """The state after a step, in the host's memory, of plain values and tensors; whole on the first rank alone.

    All ranks call it together.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    trained = set(trained_parameters(model))
    weights = get_model_state_dict(model, options=options)
    return {
        "step": step,
        "weights": {name: tensor for name, tensor in weights.items() if name in trained},
        "optimiser": get_optimizer_state_dict(model, optimiser, options=options),
        "drpo": drpo.to_dict(),
        "random": ranks.shares(_random_state()),
    }


def take_state(
    state: dict[str, Any] | None, model: nn.Module, optimiser: torch.optim.Optimizer, ranks: Ranks
) -> tuple[int, DrpoState]:
    """Put a state back, and give its step and the method's memory; only the first rank needs to have it.

    Random states are taken over where there are as many ranks as there were; else they stay as they are.
    """
    first = state or {}
    told: dict[str, Any] = ranks.from_first({name: first.get(name) for name in ("step", "drpo", "random")})
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=ranks.launched, strict=False)
    # The optimiser comes first: to have states to fill it makes an empty step.
    set_optimizer_state_dict(model, optimiser, first.get("optimiser", {}), options=options)
    set_model_state_dict(model, first.get("weights", {}), options=options)
    if len(told["random"]) == ranks.world:
        _set_random_state(told["random"][ranks.rank])
    return int(told["step"]), DrpoState.from_dict(told["drpo"])


def _random_state() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else states


def _set_random_state(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
