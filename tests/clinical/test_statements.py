"""Machine statements: how they are read, and what a record's statements answer."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import polars as pl
import pytest

from qoq_data.clinical.seven_class import SEVEN_CLASSES
from qoq_data.clinical.statement_labels import (
    LABELS,
    HedgePolicy,
    LabelAnswers,
    Policy,
    label_answers,
    record_labels,
    record_statements,
)
from qoq_data.clinical.statements import Assertion, StatementTable, normalise
from qoq_data.sources.mimic_ecg import TABLE

SIGNS = {Assertion.ASSERTED: "+", Assertion.HEDGED: "?", Assertion.NEGATED: "!", Assertion.VARIANT: "~"}


def reading(line: str) -> str:
    read = TABLE.classify(normalise(line))
    return " ".join(key + SIGNS[how] for key, how in read.findings) if read.known else "unknown"


def listed() -> list[tuple[str, str]]:
    """Every statement of the public listings, with its reading as checked by eye."""
    with (Path(__file__).parent / "mimic_ecg_statements.tsv").open(encoding="utf-8") as file:
        return [
            (row["statement"], row["reading"]) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def statements_of(lines: list[str | None]) -> list[str]:
    """The slow, plain way to join a record's lines, beside which the fast one is tested."""
    joined: list[str] = []
    for text in (normalise(line) for line in lines if line):
        if joined and TABLE.continues(text):
            joined[-1] += f" {text}"
        elif text:
            joined.append(text)
    return joined


def answers(*lines: str | None, policy: Policy | None = None) -> LabelAnswers:
    marks = frozenset[str]().union(*(TABLE.marks(text) for text in statements_of(list(lines))))
    return label_answers(marks, TABLE, policy or Policy())


def test_every_listed_statement_reads_as_checked() -> None:
    rows = listed()
    assert len(rows) > 250
    assert [(line, reading(line)) for line, _ in rows] == rows


def test_three_spellings_of_a_statement_are_one() -> None:
    assert {normalise(line) for line in ("Sinus rhythm", "Sinus  rhythm.", "SINUS RHYTHM ")} == {"sinus rhythm"}
    assert normalise("*** CONSIDER ACUTE ST ELEVATION MI ***") == "consider acute st elevation mi"
    assert normalise("--- Pediatric criteria used ---") == "pediatric criteria used"
    assert normalise("- first degree A-V block") == "- first degree a-v block"


@pytest.mark.parametrize(
    "hedge",
    [
        "Possible {}",
        "Probable {}",
        "Prob {}",
        "Consider {}",
        "Cannot rule out {}",
        "Suggests {}",
        "Borderline {}",
        "May be due to {}",
        "{} cannot be excluded",
        "{}?",
        "Evidence of {}",
        "Consistent with {}",
        "Suspect {}",
        "ST elevation - consider acute {}",
        "ST elevation or {}",
        "{} and/or ischemia",
        "Check {}",
    ],
)
def test_each_hedge_takes_the_certainty(hedge: str) -> None:
    assert "myocardial_infarction?" in reading(hedge.format("inferior infarct")).split()


@pytest.mark.parametrize(
    "line",
    [
        "*** INFERIOR INFARCT - POSSIBLY ACUTE ***",
        "Inferior infarct, possibly acute",
        "Inferior infarct - probably acute",
        "Inferior infarct - age undetermined",
        "Old inferior infarct",
        "Anteroseptal infarct, age indeterm",
    ],
)
def test_doubt_about_the_age_is_no_doubt_about_the_infarct(line: str) -> None:
    assert reading(line) == "myocardial_infarction+"


def test_a_hedge_ends_with_its_clause() -> None:
    assert reading("Probable sinus tachycardia with PVC(s)") == "sinus_tachycardia? ventricular_premature_complexes+"
    assert reading("Possible LVH - left axis deviation") == "left_ventricular_hypertrophy? left_axis_deviation+"


@pytest.mark.parametrize("negation", ["No {}", "No evidence of {}", "No longer present {}"])
def test_negation(negation: str) -> None:
    assert reading(negation.format("left bundle branch block")) == "left_bundle_branch_block!"
    assert answers("Sinus rhythm", negation.format("LBBB"), "Normal ECG").seven_class == ["normal"]


def test_a_normal_variant_is_no_finding() -> None:
    given = answers("Sinus rhythm", "Borderline high QRS voltage - probable normal variant", "Within normal limits")
    assert given.seven_class == ["normal"]
    assert answers("Sinus rhythm", "Left axis deviation - may be normal for age", "Abnormal ECG").seven_class is None


@pytest.mark.parametrize("line", ["Sinus rhythm with gremlins", "Inferior zinfarct", "wave", "lateral leads", "?"])
def test_a_statement_with_a_word_outside_the_table_is_unknown_as_a_whole(line: str) -> None:
    assert reading(line) == "unknown"


def test_an_unknown_statement_takes_the_answers_unless_told_otherwise() -> None:
    lines = ("Sinus rhythm", "Something new", "Right bundle branch block")
    assert answers(*lines) == LabelAnswers(measured=True)
    told = answers(*lines, policy=Policy(ignore_unknown=True))
    assert (told.rhythm, told.conduction) == (["sinus_rhythm"], ["right_bundle_branch_block"])


def test_continuation_lines_belong_to_the_line_before_across_blanks() -> None:
    lines = ["Sinus rhythm", None, "- first degree A-V block", "with PVC(s)", "Abnormal ECG"]
    assert statements_of(list(lines)) == ["sinus rhythm - first degree a-v block with pvc(s)", "abnormal ecg"]
    assert answers(*lines).conduction == ["first_degree_av_block"]
    assert answers("Lateral ST-T changes are nonspecific", "These minor changes are of equivocal significance") == (
        LabelAnswers(measured=True)
    )


