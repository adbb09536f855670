"""Fingerprints of pictures: which are the same picture, exactly or after re-encoding, resizing, turns and flips.

Three steps, each surer than the one before. ``pixel_digest`` is equal for equal pixels only. Perceptual hashes find
candidates: 63 signs of the lowest spatial frequencies (pHash), complete to a stated distance. ``confirm_pair``
compares the thumbnails of a candidate pair, since frames of one ultrasound machine share depth shading and outline
and so many of these signs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_DISTANCE: Final = 10
"""Bits of 63 in which two views of one picture may differ; re-encoding, resizing, turning and brightening: 0 to 4."""

CONFIRM_THRESHOLD: Final = 0.15
"""Largest mean absolute difference of two standardised thumbnails of one picture, in standard deviations.

Views of one picture (speckle made like ultrasound; BUSI and brain slices) were within 0.04. The nearest two of 400
different speckle pictures were 0.47 apart, of 25 different real ones 0.33.
"""

_SIDE: Final = 32
THUMBNAIL_SHAPE: Final = (_SIDE, _SIDE)
_LOW: Final = 8
_COSINES: Final = np.cos(np.pi / _SIDE * np.arange(_LOW)[:, None] * (np.arange(_SIDE) + 0.5))
_FLAT_LEVELS: Final = 2.0  # a thumbnail that spreads less than this has no content to standardise, only noise
_BLACK: Final = 12  # the most that JPEG and averaging leave of a black surround, in levels
_ROWS: Final = 64
_COLUMNS: Final = 4096  # 64 x 4096 hashes: a block that stays in a core's cache
_QUERIES: Final = 128
_STAGES: Final = 16
_LANES: Final = 4
_LANE_BITS: Final = 16
_INDEX_FROM: Final = 4096  # hashes; fewer are compared faster than indexed
_CANDIDATE_COST: Final = 2.5  # of looking a candidate up, in comparisons of two pictures in eight turns


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """sha256 over the shape and the pixels of a decoded upright picture; grey stored as RGB counts as grey."""
    if pixels.ndim == 3 and (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all():
        pixels = pixels[..., 0]
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture as 32 x 32 grey levels, each the weighted mean of its part, whatever the aspect.

    The kernel is symmetric, so that the thumbnail of a turned picture is the turned thumbnail to a grey level; with
    Pillow's box it is not, and hashes of turns differ by twice as many bits.
    """
    grey = Image.fromarray(pixels).convert("L")
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.HAMMING, reducing_gap=3.0))


