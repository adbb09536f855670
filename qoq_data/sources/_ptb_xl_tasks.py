"""What is asked of PTB-XL, and how the SCP-ECG statements of a record answer it.

The publisher's flags come from the tree's own ``scp_statements.csv``; ours (texts, seven classes) from ``data/``.
"""

from __future__ import annotations

import ast
import csv
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from qoq_data.clinical.seven_class import SEVEN_CLASSES
from qoq_data.errors import TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.record import AnswerType
from qoq_data.source import Choice, Task

TABLE = "ptbxl_database.csv"
STATEMENTS = "scp_statements.csv"
CODES_LIMIT = 4096
"""Longest text of one record's ``scp_codes``; those of the first 500 rows have up to 112 characters."""

SevenClass = Literal["corrected", "published"]


def data_rows(name: str) -> list[dict[str, str]]:
    """Rows of one of this source's data files, every cell text."""
    with (Path(__file__).parent / "data" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


CODES = {row["code"]: row for row in data_rows("ptb_xl_statements.csv")}
"""Each of the 71 codes with the publisher's columns, our text, and its class of seven: ours, published, and why."""

SUPERCLASSES = tuple(
    Choice(code, SEVEN_CLASSES[key])
    for code, key in (("NORM", "normal"), ("MI", "mi"), ("STTC", "sttc"), ("CD", "cd"), ("HYP", "hyp"))
)
FORMS = tuple(Choice(code, row["text"]) for code, row in CODES.items() if row["form"])
RHYTHMS = tuple(Choice(code, row["text"]) for code, row in CODES.items() if row["rhythm"])
AXES = tuple(Choice(row["code"], row["text"]) for row in data_rows("ptb_xl_axes.csv"))


def _measurement(name: str, fact: str, tolerance: float, *wordings: str) -> Task:
    return Task(name, AnswerType.NUMBER, wordings, tolerance=tolerance, fact=fact, default=False)


TASKS = (
    Task(
        "superclass",
        AnswerType.SEVERAL,
        (
            "Which diagnostic groups does this 12-lead ECG belong to?",
            "Give every diagnostic category that this tracing supports.",
            "How would you classify this resting ECG? Name all groups that apply.",
            "Read the recording and state its diagnostic superclasses.",
            "Under which broad diagnoses should this electrocardiogram be filed?",
        ),
        SUPERCLASSES,
    ),
    Task(
        "seven_class",
        AnswerType.SEVERAL,
        (
            "What kinds of abnormality, if any, does this ECG show?",
            "Sort this tracing into every class of finding that it fits.",
            "Taking rhythm, conduction and waveform together, which classes describe this ECG?",
            "Which classes of finding would you report for this electrocardiogram?",
        ),
        tuple(Choice(key, text) for key, text in SEVEN_CLASSES.items()),
    ),
    Task(
        "rhythm",
        AnswerType.ONE,
        (
            "What is the rhythm?",
            "Which rhythm does this ECG show?",
            "Name the heart rhythm over these ten seconds.",
            "Judging by P waves and RR intervals, what rhythm is this?",
        ),
        RHYTHMS,
    ),
    Task(
        "form",
        AnswerType.SEVERAL,
        (
            "Which peculiarities of the waveform are worth noting here?",
            "Describe the morphology: which findings of P, QRS, ST or T are present?",
            "Which form statements would you add to the report of this ECG?",
            "Looking at the shape of the complexes, what stands out?",
        ),
        FORMS,
    ),
    Task(
        "axis",
        AnswerType.ONE,
        (
            "What is the electrical axis in the frontal plane?",
            "How does the QRS axis lie?",
            "Determine the axis of the heart from the limb leads.",
            "Which axis type does this ECG have?",
        ),
        AXES,
    ),
    _measurement(
        "heart_rate",
        "ecg_intervals.heart_rate_bpm",
        5.0,
        "What is the ventricular rate in beats per minute?",
        "Estimate the heart rate in beats per minute.",
        "How many beats per minute does this ECG show?",
        "Work out the mean rate over the recording, in beats per minute.",
    ),
    _measurement(
        "rr_interval",
        "ecg_intervals.rr_ms",
        50.0,
        "What is the typical RR interval in milliseconds?",
        "How many milliseconds lie between one R peak and the next?",
        "Measure the RR interval in milliseconds.",
        "Give the cycle length of the ventricles in milliseconds.",
    ),
    _measurement(
        "qrs_duration",
        "ecg_intervals.qrs_ms",
        20.0,
        "How wide is the QRS complex in milliseconds?",
        "Measure the QRS duration in milliseconds.",
        "How many milliseconds does ventricular depolarisation take?",
        "Give the width of the QRS complex in milliseconds.",
    ),
    _measurement(
        "qt_interval",
        "ecg_intervals.qt_ms",
        40.0,
        "How long is the QT interval in milliseconds, without correction for rate?",
        "Measure the uncorrected QT interval in milliseconds.",
        "How many milliseconds pass from the onset of QRS to the end of T?",
        "Give the QT interval as measured, in milliseconds.",
    ),
)


@dataclass(frozen=True, slots=True)
class Statement:
    """What one code stands for: its superclass and its class of seven, each empty where it has none."""

    superclass: str
    seven_class: str


def read_statements(tree: Store, seven_class: SevenClass) -> dict[str, Statement]:
    """Every code of the tree's own statement table, with our class of it; one that we do not know is an error."""
    flags = {"diagnostic": pl.Float64, "form": pl.Float64, "rhythm": pl.Float64}
    table = read_table(tree, STATEMENTS, {"": pl.String, **flags, "diagnostic_class": pl.String})
    superclasses = {choice.key for choice in SUPERCLASSES}
    column = "seven_class" if seven_class == "corrected" else "seven_class_published"
    statements = {}
    for row, (code, diagnostic, form, rhythm, diagnostic_class) in enumerate(table.iter_rows(), start=2):
        superclass = diagnostic_class if diagnostic == 1 else ""
        ours = CODES.get(code)
        if ours is None or superclass not in {*superclasses, ""} or code in statements:
            raise TableError(f"{STATEMENTS}, row {row}: not one of the 71 statements of releases 1.0.1 to 1.0.3.")
        if (form == 1) != bool(ours["form"]) or (rhythm == 1) != bool(ours["rhythm"]):
            raise TableError(f"{STATEMENTS}, row {row}: form and rhythm are not marked as in releases 1.0.1 to 1.0.3.")
        statements[code] = Statement(superclass, ours[column])
    return statements


def answers_of(
    table: pl.DataFrame, statements: Mapping[str, Statement], seven_class: SevenClass, minimum_likelihood: float
) -> pl.DataFrame:
    """Answers of each distinct ``scp_codes``: the same few thousand texts stand in all 21,799 rows."""
    superclasses = [choice.key for choice in SUPERCLASSES]
    answers = []
    for row, text in table.unique("scp_codes", keep="first").sort("row").select("row", "scp_codes").iter_rows():
        graded = parse_codes(text, row)
        if not graded.keys() <= statements.keys():
            raise TableError(f"{TABLE}, row {row}: scp_codes has a code that is not in {STATEMENTS}.")
        codes = [code for code, grade in graded.items() if grade == 0 or grade >= minimum_likelihood]
        classes = {statements[code].superclass for code in codes}
        seven = {statements[code].seven_class for code in codes} - {""}
        if seven_class == "corrected" and seven != {"normal"}:
            seven.discard("normal")
        rhythms = [choice.key for choice in RHYTHMS if choice.key in codes]
        answers.append(
            {
                "scp_codes": text,
                "superclass": [key for key in superclasses if key in classes] or None,
                "seven_class": [key for key in SEVEN_CLASSES if key in seven] or None,
                "rhythm": rhythms if len(rhythms) == 1 else None,
                "rhythm_statements": len(rhythms),
                "form": [choice.key for choice in FORMS if choice.key in codes] or None,
            }
        )
    keys = pl.List(pl.String)
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "scp_codes": pl.String,
        "superclass": keys,
        "seven_class": keys,
        "rhythm": keys,
        "rhythm_statements": pl.Int64,
        "form": keys,
    }
    return pl.DataFrame(answers, schema=schema)


def parse_codes(text: str, row: int) -> dict[str, float]:
    """Likelihood in percent of each code; the cell is a Python dict as text, read as a literal and never run."""
    if len(text) > CODES_LIMIT:
        raise TableError(f"{TABLE}, row {row}: scp_codes has more than {CODES_LIMIT} characters.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's remarks on odd literals quote the cell
            graded = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        graded = None
    if not isinstance(graded, dict) or not all(
        isinstance(code, str) and type(grade) in (int, float) and 0 <= grade <= 100 for code, grade in graded.items()
    ):
        raise TableError(f"{TABLE}, row {row}: scp_codes is not a list of codes, each with a likelihood from 0 to 100.")
    return graded
