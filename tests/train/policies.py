"""Tiny policies and prompts that the tests of models and rollouts share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from qoq_train.models.loading import LoraChoice, ModelChoice, Policy, load_policy
from qoq_train.models.tiny import tiny_tokenizer, write_tiny_model
from qoq_train.rollout import Prompt

PIECES = ("<think>", "</think>", "\\boxed{")
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"


def policy_at(folder: Path, *, lora: bool = False, **choices: object) -> Policy:
    """A float32 policy of the model in a folder, adapters with weights that are not zero."""
    policy = load_policy(ModelChoice(str(folder), dtype="float32", lora=LoraChoice() if lora else None, **choices))  # type: ignore[arg-type]
    if lora:
        change(policy, 0.05)
    return policy


def write_text_model(folder: Path) -> Path:
    """A text-only model of two layers, its head not tied."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = tiny_tokenizer(PIECES)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=False, initializer_range=0.1,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def change(policy: Policy, size: float, seed: int = 7) -> None:
    """Add noise to every weight that is trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.model.parameters():
            if weight.requires_grad:
                weight.add_(size * torch.randn(weight.shape, generator=generator))


def picture(policy: Policy, size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Noise of a given (width, height), at the size that the policy's processor keeps."""
    assert policy.pictures is not None
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return policy.pictures.fit(Image.fromarray(values))


def prompt_of(policy: Policy, text: str, *pictures: Image.Image, row_id: str = "row") -> Prompt:
    """A prompt whose pictures stand before its text."""
    return Prompt(row_id, tuple(policy.tokenizer(PICTURE * len(pictures) + text).input_ids), pictures)


def three_prompts(policy: Policy) -> list[Prompt]:
    """Two pictures, none, and one, in texts of different lengths."""
    return [
        prompt_of(policy, "what?", picture(policy, (112, 112), 1), picture(policy, (140, 84), 2), row_id="a"),
        prompt_of(policy, "hello there", row_id="b"),
        prompt_of(policy, "which of these?", picture(policy, (84, 112), 3), row_id="c"),
    ]


COMPLETIONS = [[[1, 2, 3], [4, 5, 6, 7, 8], [9]], [[3, 4], [200]], [[8, 8, 8, 8], [200, 100]]]


def model_folder(family: str, folder: Path) -> Path:
    """The tiny model of a family."""
    return write_tiny_model(folder, answer_pieces=PIECES, family=family)  # type: ignore[arg-type]
