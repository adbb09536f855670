"""Shards: the same bytes for the same rows, every value back as it was, and types that no empty column can change."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.corpus import shard as shard_module
from qoq_data.corpus.shard import (
    Row,
    SampleBuffer,
    check_shard,
    has_row_schema,
    rows_to_table,
    table_to_parquet,
    write_table,
)
from qoq_data.errors import CorpusError, StorageError
from qoq_data.formats.new_file import NewFile
from qoq_data.formats.storage import Store
from qoq_data.record import (
    COLUMNS,
    MISSING,
    SCHEMA,
    BoxOnImage,
    Media,
    Provenance,
    QualityFinding,
    Signal,
    View,
    millivolts,
)

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6360000000020001"
    "48afa4710000000049454e44ae426082"
)


def text(number: int = 0, **changes: Any) -> dict[str, Any]:
    fixed = {
        "id": f"busi/{number}/kind", "source": "busi", "source_version": "1.0", "domain": "ultrasound",
        "modality": "ultrasound", "task": "kind", "split": "train", "patient": None, "study": None,
        "question": "Which?", "choices": ["Benign", "Malignant"], "answer": ["Benign"], "answer_type": "one",
        "tolerance": None, "context": "", "licence": "CC-BY-4.0", "redistribution": "open",
    }  # fmt: skip
    return fixed | changes


def signal(samples: Any) -> Signal:
    values = np.asarray(samples, np.int16)
    leads = tuple(f"V{n}" for n in range(values.shape[0]))
    return Signal(leads, 500.0, "mV", values, (0.005,) * len(leads), (0.0,) * len(leads))


def media(number: int) -> Media:
    generator = np.random.default_rng(number)
    return Media(
        images=(PNG, b"\x00\xff" * number),
        views=(View("PA", 0, (0.1, 0.2), "soft tissue", "left"), View()),
        signals=(signal(generator.integers(-32768, 32768, (2, 50 + number))),),
        boxes=(BoxOnImage("Tumour", 0, (0, 0, 1, 1), 0.5), BoxOnImage("Tumour", 1, (-1, 2, 2**31 - 1, 4))),
        masks=(PNG,),
        quality=(QualityFinding("flat_lead", "V1", 0.1),),
        provenance=(Provenance("image", "a.png", "0" * 64, "all of it"),),
    )


ROWS = [Row(text(n), media(n)) for n in range(20)]


def read(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


def expected(row: Row) -> dict[str, Any]:
    """A row as plain values, put together without the code under test."""
    plain = dict(row.text)
    plain["images"] = [{"bytes": data, "path": None} for data in row.media.images]
    plain["masks"] = [{"bytes": data, "path": None} for data in row.media.masks]
    for name in ("views", "quality", "provenance", "boxes"):
        plain[name] = [dataclasses.asdict(one) for one in getattr(row.media, name)]
    for view in plain["views"]:
        view["spacing_mm"] = list(view["spacing_mm"])
    for box in plain["boxes"]:
        box["xyxy"] = list(box["xyxy"])
    plain["signals"] = [
        {
            "lead_names": list(one.lead_names), "sampling_frequency_hz": one.sampling_frequency_hz, "unit": one.unit,
            "samples": one.samples.tolist(), "scale": list(one.scale), "offset": list(one.offset),
            "derived_leads": list(one.derived_leads),
        }
        for one in row.media.signals
    ]  # fmt: skip
    return {name: plain[name] for name in COLUMNS}


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_every_value_comes_back_as_it_was(compression: Any) -> None:
    data = table_to_parquet(rows_to_table(ROWS), compression)
    table = read(data)
    assert has_row_schema(table.schema)
    assert table.to_pylist() == [expected(row) for row in ROWS]
    check_shard(pq.ParquetFile(io.BytesIO(data)), 20)


_SAMPLES = st.tuples(st.integers(0, 3), st.integers(0, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(st.sampled_from([MISSING, -32767, -1, 0, 1, 32767]), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    ).map(lambda rows: np.array(rows, np.int16).reshape(shape))
)
_WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
_FLOATS = st.floats(allow_nan=False)
_MEDIA = st.builds(
    Media,
    images=st.lists(st.binary(max_size=4), max_size=2).map(tuple),
    views=st.lists(
        st.builds(
            View, _WORDS, st.integers(-(2**31), 2**31 - 1), st.lists(_FLOATS, max_size=2).map(tuple), _WORDS, _WORDS
        ),
        max_size=2,
    ).map(tuple),
    signals=st.lists(_SAMPLES.map(signal), max_size=2).map(tuple),
    boxes=st.lists(
        st.builds(
            BoxOnImage, _WORDS, st.integers(0, 9), st.tuples(*[st.integers(0, 2**31 - 1)] * 4), st.none() | _FLOATS
        ),
        max_size=2,
    ).map(tuple),
    masks=st.lists(st.binary(max_size=4), max_size=2).map(tuple),
    quality=st.lists(st.builds(QualityFinding, _WORDS, _WORDS, _FLOATS), max_size=2).map(tuple),
    provenance=st.lists(st.builds(Provenance, _WORDS, _WORDS, _WORDS, _WORDS), max_size=2).map(tuple),
)
_ROWS = st.lists(
    st.builds(
        lambda changes, of_row: Row(text(**changes), of_row),
        st.fixed_dictionaries(
            {
                "patient": st.none() | _WORDS,
                "question": _WORDS,
                "choices": st.lists(_WORDS, max_size=3),
                "answer": st.lists(_WORDS, max_size=2),
                "tolerance": st.none() | _FLOATS,
            }
        ),
        _MEDIA,
    ),
    min_size=1,
    max_size=4,
)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(_ROWS)
def test_any_rows_come_back_through_arrow_with_and_without_a_buffer(rows: list[Row]) -> None:
    data = table_to_parquet(rows_to_table(rows), "lz4")
    table = read(data)
    assert table.to_pylist() == [expected(row) for row in rows]
    assert has_row_schema(table.schema)
    buffer = SampleBuffer()
    adopted = [buffer.adopt(row) for row in rows]
    assert table_to_parquet(rows_to_table(adopted, buffer), "lz4") == data


def test_a_buffer_that_is_used_again_leaves_nothing_of_the_shard_before() -> None:
    buffer = SampleBuffer()
    for rows in (ROWS, ROWS[:3], ROWS[5:], [Row(text(), Media())]):
        buffer.clear()
        adopted = [buffer.adopt(row) for row in rows]
        assert table_to_parquet(rows_to_table(adopted, buffer), "lz4") == table_to_parquet(rows_to_table(rows), "lz4")


_WAYS = st.sampled_from(["placed", "elsewhere", "placed, then replaced", "skipped", "again"])


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.lists(st.lists(st.tuples(_WAYS, st.integers(1, 40)), min_size=1, max_size=3), min_size=1, max_size=8))
def test_decoding_into_the_buffer_stores_what_decoding_elsewhere_does(rows: list[list[tuple[str, int]]]) -> None:
    """Rows of one to three signals: decoded in place or not, converted afterwards, left out, or stored twice."""
    buffer, value = SampleBuffer(), 0
    buffer.clear(2)
    plain: list[Row] = []
    adopted: list[Row] = []
    for ways in rows:
        signals, wanted = [], []
        for way, length in ways:
            value += 1
            data = np.full((2, length), value, np.int16)
            wanted.append(signal(data.copy()))
            samples = data if way == "elsewhere" else buffer.place((2, length))
            samples[:] = data
            if way == "placed, then replaced":
                samples = np.repeat(samples, 3, axis=1)
                wanted[-1] = signal(samples.copy())
            signals.append(signal(samples))
        if any(way == "skipped" for way, _ in ways):
            continue
        row = Row(text(), Media(signals=tuple(signals)))
        for _ in range(1 + any(way == "again" for way, _ in ways)):
            plain.append(Row(text(), Media(signals=tuple(wanted))))
            row = buffer.adopt(row)
            adopted.append(row)
    assert rows_to_table(adopted, buffer).equals(rows_to_table(plain))


def test_samples_decoded_in_their_place_are_not_copied() -> None:
    buffer = SampleBuffer()
    buffer.clear(2)
    for _ in range(2):
        samples = buffer.place((2, 5))
        samples[:] = 7
        row = Row(text(), Media(signals=(signal(samples),)))
        assert buffer.adopt(row) is row
    assert buffer.samples().tolist() == [7] * 20


def test_samples_that_lie_transposed_in_memory_are_stored_by_lead() -> None:
    samples = np.arange(12, dtype=np.int16).reshape(4, 3).T
    for rows in ([Row(text(), Media(signals=(signal(samples),)))],):
        table = read(table_to_parquet(rows_to_table(rows), "lz4"))
        assert table["signals"][0].as_py()[0]["samples"] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_the_ends_of_int16_and_the_gap_code_are_kept() -> None:
    row = Row(text(), Media(signals=(signal([[-32768, -32767, 0, 32766, 32767]]),)))
    stored = read(table_to_parquet(rows_to_table([row]), "zstd"))["signals"][0].as_py()[0]
    assert stored["samples"] == [[MISSING, -32767, 0, 32766, 32767]]
    assert np.isnan(millivolts(stored)).tolist() == [[True, False, False, False, False]]


@pytest.mark.parametrize("count", [1, 7])
def test_h03_rows_with_empty_lists_and_nulls_only_have_the_same_schema(count: int) -> None:
    data = table_to_parquet(rows_to_table([Row(text(n, choices=[], answer=[]), Media()) for n in range(count)]), "lz4")
    file = pq.ParquetFile(io.BytesIO(data))
    full = pq.ParquetFile(io.BytesIO(table_to_parquet(rows_to_table(ROWS), "lz4")))
    check_shard(file, count)
    assert file.schema_arrow.equals(full.schema_arrow, check_metadata=True)
    assert file.schema.equals(full.schema)
    assert file.schema_arrow.field("boxes").type == SCHEMA.field("boxes").type


def test_groups_of_rows_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row(text(n), Media(images=(bytes([n]) * 10_000,))) for n in range(40)]
    monkeypatch.setattr(shard_module, "ROW_GROUP_BYTES", 100_000)
    file = pq.ParquetFile(io.BytesIO(table_to_parquet(rows_to_table(rows), "none")))
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sum(sizes) == 40
    assert max(sizes) * 10_000 <= 100_000
    assert file.num_row_groups <= 6
    monkeypatch.setattr(shard_module, "ROW_GROUP_BYTES", 1)
    single = pq.ParquetFile(io.BytesIO(table_to_parquet(rows_to_table(rows), "none")))
    assert single.num_row_groups == 40


def test_a_shard_that_is_not_what_was_meant_is_refused() -> None:
    data = table_to_parquet(rows_to_table(ROWS), "lz4")
    with pytest.raises(CorpusError, match="a shard of 19 rows came out with 20"):
        check_shard(pq.ParquetFile(io.BytesIO(data)), 19)
    for schema in (SCHEMA.remove_metadata(), SCHEMA.with_metadata({"huggingface": "{}"})):
        buffer = io.BytesIO()
        pq.write_table(rows_to_table(ROWS).cast(schema), buffer)
        with pytest.raises(CorpusError, match="another schema"):
            check_shard(pq.ParquetFile(buffer), 20)
    buffer = io.BytesIO()
    pq.write_table(rows_to_table(ROWS).drop_columns(["study"]), buffer)
    with pytest.raises(CorpusError, match="another schema"):
        check_shard(pq.ParquetFile(buffer), 20)


def test_more_samples_than_an_arrow_list_holds_are_refused_before_they_are_counted_wrong() -> None:
    with pytest.raises(CorpusError, match=r"lower shards\.rows"):
        shard_module._offsets([2**30, 2**30])
    assert shard_module._offsets([2**30, 2**30 - 1])[-1].as_py() == 2**31 - 1


_DIGEST = """
import hashlib
from tests.corpus.test_shard import ROWS
from qoq_data.corpus.shard import rows_to_table, table_to_parquet
for compression in ("lz4", "zstd", "none"):
    print(hashlib.sha256(table_to_parquet(rows_to_table(ROWS), compression)).hexdigest())
