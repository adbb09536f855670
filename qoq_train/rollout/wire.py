"""Messages between a trainer and its rollout servers: a JSON object and named tensors in one safetensors container.

Nothing in a message is ever executed, and every length in it is checked before it is used. Pictures travel as their
pixels, numbers as they are in memory, so both sides hold the same values to the last bit.
"""

from __future__ import annotations

import json
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image

from qoq_train.rollout import Completion, Prompt, Sampling

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PROTOCOL: Final = 1
CONTENT_TYPE: Final = "application/x-qoq-safetensors"
_HEADER_BYTES: Final = 32 << 20  # of a container: names, shapes and places of its tensors, and the JSON object
_LARGEST_COUNT: Final = 1 << 24

_DTYPES: Final = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

Message = dict[str, Any]
Tensors = dict[str, torch.Tensor]
Body = list[memoryview]


class WireError(ValueError):
    """A message is not what the protocol says."""


def pack(message: Mapping[str, Any], tensors: Mapping[str, torch.Tensor] = {}) -> Body:
    """One container, in parts that are to be sent one after the other.

    Tensors may lie on any device, share memory or be views: what is sent is their values. Those in the host's memory
    are not copied, so they must stay as they are until the parts have been sent.

    Raises:
        ValueError: a tensor of a kind that is not sent.
    """
    header: dict[str, Any] = {"__metadata__": {"message": json.dumps(message, allow_nan=False)}}
    parts, end = [], 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"{name} is of {tensor.dtype}, which is not sent")
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        place = [end, end := end + values.nbytes]
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        parts.append(values.data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format wants its tensors to begin at a multiple of 8
    return [memoryview(len(text).to_bytes(8, "little") + text), *parts]


def unpack(body: bytes) -> tuple[Message, Tensors]:
    """The object and the tensors of a container.

    Raises:
        WireError: it is cut, malformed, or holds no JSON object.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    length = int.from_bytes(body[:8], "little")
    if len(body) < 8 or length > min(len(body) - 8, _HEADER_BYTES):
        raise WireError("the message is cut, or is no safetensors container")
    try:
        tensors = load(body)
        message = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["message"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError(f"the message cannot be read ({type(error).__name__})") from error
    if not isinstance(message, dict):
        raise WireError("the message is no JSON object")
    return message, tensors


def field(message: Mapping[str, Any], name: str, kind: type) -> Any:
    """A value of the object that must be of one kind; a whole number passes for a float, True for neither.

    Raises:
        WireError: it is absent or of another kind.
    """
    value = message.get(name)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise WireError(f"{name} must be {kind.__name__}, and is {type(value).__name__}")
    return value


def pack_lists(name: str, lists: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensors:
    """Lists of numbers as one tensor of all values and one of the lists' lengths."""
    values = [value for one in lists for value in one]
    lengths = [len(one) for one in lists]
    return {name: torch.tensor(values, dtype=dtype), f"{name}_lengths": torch.tensor(lengths, dtype=torch.int64)}


def unpack_lists(tensors: Mapping[str, torch.Tensor], name: str, dtype: torch.dtype) -> list[list[Any]]:
    """The lists again.

    Raises:
        WireError: a tensor is absent or of another kind, or the lengths do not add up.
    """
    values, lengths = _vector(tensors, name, dtype), _vector(tensors, f"{name}_lengths", torch.int64).tolist()
    if any(length < 0 for length in lengths) or sum(lengths) != len(values):
        raise WireError(f"the lengths of {name} do not add up to its values")
    whole, ends = values.tolist(), list(accumulate(lengths))
    return [whole[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def pack_prompts(prompts: Sequence[Prompt]) -> tuple[Message, Tensors]:
    """Prompts with their pictures' pixels.

    Raises:
        ValueError: a picture is not 8-bit RGB.
    """
    tensors = pack_lists("token_ids", [prompt.token_ids for prompt in prompts], torch.int64)
    pictures = [(prompt.row_id, picture) for prompt in prompts for picture in prompt.pictures]
    for number, (row_id, picture) in enumerate(pictures):
        if picture.mode != "RGB":
            raise ValueError(f"{row_id}: a picture has pixels of mode {picture.mode}; prompts hold RGB")
        tensors[f"picture{number}"] = torch.from_numpy(np.array(picture))
    row_ids = [prompt.row_id for prompt in prompts]
    return {"row_ids": row_ids, "pictures": [len(prompt.pictures) for prompt in prompts]}, tensors


def unpack_prompts(message: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> list[Prompt]:
    """The prompts again, their pixels as they were.

    Raises:
        WireError: they are not as ``pack_prompts`` writes them.
    """
    row_ids, counts = field(message, "row_ids", list), field(message, "pictures", list)
    token_ids = unpack_lists(tensors, "token_ids", torch.int64)
    if not len(row_ids) == len(counts) == len(token_ids):
        raise WireError(f"{len(row_ids)} row ids, {len(counts)} counts of pictures and {len(token_ids)} lists of ids")
    if not all(type(one) is str for one in row_ids) or not all(type(n) is int and n >= 0 for n in counts):
        raise WireError("row ids must be texts, and counts of pictures whole numbers")
    if sum(counts) != sum(name.startswith("picture") for name in tensors):
        raise WireError("the counts of pictures do not add up to the pictures")
    ends = list(accumulate(counts))
    return [
        Prompt(row_id, tuple(ids), tuple(_picture(tensors, number) for number in range(end - count, end)))
        for row_id, ids, count, end in zip(row_ids, token_ids, counts, ends, strict=True)
    ]


def pack_sampling(sampling: Sampling) -> Message:
    """How completions are drawn, as a JSON object."""
    return {name: getattr(sampling, name) for name in Sampling.__slots__}


def unpack_sampling(message: Mapping[str, Any]) -> Sampling:
    """The sampling again.

    Raises:
        WireError: a value is absent, of another kind or out of range.
    """
    sampling = Sampling(
        field(message, "completions", int),
        field(message, "max_tokens", int),
        field(message, "temperature", float),
        field(message, "top_p", float),
        field(message, "seed", int),
    )
    whole = 1 <= sampling.completions <= _LARGEST_COUNT and 1 <= sampling.max_tokens <= _LARGEST_COUNT
    if not (whole and 0 <= sampling.temperature < float("inf") and 0 < sampling.top_p <= 1):
        raise WireError("a value of the sampling is out of range")
    return sampling


def pack_completions(drawn: Sequence[Sequence[Completion]]) -> tuple[Message, Tensors]:
    """All completions in the order of the prompts, float64 as Python holds them."""
    flat = [one for group in drawn for one in group]
    tensors = pack_lists("token_ids", [one.token_ids for one in flat], torch.int64)
    tensors |= pack_lists("log_probabilities", [one.log_probabilities for one in flat], torch.float64)
    tensors["stopped"] = torch.tensor([one.stopped for one in flat], dtype=torch.bool)
    return {"groups": [len(group) for group in drawn]}, tensors


def unpack_completions(
    message: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], *, prompts: int, completions: int
) -> list[list[Completion]]:
    """The completions again, ``completions`` of each of so many ``prompts``.

    Raises:
        WireError: they are not so many, or tokens and log-probabilities do not pair or are not finite.
    """
    if field(message, "groups", list) != [completions] * prompts:
        raise WireError(f"it gave not {completions} completions of each of {prompts} prompts")
    ids = unpack_lists(tensors, "token_ids", torch.int64)
    values = unpack_lists(tensors, "log_probabilities", torch.float64)
    stopped = _vector(tensors, "stopped", torch.bool).tolist()
    if not len(ids) == len(values) == len(stopped) == prompts * completions:
        raise WireError("it gave not as many completions as it says")
    if any(len(a) != len(b) for a, b in zip(ids, values, strict=True)):
        raise WireError("its tokens and log-probabilities do not pair")
    if not bool(torch.isfinite(tensors["log_probabilities"]).all()):
        raise WireError("a log-probability of it is not finite")
    flat = [Completion(tuple(a), tuple(b), c) for a, b, c in zip(ids, values, stopped, strict=True)]
    return [flat[start : start + completions] for start in range(0, len(flat), completions)]


def pack_weights(message: Mapping[str, Any], chunk: Iterable[tuple[str, torch.Tensor]]) -> Body:
    """A chunk of weights under their names.

    Raises:
        ValueError: a name stands twice in it.
    """
    pairs = list(chunk)
    tensors = dict(pairs)
    if len(tensors) != len(pairs):
        raise ValueError("a weight stands twice among those to hand over")
    return pack(message, tensors)


def _vector(tensors: Mapping[str, torch.Tensor], name: str, dtype: torch.dtype) -> torch.Tensor:
    found = tensors.get(name)
    if found is None or found.dim() != 1 or found.dtype != dtype:
        raise WireError(f"{name} is no list of {dtype} values")
    return found


def _picture(tensors: Mapping[str, torch.Tensor], number: int) -> Image.Image:
    pixels = tensors.get(f"picture{number}")
    if pixels is None or pixels.dtype != torch.uint8 or pixels.dim() != 3 or pixels.shape[2] != 3 or not pixels.numel():
        raise WireError(f"picture {number} is no array of 8-bit RGB pixels")
    return Image.fromarray(pixels.numpy(), "RGB")
