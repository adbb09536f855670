"""CheXpert 1.0: 224,316 chest radiographs of 65,240 patients of Stanford Hospital, frontal and lateral.

Labels of ``train.csv`` are a program's, over reports: stated, denied, hedged or blank. Those of ``valid.csv`` (200
studies) and of the test set (500) are the majority of three and of five radiologists, all 0 or 1.

What the published conversion does, and what this source does instead:

* it makes -1 and blank 0 without a word. Here hedged, denied and unspoken stay three things, see the recipe keys;
* it drops every row without a positive label (11,141 of ``train.csv``, 9 of ``valid.csv``) without a count. Here each
  is a line of the ledger;
* its array of label places repeats Atelectasis and never uses No Finding. Here columns go by name, through one list;
* it calls ``valid.csv`` the test side. Here it is validation, with or without the test set beside it: a side that
  turned with what else is downloaded would let one picture be selected on in one corpus and tested on in the next.
  Without the test set, which AIMI gives out with CheXlocalize (``CheXpert/test/``), a corpus has no test side;
* it takes all views and forgets which. Here the view is kept; LL and RL stay, blank is ``unknown``.

Layouts: ``CheXpert-v1.0/``, ``CheXpert-v1.0-small/``, and AIMI's four batches, whose training folders lack the level
``train/``: a patient's number tells the batch. A picture has the same id in all of them. Test pictures are listed from
their folder; their labels are ``groundtruth.csv`` (a row a study, on the publisher's GitHub page) put into
``CheXpert/``, else ``test_labels.csv`` there (a row a picture). Age 0 is kept; sex ``Unknown`` is no context.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from qoq_data.errors import LayoutError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.licence import Access, Licence, Redistribution
from qoq_data.record import Domain
from qoq_data.source import ExpectedFile, SourceSpec, SourceVersion
from qoq_data.sources import _chexpert_films as films
from qoq_data.sources import _chexpert_labels as shared
from qoq_data.sources._chexpert_labels import COLUMNS, FINDINGS, LabelOptions
from qoq_data.sources._item_rows import age_text, refuse_rows
from qoq_data.sources._published_files import csv_bytes

HOME, SMALL = "CheXpert-v1.0", "CheXpert-v1.0-small"
FIRST_BATCH = f"{HOME} batch 1 (validate & csv)"
BATCHES = {f"{HOME} batch 2 (train 1)": 0, f"{HOME} batch 3 (train 2)": 21_514, f"{HOME} batch 4 (train 3)": 43_018}
"""Folders of the training pictures, each with its first patient's number."""
TEST = "CheXpert/test"
TEST_TABLES = {"CheXpert/groundtruth.csv": "Study", "CheXpert/test_labels.csv": "Path"}
"""Where the labels of the test set may be, the first of them read, and the column that says of what."""
_VIEW, _PROJECTION = "Frontal/Lateral", "AP/PA"
_PLACE = r"(patient(\d{5}))/(study\d+)/(view\d+_(frontal|lateral))\.jpg"
_NAMES = ("patient", "number", "study", "stem", "view")
_HEADER = ("Path", "Sex", "Age", _VIEW, _PROJECTION, *FINDINGS)
_PAGE = "https://stanfordmlgroup.github.io/competitions/chexpert/"
_AGREEMENT = "Stanford University Dataset Research Use Agreement"
_TERMS = Licence("LicenseRef-Stanford-RUA", _AGREEMENT, _PAGE, Redistribution.NONE)
Options = LabelOptions

