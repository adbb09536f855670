"""What was answered of each row of an evaluation, and the table in which a run keeps it.

With the rows, two runs can be compared patient by patient; their figures alone only say how far apart they ended.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from qoq_data.errors import UsageError
from qoq_data.licence import Redistribution
from qoq_data.record import AnswerType, Split
from qoq_train.answers import AnswerKey, ReadAnswer, Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ROWS_SCHEMA", "EvaluatedRows", "Outcome", "evaluation_path", "read_rows", "write_rows"]

FORMAT: Final = 1
_METADATA: Final = b"qoq_evaluation_rows"
ROWS_SCHEMA: Final = pa.schema(
    [
        ("row_id", pa.string()),
        ("dataset", pa.string()),
        ("domain", pa.string()),
        ("task", pa.string()),
        ("group", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("answer", pa.list_(pa.string())),
        ("answer_type", pa.string()),
        ("tolerance", pa.float64()),
        ("labels", pa.list_(pa.string())),
        ("extras", pa.int64()),
        ("number", pa.float64()),
        ("unreadable", pa.string()),
        ("box_iou", pa.float64()),
        ("constant_box_iou", pa.float64()),
    ]
)
"""A row of the table: what was asked (to ``tolerance``), what was read (to ``unreadable``), and its boxes' IoU."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row and what was answered: ``group`` is its patient, ``dataset`` its source.

    ``box_iou`` is what the stated boxes earn, ``constant_box_iou`` what the whole picture would; None without boxes.
    Raises ``ValueError`` for one that is no share of 1.
    """

    dataset: str
    domain: str
    task: str
    group: str
    key: AnswerKey
    read: ReadAnswer
    box_iou: float | None = None
    constant_box_iou: float | None = None
    row_id: str = ""

    def __post_init__(self) -> None:
        for iou in (self.box_iou, self.constant_box_iou):
            if iou is not None and not 0 <= iou <= 1 + 1e-9:
                raise ValueError(f"the box IoU {iou} of {self.row_id or 'a row'} does not lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class EvaluatedRows:
    """The outcomes of one evaluation: of which split, after how many steps, of which corpus.

    ``redistribution`` is what may be passed on of the corpus, and so of this table, which holds its answers.
    """

    split: Split
    step: int
    corpus_sha256: str
    licence: str
    redistribution: Redistribution
    outcomes: tuple[Outcome, ...]


def evaluation_path(run: Path, split: Split, step: int, suffix: str) -> Path:
    """Where a run keeps an evaluation: its rows with ``.parquet``, its report with ``.json``."""
    return run / "evaluations" / f"step-{step:06d}-{split}{suffix}"


def write_rows(path: Path, rows: EvaluatedRows) -> None:
    """Write the table, whole before it has its name.

    Raises ``ValueError`` for outcomes without a row's id, or two of one row.
    """
    ids = [outcome.row_id for outcome in rows.outcomes]
    if not all(ids) or len(set(ids)) != len(ids):
        raise ValueError("every outcome needs the id of its row, and each row one outcome")
    told = {
        "format": FORMAT,
        "split": str(rows.split),
        "step": rows.step,
        "corpus_sha256": rows.corpus_sha256,
        "licence": rows.licence,
        "redistribution": str(rows.redistribution),
    }
    schema = ROWS_SCHEMA.with_metadata({_METADATA: json.dumps(told, sort_keys=True).encode()})
    table = pa.Table.from_pylist([_flat(outcome) for outcome in rows.outcomes], schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    pq.write_table(table, part, compression="zstd")
    part.replace(path)


def read_rows(path: Path) -> EvaluatedRows:
    """The table as it was written; raises ``UsageError`` for a file that is damaged or something else."""
    try:
        table = pq.read_table(path, schema=None, memory_map=False)
        told = json.loads((table.schema.metadata or {})[_METADATA])
        if told["format"] != FORMAT:
            raise UsageError(
                f"{path.name} has format {told['format']} of evaluation rows; this version reads {FORMAT}."
            )
        rows = EvaluatedRows(
            Split(told["split"]),
            int(told["step"]),
            str(told["corpus_sha256"]),
            str(told["licence"]),
            Redistribution(told["redistribution"]),
            tuple(_outcome(row) for row in table.select(ROWS_SCHEMA.names).to_pylist()),
        )
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{path.name} is damaged, or holds no evaluation rows.") from error
    return rows


def _flat(outcome: Outcome) -> dict[str, Any]:
    names = ("row_id", "dataset", "domain", "task", "group", "box_iou", "constant_box_iou")
    return {name: getattr(outcome, name) for name in names} | asdict(outcome.key) | asdict(outcome.read)


def _outcome(row: dict[str, Any]) -> Outcome:
    if row["number"] is not None and not math.isfinite(row["number"]):
        raise ValueError("a number that was read is not finite")
    return Outcome(
        dataset=_text(row["dataset"]),
        domain=_text(row["domain"]),
        task=_text(row["task"]),
        group=_text(row["group"]),
        key=AnswerKey(_texts(row["choices"]), _texts(row["answer"]), AnswerType(row["answer_type"]), row["tolerance"]),
        read=ReadAnswer(
            _texts(row["labels"]),
            int(row["extras"]),
            row["number"],
            None if row["unreadable"] is None else Unreadable(row["unreadable"]),
        ),
        box_iou=row["box_iou"],
        constant_box_iou=row["constant_box_iou"],
        row_id=_text(row["row_id"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a name is missing")
    return value


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(_text(value) for value in values)
