"""A model's counts from its config alone: its layers are laid out without memory, and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qoq_data.errors import UsageError
from qoq_train.doctor.phases import ModelSize, TowerSize

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from qoq_train.recipe import LoraRecipe


def model_size(config: PretrainedConfig, lora: LoraRecipe | None = None, *, freeze_vision: bool = False) -> ModelSize:
    """The counts of a model of this config, with adapters and a frozen vision tower as a recipe has them.

    Adapters go to the layers that ``load_policy`` gives them to. Raises ``UsageError`` for a model of another kind or
    adapters that fit no layer, and ``ValueError`` for a config of which transformers makes no model.
    """
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    from qoq_train.models.loading import model_family

    family = model_family(config)
    auto: Any = AutoModelForCausalLM if family == "text" else AutoModelForImageTextToText
    with torch.device("meta"):
        model: nn.Module = auto.from_config(config)
    lists = {f"{name}.": module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = [module for name, module in lists.items() if not any(name != up and name.startswith(up) for up in lists)]
    blocks = [_count(block) for one in outer for block in one]
    parameters = _count(model)
    vision_parameters = 0 if family == "text" else _count(model.get_submodule("model.visual"))
    adapters = 0
    if lora is not None:
        shapes = _adapted_shapes(model, "" if family == "text" else "model.language_model.", lora.targets)
        adapters = sum(lora.rank * (out_features + in_features) for out_features, in_features in shapes)
    whole_is_trained = parameters - (vision_parameters if freeze_vision else 0)
    text = config.get_text_config()
    vision = getattr(config, "vision_config", None)
    return ModelSize(
        parameters=parameters,
        trained=whole_is_trained if lora is None else adapters,
        adapters=adapters,
        largest_weight=max(parameter.numel() for parameter in model.parameters()),
        largest_block=max(blocks, default=0),
        root=parameters - sum(blocks),
        vocabulary=int(text.vocab_size),
        text=_text_tower(text),
        vision=None if vision is None else _vision_tower(vision),
        patches_per_token=0 if vision is None else int(vision.spatial_merge_size) ** 2,
        vision_is_trained=vision is not None and lora is None and not freeze_vision,
    )


def _adapted_shapes(model: Any, prefix: str, targets: tuple[str, ...] | str) -> list[tuple[int, int]]:
    from torch import nn

    linear = [
        (name.rpartition(".")[2], module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(prefix) and name != "lm_head"
    ]
    unknown = [] if isinstance(targets, str) else sorted(set(targets) - {leaf for leaf, _ in linear})
    if unknown or not linear:
        raise UsageError(f"LoRA targets {unknown} are no linear layers of this language model")
    chosen = [module for leaf, module in linear if isinstance(targets, str) or leaf in targets]
    return [(module.out_features, module.in_features) for module in chosen]


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _text_tower(text: Any) -> TowerSize:
    heads = int(text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    key_value_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    return TowerSize(
        int(text.num_hidden_layers),
        int(text.hidden_size),
        int(text.intermediate_size),
        heads * width,
        key_value_heads * width,
    )


def _vision_tower(vision: Any) -> TowerSize:
    hidden = int(vision.hidden_size)
    return TowerSize(int(vision.depth), hidden, int(vision.intermediate_size), hidden, hidden)
