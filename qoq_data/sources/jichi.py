"""Jichi: posterior pole photographs of diabetic patients of Jichi Medical University, Japan, in modified Davis stages.

9,939 pictures of 2,740 patients, named ``<patient>_<number>_<eye>.jpg`` (``1_1_R.jpg`` to ``2740_2_L.jpg``), stand
beside ``list.csv``, which stages each twice: by itself (``Davis_grading_of_one_figure``) and together with three
adjacent photographs of the eye (``Davis_grading_of_concatenated_figures``). The two may disagree, because the adjacent
fields show lesions that the picture does not.

What the published conversion does, and what this source does instead:

* it samples 80 % of each stage's pictures for training, though a patient has several, of both eyes and several years.
  Here the patient of the name is the group, and there is no official split. A picture whose name has another form has
  no known patient and is a ledger line;
* it calls the stages No, Mild, Severe and Proliferative DR, as if they were international grades with one left out.
  Here they have their Davis names: simple (published as Mild), preproliferative (Severe), proliferative;
* the paper's table counts three classes and leaves out the one without retinopathy. All four are asked here.

It reads the one-figure stage, as this source does by default: that is the picture which is shown. ``grading:
concatenated`` reads the other for every row. They are never mixed: a blank stage is no answer, and is not filled from
the other column. ``statistics`` says how often the two disagree.

What the number in the middle counts is not published. If it counts visits, a study is the visit; if it counts the
patient's pictures, each is a study of its own. Neither joins what does not belong together.

Licence: the authors gave pictures and list to everyone under CC BY 4.0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from qoq_data.errors import Reason, TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.licence import CC_BY_4, Access
from qoq_data.record import AnswerType, Domain
from qoq_data.source import Choice, ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask, Task
from qoq_data.sources._fundus import SIGNS, draw_fundus, picture_bytes
from qoq_data.sources._item_rows import image_medium, item_table, refuse_rows
from qoq_data.sources._published_files import csv_bytes

TABLE = "list.csv"
IMAGE = "Image"
GRADINGS = {
    "one_figure": "Davis_grading_of_one_figure",
    "concatenated": "Davis_grading_of_concatenated_figures",
}
STAGES = {
    "ndr": "No diabetic retinopathy",
    "sdr": "Simple diabetic retinopathy",
    "ppdr": "Preproliferative diabetic retinopathy",
    "pdr": "Proliferative diabetic retinopathy",
}
"""Published as No DR, Mild DR, Severe DR and Proliferative DR."""

_NAME = re.compile(r"([1-9][0-9]*)_([1-9][0-9]*)_[LR]\.jpe?g", re.IGNORECASE)
_PAGE = "https://figshare.com/articles/figure/Davis_Grading_of_One_and_Concatenated_Figures/4879853"

SPEC = SourceSpec(
    name="jichi",
    title="Jichi, Davis grading of one and concatenated figures",
    domain=Domain.FUNDUS,
    modality="fundus photograph",
    homepage=_PAGE,
    citation="Takahashi H, Tampo H, Arai Y, Inoue Y, Kawashima H. Applying artificial intelligence to disease staging: "
    "deep learning for improved staging of diabetic retinopathy. PLoS ONE 12(6):e0179790, 2017. "
    "doi:10.1371/journal.pone.0179790",
    licences={"media": CC_BY_4, "labels": CC_BY_4},
    access=Access.OPEN,
    access_steps=(
        f"Fetch the archive at {_PAGE}.",
        f"Unpack it into an empty folder, so that {TABLE} lies beside the pictures. Give that folder as --raw.",
    ),
    identity_group="jichi",
    grouping="The patient is the number that a picture's name begins with; pictures of the same content stay together "
    "too.",
    versions=(SourceVersion("2017", 9939, 2740),),
    expected_files=(ExpectedFile(TABLE, columns=(IMAGE, *GRADINGS.values())),),
    tasks=(
        Task(
            "davis_stage",
            AnswerType.ONE,
            (
                "Which stage of the modified Davis grading fits this fundus photograph?",
                "Stage the diabetic changes of this retina by the modified Davis scale.",
                "You see the posterior pole of one eye. What is its stage in the modified Davis grading?",
                "Read this retinal photograph of a patient with diabetes and give the Davis stage (modified).",
                "Judge this fundus picture: to which single stage of the modified Davis grading does it belong?",
            ),
            tuple(Choice(*stage) for stage in STAGES.items()),
        ),
    ),
    published_items=9939,
    inspectors=("picture_content",),
    bytes_per_row=150_000,
    skip_limit=0.02,  # every picture has both stages, and no missing file is expected
    synthetic=(SyntheticTask("davis_stage", SIGNS),),
)


class Options(SourceOptions):
    """Recipe keys.

    ``grading``: by which of the two stages a picture is asked, that of the picture alone or that of the picture and
    the three beside it.
    """

    grading: Literal["one_figure", "concatenated"] = "one_figure"


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """A row a picture of ``list.csv``; raises ``LayoutError`` and ``TableError``."""
    column = GRADINGS[options.grading]
    rows: list[dict[str, Any]] = []
    for name, stage in _table(tree).select(IMAGE, column).iter_rows():
        match = _NAME.fullmatch(name)
        item = name.rpartition(".")[0] if match else name
        rows.append(
            {
                "item": item,
                "patient": match[1] if match else None,
                "group": match[1] if match else f"picture:{item}",
                "study": f"{match[1]}_{match[2]}" if match else None,
                "media": [image_medium(name)],
                "label_file": TABLE,
                "label_row": f"{name}, {column}",
                "answer.davis_stage": None if stage is None else [stage],
                "skip_reason": None if match else str(Reason.FORMAT_UNSUPPORTED),
                "skip_detail": None
                if match
                else "its name is not <patient>_<number>_<eye>.jpg, so whose it is is unknown",
            }
        )
    if rows and all(row["patient"] is None for row in rows):
        raise TableError(f"{TABLE}: no name in its column {IMAGE!r} has the form <patient>_<number>_<eye>.jpg.")
    return item_table(rows, {"davis_stage": pl.List(pl.String())})


def statistics(tree: Store, options: Options) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of blank stages, of pictures whose two stages disagree, and of what the number in the name counts."""
    table = _table(tree)
    one, concatenated = (table[column] for column in GRADINGS.values())
    names = [match for match in map(_NAME.fullmatch, table[IMAGE]) if match]
    return {
        "rows_in_table": table.height,
        "names_of_another_form": table.height - len(names),
        "without_one_figure_stage": one.null_count(),
        "without_concatenated_stage": concatenated.null_count(),
        "stages_that_disagree": int((one != concatenated).sum()),
        "numbers_with_several_pictures": sum(
            count > 1 for count in Counter(match.group(1, 2) for match in names).values()
        ),
    }


