"""What the inspect step can measure of one item's media: a function an inspector, and the columns that it returns.

``picture_content`` gives what joins the same picture under two names, ``picture_originals`` what joins copies that were
turned and zoomed; ``ecg_intervals`` measures an ECG; ``dicom_headers`` reads what DICOM files say of side and view;
``label_regions`` finds the regions of a label map, and the tiles that cover each, with what stands in a tile;
``volume_regions`` finds the instances of a label volume and the slices on which each stands.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from qoq_data.clinical.fingerprints import pixel_digest, thumbnail
from qoq_data.clinical.label_maps import region_tiles, regions_of
from qoq_data.clinical.rotated_copies import copy_thumbnail
from qoq_data.clinical.volumes import NORMAL_AXIS
from qoq_data.corpus.pictures import IMAGE_FILE_LIMIT, read_label_volume, read_picture, read_tiled_labels
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render_signals import render_signal, signal_millivolts
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom import LATERALITY_KEYWORDS, laterality_of
from qoq_data.formats.dicom_file import read_header
from qoq_data.formats.storage import Store
from qoq_data.recipe import SignalRecipe
from qoq_data.source import PICTURE_KINDS


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
_HEADER_KEYWORDS = (
    *LATERALITY_KEYWORDS, "ViewPosition", "ViewCodeSequence", "InstanceNumber", "Rows", "Columns", "BurnedInAnnotation",
)  # fmt: skip


def _dicom_headers(tree: Store, media: Sequence[MediaReference]) -> Mapping[str, Any]:
    """Of each DICOM picture of the item in turn, without its pixels; what a header does not say is null or empty."""
    files = []
    for reference in media:
        if reference.kind == "dicom":
            header = read_header(tree, reference.path, _HEADER_KEYWORDS)
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