def perceptual_hashes_dihedral(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint64 [8]: element k is the perceptual hash of the picture turned as by EXIF orientation k + 1."""
    return thumbnail_hashes(thumbnail(pixels)[None]).reshape(8)


def thumbnail_hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint64 [n, 8] of thumbnails [n, 32, 32]: all turns from the lowest 8 x 8 terms of one cosine transform (DCT-II).

    A flip changes the sign of the odd frequencies along its axis, a transposition swaps the axes.
    """
    spectrum = _COSINES @ thumbnails @ _COSINES.T
    odd = np.where(np.arange(_LOW) % 2 == 1, -1.0, 1.0)
    x, y = spectrum * odd[None, None, :], spectrum * odd[None, :, None]
    both = x * odd[None, :, None]
    turned = np.stack([spectrum, x, both, y, *(v.transpose(0, 2, 1) for v in (spectrum, y, both, x))], axis=1)
    bits = (np.round(turned, 6) > 0).reshape(len(thumbnails), 8, _LOW * _LOW)  # rounding: a flat picture has no signs
    bits[..., 0] = False  # the mean, which brightness changes
    hashes: NDArray[np.uint64] = np.packbits(bits, axis=-1).view(">u8")[..., 0].astype(np.uint64)
    return hashes


def perceptual_hash(pixels: NDArray[np.uint8]) -> np.uint64:
    """The hash of the picture as it stands."""
    return np.uint64(perceptual_hashes_dihedral(pixels)[0])


def canonical_hash(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The least of the eight hashes, [..., 8] to [...]: the same for a picture and its turns and flips."""
    return np.asarray(hashes.min(axis=-1))


def near_duplicate_pairs(hashes: NDArray[np.uint64], max_distance: int = MAX_DISTANCE) -> list[tuple[int, int, int]]:
    """All (i, j, distance), i < j in rising order, with a turn of j within ``max_distance`` bits of picture i.

    ``hashes`` is uint64 [n, 8]. The answer is complete. 300,000 hashes of unlike pictures take about half a minute
    (``python -m benchmarks near_duplicates``); where so many are alike that an index does not help, or for distances
    over 11, every pair is compared, seventeen times as slow.
    """
    i, j, distance = _near_pairs(hashes, max_distance)
    return list(zip(i.tolist(), j.tolist(), distance.tolist(), strict=True))


_Pairs = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]


def _near_pairs(hashes: NDArray[np.uint64], max_distance: int) -> _Pairs:
    radius = max_distance // _LANES
    if len(hashes) < _INDEX_FROM or radius > _LANES // 2:
        return _in_order(_compared(hashes, np.arange(len(hashes)), max_distance), len(hashes))
    lanes = np.stack([_in_lanes(hashes[:, 0]), _in_lanes(hashes[:, 4])], axis=1)
    turned = lanes[:, :, None] ^ _FLIPS
    expected = np.stack([_in_lanes(turn) for turn in hashes.T], axis=1).reshape(-1, 2, 4)
    regular = (turned == expected).all(axis=(1, 2))
    keys = lanes[regular]
    if _count_candidates(keys, radius) * _CANDIDATE_COST > len(hashes) ** 2 / 2:
        return _in_order(_compared(hashes, np.arange(len(hashes)), max_distance), len(hashes))
    places = np.flatnonzero(regular)
    indexed = [(places[i], places[j], distance) for i, j, distance in _looked_up(keys, radius, max_distance)]
    return _in_order([*indexed, *_compared(hashes, np.flatnonzero(~regular), max_distance)], len(hashes))


def _in_order(found: Iterable[_Pairs], n: int) -> _Pairs:
    """Each pair once, by i and j."""
    parts = list(found)
    if not parts:
        return np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0, np.uint8)
    i, j, distance = (np.concatenate(part) for part in zip(*parts, strict=True))
    pair, first = np.unique(i * n + j, return_index=True)
    return pair // n, pair % n, distance[first]


def _compared(hashes: NDArray[np.uint64], rows: NDArray[np.intp], max_distance: int) -> Iterator[_Pairs]:
    """Near pairs of which one is of ``rows``, by comparing each of them with all later hashes and the turns of each."""
    turns = np.ascontiguousarray(hashes.T)
    one_by_one = len(rows) < len(hashes)
    for top in range(0, len(rows), _ROWS):
        block = rows[top : top + _ROWS]
        for left in range(0 if one_by_one else top, len(hashes), _COLUMNS):
            columns = turns[:, None, left : left + _COLUMNS]
            nearest = np.bitwise_count(turns[0, block, None] ^ columns[0])
            for turn in columns[1:]:
                np.minimum(nearest, np.bitwise_count(turns[0, block, None] ^ turn), out=nearest)
            i, j = np.nonzero(nearest <= max_distance)
            distance = nearest[i, j]
            first, second = block[i], j + left
            other = first != second if one_by_one else first < second
            first, second, distance = first[other], second[other], distance[other]
            yield np.minimum(first, second), np.maximum(first, second), distance


def _lane_order() -> NDArray[np.intp]:
    """Places of the 64 bits, so that the four lanes of 16 hold one parity of both frequencies each."""
    row, column = np.divmod(np.arange(_LOW * _LOW), _LOW)
    return np.asarray(np.lexsort((column, row, column % 2, row % 2)))


_LANE_ORDER: Final = _lane_order()
_FLIPS: Final = np.array([0, 0x0000FFFF0000FFFF, 0x0000FFFFFFFF0000, 0x00000000FFFFFFFF], np.uint64)
"""What the turns of EXIF 1, 2, 3 and 4 do to hashes in lanes: a flip changes the sign of all odd frequencies."""


def _in_lanes(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = np.unpackbits(np.ascontiguousarray(hashes).astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    lanes = np.ascontiguousarray(np.packbits(bits[:, _LANE_ORDER], axis=1))
    return lanes.view(">u8")[:, 0].astype(np.uint64)


def _lane(keys: NDArray[np.uint64], lane: int) -> NDArray[np.intp]:
    return ((keys >> np.uint64(_LANE_BITS * (_LANES - 1 - lane))) & np.uint64(0xFFFF)).astype(np.intp)


def _changes(lane: int, radius: int) -> NDArray[np.intp]:
    """What two lanes of near hashes may differ by: up to ``radius`` bits, or all but so many where a flip inverts."""
    every = np.arange(1 << _LANE_BITS)
    few = every[np.bitwise_count(every) <= radius]
    return few if lane == 0 else np.concatenate([few, few ^ 0xFFFF])


def _count_candidates(keys: NDArray[np.uint64], radius: int) -> float:
    """How many candidates the index would give, from a sample of a thousand."""
    if not len(keys):
        return 0.0
    step = max(1, len(keys) // 1000)
    total = 0
    for lane in range(_LANES):
        for orientation in (0, 1):
            sizes = np.bincount(_lane(keys[:, orientation], lane), minlength=1 << _LANE_BITS)
            total += int(sizes[_lane(keys[::step, 0], lane)[:, None] ^ _changes(lane, radius)].sum())
    return total * step / 2


def _looked_up(keys: NDArray[np.uint64], radius: int, max_distance: int) -> Iterator[_Pairs]:
    """Near pairs by the pigeonhole principle: of four lanes at least one differs by a quarter of the bits at most.

    ``keys`` [n, 2] are hashes in lanes as they stand and transposed; flips leave a lane alone or invert it whole. The
    index is made anew for later rows at some stages, since a row is only looked up among those after it.
    """
    n = len(keys)
    stage = max(1, -(-n // _STAGES))
    for begin in range(0, n, stage):
        for lane in range(_LANES):
            changes = _changes(lane, radius)
            for orientation in (0, 1):
                values = _lane(keys[begin:, orientation], lane)
                order = np.argsort(values, kind="stable")
                sorted_keys = keys[begin:, orientation][order]
                starts = np.searchsorted(values[order], np.arange((1 << _LANE_BITS) + 1))
                for top in range(begin, min(begin + stage, n), _QUERIES):
                    queries = keys[top : min(top + _QUERIES, begin + stage), 0]
                    buckets = (_lane(queries, lane)[:, None] ^ changes).ravel()
                    sizes = starts[buckets + 1] - starts[buckets]
                    ends = np.cumsum(sizes)
                    place = np.repeat(starts[buckets] - ends + sizes, sizes) + np.arange(ends[-1])
                    each = sizes.reshape(len(queries), -1).sum(axis=1)
                    difference = np.repeat(queries, each) ^ sorted_keys[place]
                    nearest = np.bitwise_count(difference)
                    for flip in _FLIPS[1:]:
                        np.minimum(nearest, np.bitwise_count(difference ^ flip), out=nearest)
                    near = np.flatnonzero(nearest <= max_distance)
                    i = np.searchsorted(np.cumsum(each), near, side="right") + top
                    j = order[place[near]] + begin
                    later = i < j
                    yield i[later], j[later], nearest[near[later]]


def confirm_pair(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Whether two thumbnails [32, 32] show one picture, in any turn or flip and at any brightness and contrast.

    Both are brought to mean 0 and deviation 1; their mean absolute difference in the best of the eight turns must be
    below ``CONFIRM_THRESHOLD``, over the whole and over what is not black in both: the black frame that all fundus
    photographs share is no likeness. Two flat pictures are one picture; a flat one and another are not.
    """
    return bool(_confirmed(first[None], second[None])[0])


def confirmed_pairs(thumbnails: NDArray[np.uint8], max_distance: int = MAX_DISTANCE) -> list[tuple[int, int, int]]:
    """(i, j, distance), i < j in rising order: candidates of the hashes that the thumbnails [n, 32, 32] confirm."""
    first, second, distance = _near_pairs(thumbnail_hashes(thumbnails), max_distance)
    pairs: list[tuple[int, int, int]] = []
    for start in range(0, len(first), _COLUMNS):
        i, j, bits = (part[start : start + _COLUMNS] for part in (first, second, distance))
        kept = _confirmed(thumbnails[i], thumbnails[j])
        pairs.extend(zip(i[kept].tolist(), j[kept].tolist(), bits[kept].tolist(), strict=True))
    return pairs


def _agree_where_lit(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether pairs [n, 32, 32] in one turn agree as they must where either is not black, clear of the frame's edge."""
    lit = _clear_of_black(first) | _clear_of_black(second)
    count = np.maximum(lit.sum(axis=(1, 2)), 1)[:, None, None]
    sides = []
    for side in (first, second):
        centred = np.where(lit, side - (side * lit).sum(axis=(1, 2), keepdims=True) / count, 0.0)
        spread = np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True) / count)
        sides.append(centred / np.maximum(spread, _FLAT_LEVELS))
    difference = np.abs(sides[0] - sides[1]).sum(axis=(1, 2)) / count[:, 0, 0]
    return np.asarray(difference < CONFIRM_THRESHOLD)


def _clear_of_black(thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels that are not black, nor any of their eight neighbours: an edge that is half frame is the frame's."""
    lit = np.pad(thumbnails > _BLACK, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    rows = lit[:, :-2] & lit[:, 1:-1] & lit[:, 2:]
    return np.asarray(rows[:, :, :-2] & rows[:, :, 1:-1] & rows[:, :, 2:])


def _confirmed(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """``confirm_pair`` of pairs [n, 32, 32]."""
    means = [side.mean(axis=(1, 2)) for side in (first, second)]
    spreads = [side.std(axis=(1, 2)) for side in (first, second)]
    flat = [spread < _FLAT_LEVELS for spread in spreads]
    a, b = (
        ((side - mean[:, None, None]) / np.maximum(spread, _FLAT_LEVELS)[:, None, None]).astype(np.float32)
        for side, mean, spread in zip((first, second), means, spreads, strict=True)
    )
    same = np.zeros(len(first), np.bool_)
    for quarter in range(4):
        turned, levels = (np.rot90(side, quarter, axes=(1, 2)) for side in (b, second))
        for flipped, seen in ((turned, levels), (turned[:, ::-1], levels[:, ::-1])):
            close = np.flatnonzero(np.abs(a - flipped).mean(axis=(1, 2)) < CONFIRM_THRESHOLD)
            same[close[_agree_where_lit(first[close], seen[close])]] = True
    both_flat = flat[0] & flat[1] & (np.abs(means[0] - means[1]) < _FLAT_LEVELS)
    return np.asarray(np.where(flat[0] | flat[1], both_flat, same))
