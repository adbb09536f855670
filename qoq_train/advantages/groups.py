"""A group: the completions of one question. Its checks and its normalisation, in double precision."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

EPSILON: Final = 1e-6
"""Added to a standard deviation before it divides, and the least a temperature can be; the paper's value."""

LARGEST: Final = 1e15
"""Larger rewards are refused: at that size a double no longer tells two rewards apart that differ by one."""


def to_array(values: torch.Tensor) -> NDArray[np.float64]:
    """The tensor's values in double precision on the host, C-ordered."""
    array: NDArray[np.float64] = np.ascontiguousarray(values.detach().to("cpu", torch.float64).numpy())
    return array


def to_tensor(array: NDArray[np.float64], like: torch.Tensor) -> torch.Tensor:
    """The array on the device of ``like``, in its precision if that is single or double, else in single."""
    dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
    return torch.from_numpy(np.ascontiguousarray(array)).to(device=like.device, dtype=dtype)


def check_groups(
    values: NDArray[np.float64], name: str, domains: Sequence[str] = (), *, least_completions: int = 2
) -> None:
    """Refuse what is not a (questions × completions) table of finite numbers.

    Raises:
        ValueError: with the question's row, its domain where known, and the value.
    """
    if values.ndim != 2:
        raise ValueError(f"{name} must be (questions × completions), not of {values.ndim} dimension(s)")
    if values.shape[0] == 0 or values.shape[1] < least_completions:
        raise ValueError(
            f"{name} of shape {values.shape}: at least one question and {least_completions} completion(s) are needed"
        )
    refuse(values, ~(np.abs(values) <= LARGEST), name, domains, f"not a finite number up to {LARGEST:g}")


def refuse(values: NDArray[np.float64], bad: NDArray[np.bool_], name: str, domains: Sequence[str], reason: str) -> None:
    """Raise ValueError for the first value that is ``bad``; nothing if none is."""
    if bad.any():
        question, completion = (int(i) for i in np.argwhere(bad)[0])
        domain = f", domain {domains[question]!r}" if domains else ""
        value = values[question, completion]
        raise ValueError(f"{name} of question {question}, completion {completion}{domain}: {value:g} is {reason}")


def is_varied(rewards: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a group's rewards differ at all; one that does not teaches nothing."""
    varied: NDArray[np.bool_] = rewards.max(axis=1) > rewards.min(axis=1)
    return varied


def centred(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rewards less their group's mean; exactly 0 in a group of equal rewards.

    The mean is taken over the sorted rewards, so that the order of completions changes no bit.
    """
    mean = np.sort(rewards, axis=1).mean(axis=1, keepdims=True)
    return np.where(is_varied(rewards)[:, None], rewards - mean, 0.0)


def normalised(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """Group normalisation: (reward − mean) / (unbiased standard deviation + 1e-6)."""
    deviation = centred(rewards)
    squares = np.sort(deviation * deviation, axis=1).sum(axis=1, keepdims=True)
    scores: NDArray[np.float64] = deviation / (np.sqrt(squares / (rewards.shape[1] - 1)) + EPSILON)
    return scores


def exact_std(values: NDArray[np.float64]) -> float:
    """Unbiased standard deviation about the mean, summed exactly, so that the order of values changes no bit."""
    flat = values.ravel()
    mean = math.fsum(flat) / flat.size
    return math.sqrt(math.fsum((flat - mean) ** 2) / (flat.size - 1))
