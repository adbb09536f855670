"""A split of a corpus as the parquet file that verl trains on; neither verl nor the model's weights are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from qoq_data.errors import UsageError
from qoq_train.integrations.verl_rows import verl_row
from qoq_train.models.loading import model_family
from qoq_train.models.pictures import PictureRule
from qoq_train.prompts import LeftOut, PromptWriter, question_text
from qoq_train.training.assembly import CONVENTIONS, facts_of

if TYPE_CHECKING:
    from qoq_data.record import Split
    from qoq_train.data.corpus import Corpus
    from qoq_train.recipe import TrainRecipe

SCHEMA: Final = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("images", pa.list_(pa.struct([("bytes", pa.binary())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    ("index", pa.int64()),
                    ("id", pa.string()),
                    ("domain", pa.string()),
                    ("task", pa.string()),
                    ("split", pa.string()),
                ]
            ),
        ),
    ]
)
"""The columns that verl's own dataset reads."""

_ROWS_AT_ONCE: Final = 256


def write_split(corpus: Corpus, writer: PromptWriter, split: Split, file: Path) -> tuple[int, list[LeftOut]]:
    """Write a split, whole before it has its name; the number of rows written, and those whose prompt was too long.

    The file's metadata hold the licence of its rows. Raises ``UsageError`` where no row is left, and as
    ``PromptWriter.prompt`` and ``verl_row``.
    """
    rows = corpus.rows(split)
    left_out: list[LeftOut] = []
    written = 0
    terms = {"licence": corpus.licence, "redistribution": str(corpus.redistribution)}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    with pq.ParquetWriter(part, SCHEMA.with_metadata({"qoq": json.dumps(terms)}), compression="zstd") as table:
        held: list[dict[str, Any]] = []
        for place in range(len(rows)):
            example = rows.example(place)
            prompt = writer.prompt(example)
            if isinstance(prompt, LeftOut):
                left_out.append(prompt)
                continue
            text = question_text(example, writer.template, writer.convention)
            facts = facts_of(example, writer)
            held.append(verl_row(facts, text, prompt, split=str(split), index=written, system=writer.system))
            written += 1
            if len(held) == _ROWS_AT_ONCE:
                table.write_table(pa.Table.from_pylist(held, SCHEMA))
                held = []
        if held:
            table.write_table(pa.Table.from_pylist(held, SCHEMA))
    if not written:
        part.unlink()
        raise UsageError(f"The corpus has no row in {split} that passes the recipe and fits data.max_prompt_tokens.")
    part.replace(file)
    return written, left_out


def prompt_writer(recipe: TrainRecipe) -> PromptWriter:
    """The recipe's writer of prompts, by its model's processor alone; raises ``UsageError`` where there is none."""
    from transformers import AutoConfig, AutoProcessor, AutoTokenizer

    path, data = recipe.model.path, recipe.data
    try:
        config = AutoConfig.from_pretrained(path)
        family = model_family(config)
        chat = (AutoTokenizer if family == "text" else AutoProcessor).from_pretrained(path)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"the tokenizer or processor at {path!r} cannot be loaded.") from error
    rule = None
    if family != "text":
        chat.image_processor.size = {"shortest_edge": data.min_pixels, "longest_edge": data.max_pixels}
        rule = PictureRule.of_processor(chat.image_processor, int(config.image_token_id))
    return PromptWriter.of_recipe(chat, rule, CONVENTIONS[family], recipe.prompt, data.max_prompt_tokens)


def main() -> None:
    """``python -m qoq_train.integrations.verl_corpus RECIPE FOLDER``: train.parquet and validation.parquet."""
    import sys

    import typer

    from qoq_data.errors import QoQError
    from qoq_data.record import Split
    from qoq_train.data.corpus import Corpus
    from qoq_train.recipe_files import read_train_recipe

    def write(recipe: str, folder: Path) -> None:
        """Write a recipe's corpus as the files that verl trains and validates on."""
        resolved = read_train_recipe(recipe)
        corpus, writer = Corpus(resolved.data), prompt_writer(resolved)
        for split in (Split.TRAIN, Split.VALIDATION):
            written, left_out = write_split(corpus, writer, split, folder / f"{split}.parquet")
            typer.echo(f"{folder / f'{split}.parquet'}: {written} rows; {len(left_out)} were too long.")

    try:
        typer.run(write)
    except QoQError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
