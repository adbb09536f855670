"""PAD-UFES-20: 2,298 smartphone pictures of skin lesions of 1,373 patients, from Espírito Santo in Brazil.

A row of ``metadata.csv`` is a picture. Pictures lie in ``images/`` or in the folders of its three archives. A name
such as ``PAT_46_881_14.png`` holds the numbers of patient and lesion, so an item's id is a digest of it and the name
itself stands in the provenance alone.

What the published conversion does, and what this source does instead:

* it draws 80 % of each class without a seed for training, and the rest in a second run with another draw, so that a
  picture stands on both sides. Here a side follows from the group, the same in every run;
* it draws pictures, though a patient has up to 10 of them. Here the patient is the group;
* it asks for five classes, in which squamous cell carcinoma stands with actinic keratosis under the name ``AKIEC``
  (the one may become the other, but only the first is a cancer). Here that choice says what it holds, and the
  publisher's six diagnoses are a task of their own.

A lesion is a patient's: 250 of the 1,641 lesion ids stand under two patients each (8 of these 250 pairs agree in age),
so the key of a lesion is the pair. A lesion whose pictures have two diagnoses is in the ledger with all of them, and
so is a picture whose name is not of its row's patient and lesion.

``biopsed`` says that a diagnosis was proven, and every BCC, SCC and MEL was, so it is counted and goes nowhere else.
``gender`` and the history were asked of those who came for surgery: where gender is blank (804 rows) the lesion never
is a cancer. That the sex is told is thus half an answer, and the context tells it only where a recipe says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from PIL import Image

from qoq_data.errors import Reason
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.licence import CC_BY_4, Access
from qoq_data.record import AnswerType, Domain
from qoq_data.source import Choice, ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask, Task
from qoq_data.sources._item_rows import item_of_path, refuse_rows
from qoq_data.sources._published_files import csv_bytes
from qoq_data.sources._skin import (
    LESION_FEATURES,
    draw_lesion,
    find_pictures,
    five_classes,
    refused_context,
    skin_items,
    stated,
)

TABLE = "metadata.csv"
_PARTS = tuple(f"imgs_part_{part}" for part in (1, 2, 3))
FOLDERS = (
    "images", *(f"images/{part}" for part in _PARTS), *(f"images/{part}/{part}" for part in _PARTS),
    *_PARTS, *(f"{part}/{part}" for part in _PARTS),
)  # fmt: skip
FIVE_OF_SIX = {"mel": "melanoma", "nev": "nevus", "bcc": "basal_cell_carcinoma"}
FIVE_OF_SIX |= {"ack": "akiec", "scc": "akiec", "sek": "other"}
"""The publisher's six diagnoses in lower case, and the published class of each."""
SITES = (
    "abdomen", "arm", "back", "chest", "ear", "face", "foot", "forearm", "hand", "lip", "neck", "nose", "scalp",
    "thigh",
)  # fmt: skip
_COLUMNS: Mapping[str, type[pl.DataType]] = {
    "patient_id": pl.String,
    "lesion_id": pl.String,
    "age": pl.Float64,
    "gender": pl.String,
    "region": pl.String,
    "diagnostic": pl.String,
    "img_id": pl.String,
    "biopsed": pl.String,
}
_HEADER = (
    "patient_id", "lesion_id", "smoke", "drink", "background_father", "background_mother", "age", "pesticide", "gender",
    "skin_cancer_history", "cancer_history", "has_piped_water", "has_sewage_system", "fitspatrick", "region",
    "diameter_1", "diameter_2", "diagnostic", "itch", "grew", "hurt", "changed", "bleed", "elevation", "img_id",
    "biopsed",
)  # fmt: skip
_PAGE = "https://data.mendeley.com/datasets/zr7vgbcyr2/1"
_WORDINGS = (
    "Which diagnosis fits the skin lesion in this clinical photograph best?",
    "This picture of a patient's skin was taken with a smartphone. What is the lesion?",
    "Name the diagnosis that the photographed lesion suggests.",
    "You are shown a close photograph of one skin lesion. How would you class it?",
    "Judging by its look to the naked eye, to which of these does the lesion belong?",
)