SPEC = SourceSpec(
    name="chexpert",
    title="CheXpert",
    domain=Domain.CHEST_XRAY,
    modality="chest X-ray",
    homepage=_PAGE,
    citation="Irvin J, Rajpurkar P, Ko M, et al. CheXpert: a large chest radiograph dataset with uncertainty labels "
    "and expert comparison. AAAI 33:590-597, 2019. Test set: Saporta A, Gui X, Agrawal A, et al. Benchmarking saliency "
    "methods for chest X-ray interpretation. Nature Machine Intelligence 4:867-878, 2022.",
    licences={"media": _TERMS, "labels": _TERMS},
    access=Access.OWN_AGREEMENT,
    access_steps=(
        "Sign in on https://aimi.stanford.edu/datasets/chexpert-chest-x-rays and accept the research use agreement.",
        f"Fetch {SMALL} (11 GB), or the four batches (439 GB), and unpack them into one empty folder: --raw.",
        "For a test side, fetch CheXlocalize too, whose CheXpert/ holds test/ and test_labels.csv; put it beside.",
    ),
    identity_group="chexpert",
    grouping="By the patient's number in the path: all studies and views of a patient stand on one side. train.csv is "
    "train, valid.csv validation, and CheXpert/test the test side, which is empty where that folder is absent.",
    versions=(
        SourceVersion("1.0", 223_648, 64_740),
        SourceVersion("1.0-small", 223_648, 64_740),
        SourceVersion("1.0+test", 224_316, 65_240),
        SourceVersion("1.0-small+test", 224_316, 65_240),
    ),
    expected_files=(
        *(
            ExpectedFile(f"{HOME}/{table}", columns=_HEADER, other_names=(f"{SMALL}/{table}", f"{FIRST_BATCH}/{table}"))
            for table in ("train.csv", "valid.csv")
        ),
        ExpectedFile(f"{HOME}/train/", other_names=(f"{SMALL}/train/", *(f"{batch}/" for batch in BATCHES))),
        ExpectedFile(f"{HOME}/valid/", other_names=(f"{SMALL}/valid/", f"{FIRST_BATCH}/valid/")),
        *(ExpectedFile(path, required=False, columns=(key, *FINDINGS)) for path, key in TEST_TABLES.items()),
        ExpectedFile(f"{TEST}/", required=False),
    ),
    tasks=shared.TASKS,
    context_fields=("age", "sex"),
    published_items=212_498,
    skip_limit=0.08,  # 5.0 % of the pictures have no positive label, by the published count
    synthetic=films.SEEN,
)


def detect_version(tree: Store) -> str:
    """Full or small size, with or without the test set."""
    return ("1.0-small" if _home(tree) == SMALL else "1.0") + ("+test" if tree.is_folder(TEST) else "")


def scan(tree: Store, options: LabelOptions) -> pl.LazyFrame:
    """A row a picture; none is opened, and test pictures are listed. Raises ``SourceError``."""
    sex = pl.col("Sex").replace_strict({"Female": "female", "Male": "male"}, default=None, return_dtype=pl.String)
    context = (age_text(pl.col("Age")).alias("context.age"), sex.alias("context.sex"))
    return shared.label_items(_records(tree), options.uncertain, context)


def statistics(tree: Store, options: LabelOptions) -> Mapping[str, int]:
    """Counts by side and view, and of what the labels leave out."""
    records = _records(tree)
    labelled = records.filter("is_labelled")
    sides, views = (dict(sorted(records[name].value_counts().iter_rows())) for name in ("official_split", "view"))
    return {
        **{f"{side}_images": count for side, count in sides.items()},
        **{f"view_{view}": count for view, count in views.items()},
        "images_whose_study_disagrees": int(records["disagrees"].sum()),
        "test_images_without_labels": records.height - labelled.height,
        "test_files_of_unknown_name": sum(1 for _ in tree.walk(TEST)) - sides.get("test", 0),
        **shared.label_statistics(labelled, options.uncertain),
    }


