"""The policy's weights whole: as a rollout engine or a file wants them, and back into the policy, however it is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qoq_data.errors import UsageError
from qoq_train.models.loading import transformers_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn


def state_for_engine(model: nn.Module, dtype: torch.dtype | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight of the policy by name, adapters merged into copies, the training weights untouched.

    A tied head comes under its own name too: an engine that is not given ``lm_head.weight`` keeps the old head and
    says nothing. Sharded weights are gathered one at a time, so all ranks must go through the iterator together. The
    tensors share memory with the policy where nothing changes them: take them over before the next update. ``dtype``
    is what floating-point weights are rounded to, None leaves theirs.

    Raises:
        UsageError: adapters other than LoRA.
    """
    for name, value in _merged_state(model):
        yield name, value if dtype is None or not value.is_floating_point() else value.to(dtype)


def _merged_state(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    inner = transformers_model(model)
    adapted = {name: module for name, module in inner.named_modules() if hasattr(module, "base_layer")}
    for name, module in adapted.items():
        if not hasattr(module, "get_delta_weight"):
            raise UsageError(f"the adapter at {name} is no LoRA layer, and cannot be merged for the engine")
    for name, value in inner.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        if owner.endswith(".base_layer"):
            layer_name = owner.removesuffix(".base_layer")
            weight = whole(value)
            yield f"{layer_name}.{leaf}", _merged(weight, adapted[layer_name]) if leaf == "weight" else weight
        elif not any(name.startswith(f"{layer}.") for layer in _owners(name, adapted)):
            yield name, whole(value)


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor without gradient, gathered from all ranks where it is cut over them: all must ask for it together."""
    full = getattr(value, "full_tensor", None)
    return (full() if full is not None else value).detach()


def check_weights(model: nn.Module, given: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that ``take_weights`` could not put into the policy.

    Raises:
        UsageError: a weight is missing, or has another shape.
    """
    for name, value in _settable(model):
        if name not in given or given[name].shape != value.shape:
            raise UsageError(f"the saved weights are not this model's: {name} is missing or of another shape.")


def take_weights(model: nn.Module, given: Mapping[str, torch.Tensor] | None) -> None:
    """Put weights that ``state_for_engine`` named back into the policy; what adapters stand on is left as it is.

    Where the policy is cut over ranks, all call it together: the first has the weights, the others give None.
    """
    with torch.no_grad():
        for name, value in _settable(model):
            value.copy_(_cut_like(value, None if given is None else given[name]))


def _settable(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in transformers_model(model).state_dict().items():
        if ".lora_" not in name and ".base_layer." not in name:
            yield name, value


def _cut_like(value: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor:
    shape, device, dtype = value.shape, value.device, value.dtype
    placed = torch.empty(shape, dtype=dtype, device=device) if given is None else given.to(device, dtype)
    if not hasattr(value, "full_tensor"):
        return placed
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(value, DTensor)  # noqa: S101  (for the type checker)
    return distribute_tensor(placed, value.device_mesh, value.placements)


def engine_weight_names(config: Any) -> frozenset[str]:
    """The names of all weights of a model of this config, the tied head included; no memory is taken for them."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    auto: Any = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    with torch.device("meta"):
        return frozenset(auto.from_config(config).state_dict())


def check_complete(names: set[str], expected: frozenset[str]) -> None:
    """Refuse a set of weights that would leave part of an engine stale.

    Raises:
        ValueError: a name is missing or not the model's.
    """
    missing, unknown = sorted(expected - names), sorted(names - expected)
    if missing or unknown:
        told = [f"{len(missing)} missing, the first {missing[0]}"] if missing else []
        told += [f"{len(unknown)} unknown, the first {unknown[0]}"] if unknown else []
        raise ValueError(f"these are not all weights of the engine's model: {'; '.join(told)}")


def _owners(name: str, adapted: dict[str, Any]) -> list[str]:
    parts = name.split(".")
    return [prefix for end in range(1, len(parts)) if (prefix := ".".join(parts[:end])) in adapted]


def _merged(weight: torch.Tensor, layer: Any) -> torch.Tensor:
    """The weight with its active adapters added, in the precision of the sum and then in the weight's."""
    if layer.merged:
        return weight
    total = weight
    with torch.no_grad():
        for adapter in layer.active_adapters:
            if adapter in layer.lora_A:
                total = total + whole(layer.get_delta_weight(adapter)).to(weight.device)
    return total.to(weight.dtype)
