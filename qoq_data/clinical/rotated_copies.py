"""Copies of one picture turned by any angle, flipped, zoomed in and stretched, as augmentation software makes them.

A rotation that keeps the picture's size cuts the corners off: the copy shows the middle of its original, scaled up.
Augmentor's ``rotate``, which LC25000 was made with, scales width and height apart, so that a copy turned by 25 degrees
is 1.7 times as tall as it should be. Three steps:

1. ``copy_thumbnail`` keeps a picture as 80 x 80 grey levels (6.4 kB), all that the other steps look at.
2. For each of a few angles the disc that every copy shows is sampled in rings, undoing the zoom and stretch of that
   angle. A turn moves such a ring's Fourier series by a phase and a flip conjugates it, so the real parts of products
   of two rings' coefficients know neither: pictures whose products are near are candidates, by a blocked product of
   matrices over all pairs.
3. Candidates are confirmed by registration: the two discs at every angle near the candidate's, in both parities, turned
   against each other in steps of 1.9 degrees, must agree in their detail, their contrast and their brightness, and
   then in their detail wherever both pictures show the original.

A picture whose middle is blank has no detail to agree in; a wider disc is then looked at, which only copies turned by
at most 15 degrees, or zoomed by at most 1.4, show. Copies must share the original's centre, and have its levels.

Measured on drawn tissue of one stain, copies made by Augmentor's formula and saved as JPEG of quality 75:

* 20 copies each of 1,250 originals, a fifth of them 45 % blank: 4 copies of one blank original stood apart from its
  others, 24,996 did not; of 312 million pairs none was joined wrongly, so that no group held two originals. 3.5 minutes
  on two cores, 0.84 GB.
* 4 copies each of 1,000 originals: of 500 that were at most 25 % blank all were found whole, of 250 that were 45 %
  blank all but 1, of 250 that were 60 % blank all but 6, and none was joined wrongly.
* A plain turn by up to 45 degrees with its zoom: 150 of 150 pairs.

Of real pictures: 6 copies each of 19 skin and ultrasound pictures were found whole, none joined wrongly; two fundus
photographs have too little detail in their middle and were mostly missed. Five copies of one original of LC25000 that
stand printed in public were joined.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical.ring_spectra import (
    COARSE,
    COPY_SHAPE,
    REFERENCE_RADIUS,
    RINGS,
    SHARPNESS,
    Pictures,
    Places,
    Spectra,
    blur_wanted,
    coarse_band,
    pixel_at,
    power,
    ring_areas,
    ring_spectra,
    share_shown,
    views,
)

MAX_ANGLE: Final = 25

AGREEMENT: Final = 0.8
"""Least concordance of the detail of two copies, 1 for equal discs."""

WHOLE_AGREEMENT: Final = 0.6
"""Least correlation of the detail of two registered copies wherever both show the original.

Of 5,971 pairs of copies that were candidates 99 in 100 reached 0.63, and half 0.98; a miss is one of several links of
its group. The best of 7,324 wrong candidates, the likest of 8 million pairs, reached 0.44.
"""

LEAST_DETAIL: Final = 3.0
"""Deviation of a disc's detail in grey levels below which there is nothing to compare; JPEG noise on white is 0.3."""

_BRIGHTNESS: Final = 4.0  # grey levels by which the means of one disc in two copies may differ; found: 0.7
_ROUGH_BRIGHTNESS: Final = 12.0  # the same at the angles of candidates, which are up to 3 degrees off
_NEAR: Final = 0.40  # distance of two candidates
_PROMISING: Final = 0.7  # least agreement of a candidate at its own two angles
_TURNS: Final = 192
_REACH: Final = 3  # degrees about a candidate's angle that registration tries
_DIMENSIONS: Final = 64
_GRID: Final = (np.arange(COPY_SHAPE[0]) + 0.5) / COPY_SHAPE[0] * 2 - 1
_ITEMS, _POINTS, _PAIRS = 256, 8192, 256  # sizes of blocks; what they make stays below 100 MB


