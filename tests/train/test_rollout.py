"""Rollout engines: what they draw, under which weights, and that trainer and engine say the same of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from qoq_train.models.loading import Policy
from qoq_train.models.scoring import Scorer, ScoringChoice, encode_rows, score_rows
from qoq_train.models.weights import state_for_engine
from qoq_train.rollout import Completion, Prompt, Sampling, largest_gap, seed_of_prompt
from qoq_train.rollout.transformers_engine import TransformersEngine
from qoq_train.rollout.vllm_engine import RolloutError, VllmChoice, VllmEngine, sampled_values
from tests.train.policies import COMPLETIONS, change, model_folder, policy_at, three_prompts, write_text_model

NEEDS_VLLM = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return policy_at(model_folder("qwen2_5_vl", tmp_path_factory.mktemp("rollout") / "model"))


def scored(
    policy: Policy, prompts: list[Prompt], completions: list[list[list[int]]], **choice: Any
) -> list[list[float]]:
    encoded, rows = encode_rows(policy, prompts, completions)
    found = score_rows(Scorer(policy), policy, encoded, rows, token_budget=4096, choice=ScoringChoice(**choice))
    return [values.tolist() for values in found]


def flat(drawn: list[list[Completion]]) -> list[Completion]:
    return [one for group in drawn for one in group]


def ids_of(drawn: list[list[Completion]]) -> list[list[list[int]]]:
    return [[list(one.token_ids) for one in group] for group in drawn]


def test_seeds_are_those_of_the_row_and_of_nothing_else() -> None:
    seeds = {seed_of_prompt(seed, row, times) for seed in range(3) for row in "ab" for times in range(2)}
    assert len(seeds) == 12
    assert all(0 <= seed < 1 << 62 for seed in seeds)
    assert seed_of_prompt(1, "a", 0) == seed_of_prompt(1, "a", 0)


def test_the_largest_gap_is_of_finite_and_paired_values() -> None:
    assert largest_gap([[-1.0, -2.0], []], [[-1.5, -2.0], []]) == 0.5
    with pytest.raises(ValueError, match="not finite"):
        largest_gap([[float("nan")]], [[-1.0]])
    with pytest.raises(ValueError, match="zip"):
        largest_gap([[-1.0]], [[-1.0, -2.0]])


@dataclass
class Candidate:
    logprob: float


def test_r11_the_sampled_tokens_value_is_taken_and_a_mismatch_is_an_error() -> None:
    maps = [{7: Candidate(-0.1), 3: Candidate(-2.0)}, {5: Candidate(-1.0)}]
    assert sampled_values("row", (3, 5), maps) == [-2.0, -1.0]
    with pytest.raises(RolloutError, match="row: vLLM gave 1 log-probabilities for 2 tokens"):
        sampled_values("row", (3, 5), maps[:1])
    for absent in ({4: Candidate(-1.0)}, None):
        with pytest.raises(RolloutError, match="no log-probability of the token"):
            sampled_values("row", (3,), [absent])


def test_transformers_draws_the_same_whatever_else_is_asked(policy: Policy) -> None:
    prompts, sampling = three_prompts(policy), Sampling(3, 12, seed=5)
    engine = TransformersEngine(policy)
    together = engine.generate(prompts, sampling)
    apart = [engine.generate([prompt], sampling)[0] for prompt in reversed(prompts)]
    assert together == apart[::-1]
    assert engine.generate(prompts, Sampling(3, 12, seed=6)) != together
    assert all(len(group) == 3 for group in together)
    assert engine.generate(prompts[:1] * 2, sampling)[1] != together[0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_r07_transformers_log_probabilities_are_the_trainers(policy: Policy, temperature: float) -> None:
    prompts = three_prompts(policy)
    drawn = TransformersEngine(policy).generate(prompts, Sampling(2, 10, temperature=temperature))
    said = [list(one.log_probabilities) for one in flat(drawn)]
    of_trainer = scored(policy, prompts, ids_of(drawn), temperature=temperature, banned_ids=policy.banned_ids)
    assert largest_gap(said, of_trainer) < 1e-4
    assert not {token for one in flat(drawn) for token in one.token_ids} & set(policy.banned_ids)


def test_under_top_p_a_draw_is_likelier_by_what_was_cut_off(policy: Policy) -> None:
    prompts = three_prompts(policy)
    drawn = TransformersEngine(policy).generate(prompts, Sampling(2, 10, top_p=0.8))
    of_trainer = scored(policy, prompts, ids_of(drawn), banned_ids=policy.banned_ids)
    said = torch.tensor([value for one in flat(drawn) for value in one.log_probabilities])
    gained = said - torch.tensor([value for row in of_trainer for value in row])
    assert float(gained.min()) > 0
    assert float(gained.max()) <= -torch.log(torch.tensor(0.8)) + 1e-4


def test_transformers_at_temperature_0_takes_the_likeliest(policy: Policy) -> None:
    prompts = three_prompts(policy)
    drawn = TransformersEngine(policy).generate(prompts, Sampling(2, 6, temperature=0))
    assert all(group[0] == group[1] for group in drawn)
    random = TransformersEngine(policy).generate(prompts, Sampling(8, 6, seed=1))
    for greedy, others in zip(drawn, random, strict=True):
        first = greedy[0].log_probabilities[0]
        assert all(first >= other.log_probabilities[0] - 1e-6 for other in others)


def test_transformers_refuses_weights_that_are_not_the_policys(policy: Policy) -> None:
    engine = TransformersEngine(policy)
    engine.load_weights(state_for_engine(policy.model))
    stale = {name: tensor.clone() for name, tensor in state_for_engine(policy.model)}
    stale["lm_head.weight"] = stale["lm_head.weight"] + 1
    with pytest.raises(ValueError, match=r"lm_head.weight is not the policy's"):
        engine.load_weights(stale.items())
    del stale["lm_head.weight"]
    with pytest.raises(ValueError, match=r"1 missing, the first lm_head.weight"):
        engine.load_weights(stale.items())


def test_a_text_model_is_drawn_from_too(tmp_path: Path) -> None:
    policy = policy_at(write_text_model(tmp_path / "text"))
    prompts = [Prompt("a", (1, 2, 3)), Prompt("b", (4,))]
    drawn = TransformersEngine(policy).generate(prompts, Sampling(2, 5))
    assert (
        largest_gap([list(one.log_probabilities) for one in flat(drawn)], scored(policy, prompts, ids_of(drawn))) < 1e-4
    )


@pytest.fixture(scope="module")
def engine(policy: Policy) -> Iterator[VllmEngine]:
    made = VllmEngine(policy, VllmChoice(max_model_tokens=256, max_sequences=16, pictures_per_prompt=2))
    yield made
    made.close()


@NEEDS_VLLM
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
class TestVllm:
    """One engine for all: it starts in some seconds."""

    def test_r03_nothing_is_drawn_before_the_policys_weights_are_there(
        self, engine: VllmEngine, policy: Policy
    ) -> None:
        with pytest.raises(RolloutError, match="has not been given the policy's weights"):
            engine.generate(three_prompts(policy), Sampling(1, 2))

    def test_r01_the_engine_says_what_the_trainer_says_before_and_after_an_update(
        self, engine: VllmEngine, policy: Policy
    ) -> None:
        prompts, first = three_prompts(policy), [group[0] for group in COMPLETIONS]
        kept = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
        try:
            before = None
            for _ in range(2):
                engine.load_weights(state_for_engine(policy.model))
                found = engine.log_probabilities(prompts, first)
                assert largest_gap(found, scored(policy, prompts, [[ids] for ids in first])) < 1e-3
                assert before is None or largest_gap(found, before) > 0.05
                before = found
                change(policy, 0.05)
        finally:
            policy.model.load_state_dict(kept)
            engine.load_weights(state_for_engine(policy.model))

    def test_r05_r07_draws_are_scored_as_drawn(self, engine: VllmEngine, policy: Policy) -> None:
        engine.load_weights(state_for_engine(policy.model))
        prompts, sampling = three_prompts(policy), Sampling(4, 12, temperature=0.9, seed=3)
        drawn = engine.generate(prompts, sampling)
        assert engine.generate(prompts, sampling) == drawn
        said = [list(one.log_probabilities) for one in flat(drawn)]
        of_trainer = scored(policy, prompts, ids_of(drawn), temperature=0.9, banned_ids=policy.banned_ids)
        assert largest_gap(said, of_trainer) < 1e-3
        assert all(one.stopped == (one.token_ids[-1] in policy.end_ids) for one in flat(drawn))

    def test_a_head_that_is_left_out_is_refused(self, engine: VllmEngine, policy: Policy) -> None:
        weights = [(name, tensor) for name, tensor in state_for_engine(policy.model) if name != "lm_head.weight"]
        with pytest.raises(ValueError, match=r"1 missing, the first lm_head.weight"):
            engine.load_weights(weights)
        assert torch.equal(dict(state_for_engine(policy.model))["lm_head.weight"], policy.model.lm_head.weight)
