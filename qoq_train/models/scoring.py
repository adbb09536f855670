"""Log-probabilities of given completions under the policy, with gradients: what the loss and the probes are made of."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from qoq_train.models.inputs import Batch, EncodedPrompt, Row, encode_prompt, make_batch, plan_batches
from qoq_train.models.loading import Policy, transformers_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from qoq_train.rollout import Prompt

_CHUNK_VALUES: Final = 1 << 25
"""Logits that stand at one time, in values: 128 MiB of float32."""

_BANNED_LOGIT: Final = -1e9  # its probability is 0 in float32, and 0 times it is 0, which is not so of minus infinity


class Scores(NamedTuple):
    """Of one batch, row after row without padding: one value for each token of a completion, in float32.

    ``log_probabilities`` [tokens]; ``entropies`` [tokens] of the distribution each token was drawn from, or None.
    """

    log_probabilities: torch.Tensor
    entropies: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class ScoringChoice:
    """The distribution to score under: the model's logits over ``temperature``, ``banned_ids`` left out."""

    temperature: float = 1.0
    banned_ids: tuple[int, ...] = ()
    entropies: bool = False


class Scorer(nn.Module):
    """The policy as a module whose forward pass is the scoring of a batch.

    Wrap this, not the model, for data parallelism or sharding: all that uses weights happens in its forward pass.
    ``sees_pictures_always`` runs the vision tower on one blank patch square where a batch has no picture, its result
    multiplied by 0: sharded ranks must all pass the same layers, whatever rows they were given.
    """

    def __init__(self, policy: Policy, *, sees_pictures_always: bool = False) -> None:
        super().__init__()
        self.model = policy.model
        self.sees_pictures_always = sees_pictures_always and policy.family != "text"

    def forward(self, batch: Batch, choice: ScoringChoice) -> Scores:
        """Score each completion's tokens; the prompt's pictures pass the vision tower once, however many rows share it.

        Logits are formed in chunks of positions and formed again in the backward pass, so that no tensor of all
        positions × vocabulary stands. The model's state of a generation before this is neither read nor changed.

        Raises:
            ValueError: a completion holds a token that is banned, or a packed batch meets a model that would let its
                rows see each other.
        """
        inner = transformers_model(self.model)
        if any(bool((batch.targets == token).any()) for token in choice.banned_ids):
            raise ValueError("a completion holds a token that is never drawn, such as one that stands for a picture")
        hidden = self._hidden(inner, batch)
        states = hidden.flatten(0, 1)[batch.drawn_from]
        return _scores(inner.get_output_embeddings(), states, batch.targets.to(hidden.device), choice)

    def _hidden(self, inner: Any, batch: Batch) -> torch.Tensor:
        core = inner.base_model
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
        if batch.positions is not None:
            inputs["position_ids"] = batch.positions
        if batch.pixels is not None:
            inputs["mm_encoder_outputs"] = {"image": _shown_features(core, batch)}
        blank = None
        if batch.pixels is None and self.sees_pictures_always:
            blank = _blank_features(core)  # where pictures would be seen: sharded ranks must pass layers in one order
        if batch.packing is not None:
            # Any mask of four dimensions is handed on as it is: without one transformers would make one of its own.
            inputs["attention_mask"] = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=batch.input_ids.device)
            inputs["packing"] = batch.packing
            batch.packing.attended.clear()
        hidden: torch.Tensor = core(**inputs).last_hidden_state
        if batch.packing is not None:
            _check_attended(inner, len(batch.packing.attended))
        return hidden if blank is None else hidden + 0 * blank.to(hidden)


def encode_rows(
    policy: Policy, prompts: Sequence[Prompt], completions: Sequence[Sequence[Sequence[int]]]
) -> tuple[list[EncodedPrompt], list[Row]]:
    """Prompts, and all their completions as rows, in the order of the prompts and of each one's completions.

    Raises:
        ValueError: not one list of completions for each prompt, or a prompt and its pictures do not pair.
    """
    if len(prompts) != len(completions):
        raise ValueError(f"{len(prompts)} prompts, and completions of {len(completions)}")
    encoded = [encode_prompt(policy, prompt) for prompt in prompts]
    rows = [Row(index, tuple(ids)) for index, group in enumerate(completions) for ids in group]
    return encoded, rows


def iterate_batches(
    policy: Policy, prompts: Sequence[EncodedPrompt], rows: Sequence[Row], token_budget: int
) -> Iterator[Batch]:
    """The rows in batches of at most ``token_budget`` tokens as they are laid out, on the policy's device."""
    device = next(policy.model.parameters()).device
    for numbers in plan_batches(prompts, rows, token_budget, packed=policy.packed):
        yield make_batch(prompts, rows, numbers, pad_id=policy.pad_id, packed=policy.packed).to(device)


