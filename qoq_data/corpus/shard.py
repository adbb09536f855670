"""Rows into the bytes of one parquet shard: the schema of ``record.SCHEMA``, the same bytes for the same rows.

Samples are nested lists of ``int16``. Arrow's own parquet writer spends 860 µs on a ten-second ECG in that form and
polars' 150 µs (measured; see docs/benchmarks.md), so polars writes, and is given Arrow's schema with the features of
``datasets`` as the file's metadata. Row groups are cut by bytes, so that one group is a bounded read.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qoq_data.errors import CorpusError
from qoq_data.formats.new_file import NewFile
from qoq_data.record import COLUMNS, FEATURES_JSON, SCHEMA, BoxOnImage, Media, Signal

ROW_GROUP_BYTES = 32 << 20
Compression = Literal["lz4", "zstd", "none"]


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of a row that are text, and its media."""

    text: Mapping[str, Any]
    media: Media


class SampleBuffer:
    """The samples of a shard's rows, one after the other in one piece of memory that is used again for the next shard.

    Memory that a process has not touched yet costs more than copying into it, so a worker keeps one of these. What was
    put in is overwritten after ``clear``. A decoder that writes into what ``place`` gives saves the copy of ``adopt``.
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.int16)
        self._used = 0
        self._placed: dict[int, NDArray[np.int16]] = {}
        self._end = 0
        self._rows = 0

    def clear(self, rows: int = 0) -> None:
        """Begin anew, for a shard of so many rows: room is made for as many of the first row's size."""
        self._used = self._end = 0
        self._placed = {}
        self._rows = rows

    def place(self, shape: tuple[int, int]) -> NDArray[np.int16]:
        """Room for a signal of the next row, which becomes part of the shard when that row is adopted."""
        start, self._end = self._end, self._end + shape[0] * shape[1]
        self._make_room(shape[0] * shape[1])
        self._placed[start] = place = self._memory[start : self._end].reshape(shape)
        return place

    def adopt(self, row: Row) -> Row:
        """The same row with its samples in the buffer, after those of the rows before.

        The row that was given is not to be used any more: what was placed for it may be overwritten.
        """
        signals = row.media.signals
        if not self._count_in([signal.samples for signal in signals]):
            apart = [signal.samples.copy() for signal in signals]  # what is put in may lie over what was placed
            moved = tuple(replace(one, samples=self._put(data)) for one, data in zip(signals, apart, strict=True))
            row = replace(row, media=replace(row.media, signals=moved))
        self._placed = {}
        self._end = self._used
        return row

    def samples(self) -> NDArray[np.int16]:
        """Everything adopted since ``clear``, flat."""
        return self._memory[: self._used]

    def _count_in(self, signals: Sequence[NDArray[np.int16]]) -> bool:
        """Whether they all stand where the next samples belong; if so they are part of the shard from now on."""
        end = self._used
        for samples in signals:
            if self._placed.get(end) is not samples:
                return False
            end += samples.size
        self._used = end
        return True

    def _put(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        start, self._used = self._used, self._used + samples.size
        self._end = max(self._end, self._used)
        self._make_room(samples.size)
        place = self._memory[start : self._used].reshape(samples.shape)
        place[:] = samples
        return place

    def _make_room(self, size: int) -> None:
        if self._end > self._memory.size:  # the old memory lives on in the rows that hold it
            grown = np.empty(max(self._end, 2 * self._used, self._rows * size), np.int16)
            grown[: self._memory.size] = self._memory
            self._memory = grown
            self._placed = {}


def rows_to_table(rows: Sequence[Row], buffer: SampleBuffer | None = None) -> pa.Table:
    """An arrow table of ``record.SCHEMA``; samples are copied once, or not at all when they stand in ``buffer``."""
    columns = [_column(name, rows, buffer) for name in COLUMNS]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


_IO_ERROR = "File out of specification"  # what polars says of a file that does not take what it writes


def write_table(table: pa.Table, file: IO[bytes] | NewFile, compression: Compression) -> None:
    """Write the table as parquet: the same bytes for the same rows."""
    rows_a_group = max(1, ROW_GROUP_BYTES * table.num_rows // max(table.nbytes, 1))
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - for the type checker: a table is no series
    try:
        frame.write_parquet(
            file,  # type: ignore[arg-type]
            compression="uncompressed" if compression == "none" else compression,
            compression_level=1 if compression == "zstd" else None,
            statistics=False,
            row_group_size=min(rows_a_group, max(table.num_rows, 1)),
            metadata={
                "huggingface": FEATURES_JSON,
                "ARROW:schema": base64.b64encode(SCHEMA.serialize().to_pybytes()).decode(),
            },
        )
    except pl.exceptions.PolarsError as error:
        # Python stops at the door of ``write`` too, before its first line, and for polars that is an error like others.
        if _IO_ERROR in str(error) and isinstance(file, NewFile) and not file.has_failed:
            raise KeyboardInterrupt from error
        raise


def table_to_parquet(table: pa.Table, compression: Compression) -> bytes:
    """The bytes of a parquet file that holds the table."""
    buffer = io.BytesIO()
    write_table(table, buffer, compression)
    return buffer.getvalue()


def check_shard(file: pq.ParquetFile, rows: int) -> None:
    """Look at what was written; raises ``CorpusError`` when its schema or number of rows is not what was meant."""
    if file.metadata.num_rows != rows:
        raise CorpusError(f"a shard of {rows} rows came out with {file.metadata.num_rows}.")
    if not has_row_schema(file.schema_arrow):
        raise CorpusError("a shard came out with another schema than the row's.")


def has_row_schema(schema: pa.Schema) -> bool:
    """Whether a file's schema is the row's, its metadata included; parquet has its own name for a list's elements."""
    return bool(schema.equals(SCHEMA, check_metadata=False)) and schema.metadata == SCHEMA.metadata


def _column(name: str, rows: Sequence[Row], buffer: SampleBuffer | None) -> pa.Array:
    arrow_type = SCHEMA.field(name).type
    if name == "signals":
        return _signals([row.media.signals for row in rows], arrow_type, buffer)
    if name in ("images", "masks"):
        values: list[Any] = [[{"bytes": data, "path": None} for data in getattr(row.media, name)] for row in rows]
    elif name == "boxes":
        values = [[_box(box) for box in row.media.boxes] for row in rows]
    elif name in ("views", "quality", "provenance"):
        fields = [field.name for field in arrow_type.value_type]
        values = [[{f: getattr(one, f) for f in fields} for one in getattr(row.media, name)] for row in rows]
    else:
        values = [row.text[name] for row in rows]
    return pa.array(values, arrow_type)


def _box(box: BoxOnImage) -> dict[str, Any]:
    return {"label": box.label, "image": box.image, "xyxy": list(box.xyxy), "agreement": box.agreement}


def _signals(signals: Sequence[Sequence[Signal]], arrow_type: pa.DataType, buffer: SampleBuffer | None) -> pa.Array:
    """The signals column, built from whole arrays: a Python list of the samples would cost a hundred times as much."""
    every = [signal for of_row in signals for signal in of_row]
    struct = arrow_type.value_type
    leads = [lead for signal in every for lead in signal.samples]
    samples = np.concatenate([np.empty(0, np.int16), *leads]) if buffer is None else buffer.samples()
    by_lead = pa.ListArray.from_arrays(_offsets([lead.size for lead in leads]), pa.array(samples))
    by_signal = pa.ListArray.from_arrays(_offsets([signal.samples.shape[0] for signal in every]), by_lead)
    fields = {"samples": by_signal.cast(struct.field("samples").type)}
    for field in struct:
        if field.name != "samples":
            fields[field.name] = pa.array([_plain(getattr(signal, field.name)) for signal in every], field.type)
    structs = pa.StructArray.from_arrays([fields[field.name] for field in struct], fields=list(struct))
    return pa.ListArray.from_arrays(_offsets([len(of_row) for of_row in signals]), structs, type=arrow_type)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _offsets(lengths: Sequence[int]) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise CorpusError("a shard holds more samples than an arrow list can: lower shards.rows in the recipe.")
    return pa.array(offsets.astype(np.int32))
