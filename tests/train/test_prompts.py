"""Examples as prompts and targets: the words, the tokens, the lengths, and boxes in the model's own coordinates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from qoq_data.corpus.questions import context_text
from qoq_data.errors import CorpusError, UsageError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution
from qoq_data.record import AnswerType, BoxOnImage, Domain, Split
from qoq_data.sources import registry
from qoq_train.answers import read_answer
from qoq_train.coordinates import Convention
from qoq_train.data.corpus import Corpus, Example
from qoq_train.models.pictures import PictureRule
from qoq_train.models.tiny import tiny_tokenizer
from qoq_train.prompts import LeftOut, PromptWriter, Template, choice_mark, fixed_pieces, question_text
from qoq_train.recipe import DataRecipe, PromptRecipe
from qoq_train.rewards.boxes_in_text import read_boxes
from qoq_train.rewards.format import binary_format_reward
from qoq_train.rollout import Prompt
from qoq_train.targets import MOST_BOXES, Target, supervised_pair, target_text, with_drawn_answer

TEMPLATES: tuple[Template, ...] = ("boxes", "reasoning", "short")
PIXELS, THOUSANDTHS = Convention.RESIZED_PIXELS, Convention.THOUSANDTHS


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def example(**keys: Any) -> Example:
    """A row of one picture with a lesion, changed as asked."""
    row = {
        "row_id": "busi/benign-1/diagnosis",
        "source": "busi",
        "domain": Domain.ULTRASOUND,
        "task": "lesion_class",
        "patient": "",
        "question": "What is the overall finding?",
        "context": "",
        "choices": ("Normal", "Benign", "Malignant"),
        "answer": ("Benign",),
        "answer_type": AnswerType.ONE,
        "tolerance": None,
        "boxes": (BoxOnImage("lesion", 0, (28, 14, 56, 84)),),
        "boxes_known": True,
        "source_has_boxes": True,
        "licence": "LicenseRef-BUSI",
        "redistribution": Redistribution.IDS,
        "pictures": (picture(112, 112),),
    }
    return Example(**(row | keys))


NUMBER = {
    "task": "heart_rate",
    "question": "How many beats per minute does this ECG show?",
    "choices": (),
    "answer": ("75",),
    "answer_type": AnswerType.NUMBER,
    "tolerance": 5.0,
    "boxes": (),
    "boxes_known": False,
    "source_has_boxes": False,
}


@pytest.fixture(scope="module")
def processors() -> dict[Convention, Any]:
    """The processors of transformers, Qwen2.5-VL's and Qwen3-VL's, with a tokenizer of bytes."""
    import torch

    from qoq_train.models.tiny import TinySizes, _processor

    torch.set_num_threads(1)
    sizes = TinySizes(min_pixels=56 * 56, max_pixels=448 * 448)
    tokenizer = tiny_tokenizer(())
    return {
        PIXELS: _processor("qwen2_5_vl", sizes, tokenizer),
        THOUSANDTHS: _processor("qwen3_vl", sizes, tokenizer),
    }


@pytest.fixture(scope="module")
def writers(processors: dict[Convention, Any]) -> Callable[..., PromptWriter]:
    def make(convention: Convention = PIXELS, **keys: Any) -> PromptWriter:
        processor = processors[convention]
        token = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        rule = PictureRule.of_processor(processor.image_processor, token)
        return PromptWriter(processor, rule, convention, **keys)

    return make


@pytest.fixture(scope="module")
def corpus(corpus_folder: Path) -> Corpus:
    return Corpus(DataRecipe(corpus=str(corpus_folder), ecg_pixels_per_mm=1.0))


@pytest.fixture(scope="module")
def corpus_examples(corpus: Corpus) -> list[Example]:
    every = [corpus.rows(split) for split in Split]
    return [rows.example(place) for rows in every for place in range(len(rows))]


# Words


def test_a_question_with_boxes_reads_as_written_by_hand() -> None:
    assert question_text(example(context="Age: 56 years; sex: female"), "boxes", PIXELS) == (
        "Known beforehand: Age: 56 years; sex: female.\n"
        "What is the overall finding?\n"
        "A. Normal\n"
        "B. Benign\n"
        "C. Malignant\n"
        "\n"
        "Think it through between <think> and </think>. "
        'Then mark what your answer rests on: a ```json block with a list of {"bbox_2d": [left, top, right, bottom], '
        '"label": "..."}, in pixels of the picture as you see it, or [] if there is nothing to mark. '
        "Give your answer in \\boxed{}: one of the choices, as written."
    )


def test_several_pictures_are_numbered_and_coordinates_are_the_models_own() -> None:
    text = question_text(example(pictures=(picture(60, 60),) * 2), "boxes", THOUSANDTHS)
    assert (
        '"label": "..."}, in thousandths of the picture\'s width and height, each with "image", the number of its '
        "picture, or [] if there is nothing to mark. Give" in text
    )


def test_a_question_with_reasoning_and_several_answers_reads_as_written_by_hand() -> None:
    row = example(answer_type=AnswerType.SEVERAL, question="Which apply?", choices=("One, two", "Three"))
    assert question_text(row, "reasoning", PIXELS) == (
        "Which apply?\nA. One, two\nB. Three\n\nThink it through between <think> and </think>. "
        "Give your answer in \\boxed{}: every choice that applies, as written, with commas between."
    )


def test_a_number_has_no_choices() -> None:
    assert question_text(example(**NUMBER), "short", PIXELS) == (
        "How many beats per minute does this ECG show?\n\nGive your answer in \\boxed{}: one number, in the unit asked for."  # noqa: E501
    )


def test_boxes_are_asked_of_a_source_that_has_them_and_never_by_the_row() -> None:
    asked = {
        question_text(example(boxes=boxes, boxes_known=known), "boxes", PIXELS)
        for boxes in ((), example().boxes)
        for known in (True, False)
    }
    assert len(asked) == 1
    assert "bbox_2d" in asked.pop()
    for without in (example(source_has_boxes=False), example(pictures=())):
        assert question_text(without, "boxes", PIXELS) == question_text(without, "reasoning", PIXELS)


def test_choices_beyond_the_letters_are_numbered() -> None:
    assert [choice_mark(number) for number in (0, 25, 26, 39)] == ["A.", "Z.", "27.", "40."]
    choices = tuple(f"finding {number}x" for number in range(40))
    assert read_answer("\\boxed{27}", choices, "one").labels == (choices[26],)


# Tokens


def expanded_by_the_processor(
    processor: Any, writer: PromptWriter, row: Example, prompt: Prompt
) -> tuple[list[int], Any]:
    """Token ids and grids that transformers' own processor makes of the same words and pictures."""
    content = [
        *({"type": "image"} for _ in row.pictures),
        {"type": "text", "text": question_text(row, writer.template, writer.convention)},
    ]
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    made = processor(text=[text], images=list(prompt.pictures) or None, return_tensors="pt")
    return made["input_ids"][0].tolist(), made.get("image_grid_thw")