def score_rows(
    scorer: nn.Module,
    policy: Policy,
    prompts: Sequence[EncodedPrompt],
    rows: Sequence[Row],
    *,
    token_budget: int,
    choice: ScoringChoice = ScoringChoice(),
    reference: bool = False,
) -> list[torch.Tensor]:
    """Log-probabilities [tokens] of each row, in the order of the rows, without gradients and without dropout.

    ``reference`` scores under the model as it was before its adapters, by switching them off for the pass.

    Raises:
        ValueError: ``reference`` without adapters; a banned token in a row.
    """
    found: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    was_training = scorer.training
    scorer.eval()
    try:
        with torch.no_grad(), adapters_off(policy) if reference else nullcontext():
            for batch in iterate_batches(policy, prompts, rows, token_budget):
                values = scorer(batch, choice).log_probabilities
                for number, part in zip(batch.rows, values.split(list(batch.completion_lengths)), strict=True):
                    found[number] = part
    finally:
        scorer.train(was_training)
    return found


def adapters_off(policy: Policy) -> AbstractContextManager[None]:
    """Inside, the policy is the model that it was before its adapters: the reference, at no memory.

    Raises:
        ValueError: the policy has no adapters.
    """
    switch = getattr(policy.model, "disable_adapter", None)
    if switch is None:
        raise ValueError("the policy has no adapters to switch off: keep a reference model of its own")
    context: AbstractContextManager[None] = switch()
    return context


def _shown_features(core: Any, batch: Batch) -> Any:
    """The vision tower's features of each distinct picture, laid out once for every place in which it stands."""
    seen = core.get_image_features(batch.pixels, batch.grids, return_dict=True)
    fields: dict[str, Any] = {"pooler_output": tuple(seen.pooler_output[i] for i in batch.shown_pictures)}
    if getattr(seen, "deepstack_features", None) is not None:
        fields["deepstack_features"] = [
            tuple(level[i] for i in batch.shown_pictures) for level in seen.deepstack_features
        ]
    return type(seen)(**fields)


def _check_attended(inner: Any, layers: int) -> None:
    expected = int(inner.config.get_text_config().num_hidden_layers)
    if layers != expected:
        raise ValueError(
            f"{layers} of {expected} layers of this model kept packed rows apart: load it with packed=False"
        )


def _blank_features(core: Any) -> torch.Tensor:
    config = core.config.vision_config
    side = int(config.spatial_merge_size)
    device = next(core.parameters()).device
    values = int(config.in_channels) * int(config.temporal_patch_size) * int(config.patch_size) ** 2
    pixels = torch.zeros(side * side, values, device=device)
    seen = core.get_image_features(pixels, torch.tensor([[1, side, side]], device=device), return_dict=True)
    levels = [level for features in getattr(seen, "deepstack_features", None) or [] for level in features]
    return torch.stack([part.sum() for part in (*seen.pooler_output, *levels)]).sum()


def _scores(head: nn.Module, states: torch.Tensor, targets: torch.Tensor, choice: ScoringChoice) -> Scores:
    vocabulary = int(head.get_parameter("weight").shape[0])
    size = max(1, _CHUNK_VALUES // vocabulary)
    keeps_little = len(targets) > size and torch.is_grad_enabled()
    parts = []
    for start in range(0, len(targets), size):
        arguments = (head, states[start : start + size], targets[start : start + size], choice)
        if keeps_little:
            parts.append(checkpoint(_chunk, *arguments, use_reentrant=False))
        else:
            parts.append(_chunk(*arguments))
    values = torch.cat([values for values, _ in parts])
    return Scores(values, torch.cat([entropies for _, entropies in parts]) if choice.entropies else None)


def _chunk(
    head: nn.Module, states: torch.Tensor, targets: torch.Tensor, choice: ScoringChoice
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(states).float()
    if choice.temperature != 1.0:
        logits = logits / choice.temperature
    if choice.banned_ids:
        banned = torch.tensor(choice.banned_ids, device=logits.device)
        logits = logits.index_fill(1, banned, _BANNED_LOGIT)
    whole = torch.logsumexp(logits, dim=1)
    values = logits.gather(1, targets[:, None])[:, 0] - whole
    if not choice.entropies:
        return values, values
    return values, whole - (torch.exp(logits - whole[:, None]) * logits).sum(dim=1)