SPEC = SourceSpec(
    name="pad-ufes-20",
    title="PAD-UFES-20",
    domain=Domain.DERMATOLOGY,
    modality="clinical photograph of the skin",
    homepage=_PAGE,
    citation="Pacheco AGC, Lima GR, Salomão AS, et al. PAD-UFES-20: A skin lesion dataset composed of patient data and "
    "clinical images collected from smartphones. Data in Brief 32:106221, 2020. doi:10.17632/zr7vgbcyr2.1",
    licences={"media": CC_BY_4, "labels": CC_BY_4},
    access=Access.OPEN,
    access_steps=(
        f"Open {_PAGE} and fetch all files. No account is needed.",
        "Unpack the archive, and then the three archives imgs_part_1.zip to imgs_part_3.zip in its folder images/.",
        f"Give the folder that holds {TABLE} and images/ as --raw.",
    ),
    identity_group="pad-ufes-20",
    grouping="By patient_id, which every picture has: a patient with several lesions (355 of them) stays on one side, "
    "as (patient, lesion) alone would not see to, and lesion ids are no key, since 250 are shared by two patients.",
    versions=(SourceVersion("1", 2_298, 1_373),),
    expected_files=(
        ExpectedFile(TABLE, columns=tuple(_COLUMNS)),
        ExpectedFile("images/", other_names=(f"{_PARTS[0]}/",)),
    ),
    tasks=(
        Task(
            "five_classes",
            AnswerType.ONE,
            _WORDINGS,
            five_classes("Actinic keratosis or squamous cell carcinoma (AKIEC)"),
        ),
        Task(
            "six_diagnoses",
            AnswerType.ONE,
            _WORDINGS,
            (
                Choice("ack", "Actinic keratosis"),
                Choice("bcc", "Basal cell carcinoma"),
                Choice("mel", "Melanoma"),
                Choice("nev", "Nevus"),
                Choice("scc", "Squamous cell carcinoma"),
                Choice("sek", "Seborrheic keratosis"),
            ),
        ),
    ),
    context_fields=("age", "sex", "site"),
    published_items=2_298,
    inspectors=("picture_content",),
    bytes_per_row=250_000,
    skip_limit=0.01,  # every picture of the table is there, with one diagnosis
    synthetic=(SyntheticTask("five_classes", LESION_FEATURES), SyntheticTask("six_diagnoses", LESION_FEATURES)),
)


class Options(SourceOptions):
    """Recipe keys of PAD-UFES-20.

    ``sex`` says whether the context tells it (``tell``) or not (``leave_out``): it is known of every cancer and of
    only 405 of the 1,209 other pictures, so that telling it gives half of the answer away.
    """

    sex: Literal["leave_out", "tell"] = "leave_out"


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """A row a picture, in the order of the table; raises ``LayoutError`` and ``TableError``."""
    table = _pictures(tree)
    pictures = find_pictures(tree, SPEC.name, FOLDERS, ".png")
    patient, lesion, name = pl.col("patient_id"), pl.col("lesion_id"), pl.col("img_id")
    columns = {
        "item": name.map_elements(item_of_path, return_dtype=pl.String),
        "patient": patient,
        "group": patient,
        "study": pl.format("{}/{}", patient, lesion),
        "path": pictures.path_of(name),
        "label_file": pl.lit(TABLE),
        "label_row": pl.format("img_id={}", name),
        "answer.five_classes": pl.col("diagnostic").replace_strict(FIVE_OF_SIX, return_dtype=pl.String),
        "answer.six_diagnoses": pl.col("diagnostic"),
        "context.age": pl.col("age"),
        "context.site": pl.col("region"),
    }
    if options.sex == "tell":
        columns["context.sex"] = pl.col("gender")
    set_aside = (
        (Reason.LABEL_CONFLICT, "its name is not of its row's patient and lesion", pl.col("is_misnamed")),
        (Reason.LABEL_CONFLICT, "pictures of its lesion have another diagnosis", pl.col("lesion_disagrees")),
    )
    return skin_items(table, columns, set_aside)


