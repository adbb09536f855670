"""MIMIC-IV-ECG 1.0: 800,035 twelve-lead recordings of 161,352 patients with their device's statements and intervals.

Every answer is the device's own interpretation, read by no cardiologist, so the questions ask what the device states
or measures. What it does not state is unknown, not absent, unless its verdict is normal. Known of the release, and
what is done:

* leads stand in the order I II III aVR aVF aVL V1-V6 (PTB-XL: aVR aVL aVF): leads are taken by name;
* the header's only comment holds the patient's number: it goes nowhere;
* 'not measured' is 29999, 32767, -32767, -32768, 65535 or 0, and stray values stand beside: ranges decide, not a list;
* statements come in three spellings, with continuation lines and blanks between: ``data/mimic_ecg_statements.csv``;
* hedged statements, statements outside the table, doubted recordings: no answer unless the recipe says otherwise;
* the list of recordings is ``record_list.csv`` on disk, ``record-list.csv`` in the documentation: both are read.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl

from qoq_data.clinical import statement_labels
from qoq_data.clinical.seven_class import SEVEN_CLASSES
from qoq_data.clinical.statement_labels import LABELS, Policy, record_labels, record_statements
from qoq_data.clinical.statements import StatementTable
from qoq_data.errors import TableError
from qoq_data.formats.tables import read_table
from qoq_data.licence import ODBL_1, Access
from qoq_data.record import AnswerType, Domain
from qoq_data.source import Choice, ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask, Task
from qoq_data.sources._mimic_ecg_tree import write_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qoq_data.formats.storage import Store


def _rows(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / "data" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


synthesize = write_tree
TABLE = StatementTable(_rows("mimic_ecg_statements.csv"))
RECORD_LISTS = ("record_list.csv", "record-list.csv")
MEASUREMENTS = "machine_measurements.csv"
DICTIONARY = "machine_measurements_data_dictionary.csv"
LINKS = "waveform_note_links.csv"
REPORTS = tuple(f"report_{place}" for place in range(18))
TEXTS = ("subject_id", "study_id", *REPORTS, "bandwidth", "filtering")
TIMES = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end")
_FEWEST_PATIENTS = 5
_CLASS_FEATURES = (
    *("rr_irregularity", "p_wave_amplitude", "pr_interval", "qrs_width", "r_amplitude_v5", "s_amplitude_v1"),
    *("st_level_ii", "st_level_v2", "q_depth_ii", "q_depth_v2", "t_amplitude_v5", "frontal_axis", "mean_qrs_amplitude"),
)


class Range(NamedTuple):
    """Plausible values of a measurement, ends included; anything else is unknown."""

    low: float
    high: float
    why: str


MARKER_MS = Range(1, 2000, "a mark on one averaged beat; 0 is 'not measured', and no beat is averaged over 2 s")
RANGES = {
    "heart_rate": Range(20, 300, "a slower or faster 10 s strip has no measurable rate: RR of 200 to 3000 ms"),
    "pr_interval": Range(60, 500, "below, atrium and ventricle are not tied; longer delays are not seen conducted"),
    "qrs_duration": Range(40, 300, "no ventricle is excited in less, and wider complexes are marks gone astray"),
    "qt_interval": Range(200, 800, "the span of published shortest and longest QT"),
    "qrs_axis": Range(-165, 165, "further out, an answer within the tolerance may carry the other sign"),
}


TOLERANCES = {"heart_rate": 5.0, "pr_interval": 20.0, "qrs_duration": 20.0, "qt_interval": 40.0, "qrs_axis": 15.0}


class Options(SourceOptions):
    """Recipe keys.

    ``hedged``: what a hedged finding does to its task where it is not also asserted: take the answer away, count as
    asserted, or be dropped. ``doubted``: whether recordings whose quality or leads the device doubts are asked.
    ``unknown``: whether records with a statement outside the table are asked by what their other statements say.
    """

    hedged: Literal["no_label", "assert", "ignore"] = "no_label"
    doubted: Literal["no_label", "ask"] = "no_label"
    unknown: Literal["no_label", "ignore"] = "no_label"


def _task(
    name: str, answer_type: AnswerType, choices: Iterable[tuple[str, str]] = (), tolerance: float | None = None
) -> Task:
    wordings = tuple(row["wording"] for row in _rows("mimic_ecg_wordings.csv") if row["task"] == name)
    return Task(name, answer_type, wordings, tuple(Choice(*choice) for choice in choices), tolerance)


SPEC = SourceSpec(
    name="mimic-ecg",
    title="MIMIC-IV-ECG: diagnostic electrocardiogram matched subset",
    domain=Domain.ECG,
    modality="12-lead ECG",
    homepage="https://physionet.org/content/mimic-iv-ecg/1.0/",
    citation=(
        "Gow B, Pollard T, Nathanson LA, et al. MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset "
        "(version 1.0). PhysioNet, 2023. https://doi.org/10.13026/4nqg-sb35"
    ),
    licences={"media": ODBL_1, "labels": ODBL_1},
    access=Access.OPEN,
    access_steps=(
        "Read the licence (ODbL 1.0) on https://physionet.org/content/mimic-iv-ecg/1.0/; no account is needed.",
        "Download the zip file there, or mirror https://physionet.org/files/mimic-iv-ecg/1.0/ with wget -r -N -c -np.",
        "Point --raw at the folder that holds record_list.csv, machine_measurements.csv and files/.",
    ),
    identity_group="mimic",
    grouping="By subject_id, which all parts of MIMIC share; most patients have several recordings. All answers are "
    "the device's statements and measurements, without an over-read.",
    versions=(SourceVersion("1.0", 800_035, 161_352),),
    expected_files=(
        ExpectedFile(RECORD_LISTS[0], columns=("subject_id", "study_id", "path"), other_names=RECORD_LISTS[1:]),
        ExpectedFile(MEASUREMENTS, columns=(*TEXTS, *TIMES, "qrs_axis")),
        ExpectedFile("files/"),
        ExpectedFile(LINKS, required=False, columns=("subject_id", "waveform_path")),
        *(ExpectedFile(path, required=False) for path in (DICTIONARY, "LICENSE.txt", "SHA256SUMS.txt")),
    ),
    tasks=(
        _task("rhythm", AnswerType.ONE, TABLE.choices("rhythm")),
        _task(
            "conduction",
            AnswerType.SEVERAL,
            (*TABLE.choices("conduction"), (statement_labels.NO_CONDUCTION_FINDING, "No conduction abnormality")),
        ),
        _task("seven_class", AnswerType.SEVERAL, SEVEN_CLASSES.items()),
        *(_task(name, AnswerType.NUMBER, tolerance=tolerance) for name, tolerance in TOLERANCES.items()),
    ),
    context_fields=("bandwidth", "filtering"),
    checksums_file="SHA256SUMS.txt",
    synthetic=(
        SyntheticTask("rhythm", ("heart_rate", "rr_irregularity", "p_wave_amplitude", "qrs_width")),
        SyntheticTask("seven_class", _CLASS_FEATURES),
    ),
)


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """A row a recording, in the order of the list; no waveform is looked for. Raises ``SourceError``."""
    records = _records(tree)
    measured = _measurements(tree)
    _check_links(tree, records)
    labels = _labels(record_statements(measured.select(REPORTS), TABLE), measured.height, options)
    answers = measured.select(
        "subject_id",
        "study_id",
        pl.col("bandwidth").replace("<not specified>", None).alias("context.bandwidth"),
        pl.col("filtering").replace("<not specified>", None).alias("context.filtering"),
        *(labels[name].alias(f"answer.{name}") for name in LABELS),
        *(pl.when(labels["measured"]).then(value).alias(f"answer.{name}") for name, value in _intervals().items()),
    )
    joined = records.join(answers, on="study_id", how="left", suffix="_measured", maintain_order="left")
    _refuse(
        joined,
        pl.col("subject_id") != pl.col("subject_id_measured"),
        RECORD_LISTS[0],
        f"{MEASUREMENTS} has another patient",
    )
    return joined.lazy().select(
        pl.col("study_id").alias("item"),
        pl.col("subject_id").alias("patient"),
        pl.col("subject_id").alias("group"),
        pl.col("study_id").alias("study"),
        pl.lit(None, pl.String).alias("official_split"),
        pl.concat_list(
            pl.struct(
                pl.lit("ecg").alias("role"),
                pl.lit("wfdb").alias("kind"),
                (pl.col("path") + ".hea").alias("path"),
                pl.lit(None, pl.String).alias("part"),
            )
        ).alias("media"),
        pl.lit(MEASUREMENTS).alias("label_file"),
        ("study_id=" + pl.col("study_id")).alias("label_row"),
        pl.col("^answer\\..*$", "^context\\..*$"),
    )


def statistics(tree: Store, options: Options) -> Mapping[str, int]:
    """Counts of what the answers leave out under these options.

    Statements outside the table stand with their number of records when five or more patients have them (the text of
    a rarer one might be someone's own), the others as one count.
    """
    records = _records(tree)
    measured = _measurements(tree)
    of_records = pl.col("study_id").is_in(records["study_id"].implode())
    counts = {
        "recordings without measurements": records.join(measured, on="study_id", how="anti").height,
        "measurements without a recording": measured.filter(~of_records).height,
    }
    statements = record_statements(measured.select(REPORTS), TABLE)
    distinct = statements["statement"].unique()
    unknown = distinct.filter(pl.Series([not TABLE.classify(text).known for text in distinct], dtype=pl.Boolean))
    patients = measured.select("subject_id").with_row_index("row")
    seen = (
        statements.filter(pl.col("statement").is_in(unknown.implode()))
        .join(patients, on="row")
        .group_by("statement")
        .agg(records=pl.len(), patients=pl.col("subject_id").n_unique())
        .sort(["records", "statement"], descending=[True, False])
    )
    often = pl.col("patients") >= _FEWEST_PATIENTS
    counts["statements"] = statements.height
    counts["unknown statements, all"] = int(seen["records"].sum())
    counts[f"unknown statements of fewer than {_FEWEST_PATIENTS} patients"] = int(seen.filter(~often)["records"].sum())
    counts |= {f"unknown statement: {text}": number for text, number, _ in seen.filter(often).iter_rows()}
    labels = _labels(statements, measured.height, options)
    counts |= {f"recordings without an answer to {name}": labels[name].null_count() for name in LABELS}
    outside = measured.select(value.is_null().sum().alias(name) for name, value in _intervals().items())
    return counts | {f"{name} outside its range": int(outside[name][0]) for name in RANGES}


def _labels(statements: pl.DataFrame, records: int, options: Options) -> pl.DataFrame:
    policy = Policy(options.hedged, options.doubted == "ask", options.unknown == "ignore")
    return record_labels(statements, records, TABLE, policy)


def _intervals() -> dict[str, pl.Expr]:
    """Each number task's value from the measurements' columns, null where a mark or the value leaves its range."""
    mark = {
        name: pl.when(pl.col(name).is_between(MARKER_MS.low, MARKER_MS.high)).then(name)
        for name in ("p_onset", "p_end", "qrs_onset", "qrs_end", "t_end")
    }
    p_ends_first = (mark["p_onset"] < mark["p_end"]) & (mark["p_end"] <= mark["qrs_onset"])
    values = {
        "heart_rate": 60_000 / pl.when(pl.col("rr_interval") > 0).then("rr_interval"),
        "pr_interval": pl.when(p_ends_first).then(mark["qrs_onset"] - mark["p_onset"]),
        "qrs_duration": mark["qrs_end"] - mark["qrs_onset"],
        "qt_interval": pl.when(mark["qrs_end"] < mark["t_end"]).then(mark["t_end"] - mark["qrs_onset"]),
        "qrs_axis": pl.col("qrs_axis"),
    }
    return {
        name: pl.when(value.is_between(RANGES[name].low, RANGES[name].high)).then(value).cast(pl.Float64)
        for name, value in values.items()
    }


def _records(tree: Store) -> pl.DataFrame:
    name = next((name for name in RECORD_LISTS if tree.exists(name)), RECORD_LISTS[0])
    records = read_table(tree, name, dict.fromkeys(("subject_id", "study_id", "path"), pl.String))
    _refuse(records, pl.any_horizontal(pl.all().is_null()), name, "subject_id, study_id or path is blank")
    _refuse(records, pl.col("study_id").is_duplicated(), name, "the study_id stands twice")
    return records


def _measurements(tree: Store) -> pl.DataFrame:
    types: dict[str, pl.DataType | type[pl.DataType]] = dict.fromkeys(TEXTS, pl.String)
    types |= dict.fromkeys((*TIMES, "qrs_axis"), pl.Int64)
    measured = read_table(tree, MEASUREMENTS, types)
    _refuse(measured, pl.any_horizontal(pl.col("subject_id", "study_id").is_null()), MEASUREMENTS, "an id is blank")
    _refuse(measured, pl.col("study_id").is_duplicated(), MEASUREMENTS, "the study_id stands twice")
    return measured


def _check_links(tree: Store, records: pl.DataFrame) -> None:
    """Where the table of links to cardiologists' notes is there, it names the same patient for a waveform."""
    if tree.exists(LINKS):
        links = read_table(tree, LINKS, dict.fromkeys(("subject_id", "waveform_path"), pl.String))
        both = links.join(records, left_on="waveform_path", right_on="path", how="left", maintain_order="left")
        _refuse(
            both, pl.col("subject_id") != pl.col("subject_id_right"), LINKS, "it names another patient than the list"
        )


def _refuse(rows: pl.DataFrame, condition: pl.Expr, path: str, what: str) -> None:
    bad = rows.select(condition.fill_null(value=False).alias("bad"))["bad"]
    if bad.any():
        line = int(bad.arg_max() or 0) + 2
        raise TableError(f"{path}, line {line}: {what}. Is it the table of another release?")
