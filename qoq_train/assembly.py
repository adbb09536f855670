"""A recipe's parts put together: the corpus, the policy, what writes its prompts and what judges its completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qoq_train.coordinates import Convention
from qoq_train.data import Corpus, Example
from qoq_train.models.loading import LoraChoice, ModelChoice, ModelFamily, Policy, load_policy
from qoq_train.prompts import PromptWriter, asks_for_boxes
from qoq_train.rewards import BoxTruth, RewardSettings, RowFacts, UserReward, load_reward, settings_of

if TYPE_CHECKING:
    from qoq_train.recipe import ModelRecipe, RewardRecipe, TrainRecipe
    from qoq_train.rollout import RolloutEngine

CONVENTIONS: Final[dict[ModelFamily, Convention]] = {
    "qwen2_5_vl": Convention.RESIZED_PIXELS,
    "qwen3_vl": Convention.THOUSANDTHS,
    "text": Convention.PIXELS,
}


@dataclass(frozen=True, slots=True, eq=False)
class Assembly:
    """Everything of a run but its folder and its engine."""

    recipe: TrainRecipe
    corpus: Corpus
    policy: Policy
    writer: PromptWriter
    rewards: RewardSettings
    user_rewards: tuple[UserReward, ...]


def assemble(recipe: TrainRecipe) -> Assembly:
    """Open the corpus and load the policy; raises the errors of both, and ``UsageError`` for rewards that cannot be."""
    corpus = Corpus(recipe.data)
    policy = load_policy(model_choice(recipe.model, recipe.data.min_pixels, recipe.data.max_pixels))
    chat = policy.processor or policy.tokenizer
    writer = PromptWriter.of_recipe(
        chat, policy.pictures, CONVENTIONS[policy.family], recipe.prompt, recipe.data.max_prompt_tokens
    )
    user_rewards = tuple(load_reward(name) for name in recipe.rewards.custom)
    return Assembly(recipe, corpus, policy, writer, reward_settings(recipe.rewards), user_rewards)


def model_choice(recipe: ModelRecipe, min_pixels: int, max_pixels: int) -> ModelChoice:
    """How the recipe wants its model held."""
    lora = recipe.lora
    return ModelChoice(
        recipe.path,
        recipe.dtype,
        LoraChoice(lora.rank, lora.alpha, lora.dropout, lora.targets) if lora else None,
        recipe.gradient_checkpointing,
        recipe.freeze_vision,
        min_pixels,
        max_pixels,
    )


def reward_settings(recipe: RewardRecipe) -> RewardSettings:
    """The preset with what the recipe puts in place of its own."""
    return settings_of(recipe.preset, weights=recipe.weights, missing=recipe.missing, overlap=recipe.box_overlap)


def start_engine(assembly: Assembly) -> RolloutEngine:
    """The engine that the recipe names, with the policy's weights."""
    from qoq_train.models.weights import state_for_engine

    recipe = assembly.recipe
    engine: RolloutEngine
    if recipe.rollout.engine == "vllm":
        from qoq_train.rollout.vllm_engine import VllmChoice, VllmEngine

        tokens = recipe.data.max_prompt_tokens + recipe.rollout.max_tokens
        sequences = min(256, recipe.rollout.questions * recipe.rollout.completions)
        engine = VllmEngine(
            assembly.policy,
            VllmChoice(max_model_tokens=tokens, max_sequences=sequences, gpu_memory=recipe.rollout.gpu_memory),
        )
    else:
        from qoq_train.rollout.transformers_engine import TransformersEngine

        engine = TransformersEngine(assembly.policy)
    engine.load_weights(state_for_engine(assembly.policy.model))
    return engine


def facts_of(example: Example, writer: PromptWriter) -> RowFacts:
    """What completions of a row are judged by."""
    boxes = BoxTruth.of_boxes(example.boxes, writer.frames(example)) if example.boxes_known else None
    return RowFacts(
        key=example.key,
        boxes=boxes,
        boxes_expected=asks_for_boxes(example, writer.template),
        id=example.row_id,
        source=example.source,
        domain=str(example.domain),
        task=example.task,
        question=example.question,
    )
