"""ISIC 2020, the training set of the melanoma challenge: dermoscopy pictures of 2,056 patients, benign or malignant.

A row of the table is a picture: 33,126 of them, 584 malignant (1.76 %), all of them melanoma. A patient has 2 to 115
pictures. The challenge's own test set has no labels and is not read.

What the published conversion does, and what this source does instead:

* it draws 80 % of each class without a seed for training, and the rest in a second run with another draw, so that a
  picture stands on both sides. Here a side follows from the group, the same in every run;
* it draws pictures, not patients. Here the patient is the group;
* it knows nothing of the 425 pairs in which the publisher found the same picture twice. Here both halves of a pair
  stand on one side, whoever their patients are: patients and pairs are joined before anything is split. The recipe key
  ``duplicates`` keeps both (the default) or leaves one out; a pair with two targets is in the ledger, both halves.

``diagnosis`` is written out beside the target and gives it away, so it is not even read. ``target`` and
``benign_malignant`` say the same twice; where they disagree the picture has no answer. Malignant means that a
histologist said so; benign is often a clinical opinion only (``diagnosis`` is unknown in 27,124 rows).

Version 2 of the table adds ``lesion_id``, the study of a row. Where both versions are there it is the one read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from PIL import Image

from qoq_data.errors import LayoutError, Reason
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.groups import join_groups
from qoq_data.licence import CC_BY_NC_4, Access
from qoq_data.record import AnswerType, Domain
from qoq_data.source import Choice, ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask, Task
from qoq_data.sources._item_rows import refuse_rows
from qoq_data.sources._published_files import csv_bytes
from qoq_data.sources._skin import (
    LESION_FEATURES,
    draw_lesion,
    find_pictures,
    first_table,
    refused_context,
    skin_items,
    stated,
)

TABLES = ("ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_GroundTruth.csv")
PAIRS = "ISIC_2020_Training_Duplicates.csv"
FOLDERS = ("train", "ISIC_2020_Training_JPEG/train")
SITES = ("head/neck", "upper extremity", "lower extremity", "torso", "palms/soles", "oral/genital")
TARGETS = {"0": "benign", "1": "malignant"}
_PAIR_COLUMNS = ("image_name_1", "image_name_2")
_COLUMNS: Mapping[str, type[pl.DataType]] = {
    "image_name": pl.String,
    "patient_id": pl.String,
    "lesion_id": pl.String,
    "sex": pl.String,
    "age_approx": pl.Float64,
    "anatom_site_general_challenge": pl.String,
    "benign_malignant": pl.String,
    "target": pl.String,
}
_CONTEXT = ("age_approx", "sex", "anatom_site_general_challenge")
_PAGE = "https://challenge2020.isic-archive.com/"

SPEC = SourceSpec(
    name="isic-2020",
    title="ISIC 2020, SIIM-ISIC Melanoma Classification (training set)",
    domain=Domain.DERMATOLOGY,
    modality="dermoscopy",
    homepage=_PAGE,
    citation="Rotemberg V, Kurtansky N, Betz-Stablein B, et al. A patient-centric dataset of images and metadata for "
    "identifying melanomas using clinical context. Scientific Data 8:34, 2021. Data: doi:10.34970/2020-ds01",
    licences={"media": CC_BY_NC_4, "labels": CC_BY_NC_4},
    access=Access.OPEN,
    access_steps=(
        f"Open {_PAGE} and go to its training data. No account is needed.",
        "Fetch the JPEG archive (23 GB), the ground truth of version 2, and the list of duplicates.",
        f"Put the tables beside the archive's folder train/, so that the raw folder holds {TABLES[0]} and train/.",
    ),
    identity_group="isic-2020",
    grouping="By patient_id, patients joined where the publisher's list of duplicates, or equal or nearly equal "
    "pictures, link them.",
    versions=(SourceVersion("2", 33_126, 2_056), SourceVersion("1", 33_126, 2_056)),
    expected_files=(
        ExpectedFile(TABLES[0], columns=tuple(_COLUMNS), other_names=TABLES[1:]),
        ExpectedFile(PAIRS, required=False, columns=_PAIR_COLUMNS),
        ExpectedFile(f"{FOLDERS[0]}/", other_names=(f"{FOLDERS[1]}/",)),
    ),
    tasks=(
        Task(
            "malignancy",
            AnswerType.ONE,
            (
                "How would you judge the skin lesion in this dermoscopy picture?",
                "This is a dermoscopic view of one lesion. Which of these is it?",
                "Look at the lesion under the dermatoscope and say what its nature is.",
                "What is your verdict on the lesion that this dermoscopy picture shows?",
                "Into which of these two groups does the pictured skin lesion fall?",
            ),
            (Choice("benign", "Benign"), Choice("malignant", "Malignant")),
        ),
    ),
    context_fields=("age", "sex", "site"),
    published_items=33_126,
    inspectors=("picture_content",),
    bytes_per_row=250_000,
    skip_limit=0.02,  # leaving out one half of each of the 425 pairs is 1.3 %; nothing else is expected
    synthetic=(SyntheticTask("malignancy", LESION_FEATURES),),
)


class Options(SourceOptions):
    """Recipe keys of ISIC 2020.

    ``duplicates`` says what becomes of pictures that the publisher lists as the same: ``keep`` all of them, or
    ``leave_out`` all but the first name of each, a ledger line for each left out, which needs the list.
    """

    duplicates: Literal["keep", "leave_out"] = "keep"


def detect_version(tree: Store) -> str:
    return "2" if first_table(tree, SPEC.name, TABLES) == TABLES[0] else "1"


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """A row a picture, in the order of the table; raises ``LayoutError`` and ``TableError``."""
    path = first_table(tree, SPEC.name, TABLES)
    table, pairs = _pictures(tree, path)
    if options.duplicates == "leave_out" and not pairs:
        raise LayoutError(f"isic-2020: {PAIRS} is not in the raw folder, or lists none: 'leave_out' needs it.")
    pictures = find_pictures(tree, SPEC.name, FOLDERS, ".jpg")
    name = pl.col("image_name")
    columns = {
        "item": name,
        "patient": pl.col("patient_id"),
        "group": pl.col("group"),
        "study": pl.col("lesion_id"),
        "path": pictures.path_of(name + ".jpg"),
        "label_file": pl.lit(path),
        "label_row": pl.format("image_name={}", name),
        "answer.malignancy": pl.col("answer"),
        "context.age": pl.col("age_approx"),
        "context.sex": pl.col("sex"),
        "context.site": pl.col("anatom_site_general_challenge"),
    }
    conflict, is_left_out = Reason.LABEL_CONFLICT, pl.lit(options.duplicates == "leave_out") & pl.col("is_copy")
    set_aside = (
        (conflict, "target and benign_malignant disagree", pl.col("disagrees")),
        (conflict, "listed as the same picture as one with another target", pl.col("two_targets")),
        (Reason.WITHDRAWN, "the same picture stands under a name before this one", is_left_out),
    )
    return skin_items(table, columns, set_aside)


def statistics(tree: Store, options: Options) -> Mapping[str, int]:
    """Counts of pictures, of the listed pairs, and of what is not as published."""
    table, pairs = _pictures(tree, first_table(tree, SPEC.name, TABLES))
    patient_of = dict(table.select("image_name", "patient_id").iter_rows())
    known = [(a, b) for a, b in pairs if a in patient_of and b in patient_of]
    return {
        **{label: int((table["answer"] == label).sum()) for label in TARGETS.values()},
        "patients": table["patient_id"].n_unique(),
        "groups_of_patients": table["group"].n_unique(),
        "pairs_listed": len(pairs),
        "pairs_outside_the_table": len(pairs) - len(known),
        "pairs_of_two_patients": sum(patient_of[a] != patient_of[b] for a, b in known),
        "pictures_in_pairs_with_two_targets": int(table["two_targets"].sum()),
        "pictures_with_disagreeing_targets": int(table["disagrees"].sum()),
        "copies_left_out": int(table["is_copy"].sum()) if options.duplicates == "leave_out" else 0,
        **{f"without_{column}": table[column].null_count() for column in _CONTEXT},
        "pictures_in_two_folders": find_pictures(tree, SPEC.name, FOLDERS, ".jpg").repeated,
    }


def _pictures(tree: Store, path: str) -> tuple[pl.DataFrame, list[tuple[str, str]]]:
    """The table with ``group``, ``answer`` and what speaks against each picture, and the publisher's pairs."""
    optional = () if path == TABLES[0] else ("lesion_id",)
    table = read_table(tree, path, _COLUMNS, optional=optional)
    table = table.with_columns(map(stated, ("sex", "anatom_site_general_challenge", "benign_malignant")))
    refused = {
        "image_name is blank": pl.col("image_name").is_null(),
        "the picture of this image_name was already there": ~pl.col("image_name").is_first_distinct(),
        "patient_id is blank": pl.col("patient_id").is_null(),
        "target is neither 0 nor 1": ~pl.col("target").is_in(list(TARGETS)),
        "benign_malignant is neither benign nor malignant": ~pl.col("benign_malignant").is_in(list(TARGETS.values())),
        **refused_context(*_CONTEXT, SITES),
    }
    refuse_rows(table, path, refused)
    pairs = _pairs(tree) if tree.exists(PAIRS) else []
    row_of = {name: row for row, name in enumerate(table["image_name"])}
    links = [(row_of[a], row_of[b]) for a, b in pairs if a in row_of and b in row_of]
    same = join_groups(table["image_name"], links).alias("same_picture")
    table = table.with_columns(join_groups(table["patient_id"], links).alias("group"), same)
    said = pl.col("target").replace_strict(TARGETS, return_dtype=pl.String)
    both = pl.col("benign_malignant").is_not_null() & pl.col("target").is_not_null()
    table = table.with_columns(
        pl.when(both).then(said).alias("answer"), (both & (said != pl.col("benign_malignant"))).alias("disagrees")
    )
    return table.with_columns(
        (pl.col("answer").drop_nulls().n_unique().over("same_picture") > 1).alias("two_targets"),
        (pl.col("image_name") != pl.col("same_picture")).alias("is_copy"),
    ), pairs


