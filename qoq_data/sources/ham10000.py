"""HAM10000: 10,015 dermoscopy pictures of 7,470 pigmented lesions, collected in Vienna and Queensland.

Two releases of the same pictures are read, and give the same items and answers: the first one of Harvard Dataverse
(also on Kaggle), a table ``HAM10000_metadata`` with age, sex and site, and task 3 of the ISIC 2018 challenge, a table
of ones and zeros with the lesions in a table beside it. Where both are in one folder the first is read. Lesion masks
(``HAM10000_segmentations_lesion_tschandl``, 2020) are optional: where that folder is there, every picture has a mask,
and boxes called ``lesion``.

What the published conversion does, and what this source does instead:

* it draws 80 % of each class without a seed for training, and the rest in a second run with another draw, so that a
  picture stands on both sides. Here a side follows from the group, the same in every run;
* it draws pictures, though a lesion has up to 6 of them. Here the lesion is the group. The publisher gives no patient;
* it asks for five classes and so joins bkl, df and vasc in ``Other``. Both sets are tasks here; AKIEC is spelled out.

``dx_type`` says how a diagnosis was made and with it which (follow_up is always nv, all mel and bcc are histo), as
``diagnosis_confirm_type`` of the challenge does; neither is read.

A row of the challenge's table with no one has no answer; one with several is in the ledger, as are all pictures of a
lesion that has two diagnoses; a cell that is neither 0 nor 1 stops the scan, for such a table holds predictions.

Licence: the data's page states CC BY-NC 4.0; copies of the pictures, and the published conversion, state
CC BY-NC-SA 4.0. The stricter one is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from qoq_data.errors import Reason
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.licence import CC_BY_NC_SA_4, Access
from qoq_data.record import AnswerType, Domain
from qoq_data.source import Choice, ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask, Task
from qoq_data.sources._item_rows import refuse_rows
from qoq_data.sources._published_files import csv_bytes
from qoq_data.sources._skin import (
    LESION_FEATURES,
    draw_lesion,
    find_pictures,
    first_table,
    five_classes,
    refused_context,
    skin_items,
    stated,
)

_CHALLENGE = "ISIC2018_Task3_Training"
TABLES = {
    "HAM10000_metadata.csv": "harvard",
    "HAM10000_metadata": "harvard",
    f"{_CHALLENGE}_GroundTruth/{_CHALLENGE}_GroundTruth.csv": "isic-2018",
    f"{_CHALLENGE}_GroundTruth.csv": "isic-2018",
}
"""Where the labels may stand, and in which release; the first that is there is read."""
GROUPINGS = tuple(f"{folder}{_CHALLENGE}_LesionGroupings.csv" for folder in ("", f"{_CHALLENGE}_GroundTruth/"))
FOLDERS = (
    "HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images", "images", f"{_CHALLENGE}_Input",
)  # fmt: skip
MASKS = "HAM10000_segmentations_lesion_tschandl"
FIVE_OF_SEVEN = {"mel": "melanoma", "nv": "nevus", "bcc": "basal_cell_carcinoma", "akiec": "akiec"}
FIVE_OF_SEVEN |= dict.fromkeys(("bkl", "df", "vasc"), "other")
"""The publisher's seven diagnoses, in the challenge's order of columns, and the published class of each."""
SITES = (
    "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand", "lower extremity", "neck", "scalp",
    "trunk", "upper extremity",
)  # fmt: skip
_COLUMNS: Mapping[str, type[pl.DataType]] = {
    "lesion_id": pl.String,
    "image_id": pl.String,
    "dx": pl.String,
    "age": pl.Float64,
    "sex": pl.String,
    "localization": pl.String,
}
_CONTEXT = ("age", "sex", "localization")
_PAGE = "https://doi.org/10.7910/DVN/DBW86T"
_WORDINGS = (
    "Which diagnosis fits the pigmented lesion in this dermoscopy picture best?",
    "This is one skin lesion under the dermatoscope. What is it?",
    "Name the diagnosis that this dermoscopic view of a lesion suggests.",
    "Look at the structure and colour of this lesion under dermoscopy: how would you class it?",
    "You are shown a dermoscopy picture. To which of these does the lesion belong?",
)

SPEC = SourceSpec(
    name="ham10000",
    title="HAM10000",
    domain=Domain.DERMATOLOGY,
    modality="dermoscopy",
    homepage=_PAGE,
    citation="Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of multi-source "
    "dermatoscopic images of common pigmented skin lesions. Scientific Data 5:180161, 2018. doi:10.7910/DVN/DBW86T",
    licences={"media": CC_BY_NC_SA_4, "labels": CC_BY_NC_SA_4},
    access=Access.OPEN,
    access_steps=(
        f"Open {_PAGE}. No account is needed.",
        "Fetch HAM10000_metadata, HAM10000_images_part_1.zip, _part_2.zip and, for boxes, the lesion segmentations.",
        f"Unpack each archive into a folder of its own name, so that the raw folder holds {FOLDERS[0]}/ and {MASKS}/.",
        "Or fetch the training data, ground truth and lesion groupings of ISIC 2018 task 3, and unpack them there.",
    ),
    identity_group="ham10000",
    grouping="By lesion_id, since no patient is published, and lesions with equal or nearly equal pictures stay "
    "together; two lesions of one patient may stand on two sides.",
    versions=(SourceVersion("harvard", 10_015), SourceVersion("isic-2018", 10_015)),
    expected_files=(
        ExpectedFile("HAM10000_metadata.csv", columns=tuple(_COLUMNS), other_names=tuple(TABLES)[1:]),
        ExpectedFile(f"{FOLDERS[0]}/", other_names=tuple(f"{folder}/" for folder in FOLDERS[2:])),
        ExpectedFile(f"{FOLDERS[1]}/", required=False),
        ExpectedFile(f"{MASKS}/", required=False),
        ExpectedFile(GROUPINGS[0], required=False, columns=("image", "lesion_id"), other_names=GROUPINGS[1:]),
    ),
    tasks=(
        Task("five_classes", AnswerType.ONE, _WORDINGS, five_classes("Actinic keratosis or Bowen's disease (AKIEC)")),
        Task(
            "seven_diagnoses",
            AnswerType.ONE,
            _WORDINGS,
            (
                Choice("akiec", "Actinic keratosis or Bowen's disease"),
                Choice("bcc", "Basal cell carcinoma"),
                Choice("bkl", "Benign keratosis-like lesion"),
                Choice("df", "Dermatofibroma"),
                Choice("mel", "Melanoma"),
                Choice("nv", "Melanocytic nevus"),
                Choice("vasc", "Vascular lesion"),
            ),
        ),
    ),
    context_fields=("age", "sex", "site"),
    published_items=10_015,
    inspectors=("picture_content",),
    bytes_per_row=280_000,
    skip_limit=0.01,  # every picture, label and mask of both releases is there
    synthetic=(SyntheticTask("five_classes", LESION_FEATURES), SyntheticTask("seven_diagnoses", LESION_FEATURES)),
)


def detect_version(tree: Store) -> str:
    return TABLES[first_table(tree, SPEC.name, tuple(TABLES))]


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a picture, in the order of the table; raises ``LayoutError`` and ``TableError``."""
    path = first_table(tree, SPEC.name, tuple(TABLES))
    table = _pictures(tree, path)
    pictures = find_pictures(tree, SPEC.name, FOLDERS, ".jpg")
    image, lesion, dx = pl.col("image_id"), pl.col("lesion_id"), pl.col("dx")
    columns = {
        "item": image,
        "group": pl.format("lesion:{}", lesion),
        "study": lesion,
        "path": pictures.path_of(image + ".jpg"),
        "label_file": pl.lit(path),
        "label_row": pl.format("image_id={}" if TABLES[path] == "harvard" else "image={}", image),
        "answer.five_classes": dx.replace_strict(FIVE_OF_SEVEN, return_dtype=pl.String),
        "answer.seven_diagnoses": dx,
        "context.age": pl.col("age"),
        "context.sex": pl.col("sex"),
        "context.site": pl.col("localization"),
    }
    if tree.is_folder(MASKS):
        columns["mask"] = pl.format(f"{MASKS}/{{}}_segmentation.png", image)
    set_aside = (
        (Reason.LABEL_CONFLICT, "its row has several diagnoses", pl.col("has_several")),
        (Reason.LABEL_CONFLICT, "pictures of its lesion have another diagnosis", pl.col("lesion_disagrees")),
    )
    return skin_items(table, columns, set_aside)


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of pictures by the publisher's diagnosis, of lesions, and of what is not as published."""
    table = _pictures(tree, first_table(tree, SPEC.name, tuple(TABLES)))
    repeats = table["lesion_id"].value_counts()["count"]
    return {
        **{f"pictures_{dx}": int((table["dx"] == dx).sum()) for dx in sorted(FIVE_OF_SEVEN)},
        "pictures_without_diagnosis": table["dx"].null_count(),
        "pictures_of_lesions_with_two_diagnoses": int(table["lesion_disagrees"].sum()),
        "lesions": repeats.len(),
        "lesions_with_several_pictures": int((repeats > 1).sum()),
        **{f"without_{column}": table[column].null_count() for column in _CONTEXT},
        "mask_files": sum(name.endswith("_segmentation.png") for name in tree.names(MASKS)),
        "pictures_in_two_folders": find_pictures(tree, SPEC.name, FOLDERS, ".jpg").repeated,
    }