@pytest.mark.parametrize("convention", [PIXELS, THOUSANDTHS])
@pytest.mark.parametrize("sizes", [(), ((300, 200),), ((1695, 2187), (23, 3), (500, 40))])
def test_r05_r10_one_image_token_a_picture_and_one_grid_on_both_sides(
    processors: dict[Convention, Any],
    writers: Callable[..., PromptWriter],
    convention: Convention,
    sizes: tuple[tuple[int, int], ...],
) -> None:
    writer = writers(convention)
    row = example(pictures=tuple(picture(*size) for size in sizes), boxes=())
    prompt = writer.prompt(row)
    assert isinstance(prompt, Prompt)
    assert writer.pictures is not None
    assert prompt.token_ids.count(writer.pictures.image_token_id) == len(sizes) == len(prompt.pictures)
    ids, grids = expanded_by_the_processor(processors[convention], writer, row, prompt)
    assert list(writer.pictures.expand(prompt.token_ids, [p.size for p in prompt.pictures])) == ids
    patch = writer.pictures.patch_size_px
    for shown, frame, grid in zip(prompt.pictures, writer.frames(row), grids if sizes else [], strict=True):
        assert (int(grid[2]) * patch, int(grid[1]) * patch) == shown.size
        assert frame.model_size == (shown.size if convention is PIXELS else (1000, 1000))


