"""RSPECT: 1,790,594 slices of 7,279 CT pulmonary angiograms, from the RSNA and STR pulmonary embolism competition.

``train.csv`` has a row a slice. ``pe_present_on_image`` is the only label of a slice; the thirteen others are of the
exam and stand again in each of its rows. ``test.csv`` has no labels, and its slices are never items.

What the published conversion does, and what this source does instead:

* it draws training and test slices by two unseeded permutations, so that slices of one exam, millimetres apart, stand
  on both sides, and a slice may stand on both too. Here an exam is one group, whose side is hashed;
* it calls each positive slice of an exam with acute and chronic emboli 'Acute PE'. Which of them a slice shows is not
  published: here such a slice is asked whether there is an embolus, and not of which kind;
* it takes exams that readers could not judge (``indeterminate``, 2 in 100) for exams without embolus, since no slice of
  theirs is marked. Here their slices have no answer, and are lines of the ledger;
* it equalises the local contrast of each slice (CLAHE) and keeps no word of it. Here values go through a window and
  nothing else: by default the same, 700 HU wide at 80 HU, which is a recipe key.

A slice without a mark may still border on one with. No patient is published: an exam is one patient's, but two exams
may be too. Nothing orders the rows: the place of a slice stands in its file alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
from pydantic import Field

from qoq_data.clinical.windowing import DisplayWindow
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
    media_type,
)
from qoq_data.sources._item_rows import refuse_rows
from qoq_data.sources._rspect_tree import (
    IDS,
    INSTANCE,
    OF_EXAM,
    ON_SLICE,
    SERIES,
    SLICES,
    STUDY,
    SUBMISSION,
    TABLE,
    UNLABELLED,
    UNLABELLED_SLICES,
    write_tree,
)

_PAGE = "https://www.kaggle.com/competitions/rsna-str-pulmonary-embolism-detection"
_RULES = Licence("LicenseRef-RSPECT", "Rules of the Kaggle competition", f"{_PAGE}/rules", Redistribution.NONE)

PRESENCE = Task(
    "pe_presence",
    AnswerType.ONE,
    (
        "Is a pulmonary embolus to be seen on this slice of a CT pulmonary angiogram?",
        "Does this contrast-enhanced CT slice of the chest show a pulmonary embolus?",
        "Look at the pulmonary arteries on this slice. Is there an embolus in them?",
        "Was this slice of a CT pulmonary angiogram marked as showing a pulmonary embolus?",
        "On this CT slice of the chest, is a pulmonary embolus present?",
    ),
    (Choice("no", "No"), Choice("yes", "Yes")),
)
TYPE = Task(
    "pe_type",
    AnswerType.ONE,
    (
        "Which kind of pulmonary embolism does this slice of a CT pulmonary angiogram show, if any?",
        "What does this contrast-enhanced CT slice of the chest show: an acute embolus, a chronic one, or none?",
        "Judge the pulmonary arteries on this slice: is there an embolus, and is it acute or chronic?",
        "Of which kind is the pulmonary embolus on this CT slice, if there is one?",
        "What can be said of pulmonary embolism from this slice of a CT pulmonary angiogram?",
    ),
    (Choice("none", "No PE"), Choice("chronic", "Chronic PE"), Choice("acute", "Acute PE")),
)


class Options(SourceOptions):
    window: DisplayWindow = Field("pulmonary_angiography", description="the grey window that slices are seen through")


SPEC = SourceSpec(
    name="rspect",
    title="RSPECT, RSNA-STR Pulmonary Embolism CT",
    domain=Domain.CT,
    modality="CT pulmonary angiogram",
    homepage=_PAGE,
    citation="Colak E, Kitamura FC, Hobbs SB, et al. The RSNA Pulmonary Embolism CT Dataset. Radiology: Artificial "
    "Intelligence 3(2):e200254, 2021. doi:10.1148/ryai.2021200254",
    licences={"media": _RULES, "labels": _RULES},
    access=Access.REGISTERED,
    access_steps=(
        f"Sign in at Kaggle, accept the rules at {_PAGE}/rules, and fetch the archive of the tab Data.",
        f"Unpack it into an empty folder, which then holds {TABLE} and {SLICES}/ (about 900 GB). Give it as --raw.",
        f"{UNLABELLED_SLICES}/ may be left out: its slices have no label and are not read.",
    ),
    identity_group="rspect",
    grouping="By exam: all slices of a StudyInstanceUID stand on one side. No patient is published, so two exams of "
    "one patient, which the publisher does not rule out, may stand on two.",
    versions=(SourceVersion("2020", 1_790_594, None),),
    expected_files=(
        ExpectedFile(TABLE, columns=(*IDS, ON_SLICE, *OF_EXAM)),
        ExpectedFile(f"{SLICES}/"),
        ExpectedFile(UNLABELLED, required=False),
        ExpectedFile(f"{UNLABELLED_SLICES}/", required=False),
        ExpectedFile(SUBMISSION, required=False),
    ),
    tasks=(TYPE, PRESENCE),
    published_items=1_790_594,
    rows_per_shard=4096,
    bytes_per_row=60_000,
    skip_limit=0.05,  # 157 of 7,279 exams are indeterminate: 2 % of the slices have no answer
    synthetic=(
        SyntheticTask("pe_type", ("dark_blob_area", "bright_blob_area")),
        SyntheticTask("pe_presence", ("dark_blob_area",)),
    ),
)


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """A row a slice, in the order of the table; no file is looked for. Raises ``SourceError``."""
    is_positive = pl.col(ON_SLICE) == 1
    kind = (
        pl.when(~is_positive)
        .then(pl.lit("none"))
        .when(pl.col("acute_and_chronic_pe") == 1)
        .then(None)
        .when(pl.col("chronic_pe") == 1)
        .then(pl.lit("chronic"))
        .otherwise(pl.lit("acute"))
    )
    is_judged = pl.col("indeterminate") == 0
    medium = pl.struct(
        pl.lit("slice").alias("role"),
        pl.lit("dicom").alias("kind"),
        pl.format(f"{SLICES}/{{}}/{{}}/{{}}.dcm", *IDS).alias("path"),
        pl.lit("axial").alias("part"),
        pl.lit(options.window).alias("display"),
    )
    return _table(tree).lazy().select(
        pl.format("{}/{}/{}", *IDS).alias("item"),
        pl.lit(None, pl.String).alias("patient"),
        pl.col(STUDY).alias("group"),
        pl.col(STUDY).alias("study"),
        pl.lit(None, pl.String).alias("official_split"),
        pl.concat_list(medium).cast(pl.List(media_type("display"))).alias("media"),
        pl.lit(TABLE).alias("label_file"),
        pl.format(f"{INSTANCE}={{}}", INSTANCE).alias("label_row"),
        _answer(kind, is_judged).alias(f"answer.{TYPE.name}"),
        _answer(pl.when(is_positive).then(pl.lit("yes")).otherwise(pl.lit("no")), is_judged).alias(
            f"answer.{PRESENCE.name}"
        ),
    )  # fmt: skip


def _answer(key: pl.Expr, is_judged: pl.Expr) -> pl.Expr:
    return pl.when(is_judged & key.is_not_null()).then(pl.concat_list(key))


def statistics(tree: Store, options: Options) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of slices, exams and what stands in the way of an answer."""
    table = _table(tree)
    exams = table.unique(STUDY)
    positive = table.filter(pl.col(ON_SLICE) == 1)
    return {
        "slices": table.height,
        "exams": exams.height,
        "series": table[SERIES].n_unique(),
        "slices_with_an_embolus": positive.height,
        "slices_of_acute_and_chronic_emboli": int(positive["acute_and_chronic_pe"].sum()),
        "indeterminate_exams": int(exams["indeterminate"].sum()),
        "exams_without_embolus": int(exams["negative_exam_for_pe"].sum()),
    }


