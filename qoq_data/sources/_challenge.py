"""The records of the PhysioNet/CinC Challenges 2020 and 2021, which three sources hand out: labels stand in headers.

The answer to everything is a comment of a record's header such as ``#Dx: 164889003,59118001``. Of the comments only
that, ``#Age`` and ``#Sex`` are read, in any letter case and with any blanks. A header that cannot be read is an item
for the ledger; a tree whose headers all lack the line is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from qoq_data.errors import LayoutError, Reason, RecordError, TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.wfdb_header import MAX_HEADER_BYTES, Header, parse_header
from qoq_data.sources._challenge_codes import CODES, RHYTHM_CODES, Answers, Options, answers_to
from qoq_data.sources._item_rows import OLDEST_STATED, age_text, item_table

USUAL_DURATION_S = 10.0
_FEWEST_RECORDS = 5
_OLDEST = 130
_COMMENT = re.compile(r"(Age|Sex|Dx)[ \t]*:(.*)", re.IGNORECASE)
_AGE = re.compile(r"[0-9]{1,3}(\.[0-9]{0,6})?")
_CODE = re.compile(r"[0-9]{6,18}")
_NO_CODE = "no SNOMED CT identifier"
_BLANKS = frozenset({"", "unknown", "nan", "none"})
_SEXES = {"male": "male", "m": "male", "female": "female", "f": "female"}


@dataclass(frozen=True, slots=True)
class Layout:
    """A release and the folders in which it hands the records out; not all of them need be there."""

    version: str
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordSet:
    """What tells one source from another: names of records, layouts, the published map, and rhythms by code.

    ``name`` matches the name of a record's files without their ending; ``prefix`` and its digits are the item.
    """

    source: str
    prefix: str
    name: re.Pattern[str]
    layouts: tuple[Layout, ...]
    published_map: str
    rhythms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Record:
    """One record as its header claims it; ``codes`` is None without a ``Dx`` line, ``skip`` says what is wrong."""

    item: str
    path: str
    codes: frozenset[str] | None = None
    age: float | None = None
    age_is_unread: bool = False
    sex: str | None = None
    duration_s: float | None = None
    skip: RecordError | None = None


def find_layout(tree: Store, records: RecordSet) -> Layout:
    """The layout in which the tree holds the records; raises ``LayoutError`` for none and for two at once."""
    found = [layout for layout in records.layouts if any(tree.is_folder(folder) for folder in layout.folders)]
    if not found:
        folders = [f"{folder}/" for layout in records.layouts for folder in layout.folders]
        raise LayoutError(
            f"{records.source}: none of {', '.join(folders)} is in the raw folder. 'qoq-data doctor {records.source}' "
            "looks for where they are."
        )
    if len(found) > 1:
        first, second = (f"{layout.folders[0]}/" for layout in found[:2])
        raise LayoutError(
            f"{records.source}: the raw folder holds the same records in two layouts, that of {first} and that of "
            f"{second}. Leave one of them."
        )
    return found[0]


def scan_records(tree: Store, records: RecordSet, options: Options) -> pl.LazyFrame:
    """A row a record by its header; no signal is opened. Raises ``LayoutError`` and ``TableError``."""
    found = sorted(_read_records(tree, records)[0], key=lambda one: one.item)
    answers = _answers_of(found, records, options)
    rows: list[dict[str, Any]] = []
    for record in found:
        seven, rhythm = answers.get(record.codes, (None, None))
        rows.append(
            {
                "item": record.item,
                "group": f"record:{record.item}",
                "study": record.item,
                "media": [{"role": "ecg", "kind": "wfdb", "path": record.path, "part": ""}],
                "label_file": record.path,
                "label_row": "#Dx",
                "answer.seven_class": seven,
                "answer.rhythm": rhythm,
                "context.sex": record.sex,
                "skip_reason": str(record.skip.reason) if record.skip else None,
                "skip_detail": record.skip.detail if record.skip else None,
            }
        )
    keys = pl.List(pl.String)
    ages = pl.Series("age", [one.age for one in found], dtype=pl.Float64)
    items = item_table(rows, {"seven_class": keys, "rhythm": keys}, ("age", "sex"))
    return items.with_columns(age_text(pl.lit(ages)).alias("context.age"))


def record_statistics(tree: Store, records: RecordSet, options: Options) -> Mapping[str, int]:
    """Counts of what the headers hold and of what has no answer.

    Unknown codes stand with their number of records when five or more have them, the others in the counts of all.
    """
    found, other_files = _read_records(tree, records)
    read = [record for record in found if record.skip is None]
    answers = _answers_of(found, records, options)
    unknown = Counter(code for one in read for code in one.codes or () if code not in CODES)
    rhythms = [len((one.codes or frozenset()) & RHYTHM_CODES) for one in read]
    counts = {
        "records": len(found),
        "records_that_cannot_be_read": len(found) - len(read),
        "files_of_unknown_name": other_files,
        "without_dx_line": sum(one.codes is None for one in read),
        "without_code": sum(one.codes == frozenset() for one in read),
        "with_unknown_code": sum(not (one.codes or frozenset()) <= CODES.keys() for one in read),
        "unknown_codes": len(unknown),
        "without_seven_class": sum(answers.get(one.codes, (None, None))[0] is None for one in read),
        "without_rhythm_code": rhythms.count(0),
        "with_several_rhythm_codes": sum(number > 1 for number in rhythms),
        "without_rhythm": sum(answers.get(one.codes, (None, None))[1] is None for one in read),
        "of_another_length_than_10_s": sum(one.duration_s != USUAL_DURATION_S for one in read),
        "without_age": sum(one.age is None for one in read),
        "with_an_age_that_is_none": sum(one.age_is_unread for one in read),
        f"over_{OLDEST_STATED}_years": sum(one.age is not None and one.age > OLDEST_STATED for one in read),
        "without_sex": sum(one.sex is None for one in read),
    }
    return counts | {f"unknown_code {code}": n for code, n in sorted(unknown.items()) if n >= _FEWEST_RECORDS}


def _answers_of(found: Sequence[_Record], records: RecordSet, options: Options) -> dict[frozenset[str] | None, Answers]:
    """Answers of each distinct set of codes: a few thousand stand in 45,152 records."""
    distinct = {record.codes for record in found if record.codes}
    return {codes: answers_to(codes, records.published_map, records.rhythms, options) for codes in distinct}


def _read_records(tree: Store, records: RecordSet) -> tuple[list[_Record], int]:
    """Every record of the layout's folders, and how many files have other names than a record's."""
    layout = find_layout(tree, records)
    headers: list[tuple[str, str]] = []
    signals: dict[str, str] = {}
    other_files = 0
    for folder in layout.folders:
        for path in tree.walk(folder):
            stem, _, ending = path.rpartition("/")[2].rpartition(".")
            match = records.name.fullmatch(stem)
            if match is None or ending not in ("hea", "mat"):
                other_files += 1
            elif ending == "hea":
                headers.append((records.prefix + match[1], path))
            else:
                signals[path.removesuffix("mat") + "hea"] = records.prefix + match[1]
    if not headers:
        folders = " and ".join(f"{folder}/" for folder in layout.folders if tree.is_folder(folder))
        raise LayoutError(f"{records.source}: {folders} holds no header like {records.prefix}….hea. Unpack it again.")
    found = [_read_record(tree, records, item, path) for item, path in headers]
    for path in sorted(signals.keys() - {path for _, path in headers}):
        gone = RecordError(Reason.FILE_MISSING, "there are samples without their header", path)
        found.append(_Record(signals[path], path, skip=gone))
    if all(record.codes is None for record in found) and any(record.skip is None for record in found):
        raise TableError(
            f"{records.source}: none of {len(headers)} headers has a line '#Dx: …', {min(headers)[1]} first. "
            "Are they of another release?"
        )
    return found, other_files


def _read_record(tree: Store, records: RecordSet, item: str, path: str) -> _Record:
    try:
        header = parse_header(tree.read(path, MAX_HEADER_BYTES), path, comments=True)
        _check_names(header, records, item)
    except RecordError as error:
        return _Record(item, path, skip=error)
    said: dict[str, list[str]] = {"age": [], "sex": [], "dx": []}
    for comment in header.comments:
        match = _COMMENT.match(comment)
        if match:
            said[match[1].lower()].append(match[2].strip())
    codes = {code.strip() for line in said["dx"] for code in line.split(",") if code.strip().lower() not in _BLANKS}
    sexes = {_SEXES.get(text.lower()) for text in said["sex"]}
    age = _age(said["age"])
    return _Record(
        item,
        path,
        codes=frozenset(code if _CODE.fullmatch(code) else _NO_CODE for code in codes) if said["dx"] else None,
        age=age,
        age_is_unread=age is None and any(text.lower() not in _BLANKS for text in said["age"]),
        sex=next(iter(sexes)) if len(sexes) == 1 else None,
        duration_s=header.n_samples / header.sampling_frequency_hz if header.n_samples else None,
    )


def _age(texts: Sequence[str]) -> float | None:
    """An age in years as printed; None where it is blank or none (-1, NaN), or where two lines disagree."""
    if len(set(texts)) != 1 or not _AGE.fullmatch(texts[0]):
        return None
    age = float(texts[0])
    return age if age <= _OLDEST else None


def _check_names(header: Header, records: RecordSet, item: str) -> None:
    """Raise ``RecordError`` for a header that names another record, or the samples of another."""
    names = {header.record_name, *(signal.file_name.rpartition(".")[0] for signal in header.signals)}
    for name in names:
        match = records.name.fullmatch(name)
        if match is None or records.prefix + match[1] != item:
            raise RecordError(Reason.HEADER_MISMATCH, "the header names another record than its file", header.path)
