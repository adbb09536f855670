"""What the statements of a record answer: rhythm, conduction, seven classes, and whether its intervals may be asked.

A finding that is not stated is unknown and not absent: only a verdict of normal denies. Statements of many records
are read once each, whatever the number of records that hold them; the rest is joins and bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from qoq_data.clinical.seven_class import SEVEN_CLASSES
from qoq_data.clinical.statements import normalise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoq_data.clinical.statements import StatementTable

HedgePolicy = Literal["no_label", "assert", "ignore"]

NORMAL = "normal"
NO_CONDUCTION_FINDING = "none"
UNREADABLE = frozenset({"unsuitable", "lead_reversal", "pediatric", "dextrocardia", "rhythm_doubted"})
"""Flags after which nothing of a record is asked: the device had no tracing, the wrong leads or another rule book."""

RHYTHM_ONLY = frozenset({"paced", "no_further_analysis"})
"""Flags after which only the rhythm is asked: the device looked no further, so that silence says nothing."""

DOUBTED = frozenset({"quality_warning", "leads_missing"})
"""Flags by which the device doubts its own reading; a policy decides."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How doubt is dealt with.

    ``hedged``: a hedged label that is not also asserted takes the answer away (``no_label``), counts as asserted, or
    counts for nothing. ``ask_doubted`` asks records whose quality the device doubts. ``ignore_unknown`` asks records in
    which a statement is unknown, although it might state another label.
    """

    hedged: HedgePolicy = "no_label"
    ask_doubted: bool = False
    ignore_unknown: bool = False


@dataclass(frozen=True, slots=True)
class LabelAnswers:
    """Answers of one record, None where it has none; ``measured`` says whether its intervals may be asked."""

    rhythm: list[str] | None = None
    conduction: list[str] | None = None
    seven_class: list[str] | None = None
    measured: bool = False


def label_answers(marks: frozenset[str], table: StatementTable, policy: Policy) -> LabelAnswers:
    """Decide what a record's marks answer. Normal needs the verdict, and no asserted label of another class."""
    flags = {mark.removeprefix("flag.") for mark in marks if mark.startswith("flag.")}
    if flags & UNREADABLE or (flags & DOUBTED and not policy.ask_doubted):
        return LabelAnswers()
    complete = not flags & RHYTHM_ONLY
    if "unknown" in flags and not policy.ignore_unknown:
        return LabelAnswers(measured=complete)

    rhythm = _labels(marks, "rhythm", policy.hedged)
    choices = [key for key, _ in table.choices("rhythm")]
    base = sorted(rhythm) if rhythm is not None and len(rhythm) == 1 and rhythm <= set(choices) else None
    if not complete:
        return LabelAnswers(rhythm=base)

    is_normal = _labels(marks, "verdict", "ignore") == {"normal_ecg"}
    conduction = _labels(marks, "conduction", policy.hedged)
    classes = _labels(marks, "class", policy.hedged)
    return LabelAnswers(
        rhythm=base,
        conduction=_in_order(
            conduction, [key for key, _ in table.choices("conduction")], NO_CONDUCTION_FINDING, is_normal
        ),
        seven_class=_in_order(classes, tuple(SEVEN_CLASSES), NORMAL, is_normal),
        measured=True,
    )


def _labels(marks: frozenset[str], task: str, hedged: HedgePolicy) -> set[str] | None:
    asserted = {mark.split(".")[2] for mark in marks if mark.startswith(f"{task}.asserted.")}
    doubtful = {mark.split(".")[2] for mark in marks if mark.startswith(f"{task}.hedged.")} - asserted
    if hedged == "assert":
        return asserted | doubtful
    return None if doubtful and hedged == "no_label" else asserted


def _in_order(labels: set[str] | None, order: Sequence[str], when_none: str, is_normal: bool) -> list[str] | None:
    if labels is None:
        return None
    if labels:
        return [label for label in order if label in labels]
    return [when_none] if is_normal else None


LABELS = ("rhythm", "conduction", "seven_class")
_WORD_BITS = 64


def record_statements(reports: pl.DataFrame, table: StatementTable) -> pl.DataFrame:
    """The statements of all records: columns ``row`` (u32, of ``reports``) and ``statement``, normalised, in order.

    ``reports`` has the report lines of a record in its text columns, first to last; blanks may stand anywhere between.
    A line that continues the one before is joined to it.
    """
    rows = pl.int_range(reports.height, dtype=pl.UInt32, eager=True)
    stacked = pl.concat(
        pl.DataFrame({"row": rows, "line": reports[name]}).drop_nulls().with_columns(place=pl.lit(place, pl.UInt8))
        for place, name in enumerate(reports.columns)
    )
    raw = stacked["line"].unique()
    texts = [normalise(line) for line in raw]
    known = {text: table.continues(text) for text in set(texts)}
    read = pl.DataFrame(
        {"line": raw, "statement": texts, "continues": [known[text] for text in texts]},
        schema_overrides={"statement": pl.String, "continues": pl.Boolean},
    )
    lines = (
        stacked.join(read, on="line")
        .filter(pl.col("statement") != "")
        .sort("row", "place")
        .select(
            "row",
            "statement",
            continues=pl.col("continues") & (pl.col("row") == pl.col("row").shift()).fill_null(value=False),
        )
    )
    lines = lines.with_columns(
        begins=(~pl.col("continues")).cum_sum(),
        joined=pl.col("continues") | pl.col("continues").shift(-1).fill_null(value=False),
    )
    alone = lines.filter(~pl.col("joined")).select("begins", "row", "statement")
    joined = (
        lines.filter("joined")
        .group_by("begins", maintain_order=True)
        .agg(pl.col("row").first(), pl.col("statement").str.join(" "))
    )
    return pl.concat([alone, joined]).sort("begins").drop("begins")


def record_labels(statements: pl.DataFrame, records: int, table: StatementTable, policy: Policy) -> pl.DataFrame:
    """Answers of ``records`` records in their order: a list or null for each of ``LABELS``, and ``measured``."""
    bits = {mark: bit for bit, mark in enumerate(table.all_marks())}
    words = [f"word{index}" for index in range(-(-len(bits) // _WORD_BITS))]
    distinct = statements["statement"].unique()
    sums = [sum(1 << bits[mark] for mark in table.marks(text)) for text in distinct]
    masks = pl.DataFrame({"statement": distinct} | _split(sums, words))
    summed = statements.join(masks, on="statement").group_by("row").agg(pl.col(word).bitwise_or() for word in words)
    summed = (
        pl.DataFrame({"row": pl.int_range(records, dtype=pl.UInt32, eager=True)})
        .join(summed, on="row", how="left", maintain_order="left")
        .with_columns(pl.col(words).fill_null(0))
    )
    kinds = summed.select(words).unique()
    answers = []
    for kind in kinds.iter_rows():
        mask = sum(word << (_WORD_BITS * index) for index, word in enumerate(kind))
        answers.append(label_answers(frozenset(mark for mark, bit in bits.items() if mask >> bit & 1), table, policy))
    decided = kinds.with_columns(
        *(pl.Series(name, [getattr(one, name) for one in answers], pl.List(pl.String)) for name in LABELS),
        pl.Series("measured", [one.measured for one in answers], pl.Boolean),
    )
    return summed.join(decided, on=words, how="left", maintain_order="left").select(*LABELS, "measured")


def _split(masks: list[int], words: list[str]) -> dict[str, pl.Series]:
    low = (1 << _WORD_BITS) - 1
    return {
        word: pl.Series(word, [mask >> (_WORD_BITS * index) & low for mask in masks], pl.UInt64)
        for index, word in enumerate(words)
    }
