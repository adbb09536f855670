"""A batch that is cut over ranks: each gives its share and sees the whole, so that the cut changes nothing.

What is exchanged is a few kilobytes: rewards, domain names, and one more number a completion. Each rank then computes
the same step on the same whole and keeps its own rows. Values are checked after the exchange, so that a bad one raises
on every rank instead of leaving the others waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

T = TypeVar("T")


class Gather(Protocol):
    """Gives every rank's share in rank order, and the place of one's own among them."""

    def __call__(self, share: T, /) -> tuple[Sequence[T], int]: ...


def over_ranks(group: Any = None) -> Gather:
    """A ``Gather`` over the processes of a ``torch.distributed`` group (the default one if none is given).

    With NCCL each process must have set its CUDA device before the first call.
    """
    from torch import distributed

    def gather(share: T, /) -> tuple[Sequence[T], int]:
        shares: list[T | None] = [None] * distributed.get_world_size(group)
        distributed.all_gather_object(shares, share, group=group)
        return cast("list[T]", shares), distributed.get_rank(group)

    return gather


@dataclass(frozen=True, slots=True)
class Share:
    """One rank's part of a batch: rewards (questions × completions), and what stands beside them.

    ``beside`` is of the rewards' shape (KL, or response lengths); ``domains`` has one name a question, or none at all.
    A rank without questions gives rewards of shape (0, anything).
    """

    rewards: NDArray[np.float64]
    domains: tuple[str, ...] = ()
    beside: NDArray[np.float64] | None = None


def merge(share: Share, gather: Gather | None) -> tuple[Share, slice]:
    """The whole batch in rank order, and the rows of it that are one's own.

    Raises:
        ValueError: on every rank alike, if shares do not fit each other or themselves.
    """
    gathered, own = gather(share) if gather is not None else ((share,), 0)
    parts = [part for part in gathered if part.rewards.size]
    for part in parts:
        if part.rewards.ndim != 2:
            raise ValueError(f"rewards must be (questions × completions), not of {part.rewards.ndim} dimension(s)")
        if part.beside is not None and part.beside.shape != part.rewards.shape:
            raise ValueError(f"rewards are of shape {part.rewards.shape}, what stands beside of {part.beside.shape}")
        if part.domains and len(part.domains) != len(part.rewards):
            raise ValueError(f"{len(part.domains)} domain(s) for {len(part.rewards)} question(s)")
    if not parts:
        raise ValueError("the batch has no questions")
    if len({part.rewards.shape[1] for part in parts}) > 1:
        raise ValueError(f"ranks differ in completions a question: {[part.rewards.shape[1] for part in parts]}")
    if len({part.beside is None for part in parts}) > 1 or len({not part.domains for part in parts}) > 1:
        raise ValueError("some ranks give domains or values beside the rewards and others do not")
    start = sum(len(part.rewards) for part in gathered[:own])
    beside = [part.beside for part in parts if part.beside is not None]
    whole = Share(
        np.concatenate([part.rewards for part in parts]),
        tuple(domain for part in parts for domain in part.domains),
        np.concatenate(beside) if beside else None,
    )
    return whole, slice(start, start + len(share.rewards))
