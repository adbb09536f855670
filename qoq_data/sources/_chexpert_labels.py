"""The 14 findings that CheXpert and MIMIC-CXR share, and their answers.

A cell says one of four things: 1.0 the finding is stated, 0.0 it is denied, -1.0 it is hedged, blank it is not spoken
of. None of them is turned into another. The publishers' rule for ``No Finding`` is that it is stated only where no
other finding than ``Support Devices`` is stated or hedged; a row that breaks it has no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import polars as pl
from pydantic import Field

from qoq_data.errors import Reason
from qoq_data.record import AnswerType
from qoq_data.source import Choice, MediaKind, SourceOptions, Task

NO_FINDING, DEVICES = "No Finding", "Support Devices"
SPOKEN: Mapping[str, str] = {
    NO_FINDING: "no finding",
    "Enlarged Cardiomediastinum": "a widened heart and mediastinum",
    "Cardiomegaly": "an enlarged heart",
    "Lung Opacity": "an opacity of the lung",
    "Lung Lesion": "a focal lesion of the lung",
    "Edema": "fluid in the lung tissue",
    "Consolidation": "consolidated lung",
    "Pneumonia": "pneumonia",
    "Atelectasis": "collapsed lung tissue (atelectasis)",
    "Pneumothorax": "air in the pleural space",
    "Pleural Effusion": "fluid in the pleural space",
    "Pleural Other": "another change of the pleura than fluid or air",
    "Fracture": "a broken bone",
    DEVICES: "a tube, line or implanted device",
}
"""The findings in CheXpert's order, by the publishers' column name, each with what a question calls it."""

FINDINGS = tuple(SPOKEN)
KEYS = {name: name.lower().replace(" ", "_") for name in FINDINGS}
COLUMNS: Mapping[str, type[pl.DataType]] = dict.fromkeys(FINDINGS, pl.Float64)
STATUS = {1.0: "present", 0.0: "absent", -1.0: "uncertain"}
Uncertain = Literal["not_stated", "positive", "no_answer"]


class LabelOptions(SourceOptions):
    """Recipe keys of a source with CheXpert's labels.

    ``uncertain: not_stated`` is the default because an answer holds what is asserted, and a hedge asserts nothing.
    Its answers are those of the published U-Zeros, which says more than it knows: that a hedged finding is denied.
    ``positive`` is U-Ones. ``no_answer`` is U-Ignore for a set of findings: no set is right where a part of it is
    open; it takes the answer from a large share of the rows, so that a build needs a higher ``skip_limit``. Negative
    and blank cells never are in an answer to ``findings``. The tasks ``<finding>_status`` keep all apart whatever this
    key says: 1 is present, 0 absent, -1 uncertain, and a blank cell has no answer.
    """

    uncertain: Uncertain = Field("not_stated", description="what -1 counts as in an answer to findings")


def _status_task(name: str) -> Task:
    what = SPOKEN[name]
    wordings = (
        f"Look for {what} in this chest X-ray. Which of these fits best?",
        f"Judge this chest radiograph for one thing only: {what}.",
        f"What is to be said of {what} on this X-ray of the chest?",
        f"Does this film of the chest show {what}? Choose the statement that fits.",
        f"Consider {what} and nothing else. How would you report this chest radiograph?",
    )
    choices = tuple(Choice(key, key.capitalize()) for key in STATUS.values())
    return Task(f"{KEYS[name]}_status", AnswerType.ONE, wordings, choices, default=False)


_WITH_STATUS = tuple(name for name in FINDINGS if name != NO_FINDING)
TASKS = (
    Task(
        "findings",
        AnswerType.SEVERAL,
        (
            "Which of the listed findings does this chest X-ray show? Name all that apply.",
            "Read this radiograph of the chest and pick every entry of the list that holds for it.",
            "You see a chest X-ray. What would its report state? Select from the list, several if need be.",
            "Go through the list and say which entries describe this chest radiograph.",
            "Report this chest film by choosing all fitting entries.",
        ),
        tuple(Choice(KEYS[name], name) for name in FINDINGS),
    ),
    *(_status_task(name) for name in _WITH_STATUS),
)


def refused_labels() -> dict[str, pl.Expr]:
    """What is wrong with a row whose cells hold another number, for ``refuse_rows``."""
    return {f"{name} is none of 1, 0, -1 and blank": ~pl.col(name).is_in(list(STATUS)) for name in FINDINGS}


def _answers(uncertain: Uncertain) -> list[pl.Expr]:
    """The ``answer.<task>`` columns from the 14 label columns; null where nothing is stated."""
    counted = {name: _counts(name, uncertain) for name in FINDINGS}
    keys = [pl.when(holds).then(pl.lit(KEYS[name])) for name, holds in counted.items()]
    answerable = pl.any_horizontal(counted.values())
    if uncertain == "no_answer":
        answerable &= ~_any_is(-1.0, FINDINGS)
    findings = pl.when(answerable).then(pl.concat_list(keys).list.drop_nulls()).alias("answer.findings")
    status = [
        pl.when(pl.col(name).is_not_null())
        .then(pl.concat_list(pl.col(name).replace_strict(STATUS, default=None, return_dtype=pl.String)))
        .alias(f"answer.{KEYS[name]}_status")
        for name in _WITH_STATUS
    ]
    return [findings, *status]


def _counts(name: str, uncertain: Uncertain) -> pl.Expr:
    """Whether a finding is in the answer. No policy makes ``No Finding`` out of a hedge: it is not one of a disease."""
    values = [1.0, -1.0] if uncertain == "positive" and name != NO_FINDING else [1.0]
    return pl.col(name).is_in(values).fill_null(value=False)


def _any_is(value: float, names: tuple[str, ...]) -> pl.Expr:
    return pl.any_horizontal((pl.col(name) == value).fill_null(value=False) for name in names)


def _contradicts_itself() -> pl.Expr:
    """Whether a row breaks the publishers' rule for ``No Finding``."""
    others = tuple(name for name in FINDINGS if name not in (NO_FINDING, DEVICES))
    return (pl.col(NO_FINDING) == 1.0).fill_null(value=False) & (_any_is(1.0, others) | _any_is(-1.0, others))


