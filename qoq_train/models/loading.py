"""A policy to train: a Qwen2.5-VL, a Qwen3-VL or a text-only causal model, by folder or hub name, and its processor."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal

from qoq_data.errors import MissingExtraError, UsageError
from qoq_train.models.packing import use_packed_attention, why_not_packed
from qoq_train.models.patches import use_patch_products
from qoq_train.models.pictures import PictureRule

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

ModelFamily = Literal["qwen2_5_vl", "qwen3_vl", "text"]

_TEXT_SCALES: Final = ("final_logit_softcapping", "logit_scale", "logits_scaling", "attn_logit_softcapping")
"""Config keys of models whose logits are more than the head's product; the scoring here would miss that."""


@dataclass(frozen=True, slots=True)
class LoraChoice:
    """Low-rank adapters on the language model: their rank, scale (alpha over rank), dropout and linear layers."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model, and how it is held. ``min_pixels`` and ``max_pixels`` bound width × height of a picture.

    ``attention`` is transformers' name of an implementation; ``auto`` is flash_attention_2 where flash-attn is
    installed, there is a GPU, and the model supports it in its ``dtype``, else transformers' choice. ``packed`` scores
    rows without padding, each prompt once for all of its completions; ``auto`` does so where the attention allows it,
    which is with sdpa or flash_attention_2 and layers that see the whole row.
    """

    path: str
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    lora: LoraChoice | None = None
    gradient_checkpointing: bool = False
    freeze_vision: bool = False
    min_pixels: int | None = None
    max_pixels: int | None = None
    attention: str = "auto"
    packed: bool | Literal["auto"] = "auto"


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A model with all that a prompt, a rollout and a score need to know of it.

    ``end_ids`` end a completion; ``banned_ids`` are never drawn, and carry no probability where the policy is scored:
    the tokens that stand for pictures and videos. ``pictures`` and ``processor`` are None for a text model. ``packed``
    says that the model's attention takes packed rows.
    """

    choice: ModelChoice
    family: ModelFamily
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    processor: Any
    pictures: PictureRule | None
    end_ids: tuple[int, ...]
    banned_ids: tuple[int, ...]
    pad_id: int
    packed: bool = False


def model_family(config: PretrainedConfig) -> ModelFamily:
    """Which of the supported kinds a model's config describes.

    Raises:
        UsageError: a vision or encoder-decoder model of another kind.
    """
    kind = str(config.model_type)
    if kind == "qwen2_5_vl":
        return "qwen2_5_vl"
    if kind == "qwen3_vl":
        return "qwen3_vl"
    if hasattr(config, "vision_config") or hasattr(config, "audio_config") or config.is_encoder_decoder:
        raise UsageError(f"models of type {kind!r} are not supported: use Qwen2.5-VL, Qwen3-VL or a text-only model")
    scaled = [key for key in _TEXT_SCALES if getattr(config, key, None) not in (None, 1.0)]
    if scaled:
        raise UsageError(f"models of type {kind!r} are not supported: they scale their logits ({', '.join(scaled)})")
    return "text"


def load_policy(choice: ModelChoice) -> Policy:
    """Load model, tokenizer and processor, on the CPU, in training mode, with what is frozen and adapted as chosen.

    Raises:
        UsageError: there is no such model, it is of a kind that is not supported, or a choice does not fit it.
        MissingExtraError: peft is chosen and not installed.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(choice.path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no model is found at {choice.path!r}: {_first_line(error)} Give a folder with its config, or a hub name"
        ) from error
    family = model_family(config)
    if family == "text" and choice.freeze_vision:
        raise UsageError(f"freeze_vision is set, and {choice.path!r} has no vision tower")
    auto = AutoModelForCausalLM if family == "text" else AutoModelForImageTextToText
    extra = {} if choice.attention == "auto" else {"attn_implementation": choice.attention}
    try:
        model = auto.from_pretrained(choice.path, dtype=getattr(torch, choice.dtype), **extra)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"the model at {choice.path!r} cannot be loaded: {_first_line(error)}") from error
    tokenizer, processor, pictures = _processing(choice, family, config)
    banned = () if family == "text" else (int(config.image_token_id), int(config.video_token_id))
    ends = _end_ids(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    packed = _set_attention(model, family, choice)
    prepared = _prepared(model, family, choice)
    return Policy(choice, family, prepared, tokenizer, processor, pictures, ends, banned, int(pad), packed)


def transformers_model(model: nn.Module) -> Any:
    """The model of transformers inside what wraps it for data parallelism, compilation or adapters."""
    inner: Any = model
    while True:
        if hasattr(inner, "get_base_model"):
            inner = inner.get_base_model()
        elif hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod  # noqa: SLF001  (torch.compile has no public way)
        elif type(inner).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = inner.module
        else:
            return inner


def _processing(choice: ModelChoice, family: ModelFamily, config: Any) -> tuple[Any, Any, PictureRule | None]:
    from transformers import AutoProcessor, AutoTokenizer

    try:
        if family == "text":
            return AutoTokenizer.from_pretrained(choice.path), None, None
        processor = AutoProcessor.from_pretrained(choice.path)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(
            f"the tokenizer or processor at {choice.path!r} cannot be loaded: {_first_line(error)}"
        ) from error
    size = processor.image_processor.size
    least = choice.min_pixels or int(size["shortest_edge"])
    most = choice.max_pixels or int(size["longest_edge"])
    if least > most:
        raise UsageError(f"min_pixels is {least}, over max_pixels, {most}")
    processor.image_processor.size = {"shortest_edge": least, "longest_edge": most}
    rule = PictureRule.of_processor(processor.image_processor, int(config.image_token_id))
    return processor.tokenizer, processor, rule


def _set_attention(model: Any, family: ModelFamily, choice: ModelChoice) -> bool:
    """Set the attention of each part of a model that was just loaded; gives whether it takes packed rows."""
    import torch

    has_kernel = torch.cuda.is_available() and find_spec("flash_attn") is not None
    supports_kernel = getattr(model, "_supports_flash_attn", getattr(model, "_supports_flash_attn_2", False))
    if choice.attention == "auto" and choice.dtype == "bfloat16" and has_kernel and supports_kernel:
        model.set_attn_implementation("flash_attention_2")
    if choice.packed is False:
        return False
    text_model = model if family == "text" else model.base_model.language_model
    used = str(text_model.config._attn_implementation)  # noqa: SLF001  (transformers has no public way)
    wanted = choice.attention in ("auto", "sdpa", "flash_attention_2") and used in ("sdpa", "flash_attention_2")
    reason = why_not_packed(text_model) if wanted else f"the attention {used} takes none"
    if reason is None:
        use_packed_attention(text_model, varlen=has_kernel and choice.attention != "sdpa")
    elif choice.packed is True:
        raise UsageError(f"rows cannot be packed: {reason}. Set packed to auto, and they are padded")
    return reason is None


def _prepared(model: Any, family: ModelFamily, choice: ModelChoice) -> nn.Module:
    if family != "text":
        use_patch_products(model)
    if choice.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if choice.freeze_vision:
        model.model.visual.requires_grad_(False)  # noqa: FBT003
    policy: nn.Module = _with_adapters(model, family, choice.lora) if choice.lora else model
    return policy.train()


def _with_adapters(model: Any, family: ModelFamily, lora: LoraChoice) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError("peft", "train", "LoRA") from error
    from torch import nn

    prefix = "" if family == "text" else "model.language_model."
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith(prefix)
        and name != "lm_head"
        and (lora.targets == "all-linear" or name.rsplit(".", 1)[-1] in lora.targets)
    ]
    unknown = [] if lora.targets == "all-linear" else [t for t in lora.targets if not any(_ends(n, t) for n in layers)]
    if unknown or not layers:
        raise UsageError(f"LoRA targets {unknown} are no linear layers of this language model")
    settings: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    config = LoraConfig(target_modules=layers, task_type="CAUSAL_LM", **settings)
    return get_peft_model(model, config)


def _ends(name: str, target: str) -> bool:
    return name.rsplit(".", 1)[-1] == target


def _end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's end of turn and those that the model's generation config names, each once."""
    named = model.generation_config.eos_token_id
    ids = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    found = tuple(dict.fromkeys(int(token) for token in ids if token is not None))
    if not found:
        raise UsageError("the model's tokenizer and generation config name no token that ends a completion")
    return found


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
