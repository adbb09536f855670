"""What a run is given: its model's config, its corpus's rows and its prompts, looked at without loading a weight."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qoq_data.errors import QoQError, UsageError
from qoq_data.licence import Redistribution
from qoq_data.record import Split
from qoq_train.doctor.findings import Finding, Verdict
from qoq_train.publish.model_licence import model_licence

if TYPE_CHECKING:
    from qoq_train.data.corpus import Corpus
    from qoq_train.doctor.phases import ModelSize
    from qoq_train.models.loading import ModelFamily
    from qoq_train.publish.model_licence import ModelCards
    from qoq_train.recipe import TrainRecipe

SAMPLED_ROWS: Final = 64
"""Rows of the training split whose media are opened and whose prompts are counted."""
_MOST_TOLD: Final = 5


class Inputs:
    """A recipe's model and corpus, each opened once, when it is first asked for."""

    def __init__(self, recipe: TrainRecipe, cards: ModelCards | None = None) -> None:
        self.recipe = recipe
        self.cards = cards

    @cached_property
    def config(self) -> Any:
        """The model's config; raises ``UsageError`` where there is none."""
        from transformers import AutoConfig

        path = self.recipe.model.path
        try:
            return AutoConfig.from_pretrained(path)
        except (OSError, ValueError) as error:
            first = str(error).strip().split("\n", 1)[0]
            raise UsageError(f"no model's config is found at {path!r}: {first}") from error

    @cached_property
    def family(self) -> ModelFamily:
        """The model's kind; raises ``UsageError`` for one that is not supported."""
        from qoq_train.models.loading import model_family

        return model_family(self.config)

    @cached_property
    def size(self) -> ModelSize:
        """The model's counts."""
        from qoq_train.doctor.model_size import model_size

        return model_size(self.config, self.recipe.model.lora, freeze_vision=self.recipe.model.freeze_vision)

    @property
    def picture_tokens(self) -> int:
        """Tokens of the largest picture that the recipe lets in; 0 for a text model."""
        vision = getattr(self.config, "vision_config", None)
        if vision is None:
            return 0
        side = int(vision.patch_size) * int(vision.spatial_merge_size)
        return self.recipe.data.max_pixels // side**2

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus; raises the errors of ``Corpus``."""
        from qoq_train.data.corpus import Corpus

        return Corpus(self.recipe.data)


def check_model(inputs: Inputs) -> Iterator[Finding]:
    """Whether there is such a model, of a kind that is supported, with its weights, and under which licence."""
    path = inputs.recipe.model.path
    size, kind = inputs.size, inputs.family
    trained = f", {_count(size.trained)} of them trained" if size.trained != size.parameters else ""
    yield Finding("model", "fine", f"{inputs.config.model_type}, {_count(size.parameters)} parameters{trained}")
    if kind != "text" and find_spec("torchvision") is None:
        yield Finding("model", "fails", "its processor needs torchvision: pip install 'qoq-med[train]'")
    if kind == "text" and inputs.recipe.model.freeze_vision:
        yield Finding("model", "fails", "it has no vision tower that could be frozen", "model.freeze_vision")
    folder = Path(path)
    if folder.is_dir():
        yield from _folder(folder)
    wanted = inputs.recipe.data.max_prompt_tokens + inputs.recipe.rollout.max_tokens
    window = int(getattr(inputs.config.get_text_config(), "max_position_embeddings", wanted))
    if wanted > window:
        what = f"prompt and completion are up to {wanted} tokens, and it was made for {window}"
        yield Finding("model", "fails", what, "rollout.max_tokens")
    licence = model_licence(path, inputs.cards)
    passed_on = licence.redistribution
    what = f"what is made from it may be passed on: {passed_on}"
    if passed_on is None:
        what = "nothing is known of what may be passed on, so a public push will be refused"
    yield Finding("model", "warns" if passed_on is None else "fine", f"{licence}: {what}")


def check_corpus(inputs: Inputs) -> Iterator[Finding]:
    """The rows by split and domain, what may be done with them, and which are generated."""
    from qoq_train.data.shards import read_columns

    corpus = inputs.corpus
    yield Finding("corpus", "fine", f"{corpus.manifest.name}, manifest {corpus.manifest_sha256[:16]}")
    for split in Split:
        counts: Counter[str] = Counter()
        for shard in corpus.shards(split):
            table, _ = read_columns(corpus.store, shard, ["domain", "task"])
            tasks = table["task"].to_pylist()
            counts.update(d for d, task in zip(table["domain"].to_pylist(), tasks, strict=True) if task in corpus.tasks)
        by_domain = ", ".join(f"{domain} {count:,}" for domain, count in sorted(counts.items()))
        if counts:
            yield Finding("corpus", "fine", f"{split}: {counts.total():,} rows ({by_domain})")
        else:
            verdict: Verdict = "warns" if split is Split.TEST else "fails"
            yield Finding(
                "corpus", verdict, f"{split} has no row that passes data.sources and data.tasks", "data.corpus"
            )
    closed = corpus.redistribution in (Redistribution.NONE, Redistribution.IDS)
    what = f"{corpus.licence}; may be passed on: {corpus.redistribution}"
    more = "; a public push of the model will be refused" if closed else ""
    yield Finding("corpus", "warns" if closed else "fine", what + more)
    generated = [one.name for one in corpus.manifest.sources if one.synthetic and one.name in corpus.sources]
    if generated:
        what = f"generated by a program, no patient in it: {', '.join(generated)}"
        yield Finding("corpus", "warns", what)


def check_prompts(inputs: Inputs) -> Iterator[Finding]:
    """A seeded sample of training rows: their media opened, their prompts counted against the limit."""
    from qoq_train.prompts import LeftOut

    recipe, rows = inputs.recipe, inputs.corpus.rows(Split.TRAIN)
    places = rows.sample(SAMPLED_ROWS, recipe.seed).tolist()
    writer = _writer(inputs)
    tokens: list[int] = []
    too_long, broken = 0, []
    for place in places:
        try:
            prompt = writer.prompt(rows.example(place))
        except QoQError as error:
            broken.append(str(error))
            continue
        if isinstance(prompt, LeftOut):
            too_long += 1
            tokens.append(prompt.tokens)
        else:
            rule = writer.pictures
            sizes = [picture.size for picture in prompt.pictures]
            tokens.append(len(prompt.token_ids) + sum(rule.token_count(size) - 1 for size in sizes if rule is not None))
    for problem in broken[:_MOST_TOLD]:
        yield Finding("prompts", "fails", problem)
    if len(broken) > _MOST_TOLD:
        yield Finding("prompts", "fails", f"{len(broken) - _MOST_TOLD} more of {len(places)} rows cannot be asked")
    if tokens:
        middle = sorted(tokens)[len(tokens) // 2]
        what = f"{len(tokens)} of {len(places)} rows read; tokens: {middle} in the middle, {max(tokens)} at most"
        yield Finding("prompts", "fine", what)
    if too_long:
        every = too_long == len(places)
        what = f"{too_long} of {len(places)} are longer than {recipe.data.max_prompt_tokens} tokens and are left out"
        yield Finding("prompts", "fails" if every else "warns", what, "data.max_prompt_tokens")


def check_rewards(inputs: Inputs) -> Iterator[Finding]:
    """Whether the recipe's rewards can be put together and its own ones are found."""
    from qoq_train.rewards import load_reward
    from qoq_train.training.assembly import reward_settings

    recipe = inputs.recipe.rewards
    weights = {name: weight for name, weight in reward_settings(recipe).weights.shares() if weight}
    for name in recipe.custom:
        load_reward(name)
    yield Finding("rewards", "fine", ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.2f} M"


