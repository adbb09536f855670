"""The inspect step: what only the files know, read before anything is split, and kept by the files' identity.

An inspector takes one item's media and returns a row of facts. ``picture_content`` gives what joins the same picture
under two names, ``picture_originals`` what joins copies that were turned and zoomed; ``ecg_intervals`` measures an
ECG; ``dicom_headers`` reads what DICOM files say of side and view; ``label_regions`` finds the regions of a label map,
and the tiles that cover each, with what stands in a tile; ``volume_regions`` finds the instances of a label volume and
the slices on which each stands. Facts of files that have not changed come from the cache of
an earlier run; what cannot be read is a ledger line, and the item leaves the plan.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import polars as pl

from qoq_data.clinical.fingerprints import THUMBNAIL_SHAPE, confirmed_pairs, pixel_digest, thumbnail
from qoq_data.clinical.label_maps import region_tiles, regions_of
from qoq_data.clinical.rotated_copies import COPY_SHAPE, copy_thumbnail, rotated_copy_links
from qoq_data.clinical.volumes import NORMAL_AXIS
from qoq_data.corpus.ledger import Skip
from qoq_data.corpus.manifest import WORK_FOLDER
from qoq_data.corpus.pictures import IMAGE_FILE_LIMIT, read_label_volume, read_picture, read_tiled_labels
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render_signals import render_signal, signal_millivolts
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom import laterality_of
from qoq_data.formats.dicom_file import read_header
from qoq_data.formats.storage import RecordingStore, Store
from qoq_data.recipe import SignalRecipe
from qoq_data.source import PICTURE_KINDS

ITEMS_A_JOB = 64

Job = TypeVar("Job")
Result = TypeVar("Result")


class Engine(Protocol):
    """Where jobs run; results come in any order, and closing the generator ends what still runs."""

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Generator[Result, None, None]: ...


@dataclass(frozen=True, slots=True)
class Inspector:
    """``measure`` returns a value for each column of ``schema``."""

    schema: Mapping[str, Any]
    measure: Callable[[Store, Sequence[MediaReference]], Mapping[str, Any]]


def _picture_content(tree: Store, media: Sequence[MediaReference]) -> Mapping[str, Any]:
    digest = hashlib.sha256()
    first = None
    for reference in media:
        if reference.kind in PICTURE_KINDS:
            pixels = read_picture(tree, replace(reference, window=None)).decoded.pixels
            digest.update(pixel_digest(pixels).encode())
            first = thumbnail(pixels).tobytes() if first is None else first
    return {"digest": digest.hexdigest(), "thumbnail": first}


def _picture_originals(tree: Store, media: Sequence[MediaReference]) -> Mapping[str, Any]:
    first = next(one for one in media if one.kind in PICTURE_KINDS)
    return {"copy_thumbnail": copy_thumbnail(read_picture(tree, first).decoded.pixels).tobytes()}


def _ecg_intervals(tree: Store, media: Sequence[MediaReference]) -> Mapping[str, Any]:
    from qoq_data.clinical.ecg_intervals import choose_lead, measure_intervals

    reference = next(one for one in media if one.kind == "wfdb")
    rendered = render_signal(tree, reference.path, reference.role, SignalRecipe())
    values = signal_millivolts(rendered.signal)
    lead = choose_lead(values, rendered.signal.lead_names)
    if lead is None:
        raise RecordError(Reason.LEAD_MISSING, "there is no lead to measure on", reference.path)
    found = measure_intervals(values[lead], rendered.signal.sampling_frequency_hz)
    return {
        "heart_rate_bpm": found.heart_rate_bpm,
        "rr_ms": found.rr_ms,
        "qrs_ms": found.qrs_ms,
        "qt_ms": found.qt_ms,
    }


_RECTANGLE = {"x0": pl.Int32, "y0": pl.Int32, "x1": pl.Int32, "y1": pl.Int32}
_REGIONS = pl.List(pl.Struct({"value": pl.Int32, **_RECTANGLE, "pixels": pl.Int64}))
_COUNTS = pl.List(pl.Struct({"value": pl.Int32, "pixels": pl.Int64}))
_TILES = pl.List(pl.Struct({"value": pl.Int32, **_RECTANGLE, "counts": _COUNTS}))


def _label_regions(tree: Store, media: Sequence[MediaReference]) -> Mapping[str, Any]:
    """Of the item's first label map, in its own pixels; a tile has the value of the region that it is of."""
    reference = next(one for one in media if one.kind == "label_map")
    labels = read_tiled_labels(tree.read(reference.path, IMAGE_FILE_LIMIT), reference.path)
    try:
        regions = regions_of(labels)
    except RecordError as error:
        raise RecordError(error.reason, error.detail, reference.path) from error
    rectangles = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in (r.slices for r in regions)]
    return {
        "regions": [
            {"value": region.value, **dict(zip(_RECTANGLE, rectangle, strict=True)), "pixels": region.size}
            for region, rectangle in zip(regions, rectangles, strict=True)
        ],
        "tiles": [
            {
                "value": regions[tile.region].value,
                **dict(zip(_RECTANGLE, tile.window, strict=True)),
                "counts": [{"value": value, "pixels": pixels} for value, pixels in tile.pixels.items()],
            }
            for tile in region_tiles(labels, regions)
        ],
    }


