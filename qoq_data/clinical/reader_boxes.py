"""Boxes that several readers drew on one picture, merged into one box a lesion, with how many readers drew it.

The rule knows no order, neither of readers nor of boxes, and no reader's name:

1. Two boxes of one label are of one lesion where their intersection over union reaches the threshold, and so are boxes
   that a chain of such pairs joins. Boxes of different labels are never merged.
2. A reader counts once for a lesion, however many boxes of it are theirs: edge by edge the median of them.
3. Each edge of the merged box is the median of the readers' edges: the middle one of three, halfway between two.

Every box drawn is in exactly one merged box, which says how many it holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

Edges = tuple[float, float, float, float]
"""Half-open ``(x0, y0, x1, y1)`` in pixels."""


@dataclass(frozen=True, slots=True, order=True)
class ReaderBox:
    """One box as one reader drew it."""

    label: str
    edges: Edges
    reader: str


@dataclass(frozen=True, slots=True)
class MergedBox:
    """One lesion: ``readers`` who drew it, and the number of boxes ``drawn`` of it.

    ``is_chained``: some two of its boxes do not reach the threshold themselves, and others between them do.
    """

    label: str
    edges: Edges
    readers: int
    drawn: int
    is_chained: bool


def has_area(edges: Edges) -> bool:
    return edges[0] < edges[2] and edges[1] < edges[3]


def overlap(one: Edges, other: Edges) -> float:
    """Intersection over union of two boxes that have an area, 0 to 1; the same whichever comes first."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(one) + _area(other) - shared)


def merge_reader_boxes(boxes: Iterable[ReaderBox], least_overlap: float) -> tuple[MergedBox, ...]:
    """The lesions that the boxes of one picture show, sorted by label and edges.

    Raises ``ValueError`` for a threshold that is not over 0 and at most 1, and for a box without an area.
    """
    if not 0 < least_overlap <= 1:
        raise ValueError(f"the least overlap of two boxes of one lesion is over 0 and at most 1, not {least_overlap}")
    by_label: dict[str, list[ReaderBox]] = defaultdict(list)
    for box in sorted(boxes):
        if not has_area(box.edges):
            raise ValueError("a box without an area cannot be merged")
        by_label[box.label].append(box)
    merged = [
        _merged(lesion, least_overlap) for of_label in by_label.values() for lesion in _lesions(of_label, least_overlap)
    ]
    return tuple(sorted(merged, key=lambda one: (one.label, one.edges)))


def _lesions(boxes: Sequence[ReaderBox], least_overlap: float) -> list[list[ReaderBox]]:
    """The boxes of one label in groups that no pair joins."""
    groups: list[list[ReaderBox]] = []
    for box in boxes:
        touched = [group for group in groups if any(overlap(box.edges, one.edges) >= least_overlap for one in group)]
        groups = [group for group in groups if not any(group is one for one in touched)]
        groups.append([box, *(one for group in touched for one in group)])
    return groups


def _merged(lesion: Sequence[ReaderBox], least_overlap: float) -> MergedBox:
    by_reader: dict[str, list[Edges]] = defaultdict(list)
    for box in lesion:
        by_reader[box.reader].append(box.edges)
    apart = any(overlap(one.edges, other.edges) < least_overlap for one in lesion for other in lesion)
    edges = _median([_median(drawn) for drawn in by_reader.values()])
    return MergedBox(lesion[0].label, edges, len(by_reader), len(lesion), apart)


def _median(boxes: Sequence[Edges]) -> Edges:
    """Edge by edge. It has an area, as its boxes have: the medians of left and right edges are in their order."""
    x0, y0, x1, y1 = (float(median(edge)) for edge in zip(*boxes, strict=True))
    return x0, y0, x1, y1


def _area(edges: Edges) -> float:
    return (edges[2] - edges[0]) * (edges[3] - edges[1])
