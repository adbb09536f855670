"""Rows without padding: one sequence in which each prompt stands once, and behind it all of its completions.

All of a model but its attention looks at tokens one by one, so there a shared prompt is computed once and nothing is
padding. Attention is what keeps rows apart: a prompt's tokens see those before them, and a completion's tokens see
its prompt and themselves. It is given to transformers as an attention of its own, which is handed the ``Packing`` of a
batch; without one, as in generation, it is transformers' ``sdpa``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKED_SDPA: Final = "qoq_packed_sdpa"
PACKED_VARLEN: Final = "qoq_packed_varlen"
"""Names under which transformers knows the attention: by torch alone, and by flash-attention where it can be used."""

_BEYOND: Final = ("sliding_window", "softcap", "s_aux", "position_bias")
"""What some models ask of an attention beyond scale and dropout; none of it is done here."""


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """What lies where in a packed sequence, for each group its prompt and then its completions.

    ``groups`` are lengths in tokens. The other three say it in the way of variable-length kernels, a segment for each
    prompt and each completion: ``query_ends`` and ``key_ends`` [segments + 1], int32, and ``key_places`` [keys], the
    places of all tokens that the segments see. ``attended`` collects the layers that kept rows apart.
    """

    groups: tuple[tuple[int, tuple[int, ...]], ...]
    query_ends: torch.Tensor
    key_ends: torch.Tensor
    key_places: torch.Tensor
    attended: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, groups: Sequence[tuple[int, Sequence[int]]]) -> Packing:
        """From the length of each group's prompt and those of its completions."""
        queries: list[int] = []
        keys: list[torch.Tensor] = []
        start = 0
        for prompt, completions in groups:
            of_prompt = torch.arange(start, start + prompt)
            queries.append(prompt)
            keys.append(of_prompt)
            start += prompt
            for count in completions:
                queries.append(count)
                keys.append(torch.cat([of_prompt, torch.arange(start, start + count)]))
                start += count
        return cls(
            tuple((prompt, tuple(completions)) for prompt, completions in groups),
            _ends(queries),
            _ends([len(places) for places in keys]),
            torch.cat(keys),
        )

    def to(self, device: torch.device | str) -> Packing:
        """The same on a device."""
        names = ("query_ends", "key_ends", "key_places")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def why_not_packed(text_model: Any) -> str | None:
    """Why the rows of a language model of transformers cannot be packed; None where they can."""
    import transformers

    config = text_model.config
    kinds = getattr(config, "layer_types", None)
    slides = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if not hasattr(transformers, "AttentionInterface") or not hasattr(transformers, "AttentionMaskInterface"):
        return f"transformers {transformers.__version__} takes no attention of others"
    if not getattr(text_model, "_supports_attention_backend", False):
        return f"models of type {config.model_type!r} take no attention of others"
    if set(kinds) != {"full_attention"} if kinds else slides:
        return f"this model of type {config.model_type!r} has layers that do not see the whole row"
    return None


def use_packed_attention(text_model: Any, *, varlen: bool) -> None:
    """Give a language model of transformers the attention that takes packed rows; weights and results stay the same."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    for name, uses_varlen in ((PACKED_SDPA, False), (PACKED_VARLEN, True)):
        AttentionInterface.register(name, partial(packed_attention, varlen=uses_varlen))
        AttentionMaskInterface.register(name, sdpa_mask)
    text_model.set_attn_implementation(PACKED_VARLEN if varlen else PACKED_SDPA)


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packing: Packing | None = None,
    *,
    varlen: bool = False,
    **asked: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one packed sequence, [1, heads, tokens, size] to [1, tokens, heads, size].

    ``varlen`` uses flash-attention's kernel for what lies on a GPU in half precision. Without ``packing`` this is
    transformers' ``sdpa``, its mask included.

    Raises:
        ValueError: the model asks for what is not done here, such as a sliding window.
    """
    if packing is None:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        found: tuple[torch.Tensor, None] = ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **asked
        )
        return found
    beyond = [name for name in _BEYOND if asked.get(name) is not None]
    if beyond:
        raise ValueError(f"packed rows cannot be attended to with {', '.join(beyond)}: score them padded")
    packing.attended.add(id(module))
    if varlen and query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _by_segments(query, key, value, packing, dropout, scaling), None
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    return _by_groups(query, key, value, packing, dropout, scaling), None


def _by_groups(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """Two products a group: its prompt, and its completions padded to each other for this product alone.

    A mask over the whole sequence costs its square, and one product a completion many calls where they are short: of
    a tiny model on a CPU, whole passes with 20 to 30 tokens a completion took 11 and 1.6 times as long.
    """
    parts = []
    start = 0
    for prompt, completions in packing.groups:
        end = start + prompt
        known_keys, known_values = key[:, :, start:end], value[:, :, start:end]
        attend = partial(scaled_dot_product_attention, dropout_p=dropout, scale=scaling)
        parts.append(attend(query[:, :, start:end], known_keys, known_values, is_causal=True))
        start, end = end, end + sum(completions)
        width, rows = max(completions), len(completions)
        queries, keys, values = (
            _side_by_side(states[:, :, start:end], completions, width) for states in (query, key, value)
        )
        seen = torch.ones(width, prompt + width, dtype=torch.bool, device=query.device).tril(prompt)
        found = attend(
            queries,
            torch.cat([known_keys.expand(rows, -1, -1, -1), keys], 2),
            torch.cat([known_values.expand(rows, -1, -1, -1), values], 2),
            attn_mask=seen,
        )
        parts += [found[row : row + 1, :, :count] for row, count in enumerate(completions)]
        start = end
    return torch.cat(parts, 2).transpose(1, 2).contiguous()


def _side_by_side(states: torch.Tensor, counts: Sequence[int], width: int) -> torch.Tensor:
    """Completions that follow each other, [1, heads, tokens, size], as rows [completions, heads, width, size]."""
    rows = torch.split(states, list(counts), 2)
    return torch.cat([pad(row, (0, 0, 0, width - count)) for row, count in zip(rows, counts, strict=True)])


def _by_segments(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """One call of flash-attention's kernel, whose causal rule lets a segment's last query see its last key."""
    from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found, unused-ignore]

    longest_query = max(max(prompt, *completions) for prompt, completions in packing.groups)
    longest_key = max(prompt + max(completions) for prompt, completions in packing.groups)
    found: torch.Tensor = flash_attn_varlen_func(
        query[0].transpose(0, 1).contiguous(),
        key[0].transpose(0, 1)[packing.key_places],
        value[0].transpose(0, 1)[packing.key_places],
        cu_seqlens_q=packing.query_ends,
        cu_seqlens_k=packing.key_ends,
        max_seqlen_q=longest_query,
        max_seqlen_k=longest_key,
        dropout_p=dropout,
        softmax_scale=scaling,
        causal=True,
    )
    return found[None]


def _ends(lengths: Sequence[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
