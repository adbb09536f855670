"""Pitfalls of ECG data that people reported, seen in the rows of a built corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qoq_data.record import millivolts
from tests.corpus.building import build, ledger_of, make_recipe, record_path, rewrite_record, rows_of
from tests.corpus.conftest import copied, pristine  # noqa: F401 - fixtures

Trees = Callable[[str], Path]


def by_item(out: Path) -> dict[str, dict[str, Any]]:
    return {row_id.split("/")[1]: row for row_id, row in rows_of(out).items()}


@pytest.mark.parametrize("date", ["05-May-2020 09:49:17", "2014-05-08 05:05:15", "2006", "12:04:00 22/09/2182"])
def test_e01_a_date_in_any_form_costs_no_row(date: str, copied: Trees, tmp_path: Path) -> None:  # noqa: F811
    tree = copied("ptb-xl")
    header = record_path(tree, 1).with_suffix(".hea")
    lines = header.read_text().splitlines()
    header.write_text("\n".join([f"{lines[0]} {date}", *lines[1:]]) + "\n")
    build(tmp_path / "out", make_recipe("ptb-xl"), {"ptb-xl": tree})
    assert ledger_of(tmp_path / "out") == []
    assert date not in str(by_item(tmp_path / "out")["00001"]["provenance"])


def test_e03_a_narrower_formats_code_is_data_in_32_bits_and_its_own_is_a_gap(
    copied: Trees,  # noqa: F811
    tmp_path: Path,
) -> None:
    """-32768 in format 32 is a value, which 16 bits beside a code for 'missing' cannot hold: refused, no gap."""
    tree = copied("ptb-xl")
    for record, odd in ((1, -(2**31)), (2, -32768)):
        header = record_path(tree, record).with_suffix(".hea")
        data = record_path(tree, record).with_suffix(".dat")
        samples = np.frombuffer(data.read_bytes(), "<i2").reshape(-1, 12).astype("<i4")
        samples[10:13, 8] = odd
        data.write_bytes(samples.tobytes())
        first, *lines = header.read_text().splitlines()
        fields = [line.split() for line in lines]
        text = [" ".join([f[0], "32", f[2], "32", *f[4:6], "", *f[7:]]) for f in fields]
        sums = samples.astype(np.int64).sum(axis=0) & 0xFFFF
        text = [" ".join([f[0], "32", f[2], "32", *f[4:6], str(s), *f[7:]]) for f, s in zip(fields, sums, strict=True)]
        header.write_text("\n".join([first, *text]) + "\n")
    build(tmp_path / "out", make_recipe("ptb-xl"), {"ptb-xl": tree})
    rows = by_item(tmp_path / "out")
    gaps = np.isnan(millivolts(rows["00001"]["signals"][0]))
    assert np.argwhere(gaps).tolist() == [[8, 10], [8, 11], [8, 12]]
    assert [(line["item"], line["reason"]) for line in ledger_of(tmp_path / "out")] == [
        ("00002", "samples_out_of_range")
    ]


def test_e07_leads_in_another_order_and_spelling_give_the_same_row(copied: Trees, tmp_path: Path) -> None:  # noqa: F811
    """MIMIC's order (aVR aVF aVL) and lower case, beside the published order and case."""
    tree = copied("ptb-xl")
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    recipe = make_recipe("ptb-xl", signals={"leads": leads})
    build(tmp_path / "before", recipe, {"ptb-xl": tree})

    def reorder(samples: Any, names: list[str]) -> tuple[Any, list[str]]:
        order = [
            names.index(name) for name in ("I", "II", "III", "AVR", "AVF", "AVL", *(f"V{n}" for n in range(6, 0, -1)))
        ]
        return samples[order], [names[at].lower() for at in order]

    rewrite_record(record_path(tree, 1), reorder)
    build(tmp_path / "after", recipe, {"ptb-xl": tree})
    before, after = (by_item(tmp_path / name)["00001"]["signals"] for name in ("before", "after"))
    assert before == after


def test_h03_every_shard_has_the_rows_schema_with_and_without_boxes_signals_and_context(
    pristine: Trees,  # noqa: F811
    tmp_path: Path,
) -> None:
    import pyarrow.parquet as pq

    names = ("busi", "ptb-xl", "mimic-ecg")
    build(tmp_path / "out", make_recipe(*names), {name: pristine(name) for name in names})
    shards = sorted((tmp_path / "out/data").rglob("*.parquet"))
    files = [pq.ParquetFile(shard) for shard in shards]
    assert {shard.parent.name for shard in shards} == set(names)
    assert len({file.schema_arrow.serialize().to_pybytes() for file in files}) == 1
    assert all(file.schema.equals(files[0].schema) for file in files)