def test_normal_needs_the_verdict_and_no_other_class() -> None:
    assert answers("Sinus rhythm", "Normal ECG").seven_class == ["normal"]
    assert answers("Sinus rhythm").seven_class is None
    assert answers("Sinus rhythm", "Inferior infarct, old", "Normal ECG").seven_class == ["mi"]
    assert answers("Sinus bradycardia", "Normal ECG except for rate").seven_class is None
    assert answers("Sinus rhythm", "Normal ECG", "Summary: ABNORMAL ECG").seven_class is None
    assert answers("Sinus rhythm", "Possible inferior infarct", "Normal ECG").seven_class is None


def test_no_conduction_abnormality_is_said_only_where_the_verdict_denies_all() -> None:
    assert answers("Sinus rhythm", "Normal ECG").conduction == ["none"]
    assert answers("Sinus rhythm", "Abnormal ECG").conduction is None
    assert answers("Sinus rhythm", "Incomplete RBBB", "Normal ECG").conduction == [
        "incomplete_right_bundle_branch_block"
    ]


@pytest.mark.parametrize(("policy", "classes"), [("no_label", None), ("assert", ["mi", "hyp"]), ("ignore", ["hyp"])])
def test_hedged_policies(policy: HedgePolicy, classes: list[str] | None) -> None:
    given = answers("Possible septal infarct", "LVH", "Abnormal ECG", policy=Policy(hedged=policy))
    assert given.seven_class == classes


def test_a_hedge_on_what_is_also_asserted_changes_nothing() -> None:
    given = answers("Anterior infarct, old", "Possible septal infarct - age undetermined")
    assert given.seven_class == ["mi"]


def test_a_rhythm_is_answered_only_where_one_alone_is_asserted() -> None:
    assert answers("Atrial fibrillation with rapid ventricular response").rhythm == ["atrial_fibrillation"]
    assert answers("Sinus rhythm", "Junctional rhythm").rhythm is None
    assert answers("Probable atrial fibrillation").rhythm is None
    assert answers("Sinus or ectopic atrial rhythm").rhythm is None
    either = answers("Atrial flutter/fibrillation")
    assert (either.rhythm, either.seven_class) == (None, ["afib"])
    assert answers("Sinus rhythm with 2:1 A-V block").conduction == ["second_degree_av_block"]
    assert answers("Atrial flutter with 2:1 A-V block").conduction is None


@pytest.mark.parametrize(
    "line",
    [
        "--- Recording unsuitable for analysis - please repeat ---",
        "Suspect arm lead reversal - only aVF, V1-V6 analyzed",
        "Pediatric criteria used",
        "Suggests dextrocardia",
        "If rhythm correct, report below may be invalid",
        "Summary: Technical error",
        "Summary: None available",
    ],
)
def test_unreadable_recordings_have_no_answer_at_all(line: str) -> None:
    assert answers("Sinus rhythm", "LBBB", line, "Abnormal ECG", policy=Policy(ask_doubted=True)) == LabelAnswers()


@pytest.mark.parametrize("line", ["Warning: Data quality may affect interpretation", "Missing lead(s): V1"])
def test_doubted_recordings_are_asked_only_on_request(line: str) -> None:
    assert answers("Sinus rhythm", line) == LabelAnswers()
    assert answers("Sinus rhythm", line, policy=Policy(ask_doubted=True)).rhythm == ["sinus_rhythm"]


def test_a_paced_recording_is_asked_for_its_rhythm_and_no_more() -> None:
    given = answers("Ventricular pacing", "No further analysis attempted due to paced rhythm")
    assert given == LabelAnswers(rhythm=["paced_rhythm"])
    assert answers("Sinus rhythm", "LBBB", "Interpretation is based on unpaced beats").conduction is None
    assert answers("Afib/flut and V-paced complexes") == LabelAnswers()


def test_many_records_at_once_agree_with_one_by_one() -> None:
    lines = [line for line, _ in listed()] + ["Sinus rhythm with gremlins", "of another engine"]
    rng = random.Random(3)
    records = [[rng.choice([None, rng.choice(lines)]) for _ in range(6)] for _ in range(400)]
    records.append([None] * 6)
    reports = pl.DataFrame(records, schema=[f"report_{place}" for place in range(6)], orient="row")
    statements = record_statements(reports.cast(pl.String), TABLE)
    for row, record in enumerate(records):
        assert statements.filter(pl.col("row") == row)["statement"].to_list() == statements_of(record)
    for policy in (Policy(), Policy("assert", ask_doubted=True, ignore_unknown=True), Policy("ignore")):
        labels = record_labels(statements, len(records), TABLE, policy)
        expected = [answers(*record, policy=policy) for record in records]
        for name in (*LABELS, "measured"):
            assert labels[name].to_list() == [getattr(one, name) for one in expected]


def test_every_class_of_the_table_is_one_of_the_seven_and_argued() -> None:
    assert {one.class7 for one in TABLE.findings.values()} <= {*SEVEN_CLASSES, ""}
    assert all(one.why for one in TABLE.findings.values())
    assert not any(one.class7 == "normal" for one in TABLE.findings.values())


def test_a_table_that_contradicts_itself_is_refused() -> None:
    phrase = {"kind": "phrase", "pattern": "lbbb", "finding": "lbbb", "assertion": "asserted", "task": "", "class7": ""}
    finding = phrase | {"kind": "finding", "note": "why"}
    with pytest.raises(ValueError, match="not defined"):
        StatementTable([phrase])
    with pytest.raises(ValueError, match="twice"):
        StatementTable([finding, phrase, phrase])
