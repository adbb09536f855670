"""Rollout: completions of the current policy, by vLLM in the process, by a vLLM server, or by transformers.

An engine is given prompts as token ids with one image token a picture, and gives back token ids and their
log-probabilities; text is made from ids once, for the reward, and is never turned back into ids.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from PIL import Image

from qoq_data.errors import QoQError

if TYPE_CHECKING:
    import torch

CHUNK_BYTES: Final = 32 << 20
"""Weights that are handed over at one time; a single larger one goes alone."""


class RolloutError(QoQError):
    """The engine did not do what was asked, and what it would say from here on cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a question is to a model: token ids with one image token a picture, and the pictures in their order.

    ``pictures`` have the size that the model's processor keeps as it is, so that no engine resizes them.
    """

    row_id: str
    token_ids: tuple[int, ...]
    pictures: tuple[Image.Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn; ``temperature`` 0 takes the likeliest token. ``seed`` decides all draws of a call."""

    completions: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """Token ids as drawn, the token that ended it included, and the log-probability of each as it was drawn.

    That is: after temperature, with the tokens that are never drawn left out, and shared out over the nucleus where
    ``top_p`` is below 1; then it lies above the full distribution's by at most -log(top_p). It is the denominator of
    the importance weight. At temperature 0 it is that of temperature 1. ``stopped`` is True when the model ended it,
    False when ``max_tokens`` did.
    """

    token_ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    stopped: bool


class RolloutEngine(Protocol):
    """One policy that completes prompts; its weights are those of the last ``load_weights``."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.completions`` of each prompt, in the order of the prompts."""

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over every weight of the policy by its name in the trainer's state dict; caches are emptied."""

    def log_probabilities(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> list[list[float]]:
        """What the engine's weights say of one given completion a prompt: the proof that they are the trainer's.

        At temperature 1, over the whole vocabulary.
        """

    def sleep(self) -> None:
        """Give device memory back until the next ``generate``; does nothing where the engine cannot."""

    def close(self) -> None:
        """End the engine and free what it holds."""


def seed_of_prompt(seed: int, row_id: str, occurrence: int) -> int:
    """The seed of a prompt's draws: of the call's seed, the row and how often the row came before in the call.

    It does not depend on the other prompts, on their order or on how they are spread over ranks.
    """
    digest = hashlib.blake2b(f"{seed}\n{occurrence}\n{row_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2


def weight_chunks(
    weights: Iterable[tuple[str, torch.Tensor]], limit_bytes: int = CHUNK_BYTES
) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """The weights in their order, in lists of at most ``limit_bytes`` together or of one weight that is larger."""
    held: list[tuple[str, torch.Tensor]] = []
    size = 0
    for name, tensor in weights:
        added = tensor.numel() * tensor.element_size()
        if held and size + added > limit_bytes:
            yield held
            held, size = [], 0
        held.append((name, tensor.detach()))
        size += added
    if held:
        yield held


def largest_gap(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """The largest difference between two sets of log-probabilities of the same completions.

    Raises:
        ValueError: they do not stand for the same tokens, or one of them is not finite.
    """
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in zip(a, b, strict=True)]
    if not all(math.isfinite(value) for pair in pairs for value in pair):
        raise ValueError("a log-probability is not finite")
    return max((abs(a - b) for a, b in pairs), default=0.0)
