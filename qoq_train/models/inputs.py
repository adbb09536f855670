"""Prompts and completions as tensors: each prompt encoded once, rows grouped into batches under a token budget.

Rows are packed where the model's attention takes them so (``packing.py``): nothing is padding, and a prompt stands once
for all of its completions in the batch. Else they are padded on the right. A token then stands in the column that is
its place in the text, the causal mask alone keeps padding out of what comes before it, and no attention mask is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from qoq_train.models.loading import Policy, transformers_model
from qoq_train.models.packing import Packing

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
    """Rows of one forward pass: padded on the right, or with ``packing`` as one row of tokens.

    ``rows`` are their numbers in what was batched. ``input_ids`` [rows, length], or packed [1, tokens]; ``positions``
    [3, rows, length] or [3, 1, tokens], of a text model None or [1, tokens]. ``pixels`` and ``grids`` of each distinct
    prompt once, and ``shown_pictures`` says which of them stand in ``input_ids``, one after the other.
    ``prompt_lengths`` and ``completion_lengths`` count tokens. ``targets`` are the completions' tokens, row after row,
    on the CPU, and ``drawn_from`` the place in the flat ``input_ids`` from which each was drawn.
    """

    rows: tuple[int, ...]
    input_ids: torch.Tensor
    positions: torch.Tensor | None
    pixels: torch.Tensor | None
    grids: torch.Tensor | None
    shown_pictures: tuple[int, ...]
    prompt_lengths: tuple[int, ...]
    completion_lengths: tuple[int, ...]
    drawn_from: torch.Tensor
    targets: torch.Tensor
    packing: Packing | None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device, but for its targets."""
        parts = ("input_ids", "positions", "pixels", "grids", "drawn_from", "packing")
        there = {name: part for name in parts if (part := getattr(self, name)) is not None}
        return replace(self, **{name: part.to(device) for name, part in there.items()})


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


def plan_batches(
    prompts: Sequence[EncodedPrompt], rows: Sequence[Row], token_budget: int, *, packed: bool = False
) -> list[tuple[int, ...]]:
    """Which rows go together: numbers of ``rows``, each once, so that the tokens of a pass stay within the budget.

    Those are rows × longest, or packed each prompt once and its completions. Rows of one prompt stay together as far
    as the budget allows, so that it is seen once; prompts follow by length, the longest first, so that little is
    padding and too large a budget shows at once. A row that is over the budget by itself is a batch of its own.
    """
    lengths = [len(prompts[row.prompt].token_ids) + len(row.token_ids) for row in rows]
    longest = [0] * len(prompts)
    for row, length in zip(rows, lengths, strict=True):
        longest[row.prompt] = max(longest[row.prompt], length)
    order = sorted(range(len(rows)), key=lambda i: (-longest[rows[i].prompt], rows[i].prompt, -lengths[i], i))
    batches: list[list[int]] = []
    widest = tokens = 0
    for index in order:
        shares = bool(batches) and rows[batches[-1][-1]].prompt == rows[index].prompt
        widest = max(widest, lengths[index])
        tokens += len(rows[index].token_ids) if shares else lengths[index]
        if not batches or (tokens if packed else widest * (len(batches[-1]) + 1)) > token_budget:
            batches.append([])
            widest = tokens = lengths[index]
        batches[-1].append(index)
    return [tuple(batch) for batch in batches]


def make_batch(
    prompts: Sequence[EncodedPrompt], rows: Sequence[Row], numbers: Sequence[int], *, pad_id: int, packed: bool = False
) -> Batch:
    """The rows with these numbers as one batch; ``packed`` only where the policy is.

    Raises:
        ValueError: no rows, a row without completion, or a prompt without tokens.
    """
    chosen = [rows[number] for number in numbers]
    if not chosen or not all(row.token_ids and prompts[row.prompt].token_ids for row in chosen):
        raise ValueError("a batch needs rows, and each of them at least one token of prompt and one of completion")
    seen = list(dict.fromkeys(row.prompt for row in chosen))
    first_picture, pictures = {}, 0
    for index in seen:
        grids = prompts[index].grids
        count = 0 if grids is None else len(grids)
        first_picture[index] = range(pictures, pictures + count)
        pictures += count
    pixels = [p for index in seen if (p := prompts[index].pixels) is not None]
    grids_seen = [g for index in seen if (g := prompts[index].grids) is not None]
    laid = _packed(prompts, chosen, seen) if packed else _padded(prompts, chosen, pad_id)
    return Batch(
        tuple(numbers),
        laid.input_ids,
        laid.positions,
        torch.cat(pixels) if pixels else None,
        torch.cat(grids_seen) if grids_seen else None,
        tuple(n for index in (seen if packed else [row.prompt for row in chosen]) for n in first_picture[index]),
        tuple(len(prompts[row.prompt].token_ids) for row in chosen),
        tuple(len(row.token_ids) for row in chosen),
        torch.cat(laid.drawn_from),
        torch.tensor([token for row in chosen for token in row.token_ids]),
        laid.packing,
    )


