"""A policy's weights cut over the ranks (FSDP2), and passes that all ranks make together.

It is torch's ``fully_shard`` on GPUs and on CPUs alike, and not accelerate's plug-in for it: the plug-in wraps the same
function and refuses a CPU, so that what is tested with gloo would not be what runs on GPUs. ``accelerate launch``
starts such a run as ``torchrun`` does.

Each decoder layer and each vision block is a group of its own, gathered when it is needed and let go after; the rest
(embeddings, norms, head) is one more. A rank must gather the same groups in the same order as every other, whatever
its rows are: ``InStep`` sees to their number, ``Scorer(sees_pictures_always=True)`` to their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qoq_data.errors import UsageError
from qoq_train.models.inputs import EncodedPrompt, Row, make_batch
from qoq_train.models.loading import Policy, transformers_model
from qoq_train.models.scoring import Scorer, Scores, ScoringChoice

if TYPE_CHECKING:
    from qoq_train.models.inputs import Batch
    from qoq_train.training.ranks import Ranks


class InStep(nn.Module):
    """A scorer whose passes all ranks make together; after a rank's last one, ``finish`` keeps it with the others."""

    def __init__(self, policy: Policy, scorer: Scorer, ranks: Ranks) -> None:
        super().__init__()
        self.scorer = scorer
        self._policy = policy
        self._ranks = ranks

    def forward(self, batch: Batch, choice: ScoringChoice) -> Scores:
        """As ``Scorer``, once every rank that has not finished is here too."""
        self._ranks.any(here=True)
        scores: Scores = self.scorer(batch, choice)
        return scores

    def finish(self) -> None:
        """Make empty passes until every rank has made its own; with gradients, where they are on, that are all 0.

        Every rank calls it after its last pass, also one that had none.
        """
        while self._ranks.any(here=False):
            values = self.scorer(_empty_batch(self._policy), ScoringChoice()).log_probabilities
            if torch.is_grad_enabled():
                (values.sum() * 0).backward()


def make_scorer(policy: Policy, ranks: Ranks, compute_dtype: torch.dtype | None) -> InStep:
    """The scorer of a policy, which goes to this process's GPU or is cut over the ranks that were launched, in place.

    ``compute_dtype`` is that of sharded passes, whatever the weights are kept in; None takes theirs. Gradients are
    added up over ranks in float32.

    Raises:
        UsageError: a model whose layers are not found.
    """
    scorer = Scorer(policy, sees_pictures_always=ranks.launched)
    if ranks.launched:
        _shard(scorer, policy, ranks.world, compute_dtype)
    elif torch.cuda.is_available():
        policy.model.to("cuda")
    return InStep(policy, scorer, ranks)


def _shard(scorer: Scorer, policy: Policy, world: int, compute_dtype: torch.dtype | None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (world,))
    precision = MixedPrecisionPolicy(compute_dtype, torch.float32, cast_forward_inputs=False)
    # The root is let go after its pass too: else weights that were gathered to score would outlive an update.
    settings: dict[str, Any] = {"mesh": mesh, "mp_policy": precision, "reshard_after_forward": True}
    for block in _blocks(transformers_model(policy.model).base_model):
        fully_shard(block, **settings)
    fully_shard(scorer, **settings)


def _blocks(core: Any) -> list[nn.Module]:
    text = getattr(core, "language_model", core)
    vision = getattr(core, "visual", None)
    layers = next((found for name in ("layers", "h", "blocks") if (found := getattr(text, name, None))), None)
    if layers is None:
        raise UsageError(f"the layers of a {type(core).__name__} are not found, so it cannot be cut over processes")
    return [*layers, *(vision.blocks if vision is not None else ())]


def _empty_batch(policy: Policy) -> Batch:
    """One token of prompt and one of completion."""
    positions = None if policy.family == "text" else torch.zeros((3, 1), dtype=torch.long)
    prompt = EncodedPrompt("", (policy.pad_id,), positions, None, None)
    batch = make_batch([prompt], [Row(0, (policy.end_ids[0],))], [0], pad_id=policy.pad_id)
    return batch.to(next(policy.model.parameters()).device)
