"""The tiny models, loading, pictures, weights and scoring, each against transformers, peft or a slow twin."""

from __future__ import annotations

import copy
import filecmp
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from qoq_data.errors import UsageError
from qoq_train.models import scoring
from qoq_train.models.inputs import EncodedPrompt, Row, encode_prompt, make_batch, plan_batches
from qoq_train.models.loading import LoraChoice, ModelChoice, Policy, load_policy, model_family, transformers_model
from qoq_train.models.patches import PatchProduct
from qoq_train.models.pictures import PictureRule
from qoq_train.models.scoring import Scorer, ScoringChoice, adapters_off, encode_rows, iterate_batches, score_rows
from qoq_train.models.tiny import SPECIAL_TOKENS, tiny_tokenizer, write_tiny_model
from qoq_train.models.weights import check_complete, engine_weight_names, state_for_engine
from tests.train.policies import (
    COMPLETIONS,
    PIECES,
    change,
    model_folder,
    picture,
    policy_at,
    prompt_of,
    three_prompts,
)

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
TOKENIZER = tiny_tokenizer(PIECES)

once = settings(derandomize=True, deadline=None, max_examples=60)


@pytest.fixture(scope="module")
def adapted(folders: dict[str, Path]) -> Policy:
    return policy_at(folders["qwen2_5_vl"], lora=True)


# The tiny model


def test_the_tiny_model_is_written_the_same_for_a_seed_and_has_a_million_parameters(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    again = model_folder("qwen2_5_vl", tmp_path / "again")
    names = sorted(path.name for path in again.iterdir())
    assert filecmp.cmpfiles(again, folders["qwen2_5_vl"], names, shallow=False) == (names, [], [])
    other = write_tiny_model(tmp_path / "other", answer_pieces=PIECES, seed=1)
    assert not filecmp.cmp(other / "model.safetensors", again / "model.safetensors", shallow=False)
    model = policy_at(again).model
    assert 0.9e6 < sum(p.numel() for p in model.parameters()) < 1.1e6
    deviation = transformers_model(model).base_model.language_model.layers[0].mlp.up_proj.weight.detach().std()
    assert 0.055 < float(deviation) < 0.065


def test_writing_the_tiny_model_leaves_the_random_state(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    write_tiny_model(tmp_path, answer_pieces=())
    assert torch.equal(before, torch.random.get_rng_state())


@once
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_the_tiny_tokenizer_gives_text_back(text: str) -> None:
    ids = TOKENIZER(text).input_ids
    assert TOKENIZER.decode(ids) == text


def test_the_pieces_of_the_answer_are_one_token_each_and_survive_decoding() -> None:
    for piece in PIECES:
        assert len(TOKENIZER(piece).input_ids) == 1
    ids = TOKENIZER("<think>é</think>\\boxed{b}<|im_end|>").input_ids
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "<think>é</think>\\boxed{b}"
    assert [len(TOKENIZER(token).input_ids) for token in SPECIAL_TOKENS] == [1] * len(SPECIAL_TOKENS)


@pytest.mark.parametrize("pieces", [("",), ("a", "a"), ("<|image_pad|>",)])
def test_pieces_that_would_be_ambiguous_are_refused(pieces: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="distinct texts"):
        tiny_tokenizer(pieces)


def test_the_chat_template_writes_turns_as_qwen_does(policies: dict[str, Policy]) -> None:
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
    text = policies["qwen2_5_vl"].processor.apply_chat_template(message, add_generation_prompt=True)
    assert text == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>what?<|im_end|>\n<|im_start|>assistant\n"
    )


# Pictures


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(1695, 2187), (23, 3), (5000, 40), (28, 28), (33, 800), (1, 150)])
def test_r10_a_fitted_picture_is_kept_by_the_processor(
    family: str, size: tuple[int, int], policies: dict[str, Policy]
) -> None:
    policy = policies[family]
    rule = policy.pictures
    assert rule is not None
    fitted = picture(policy, size)
    prepared = policy.processor.image_processor(images=[fitted], return_tensors="pt")
    _, high, wide = prepared["image_grid_thw"][0].tolist()
    assert (wide * rule.patch_size_px, high * rule.patch_size_px) == fitted.size
    assert rule.token_count(fitted.size) == wide * high // rule.merge_size**2
    assert rule.fit(fitted) is fitted
    raw = policy.processor.image_processor(images=[fitted], do_resize=False, return_tensors="pt")
    assert torch.equal(raw["pixel_values"], prepared["pixel_values"])


