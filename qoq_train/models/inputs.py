"""Prompts and completions as tensors: each prompt encoded once, rows grouped into batches under a token budget.

Rows are padded on the right. A token then stands in the column that is its place in the text, the causal mask alone
keeps padding out of what comes before it, and no attention mask is needed, so that the fastest attention applies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from qoq_train.models.loading import Policy, transformers_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoq_train.rollout import Prompt


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompt:
    """A prompt as the model takes it in.

    ``token_ids`` have one image token for each of the model's picture tokens; ``positions`` [3, tokens] are the
    rotary positions in time, height and width, None for a text model; ``pixels`` [patches, values] and ``grids``
    [pictures, 3] are the processor's, None without pictures.
    """

    row_id: str
    token_ids: tuple[int, ...]
    positions: torch.Tensor | None
    pixels: torch.Tensor | None
    grids: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Row:
    """A completion of the prompt with number ``prompt`` among the encoded ones."""

    prompt: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows of one forward pass, padded on the right.

    ``rows`` are their numbers in what was batched; ``input_ids`` [rows, length]; ``positions`` [3, rows, length] or
    None; ``pixels`` and ``grids`` of each distinct prompt once; ``row_pictures`` lists, row after row, which pictures
    stand in it; ``prompt_lengths`` and ``completion_lengths`` count tokens.
    """

    rows: tuple[int, ...]
    input_ids: torch.Tensor
    positions: torch.Tensor | None
    pixels: torch.Tensor | None
    grids: torch.Tensor | None
    row_pictures: tuple[int, ...]
    prompt_lengths: tuple[int, ...]
    completion_lengths: tuple[int, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        tensors = ("input_ids", "positions", "pixels", "grids")
        there = {name: tensor for name in tensors if (tensor := getattr(self, name)) is not None}
        return replace(self, **{name: tensor.to(device) for name, tensor in there.items()})


def encode_prompt(policy: Policy, prompt: Prompt) -> EncodedPrompt:
    """Expand a prompt's image tokens, prepare its pixels in float32, and find its rotary positions.

    Raises:
        ValueError: pictures and image tokens do not pair, or a picture is not at the size that the processor keeps.
    """
    if policy.pictures is None or policy.family == "text":
        if prompt.pictures:
            raise ValueError(f"{prompt.row_id}: a text model is given {len(prompt.pictures)} picture(s)")
        return EncodedPrompt(prompt.row_id, tuple(prompt.token_ids), None, None, None)
    try:
        token_ids = policy.pictures.expand(prompt.token_ids, [picture.size for picture in prompt.pictures])
    except ValueError as error:
        raise ValueError(f"{prompt.row_id}: {error}") from error
    if not prompt.pictures:
        return EncodedPrompt(prompt.row_id, token_ids, torch.arange(len(token_ids)).expand(3, -1), None, None)
    prepared = policy.processor.image_processor(images=list(prompt.pictures), return_tensors="pt")
    grids: torch.Tensor = prepared["image_grid_thw"]
    _check_grids(policy, prompt, grids)
    ids = torch.tensor([token_ids])
    core = transformers_model(policy.model).base_model
    kinds = (ids == policy.pictures.image_token_id).int()
    positions, _ = core.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grids)
    return EncodedPrompt(prompt.row_id, token_ids, positions[:, 0], prepared["pixel_values"].float(), grids)


def plan_batches(prompts: Sequence[EncodedPrompt], rows: Sequence[Row], token_budget: int) -> list[tuple[int, ...]]:
    """Which rows go together: numbers of ``rows``, each once, so that rows × longest stays within the budget.

    Rows of one prompt stay together as far as the budget allows, so that its pictures are seen once; prompts follow
    by length, the longest first, so that little is padding and too large a budget shows at once. A row that is over
    the budget by itself is a batch of its own.
    """
    lengths = [len(prompts[row.prompt].token_ids) + len(row.token_ids) for row in rows]
    longest = [0] * len(prompts)
    for row, length in zip(rows, lengths, strict=True):
        longest[row.prompt] = max(longest[row.prompt], length)
    order = sorted(range(len(rows)), key=lambda i: (-longest[rows[i].prompt], rows[i].prompt, -lengths[i], i))
    batches: list[list[int]] = []
    widest = 0
    for index in order:
        widest = max(widest, lengths[index])
        if not batches or widest * (len(batches[-1]) + 1) > token_budget:
            batches.append([])
            widest = lengths[index]
        batches[-1].append(index)
    return [tuple(batch) for batch in batches]


def make_batch(prompts: Sequence[EncodedPrompt], rows: Sequence[Row], numbers: Sequence[int], *, pad_id: int) -> Batch:
    """The rows with these numbers as one batch.

    Raises:
        ValueError: no rows, or a row without completion.
    """
    chosen = [rows[number] for number in numbers]
    if not chosen or not all(row.token_ids for row in chosen):
        raise ValueError("a batch needs rows, and each of them at least one token of completion")
    seen = list(dict.fromkeys(row.prompt for row in chosen))
    first_picture, pictures = {}, 0
    for index in seen:
        grids = prompts[index].grids
        count = 0 if grids is None else len(grids)
        first_picture[index] = range(pictures, pictures + count)
        pictures += count
    texts = [(*prompts[row.prompt].token_ids, *row.token_ids) for row in chosen]
    length = max(map(len, texts))
    input_ids = torch.full((len(texts), length), pad_id)
    for place, text in enumerate(texts):
        input_ids[place, : len(text)] = torch.tensor(text)
    pixels = [p for index in seen if (p := prompts[index].pixels) is not None]
    grids_seen = [g for index in seen if (g := prompts[index].grids) is not None]
    return Batch(
        tuple(numbers),
        input_ids,
        _positions(prompts, chosen, length),
        torch.cat(pixels) if pixels else None,
        torch.cat(grids_seen) if grids_seen else None,
        tuple(picture for row in chosen for picture in first_picture[row.prompt]),
        tuple(len(prompts[row.prompt].token_ids) for row in chosen),
        tuple(len(row.token_ids) for row in chosen),
    )


def _positions(prompts: Sequence[EncodedPrompt], chosen: Sequence[Row], length: int) -> torch.Tensor | None:
    """Rotary positions [3, rows, length]: the prompt's, and from its largest on one a token in all three."""
    known = [prompts[row.prompt].positions for row in chosen]
    if any(positions is None for positions in known):
        return None
    whole = torch.empty((3, len(chosen), length), dtype=torch.long)
    for place, positions in enumerate(known):
        assert positions is not None  # noqa: S101  (for the type checker; looked at above)
        tokens = positions.shape[1]
        whole[:, place, :tokens] = positions
        whole[:, place, tokens:] = torch.arange(length - tokens) + (int(positions.max()) + 1 if tokens else 0)
    return whole


def _check_grids(policy: Policy, prompt: Prompt, grids: Any) -> None:
    assert policy.pictures is not None  # noqa: S101  (for the type checker; the caller looked)
    patch = policy.pictures.patch_size_px
    for picture, (_, high, wide) in zip(prompt.pictures, grids.tolist(), strict=True):
        if (wide * patch, high * patch) != picture.size:
            raise ValueError(
                f"{prompt.row_id}: the processor made {wide * patch} × {high * patch} pixels of a picture of "
                f"{picture.size[0]} × {picture.size[1]}"
            )