def _home(tree: Store) -> str:
    """The folder that holds the tables."""
    homes = [home for home in (HOME, SMALL, FIRST_BATCH) if tree.exists(f"{home}/train.csv")]
    if len(homes) > 1:
        raise LayoutError(f"chexpert: {homes[0]}/ and {homes[1]}/ both hold a train.csv. Give a folder with one.")
    if not homes:
        found = ", ".join(tree.names()[:20]) or "nothing"
        inside = " Give the folder above it." if tree.exists("train.csv") else ""
        raise LayoutError(f"chexpert: {HOME}/train.csv is not in the raw folder, which holds {found}.{inside}")
    return homes[0]


def _folder(tree: Store, home: str) -> pl.Expr:
    """The folder of a training or validation picture's patient, from the parts of its ``Path``."""
    folder = pl.lit(f"{home}/") + pl.col("part")
    if not tree.is_folder(f"{home}/train") and any(tree.is_folder(batch) for batch in BATCHES):
        for batch, first in BATCHES.items():
            unpacked = f"{batch}/train" if tree.is_folder(f"{batch}/train") else batch
            is_here = (pl.col("part") == "train") & (pl.col("number").cast(pl.Int64) >= first)
            folder = pl.when(is_here).then(pl.lit(unpacked)).otherwise(folder)
    return folder


def _records(tree: Store) -> pl.DataFrame:
    """Every picture with its place, side, view, context and labels."""
    parts = (_published(tree, "train", "train"), _published(tree, "valid", "validation"), _test_set(tree))
    records = pl.concat(parts, how="diagonal").with_columns(study=pl.concat_str("patient", "study", separator="-"))
    return records.with_columns(item=pl.col("study") + "-" + pl.col("stem"), disagrees=shared.disagrees_with("study"))


def _published(tree: Store, part: str, side: str) -> pl.DataFrame:
    """``train.csv`` or ``valid.csv``, its cells checked."""
    home = _home(tree)
    file = f"{home}/{part}.csv"
    table = read_table(tree, file, {**dict.fromkeys(_HEADER, pl.String), "Age": pl.Int64, **COLUMNS})
    groups = pl.col("Path").str.extract_groups(rf"^(?:CheXpert-v1\.0(?:-small)?/)?(train|valid)/{_PLACE}$")
    table = table.with_columns(place=groups.struct.rename_fields(["part", *_NAMES])).unnest("place")
    refused = {
        f"Path is no {part}/patient00000/study0/view0_frontal.jpg": (pl.col("part") != part).fill_null(value=True),
        "the Path stands twice": ~pl.struct("patient", "study", "stem").is_first_distinct(),
        "Sex is none of Female, Male, Unknown and blank": ~pl.col("Sex").is_in(["Female", "Male", "Unknown"]),
        "Age is no age in years": ~pl.col("Age").is_between(0, 120),
        f"{_VIEW} is none of Frontal, Lateral and blank": ~pl.col(_VIEW).is_in(["Frontal", "Lateral"]),
        f"{_PROJECTION} is none of AP, PA, LL, RL and blank": ~pl.col(_PROJECTION).is_in(["AP", "PA", "LL", "RL"]),
    }
    refuse_rows(table, file, refused | shared.refused_labels())
    view = pl.concat_str(pl.col(_VIEW).str.to_lowercase(), _PROJECTION, separator=" ", ignore_nulls=True)
    return table.select(
        *("patient", "study", "stem", "Sex", "Age", *FINDINGS),
        pl.lit(side).alias("official_split"),
        pl.concat_str(_folder(tree, home), "patient", "study", pl.col("stem") + ".jpg", separator="/").alias("path"),
        pl.when(view == "").then(pl.lit("unknown")).otherwise(view).alias("view"),
        pl.lit(file).alias("label_file"),
        ("Path=" + pl.col("Path")).alias("label_row"),
        pl.lit(value=True).alias("is_labelled"),
    )


