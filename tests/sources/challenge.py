"""What the tests of the challenge's sources share: a plain second reading of headers, and builds in this process."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.manifest import Manifest
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.trace import trace_row
from qoq_data.corpus.verify import verify_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.formats.storage import Store
from qoq_data.formats.wfdb_write import write_record_mat
from qoq_data.recipe import Recipe
from qoq_data.record import millivolts
from qoq_data.sources import source_of
from tests.corpus.building import ledger_of, rows_of

CLASSES = ("normal", "cd", "mi", "sttc", "other", "afib", "hyp")
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SINUS = {"426783006": "NSR", "426177001": "SB", "427084000": "STach", "427393009": "SA"}
DATA = Path(__file__).parents[2] / "qoq_data/sources/data/snomed_seven_class.csv"


class Plain(NamedTuple):
    """A header as a regular expression reads it."""

    codes: list[str]
    age: str
    sex: str
    first_line: str
    path: Path


def plain_table() -> dict[str, dict[str, str]]:
    with DATA.open(encoding="utf-8", newline="") as file:
        return {row["code"]: row for row in csv.DictReader(file)}


def plain_headers(*folders: Path) -> dict[str, Plain]:
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.hea")):
            text = path.read_text()
            said = {name: re.search(rf"^# ?{name}: ?(.*)$", text, re.MULTILINE) for name in ("Dx", "Age", "Sex")}
            codes, age, sex = (match[1].strip() if match else "" for match in said.values())
            found[path.stem] = Plain(codes.split(","), age, sex, text.splitlines()[0], path)
    return found


def plain_classes(codes: Sequence[str], table: Mapping[str, Mapping[str, str]]) -> list[str] | None:
    """Our classes, by the data file and the rule that normal is a sinus rhythm alone."""
    if codes == ["426783006"]:
        return ["normal"]
    classes = {table[code]["seven_class"] for code in codes} - {"", "normal"}
    return [name for name in CLASSES if name in classes] or None


def published_bits(realdata: Path, name: str) -> dict[str, dict[str, str]]:
    """Rows of a published split table by record: its seven bits and the class that was drawn from them."""
    with gzip.open(realdata / f"label-definitions/benchmd/{name}_splits.csv.gz", "rt", newline="") as file:
        return {row["patient"]: row for row in csv.DictReader(file)}


def bits_of(row: Mapping[str, str]) -> list[str] | None:
    return [name for name in CLASSES if row[name] == "1"] or None


def write_record(
    folder: Path,
    name: str,
    codes: str = "426783006",
    samples: NDArray[np.int16] | None = None,
    comments: Iterable[str] | None = None,
    **keys: Any,
) -> Path:
    """A record as the challenge writes it, its header's path; of 100 samples unless given."""
    values = np.arange(1200, dtype=np.int16).reshape(12, 100) if samples is None else samples
    said = ["Age: 74", "Sex: Male", f"Dx: {codes}", "Rx: Unknown"] if comments is None else list(comments)
    header, data = write_record_mat(name, values, LEADS, 500, comments=said, **keys)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.mat").write_bytes(data)
    (folder / f"{name}.hea").write_bytes(header)
    return folder / f"{name}.hea"


def items_of(module: ModuleType, tree: Path, **options: Any) -> pl.DataFrame:
    return scan_items(source_of(module), Store(tree), module.Options.model_validate(options))


def answers(module: ModuleType, tree: Path, task: str = "seven_class", **options: Any) -> dict[str, list[str] | None]:
    return dict(items_of(module, tree, **options).select("item", f"answer.{task}").iter_rows())


def counts(module: ModuleType, tree: Path, **options: Any) -> Mapping[str, int]:
    found: Mapping[str, int] = module.statistics(Store(tree), module.Options.model_validate(options))
    return found


class Built(NamedTuple):
    manifest: Manifest
    rows: dict[str, dict[str, Any]]
    ledger: dict[str, str]
    out: Path
    recipe: Recipe
    inputs: list[SourceInput]

    def signal(self, item: str) -> NDArray[np.float32]:
        row = next(row for row_id, row in self.rows.items() if row_id.split("/")[1] == item)
        return millivolts(row["signals"][0])

    def answers(self, task: str) -> dict[str, list[str]]:
        return {row_id.split("/")[1]: row["answer"] for row_id, row in self.rows.items() if row["task"] == task}


def build(module: ModuleType, tree: Path, out: Path, **keys: Any) -> Built:
    """A corpus of every task of the source, whatever is skipped; row ids, rows and the ledger's reasons by item."""
    entry = {"name": module.SPEC.name, "skip_limit": 1.0, "options": keys.pop("options", {})}
    recipe = Recipe.model_validate({"name": "test", "rows_per_record": "all", "sources": [entry]} | keys)
    inputs = [SourceInput(source_of(module), recipe.sources[0], Store(tree))]
    manifest = build_corpus(recipe, inputs, Store(out), LocalEngine(1))
    ledger = {line["item"]: line["reason"] for line in ledger_of(out)}
    return Built(manifest, rows_of(out), ledger, out, recipe, inputs)


def check_real(module: ModuleType, tree: Path, headers: Mapping[str, Plain], out: Path) -> Built:
    """Build a folder of real records: verified, one row of each traced, and every answer and voltage as a plain
    reading has it."""
    table = plain_table()
    rhythms = {choice.key: choice.text for choice in module.SPEC.task("rhythm").choices}
    texts = {choice.key: choice.text for choice in module.SPEC.task("seven_class").choices}
    built = build(module, tree, out)
    seven: dict[str, list[str]] = {}
    rhythm: dict[str, list[str]] = {}
    for name, header in headers.items():
        classes = plain_classes(header.codes, table)
        named = [code for code in header.codes if table[code]["rhythm"]]
        if classes:
            seven[name] = [texts[key] for key in classes]
        if len(named) == 1 and table[named[0]]["abbreviation"] in rhythms:
            rhythm[name] = [rhythms[table[named[0]]["abbreviation"]]]
    assert built.answers("seven_class") == seven
    assert built.answers("rhythm") == rhythm
    unanswered = headers.keys() - seven.keys() - rhythm.keys()
    assert built.ledger == dict.fromkeys(unanswered, "no_label")
    assert verify_corpus(Store(out), built.manifest, built.inputs).problems == ()
    one_of_each = {row_id.split("/")[1]: row_id for row_id in built.rows}
    assert one_of_each.keys() == headers.keys() - unanswered
    for row_id in sorted(one_of_each.values())[:: max(1, len(one_of_each) // 5)]:
        assert trace_row(Store(out), built.manifest, built.recipe, row_id, built.inputs, LocalEngine()).agrees
    for name, row_id in one_of_each.items():
        row, header, path = built.rows[row_id], headers[name], headers[name].path
        assert row["context"] == f"Age: {header.age} years; sex: {header.sex.lower()}"
        samples = np.frombuffer(path.with_suffix(".mat").read_bytes()[24:], "<i2").reshape(-1, 12).T
        assert np.abs(built.signal(name) - samples / 1000).max() < 1e-6
        printed = [int(line.split()[6]) for line in path.read_text().splitlines()[1:13]]
        assert (samples.sum(axis=1, dtype=np.int64) & 0xFFFF).tolist() == [one & 0xFFFF for one in printed]
        assert [one["path"] for one in row["provenance"]] == [
            path.relative_to(tree).as_posix(),
            path.with_suffix(".mat").relative_to(tree).as_posix(),
            path.relative_to(tree).as_posix(),
        ]
    return built
