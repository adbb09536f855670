"""Packed rows: what lies where, who sees whom, and the same numbers as padded rows, in scores and gradients."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.errors import UsageError
from qoq_train.models import packing as packing_file
from qoq_train.models.inputs import EncodedPrompt, Row, make_batch, plan_batches
from qoq_train.models.loading import ModelChoice, Policy, load_policy, transformers_model
from qoq_train.models.packing import Packing, packed_attention, why_not_packed
from qoq_train.models.scoring import Scorer, ScoringChoice, encode_rows, iterate_batches, score_rows
from qoq_train.rollout import Prompt, Sampling
from qoq_train.rollout.transformers_engine import TransformersEngine
from tests.train.policies import (
    COMPLETIONS,
    policy_at,
    prompt_of,
    three_prompts,
)

VISION = ("qwen2_5_vl", "qwen3_vl")
FAMILIES = (*VISION, "text")

quick = settings(derandomize=True, deadline=None, max_examples=20)


def asked_of(policy: Policy) -> list[Prompt]:
    if policy.family != "text":
        return three_prompts(policy)
    return [prompt_of(policy, text, row_id=text) for text in ("what?", "hello there", "which of these, then?")]


def as_padded(policy: Policy) -> Policy:
    return replace(policy, packed=False)


def all_gradients(policy: Policy, budget: int) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Log-probabilities of each row, and the gradients of a loss that weighs every token otherwise."""
    encoded, rows = encode_rows(policy, asked_of(policy), COMPLETIONS)
    choice = ScoringChoice(temperature=0.7, banned_ids=policy.banned_ids, entropies=True)
    policy.model.zero_grad()
    found: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    for batch in iterate_batches(policy, encoded, rows, budget):
        scores = Scorer(policy)(batch, choice)
        parts = scores.log_probabilities.split(list(batch.completion_lengths))
        assert scores.entropies is not None
        loss = 0.1 * scores.entropies.sum()
        for number, part in zip(batch.rows, parts, strict=True):
            found[number] = part.detach()
            loss = loss + (part * torch.arange(1, len(part) + 1) * (number + 1)).sum()
        loss.backward()
    gradients = {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad()
    return found, gradients


# Who sees whom


def by_the_square(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: list[tuple[int, list[int]]], scale: float
) -> torch.Tensor:
    """A softmax over all pairs of tokens, those left out that may not meet; [1, tokens, heads, size]."""
    owner: list[tuple[int, int | None]] = []  # of each token its group, and the completion in it
    for group, (prompt, completions) in enumerate(groups):
        owner += [(group, None)] * prompt
        owner += [(group, i) for i, count in enumerate(completions) for _ in range(count)]
    seen = torch.tensor(
        [[j <= i and owner[j] in (owner[i], (owner[i][0], None)) for j in range(len(owner))] for i in range(len(owner))]
    )
    times = query.shape[1] // key.shape[1]
    products = query[0] @ key[0].repeat_interleave(times, 0).transpose(1, 2) * scale
    weights = products.masked_fill(~seen, -torch.inf).softmax(-1)
    return (weights @ value[0].repeat_interleave(times, 0)).transpose(0, 1)[None]


def flash_of_one_place(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """What flash-attention documents of its variable-length function, segment by segment: causal to the lower right."""
    ends_q, ends_k = kwargs["cu_seqlens_q"].tolist(), kwargs["cu_seqlens_k"].tolist()
    assert kwargs["causal"]
    assert {kwargs["cu_seqlens_q"].dtype, kwargs["cu_seqlens_k"].dtype} == {torch.int32}
    assert (ends_q[-1], ends_k[-1]) == (len(q), len(k))
    assert kwargs["max_seqlen_q"] == max(b - a for a, b in pairwise(ends_q))
    assert kwargs["max_seqlen_k"] == max(b - a for a, b in pairwise(ends_k))
    times = q.shape[1] // k.shape[1]
    parts = []
    for number in range(len(ends_q) - 1):
        queries = q[ends_q[number] : ends_q[number + 1]]
        keys = k[ends_k[number] : ends_k[number + 1]].repeat_interleave(times, 1)
        values = v[ends_k[number] : ends_k[number + 1]].repeat_interleave(times, 1)
        products = torch.einsum("qhd,khd->hqk", queries, keys) * kwargs["softmax_scale"]
        seen = torch.ones(products.shape[1:], dtype=torch.bool).tril(len(keys) - len(queries))
        parts.append(torch.einsum("hqk,khd->qhd", products.masked_fill(~seen, -torch.inf).softmax(-1), values))
    return torch.cat(parts)


GROUPS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(1, 5), min_size=1, max_size=4)), min_size=1, max_size=3
)


