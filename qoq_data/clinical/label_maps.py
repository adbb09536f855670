"""Label maps: pictures whose pixel values are codes. Which codes get boxes under which names, and where they lie.

Names are written as ``1=tumor;2=stroma``: a value of the map, an equals sign, a name. Values with one name are one
structure. A value without a name gets no box, and 0, which is what nobody labelled, can have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qoq_data.clinical.boxes import Region, regions_from_labels
from qoq_data.clinical.tiling import Window, tile_rectangle
from qoq_data.errors import Reason, RecordError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_REGIONS", "Tile", "named_masks", "names_text", "parse_names", "region_tiles", "regions_of"]

MOST_REGIONS: Final = 20_000
_FEW_RUNS, _MANY_RUNS, _PIXELS_A_RUN = 100_000, 2_000_000, 16


@dataclass(frozen=True, slots=True)
class Tile:
    """A window cut out for the region at index ``region``, and how many of its pixels have each value, 0 too."""

    region: int
    window: Window
    pixels: Mapping[int, int]


def names_text(names: Mapping[int, str]) -> str:
    """Values and their names as the text of a ``label_map`` medium's ``part``; what ``parse_names`` reads."""
    text = ";".join(f"{value}={name}" for value, name in names.items())
    if parse_names(text) != dict(names):
        raise ValueError("a name of a label map's values holds a sign of the syntax")
    return text


def parse_names(text: str) -> dict[int, str]:
    """The name of each value; raises ``ValueError`` for text that is not written as the module says."""
    names: dict[int, str] = {}
    for entry in text.split(";"):
        value, equals, name = entry.partition("=")
        if not equals or not value.isascii() or not value.isdecimal() or "=" in name or not name.strip():
            raise ValueError("the values of a label map are named like 1=tumor;2=stroma")
        if int(value) == 0 or int(value) in names:
            raise ValueError(f"the value {value} of a label map is named twice, or is 0, which is what has no label")
        names[int(value)] = name
    return names


def named_masks(labels: NDArray[np.integer[Any]], names: Mapping[int, str]) -> list[tuple[str, NDArray[np.bool_]]]:
    """A mask a name, in the order in which names first stand: where the map has one of the name's values."""
    of_name: dict[str, list[int]] = {}
    for value, name in names.items():
        of_name.setdefault(name, []).append(value)
    return [(name, np.isin(labels, values)) for name, values in of_name.items()]


def regions_of(labels: NDArray[np.integer[Any]]) -> list[Region]:
    """Connected regions of each value but 0, by value and then in raster order.

    Raises ``RecordError``: FORMAT_UNSUPPORTED for a map whose values change so often along its rows that it is a
    picture, which would have a region every few pixels; OVER_BUDGET for more than ``MOST_REGIONS``.
    """
    runs = int(np.count_nonzero(labels[:, 1:] != labels[:, :-1]))
    if runs > min(max(_FEW_RUNS, labels.size // _PIXELS_A_RUN), _MANY_RUNS):
        raise RecordError(Reason.FORMAT_UNSUPPORTED, f"its values change {runs} times along its rows: no label map")
    regions = regions_from_labels(labels)
    if len(regions) > MOST_REGIONS:
        raise RecordError(Reason.OVER_BUDGET, f"it has {len(regions)} regions, more than {MOST_REGIONS}")
    return regions


def region_tiles(labels: NDArray[np.integer[Any]], regions: list[Region]) -> list[Tile]:
    """The windows of each region in turn, as ``tile_rectangle`` lays them, counted out."""
    height, width = labels.shape
    tiles = []
    for index, region in enumerate(regions):
        rows, columns = region.slices
        for window in tile_rectangle((columns.start, rows.start, columns.stop, rows.stop), (width, height)):
            x0, y0, x1, y1 = window
            counts = np.bincount(labels[y0:y1, x0:x1].ravel())
            found = np.flatnonzero(counts)
            tiles.append(Tile(index, window, {int(value): int(counts[value]) for value in found}))
    return tiles
