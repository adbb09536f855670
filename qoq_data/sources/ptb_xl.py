"""PTB-XL, the native release on PhysioNet: 12-lead ECGs of 10 s with SCP-ECG statements by cardiologists.

What goes wrong with the published conversions of this source, and what is done here:

* Splits by record put one patient on both sides. Here the patient is the group and ``strat_fold`` the split.
* A class drawn at random among those that hold, and drawn from all seven where none holds. Here the answer is the
  set, and a record without any has no answer to that task and is counted.
* The challenge's copy (``HR00001`` on) still holds 38 recordings twice, and has lost the likelihoods. Here the native
  release is read; the repeats of an older one are counted and, by a recipe key, left out.
* ``INVT``, inverted T waves, counted as infarction, and ``INJIN`` as nothing. ``data/ptb_xl_statements.csv`` has our
  class of each of the 71 codes beside the published one, with the reason.
* A sinus rhythm counted as normal beside other classes. Here normal needs ``NORM``, and holds only alone.
* STTC explained as sinus tachycardia or bradycardia. It is a change of the ST segment or T wave, and is called that.
* The axis ``AXR`` listed with a closing tab, so that it never matches. Here cells are trimmed, and an axis is a task of
  its own: by itself it is no hypertrophy. Unknown codes are errors.
* Rows that disappear: 411 records have no diagnostic statement. They keep their other tasks, and are counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from qoq_data.errors import Reason, TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.licence import CC_BY_4, Access
from qoq_data.record import Domain
from qoq_data.source import ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask
from qoq_data.sources._item_rows import age_text, refuse_rows
from qoq_data.sources._ptb_xl_tasks import (
    AXES,
    STATEMENTS,
    TABLE,
    TASKS,
    SevenClass,
    answers_of,
    data_rows,
    read_statements,
)

_COLUMNS: Mapping[str, type[pl.DataType]] = {
    "ecg_id": pl.Int64,
    "patient_id": pl.Float64,
    "age": pl.Float64,
    "sex": pl.Int64,
    "device": pl.String,
    "scp_codes": pl.String,
    "heart_axis": pl.String,
    "strat_fold": pl.Int64,
    "filename_lr": pl.String,
    "filename_hr": pl.String,
}
_WITHDRAWN = {int(row["ecg_id"]): row["withdrawn_in"] for row in data_rows("ptb_xl_repeats.csv")}
_CHANGE_LOGS = {"1.0.3": "ptbxl_v103_changelog.txt", "1.0.2": "ptbxl_v102_changelog.txt"}  # the newest first

SPEC = SourceSpec(
    name="ptb-xl",
    title="PTB-XL",
    domain=Domain.ECG,
    modality="12-lead ECG",
    homepage="https://physionet.org/content/ptb-xl/1.0.3/",
    citation=(
        "Wagner P, Strodthoff N, Bousseljot R-D, et al. PTB-XL, a large publicly available electrocardiography "
        "dataset. Scientific Data 7:154 (2020). Release: doi 10.13026/kfzx-aw45. Goldberger A, et al. PhysioBank, "
        "PhysioToolkit, and PhysioNet. Circulation 101(23):e215-e220 (2000)."
    ),
    licences={"media": CC_BY_4, "labels": CC_BY_4},
    access=Access.OPEN,
    access_steps=(
        "No account is needed.",
        "wget -r -N -c -np https://physionet.org/files/ptb-xl/1.0.3/",
        "The raw folder is then physionet.org/files/ptb-xl/1.0.3, the one that holds ptbxl_database.csv.",
    ),
    identity_group="ptb-xl",
    grouping="by patient_id; the publisher's folds keep a patient together, and a record without one stands alone",
    versions=(
        SourceVersion("1.0.3", 21_799, 18_869),
        SourceVersion("1.0.2", 21_801),
        SourceVersion("1.0.1", 21_837, 18_885),
    ),
    expected_files=(
        ExpectedFile(TABLE, columns=tuple(_COLUMNS)),
        ExpectedFile(STATEMENTS, columns=("", "diagnostic", "form", "rhythm", "diagnostic_class")),
        ExpectedFile("records500/"),
        ExpectedFile("records100/", required=False),
        ExpectedFile("ptbxl_v102_changelog.txt", required=False),
        ExpectedFile("ptbxl_v103_changelog.txt", required=False),
        ExpectedFile("example_physionet.py", required=False),
        ExpectedFile("RECORDS", required=False),
        ExpectedFile("LICENSE.txt", required=False),
        ExpectedFile("SHA256SUMS.txt", required=False),
    ),
    tasks=TASKS,
    context_fields=("age", "sex", "recording_device"),
    published_items=21_837,
    checksums_file="SHA256SUMS.txt",
    synthetic=(
        SyntheticTask(
            "superclass",
            ("q_depth_ii", "q_depth_v2", "t_amplitude_v5", "st_level_v2", "qrs_width", "r_amplitude_v5"),
        ),
        SyntheticTask("rhythm", ("heart_rate", "rr_irregularity", "p_wave_amplitude", "qrs_width")),
    ),
)


class Options(SourceOptions):
    """Recipe keys of PTB-XL.

    ``seven_class: published`` gives each code the published class and leaves normal beside the others, for
    comparison. ``minimum_likelihood`` (percent) sets aside statements graded below it; those without a grade (0.0)
    stay; the default 0 is the publisher's own aggregation. ``withdrawn_repeats`` says what becomes of the 38 repeated
    recordings of releases before 1.0.3; left out, each is a ledger line.
    """

    sampling_frequency_hz: Literal[100, 500] = 500
    seven_class: SevenClass = "corrected"
    minimum_likelihood: float = Field(default=0.0, ge=0.0, le=100.0)
    withdrawn_repeats: Literal["keep", "leave_out"] = "keep"


def detect_version(tree: Store) -> str:
    """The release by what the table shows, else by the newest change log, else the newest.

    A table shows its release by a record that a later one withdrew, or by having exactly the number of records of a
    release; an excerpt has some other number, and that is no error. A ``TableError`` is a table older than the log.
    """
    ids = read_table(tree, TABLE, {"ecg_id": pl.Int64})["ecg_id"]
    later = {_WITHDRAWN[ecg_id] for ecg_id in ids.filter(ids.is_in(list(_WITHDRAWN)))}
    counted = next((version.name for version in SPEC.versions if version.items == ids.len()), None)
    shown = "1.0.1" if "1.0.2" in later else "1.0.2" if later else counted
    logged = next((name for name, path in _CHANGE_LOGS.items() if tree.exists(path)), None)
    if logged and shown and shown < logged:
        raise TableError(
            f"{TABLE} is of release {shown}, but {_CHANGE_LOGS[logged]} belongs to {logged}. "
            "Fetch all files from one release."
        )
    return shown or logged or SPEC.versions[0].name


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """Item table of PTB-XL: a row a record, at the rate asked for; raises ``LayoutError`` and ``TableError``."""
    return _items(_records(tree, options).with_columns(is_kept=_is_kept(options))).lazy()


def statistics(tree: Store, options: Options) -> Mapping[str, int]:
    """Counts of records that a later release withdrew, and of those without an answer, by task."""
    records = _records(tree, options)
    kept = records.filter(_is_kept(options))
    return {
        "records_in_table": records.height,
        "withdrawn_repeats": int(records["is_withdrawn"].sum()),
        "withdrawn_repeats_left_out": records.height - kept.height,
        "without_diagnostic_statement": kept["superclass"].null_count(),
        "without_seven_class": kept["seven_class"].null_count(),
        "without_rhythm_statement": int((kept["rhythm_statements"] == 0).sum()),
        "with_several_rhythm_statements": int((kept["rhythm_statements"] > 1).sum()),
        "without_form_statement": kept["form"].null_count(),
        "without_axis": kept["heart_axis"].null_count(),
        "without_patient": kept["patient_id"].null_count(),
    }


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """Write a miniature release below ``folder``, the same bytes for the same seed and number of patients."""
    from qoq_data.sources._ptb_xl_tree import write_tree  # brings scipy, which nothing else here needs

    write_tree(folder, seed, patients)


def _is_kept(options: Options) -> pl.Expr:
    return ~pl.col("is_withdrawn") if options.withdrawn_repeats == "leave_out" else pl.lit(value=True)


def _records(tree: Store, options: Options) -> pl.DataFrame:
    """The table with its cells checked and its statements turned into answers."""
    filename = "filename_hr" if options.sampling_frequency_hz == 500 else "filename_lr"
    table = read_table(tree, TABLE, _COLUMNS).with_row_index("row", offset=2)
    table = table.with_columns(pl.col("heart_axis").str.strip_chars(), pl.col(filename).alias("filename"))
    patient, age = pl.col("patient_id"), pl.col("age")
    refused = {
        "ecg_id is blank or below 1": ~(pl.col("ecg_id") >= 1).fill_null(value=False),
        "the record of this ecg_id was already there": ~pl.col("ecg_id").is_first_distinct(),
        "patient_id is no whole number": ~(patient.is_finite() & (patient == patient.floor()) & (patient >= 0)),
        "strat_fold is blank or not 1 to 10": ~pl.col("strat_fold").is_between(1, 10).fill_null(value=False),
        "sex is neither 0 nor 1": ~pl.col("sex").is_between(0, 1),
        "age is no age in years": ~(age.is_finite() & (age >= 0)),
        "heart_axis is none of the known values": ~pl.col("heart_axis").is_in([choice.key for choice in AXES]),
        f"{filename} is blank": pl.col("filename").is_null(),
        "scp_codes is blank": pl.col("scp_codes").is_null(),
    }
    refuse_rows(table, TABLE, refused)
    statements = read_statements(tree, options.seven_class)
    answers = answers_of(table, statements, options.seven_class, options.minimum_likelihood)
    return table.join(answers, on="scp_codes", how="left").with_columns(
        is_withdrawn=pl.col("ecg_id").is_in(list(_WITHDRAWN))
    )


def _items(records: pl.DataFrame) -> pl.DataFrame:
    item = pl.col("ecg_id").cast(pl.String).str.zfill(5)
    patient = pl.col("patient_id").cast(pl.Int64).cast(pl.String)
    fold, age, sex = pl.col("strat_fold"), pl.col("age"), pl.col("sex")
    medium = pl.struct(
        pl.lit("ecg").alias("role"),
        pl.lit("wfdb").alias("kind"),
        (pl.col("filename") + ".hea").alias("path"),
        pl.lit("").alias("part"),
    )
    return records.select(
        item.alias("item"),
        patient.alias("patient"),
        patient.fill_null(pl.format("record:{}", item)).alias("group"),
        item.alias("study"),
        pl.when(fold == 10)
        .then(pl.lit("test"))
        .when(fold == 9)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
        .alias("official_split"),
        pl.concat_list(medium).alias("media"),
        pl.lit(TABLE).alias("label_file"),
        pl.format("ecg_id={}", "ecg_id").alias("label_row"),
        pl.col("superclass", "seven_class", "rhythm", "form").name.prefix("answer."),
        pl.when(pl.col("heart_axis").is_not_null()).then(pl.concat_list("heart_axis")).alias("answer.axis"),
        age_text(age).alias("context.age"),
        sex.replace_strict({0: "male", 1: "female"}, return_dtype=pl.String).alias("context.sex"),
        pl.col("device").str.strip_chars().str.replace_all(r"\s+", " ").alias("context.recording_device"),
        pl.when(~pl.col("is_kept")).then(pl.lit(str(Reason.WITHDRAWN))).alias("skip_reason"),
        pl.when(~pl.col("is_kept")).then(pl.lit("a repeat that a later release withdrew")).alias("skip_detail"),
    ).sort("item")