@dataclass(frozen=True, slots=True)
class _Disc:
    """A disc about the centre: its radius in half sides of the original, and the angles that candidates are made at."""

    radius: float
    angles: tuple[int, ...]
    largest: int


_INNER: Final = _Disc(REFERENCE_RADIUS, (0, 6, 12, 17, 21, 24), MAX_ANGLE)
_WIDE: Final = _Disc(0.68, (0, 4, 8, 12, 15), 15)


def copy_thumbnail(pixels: Pictures) -> Pictures:
    """The picture as 80 x 80 grey levels, whatever its aspect."""
    grey = Image.fromarray(pixels).convert("L")
    return np.asarray(grey.resize(COPY_SHAPE, Image.Resampling.HAMMING, reducing_gap=3.0))


def rotated_copy_links(thumbnails: Pictures) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, that join all copies of an original among thumbnails [n, 80, 80]: a tree a group.

    Every pair that is not yet joined is looked at: time goes with n² and memory with n.
    """
    groups = _Groups(len(thumbnails))
    blank = _link(thumbnails, np.arange(len(thumbnails)), _INNER, groups)
    _link(thumbnails, blank, _WIDE, groups)
    return sorted(groups.links)


class _Groups:
    """Which pictures are joined so far, and by which pairs."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))
        self.links: list[tuple[int, int]] = []

    def root(self, member: int) -> int:
        while self.parent[member] != member:
            self.parent[member] = self.parent[self.parent[member]]
            member = self.parent[member]
        return member

    def join(self, first: int, second: int) -> None:
        a, b = self.root(first), self.root(second)
        if a != b:
            self.parent[max(a, b)] = min(a, b)
            self.links.append((min(first, second), max(first, second)))


def _link(thumbnails: Pictures, members: Places, disc: _Disc, groups: _Groups) -> Places:
    """Join the members that agree on a disc; back come those that have no detail on it at one of its angles or more."""
    points, detailed = _descriptors(thumbnails[members], disc)
    for left, right in _candidates(points, detailed):
        for start in range(0, len(left), _PAIRS):
            a, b = left[start : start + _PAIRS], right[start : start + _PAIRS]
            first, second = members[a[:, 0]], members[b[:, 0]]
            apart = [groups.root(i) != groups.root(j) for i, j in zip(first.tolist(), second.tolist(), strict=True)]
            first, second, a, b = first[apart], second[apart], a[apart, 1], b[apart, 1]
            agreed = _agree(thumbnails[first], a, thumbnails[second], b, disc)
            for i, j in zip(first[agreed].tolist(), second[agreed].tolist(), strict=True):
                groups.join(i, j)
    return members[~detailed.all(axis=1)]


def _descriptors(thumbnails: Pictures, disc: _Disc) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A point float32 [n, angles, dimensions] for every picture and angle, and whether its disc has detail enough."""
    upper = np.triu_indices(RINGS // 2)
    twice = np.where(upper[0] == upper[1], 1, math.sqrt(2)).astype(np.float32)
    products = np.zeros((len(thumbnails), len(disc.angles), COARSE * len(twice)), np.float32)
    detailed = np.zeros(products.shape[:2], np.bool_)
    for start in range(0, len(thumbnails), _ITEMS):
        rows = slice(start, start + _ITEMS)
        for place, angle in enumerate(disc.angles):
            coarse = ring_spectra(thumbnails[rows], disc.radius, angle)[:COARSE] @ coarse_band()
            norm = np.sqrt(power(coarse))
            detailed[rows, place] = norm >= LEAST_DETAIL
            coarse = _joined_rings(coarse / np.maximum(norm, LEAST_DETAIL)[:, None])
            size = np.sqrt(np.sqrt((np.abs(coarse) ** 2).sum(axis=2, keepdims=True))) + np.float32(1e-6)
            coarse = coarse / size  # the product of two is then of the size of one
            found = np.real(coarse[..., upper[0]] * coarse[..., upper[1]].conj()) * twice
            products[rows, place] = found.transpose(1, 0, 2).reshape(len(norm), -1)
    return _principal(products, detailed), detailed


def _joined_rings(spectra: Spectra) -> Spectra:
    weights = np.sqrt(ring_areas())
    together = np.sqrt(weights[::2] ** 2 + weights[1::2] ** 2)
    return np.asarray(
        spectra[..., ::2] * (weights[::2] / together) + spectra[..., 1::2] * (weights[1::2] / together), np.complex64
    )


def _principal(points: NDArray[np.float32], detailed: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The points in their first principal axes, which keep the distances that matter at a quarter of the work."""
    chosen = points[detailed]
    if not len(chosen):
        return points[..., :_DIMENSIONS]
    centre = chosen.mean(axis=0)
    chosen = chosen - centre
    _, axes = np.linalg.eigh((chosen.T @ chosen).astype(np.float64))
    return np.asarray((points - centre) @ axes[:, ::-1][:, :_DIMENSIONS].astype(np.float32))


