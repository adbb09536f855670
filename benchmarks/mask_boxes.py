"""``mask_boxes``: label volumes a second to the boxes of their labels, beside a loop of ``numpy.nonzero`` over them.

20 labels in 26 million voxels (512 x 512 x 100, uint8, the first index fastest as NIfTI stores them). The peer gets
the same voxels with the last index fastest, which is what ``nonzero`` is quickest on: as stored it takes many times as
long. Further rows: the same as canonical views, and the instances of each label too (``connected-components-3d``)
beside scikit-image's. The limit is one pass over the voxels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Result, seconds_in_turn
from qoq_data.clinical.volume_boxes import find_instances, label_extents

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE, SHAPE_QUICK = (512, 512, 100), (96, 96, 40)
ROUNDS, ROUNDS_QUICK = 5, 1
LABELS = 20


def run(quick: bool) -> Result:
    shape, rounds = (SHAPE_QUICK, ROUNDS_QUICK) if quick else (SHAPE, ROUNDS)
    volume = label_volume(shape)
    turned = volume[::-1, ::-1].transpose(2, 0, 1)
    straight = np.ascontiguousarray(volume)
    assert label_extents(volume) == by_nonzero(straight)
    boxes = seconds_in_turn(
        {
            "ours": lambda: label_extents(volume),
            "turned": lambda: label_extents(turned),
            "nonzero": lambda: by_nonzero(straight),
            "limit": volume.max,
        },
        rounds,
    )
    instances = seconds_in_turn(
        {"ours": lambda: find_instances(volume), "skimage": lambda: by_skimage(straight)}, 1 if quick else 3
    )
    plain = f"{1000 * boxes['nonzero']:.0f}"
    rows = [
        ("labels, as stored", f"{1000 * boxes['ours']:.1f}", plain, f"{boxes['nonzero'] / boxes['ours']:.1f}"),
        ("labels, canonical view", f"{1000 * boxes['turned']:.1f}", plain, f"{boxes['nonzero'] / boxes['turned']:.1f}"),
        (
            "instances (peer: skimage)",
            f"{1000 * instances['ours']:.0f}",
            f"{1000 * instances['skimage']:.0f}",
            f"{instances['skimage'] / instances['ours']:.1f}",
        ),
    ]
    return Result(
        name="mask_boxes",
        ours=1 / boxes["ours"],
        peer=1 / boxes["nonzero"],
        limit=1 / boxes["limit"],
        ratio=boxes["nonzero"] / boxes["ours"],
        unit="volumes/s",
        columns=("boxes of", "ours ms", "peer ms", "times the peer"),
        rows=tuple(rows),
    )


def label_volume(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Balls of 20 labels, three of each, in Fortran order."""
    rng = np.random.default_rng(6)
    volume = np.zeros(shape, np.uint8, order="F")
    for place in range(3 * LABELS):
        radius = int(rng.integers(4, min(shape) // 5))
        centre = [int(rng.integers(radius, side - radius)) for side in shape]
        ball = np.sum(np.square(np.indices([2 * radius + 1] * 3) - radius), axis=0) <= radius * radius
        part = volume[tuple(slice(one - radius, one + radius + 1) for one in centre)]
        part[ball] = place % LABELS + 1
    return volume


def by_nonzero(volume: NDArray[Any]) -> dict[int, tuple[slice, ...]]:
    """The plain way: for each label all its voxels, and the least and the most of their indices."""
    found = {}
    for value in range(1, LABELS + 1):
        places = np.nonzero(volume == value)
        if places[0].size:
            found[value] = tuple(slice(int(one.min()), int(one.max()) + 1) for one in places)
    return found


def by_skimage(volume: NDArray[Any]) -> list[tuple[int, ...]]:
    from skimage.measure import label, regionprops

    return [one.bbox for one in regionprops(label(volume, connectivity=3))]  # type: ignore[no-untyped-call]
