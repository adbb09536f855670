"""The processes of a run: which one this is, what they tell each other, and what happens when one of them fails.

``torchrun`` and ``accelerate launch`` both start the processes and say in the environment which is which; nothing else
of either is used. Small values go over gloo on the hosts, weights and gradients over NCCL where there are GPUs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar, cast

import torch
from torch import distributed

from qoq_data.errors import QoQError, UsageError
from qoq_train.advantages.ranks import over_ranks

if TYPE_CHECKING:
    from qoq_train.advantages.ranks import Gather

T = TypeVar("T")

_LAUNCHER: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class RankError(QoQError):
    """Another process of the run failed, so that this one cannot go on."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process, number ``rank`` of ``world``; ``launched`` where a launcher started it, be it one alone.

    Every method is to be called by all ranks together, and gives the same on each. A process by itself waits for none.
    """

    rank: int = 0
    world: int = 1
    launched: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def gather(self) -> Gather | None:
        """What advantages over all ranks take."""
        return over_ranks() if self.world > 1 else None

    def total(self, *values: float) -> tuple[float, ...]:
        """The sums over ranks, each rounded once."""
        if self.world == 1:
            return values
        own = torch.tensor(values, dtype=torch.float64)
        parts = [torch.empty_like(own) for _ in range(self.world)]
        distributed.all_gather(parts, own)
        return tuple(_sum(column) for column in torch.stack(parts, dim=1).tolist())

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank."""
        return self.total(float(here))[0] > 0

    def shares(self, value: T) -> list[T]:
        """What each rank gave, in their order."""
        if self.world == 1:
            return [value]
        shares: list[T | None] = [None] * self.world
        distributed.all_gather_object(shares, value)
        return cast("list[T]", shares)

    def from_first(self, value: T) -> T:
        """What the first rank gave."""
        if self.world == 1:
            return value
        box = [value if self.is_first else None]
        distributed.broadcast_object_list(box, src=0)
        return cast("T", box[0])

    def each(self, work: Callable[[], T]) -> T:
        """``work()`` of this rank, in which no rank waits for another; where it fails on one, it raises on all.

        Raises:
            RankError: it failed elsewhere; the text says on which rank and how.
        """
        if self.world == 1:
            return work()
        failure: Exception | None = None
        try:
            found = work()
        except Exception as error:  # noqa: BLE001  (raised again, once all know of it)
            failure = error
        told = self.shares(None if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            raise failure
        for rank, text in enumerate(told):
            if text is not None:
                raise RankError(f"Rank {rank} of {self.world} failed: {text}")
        return found

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Inside, a rank that is gone while this one waits for it is told as that.

        Raises:
            RankError: the connection to another rank was lost.
        """
        try:
            yield
        except RuntimeError as error:
            if self.world > 1 and _is_lost_peer(error):
                raise RankError("Another rank ended while this one waited for it; what it printed says why.") from error
            raise

    def close(self) -> None:
        """Leave the other ranks, at the end of all work."""
        if self.launched and distributed.is_initialized():
            distributed.destroy_process_group()


ALONE: Final = Ranks()


def start_ranks(timeout_minutes: int) -> Ranks:
    """Join the other processes where a launcher started this one; ``ALONE`` otherwise.

    A rank that waits for others for longer than ``timeout_minutes`` fails.

    Raises:
        UsageError: more processes on this machine than it has GPUs.
    """
    if not all(name in os.environ for name in _LAUNCHER):
        return ALONE
    if torch.cuda.is_available():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise UsageError(f"process {local + 1} of this machine has no GPU of its own: there are {gpus}.")
        torch.cuda.set_device(local)
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    return Ranks(distributed.get_rank(), distributed.get_world_size(), launched=True)


def _sum(values: list[float]) -> float:
    """Exact where it can be; what is not finite makes the sum so, and does not raise."""
    return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)


def _is_lost_peer(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo" in str(error) or "Connection closed by peer" in str(error)
