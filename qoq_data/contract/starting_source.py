"""Title of the dataset: what a record is, who made it, how many there are.

Fill in from here to the end; whatever a person should know before they trust a row of it stands in this text:

* what the published conversions of it get wrong, and what is done here instead;
* how patients are told apart, and what keeps splits apart where they are not;
* what is known to be wrong in the release, and where it shows.

As it stands this is a small source that works: a table ``labels.csv`` and a picture a row, in which a lesion is
bright, dark or absent. ``synthesize`` writes such a tree, and the contract's checks pass on it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from qoq_data.errors import TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.licence import Access, Licence, Redistribution
from qoq_data.record import AnswerType, Domain
from qoq_data.source import (
    Choice,
    ExpectedFile,
    SourceOptions,
    SourceSpec,
    SourceVersion,
    SyntheticTask,
    Task,
)

# Fill in: the publisher's table, and the columns that are read.
TABLE = "labels.csv"
COLUMNS = ("image", "patient", "age", "finding")

# Fill in: labels as the table writes them, and the words in which a row says them.
FINDINGS = {"none": "No lesion", "bright": "Bright lesion", "dark": "Dark lesion"}

# Fill in: the licence as its text says; media and labels may have two. Nothing may be passed on until you have read it.
LICENCE = Licence("LicenseRef-starting-source", "Not read yet", "https://example.org/licence", Redistribution.NONE)

SPEC = SourceSpec(
    name="starting-source",
    title="Starting source",
    domain=Domain.MULTIMODAL,  # fill in: one of Domain
    modality="grey picture",
    homepage="https://example.org/",
    citation="Fill in: authors, title, journal or repository, year, doi.",
    licences={"media": LICENCE, "labels": LICENCE},
    access=Access.OPEN,  # fill in: what a person has to do before the publisher hands the files out
    access_steps=(
        "Fill in: open the homepage, read the licence, fetch the archive.",
        f"Unpack it; the raw folder is the one that holds {TABLE}.",
    ),
    identity_group="starting-source",  # that of another source when both number the same people
    grouping="By the table's patient column; all pictures of a patient stay together.",
    versions=(SourceVersion("1.0"),),  # fill in: releases, the newest first, with the publisher's counts
    expected_files=(ExpectedFile(TABLE, columns=COLUMNS), ExpectedFile("images/")),
    tasks=(
        Task(
            "finding",
            AnswerType.ONE,
            (
                "What does this picture show?",
                "Which of these describes the picture best?",
                "Look at the picture: what is the finding?",
                "Name the finding in this picture.",
            ),
            tuple(Choice(key, text) for key, text in FINDINGS.items()),
        ),
    ),
    context_fields=("age",),  # only what may be known when the question is asked; never a report or a label
    synthetic=(SyntheticTask("finding", ("bright_blob_area", "dark_blob_area")),),
)


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a picture, from the table alone; raises ``LayoutError`` and ``TableError``."""
    table = read_table(tree, TABLE, dict.fromkeys(COLUMNS, pl.String)).with_row_index("row", offset=2)
    blank = table.filter(pl.any_horizontal(pl.col("image", "patient").is_null()))
    if blank.height:
        raise TableError(f"{TABLE}, row {blank['row'][0]}: image or patient is blank.")
    unknown = table.filter(~pl.col("finding").is_in(list(FINDINGS)))
    if unknown.height:
        raise TableError(f"{TABLE}, row {unknown['row'][0]}: the finding is none of {', '.join(FINDINGS)}.")
    medium = pl.struct(
        pl.lit("image").alias("role"),
        pl.lit("image").alias("kind"),
        pl.format("images/{}.png", "image").alias("path"),
        pl.lit("").alias("part"),
    )
    return table.lazy().select(
        pl.col("image").alias("item"),
        pl.col("patient"),
        pl.col("patient").alias("group"),
        pl.lit(None, pl.String).alias("study"),
        pl.lit(None, pl.String).alias("official_split"),  # train, validation or test where the publisher says so
        pl.concat_list(medium).alias("media"),
        pl.lit(TABLE).alias("label_file"),
        pl.format("image={}", "image").alias("label_row"),
        pl.when(pl.col("finding").is_not_null()).then(pl.concat_list("finding")).alias("answer.finding"),
        pl.format("{} years", "age").alias("context.age"),
    )


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """Two pictures a patient in the publisher's layout, whose findings take turns and can be seen."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir()
    rows = [",".join(COLUMNS)]
    for number in range(2 * patients):
        finding = list(FINDINGS)[number % len(FINDINGS)]
        Image.fromarray(_draw(finding, rng)).save(folder / "images" / f"picture{number:05d}.png")
        rows.append(f"picture{number:05d},P{number // 2:05d},{rng.integers(20, 90)},{finding}")
    (folder / TABLE).write_text("\n".join(rows) + "\n", encoding="utf-8")


def _draw(finding: str, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Speckled grey, uint8 [96, 96], with a round lesion that is bright, dark or absent."""
    y, x = np.mgrid[0:96, 0:96]
    picture = rng.normal(110, 8, (96, 96))
    inside = np.hypot(x - rng.uniform(35, 60), y - rng.uniform(35, 60)) < rng.uniform(12, 18)
    if finding != "none":
        picture[inside] += 125 if finding == "bright" else -95
    return np.clip(picture, 0, 255).astype(np.uint8)