def _table(tree: Store) -> pl.DataFrame:
    """The list with its stages in lower case."""
    stages = [pl.col(column).str.strip_chars().str.to_lowercase() for column in GRADINGS.values()]
    table = read_table(tree, TABLE, dict.fromkeys((IMAGE, *GRADINGS.values()), pl.String)).with_columns(stages)
    refused = {
        f"its {IMAGE} is blank": pl.col(IMAGE).is_null(),
        f"its {IMAGE} stands in another row too": pl.col(IMAGE).is_duplicated(),
    }
    for column in GRADINGS.values():
        refused[f"its {column} is none of {', '.join(STAGES)}"] = ~pl.col(column).is_in(list(STAGES))
    refuse_rows(table, TABLE, refused)
    return table


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """Both eyes of each patient, every third patient twice; every fifth picture has the next stage among its four."""
    folder.mkdir(parents=True, exist_ok=True)
    stages = list(STAGES)
    rows: list[tuple[str, str, str]] = []
    for patient in range(1, max(patients, 1) + 1):
        for number in range(1, 5 if patient % 3 == 0 else 3):
            name = f"{patient}_{number}_{'L' if number % 2 == 0 else 'R'}.jpg"
            stage = (patient + (number > 2)) % 4
            beside = min(stage + (len(rows) % 5 == 2), 3)
            pixels = draw_fundus(np.random.default_rng([seed, patient, number]), stage / 3)
            (folder / name).write_bytes(picture_bytes(pixels, "JPEG"))
            rows.append((name, stages[beside], stages[stage]))
    (folder / TABLE).write_bytes(csv_bytes((IMAGE, GRADINGS["concatenated"], GRADINGS["one_figure"]), rows))
