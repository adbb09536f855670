"""What a DRPO step did, for the log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClusterMetrics:
    """A cluster: the batch's ``questions`` in it, its N and μ, and their weight relative to the batch's median."""

    questions: int
    count: float
    mean_reward: float
    weight: float


@dataclass(frozen=True, slots=True)
class DomainMetrics:
    """A domain: the batch's ``questions`` of it, its N and μ, their mean weight, and its clusters (k is their number).

    Clusters without a question in this batch have weight 0.
    """

    questions: int
    count: float
    mean_reward: float
    weight: float
    clusters: tuple[ClusterMetrics, ...]


@dataclass(frozen=True, slots=True)
class DrpoMetrics:
    """What a step did over all ranks; shares are between 0 and 1.

    ``zero_variance_share`` is of questions whose rewards are all equal, ``bounded_share`` of questions whose weight
    was held by ``max_weight_ratio``, ``damped_share`` of completions that the KL damping lowered, ``mean_damping`` the
    mean factor it left. ``effective_sample_size`` is (Σw)² / Σw² over the questions whose rewards differ, as a share
    of their number: 1 if all weigh the same; 0 if no question's rewards differ.
    """

    domains: dict[str, DomainMetrics]
    zero_variance_share: float
    bounded_share: float
    damped_share: float
    mean_damping: float
    effective_sample_size: float

    def scalars(self) -> dict[str, float]:
        """Flat names and numbers for a log: ``drpo/<domain>/weight``, ``drpo/<domain>/cluster_0/weight``, ..."""
        flat = {
            f"drpo/{name}": float(getattr(self, name))
            for name in (
                "zero_variance_share", "bounded_share", "damped_share", "mean_damping", "effective_sample_size"
            )
        }  # fmt: skip
        for name, domain in self.domains.items():
            flat[f"drpo/{name}/clusters"] = float(len(domain.clusters))
            parts = [(f"drpo/{name}", domain)] + [
                (f"drpo/{name}/cluster_{i}", cluster) for i, cluster in enumerate(domain.clusters)
            ]
            for prefix, part in parts:
                for key in ("questions", "count", "mean_reward", "weight"):
                    flat[f"{prefix}/{key}"] = float(getattr(part, key))
        return flat