@once
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 8), st.integers(40, 600))
def test_r10_a_fitted_size_is_a_fixed_point(width: int, height: int, least: int, most: int) -> None:
    rule = PictureRule(7, 14, 2, least * 784, most * 784)
    try:
        fitted = rule.fitted_size((width, height))
    except UsageError:
        assert max(width, height) > 100 * min(width, height)  # only thin pictures may be refused
        return
    assert rule.fitted_size(fitted) == fitted
    assert fitted[0] % 28 == fitted[1] % 28 == 0
    assert rule.token_count(fitted) == fitted[0] * fitted[1] // 784


def test_thin_and_deep_pictures_are_refused_in_words() -> None:
    rule = PictureRule(7, 14, 2, 3136, 12_845_056)
    with pytest.raises(UsageError, match="8100 × 41"):  # rounds to 8092 × 28, which the processor then refuses
        rule.fitted_size((8100, 41))
    with pytest.raises(UsageError, match="mode I;16"):
        rule.fit(Image.fromarray(np.zeros((40, 40), np.uint16)))
    with pytest.raises(ValueError, match="not at its fitted size"):
        rule.token_count((30, 30))
    assert rule.fit(Image.new("L", (56, 56))).mode == "RGB"


def test_r05_ids_are_expanded_once_and_pair_with_the_pictures(policies: dict[str, Policy]) -> None:
    rule = policies["qwen2_5_vl"].pictures
    assert rule is not None
    image = rule.image_token_id
    assert rule.expand((1, image, 2, image), [(56, 56), (56, 84)]) == (1, *[image] * 4, 2, *[image] * 6)
    with pytest.raises(ValueError, match=r"4 image token\(s\) for 1 picture"):
        rule.expand((1, *[image] * 4, 2), [(56, 56)])
    with pytest.raises(ValueError, match=r"0 image token\(s\) for 1 picture"):
        rule.expand((1, 2), [(56, 56)])


@pytest.mark.parametrize("family", FAMILIES)
def test_r05_encoded_ids_equal_the_processors(family: str, policies: dict[str, Policy]) -> None:
    policy = policies[family]
    prompt = three_prompts(policy)[0]
    text = policy.tokenizer.decode(prompt.token_ids)
    whole = policy.processor(text=[text], images=[list(prompt.pictures)], return_tensors="pt")
    encoded = encode_prompt(policy, prompt)
    assert list(encoded.token_ids) == whole["input_ids"][0].tolist()
    assert torch.equal(encoded.pixels, whole["pixel_values"])


def test_g01_a_prompt_that_lost_an_image_token_is_an_error_with_its_row(policies: dict[str, Policy]) -> None:
    policy = policies["qwen2_5_vl"]
    prompt = prompt_of(policy, "x", picture(policy, (56, 56)), row_id="ptb-xl/17")
    cut = type(prompt)(prompt.row_id, prompt.token_ids[2:], prompt.pictures)
    with pytest.raises(ValueError, match="ptb-xl/17: the prompt has 0 image"):
        encode_prompt(policy, cut)
    unfitted = type(prompt)(prompt.row_id, prompt.token_ids, (Image.new("RGB", (57, 57)),))
    with pytest.raises(ValueError, match="ptb-xl/17: a picture of 57 × 57"):
        encode_prompt(policy, unfitted)


# Loading


def test_families_are_told_apart_and_others_refused(folders: dict[str, Path]) -> None:
    from transformers import AutoConfig, CLIPConfig, Gemma2Config, T5Config

    for family, folder in folders.items():
        assert model_family(AutoConfig.from_pretrained(folder)) == family
    with pytest.raises(UsageError, match="clip"):
        model_family(CLIPConfig())
    with pytest.raises(UsageError, match="t5"):
        model_family(T5Config())
    with pytest.raises(UsageError, match="final_logit_softcapping"):
        model_family(Gemma2Config())


def test_what_cannot_be_loaded_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model is found"):
        load_policy(ModelChoice(str(tmp_path)))
    with pytest.raises(UsageError, match="no vision tower"):
        load_policy(ModelChoice(str(folders["text"]), freeze_vision=True))
    with pytest.raises(UsageError, match="min_pixels"):
        load_policy(ModelChoice(str(folders["qwen3_vl"]), min_pixels=4000, max_pixels=3000))
    with pytest.raises(UsageError, match="query"):
        load_policy(ModelChoice(str(folders["text"]), lora=LoraChoice(targets=("q_proj", "query"))))