def test_g01_a_prompt_over_the_limit_is_left_out_whole_with_its_length(
    processors: dict[Convention, Any], writers: Callable[..., PromptWriter]
) -> None:
    row = example(pictures=(picture(448, 448), picture(112, 56)), boxes=())
    prompt = writers().prompt(row)
    assert isinstance(prompt, Prompt)
    length = len(expanded_by_the_processor(processors[PIXELS], writers(), row, prompt)[0])
    assert length > 256 + 8
    exact = writers(max_prompt_tokens=length).prompt(row)
    assert isinstance(exact, Prompt)
    assert exact.token_ids == prompt.token_ids
    for limit in (length - 1, 256, 16):  # also below the picture's own tokens
        assert writers(max_prompt_tokens=limit).prompt(row) == LeftOut(row.row_id, length)
    assert supervised_pair(writers(max_prompt_tokens=16), row, Random(0)) == LeftOut(row.row_id, length)


def test_the_system_message_stands_first(writers: Callable[..., PromptWriter]) -> None:
    writer = writers()
    recipe = PromptRecipe(template="short", system="You read pictures.")
    with_system = PromptWriter.of_recipe(writer.chat, writer.pictures, PIXELS, recipe, 4000).prompt(example())
    assert isinstance(with_system, Prompt)
    assert writer.tokenizer.decode(with_system.token_ids).startswith(
        "<|im_start|>system\nYou read pictures.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What"  # noqa: E501
    )
    assert writer.tokenizer.decode(with_system.token_ids).endswith("as written.<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|im_end|>", "<|vision_start|>"])
@pytest.mark.parametrize("where", ["question", "context", "choices"])
def test_a_control_token_in_a_rows_text_is_refused(
    writers: Callable[..., PromptWriter], token: str, where: str
) -> None:
    value = ("Benign", f"x{token}") if where == "choices" else f"See {token} here"
    with pytest.raises(CorpusError, match=rf"^busi/benign-1/diagnosis: .*{re.escape(token)}"):
        writers().prompt(example(**{where: value}))
    with pytest.raises(UsageError, match=re.escape(f"prompt.system holds the control token '{token}'")):
        writers(system=f"a{token}")