@quick
@given(GROUPS, st.sampled_from([(1, 1), (4, 2), (3, 1)]), st.integers(0, 99))
def test_a_row_sees_its_prompt_and_itself_alone(
    groups: list[tuple[int, list[int]]], heads: tuple[int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(prompt + sum(completions) for prompt, completions in groups)
    query, key, value = (
        torch.randn(1, count, tokens, 8, generator=generator, dtype=torch.float64)
        for count in (heads[0], *heads[1:] * 2)
    )
    expected = by_the_square(query, key, value, groups, 0.3)
    packing = Packing.of(groups)
    module = torch.nn.Identity()
    found, nothing = packed_attention(module, query, key, value, None, scaling=0.3, packing=packing)
    torch.testing.assert_close(found, expected)
    assert nothing is None
    assert packing.attended == {id(module)}
    kernel = types.ModuleType("flash_attn")
    kernel.flash_attn_varlen_func = flash_of_one_place  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "flash_attn", kernel)
        by_kernel = packing_file._by_segments(query, key, value, packing, 0.0, 0.3)
    torch.testing.assert_close(by_kernel, expected)


def test_what_attention_does_not_do_is_refused() -> None:
    states = torch.zeros(1, 1, 3, 8)
    packing = Packing.of([(2, [1])])
    with pytest.raises(ValueError, match="sliding_window"):
        packed_attention(torch.nn.Identity(), states, states, states, None, packing=packing, sliding_window=2)


# Layout


def test_a_packed_batch_by_hand() -> None:
    rotary = torch.tensor([[0, 1, 1, 3], [0, 1, 1, 3], [0, 1, 2, 3]])
    prompts = [
        EncodedPrompt("a", (10, 11, 12, 13), rotary, torch.zeros(4, 2), torch.tensor([[1, 2, 2]])),
        EncodedPrompt("b", (20,), torch.zeros(3, 1, dtype=torch.long), None, None),
    ]
    rows = [Row(0, (1, 2)), Row(1, (3,)), Row(0, (4, 5, 6))]
    batch = make_batch(prompts, rows, [0, 1, 2], pad_id=0, packed=True)
    assert batch.input_ids.tolist() == [[10, 11, 12, 13, 1, 2, 4, 5, 6, 20, 3]]
    assert batch.positions is not None
    assert batch.positions[:, 0].tolist() == [
        [0, 1, 1, 3, 4, 5, 4, 5, 6, 0, 1],
        [0, 1, 1, 3, 4, 5, 4, 5, 6, 0, 1],
        [0, 1, 2, 3, 4, 5, 4, 5, 6, 0, 1],
    ]
    assert batch.drawn_from.tolist() == [3, 4, 9, 3, 6, 7]
    assert batch.targets.tolist() == [1, 2, 3, 4, 5, 6]
    assert batch.shown_pictures == (0,)
    assert batch.packing is not None
    assert batch.packing.groups == ((4, (2, 3)), (1, (1,)))
    assert batch.packing.query_ends.tolist() == [0, 4, 6, 9, 10, 11]
    assert batch.packing.key_ends.tolist() == [0, 4, 10, 17, 18, 20]
    assert batch.packing.key_places.tolist() == [*range(4), *range(6), 0, 1, 2, 3, 6, 7, 8, 9, 9, 10]


def test_a_padded_batch_by_hand() -> None:
    prompts = [EncodedPrompt("a", (10, 11), None, None, None), EncodedPrompt("b", (20,), None, None, None)]
    batch = make_batch(prompts, [Row(0, (1,)), Row(1, (3, 4, 5))], [1, 0], pad_id=0)
    assert batch.input_ids.tolist() == [[20, 3, 4, 5], [10, 11, 1, 0]]
    assert batch.drawn_from.tolist() == [0, 1, 2, 5]
    assert (batch.targets.tolist(), batch.positions, batch.packing) == ([3, 4, 5, 1], None, None)


def test_a_prompt_without_tokens_is_refused() -> None:
    for packed in (False, True):
        with pytest.raises(ValueError, match="one token of prompt"):
            make_batch([EncodedPrompt("p", (), None, None, None)], [Row(0, (1,))], [0], pad_id=0, packed=packed)


@quick
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 20)), min_size=1, max_size=25),
    st.integers(1, 200),
)
def test_a_packed_plan_counts_a_prompt_once_and_no_padding(
    lengths: list[int], pairs: list[tuple[int, int]], budget: int
) -> None:
    prompts = [EncodedPrompt("p", (1,) * length, None, None, None) for length in lengths]
    rows = [Row(index % len(prompts), (2,) * count) for index, count in pairs]
    plan = plan_batches(prompts, rows, budget, packed=True)
    assert sorted(number for batch in plan for number in batch) == list(range(len(rows)))
    costs = []
    for numbers in plan:
        batch = make_batch(prompts, rows, numbers, pad_id=0, packed=True)
        costs.append(batch.input_ids.numel())
        of_prompts = {rows[n].prompt for n in numbers}
        assert costs[-1] == sum(lengths[p] for p in of_prompts) + sum(len(rows[n].token_ids) for n in numbers)
        assert costs[-1] <= budget or len(numbers) == 1
    for numbers, cost, after in zip(plan, costs, plan[1:], strict=False):  # none ends before it is full
        following = rows[after[0]]
        shares = following.prompt in {rows[n].prompt for n in numbers}
        assert cost + len(following.token_ids) + (0 if shares else lengths[following.prompt]) > budget