def _writer(inputs: Inputs) -> Any:
    from transformers import AutoProcessor, AutoTokenizer

    from qoq_train.models.pictures import PictureRule
    from qoq_train.prompts import PromptWriter
    from qoq_train.training.assembly import CONVENTIONS

    recipe, rule = inputs.recipe, None
    if inputs.family == "text":
        chat = AutoTokenizer.from_pretrained(recipe.model.path)
    else:
        chat = AutoProcessor.from_pretrained(recipe.model.path)
        size = {"shortest_edge": recipe.data.min_pixels, "longest_edge": recipe.data.max_pixels}
        chat.image_processor.size = size
        rule = PictureRule.of_processor(chat.image_processor, int(inputs.config.image_token_id))
    limit = recipe.data.max_prompt_tokens
    return PromptWriter.of_recipe(chat, rule, CONVENTIONS[inputs.family], recipe.prompt, limit)


def _folder(folder: Path) -> Iterator[Finding]:
    """Whether a model's folder has its weights and its tokenizer."""
    index = folder / "model.safetensors.index.json"
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    if index.is_file():
        named = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
        absent = sorted(named - set(weights))
        if absent:
            yield Finding("model", "fails", f"{len(absent)} of its {len(named)} files are not there: {absent[0]} first")
    elif not weights:
        old = any(folder.glob("*.bin"))
        what = "its weights are in a format that can run code (.bin): convert them to safetensors" if old else ""
        yield Finding("model", "warns" if old else "fails", what or f"{folder.name} has no weights (*.safetensors)")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        yield Finding("model", "fails", f"{folder.name} has no tokenizer")