def test_choices_decide_what_is_trained(folders: dict[str, Path], adapted: Policy) -> None:
    frozen = policy_at(folders["qwen3_vl"], freeze_vision=True)
    trained = {name.split(".")[1] for name, weight in frozen.model.named_parameters() if weight.requires_grad}
    assert trained == {"language_model"}
    adapters = [name for name, weight in adapted.model.named_parameters() if weight.requires_grad]
    assert adapters
    assert all("language_model" in name and "lora_" in name for name in adapters)
    assert transformers_model(adapted.model).dtype == torch.float32


def test_ends_and_bans_come_from_the_model(policies: dict[str, Policy]) -> None:
    policy = policies["qwen2_5_vl"]
    end, image, video = policy.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|image_pad|>", "<|video_pad|>"])
    assert (policy.end_ids, policy.banned_ids) == ((end,), (image, video))
    assert policies["text"].banned_ids == ()


def test_the_patch_product_equals_the_convolution() -> None:
    torch.manual_seed(0)
    plain = nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4))
    product = copy.deepcopy(plain)
    product.__class__ = PatchProduct
    patches = torch.randn(5, 3, 2, 4, 4)
    torch.testing.assert_close(product(patches), plain(patches))
    with pytest.raises(ValueError, match="do not fit"):
        product(torch.randn(5, 3, 2, 8, 4))


# Weights


@pytest.mark.parametrize("name", [*FAMILIES, "text"])
def test_weights_for_the_engine_are_complete(name: str, policies: dict[str, Policy]) -> None:
    state = dict(state_for_engine(policies[name].model))
    inner = transformers_model(policies[name].model)
    assert "lm_head.weight" in state
    check_complete(set(state), engine_weight_names(inner.config))
    assert all(torch.equal(state[key], value) for key, value in inner.state_dict().items())


def test_a_missing_or_unknown_weight_is_named() -> None:
    with pytest.raises(ValueError, match=r"1 missing, the first lm_head.weight; 1 unknown, the first odd"):
        check_complete({"a", "odd"}, frozenset({"a", "lm_head.weight"}))


def test_adapters_are_merged_as_peft_does_and_training_weights_stay(adapted: Policy, folders: dict[str, Path]) -> None:
    before = {name: weight.clone() for name, weight in adapted.model.state_dict().items()}
    state = dict(state_for_engine(adapted.model))
    after = adapted.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    merged = copy.deepcopy(adapted.model).merge_and_unload().state_dict()
    assert set(state) == set(merged)
    for name, weight in merged.items():
        torch.testing.assert_close(state[name], weight)
    base = dict(state_for_engine(policy_at(folders["qwen2_5_vl"]).model))
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert (state[name] - base[name]).abs().max() > 0.01
    assert torch.equal(state["lm_head.weight"], base["lm_head.weight"])


# Batches


@once
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 20)), min_size=1, max_size=25),
    st.integers(1, 200),
)
def test_a_plan_holds_each_row_once_within_the_budget(
    lengths: list[int], pairs: list[tuple[int, int]], budget: int
) -> None:
    prompts = [EncodedPrompt("p", (1,) * length, None, None, None) for length in lengths]
    rows = [Row(index % len(prompts), (2,) * count) for index, count in pairs]
    plan = plan_batches(prompts, rows, budget)
    assert sorted(number for batch in plan for number in batch) == list(range(len(rows)))
    for batch in plan:
        widest = max(lengths[rows[n].prompt] + len(rows[n].token_ids) for n in batch)
        assert widest * len(batch) <= budget or len(batch) == 1
    turns = [prompt for batch in plan for prompt in dict.fromkeys(rows[n].prompt for n in batch)]
    assert all(turns[i] == turns[i - 1] or turns[i] not in turns[:i] for i in range(len(turns)))


def test_rows_without_a_completion_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        make_batch([EncodedPrompt("p", (1,), None, None, None)], [Row(0, ())], [0], pad_id=0)


# Scoring


