"""A step's completions under the policy and under the reference, and the proof that the engine has the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import torch

from qoq_train.models.inputs import EncodedPrompt, Row
from qoq_train.models.loading import load_policy
from qoq_train.models.scoring import ScoringChoice, encode_rows, score_rows
from qoq_train.rollout import Prompt, RolloutEngine, RolloutError
from qoq_train.training.assembly import Assembly, model_choice, sharded_dtype
from qoq_train.training.method import needs_reference
from qoq_train.training.sharding import InStep, make_scorer

if TYPE_CHECKING:
    from qoq_train.models.loading import Policy
    from qoq_train.training.drawing import Drawn

LARGEST_GAP: Final = {torch.float32: 0.01, torch.bfloat16: 1.0}
"""Of a token's log-probability between engine and trainer, by the precision both compute in. In float32 sound engines
are some 1e-5 apart and a stale head 0.3. In bfloat16 a logit of 32 or more is rounded to a quarter, once on each side,
so that a sound engine is some tenths apart at its worst token."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """This rank's completions as rows, with log-probabilities [tokens] of each in the host's memory."""

    encoded: list[EncodedPrompt]
    rows: list[Row]
    old: list[torch.Tensor]
    reference: list[torch.Tensor] | None


class Scoring:
    """How a run scores: the policy's scorer, and a reference of its own where the method asks for one."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        recipe = assembly.recipe
        self.choice = ScoringChoice(recipe.rollout.temperature, assembly.policy.banned_ids)
        self._has_reference = needs_reference(recipe.method)
        self._switches = hasattr(assembly.policy.model, "disable_adapter")
        self._own = _reference(assembly) if self._has_reference and not self._switches else None

    def score(self, drawn: Drawn) -> Scored:
        """Score a step's completions; all ranks together."""
        encoded, rows = encode_rows(self._assembly.policy, drawn.prompts, drawn.token_ids)
        old = self._scores(self._assembly.policy, self._assembly.scorer, encoded, rows)
        reference = None
        if self._own is not None:
            reference = self._scores(*self._own, encoded, rows)
        elif self._has_reference:
            reference = self._scores(self._assembly.policy, self._assembly.scorer, encoded, rows, reference=True)
        return Scored(encoded, rows, old, reference)

    def probe(self, drawn: Drawn) -> list[torch.Tensor]:
        """The policy's own view of the completions that ``weights_gap`` asks the engine about; all ranks together."""
        encoded, rows = encode_rows(self._assembly.policy, *self._probed(drawn))
        plain = ScoringChoice()
        return self._scores(self._assembly.policy, self._assembly.scorer, encoded, rows, choice=plain)

    def weights_gap(self, engine: RolloutEngine, drawn: Drawn, probe: Sequence[torch.Tensor]) -> float:
        """How far the engine is from ``probe``, the largest over ranks: it was given the same weights since.

        Raises:
            RolloutError: further than ``rollout.max_weights_gap``, or not finite.
        """
        prompts, groups = self._probed(drawn)
        ranks, recipe = self._assembly.ranks, self._assembly.recipe.rollout

        def ask() -> float:
            said = engine.log_probabilities(prompts, [group[0] for group in groups]) if prompts else []
            gaps = [torch.tensor(theirs, dtype=torch.float64) - ours for theirs, ours in zip(said, probe, strict=True)]
            return float(torch.cat(gaps).abs().max()) if gaps else 0.0

        largest = max(ranks.shares(ranks.each(ask)), key=_nan_first)
        bound = recipe.max_weights_gap or LARGEST_GAP[self._assembly.compute_dtype]
        if not largest <= bound:
            raise RolloutError(
                f"the engine's log-probabilities are {largest:.3g} from the trainer's after it was given the weights; "
                f"{bound:g} is allowed (rollout.max_weights_gap). It holds other weights, or reads prompts otherwise"
            )
        return largest

    def _probed(self, drawn: Drawn) -> tuple[list[Prompt], list[list[tuple[int, ...]]]]:
        """The first completion of the rank's first questions."""
        count = self._assembly.recipe.rollout.probe_completions
        return list(drawn.prompts[:count]), [group[:1] for group in drawn.token_ids[:count]]

    def _scores(
        self,
        policy: Policy,
        scorer: InStep,
        encoded: Sequence[EncodedPrompt],
        rows: Sequence[Row],
        *,
        choice: ScoringChoice | None = None,
        reference: bool = False,
    ) -> list[torch.Tensor]:
        found = score_rows(
            scorer,
            policy,
            encoded,
            rows,
            token_budget=self._assembly.recipe.optimiser.micro_tokens,
            choice=choice or self.choice,
            reference=reference,
        )
        with torch.no_grad():
            scorer.finish()
        return [values.cpu() for values in found]


def _reference(assembly: Assembly) -> tuple[Policy, InStep]:
    """A frozen copy of the policy as it is now, cut over the ranks as the policy is."""
    recipe = assembly.recipe
    choice = model_choice(recipe.model, recipe.data.min_pixels, recipe.data.max_pixels)
    policy = load_policy(replace(choice, gradient_checkpointing=False))
    policy.model.requires_grad_(False)  # noqa: FBT003
    scorer = make_scorer(policy, assembly.ranks, sharded_dtype(recipe, assembly.ranks))
    with torch.no_grad():
        own = dict(policy.model.named_parameters())
        for name, value in assembly.policy.model.named_parameters():
            own[name].copy_(value)
    return policy, scorer


def _nan_first(value: float) -> float:
    return value if value == value else float("inf")  # noqa: PLR0124