def _table(tree: Store) -> pl.DataFrame:
    labels = (ON_SLICE, *OF_EXAM)
    table = read_table(tree, TABLE, {**dict.fromkeys(IDS, pl.String), **dict.fromkeys(labels, pl.Int8)})
    changes = pl.any_horizontal(pl.col(name) != pl.col(name).first().over(STUDY) for name in OF_EXAM)
    positive = pl.col(ON_SLICE) == 1
    refuse_rows(
        table,
        TABLE,
        {
            f"{name} is no plain UID": ~pl.col(name).str.contains(r"^[0-9A-Za-z][0-9A-Za-z.-]*$").fill_null(value=False)
            for name in IDS
        }
        | {f"{name} is neither 0 nor 1": ~pl.col(name).is_in([0, 1]).fill_null(value=False) for name in labels}
        | {
            f"the {INSTANCE} stands twice": ~pl.col(INSTANCE).is_first_distinct(),
            "a label of the exam differs from that of the exam's rows above": changes,
            "a slice of an exam without embolus is marked": positive & (pl.col("negative_exam_for_pe") == 1),
            "a slice of an indeterminate exam is marked": positive & (pl.col("indeterminate") == 1),
            "the exam is chronic, and acute and chronic": pl.col("chronic_pe") + pl.col("acute_and_chronic_pe") == 2,
        },
    )
    return table


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """Four slices an exam, on two of them an embolus where there is one; see ``_rspect_tree``."""
    write_tree(folder, seed, patients)