def disagrees_with(*study: str) -> pl.Expr:
    """Whether a row's study, told by these columns, has a row in which any of the 14 cells says something else."""
    codes = (pl.col(name).fill_null(2.0).cast(pl.Int64) + 1 for name in FINDINGS)
    code = pl.sum_horizontal(code * 4**place for place, code in enumerate(codes))
    return code.min().over(study) != code.max().over(study)


def label_items(
    records: pl.DataFrame, uncertain: Uncertain, context: Iterable[pl.Expr] = (), kind: MediaKind = "image"
) -> pl.LazyFrame:
    """The item table of records, a row a picture, which is a medium of this kind.

    They have, beside the 14 label columns, ``item``, ``patient``, ``study``, ``official_split``, ``path``, ``view``,
    ``label_file``, ``label_row``, ``is_labelled`` (its study has labels) and ``disagrees`` (rows of its study differ).
    """
    as_is = ("item", "patient", "study", "official_split", "label_file", "label_row")
    named = (pl.lit("image").alias("role"), pl.lit(kind).alias("kind"))
    medium = pl.struct(*named, "path", pl.col("view").alias("part"))
    return records.lazy().select(
        *as_is,
        pl.col("patient").alias("group"),
        pl.concat_list(medium).alias("media"),
        *_answers(uncertain),
        *_skips(),
        *context,
    )


def _skips() -> list[pl.Expr]:
    told = (
        (~pl.col("is_labelled"), Reason.NO_LABEL, "the table of labels has no row for its study"),
        (pl.col("disagrees"), Reason.LABEL_CONFLICT, "rows of its study have different labels"),
        (_contradicts_itself(), Reason.LABEL_CONFLICT, "No Finding is stated beside another finding, stated or hedged"),
    )
    reason, detail = pl.lit(None, pl.String), pl.lit(None, pl.String)
    for condition, why, sentence in reversed(told):
        reason = pl.when(condition).then(pl.lit(str(why))).otherwise(reason)
        detail = pl.when(condition).then(pl.lit(sentence)).otherwise(detail)
    return [reason.alias("skip_reason"), detail.alias("skip_detail")]


def label_statistics(items: pl.DataFrame, uncertain: Uncertain) -> dict[str, int]:
    """Counts over pictures that have labels: what the cells say, and what becomes of it under this policy."""
    answers = items.select(_answers(uncertain)[0]).to_series()
    counts = {
        "with_an_uncertain_label": items.select(_any_is(-1.0, FINDINGS).sum()).item(),
        "without_a_positive_label": items.select((~_any_is(1.0, FINDINGS)).sum()).item(),
        "of_these_without_any_label": items.select(pl.all_horizontal(pl.col(FINDINGS).is_null()).sum()).item(),
        "against_the_rule_for_no_finding": items.select(_contradicts_itself().sum()).item(),
        "without_an_answer_to_findings": answers.null_count(),
    }
    said: dict[str | None, int] = dict.fromkeys([*STATUS.values(), None], 0)
    for name in FINDINGS:
        for value, count in items[name].value_counts().iter_rows():
            said[STATUS.get(value)] += count
    return counts | {f"cells_{status or 'blank'}": count for status, count in said.items()}
