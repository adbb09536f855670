"""The training recipe: everything that decides what a run does, validated whole before any work.

It is YAML like a corpus's recipe: unknown keys name the nearest known one, and all problems are reported at once.
Where a run is written, and on how many devices it runs, is not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from qoq_data.errors import RecipeError
from qoq_data.recipe_text import Section, problem_text, recipe_tree, section_lines


class LoraRecipe(Section):
    rank: int = Field(16, ge=1, le=1024)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] | Literal["all-linear"] = Field("all-linear", description="names of linear layers")


class ModelRecipe(Section):
    path: str = Field(description="a folder or a hub name: Qwen2.5-VL, Qwen3-VL or a text model")
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    lora: LoraRecipe | None = Field(None, description="null trains every weight")
    freeze_vision: bool = Field(default=False, strict=True)
    gradient_checkpointing: bool = Field(default=True, strict=True)
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"] = Field(
        "auto", description="auto: flash_attention_2 on a GPU that has it, else sdpa"
    )
    packed: Literal["auto"] | bool = Field("auto", description="no padding, and a prompt once for its completions")


class DataRecipe(Section):
    corpus: str = Field(description="folder of a corpus that qoq-data built")
    sources: tuple[str, ...] | None = Field(None, min_length=1, description="null takes all")
    tasks: tuple[str, ...] | None = Field(None, min_length=1, description="null takes all")
    max_prompt_tokens: int = Field(4000, ge=16, description="longer prompts are counted and left out, never cut")
    min_pixels: int = Field(65_536, ge=784, description="of a picture; smaller ones are enlarged")
    max_pixels: int = Field(524_288, ge=784, description="of a picture; larger ones are scaled down")
    ecg_layout: Literal["3x4", "column", "single"] = Field("3x4", description="how a signal is drawn on paper")
    ecg_pixels_per_mm: float = Field(4.0, ge=0.5, le=20)
    ecg_lead: str = Field("II", description="of single")
    shuffle_window: int = Field(64, ge=1, description="row groups whose rows are mixed with each other")


class PromptRecipe(Section):
    template: Literal["boxes", "reasoning", "short"] = Field(
        "boxes", description="asks for boxes, reasoning and answer; for the last two; or for the answer alone"
    )
    system: str = Field("", description="a system message before the question; empty for none")


class MethodRecipe(Section):
    advantage: Literal["drpo", "grpo", "dr_grpo", "rloo", "reinforce_plus_plus", "remax", "gpg"] = "drpo"
    statistics: Literal["streaming", "batch", "history"] = "streaming"
    domain_key: Literal["domain", "source"] = "domain"
    domain_scaling: bool = Field(default=True, strict=True)
    cluster_scaling: bool = Field(default=True, strict=True)
    kl_damping: bool = Field(default=True, strict=True)
    max_clusters: int = Field(10, ge=1, le=64)
    elbow_tolerance: float = Field(0.10, ge=0, lt=1)
    mean_reward_floor: float = Field(0.05, ge=0, le=1, description="0 is the paper's")
    max_weight_ratio: float | None = Field(30.0, gt=1, description="null is the paper's")
    normalise_std: bool = Field(default=True, strict=True)
    filter_zero_variance: bool = Field(default=False, strict=True, description="leave equal groups out of the loss")
    loss: Literal["ppo_clip", "gspo", "cispo"] = "ppo_clip"
    clip_low: float = Field(0.2, gt=0, lt=1, description="cispo has no such bound")
    clip_high: float = Field(0.3, gt=0)
    dual_clip: float | None = Field(3.0, gt=1)
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "sequence_mean"
    kl_coefficient: float = Field(1e-4, ge=0)
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    importance_cap: float | None = Field(2.0, gt=1, description="of the rollout mismatch's weight; null: no weight")


class RewardRecipe(Section):
    preset: Literal["default", "paper", "released"] = "default"
    weights: dict[str, float] | None = Field(None, description="by part; null takes the preset's")
    missing: Literal["renormalise", "zero"] | None = Field(
        None, description="when a part does not apply to a row; null takes the preset's"
    )
    box_overlap: Literal["matched", "mean", "max"] | None = Field(None, description="null takes the preset's")
    box_truth: Literal["boxes", "masks"] | None = Field(None, description="null takes the preset's")
    custom: tuple[str, ...] = Field((), description="rewards of your own, module:function or an entry point's name")


class RolloutRecipe(Section):
    engine: Literal["vllm", "vllm_server", "transformers"] = Field(
        "vllm", description="in each process; on servers that 'qoq-train serve' started; or transformers' own"
    )
    servers: tuple[str, ...] = Field((), description="host:port of each, for vllm_server")
    server_timeout_s: float = Field(3600.0, gt=0, description="for one answer, a whole batch of completions included")
    completions: int = Field(5, ge=2, le=256)
    questions: int = Field(512, ge=1, description="a step")
    max_tokens: int = Field(4000, ge=1)
    temperature: float = Field(1.0, gt=0, le=4)
    top_p: float = Field(0.99, gt=0, le=1)
    gpu_memory: float = Field(0.5, gt=0, le=1, description="share that the engine may take")
    probe_completions: int = Field(2, ge=0, description="scored by engine and trainer after each step; 0: no proof")
    max_weights_gap: float | None = Field(
        None, gt=0, description="in log-probability, between them; null: 0.01 in float32, 1 in bfloat16"
    )


class OptimiserRecipe(Section):
    learning_rate: float = Field(1e-6, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(1e-2, ge=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "linear"] = "constant"
    max_grad_norm: float = Field(1.0, gt=0)
    questions_per_update: int = Field(128, ge=1, description="of the step's questions")
    micro_tokens: int = Field(16_384, ge=16, description="tokens of a forward pass")


class SupervisedRecipe(Section):
    steps: int = Field(0, ge=0)
    batch: int = Field(32, ge=1, description="rows a step")
    learning_rate: float = Field(1e-5, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = Field(30, ge=0)
    answer_weight: float = Field(4.0, gt=0, description="of the answer's tokens beside those of the format")
    drawn_answers: float = Field(
        0.0,
        ge=0,
        le=1,
        description="last share of the steps: the form alone is taught, by drawn answers",
    )


class DistributedRecipe(Section):
    compute_dtype: Literal["float32", "bfloat16"] | None = Field(
        None, description="of sharded passes; null: bfloat16 on GPUs, the model's own on a CPU"
    )
    timeout_minutes: int = Field(60, ge=1, description="after which a process gives up waiting for the others")


class RunRecipe(Section):
    steps: int | None = Field(None, ge=1, description="null: as many as epochs")
    epochs: float = Field(1.0, gt=0)
    evaluate_every: int = Field(20, ge=1, description="steps; on the validation split")
    evaluation_rows: int | None = Field(None, ge=1, description="at most; null takes the whole split")
    evaluation_temperature: float = Field(0.5, ge=0, le=4)
    checkpoint_every: int = Field(20, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    sampled_completions: int = Field(64, ge=0, description="a step, kept with their rewards by part")


class TrainRecipe(Section):
    """A run: a model, a corpus, a method and how long."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="of the run")
    seed: int = Field(42, strict=True, ge=0, lt=1 << 31, description="of every draw")
    model: ModelRecipe
    data: DataRecipe
    prompt: PromptRecipe = PromptRecipe()
    method: MethodRecipe = MethodRecipe()
    rewards: RewardRecipe = RewardRecipe()
    rollout: RolloutRecipe = RolloutRecipe()
    optimiser: OptimiserRecipe = OptimiserRecipe()
    supervised: SupervisedRecipe = SupervisedRecipe()
    distributed: DistributedRecipe = DistributedRecipe()
    run: RunRecipe = RunRecipe()