def _pairs(tree: Store) -> list[tuple[str, str]]:
    table = read_table(tree, PAIRS, dict.fromkeys(_PAIR_COLUMNS, pl.String))
    first, second = map(pl.col, _PAIR_COLUMNS)
    refuse_rows(table, PAIRS, {"it does not name two pictures": first.is_null() | second.is_null() | (first == second)})
    return list(table.iter_rows())


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A tree in the layout of version 2 with 2 to 4 pictures a patient, a malignant one for every second patient.

    Every fourth patient has a picture twice, the same bytes or made smaller, and the list of duplicates names it.
    """
    rng = np.random.default_rng([seed, 2020])
    names = (f"ISIC_{number:07d}" for number in rng.choice(10**7, 6 * patients, replace=False))
    people = rng.choice(10**7, patients, replace=False)
    rows: list[tuple[object, ...]] = []
    pairs: list[list[str]] = []
    (folder / FOLDERS[0]).mkdir(parents=True, exist_ok=True)
    for number, person in enumerate(people):
        sex, age = ("male", "female")[number % 2], int(rng.integers(3, 19)) * 5
        for place in range(2 + number % 3):
            target = int(number % 2 == 0 and place == 0)
            picture, _ = draw_lesion("melanoma" if target else "nevus", 120, 80 + 10 * (number % 2), rng)
            blank = not target and (number + place) % 7 == 3
            about = ("" if blank else sex, "" if blank else age, "" if number % 9 == 4 else SITES[number % len(SITES)])
            diagnosis = "melanoma" if target else ("nevus", "unknown", "unknown")[place % 3]
            lesion = f"IL_{len(rows):07d}"
            shown = [Image.fromarray(picture)]
            if number % 4 == 1 and place == 0:
                shown.append(shown[0].resize((90, 60)) if number % 8 == 1 else shown[0])
            copies = [next(names) for _ in shown]
            for name, image in zip(copies, shown, strict=True):
                image.save(folder / FOLDERS[0] / f"{name}.jpg", quality=90)
                label = TARGETS[str(target)]
                rows.append((name, f"IP_{person:07d}", lesion, *about, diagnosis, label, target))
            pairs += [sorted(copies)] if len(copies) > 1 else []
    header = (*list(_COLUMNS)[:6], "diagnosis", "benign_malignant", "target")
    for path, table in ((TABLES[0], csv_bytes(header, rows)), (PAIRS, csv_bytes(_PAIR_COLUMNS, pairs))):
        (folder / path).write_bytes(table.replace(b"\n", b"\r\n"))
