"""DRPO for verl: one step on the rows of a verl batch, and the advantage estimator that remembers between steps.

verl lays a batch out as rows, one a completion, in an order of its own, with the question's ``uid`` beside each; it
knows no domains. What is here needs torch alone, and neither verl nor the model side of this package;
``qoq_train.integrations.verl_trainer`` registers the estimator with verl and tells it the rows' domains.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from qoq_data.errors import UsageError
from qoq_data.recipe_text import nearest
from qoq_train.advantages import DrpoConfig, DrpoState, drpo, grpo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

ESTIMATOR_NAME: Final = "drpo"
"""What ``algorithm.adv_estimator`` is set to."""

DomainKey = Literal["domain", "source"]


@dataclass(frozen=True, slots=True)
class VerlSettings:
    """The switches of ``drpo``, and which name of a row is its domain."""

    config: DrpoConfig
    domain_key: DomainKey = "domain"

    @classmethod
    def of_algorithm(cls, algorithm: Mapping[str, Any]) -> VerlSettings:
        """From verl's ``algorithm`` section, whose key ``drpo`` holds fields of ``DrpoConfig`` and ``domain_key``.

        ``normalise_std`` is verl's ``norm_adv_by_std_in_grpo`` unless given. Raises ``UsageError`` for a key that is
        not known or a value that cannot be.
        """
        given = dict(algorithm.get("drpo") or {})
        key = given.pop("domain_key", "domain")
        if key not in ("domain", "source"):
            raise UsageError(f"algorithm.drpo.domain_key is {key!r}; it must be domain or source.")
        known = [field.name for field in fields(DrpoConfig)]
        for name in given:
            if name not in known:
                raise UsageError(f"algorithm.drpo has no key {name!r}.{nearest(str(name), [*known, 'domain_key'])}")
        given.setdefault("normalise_std", bool(algorithm.get("norm_adv_by_std_in_grpo", True)))
        try:
            return cls(DrpoConfig(**given), key)
        except (TypeError, ValueError) as error:
            raise UsageError(f"algorithm.drpo: {error}.") from error


@dataclass(frozen=True, slots=True)
class RowStep:
    """Advantages of the rows (completions), the state for the next step, and figures for the log."""

    advantages: Tensor
    state: DrpoState
    figures: dict[str, float]


def drpo_of_rows(
    rewards: Tensor,
    uids: Sequence[str],
    domains: Sequence[str | None],
    state: DrpoState,
    config: DrpoConfig,
    *,
    kl: Tensor | None = None,
    completions: int | None = None,
) -> RowStep:
    """One DRPO step on rows [completions] in any order: rows of one uid are the completions of one question.

    ``domains`` names each row's domain, None for a row that only fills up the batch: it gets 0 and is not counted.
    ``completions`` is how many a question should have; not given, the state's number, else the largest group's.
    Where all groups have it, the result is that of ``drpo`` on questions sorted by uid. A group of another size
    stands in the statistics as that many quantiles of its rewards, evenly spaced from the smallest to the largest,
    and its completions get their own group's score times its weight. One completion alone has nothing to be compared
    with and gets 0. Raises ``ValueError`` as ``drpo``, and where a question's rows differ in domain.
    """
    groups = _groups(uids, domains)
    advantages = torch.zeros(len(uids), dtype=torch.float64)
    if not groups:
        return RowStep(advantages, state, {"drpo/questions": 0.0})
    names = [str(domains[rows[0]]) for rows in groups]
    size = completions or state.completions or max(map(len, groups))
    values = rewards.detach().to("cpu", torch.float64)
    kls = None if kl is None else kl.detach().to("cpu", torch.float64)
    uneven = sum(len(rows) != size for rows in groups)
    if not uneven:
        table = torch.tensor(groups)
        step = drpo(values[table], names, state, config, kl=None if kls is None else kls[table])
        advantages[table] = step.advantages
        new_state, figures = step.state, step.metrics.scalars()
    else:
        table = torch.stack([_resized(values[rows], size) for rows in groups])
        plain = replace(config, kl_damping=False, unit_variance=False, normalise_std=False)
        step = drpo(table, names, state, plain)
        weights = _weights(table, step.advantages)
        scores = [_scores(values[rows], config) * weight for rows, weight in zip(groups, weights, strict=True)]
        flat = [row for rows in groups for row in rows]
        advantages[flat] = _finished(torch.cat(scores), None if kls is None else kls[flat], config)
        new_state, figures = step.state, step.metrics.scalars()
        # what was measured without damping says nothing of it
        figures = {name: value for name, value in figures.items() if not name.endswith(("damped_share", "damping"))}
    counts = {"drpo/questions": float(len(groups)), "drpo/uneven_questions": float(uneven)}
    return RowStep(advantages, new_state, figures | counts)


@dataclass(frozen=True, slots=True)
class Rows:
    """What verl does not hand to an estimator, row by row as it lays the batch out.

    ``kl`` [rows] is the KL of each completion to the reference, None where nothing needs it.
    """

    uids: tuple[str, ...]
    domains: tuple[str | None, ...]
    kl: Tensor | None = None
    completions: int | None = None


class DrpoEstimator:
    """An advantage estimator with verl's signature; ``state`` is what it remembers.

    Set ``rows`` before each batch; it is taken once. ``figures`` are those of the last step.
    """

    __name__ = "compute_drpo_advantage"

    def __init__(self) -> None:
        self.state = DrpoState()
        self.rows: Rows | None = None
        self.figures: dict[str, float] = {}

    def __call__(
        self, token_level_rewards: Tensor, response_mask: Tensor, config: Any = None, index: Any = None, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """Advantages and returns [rows, tokens], one value a completion, 0 outside the response.

        Raises:
            UsageError: the rows' domains were not told, or belong to another batch; a reward that DRPO refuses.
        """
        rows, self.rows = self.rows, None
        if rows is None or config is None or index is None:
            raise UsageError(
                "DRPO was not told the domains of this batch. Set trainer.v1.trainer_mode=drpo and "
                "trainer.use_v1=True, which tell it."
            )
        if rows.uids != tuple(map(str, index)):
            raise UsageError("the domains that DRPO was told belong to another batch than the one to be weighed.")
        settings = VerlSettings.of_algorithm(config)
        if settings.config.kl_damping and rows.kl is None:
            raise UsageError(
                "algorithm.drpo.kl_damping is on and there is no reference model: set "
                "actor_rollout_ref.actor.use_kl_loss=True, or algorithm.drpo.kl_damping=False."
            )
        try:
            step = drpo_of_rows(
                token_level_rewards.sum(dim=-1), rows.uids, rows.domains, self.state, settings.config,
                kl=rows.kl, completions=rows.completions,
            )  # fmt: skip
        except ValueError as error:
            raise UsageError(f"DRPO cannot weigh this batch: {error}.") from error
        self.state, self.figures = step.state, step.figures
        values = step.advantages.to(token_level_rewards)[:, None] * response_mask
        return values, values


def _groups(uids: Sequence[str], domains: Sequence[str | None]) -> list[list[int]]:
    """Row numbers of each question, the questions sorted by uid, rows that only fill up left out."""
    if len(uids) != len(domains):
        raise ValueError(f"{len(uids)} uid(s) and {len(domains)} domain(s)")
    found: dict[str, list[int]] = {}
    for row, (uid, domain) in enumerate(zip(uids, domains, strict=True)):
        if domain is not None:
            found.setdefault(uid, []).append(row)
    for uid, rows in found.items():
        if len({domains[row] for row in rows}) > 1:
            raise ValueError(f"the rows of question {uid} are of several domains")
    return [found[uid] for uid in sorted(found)]


def _resized(values: Tensor, size: int) -> Tensor:
    if len(values) == size:
        return values
    return torch.quantile(values, torch.linspace(0, 1, size, dtype=values.dtype))


def _weights(table: Tensor, scaled: Tensor) -> Tensor:
    """What each question's centred rewards were multiplied by; 0 where they are all equal and any would do."""
    centred = grpo(table, normalise_std=False)
    place = centred.abs().argmax(dim=1, keepdim=True)
    largest = centred.gather(1, place)[:, 0]
    return torch.where(largest == 0, 0.0, scaled.gather(1, place)[:, 0] / torch.where(largest == 0, 1.0, largest))


def _scores(values: Tensor, config: DrpoConfig) -> Tensor:
    if len(values) < 2:
        return torch.zeros_like(values)
    return grpo(values[None], normalise_std=config.normalise_std)[0]


def _finished(scaled: Tensor, kl: Tensor | None, config: DrpoConfig) -> Tensor:
    """Damping and unit variance over completions that no longer stand in a table.

    They are one question's to ``drpo`` without any scaling, which leaves these two steps: the sum over each group is
    0 and so is their mean, but for rounding.
    """
    if len(scaled) < 2:
        return scaled
    rest = replace(config, statistics="batch", domain_scaling=False, cluster_scaling=False, normalise_std=False)
    step = drpo(scaled[None], ["all"], None, rest, kl=None if kl is None else kl[None])
    return torch.where(scaled == 0, 0.0, step.advantages[0])