_HEADER = {
    **dict.fromkeys(("path", "laterality", "view", "view_code"), pl.String),
    **dict.fromkeys(("instance_number", "rows", "columns"), pl.Int64),
    "burned_in": pl.Boolean,
}


def _dicom_headers(tree: Store, media: Sequence[MediaReference]) -> Mapping[str, Any]:
    """Of each DICOM picture of the item in turn, without its pixels; what a header does not say is null or empty."""
    files = []
    for reference in media:
        if reference.kind == "dicom":
            header = read_header(tree, reference.path)
            view = header.item("ViewCodeSequence")
            number = header.number("InstanceNumber")
            burned_in = {"YES": True, "NO": False}.get(header.text("BurnedInAnnotation").upper())
            values = (
                reference.path,
                laterality_of(header),
                header.text("ViewPosition"),
                view.text("CodeValue") if view is not None else "",
                None if number is None else int(number),
                header.integer("Rows"),
                header.integer("Columns"),
                burned_in,
            )
            files.append(dict(zip(_HEADER, values, strict=True)))
    return {"files": files}


_INSTANCES = pl.List(
    pl.Struct(
        {
            "value": pl.Int32,
            "voxels": pl.Int64,
            "volume_mm3": pl.Float64,
            **{plane: pl.Struct(dict.fromkeys(("first", "last", "largest"), pl.Int32)) for plane in NORMAL_AXIS},
        }
    )
)


def _volume_regions(tree: Store, media: Sequence[MediaReference]) -> Mapping[str, Any]:
    """Of the item's first label volume, along canonical axes: of each instance the first and the last slice in each
    plane, both of it, and that of its largest cross-section."""
    reference = next(one for one in media if one.kind == "volume_labels")
    labels = read_label_volume(tree, reference.path)
    voxel_mm3 = math.prod(labels.volume.spacing_mm)
    instances = []
    for one in labels.instances.instances:
        row: dict[str, Any] = {"value": one.value, "voxels": one.voxels, "volume_mm3": one.voxels * voxel_mm3}
        for plane, axis in NORMAL_AXIS.items():
            reach = one.slices[axis]
            row[plane] = {"first": reach.start, "last": reach.stop - 1, "largest": one.largest[axis]}
        instances.append(row)
    return {
        "instances": instances,
        "shape": list(labels.volume.values.shape),
        "spacing_mm": list(labels.volume.spacing_mm),
    }


INSPECTORS: Mapping[str, Inspector] = {
    "picture_content": Inspector({"digest": pl.String, "thumbnail": pl.Binary}, _picture_content),
    "picture_originals": Inspector({"copy_thumbnail": pl.Binary}, _picture_originals),
    "ecg_intervals": Inspector(
        {"heart_rate_bpm": pl.Float64, "rr_ms": pl.Float64, "qrs_ms": pl.Float64, "qt_ms": pl.Float64}, _ecg_intervals
    ),
    "dicom_headers": Inspector({"files": pl.List(pl.Struct(_HEADER))}, _dicom_headers),
    "label_regions": Inspector({"regions": _REGIONS, "tiles": _TILES}, _label_regions),
    "volume_regions": Inspector(
        {"instances": _INSTANCES, "shape": pl.List(pl.Int32), "spacing_mm": pl.List(pl.Float64)}, _volume_regions
    ),
}


@dataclass(frozen=True, slots=True)
class _Job:
    inspector: str
    raw: Store
    items: tuple[tuple[str, tuple[MediaReference, ...]], ...]


_BOOKKEEPING = {"item": pl.String, "identity": pl.String, "reason": pl.String, "path": pl.String, "detail": pl.String}


def _inspect(job: _Job) -> list[dict[str, Any]]:
    inspector = INSPECTORS[job.inspector]
    rows = []
    for item, media in job.items:
        tree = RecordingStore(job.raw.address)
        row: dict[str, Any] = dict.fromkeys((*_BOOKKEEPING, *inspector.schema)) | {"item": item}
        try:
            row |= inspector.measure(tree, media)
        except RecordError as error:
            row |= {"reason": str(error.reason), "path": error.path, "detail": error.detail}
        except MemoryError:
            row |= {"reason": str(Reason.OVER_BUDGET), "path": "", "detail": "there is not enough memory for it"}
        row["identity"] = _identity_text(job.raw, sorted(tree.seen))
        rows.append(row)
    return rows