def parse_train_recipe(text: str, where: str, overrides: Mapping[str, Any] = {}) -> TrainRecipe:
    """The recipe of a YAML text; ``overrides`` are dotted keys that win over it.

    Raises ``RecipeError`` with every problem found.
    """
    tree = recipe_tree(text, where, overrides)
    try:
        recipe = TrainRecipe.model_validate(tree)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise RecipeError(where, [problem_text(detail, TrainRecipe) for detail in details]) from error
    problems = []
    if recipe.data.min_pixels > recipe.data.max_pixels:
        problems.append("data.min_pixels: it is larger than data.max_pixels")
    if recipe.rollout.questions % recipe.optimiser.questions_per_update:
        problems.append("optimiser.questions_per_update: rollout.questions is no whole multiple of it")
    if (recipe.rollout.engine == "vllm_server") != bool(recipe.rollout.servers):
        problems.append("rollout.servers: vllm_server needs at least one, and no other engine takes any")
    if recipe.method.advantage == "remax" and recipe.method.filter_zero_variance:
        problems.append("method.filter_zero_variance: remax has no groups whose variance could be zero")
    if problems:
        raise RecipeError(where, problems)
    return recipe


def train_recipe_text(recipe: TrainRecipe) -> str:
    """The recipe as YAML for a person to edit: every key, most with what they mean."""
    return "\n".join(section_lines(recipe)) + "\n"
