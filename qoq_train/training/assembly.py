"""A recipe's parts put together: the corpus, the policy, what writes its prompts and what judges its completions."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import torch

from qoq_train.coordinates import Convention
from qoq_train.data.corpus import Corpus, Example
from qoq_train.models.loading import LoraChoice, ModelChoice, ModelFamily, Policy, load_policy
from qoq_train.models.weights import state_for_engine
from qoq_train.prompts import PromptWriter, asks_for_boxes
from qoq_train.rewards import BoxTruth, RewardSettings, RowFacts, UserReward, load_reward, settings_of
from qoq_train.training.memory_errors import memory_told
from qoq_train.training.ranks import Ranks, start_ranks
from qoq_train.training.sharding import InStep, make_scorer

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
    """Everything of a run but its folder and its engine. ``scorer`` is the one way to the policy's weights."""

    recipe: TrainRecipe
    corpus: Corpus
    policy: Policy
    writer: PromptWriter
    rewards: RewardSettings
    user_rewards: tuple[UserReward, ...]
    ranks: Ranks
    scorer: InStep

    @property
    def compute_dtype(self) -> torch.dtype:
        """The precision of the policy's passes, and of the engine."""
        return sharded_dtype(self.recipe, self.ranks) or model_dtype(self.recipe)

    def load_engine(self, engine: RolloutEngine) -> None:
        """Give an engine the policy's weights as they are now; all ranks together."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what torch holds back is not there for the engine that wakes up
        differs = self.compute_dtype != model_dtype(self.recipe)
        engine.load_weights(state_for_engine(self.policy.model, self.compute_dtype if differs else None))


def assemble(recipe: TrainRecipe) -> Assembly:
    """Open the corpus and load the policy, onto this process's GPU where there is one.

    Where a launcher started this process with others, it joins them and keeps its part of the policy. Raises the errors
    of both, ``UsageError`` for rewards that cannot be, and ``RankError`` where another process failed.
    """
    ranks = start_ranks(recipe.distributed.timeout_minutes)
    rewards = reward_settings(recipe.rewards)
    corpus = ranks.each(lambda: Corpus(recipe.data, with_masks=rewards.truth == "masks"))
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)  # new adapters are drawn, and alike on every rank
        choice = model_choice(recipe.model, recipe.data.min_pixels, recipe.data.max_pixels)
        policy = ranks.each(lambda: load_policy(choice))
    chat = policy.processor or policy.tokenizer
    writer = PromptWriter.of_recipe(
        chat, policy.pictures, CONVENTIONS[policy.family], recipe.prompt, recipe.data.max_prompt_tokens
    )
    user_rewards = ranks.each(lambda: tuple(load_reward(name) for name in recipe.rewards.custom))
    scorer = make_scorer(policy, ranks, sharded_dtype(recipe, ranks))
    return Assembly(recipe, corpus, policy, writer, rewards, user_rewards, ranks, scorer)


def model_dtype(recipe: TrainRecipe) -> torch.dtype:
    """The precision in which weights are kept."""
    return torch.float32 if recipe.model.dtype == "float32" else torch.bfloat16


def sharded_dtype(recipe: TrainRecipe, ranks: Ranks) -> torch.dtype | None:
    """The precision of sharded passes; None where it is that of the weights."""
    if not ranks.launched:
        return None
    named = recipe.distributed.compute_dtype
    if named is None:
        return torch.bfloat16 if torch.cuda.is_available() else None
    return torch.float32 if named == "float32" else torch.bfloat16


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
        recipe.attention,
        recipe.packed,
    )


def reward_settings(recipe: RewardRecipe) -> RewardSettings:
    """The preset with what the recipe puts in place of its own."""
    return settings_of(
        recipe.preset,
        weights=recipe.weights,
        missing=recipe.missing,
        overlap=recipe.box_overlap,
        truth=recipe.box_truth,
    )


def start_engine(assembly: Assembly) -> RolloutEngine:
    """The engine that the recipe names with the policy's weights: one a rank, or servers that all ranks ask."""
    recipe, policy = assembly.recipe, assembly.policy
    engine: RolloutEngine
    with memory_told("start", "the engine"):
        if recipe.rollout.engine == "vllm":
            from qoq_train.rollout.vllm_engine import VllmChoice, VllmEngine

            tokens = recipe.data.max_prompt_tokens + recipe.rollout.max_tokens
            sequences = min(256, recipe.rollout.questions * recipe.rollout.completions)
            named: Literal["float32", "bfloat16"] = "float32" if assembly.compute_dtype == torch.float32 else "bfloat16"
            engine = VllmEngine(
                replace(policy, choice=replace(policy.choice, dtype=named)),
                VllmChoice(max_model_tokens=tokens, max_sequences=sequences, gpu_memory=recipe.rollout.gpu_memory),
            )
        elif recipe.rollout.engine == "vllm_server":
            from qoq_train.rollout.connection import ServerChoice
            from qoq_train.rollout.vllm_server import VllmServerEngine

            engine = VllmServerEngine(
                policy,
                recipe.rollout.servers,
                ServerChoice(timeout_s=recipe.rollout.server_timeout_s),
                run=assembly.ranks.from_first(secrets.token_hex(8)),
                sends_weights=assembly.ranks.is_first,
            )
        elif assembly.ranks.launched:
            from qoq_train.rollout.transformers_copy import TransformersCopy

            engine = TransformersCopy(policy, assembly.compute_dtype)
        else:
            from qoq_train.rollout.transformers_engine import TransformersEngine

            engine = TransformersEngine(policy)
        assembly.load_engine(engine)
    return engine


def facts_of(example: Example, writer: PromptWriter) -> RowFacts:
    """What completions of a row are judged by."""
    boxes = BoxTruth.of_row(example.boxes, example.masks, writer.frames(example)) if example.boxes_known else None
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
