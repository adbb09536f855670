"""A vision-language model of one million random parameters, written as a folder that loads like any model.

It is what the demo trains: small enough that a whole run takes minutes on two cores, and of the same kind in every
part (architecture, tokenizer, chat template, picture processor) as the models it stands beside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

TinyFamily = Literal["qwen2_5_vl", "qwen3_vl"]

SPECIAL_TOKENS: Final = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""The control tokens of the Qwen vocabularies, in their order."""

CHAT_TEMPLATE: Final = r"""{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%}"""
"""Roles and turns as the Qwen models write them, a picture as one image token; no system message of its own."""


@dataclass(frozen=True, slots=True)
class TinySizes:
    """Sizes of the tiny model; the defaults make 1.0 million parameters, and pictures of 112 × 112 are 16 tokens.

    ``initializer_range`` is the standard deviation of the random weights in every part: with the usual 0.02 so
    shallow a model learns nothing for hundreds of steps.
    """

    hidden: int = 128
    layers: int = 3
    heads: int = 4
    key_value_heads: int = 2
    intermediate: int = 256
    vision_hidden: int = 96
    vision_layers: int = 2
    vision_heads: int = 3
    vision_intermediate: int = 192
    max_positions: int = 2048
    min_pixels: int = 56 * 56
    max_pixels: int = 224 * 224
    initializer_range: float = 0.06


def write_tiny_model(
    folder: Path,
    *,
    answer_pieces: Sequence[str],
    seed: int = 0,
    family: TinyFamily = "qwen2_5_vl",
    sizes: TinySizes = TinySizes(),
) -> Path:
    """Write model, tokenizer, chat template and processor into ``folder``, and give the folder back.

    ``answer_pieces`` are texts that become one token each, such as the fixed pieces of the answer format; they are
    not control tokens, so decoding keeps them. Same arguments, same bytes.

    Raises:
        ValueError: a piece is empty, stands twice or is a control token.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    tokenizer = tiny_tokenizer(answer_pieces)
    config = _config(family, sizes, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    _processor(family, sizes, tokenizer).save_pretrained(folder)
    return folder


def tiny_tokenizer(answer_pieces: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: one token a byte, the Qwen control tokens, and one token for each of the pieces."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    pieces = list(answer_pieces)
    if not all(pieces) or len(set(pieces)) < len(pieces) or set(pieces) & set(SPECIAL_TOKENS):
        raise ValueError(f"the answer's pieces must be distinct texts and no control tokens, not {pieces}")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    core.add_tokens([AddedToken(piece, special=False, normalized=False) for piece in pieces])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        extra_special_tokens=[t for t in SPECIAL_TOKENS if t not in ("<|im_end|>", "<|endoftext|>")],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1 << 20,
    )


def _config(family: TinyFamily, sizes: TinySizes, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import AutoConfig

    head = sizes.hidden // sizes.heads
    section = [head // 8, head // 2 // 8 * 3, head // 2 // 8 * 3]
    section[0] = head // 2 - section[1] - section[2]
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.key_value_heads,
        "intermediate_size": sizes.intermediate,
        "max_position_embeddings": sizes.max_positions,
        "initializer_range": sizes.initializer_range,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": section},
    }
    vision: dict[str, Any] = {
        "depth": sizes.vision_layers,
        "hidden_size": sizes.vision_hidden,
        "num_heads": sizes.vision_heads,
        "intermediate_size": sizes.vision_intermediate,
        "out_hidden_size": sizes.hidden,
        "initializer_range": sizes.initializer_range,
    }
    if family == "qwen2_5_vl":
        vision |= {"window_size": 112, "fullatt_block_indexes": [sizes.vision_layers - 1]}
    else:
        text |= {"head_dim": head}
        text["rope_parameters"]["mrope_interleaved"] = True
        vision |= {"num_position_embeddings": 256, "deepstack_visual_indexes": [0]}
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in {
            "image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end",
        }.items()
    }  # fmt: skip
    return AutoConfig.for_model(
        family,
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=True,
        initializer_range=sizes.initializer_range,
        **ids,
    )


def _processor(family: TinyFamily, sizes: TinySizes, tokenizer: PreTrainedTokenizerFast) -> Any:
    import transformers

    size = {"shortest_edge": sizes.min_pixels, "longest_edge": sizes.max_pixels}
    if family == "qwen2_5_vl":
        return transformers.Qwen2_5_VLProcessor(
            transformers.Qwen2VLImageProcessor(size=size),
            tokenizer,
            transformers.Qwen2VLVideoProcessor(size=size),
            chat_template=CHAT_TEMPLATE,
        )
    normal = {"patch_size": 16, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    return transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(size=size, **normal),
        tokenizer,
        transformers.Qwen3VLVideoProcessor(size=size),
        chat_template=CHAT_TEMPLATE,
    )