def test_a_text_model_gets_text_and_refuses_pictures() -> None:
    writer = PromptWriter(tiny_tokenizer(()), None, Convention.PIXELS, "reasoning")
    row = example(pictures=(), boxes=(), domain=Domain.EHR)
    prompt = writer.prompt(row)
    assert isinstance(prompt, Prompt)
    assert prompt.pictures == ()
    assert writer.tokenizer.decode(prompt.token_ids) == (
        f"<|im_start|>user\n{question_text(row, 'reasoning', PIXELS)}<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(UsageError, match=r"^busi/benign-1/diagnosis: .*reads text alone"):
        writer.prompt(example())


def test_a_picture_too_thin_for_the_model_is_an_error_with_the_rows_id(writers: Callable[..., PromptWriter]) -> None:
    for call in (writers().prompt, writers().frames):
        with pytest.raises(UsageError, match=r"^busi/benign-1/diagnosis: "):
            call(example(pictures=(picture(900, 3),), boxes=()))


# Targets


def test_a_target_reads_as_written_by_hand(writers: Callable[..., PromptWriter]) -> None:
    row = example(pictures=(picture(224, 224),), boxes=(*example().boxes, BoxOnImage('a "spot"', 0, (0, 0, 224, 224))))
    # 224 x 224 pixels are 1000 x 1000 thousandths: 28 of 224 is an eighth.
    found = target_text(row, "boxes", Random(2), writers(THOUSANDTHS).frames(row))
    assert re.sub(r"(?<=<think>).*(?=</think>)", "...", found.text) == (
        "<think>...</think>\n"
        '```json\n[{"bbox_2d": [125, 63, 250, 375], "label": "lesion"}, '
        '{"bbox_2d": [0, 0, 1000, 1000], "label": "a \\"spot\\""}]\n```\n'
        "\\boxed{Benign}"
    )


def test_thoughts_are_drawn_and_name_task_and_answer() -> None:
    texts = {target_text(example(), "reasoning", Random(seed)).text for seed in range(40)}
    assert texts == {
        "<think>As to lesion class, what is shown fits: Benign.</think>\n\\boxed{Benign}",
        "<think>On lesion class, the signs taken together speak for: Benign.</think>\n\\boxed{Benign}",
        "<think>In question is lesion class; closest to what I see comes: Benign.</think>\n\\boxed{Benign}",
    }
    numbers = {target_text(example(**NUMBER), "reasoning", Random(seed)).text for seed in range(40)}
    assert numbers == {
        "<think>Measuring heart rate over what is shown gives 75.</think>\n\\boxed{75}",
        "<think>As to heart rate, I read off about 75.</think>\n\\boxed{75}",
    }


def test_the_spans_are_the_answer_in_the_thought_and_in_the_box() -> None:
    row = example(answer_type=AnswerType.SEVERAL, choices=("One, two", "Three and four", "Five"))
    row = replace(row, answer=("One, two", "Five"))
    found = target_text(row, "reasoning", Random(0))
    assert [found.text[first:last] for first, last in found.answer_spans] == ["One, two, Five"] * 2
    short = target_text(row, "short", Random(0))
    assert short == Target("\\boxed{One, two, Five}", ((7, 21),))


def test_no_answer_of_several_is_none() -> None:
    row = example(answer_type=AnswerType.SEVERAL, answer=())
    assert target_text(row, "short", Random(0)).text == "\\boxed{none}"


@pytest.mark.parametrize("choice", ["half {open", "} closed", "tail \\"])
def test_an_answer_that_would_be_read_as_another_is_an_error_with_the_rows_id(choice: str) -> None:
    with pytest.raises(CorpusError, match=r"^busi/benign-1/diagnosis: .*read as another"):
        target_text(example(choices=(choice, "Other"), answer=(choice,)), "short", Random(0))


def test_boxes_that_nobody_knows_are_never_taught_as_none(writers: Callable[..., PromptWriter]) -> None:
    unknown = example(boxes=(), boxes_known=False)
    with pytest.raises(ValueError, match="its boxes are not known"):
        target_text(unknown, "boxes", Random(0), writers().frames(unknown))
    pair = supervised_pair(writers(), unknown, Random(0))
    assert isinstance(pair, tuple)
    prompt, target = pair
    assert "bbox" not in writers().tokenizer.decode(prompt.token_ids)
    assert target == target_text(unknown, "reasoning", Random(0))
    nothing = supervised_pair(writers(), example(boxes=()), Random(0))
    assert isinstance(nothing, tuple)
    assert "```json\n[]\n```\n" in nothing[1].text
    assert "bbox" in writers().tokenizer.decode(nothing[0].token_ids)
    crowd = example(boxes=example().boxes * (MOST_BOXES + 1))
    crowded = supervised_pair(writers(), crowd, Random(0))
    assert isinstance(crowded, tuple)
    assert "bbox" not in crowded[1].text


def test_frames_are_needed_for_boxes() -> None:
    with pytest.raises(ValueError, match="frames are not given"):
        target_text(example(), "boxes", Random(0))


@pytest.mark.parametrize("convention", [PIXELS, THOUSANDTHS])
@pytest.mark.parametrize("size", [(1080, 1920), (1920, 1080), (61, 203), (448, 448)])
def test_b06_boxes_come_back_from_the_models_coordinates(
    writers: Callable[..., PromptWriter], convention: Convention, size: tuple[int, int]
) -> None:
    width, height = size
    draw = Random(width)
    boxes = [
        BoxOnImage("edge", 1, (0, 0, width, height)),
        BoxOnImage("corner", 1, (width - 1, height - 1, width, height)),
    ]
    for _ in range(20):
        x, y = draw.randrange(width - 9), draw.randrange(height - 9)
        boxes.append(BoxOnImage("spot", 1, (x, y, draw.randint(x + 8, width), draw.randint(y + 8, height))))
    writer = writers(convention)
    row = example(pictures=(picture(90, 70), picture(*size)), boxes=tuple(boxes))
    frames = writer.frames(row)
    stated = read_boxes(target_text(row, "boxes", Random(0), frames).text)
    assert (len(stated.boxes), stated.malformed) == (len(boxes), 0)
    across, down = width / frames[1].model_size[0], height / frames[1].model_size[1]  # pixels of one unit
    for box, said in zip(boxes, stated.boxes, strict=True):
        assert (said.image, said.label) == (1, box.label)
        back = frames[1].to_pixels(said.xyxy)
        for edge, true, unit in zip(back, box.xyxy, (across, down) * 2, strict=True):
            assert abs(edge - true) <= (0.5 * unit if box.label != "corner" else unit) + 1e-9
    grown = frames[1].to_pixels(stated.boxes[0].xyxy)
    assert grown == pytest.approx((0, 0, width, height), abs=1e-6)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("convention", [PIXELS, THOUSANDTHS])
def test_every_target_of_the_corpus_is_right_and_of_the_form_asked_for(
    writers: Callable[..., PromptWriter], corpus_examples: list[Example], template: Template, convention: Convention
) -> None:
    writer = writers(convention, template=template)
    boxed = 0
    for number, row in enumerate(corpus_examples):
        pair = supervised_pair(writer, row, Random(number))
        assert isinstance(pair, tuple)
        prompt, target = pair
        assert prompt.row_id == row.row_id
        assert read_answer(target.text, row.choices, row.answer_type).labels == row.answer
        asked = "bbox_2d" in writer.tokenizer.decode(prompt.token_ids)
        assert asked == (template == "boxes" and row.source in ("busi", "ham10000"))
        if template != "short":
            assert binary_format_reward(target.text, boxes_expected=asked) == 1
        for first, last in target.answer_spans:
            assert target.text[first:last] == ", ".join(row.answer)
        if asked:
            boxed += len(row.boxes)
            stated = read_boxes(target.text)
            assert (len(stated.boxes), stated.stated) == (len(row.boxes), True)
    assert (boxed > 5) == (template == "boxes")


# What a tiny tokenizer holds


@pytest.mark.parametrize("template", TEMPLATES)
def test_fixed_pieces_make_prompts_and_targets_short(
    corpus: Corpus, corpus_examples: list[Example], template: Template
) -> None:
    pieces = fixed_pieces(corpus, template, PIXELS)
    assert len(set(pieces)) == len(pieces)
    assert all(pieces)
    assert ("<think>" in pieces) == (template != "short")
    assert any("bbox" in piece for piece in pieces) == (template == "boxes")
    tokenizer = tiny_tokenizer(pieces)
    for row in corpus_examples:
        text = question_text(row, template, PIXELS)
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert len(ids) <= 2 * len(row.choices) + len(row.context) + 12
        for choice in row.choices:
            assert len(tokenizer(choice)["input_ids"]) == 1
        target = target_text(replace(row, source_has_boxes=False), template, Random(0)).text
        assert tokenizer.decode(tokenizer(target)["input_ids"]) == target
        assert len(tokenizer(target)["input_ids"]) <= 9 + 5 * len(row.answer)


# What is known beforehand does not give the answer away


def known_and_answers(name: str, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Item, context and each text of an answer, over every task of a source's synthetic items."""
    source = registry()[name]
    source.synthesize(folder, 3, 6)
    scanned = source.scan(Store(folder), source.options_model())
    items = scanned.collect() if isinstance(scanned, pl.LazyFrame) else scanned
    for item in items.to_dicts():
        known = {field: item[f"context.{field}"] for field in source.spec.context_fields if f"context.{field}" in item}
        for task in source.spec.tasks:
            keys = item.get(f"answer.{task.name}")
            if isinstance(keys, list):
                yield from ((item["item"], context_text(known), c.text) for c in task.choices if c.key in keys)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(registry()))
def test_s03_no_context_holds_the_text_of_its_answer(name: str, tmp_path: Path) -> None:
    found = list(known_and_answers(name, tmp_path))
    assert found or not registry()[name].spec.context_fields
    for item, context, answer in found:
        given = re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", context, re.IGNORECASE)
        assert given is None, f"{name}/{item}: {context!r} holds {answer!r}"


def test_drawn_answers_are_choices_of_the_row_in_their_order_as_many_as_its_own() -> None:
    drawn = [with_drawn_answer(example(), Random(seed)) for seed in range(60)]
    assert {one.answer for one in drawn} == {(choice,) for choice in example().choices}
    several = example(choices=("a", "b", "c", "d"), answer=("b", "d"), answer_type=AnswerType.SEVERAL)
    pairs = {with_drawn_answer(several, Random(seed)).answer for seed in range(200)}
    assert pairs == {("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")}
    nothing = example(choices=("a", "b"), answer=(), answer_type=AnswerType.SEVERAL)
    assert with_drawn_answer(nothing, Random(0)).answer == ()
    assert with_drawn_answer(example(**NUMBER), Random(0)).answer == ("75",)
