"""Where labels and their instances lie in a label volume, and what of them stands on a slice.

An instance is a connected component of one value (26 neighbours: voxels that touch by a corner belong together).
Values of any size stay distinct, neighbours of different values are never joined, and where one structure's box lies
inside another's both stay. Instances come by value, and then in the raster order of their first voxel along canonical
axes, however the file stores them. Small ones stay unless a smallest volume in mm³ is asked for: a count of voxels
would drop a 17 mm lesion at 5 mm slices and keep a speck at 0.5 mm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qoq_data.clinical.label_maps import names_text, parse_names
from qoq_data.clinical.volumes import NORMAL_AXIS, check_slice, slice_of
from qoq_data.errors import Reason, RecordError

__all__ = [
    "Instance", "InstanceMap", "find_instances", "label_extents", "parse_volume_names", "sections",
    "volume_names_text",
]  # fmt: skip

MOST_INSTANCES: Final = 5_000
_INTERLEAVED: Final = 64
"""How many times over the boxes of instances may cover the labelled part of a volume: noise does so by the hundred."""
_DENSE_LABELS: Final = 1 << 16
_MINIMUM: Final = "least_mm3="
Voxels = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True)
class Instance:
    """One component: its value, its bounding slices along canonical axes, its voxels, and for each axis the index at
    which its cross-section is largest: of several that are, the one closest to its middle, then the lowest."""

    value: int
    slices: Voxels
    voxels: int
    largest: tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class InstanceMap:
    """The instances of a label volume of ``shape``; ``numbers`` [i, j, k] is 0 where there is none, and else n where
    ``instances[places[n - 1]]`` is. It covers the voxels ``part`` alone."""

    instances: tuple[Instance, ...]
    places: tuple[int, ...]
    numbers: NDArray[np.integer[Any]]
    part: Voxels
    shape: tuple[int, int, int]


def label_extents(labels: NDArray[np.integer[Any]]) -> dict[int, Voxels]:
    """The bounding slices of each value other than 0 of a label volume, by value: one pass over the voxels.

    The pass follows the memory, however the axes stand in it.
    """
    from scipy import ndimage

    if labels.size == 0:
        return {}
    order = sorted(range(3), key=lambda axis: -abs(labels.strides[axis]))
    runs = labels.transpose(order)
    backwards = [stride < 0 for stride in runs.strides]
    runs = runs[tuple(slice(None, None, -1 if one else 1) for one in backwards)]
    values: NDArray[np.integer[Any]]
    if labels.min() >= 0 and labels.max() <= _DENSE_LABELS:
        found = ndimage.find_objects(runs if runs.dtype.itemsize <= 4 else runs.astype(np.int32))
        values = np.arange(1, len(found) + 1)
    else:
        values, compact = np.unique(runs, return_inverse=True)
        found = ndimage.find_objects(compact.reshape(runs.shape).astype(np.int32) + 1)
    extents: dict[int, Voxels] = {}
    for value, box in zip(values.tolist(), found, strict=True):
        if box is not None and value != 0:
            turned = [
                slice(size - one.stop, size - one.start) if back else one
                for one, back, size in zip(box, backwards, runs.shape, strict=True)
            ]
            extents[value] = (turned[order.index(0)], turned[order.index(1)], turned[order.index(2)])
    return extents


def find_instances(labels: NDArray[np.integer[Any]]) -> InstanceMap:
    """The instances of every value other than 0 of canonical labels [i, j, k].

    Raises ``RecordError``: OVER_BUDGET for more than ``MOST_INSTANCES``, FORMAT_UNSUPPORTED where instances are so
    interleaved that it is a picture and no label map.
    """
    import cc3d
    from scipy import ndimage

    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    extents = label_extents(labels).values()
    if not extents:
        nothing = (slice(0, 0),) * 3
        return InstanceMap((), (), np.zeros((0, 0, 0), np.uint16), nothing, shape)
    starts, stops = ([[getattr(one, end) for one in box] for box in extents] for end in ("start", "stop"))
    low, high = np.min(starts, axis=0).tolist(), np.max(stops, axis=0).tolist()
    part = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    inside = np.array(labels[part], order="K")  # a copy always: cc3d takes no array that is read-only
    numbers, count = cc3d.connected_components(inside, connectivity=26, return_N=True)
    if count > MOST_INSTANCES:
        raise RecordError(Reason.OVER_BUDGET, f"its labels have {count} instances, more than {MOST_INSTANCES}")
    boxes = ndimage.find_objects(numbers, max_label=count)
    if sum(math.prod(one.stop - one.start for one in box) for box in boxes) > _INTERLEAVED * inside.size:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, f"its {count} instances are interleaved: no label map")
    found = []
    for number, box in enumerate(boxes, 1):
        mask = numbers[box] == number
        first = np.unravel_index(int(mask.argmax()), mask.shape)
        offset = [one.start + start for one, start in zip(box, low, strict=True)]
        place = tuple(int(one) + start for one, start in zip(first, offset, strict=True))
        value = int(inside[box][first])
        found.append((value, place, number, _measure(mask, value, offset)))
    found.sort(key=lambda one: one[:3])
    place_of = {number: place for place, (_, _, number, _) in enumerate(found)}
    places = tuple(place_of[number] for number in range(1, count + 1))
    return InstanceMap(tuple(one[3] for one in found), places, numbers, part, shape)


def _measure(mask: NDArray[np.bool_], value: int, offset: list[int]) -> Instance:
    largest = []
    for axis, start in enumerate(offset):
        areas = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
        best = np.flatnonzero(areas == areas.max())
        largest.append(start + int(best[np.abs(2 * best - (mask.shape[axis] - 1)).argmin()]))
    bounds = tuple(slice(start, start + size) for start, size in zip(offset, mask.shape, strict=True))
    return Instance(
        value,
        (bounds[0], bounds[1], bounds[2]),
        int(np.count_nonzero(mask)),
        (largest[0], largest[1], largest[2]),
    )


def sections(found: InstanceMap, plane: str, index: int) -> list[tuple[Instance, NDArray[np.bool_]]]:
    """The instances that a slice cuts, in their order, each with its cross-section bool [rows, columns] as shown.

    Raises ``RecordError`` (HEADER_MISMATCH) for a slice that the volume has not.
    """
    check_slice(found.shape, plane, index)
    axis, at = NORMAL_AXIS[plane], index - found.part[NORMAL_AXIS[plane]].start
    if not 0 <= at < found.numbers.shape[axis]:
        return []
    section = found.numbers[tuple(slice(at, at + 1) if one == axis else slice(None) for one in range(3))]
    cut = np.zeros([1 if one == axis else size for one, size in enumerate(found.shape)], section.dtype)
    cut[tuple(slice(0, 1) if one == axis else found.part[one] for one in range(3))] = section
    shown = slice_of(cut, plane, 0)
    present = np.flatnonzero(np.bincount(section.ravel())).tolist()
    cuts = sorted((found.places[number - 1], number) for number in present if number)
    return [(found.instances[place], shown == number) for place, number in cuts]


def volume_names_text(names: Mapping[int, str], least_mm3: float = 0) -> str:
    """The ``part`` of a ``volume_labels`` medium: values, their names, and the smallest volume in mm³ that is kept."""
    return names_text(names) + (f";{_MINIMUM}{least_mm3!r}" if least_mm3 else "")


def parse_volume_names(text: str) -> tuple[dict[int, str], float]:
    """The name of each value, and the smallest volume in mm³ (0: all are kept); ``ValueError`` for other text."""
    names, found, least = text.partition(f";{_MINIMUM}")
    least_mm3 = float(least) if found else 0.0
    if not (math.isfinite(least_mm3) and least_mm3 >= 0):
        raise ValueError("the smallest volume of a label volume's instances is a number of mm³, as in least_mm3=10.0")
    return parse_names(names), least_mm3