def left_padded_twin(policy: Policy, choice: ScoringChoice) -> list[torch.Tensor]:
    """The whole set as one left-padded batch through transformers' own forward pass, positions and mask its own."""
    encoded, rows = encode_rows(policy, three_prompts_of(policy), COMPLETIONS)
    texts = [[*encoded[row.prompt].token_ids, *row.token_ids] for row in rows]
    length = max(map(len, texts))
    ids = torch.tensor([[policy.pad_id] * (length - len(text)) + text for text in texts])
    mask = torch.tensor([[0] * (length - len(text)) + [1] * len(text) for text in texts])
    inputs = {"input_ids": ids, "attention_mask": mask}
    if policy.pictures is not None:
        inputs["pixel_values"] = torch.cat([p for r in rows if (p := encoded[r.prompt].pixels) is not None])
        inputs["image_grid_thw"] = torch.cat([g for r in rows if (g := encoded[r.prompt].grids) is not None])
        inputs["mm_token_type_ids"] = (ids == policy.pictures.image_token_id).int()
    else:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = transformers_model(policy.model)(**inputs).logits / choice.temperature
    logits[..., list(choice.banned_ids)] = -torch.inf
    whole = logits.log_softmax(-1)
    return [
        torch.stack([whole[i, length - len(row.token_ids) + j - 1, token] for j, token in enumerate(row.token_ids)])
        for i, row in enumerate(rows)
    ]


def three_prompts_of(policy: Policy) -> list:  # type: ignore[type-arg]
    if policy.family != "text":
        return three_prompts(policy)
    return [prompt_of(policy, text, row_id=text) for text in ("what?", "hello there", "which of these, then?")]


def score_all(policy: Policy, budget: int, choice: ScoringChoice, **options: bool) -> list[torch.Tensor]:
    encoded, rows = encode_rows(policy, three_prompts_of(policy), COMPLETIONS)
    return score_rows(Scorer(policy), policy, encoded, rows, token_budget=budget, choice=choice, **options)


@pytest.mark.parametrize("name", [*FAMILIES, "text"])
def test_g06_packed_padded_single_grouped_and_after_a_generation_are_the_same(
    name: str, policies: dict[str, Policy]
) -> None:
    from qoq_train.rollout import Sampling
    from qoq_train.rollout.transformers_engine import TransformersEngine

    policy = policies[name]
    choice = ScoringChoice(temperature=0.7, banned_ids=policy.banned_ids)
    expected = left_padded_twin(policy, choice)
    for form in (policy, replace(policy, packed=False)):
        for budget in (1, 150, 100_000):
            torch.testing.assert_close(score_all(form, budget, choice), expected, atol=2e-5, rtol=0)
    TransformersEngine(policy).generate(three_prompts_of(policy)[:1], Sampling(4, 3))
    torch.testing.assert_close(score_all(policy, 100_000, choice), expected, atol=2e-5, rtol=0)