def inspect_items(
    items: pl.DataFrame,
    source: str,
    inspector_name: str,
    raw: Store,
    corpus: Store | None,
    code: str,
    engine: Engine,
    keep: bool = True,
) -> tuple[pl.DataFrame, list[Skip]]:
    """Facts of the items that could be read (a row an item, by ``item``), and ledger lines of the others.

    With a ``corpus`` the facts are taken from there where neither file nor code changed, and kept there if ``keep``.
    """
    inspector = INSPECTORS[inspector_name]
    schema = _BOOKKEEPING | dict(inspector.schema)
    cache = f"{WORK_FOLDER}/inspect/{source}-{inspector_name}-{code[:16]}.parquet"
    known = _cached(corpus, cache, schema)
    kept = {row["item"]: row for row in known if _identity_text(raw, _paths(row["identity"])) == row["identity"]}
    wanted = [
        (row["item"], tuple(MediaReference.of(one) for one in row["media"]))
        for row in items.select("item", "media").iter_rows(named=True)
    ]
    missing = [entry for entry in wanted if entry[0] not in kept]
    jobs = [
        _Job(inspector_name, raw, tuple(missing[start : start + ITEMS_A_JOB]))
        for start in range(0, len(missing), ITEMS_A_JOB)
    ]
    for rows in engine.map(_inspect, jobs):
        kept |= {row["item"]: row for row in rows}
    facts = pl.DataFrame([kept[item] for item, _ in wanted], schema=schema).sort("item")
    if corpus is not None and keep and jobs:
        buffer = io.BytesIO()
        facts.write_parquet(buffer)
        corpus.write(cache, buffer.getvalue())
        folder, _, current = cache.rpartition("/")
        for name in corpus.names(folder):
            if name.startswith(f"{source}-{inspector_name}-") and name != current:
                corpus.remove(f"{folder}/{name}")
    unreadable = facts.filter(pl.col("reason").is_not_null())
    skips = [
        Skip(source, row["item"], row["reason"], row["path"], row["detail"]) for row in unreadable.iter_rows(named=True)
    ]
    return facts.filter(pl.col("reason").is_null()).select("item", *inspector.schema), skips


def _identity_text(raw: Store, paths: Sequence[str]) -> str:
    parts = []
    for path in paths:
        try:
            identity = raw.identity(path)
            parts.append(f"{path}\x1f{identity.size}\x1f{identity.modified}")
        except RecordError:
            parts.append(f"{path}\x1f\x1f")
    return "\x1e".join(parts)


def _paths(identity: str) -> list[str]:
    return [part.split("\x1f")[0] for part in identity.split("\x1e")]


def _cached(corpus: Store | None, path: str, schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    if corpus is None:
        return []
    try:
        frame = pl.read_parquet(io.BytesIO(corpus.read(path)))
    except (RecordError, pl.exceptions.PolarsError):
        return []
    return frame.to_dicts() if frame.schema == pl.Schema(schema) else []


def same_content(facts: pl.DataFrame) -> list[tuple[int, int]]:
    """Pairs of rows of ``picture_content`` facts that hold exactly the same pixels."""
    first: dict[str, int] = {}
    return [(first[digest], row) for row, digest in enumerate(facts["digest"]) if first.setdefault(digest, row) != row]


def near_content(facts: pl.DataFrame) -> list[tuple[int, int]]:
    """Pairs of rows of ``picture_content`` facts that show the same picture, maybe turned, flipped or re-encoded."""
    thumbnails = np.frombuffer(b"".join(facts["thumbnail"]), np.uint8).reshape(-1, *THUMBNAIL_SHAPE)
    return [(i, j) for i, j, _ in confirmed_pairs(thumbnails)]


def same_original(facts: pl.DataFrame) -> list[tuple[int, int]]:
    """Pairs of rows of ``picture_originals`` facts that join the turned, flipped and zoomed copies of an original."""
    thumbnails = np.frombuffer(b"".join(facts["copy_thumbnail"]), np.uint8).reshape(-1, *COPY_SHAPE)
    return rotated_copy_links(thumbnails)


def conflicting(facts: pl.DataFrame, items: pl.DataFrame) -> set[str]:
    """Items that hold exactly the same pixels as another but a different answer to a task."""
    answers = [column for column in items.columns if column.startswith("answer.")]
    joined = facts.select("item", "digest").join(items.select("item", *answers), on="item")
    clashing: set[str] = set()
    for column in answers:
        labelled = joined.filter(pl.col(column).is_not_null())
        answer = pl.col(column)
        text = answer.list.sort().list.join("\x1f") if labelled.schema[column] == pl.List else answer.cast(pl.String)
        counts = labelled.with_columns(text.alias("text"))
        clashes = counts.group_by("digest").agg(pl.col("text").n_unique().alias("kinds")).filter(pl.col("kinds") > 1)
        clashing |= set(labelled.join(clashes, on="digest", how="semi")["item"])
    return clashing


def conflict_skips(source: str, items: pl.DataFrame, clashing: set[str]) -> list[Skip]:
    rows = items.filter(pl.col("item").is_in(sorted(clashing))).select("item", "label_file").iter_rows()
    return [
        Skip(source, item, str(Reason.LABEL_CONFLICT), path, "the same picture stands under another answer too")
        for item, path in rows
    ]