def _pictures(tree: Store, path: str) -> pl.DataFrame:
    """The columns of either release, with ``dx`` null where there is none, and what speaks against each row."""
    if TABLES[path] == "isic-2018":
        table = _isic_2018(tree, path)
    else:
        table = read_table(tree, path, _COLUMNS).with_columns(pl.lit(value=False).alias("has_several"))
        table = table.with_columns(map(stated, ("dx", "sex", "localization")))
    refused = {
        "its picture has no name or no lesion_id": pl.col("image_id").is_null() | pl.col("lesion_id").is_null(),
        "its picture was already there": ~pl.col("image_id").is_first_distinct(),
        "dx is none of the seven diagnoses": ~pl.col("dx").is_in(list(FIVE_OF_SEVEN)),
        **refused_context(*_CONTEXT, SITES),
    }
    refuse_rows(table, path, refused)
    disagrees = pl.col("dx").drop_nulls().n_unique().over("lesion_id") > 1
    return table.with_columns(disagrees.alias("lesion_disagrees"))


def _isic_2018(tree: Store, path: str) -> pl.DataFrame:
    """Lesions by the name of the picture, never by position."""
    marks = {dx.upper(): pl.Float64 for dx in FIVE_OF_SEVEN}
    table = read_table(tree, path, {"image": pl.String, **marks})
    no_mark = {f"{name} is neither 0 nor 1": pl.col(name).is_null() | ~pl.col(name).is_in([0.0, 1.0]) for name in marks}
    refuse_rows(table, path, no_mark)
    groupings = next((name for name in GROUPINGS if tree.exists(name)), GROUPINGS[0])
    lesions = read_table(tree, groupings, {"image": pl.String, "lesion_id": pl.String})
    refuse_rows(lesions, groupings, {"its picture was already there": ~pl.col("image").is_first_distinct()})
    count = pl.sum_horizontal(*marks)
    named = pl.coalesce(pl.when(pl.col(name) == 1).then(pl.lit(name.lower())) for name in marks)
    return table.join(lesions, on="image", how="left", maintain_order="left").with_columns(
        pl.col("image").alias("image_id"),
        pl.when(count == 1).then(named).alias("dx"),
        (count > 1).alias("has_several"),
        *(pl.lit(None, dtype=_COLUMNS[name]).alias(name) for name in _CONTEXT),
    )


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A tree of the first release, with the masks: a lesion a patient, of one to three pictures, in seven classes."""
    rng = np.random.default_rng([seed, 10_000])
    for name in (*FOLDERS[:2], MASKS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    looks = {**FIVE_OF_SEVEN, "bkl": "keratosis", "df": "dermatofibroma", "vasc": "vascular"}
    rows: list[tuple[object, ...]] = []
    for lesion in range(patients):
        dx = sorted(looks)[lesion % len(looks)]
        how = "histo" if dx in ("mel", "bcc") else "follow_up" if dx == "nv" else ("consensus", "histo")[lesion % 2]
        age = "" if lesion % 14 == 5 else f"{5.0 * int(rng.integers(4, 18))}"
        about = age, "unknown" if lesion % 14 == 5 else ("male", "female")[lesion % 2], (*SITES, "unknown")[lesion % 15]
        for _ in range(1 + lesion // len(looks) % 3):
            name = f"ISIC_{24306 + len(rows):07d}"
            picture, mask = draw_lesion(looks[dx], 150, 112, rng)
            Image.fromarray(picture).save(folder / FOLDERS[2 * lesion // patients] / f"{name}.jpg", quality=90)
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / MASKS / f"{name}_segmentation.png")
            rows.append((f"HAM_{lesion:07d}", name, dx, how, *about))
    header = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
    (folder / "HAM10000_metadata.csv").write_bytes(csv_bytes(header, rows))