# The same numbers


@pytest.mark.parametrize("name", FAMILIES)
def test_g06_packed_rows_score_as_padded_ones_do(name: str, policies: dict[str, Policy]) -> None:
    policy = policies[name]
    assert policy.packed
    values, gradients = all_gradients(as_padded(policy), 100_000)
    for budget in (100_000, 60, 1):
        packed_values, packed_gradients = all_gradients(policy, budget)
        torch.testing.assert_close(packed_values, values, atol=1e-5, rtol=0)
        assert set(packed_gradients) == set(gradients)
        for weight, gradient in gradients.items():
            scale = float(gradient.abs().max()) + 1e-3
            torch.testing.assert_close(packed_gradients[weight] / scale, gradient / scale, atol=1e-5, rtol=0)


def test_other_rows_change_no_bit_of_a_row(policies: dict[str, Policy]) -> None:
    policy = policies["qwen2_5_vl"]
    encoded, rows = encode_rows(policy, asked_of(policy), COMPLETIONS)
    others = [
        Row(row.prompt, row.token_ids if i == 1 else tuple(7 for _ in row.token_ids)) for i, row in enumerate(rows)
    ]
    found = [score_rows(Scorer(policy), policy, encoded, of, token_budget=10_000)[1] for of in (rows, others)]
    assert torch.equal(*found)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_and_its_pictures_pass_once_for_all_their_rows(name: str, policies: dict[str, Policy]) -> None:
    policy = policies[name]
    encoded, rows = encode_rows(policy, asked_of(policy), COMPLETIONS)
    core = transformers_model(policy.model).base_model
    layer = getattr(core, "language_model", core).layers[0]
    seen = []
    handle = layer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].shape[:2]))
    try:
        score_rows(Scorer(policy), policy, encoded, rows, token_budget=10_000)
    finally:
        handle.remove()
    assert seen == [(1, sum(len(p.token_ids) for p in encoded) + sum(len(row.token_ids) for row in rows))]


@pytest.mark.parametrize("name", VISION)
def test_adapters_and_recomputed_layers_are_packed_too(name: str, folders: dict[str, Path]) -> None:
    found = []
    for saving in (False, True):
        torch.manual_seed(0)  # new adapters are drawn
        policy = policy_at(folders[name], lora=True, gradient_checkpointing=saving)
        found.append(all_gradients(policy if saving else as_padded(policy), 10_000))
        layer = transformers_model(policy.model).base_model.language_model.layers[0]
        if saving:
            assert layer.gradient_checkpointing
            assert layer._gradient_checkpointing_func.keywords == {"use_reentrant": False}
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=0)
    assert found[0][1]
    for weight, gradient in found[0][1].items():
        assert gradient.any()
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[1][1][weight] / scale, gradient / scale, atol=2e-5, rtol=0)


def test_generation_is_as_without_packing(folders: dict[str, Path], policies: dict[str, Policy]) -> None:
    plain = policy_at(folders["qwen3_vl"], packed=False)
    assert not plain.packed
    drawn = [
        TransformersEngine(p).generate(asked_of(p), Sampling(2, 6, 1.0, 1.0, 3)) for p in (plain, policies["qwen3_vl"])
    ]
    ids = [[one.token_ids for group in of for one in group] for of in drawn]
    assert ids[0] == ids[1]


# Where it is allowed


