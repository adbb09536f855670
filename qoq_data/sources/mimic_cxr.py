"""MIMIC-CXR-JPG 2.0.0 and 2.1.0: 377,110 chest radiographs of 65,379 patients of one Boston hospital, as grey JPEGs.

Labels are CheXpert's labeller's, or NegBio's, over the report of a study; no image was read for them. They belong to
the study: all its pictures have them, and a finding need not be visible on each. 8 of 227,835 studies have no row.

What the published conversion does, and what this source does instead:

* it makes -1 and blank 0 without a word. Here hedged, denied and unspoken stay three things, see the recipe keys;
* it drops every row without a positive label, 20,885 pictures, without a count. Here each is a line of the ledger;
* its test side is the publisher's test and validate together. Here each is its own side;
* its list of options is alphabetical here and in CheXpert's order there. Here both sources have CheXpert's order, and
  columns go by name;
* it takes all views and forgets which. ``ViewPosition`` is blank for 15,769 pictures, which some readers take for
  frontal. Here the view is kept as published, and a blank is ``unknown``.

The films of MIMIC-CXR itself, as DICOM, are read by the recipe key ``media``. They have the same names in the same
folders, but that release has no labels, sides or views: the tables are those of MIMIC-CXR-JPG. Its pictures had their
histogram equalised when they were made 8 bits; the DICOM files had not, and go through their own window here.

Patients are ``subject_id``, the numbering of all of MIMIC: a patient who is on the test side here is on it with every
other source of the group. Release 2.1.0 adds one radiologist's labels of the test reports, which are not read: a test
side labelled by another rule than the training side measures that difference too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.licence import PHYSIONET_CREDENTIALED, Access
from qoq_data.record import Domain
from qoq_data.source import ExpectedFile, MediaKind, SourceSpec, SourceVersion
from qoq_data.sources import _chexpert_labels as shared
from qoq_data.sources._chexpert_films import SEEN
from qoq_data.sources._chexpert_labels import COLUMNS, FINDINGS, LabelOptions
from qoq_data.sources._item_rows import refuse_rows
from qoq_data.sources._mimic_cxr_tree import LABELS, METADATA, NEGBIO, SPLIT, TEST_SET, write_tree

_SUFFIXES = {"jpg": ".jpg", "dicom": ".dcm"}
_SIDES = {"train": "train", "validate": "validation", "test": "test"}
_PAGE = "https://physionet.org/content/mimic-cxr-jpg/2.1.0/"


class Options(LabelOptions):
    __doc__ = LabelOptions.__doc__
    labeler: Literal["chexpert", "negbio"] = Field("chexpert", description="whose labels of the reports are answers")
    media: Literal["jpg", "dicom"] = Field("jpg", description="of MIMIC-CXR-JPG, or of MIMIC-CXR itself")


def _table(path: str, *columns: str, required: bool = True) -> ExpectedFile:
    """A table that is found without its ``.gz`` too."""
    return ExpectedFile(path, required, columns, (path.removesuffix(".gz"),))


SPEC = SourceSpec(
    name="mimic-cxr",
    title="MIMIC-CXR-JPG, chest radiographs with structured labels",
    domain=Domain.CHEST_XRAY,
    modality="chest X-ray",
    homepage=_PAGE,
    citation="Johnson A, Lungren M, Peng Y, et al. MIMIC-CXR-JPG - chest radiographs with structured labels (version "
    "2.1.0). PhysioNet, 2024. doi:10.13026/jsn5-t979. Johnson AEW, Pollard TJ, Greenbaum NR, et al. MIMIC-CXR-JPG, a "
    "large publicly available database of labeled chest radiographs. arXiv:1901.07042, 2019.",
    licences={"media": PHYSIONET_CREDENTIALED, "labels": PHYSIONET_CREDENTIALED},
    access=Access.CREDENTIALED,
    access_steps=(
        f"Become a credentialed user of PhysioNet, do the CITI course, and sign the agreement on {_PAGE}.",
        "wget -r -N -c -np --user NAME --ask-password https://physionet.org/files/mimic-cxr-jpg/2.1.0/ (570 GB).",
        f"Point --raw at the folder that holds {SPLIT} and files/.",
        "For DICOM, fetch https://physionet.org/content/mimic-cxr/2.1.0/ (4.6 TB), these tables beside its files/.",
        "The recipe key media: dicom reads it.",
    ),
    identity_group="mimic",
    grouping="By subject_id, which all parts of MIMIC share: all studies of a patient, and all views of a study, stand "
    "on one side. The publisher's train, validate and test are kept.",
    versions=(SourceVersion("2.1.0", 377_110, 65_379), SourceVersion("2.0.0", 377_110, 65_379)),
    expected_files=(
        _table(SPLIT, "dicom_id", "study_id", "subject_id", "split"),
        _table(METADATA, "dicom_id", "study_id", "subject_id", "ViewPosition"),
        _table(LABELS, "subject_id", "study_id", *FINDINGS),
        ExpectedFile("files/"),
        _table(NEGBIO, required=False),
        *(ExpectedFile(path, required=False) for path in (TEST_SET, "IMAGE_FILENAMES", "README", "LICENSE.txt")),
        ExpectedFile("SHA256SUMS.txt", required=False),
    ),
    tasks=shared.TASKS,
    published_items=356_225,
    checksums_file="SHA256SUMS.txt",
    skip_limit=0.08,  # 5.5 % of the pictures have no positive label, by the published count
    synthetic=SEEN,
)


def detect_version(tree: Store) -> str:
    """The tables keep their names in 2.1.0, which is told by the file that it adds."""
    return "2.1.0" if tree.exists(TEST_SET) else "2.0.0"


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """A row a picture, in the order of the split table; no picture is looked for. Raises ``SourceError``."""
    kind: MediaKind = "dicom" if options.media == "dicom" else "image"
    return shared.label_items(_records(tree, options), options.uncertain, kind=kind)


def statistics(tree: Store, options: Options) -> Mapping[str, int]:
    """Counts of views, of what the labels leave out, and of what one table has and another lacks."""
    records = _records(tree, options)
    labels = _labels(tree, options)
    labelled = records.filter("is_labelled")
    sides = records.group_by("subject_id").agg(pl.col("split").n_unique())
    return {
        "images": records.height,
        "studies": records["study_id"].n_unique(),
        "images_of_unknown_view": int((records["view"] == "unknown").sum()),
        "images_without_metadata": records["described_study"].null_count(),
        "images_of_studies_without_labels": records.height - labelled.height,
        "labelled_studies_without_an_image": labels.join(records, on="study_id", how="anti").height,
        "patients_on_several_official_sides": int((sides["split"] > 1).sum()),
        **shared.label_statistics(labelled, options.uncertain),
    }


def _labels_path(tree: Store, options: Options) -> str:
    return _found(tree, NEGBIO if options.labeler == "negbio" else LABELS)


def _found(tree: Store, path: str) -> str:
    plain = path.removesuffix(".gz")
    return plain if not tree.exists(path) and tree.exists(plain) else path


def _records(tree: Store, options: Options) -> pl.DataFrame:
    """The split table with each picture's view and its study's labels."""
    path = _found(tree, SPLIT)
    images = read_table(tree, path, dict.fromkeys(("dicom_id", "study_id", "subject_id", "split"), pl.String))
    refuse_rows(
        images,
        path,
        {
            "dicom_id is no DICOM id of this release": ~_is_plain("dicom_id", r"^[0-9a-f]+(-[0-9a-f]+)*$"),
            "subject_id is not eight digits": ~_is_plain("subject_id", r"^\d{8}$"),
            "study_id is not eight digits": ~_is_plain("study_id", r"^\d{8}$"),
            "split is none of train, validate and test": ~pl.col("split").is_in(list(_SIDES)).fill_null(value=False),
            "the dicom_id stands twice": ~pl.col("dicom_id").is_first_distinct(),
            "the study has another patient above": pl.col("subject_id")
            != pl.col("subject_id").first().over("study_id"),
        },
    )
    metadata = _found(tree, METADATA)
    columns = ("dicom_id", "study_id", "subject_id", "ViewPosition")
    views = read_table(tree, metadata, dict.fromkeys(columns, pl.String))
    refuse_rows(views, metadata, {"the dicom_id stands twice": ~pl.col("dicom_id").is_first_distinct()})
    views = views.rename({"study_id": "described_study", "subject_id": "described_subject"})
    records = images.join(views, on="dicom_id", how="left", maintain_order="left")
    labels = _labels(tree, options).with_columns(pl.col("subject_id").alias("labelled_subject")).drop("subject_id")
    records = records.join(labels, on="study_id", how="left", maintain_order="left")
    labels_path = _labels_path(tree, options)
    refuse_rows(
        records,
        path,
        {
            f"{metadata} has another study for it": pl.col("study_id") != pl.col("described_study"),
            f"{metadata} has another patient for it": pl.col("subject_id") != pl.col("described_subject"),
            f"{labels_path} has another patient for its study": pl.col("subject_id") != pl.col("labelled_subject"),
        },
    )
    folders = (pl.col("subject_id").str.head(2), "subject_id", "study_id", "dicom_id")
    return records.with_columns(
        item=pl.col("dicom_id"),
        patient=pl.col("subject_id"),
        study=pl.col("study_id"),
        official_split=pl.col("split").replace_strict(_SIDES, default=None, return_dtype=pl.String),
        path=pl.format(f"files/p{{}}/p{{}}/s{{}}/{{}}{_SUFFIXES[options.media]}", *folders),
        view=pl.col("ViewPosition").str.strip_chars().fill_null("unknown"),
        label_file=pl.lit(labels_path),
        label_row="study_id=" + pl.col("study_id"),
        is_labelled=pl.col("labelled_subject").is_not_null(),
        disagrees=pl.lit(value=False),
    )


def _is_plain(column: str, pattern: str) -> pl.Expr:
    return pl.col(column).str.contains(pattern).fill_null(value=False)


def _labels(tree: Store, options: Options) -> pl.DataFrame:
    path = _labels_path(tree, options)
    labels = read_table(tree, path, {"subject_id": pl.String, "study_id": pl.String, **COLUMNS})
    refused = {
        "subject_id or study_id is blank": pl.any_horizontal(pl.col("subject_id", "study_id").is_null()),
        "the study_id stands twice": ~pl.col("study_id").is_first_distinct(),
    }
    refuse_rows(labels, path, refused | shared.refused_labels())
    return labels


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """Release 2.1.0 of MIMIC-CXR-JPG in miniature; see ``_mimic_cxr_tree``."""
    write_tree(folder, seed, patients)
