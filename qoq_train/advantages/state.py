"""What DRPO remembers: an explicit value that goes into a step and comes out of it, and belongs in the checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

Statistics = Literal["batch", "history", "streaming"]

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class DomainState:
    """What is remembered of one domain.

    ``count`` is its number of questions and ``reward_sum`` the sum of their mean rewards, both decayed in streaming.
    ``vectors`` (remembered questions × completions, oldest first) are their rewards, sorted in streaming, and
    ``weights`` what each still counts for: 1 when it was new.
    """

    count: float
    reward_sum: float
    vectors: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True, slots=True)
class DrpoState:
    """What DRPO remembers; ``DrpoState()`` before the first step.

    The same on every rank. ``statistics`` and ``completions`` (a question) are those it was gathered with: None and 0
    at the start.
    """

    statistics: Statistics | None = None
    completions: int = 0
    domains: Mapping[str, DomainState] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and tensors, which ``torch.save`` writes and ``weights_only`` loading reads."""
        return {
            "format": _FORMAT,
            "statistics": self.statistics,
            "completions": self.completions,
            "domains": {
                name: {
                    "count": domain.count,
                    "reward_sum": domain.reward_sum,
                    "vectors": domain.vectors.clone(),
                    "weights": domain.weights.clone(),
                }
                for name, domain in self.domains.items()
            },
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> DrpoState:
        """The state that ``to_dict`` gave.

        Raises:
            ValueError: it is of another format, incomplete, or holds what no step can have left.
        """
        if saved.get("format") != _FORMAT:
            raise ValueError(f"saved DRPO state of format {saved.get('format')!r}; this version reads {_FORMAT}")
        if missing := {"statistics", "completions", "domains"} - set(saved):
            raise ValueError(f"saved DRPO state lacks {', '.join(sorted(missing))}")
        if saved["statistics"] not in (None, "batch", "history", "streaming"):
            raise ValueError(f"saved DRPO state of unknown statistics {saved['statistics']!r}")
        completions = int(saved["completions"])
        domains = {name: _domain(name, part, completions) for name, part in saved["domains"].items()}
        return cls(saved["statistics"], completions, domains)


def _domain(name: str, saved: Mapping[str, Any], completions: int) -> DomainState:
    if missing := {"count", "reward_sum", "vectors", "weights"} - set(saved):
        raise ValueError(f"saved DRPO state of domain {name!r} lacks {', '.join(sorted(missing))}")
    vectors, weights = saved["vectors"].detach().to("cpu").clone(), saved["weights"].detach().to("cpu").clone()
    if vectors.ndim != 2 or vectors.shape[1] != completions or weights.shape != vectors.shape[:1]:
        raise ValueError(
            f"saved DRPO state of domain {name!r}: vectors of shape {tuple(vectors.shape)} with weights of shape "
            f"{tuple(weights.shape)}, at {completions} completions a question"
        )
    count, reward_sum = float(saved["count"]), float(saved["reward_sum"])
    if not (count > 0 and math.isfinite(count) and math.isfinite(reward_sum)):
        raise ValueError(f"saved DRPO state of domain {name!r}: count {count:g}, sum of rewards {reward_sum:g}")
    if not (bool(torch.isfinite(vectors).all()) and bool((weights > 0).all()) and bool(torch.isfinite(weights).all())):
        raise ValueError(f"saved DRPO state of domain {name!r}: a remembered reward or weight is not a finite number")
    return DomainState(count, reward_sum, vectors, weights)