class _Laid(NamedTuple):
    """Tokens as a model takes them in, and for each row from where its completion was drawn."""

    input_ids: torch.Tensor
    positions: torch.Tensor | None
    drawn_from: list[torch.Tensor]
    packing: Packing | None


def _padded(prompts: Sequence[EncodedPrompt], chosen: Sequence[Row], pad_id: int) -> _Laid:
    texts = [(*prompts[row.prompt].token_ids, *row.token_ids) for row in chosen]
    length = max(map(len, texts))
    input_ids = torch.full((len(texts), length), pad_id)
    for place, text in enumerate(texts):
        input_ids[place, : len(text)] = torch.tensor(text)
    starts = [place * length + len(prompts[row.prompt].token_ids) - 1 for place, row in enumerate(chosen)]
    drawn_from = [start + torch.arange(len(row.token_ids)) for start, row in zip(starts, chosen, strict=True)]
    positions = None
    if prompts[chosen[0].prompt].positions is not None:
        of_rows = [_positions(prompts[row.prompt], length - len(prompts[row.prompt].token_ids)) for row in chosen]
        positions = torch.stack([torch.cat(parts, dim=1) for parts in of_rows], dim=1)
    return _Laid(input_ids, positions, drawn_from, None)


def _packed(prompts: Sequence[EncodedPrompt], chosen: Sequence[Row], seen: Sequence[int]) -> _Laid:
    tokens: list[int] = []
    positions: list[torch.Tensor] = []
    drawn_from = [torch.empty(0, dtype=torch.long)] * len(chosen)
    groups: list[tuple[int, list[int]]] = []
    for index in seen:
        prompt = prompts[index]
        tokens += prompt.token_ids
        last = len(tokens) - 1
        groups.append((len(prompt.token_ids), []))
        of_prompt, after = _positions(prompt, max(len(row.token_ids) for row in chosen if row.prompt == index))
        positions.append(of_prompt)
        for number, row in enumerate(chosen):
            if row.prompt == index:
                count = len(row.token_ids)
                before = torch.arange(len(tokens) - 1, len(tokens) - 1 + count)
                before[0] = last
                drawn_from[number] = before
                tokens += row.token_ids
                positions.append(after[:, :count])
                groups[-1][1].append(count)
    whole = torch.cat(positions, dim=1)
    rotary = whole if prompts[seen[0]].positions is None else whole[:, None]
    return _Laid(torch.tensor([tokens]), rotary, drawn_from, Packing.of(groups))


def _positions(prompt: EncodedPrompt, more: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary positions [3 or 1, tokens] of a prompt, and of ``more`` tokens after its largest, one a token."""
    known = prompt.positions
    if known is None:
        known = torch.arange(len(prompt.token_ids))[None]
    return known, (torch.arange(more) + int(known.max()) + 1).expand(len(known), -1)


def _check_grids(policy: Policy, prompt: Prompt, grids: Any) -> None:
    assert policy.pictures is not None  # noqa: S101  (for the type checker; the caller looked)
    patch = policy.pictures.patch_size_px
    for picture, (_, high, wide) in zip(prompt.pictures, grids.tolist(), strict=True):
        if (wide * patch, high * patch) != picture.size:
            raise ValueError(
                f"{prompt.row_id}: the processor made {wide * patch} × {high * patch} pixels of a picture of "
                f"{picture.size[0]} × {picture.size[1]}"
            )