def _candidates(points: NDArray[np.float32], detailed: NDArray[np.bool_]) -> Iterator[tuple[Places, Places]]:
    """For each block of pictures the pairs that are near, nearest first: (picture, place of its angle) left and right.

    A pair of pictures comes once, at the two angles where it is nearest.
    """
    n, angles, dimensions = points.shape
    flat = points.reshape(-1, dimensions)
    half = np.where(detailed.reshape(-1), (flat**2).sum(axis=1) / 2, np.float32(np.inf))
    for top in range(0, n, _ITEMS):
        rows = slice(top * angles, (top + _ITEMS) * angles)
        found: list[tuple[NDArray[np.float32], Places, Places]] = []
        for start in range(top * angles, n * angles, _POINTS):
            columns = slice(start, start + _POINTS)
            gap = half[rows, None] - flat[rows] @ flat[columns].T
            gap += half[columns]
            near = np.flatnonzero(gap <= _NEAR**2 / 2)  # seven times as fast as nonzero of two dimensions
            distance = gap.ravel()[near]
            left, right = np.divmod(near, gap.shape[1])
            left, right = left + rows.start, right + start
            after = left // angles < right // angles
            found.append((distance[after], left[after], right[after]))
        distance, left, right = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(distance, kind="stable")
        left, right = left[order], right[order]
        _, first = np.unique(left // angles * n + right // angles, return_index=True)
        first.sort()
        left, right = left[first], right[first]
        yield np.stack(divmod(left, angles), axis=1), np.stack(divmod(right, angles), axis=1)


def _agree(first: Pictures, at_first: Places, second: Pictures, at_second: Places, disc: _Disc) -> NDArray[np.bool_]:
    """Whether each pair of pictures agrees at angles near those it was found at: on the disc, then wherever both are.

    The disc alone would join pictures of a blank middle whose edge has one corner of tissue each.
    """
    angles = np.array(disc.angles)
    agreed = np.zeros(len(first), np.bool_)
    rough = _register(
        first, angles[at_first][:, None], second, angles[at_second][:, None], disc.radius, _ROUGH_BRIGHTNESS
    )
    kept = np.flatnonzero(rough.agreement >= _PROMISING)
    near = np.clip(angles[:, None] + np.arange(-_REACH, _REACH + 1), 0, disc.largest)
    first_angles, second_angles = near[at_first[kept]], near[at_second[kept]]
    fine = _register(first[kept], first_angles, second[kept], second_angles, disc.radius)
    for place in np.flatnonzero(fine.agreement >= AGREEMENT).tolist():
        pair = kept[place]
        here, there = (
            share_shown(first_angles[place, fine.first[place]]),
            share_shown(second_angles[place, fine.second[place]]),
        )
        whole = _whole_agreement(first[pair], here, second[pair], there, fine.turn[place], fine.flipped[place])
        agreed[pair] = whole >= WHOLE_AGREEMENT
    return agreed


@dataclass(frozen=True, slots=True)
class _Registration:
    """How pairs of discs agree best: their concordance, the angle of each by its place, and the turn between them.

    What stands at angle x round the second disc stands at ``turn`` + x round the first, or - x if ``flipped``.
    """

    agreement: NDArray[np.float64]
    first: Places
    second: Places
    turn: NDArray[np.float64]
    flipped: NDArray[np.bool_]


def _register(
    first: Pictures,
    first_angles: Places,
    second: Pictures,
    second_angles: Places,
    radius: float,
    brightness: float = _BRIGHTNESS,
) -> _Registration:
    """The best of n pairs of discs over their angles [n, k] and [n, k], every turn and both parities.

    Concordance is twice the covariance over the sum of the variances, of what a blur over two rings takes away; -1
    where mean levels differ by more than ``brightness`` or there is no detail.
    """
    a, a_mean = views(first, first_angles, radius)
    b, b_mean = views(second, second_angles, radius)
    left, right = a.transpose(1, 0, 2, 3), b.transpose(1, 0, 3, 2)
    cross = np.stack([left @ right.conj(), left @ right]).transpose(1, 3, 4, 0, 2)  # pair, angle, angle, parity, wave
    cross = np.concatenate([cross[..., :1], cross[..., 1:] / 2], axis=-1)
    covariance = np.fft.irfft(cross, _TURNS) * _TURNS
    a_power, b_power = power(a)[:, :, None], power(b)[:, None, :]
    comparable = (np.minimum(a_power, b_power) >= LEAST_DETAIL**2) & (
        np.abs(a_mean[:, :, None] - b_mean[:, None, :]) <= brightness
    )
    scale = np.where(comparable, 2 / np.maximum(a_power + b_power, LEAST_DETAIL**2), 0)
    concordance = covariance * scale[..., None, None]
    places = concordance.reshape(len(first), math.prod(concordance.shape[1:])).argmax(axis=1) if len(first) else []
    i, j, parity, turn = np.unravel_index(np.asarray(places, np.intp), concordance.shape[1:])
    every = np.arange(len(first))
    return _Registration(
        np.where(comparable[every, i, j], concordance[every, i, j, parity, turn], -1.0),
        i,
        j,
        np.asarray(turn * (2 * np.pi / _TURNS), np.float64),
        parity == 1,
    )


def _whole_agreement(
    first: Pictures,
    shown: tuple[float, float],
    second: Pictures,
    there: tuple[float, float],
    turn: float,
    flipped: bool,
) -> float:
    """Correlation of the detail of two registered pictures wherever both show the original."""
    from scipy.ndimage import map_coordinates

    across, down = np.meshgrid(_GRID * shown[0], _GRID * shown[1])
    x = across * math.cos(turn) + down * math.sin(turn)
    y = down * math.cos(turn) - across * math.sin(turn)
    u, v = x / there[0], (-y if flipped else y) / there[1]
    both = (np.abs(u) <= _GRID[-1]) & (np.abs(v) <= _GRID[-1])
    a = _detail(first, shown)[both]
    b = map_coordinates(_detail(second, there), [pixel_at(v[both]), pixel_at(u[both])], order=1)
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(math.sqrt((a**2).sum() * (b**2).sum()), 1e-9))


def _detail(picture: Pictures, shown: tuple[float, float]) -> NDArray[np.float32]:
    """What lies between two sharpnesses, in levels, of a thumbnail that shows these shares of its original."""
    from scipy.ndimage import gaussian_filter

    levels = picture.astype(np.float32)
    fine, broad = ([blur_wanted(sigma, share) for share in shown[::-1]] for sigma in (SHARPNESS, 3 * SHARPNESS))
    return np.asarray(gaussian_filter(levels, fine) - gaussian_filter(levels, broad))