"""


@pytest.mark.slow
def test_bytes_are_the_same_in_other_processes_with_other_thread_counts() -> None:
    here = [
        hashlib.sha256(table_to_parquet(rows_to_table(ROWS), compression)).hexdigest()
        for compression in ("lz4", "zstd", "none")
    ]
    for threads in ("1", "4"):
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"POLARS_MAX_THREADS": threads, "PYTHONHASHSEED": threads},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert done.stdout.split() == here


_LOAD = """
import json, sys
from datasets import load_dataset
rows = load_dataset("parquet", data_files={"train": sys.argv[1:]}, cache_dir="cache", split="train")
by_id = {row["id"]: row for row in rows}
full, empty = by_id["busi/1/kind"], by_id["busi/9/kind"]
print(json.dumps({
    "rows": len(rows),
    "columns": rows.column_names,
    "image": [full["images"][0].mode, full["images"][0].size],
    "samples": full["signals"][0]["samples"],
    "boxes": full["boxes"],
    "empty": [empty[name] for name in ("images", "signals", "boxes", "masks", "views", "quality")],
}))
"""


@pytest.mark.slow
def test_h03_datasets_loads_an_empty_shard_first_and_a_full_one_after_it(tmp_path: Path) -> None:
    full = [Row(text(n), dataclasses.replace(media(n), images=(PNG,))) for n in range(2)]
    for name, rows in (("empty", [Row(text(9), Media())]), ("full", full)):
        (tmp_path / f"{name}.parquet").write_bytes(table_to_parquet(rows_to_table(rows), "lz4"))
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(tmp_path / "empty.parquet"), str(tmp_path / "full.parquet")],
        cwd=tmp_path,
        env=os.environ | {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "rows": 3,
        "columns": list(COLUMNS),
        "image": ["L", [1, 1]],
        "samples": full[1].media.signals[0].samples.tolist(),
        "boxes": expected(full[1])["boxes"],
        "empty": [[]] * 6,
    }


def test_ctrl_c_at_the_door_of_write_stays_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: NewFile, data: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(NewFile, "write", interrupted)
    with pytest.raises(KeyboardInterrupt), Store(tmp_path).create("data/a.parquet") as file:
        write_table(rows_to_table([]), file, "lz4")
    assert not list(tmp_path.rglob("*.p*"))


def test_a_disk_that_is_full_is_no_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError), Store(tmp_path).create("data/a.parquet") as file:
        monkeypatch.setattr(os, "write", full)
        write_table(rows_to_table([]), file, "lz4")
