"""APTOS 2019: fundus photographs of screening at Aravind Eye Hospital, India, from a Kaggle competition.

``train.csv`` (``id_code,diagnosis``) grades 3,662 pictures from 0 to 4, each in ``train_images/<id_code>.png``. The
1,928 pictures of ``test.csv`` have no published grade: they are counted by ``statistics`` and are never items.

What the published conversion does, and what this source does instead:

* it samples 80 % of each grade's pictures for training, and looks for no copies. The set is known for pictures that
  stand in it several times, some of them under two grades, so that copies cross and contradict. Here pictures of the
  same content are one group, whose side is hashed, and those that disagree are ledger lines unless the recipe keeps
  them;
* it asks for 'one or multiple phrases' on 'the Davis Scale', though exactly one of five grades holds, and they are the
  international ones. Here one grade is asked for. The texts of the grades are the published ones.

No patient is published. An id is a number in base 16 that may look like a number in base 10 or with an exponent
(``1e5...``): ids are text here, zeros in front of them stay.

Licence: the rules of the competition let its data be used, and forbid handing them to others. Nothing of a row may be
passed on, not even the ids and grades of ``train.csv``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from qoq_data.errors import LayoutError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.licence import Access, Licence, Redistribution
from qoq_data.record import Domain
from qoq_data.source import ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask
from qoq_data.sources._fundus import DR_GRADE, SIGNS, draw_fundus, picture_bytes
from qoq_data.sources._item_rows import image_medium, item_table, refuse_rows
from qoq_data.sources._published_files import csv_bytes

TABLE, PICTURES = "train.csv", "train_images"
UNLABELLED, UNLABELLED_PICTURES, SUBMISSION = "test.csv", "test_images", "sample_submission.csv"
ID, GRADE = "id_code", "diagnosis"
_PAGE = "https://www.kaggle.com/competitions/aptos2019-blindness-detection"
_RULES = Licence("LicenseRef-APTOS-2019", "Rules of the Kaggle competition", f"{_PAGE}/rules", Redistribution.NONE)

SPEC = SourceSpec(
    name="aptos-2019",
    title="APTOS 2019 Blindness Detection",
    domain=Domain.FUNDUS,
    modality="fundus photograph",
    homepage=_PAGE,
    citation="Karthik, Maggie, Sohier Dane. APTOS 2019 Blindness Detection. Kaggle, 2019. "
    "https://kaggle.com/competitions/aptos2019-blindness-detection",
    licences={"media": _RULES, "labels": _RULES},
    access=Access.REGISTERED,
    access_steps=(
        f"Sign in at Kaggle, accept the rules at {_PAGE}/rules, and fetch the archive of the tab Data.",
        f"Unpack it into an empty folder, which then holds {TABLE} and {PICTURES}/. Give that folder as --raw.",
        f"{UNLABELLED_PICTURES}/ may be left out: its pictures have no grade and are not read.",
    ),
    identity_group="aptos-2019",
    grouping="No patient is published, so sides are kept apart by content alone: equal pictures and near copies stay "
    "together, while the two eyes of one patient, or two pictures of one eye, may stand on two sides.",
    versions=(SourceVersion("2019", 3662, None),),
    expected_files=(
        ExpectedFile(TABLE, columns=(ID, GRADE)),
        ExpectedFile(f"{PICTURES}/"),
        ExpectedFile(UNLABELLED, required=False),
        ExpectedFile(f"{UNLABELLED_PICTURES}/", required=False),
        ExpectedFile(SUBMISSION, required=False),
    ),
    tasks=(DR_GRADE,),
    published_items=3662,
    inspectors=("picture_content",),
    rows_per_shard=256,
    bytes_per_row=150_000,
    skip_limit=0.08,  # reports speak of over 100 pictures in several copies, part of them under two grades: 2 to 6 %
    synthetic=(SyntheticTask("dr_grade", SIGNS),),
)


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a picture of ``train.csv``; raises ``LayoutError`` and ``TableError``."""
    table = _table(tree)
    if not tree.is_folder(PICTURES):
        raise LayoutError(f"aptos-2019: {PICTURES}/ is not in the raw folder. 'qoq-data info aptos-2019' says how.")
    rows = (
        {
            "item": name,
            "group": f"picture:{name}",
            "media": [image_medium(f"{PICTURES}/{name}.png")],
            "label_file": TABLE,
            "label_row": name,
            "answer.dr_grade": None if grade is None else [str(grade)],
        }
        for name, grade in table.iter_rows()
    )
    return item_table(rows, {"dr_grade": pl.List(pl.String())})


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of the table, of pictures that it does not name, and of those of the test, which have no grade."""
    table = _table(tree)
    named = {f"{name}.png" for name in table[ID]}
    without = read_table(tree, UNLABELLED, {ID: pl.String}).height if tree.exists(UNLABELLED) else 0
    return {
        "rows_in_table": table.height,
        "rows_without_grade": table[GRADE].null_count(),
        "files_not_in_table": sum(name not in named for name in tree.names(PICTURES)),
        "test_pictures_without_grade": without,
    }


def _table(tree: Store) -> pl.DataFrame:
    table = read_table(tree, TABLE, {ID: pl.String, GRADE: pl.Int64})
    refused = {
        f"its {ID} is blank": pl.col(ID).is_null(),
        f"its {ID} stands in another row too": pl.col(ID).is_duplicated(),
        f"its {GRADE} is none of 0 to 4": ~pl.col(GRADE).is_in([0, 1, 2, 3, 4]),
    }
    refuse_rows(table, TABLE, refused)
    return table


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A picture a patient, the five grades in turn, and some of the test without a grade.

    From 6 patients on, one picture stands a second time byte for byte; from 40 on, one under two grades.
    """
    rng = np.random.default_rng([seed, 2019])
    grades = [number % 5 for number in range(max(patients, 1))]
    pictures = [
        picture_bytes(draw_fundus(np.random.default_rng([seed, number]), grade / 4), "PNG")
        for number, grade in enumerate(grades)
    ]
    copies = ([(2, 0)] if patients >= 6 else []) + ([(4, -1)] if patients >= 40 else [])
    grades += [grades[original] + change for original, change in copies]
    pictures += [pictures[original] for original, _ in copies]
    unlabelled = [picture_bytes(draw_fundus(rng, 0.5), "PNG") for _ in range(2)]
    numbers = rng.choice(16**12, len(pictures) + len(unlabelled), replace=False)
    names = [f"{number:012x}" for number in numbers]
    rows = list(zip(names[: len(grades)], grades, strict=True))
    tests = names[len(grades) :]
    for place, files in (
        (PICTURES, zip(names, pictures, strict=False)),
        (UNLABELLED_PICTURES, zip(tests, unlabelled, strict=True)),
    ):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for name, data in files:
            (folder / place / f"{name}.png").write_bytes(data)
    (folder / TABLE).write_bytes(csv_bytes((ID, GRADE), sorted(rows)))
    (folder / UNLABELLED).write_bytes(csv_bytes((ID,), [(name,) for name in tests]))
    (folder / SUBMISSION).write_bytes(csv_bytes((ID, GRADE), [(name, 0) for name in tests]))
