"""The real excerpts of PTB-XL and BUSI through the whole pipeline: every item is a row or a ledger line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import wfdb

from qoq_data.corpus.trace import trace_row
from qoq_data.corpus.verify import verify_corpus
from qoq_data.engines.local import LocalEngine
from qoq_data.formats.storage import Store
from qoq_data.record import millivolts
from tests.corpus.building import build, ledger_of, make_inputs, make_recipe, rows_of


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "column"), [(500, "filename_hr"), (100, "filename_lr")])
def test_ptb_xl_every_record_is_a_row_or_a_ledger_line(rate: int, column: str, realdata: Path, tmp_path: Path) -> None:
    tree = realdata / "ptb-xl"
    recipe = make_recipe("ptb-xl", options={"ptb-xl": {"sampling_frequency_hz": rate}}, rows_per_record="one")
    manifest = build(tmp_path / "out", recipe, {"ptb-xl": tree})
    with (tree / "ptbxl_database.csv").open(newline="") as file:
        names = {f"{int(row['ecg_id']):05d}": row[column] for row in csv.DictReader(file)}
    present = {item for item, name in names.items() if (tree / f"{name}.dat").is_file()}
    rows = {row_id.split("/")[1]: row for row_id, row in rows_of(tmp_path / "out").items()}
    lines = ledger_of(tmp_path / "out")
    assert len(names) == manifest.sources[0].items == 500
    assert len(rows) + len(lines) == 500
    assert {line["item"] for line in lines if line["reason"] == "file_missing"} == set(names) - present
    assert {line["reason"] for line in lines} == {"file_missing"}
    assert set(rows) == present
    assert manifest.sources[0].skipped == {"file_missing": 500 - len(present)}
    for item, row in rows.items():
        expected = np.asarray(wfdb.rdrecord(str(tree / names[item])).p_signal).T
        assert np.abs(millivolts(row["signals"][0]) - expected).max() < 1e-6
    assert verify_corpus(Store(tmp_path / "out"), manifest, make_inputs(recipe, {"ptb-xl": tree})).problems == ()


def test_busi_is_built_verified_and_traced(realdata: Path, tmp_path: Path) -> None:
    trees = {"busi": realdata / "busi"}
    recipe, out = make_recipe("busi", masks=True), tmp_path / "out"
    manifest = build(out, recipe, trees)
    pictures = [path for path in trees["busi"].rglob("*.png") if "_mask" not in path.name]
    assert manifest.sources[0].items == len(pictures) == 8
    assert manifest.rows + len(ledger_of(out)) == 8
    assert manifest.rows >= 6
    inputs = make_inputs(recipe, trees)
    assert verify_corpus(Store(out), manifest, inputs).problems == ()
    for row_id in rows_of(out):
        assert trace_row(Store(out), manifest, recipe, row_id, inputs, LocalEngine()).agrees