def _test_set(tree: Store) -> pl.DataFrame:
    """The test pictures with their labels; no rows where their folder is absent."""
    if not tree.is_folder(TEST):
        return pl.DataFrame()
    found = [match for path in tree.walk(TEST) if (match := re.fullmatch(f"{TEST}/{_PLACE}", path))]
    table = next((path for path in TEST_TABLES if tree.exists(path)), None)
    if table is None:
        raise LayoutError(f"chexpert: {TEST}/ is there, but neither {' nor '.join(TEST_TABLES)} with its labels.")
    if not found:
        raise LayoutError(f"chexpert: {TEST}/ holds no picture named like patient64741/study1/view1_frontal.jpg.")
    places = [(match[0], *match.groups()) for match in found]
    pictures = pl.DataFrame(places, schema=dict.fromkeys(("path", *_NAMES), pl.String), orient="row")
    key = TEST_TABLES[table]
    names = ["patient", "study"] if key == "Study" else ["patient", "study", "stem"]
    end = "" if key == "Study" else r"/(view\d+_(?:frontal|lateral))\.jpg"
    labels = read_table(tree, table, {key: pl.String, **COLUMNS})
    groups = pl.col(key).str.extract_groups(rf"(?:^|/)(patient\d{{5}})/(study\d+){end}$")
    labels = labels.with_columns(place=groups.struct.rename_fields(names)).unnest("place")
    refused = {
        f"{key} is no {'/'.join(names)}": pl.col("patient").is_null(),
        f"the {key} stands twice": ~pl.struct(names).is_first_distinct(),
    }
    refuse_rows(labels, table, refused | shared.refused_labels())
    return pictures.join(labels, on=names, how="left", maintain_order="left").select(
        *("patient", "study", "stem", "path", "view", *FINDINGS),
        pl.lit("test").alias("official_split"),
        pl.lit(table).alias("label_file"),
        pl.format("{}={}", pl.lit(key), pl.col(key).fill_null("")).alias("label_row"),
        pl.col(key).is_not_null().alias("is_labelled"),
    )


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """The layout ``CheXpert-v1.0/`` with a test set: of six patients four are train, one valid and one test.

    Every other study has a lateral. Of 40 studies one is only hedged and one only denied; valid and test have no hedged
    and no blank cell, and every twelfth of their studies has nothing.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[tuple[object, ...]]] = {"train": [], "valid": [], "test": []}
    test_rows: list[tuple[object, ...]] = []
    studies, people = dict.fromkeys(rows, 0), {"train": 21_500, "valid": 64_541, "test": 64_741}
    for place in range(patients):
        part = {1: "valid", 4: "test"}.get(place % 6, "train")
        patient, people[part] = f"patient{people[part]:05d}", people[part] + 1
        about = ("Unknown", 0) if place == 20 else (("Female", "Male")[int(rng.integers(2))], int(rng.integers(18, 91)))
        for study in range(1, 2 + (part == "train" and place % 2)):
            number, studies[part] = studies[part], studies[part] + 1
            case = films.case_of(number) if part == "train" else films.read_case_of(number)
            for nth, view in enumerate(("frontal", "lateral")[: 1 + number % 2], 1):
                below = f"{part}/{patient}/study{study}/view{nth}_{view}.jpg"
                path = folder / ("CheXpert" if part == "test" else HOME) / below
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(films.jpeg_bytes(films.radiograph(case, rng, lateral=view == "lateral")))
                shown = (view.capitalize(), "" if view == "lateral" else ("AP", "PA", "AP", "PA", "LL")[number % 5])
                rows[part].append((f"{HOME}/{below}", *about, *shown, *films.label_cells(case)))
            test_rows += [(f"{HOME}/test/{patient}/study{study}", *map(int, case.values()))] if part == "test" else []
    for part in ("train", "valid"):
        (folder / HOME / part).mkdir(parents=True, exist_ok=True)
        (folder / HOME / f"{part}.csv").write_bytes(csv_bytes(_HEADER, rows[part]))
    if test_rows:
        (folder / "CheXpert" / "groundtruth.csv").write_bytes(csv_bytes(("Study", *FINDINGS), test_rows))