def test_the_picture_changes_the_score(policies: dict[str, Policy]) -> None:
    policy = policies["qwen2_5_vl"]
    values = []
    for seed in (0, 1):
        encoded, rows = encode_rows(policy, [prompt_of(policy, "x", picture(policy, (112, 112), seed))], [[[5, 6]]])
        values.append(score_rows(Scorer(policy), policy, encoded, rows, token_budget=1000)[0])
    assert (values[0] - values[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", [*FAMILIES, "text"])
def test_gradients_do_not_depend_on_batches_or_chunks(
    name: str, policies: dict[str, Policy], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policies[name]
    encoded, rows = encode_rows(policy, three_prompts_of(policy), COMPLETIONS)
    choice = ScoringChoice(banned_ids=policy.banned_ids, entropies=True)

    def gradients(budget: int) -> dict[str, torch.Tensor]:
        policy.model.zero_grad()
        for batch in iterate_batches(policy, encoded, rows, budget):
            found = Scorer(policy)(batch, choice)
            assert found.entropies is not None
            (found.log_probabilities.sum() + found.entropies.sum()).backward()
        return {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}

    whole = gradients(100_000)
    monkeypatch.setattr(scoring, "_CHUNK_VALUES", 3 * len(policy.tokenizer))
    for other in (gradients(100_000), gradients(1)):
        assert set(other) == set(whole)
        for weight, gradient in whole.items():
            torch.testing.assert_close(other[weight], gradient, atol=2e-4, rtol=2e-4)
    policy.model.zero_grad()


def test_the_vision_tower_sees_a_picture_once_for_a_group(policies: dict[str, Policy]) -> None:
    policy = policies["qwen2_5_vl"]
    encoded, rows = encode_rows(policy, three_prompts(policy), COMPLETIONS)
    seen = []
    tower = transformers_model(policy.model).base_model.visual
    handle = tower.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    try:
        score_rows(Scorer(policy), policy, encoded, rows, token_budget=100_000)
    finally:
        handle.remove()
    assert seen == [sum(len(prompt.pixels) for prompt in encoded if prompt.pixels is not None)]


def test_entropies_equal_their_definition(policies: dict[str, Policy]) -> None:
    policy = policies["text"]
    encoded, rows = encode_rows(policy, three_prompts_of(policy)[:1], [[[5, 6, 7]]])
    (batch,) = iterate_batches(policy, encoded, rows, 1000)
    found = Scorer(policy)(batch, ScoringChoice(temperature=2.0, banned_ids=(3,), entropies=True))
    logits = transformers_model(policy.model)(batch.input_ids).logits[0, -4:-1].double() / 2
    logits[:, 3] = -torch.inf
    shares = logits.softmax(-1)
    expected = -(shares * shares.clamp_min(1e-300).log()).sum(-1)
    torch.testing.assert_close(found.entropies.double(), expected, atol=1e-5, rtol=0)


def test_a_sampled_image_token_is_refused(policies: dict[str, Policy]) -> None:
    policy = policies["qwen2_5_vl"]
    encoded, rows = encode_rows(policy, three_prompts(policy)[1:2], [[[5, policy.banned_ids[0], 6]]])
    with pytest.raises(ValueError, match="never drawn"):
        score_rows(
            Scorer(policy), policy, encoded, rows, token_budget=99, choice=ScoringChoice(banned_ids=policy.banned_ids)
        )


def test_the_reference_is_the_model_before_its_adapters(adapted: Policy, folders: dict[str, Path]) -> None:
    base = policy_at(folders["qwen2_5_vl"])
    choice = ScoringChoice()
    expected = score_all(base, 1000, choice)
    torch.testing.assert_close(score_all(adapted, 1000, choice, reference=True), expected, atol=1e-6, rtol=0)
    moved = max(float((a - b).abs().max()) for a, b in zip(score_all(adapted, 1000, choice), expected, strict=True))
    assert moved > 1e-2
    with pytest.raises(ValueError, match="no adapters"):
        adapters_off(base)


def test_g04_a_rank_without_pictures_passes_the_same_layers(folders: dict[str, Path]) -> None:
    for family in FAMILIES:
        policy = policy_at(folders[family])
        encoded, rows = encode_rows(policy, three_prompts(policy)[1:2], [[[5, 6]]])
        (batch,) = iterate_batches(policy, encoded, rows, 1000)
        plain = Scorer(policy)(batch, ScoringChoice()).log_probabilities
        found = Scorer(policy, sees_pictures_always=True)(batch, ScoringChoice()).log_probabilities
        assert torch.equal(plain, found)
        found.sum().backward()
        towers = [p.grad for n, p in policy.model.named_parameters() if ".visual." in n]
        assert all(gradient is not None and not gradient.any() for gradient in towers)


def test_gradient_checkpointing_changes_no_number(folders: dict[str, Path], policies: dict[str, Policy]) -> None:
    for family in FAMILIES:
        plain = policies[family]
        saving = policy_at(folders[family], gradient_checkpointing=True)
        found = []
        for policy in (plain, saving):
            encoded, rows = encode_rows(policy, three_prompts(policy), COMPLETIONS)
            (batch,) = iterate_batches(policy, encoded, rows, 100_000)
            policy.model.zero_grad()
            values = Scorer(policy)(batch, ScoringChoice()).log_probabilities
            values.sum().backward()
            found.append((values.detach(), [p.grad.clone() for p in policy.model.parameters() if p.grad is not None]))
            policy.model.zero_grad()
        torch.testing.assert_close(found[0], found[1])


def test_a_text_model_takes_no_picture(policies: dict[str, Policy]) -> None:
    text = policies["text"]
    prompt = prompt_of(policies["qwen2_5_vl"], "x", picture(policies["qwen2_5_vl"], (56, 56)), row_id="r1")
    with pytest.raises(ValueError, match=r"r1: a text model is given 1 picture"):
        encode_prompt(text, prompt)


def test_scoring_keeps_the_modules_mode(policies: dict[str, Policy]) -> None:
    scorer = Scorer(policies["text"]).train()
    encoded, rows = encode_rows(policies["text"], three_prompts_of(policies["text"]), COMPLETIONS)
    score_rows(scorer, policies["text"], encoded, rows, token_budget=1000)
    assert scorer.training
    with pytest.raises(ValueError, match="3 prompts, and completions of 1"):
        encode_rows(policies["text"], three_prompts_of(policies["text"]), COMPLETIONS[:1])


def test_a_changed_weight_changes_the_score(folders: dict[str, Path]) -> None:
    policy = policy_at(folders["text"])
    before = score_all(policy, 1000, ScoringChoice())
    change(policy, 0.05)
    assert (before[0] - score_all(policy, 1000, ScoringChoice())[0]).abs().max() > 1e-3