def test_models_that_do_not_keep_rows_apart_stay_padded(folders: dict[str, Path]) -> None:
    from transformers import (
        MistralConfig,
        MistralForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    sizes: dict[str, Any] = {
        "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8,
    }  # fmt: skip
    assert why_not_packed(Qwen3ForCausalLM(Qwen3Config(**sizes))) is None
    assert why_not_packed(MistralForCausalLM(MistralConfig(**sizes, sliding_window=None))) is None
    for sliding in (
        MistralForCausalLM(MistralConfig(**sizes, sliding_window=8)),
        Qwen2ForCausalLM(Qwen2Config(**sizes, use_sliding_window=True, sliding_window=8, max_window_layers=1)),
    ):
        assert "do not see the whole row" in str(why_not_packed(sliding))
        sliding._supports_attention_backend = False
        assert "take no attention of others" in str(why_not_packed(sliding))
    eager = load_policy(ModelChoice(str(folders["text"]), dtype="float32", attention="eager"))
    assert not eager.packed
    with pytest.raises(UsageError, match="the attention eager takes none"):
        load_policy(ModelChoice(str(folders["text"]), attention="eager", packed=True))


def test_the_vision_tower_keeps_its_own_attention_and_the_name_is_not_saved(
    folders: dict[str, Path], policies: dict[str, Policy], tmp_path: Path
) -> None:
    for name in VISION:
        config = transformers_model(policies[name].model).config
        assert config.vision_config._attn_implementation == "sdpa"
        assert config.text_config._attn_implementation == "qoq_packed_sdpa"
        transformers_model(policies[name].model).save_pretrained(tmp_path / name)
        assert "qoq_packed" not in (tmp_path / name / "config.json").read_text()


def test_a_model_that_drops_the_packing_is_found_out(folders: dict[str, Path]) -> None:
    policy = policy_at(folders["text"])
    encoded, rows = encode_rows(policy, asked_of(policy), COMPLETIONS)
    transformers_model(policy.model).set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="0 of 2 layers"):
        score_rows(Scorer(policy), policy, encoded, rows, token_budget=1000)


# Precision, and weights that are cut over ranks


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_stays_within_a_tenth(name: str, folders: dict[str, Path], policies: dict[str, Policy]) -> None:
    half = load_policy(ModelChoice(str(folders[name]), dtype="bfloat16"))
    found = []
    for policy in (policies[name], half, as_padded(half)):
        encoded, rows = encode_rows(policy, asked_of(policy), COMPLETIONS)
        found.append(torch.cat(score_rows(Scorer(policy), policy, encoded, rows, token_budget=10_000)))
    assert {values.dtype for values in found} == {torch.float32}
    for values in found[1:]:
        gap = (values - found[0]).abs()
        assert 0 < float(gap.max()) < 0.1
        assert float(gap.mean()) < 0.03


@pytest.mark.parametrize("name", FAMILIES)
def test_g04_all_weights_are_used_inside_the_forward_pass(name: str, folders: dict[str, Path]) -> None:
    """Under ``fully_shard`` a weight that is used outside of its module's forward pass is a shard, and raises."""
    from torch import distributed
    from torch.distributed.fsdp import fully_shard

    choices = {"gradient_checkpointing": True}
    expected = all_gradients(policy_at(folders[name], **choices), 10_000)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        policy = policy_at(folders[name], **choices)
        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        core = transformers_model(policy.model).base_model
        blocks = [*getattr(core, "language_model", core).layers, *(core.visual.blocks if name in VISION else ())]
        scorer = Scorer(policy, sees_pictures_always=True)
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(scorer, mesh=mesh)
        encoded, rows = encode_rows(policy, asked_of(policy), COMPLETIONS)
        choice = ScoringChoice(temperature=0.7, banned_ids=policy.banned_ids, entropies=True)
        found = score_rows(scorer, policy, encoded, rows, token_budget=10_000, choice=choice)
        torch.testing.assert_close(found, expected[0], atol=1e-6, rtol=0)
        (batch,) = iterate_batches(policy, encoded, rows, 10_000)
        values, entropies = scorer(batch, choice)
        assert entropies is not None
        of_row = zip(batch.rows, values.split(list(batch.completion_lengths)), strict=True)
        weighed = [(part * torch.arange(1, len(part) + 1) * (number + 1)).sum() for number, part in of_row]
        (torch.stack(weighed).sum() + 0.1 * entropies.sum()).backward()
        for weight, parameter in policy.model.named_parameters():
            assert parameter.grad is not None, weight
            torch.testing.assert_close(parameter.grad.full_tensor(), expected[1][weight], atol=1e-4, rtol=1e-4)
    finally:
        distributed.destroy_process_group()