def statistics(tree: Store, options: Options) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of pictures by the publisher's diagnosis, of patients and lesions, and of what is not as published."""
    table = _pictures(tree)
    lesions = table.select("patient_id", "lesion_id").unique()
    return {
        **{f"pictures_{name}": int((table["diagnostic"] == name).sum()) for name in sorted(FIVE_OF_SIX)},
        "pictures_without_diagnosis": table["diagnostic"].null_count(),
        "proven_by_biopsy": int((table["biopsed"] == "true").sum()),
        "patients": table["patient_id"].n_unique(),
        "lesions": lesions.height,
        "lesion_ids_of_several_patients": lesions.height - lesions["lesion_id"].n_unique(),
        "pictures_of_lesions_with_two_diagnoses": int(table["lesion_disagrees"].sum()),
        "pictures_named_after_another_lesion": int(table["is_misnamed"].sum()),
        **{f"without_{column}": table[column].null_count() for column in ("age", "gender", "region")},
        "pictures_in_two_folders": find_pictures(tree, SPEC.name, FOLDERS, ".png").repeated,
    }


def _pictures(tree: Store) -> pl.DataFrame:
    """The table with its cells checked, the full names of its pictures, and what speaks against each row."""
    table = read_table(tree, TABLE, _COLUMNS)
    table = table.with_columns(
        *map(stated, ("gender", "region", "diagnostic", "biopsed")), pl.col("img_id").str.strip_suffix(".png") + ".png"
    )
    patient, lesion, name = pl.col("patient_id"), pl.col("lesion_id"), pl.col("img_id")
    refused = {
        "patient_id, lesion_id or img_id is blank": patient.is_null() | lesion.is_null() | name.is_null(),
        "the picture of this img_id was already there": ~name.is_first_distinct(),
        "diagnostic is none of the six diagnoses": ~pl.col("diagnostic").is_in(list(FIVE_OF_SIX)),
        "biopsed is neither true nor false nor unknown": ~pl.col("biopsed").is_in(["true", "false"]),
        **refused_context("age", "gender", "region", SITES),
    }
    refuse_rows(table, TABLE, refused)
    disagrees = pl.col("diagnostic").drop_nulls().n_unique().over("patient_id", "lesion_id") > 1
    is_misnamed = ~name.str.starts_with(pl.format("{}_{}_", patient, lesion))
    return table.with_columns(disagrees.alias("lesion_disagrees"), is_misnamed.alias("is_misnamed"))


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A tree of the published layout: one or two lesions a patient, one or two pictures a lesion.

    Lesion numbers are given out twice, to two patients each. Every ninth picture has an alpha channel.
    """
    rng = np.random.default_rng([seed, 20])
    looks = {**FIVE_OF_SIX, "scc": "squamous_cell_carcinoma", "sek": "keratosis"}
    rows: list[list[object]] = []
    for patient in range(patients):
        age, sex, origin = int(rng.integers(20, 95)), ("MALE", "FEMALE")[patient % 2], ("GERMANY", "UNK")[patient % 2]
        for place in range(1 + patient % 2):
            diagnosis, lesion = sorted(looks)[(patient + 2 * place) % len(looks)], 100 * place + patient // 2
            biopsed = diagnosis in ("bcc", "scc", "mel") or patient % 4 == 0
            for shot in range(1 + patient // 6 % 2):
                name = f"PAT_{patient + 1}_{lesion}_{10 + int(rng.integers(0, 450)) * 2 + shot}.png"
                side = int(rng.integers(100, 140))
                picture = Image.fromarray(draw_lesion(looks[diagnosis], side, side, rng)[0])
                home = folder / FOLDERS[1 + len(rows) % 3]
                home.mkdir(parents=True, exist_ok=True)
                picture.convert("RGBA" if len(rows) % 9 == 4 else "RGB").save(home / name)
                asked = [False, True, origin, origin, age, False, sex, True, True, True, True, "2.0"]
                history = asked if biopsed else [""] * 4 + [age] + [""] * 7
                seen = [SITES[patient % 14].upper(), *(["9.0", "7.0"] if biopsed else ["", ""]), diagnosis.upper()]
                told = [True, "UNK", False, "UNK", False, True, name, biopsed]
                rows.append([f"PAT_{patient + 1}", lesion, *history, *seen, *told])
    (folder / TABLE).write_bytes(csv_bytes(_HEADER, rows))
