"""Rollout by transformers from a copy of the policy: where the policy's own weights are cut over several processes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch

from qoq_train.models.loading import Policy, load_policy
from qoq_train.models.weights import check_complete
from qoq_train.rollout import RolloutError
from qoq_train.rollout.transformers_engine import TransformersEngine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qoq_train.rollout import Completion, Prompt, Sampling


class TransformersCopy(TransformersEngine):
    """A ``RolloutEngine`` with a whole model of its own, loaded from the policy's path and given the policy's weights.

    It takes the memory of a whole model on each process, and draws what ``TransformersEngine`` would.
    """

    def __init__(self, policy: Policy, dtype: torch.dtype) -> None:
        named: Literal["float32", "bfloat16"] = "float32" if dtype == torch.float32 else "bfloat16"
        plain = replace(policy.choice, dtype=named, lora=None, gradient_checkpointing=False, freeze_vision=False)
        copy = load_policy(plain)
        copy.model.requires_grad_(False).to(next(policy.model.parameters()).device)  # noqa: FBT003
        super().__init__(copy)
        self._has_weights = False

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """As ``RolloutEngine``; raises ``RolloutError`` before the first ``load_weights``."""
        if not self._has_weights:
            raise RolloutError("the engine has not been given the policy's weights yet; call load_weights first")
        return super().generate(prompts, sampling)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copy all weights.

        Raises:
            ValueError: a weight is missing or unknown.
        """
        self._has_weights = False
        own = self._policy.model.state_dict()
        taken = set()
        for name, tensor in weights:
            check_complete({name} | set(own), frozenset(own))
            own[name].copy_(tensor)
            taken.add(name)
        check_complete(taken, frozenset(own))
        self._has_weights = True
