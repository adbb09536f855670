"""What is looked at of a picture to find its turned copies: discs of a thumbnail as Fourier series round their rings.

A disc is sampled as if its thumbnail showed the whole original, at one sharpness for all: the zoom and stretch of a
turn by an angle are undone. Series are scaled so that their squares add up to the mean square over the disc.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

COPY_SHAPE: Final = (80, 80)
RINGS: Final = 12
_SAMPLES: Final = 64  # round a ring
_FREQUENCIES: Final = 32
COARSE: Final = 11
"""Frequencies of a descriptor."""
SHARPNESS: Final = 0.0225  # half sides of the original: 0.9 pixels of a thumbnail that shows all of it
REFERENCE_RADIUS: Final = 0.38  # of the disc that is sampled at SHARPNESS; a wider one is sampled as much broader

Pictures = NDArray[np.uint8]
Places = NDArray[np.intp]
Spectra = NDArray[np.complex64]


def share_shown(angle: float) -> tuple[float, float]:
    """Shares of the original's width and height that a copy turned by ``angle`` degrees shows, by Augmentor's rule.

    It means to cut the largest upright rectangle without corners; one division of the formula divides by 1 and not by
    1 - tan², so that the rectangle is lower than wide. Up to 12 degrees that is a plain zoom within 4 %.
    """
    radians = math.radians(abs(angle))
    tangent, canvas = math.tan(radians), math.cos(radians) + math.sin(radians)
    left = tangent * canvas * (1 - tangent)
    top = tangent * (canvas - left)
    return canvas - 2 * left, canvas - 2 * top


def pixel_at(place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixel of a thumbnail at a place between its edges -1 and 1."""
    return (place + 1) / 2 * COPY_SHAPE[0] - 0.5


def blur_wanted(sigma: float, share: float) -> float:
    """Deviation in pixels of the blur that brings a thumbnail to a sharpness of ``sigma`` half sides of its original.

    A pixel is itself a blur of 0.45 pixels; a copy that shows a smaller share has smaller pixels.
    """
    pixel = 2 / COPY_SHAPE[0] * share
    return math.sqrt(max((sigma / pixel) ** 2 - 0.45**2, (0.3 / share) ** 2))


def views(pictures: Pictures, angles: Places, radius: float) -> tuple[Spectra, NDArray[np.float32]]:
    """Spectra of detail [frequencies, n, k, rings] and mean brightness [n, k] of the discs at angles [n, k]."""
    spectra = np.empty((_FREQUENCIES, *angles.shape, RINGS), np.complex64)
    for angle in np.unique(angles):
        rows, columns = np.nonzero(angles == angle)
        spectra[:, rows, columns] = ring_spectra(pictures[rows], radius, int(angle))
    means = np.real(spectra[0]) @ np.sqrt(ring_areas())
    return (spectra.reshape(_FREQUENCIES, -1, RINGS) @ _detail_band()).reshape(spectra.shape), means


def power(spectra: Spectra) -> NDArray[np.float32]:
    """Mean square [...] of what spectra [frequencies, ..., rings] stand for."""
    return np.asarray((spectra.real**2 + spectra.imag**2).sum(axis=(0, -1)))


def ring_spectra(pictures: Pictures, radius: float, angle: int) -> Spectra:
    """Fourier series [frequencies, n, rings] round the rings of a disc; their squares add up to its mean square."""
    levels = pictures.reshape(len(pictures), -1).astype(np.float32)
    rings = (_sampler(radius, angle) @ levels.T).reshape(RINGS, _SAMPLES, len(pictures))
    series = np.fft.rfft(rings.transpose(0, 2, 1), axis=-1)[..., :_FREQUENCIES]
    series *= (np.sqrt(ring_areas()) / _SAMPLES)[:, None, None]
    series[..., 1:] *= math.sqrt(2)
    return np.ascontiguousarray(series.transpose(2, 1, 0), np.complex64)


def ring_areas() -> NDArray[np.float32]:
    areas = np.arange(RINGS) + 0.5
    return np.asarray(areas / areas.sum(), np.float32)


@cache
def coarse_band() -> Spectra:
    return np.ascontiguousarray((_blur(0.63) - _blur(3.15))[:COARSE])


@cache
def _detail_band() -> Spectra:
    return np.ascontiguousarray(np.eye(RINGS, dtype=np.complex64) - _blur(2.0))


def _blur(rings: float) -> Spectra:
    """A Gaussian blur over so many ring widths [frequencies, rings, rings], to multiply spectra with from the right."""
    radii = np.arange(RINGS) + 0.5
    across = np.exp(-0.5 * ((radii[:, None] - radii) / rings) ** 2) * radii
    across /= across.sum(axis=1, keepdims=True)
    around = np.exp(-0.5 * (np.arange(_FREQUENCIES)[:, None] * rings / radii) ** 2)
    weights = np.sqrt(ring_areas())
    matrix = around[:, None, :] * (across * weights[:, None] / weights)
    return np.asarray(matrix.transpose(0, 2, 1), np.complex64)


@cache
def _sampler(radius: float, angle: int) -> csr_matrix:
    """Weights [rings x samples, pixels] that sample a thumbnail as if it were its original, one sharpness for all."""
    from scipy.sparse import csr_matrix

    side = COPY_SHAPE[0]
    radii = (np.arange(RINGS) + 0.5) * radius / RINGS
    around = 2 * np.pi * np.arange(_SAMPLES) / _SAMPLES
    weights, pixels = [], []
    for share, wave in zip(share_shown(angle), (np.cos, np.sin), strict=True):
        place = pixel_at((radii[:, None] * wave(around)).ravel() / share)[:, None]
        blur = blur_wanted(SHARPNESS * radius / REFERENCE_RADIUS, share)
        reach = math.ceil(3.7 * blur)  # a thousandth of the middle's weight
        pixel = np.rint(place).astype(np.intp) + np.arange(-reach, reach + 1)
        weight = np.where((pixel >= 0) & (pixel < side), np.exp(-0.5 * ((pixel - place) / blur) ** 2), 0)
        weights.append(weight / weight.sum(axis=1, keepdims=True))
        pixels.append(np.clip(pixel, 0, side - 1))
    (across, down), (columns, rows) = weights, pixels
    indices = (rows[:, :, None] * side + columns[:, None, :]).ravel()
    values = (down[:, :, None] * across[:, None, :]).astype(np.float32).ravel()
    starts = np.arange(len(across) + 1) * (across.shape[1] * down.shape[1])
    return csr_matrix((values, indices, starts), shape=(len(across), side * side))
