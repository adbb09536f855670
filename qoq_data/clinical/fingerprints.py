"""Fingerprints of pictures: which are the same picture, exactly or after re-encoding, resizing, turns and flips.

Three steps, each surer than the one before. ``pixel_digest`` is equal for equal pixels only. Perceptual hashes find
candidates: 63 signs of the lowest spatial frequencies (pHash), complete to a stated distance. ``confirm_pair``
compares the thumbnails of a candidate pair, since frames of one ultrasound machine share depth shading and outline
and so many of these signs.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
_ROWS: Final = 64
_COLUMNS: Final = 4096  # 64 x 4096 hashes: a block that stays in a core's cache


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

    ``hashes`` is uint64 [n, 8]. Every pair is compared, so the answer is complete and the time, n² / 2 x 8 counts of
    bits, depends on nothing but n: 30,000 pictures take some seconds.
    """
    n = len(hashes)
    turns = np.ascontiguousarray(hashes.T)
    pairs: list[tuple[int, int, int]] = []
    for top in range(0, n, _ROWS):
        rows = turns[0, top : top + _ROWS, None]
        for left in range(top, n, _COLUMNS):
            columns = turns[:, None, left : left + _COLUMNS]
            nearest = np.bitwise_count(rows ^ columns[0])
            for turn in columns[1:]:
                np.minimum(nearest, np.bitwise_count(rows ^ turn), out=nearest)
            i, j = np.nonzero(nearest <= max_distance)
            after = i + top < j + left
            i, j = i[after], j[after]
            pairs.extend(zip((i + top).tolist(), (j + left).tolist(), nearest[i, j].tolist(), strict=True))
    return sorted(pairs)


def confirm_pair(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Whether two thumbnails [32, 32] show one picture, in any turn or flip and at any brightness and contrast.

    Both are brought to mean 0 and deviation 1; their mean absolute difference in the best of the eight turns must be
    below ``CONFIRM_THRESHOLD``. Two flat pictures are one picture; a flat one and another are not.
    """
    spreads = float(first.std()), float(second.std())
    if min(spreads) < _FLAT_LEVELS:
        return max(spreads) < _FLAT_LEVELS and abs(float(first.mean()) - float(second.mean())) < _FLAT_LEVELS
    a = (first - first.mean()) / spreads[0]
    b = (second - second.mean()) / spreads[1]
    turns = (turned for k in range(4) for turned in (np.rot90(b, k), np.rot90(b, k)[::-1]))
    return any(float(np.abs(a - turned).mean()) < CONFIRM_THRESHOLD for turned in turns)


def confirmed_pairs(thumbnails: NDArray[np.uint8], max_distance: int = MAX_DISTANCE) -> list[tuple[int, int, int]]:
    """(i, j, distance), i < j in rising order: candidates of the hashes that the thumbnails [n, 32, 32] confirm."""
    candidates = near_duplicate_pairs(thumbnail_hashes(thumbnails), max_distance)
    return [pair for pair in candidates if confirm_pair(thumbnails[pair[0]], thumbnails[pair[1]])]
