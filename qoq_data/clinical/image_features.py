"""Simple measures of a picture that show in plain numbers what a synthetic label looks like.

They prove that a generated picture holds its label, and say nothing about real disease: each is a few lines of numpy
or scipy over one grey picture. A blob is the largest connected region (4-neighbours) of a picture smoothed by a
hundredth of its shorter side that is darker than ``DARK_SHARE`` of the median, or brighter than halfway from the
median to white; a region below ``SMALLEST_BLOB`` of the picture is speckle and no blob.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter, label
from scipy.spatial import ConvexHull

DARK_SHARE = 0.35
SMALLEST_BLOB = 0.002


@dataclass(frozen=True, slots=True)
class Blob:
    """One connected region: ``mask`` bool [h, w] of the whole picture, and its bounding rows and columns."""

    mask: NDArray[np.bool_]
    rows: slice
    columns: slice


def grey(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean of the channels, float64 [h, w] in 0 to 255.

    Raises ``ValueError`` for anything but uint8 [h, w] or [h, w, 3] with at least one pixel.
    """
    shaped = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)
    if picture.dtype != np.uint8 or not shaped or picture.size == 0:
        raise ValueError(f"a picture is uint8 [h, w] or [h, w, 3], not {picture.dtype} {list(picture.shape)}")
    return picture.astype(np.float64) if picture.ndim == 2 else picture.mean(axis=2, dtype=np.float64)


def dark_blob(picture: NDArray[np.uint8]) -> Blob | None:
    """The largest dark region, or None where there is none."""
    smooth = _smoothed(picture)
    return _largest(smooth < DARK_SHARE * np.median(smooth))


def bright_blob(picture: NDArray[np.uint8]) -> Blob | None:
    """The largest bright region, or None where there is none."""
    smooth = _smoothed(picture)
    return _largest(smooth > (np.median(smooth) + 255) / 2)


def mean_intensity(picture: NDArray[np.uint8]) -> float:
    """Mean grey, 0 (black) to 1 (white)."""
    return float(grey(picture).mean() / 255)


def texture_contrast(picture: NDArray[np.uint8]) -> float:
    """Standard deviation of what smoothing takes away, as a share of the mean; 0 for a black picture."""
    plain = grey(picture)
    return float((plain - _smoothed(picture)).std() / plain.mean()) if plain.any() else 0.0


def redness(picture: NDArray[np.uint8]) -> float:
    """How far red stands above the mean of green and blue, -1 to 1; 0 for a grey picture."""
    grey(picture)
    if picture.ndim == 2:
        return 0.0
    red, green, blue = picture.mean(axis=(0, 1), dtype=np.float64)
    return float((red - (green + blue) / 2) / 255)


def dark_blob_area(picture: NDArray[np.uint8]) -> float:
    """Share of the picture that its dark blob covers; 0 without one."""
    blob = dark_blob(picture)
    return float(blob.mask.mean()) if blob else 0.0


def bright_blob_area(picture: NDArray[np.uint8]) -> float:
    """Share of the picture that its bright blob covers; 0 without one."""
    blob = bright_blob(picture)
    return float(blob.mask.mean()) if blob else 0.0


def dark_blob_aspect(picture: NDArray[np.uint8]) -> float:
    """Height over width of the dark blob's bounding box, above 1 where it is taller than wide; 0 without one."""
    blob = dark_blob(picture)
    return (blob.rows.stop - blob.rows.start) / (blob.columns.stop - blob.columns.start) if blob else 0.0


def dark_blob_solidity(picture: NDArray[np.uint8]) -> float:
    """Area of the dark blob over that of its convex hull: near 1 for a smooth oval, less for spicules; 0 without one.

    The hull goes round the corners of the pixels, so that a blob one pixel wide has an area too.
    """
    blob = dark_blob(picture)
    if blob is None:
        return 0.0
    points = np.argwhere(blob.mask)
    corners = (points[:, None, :] + np.array([(0, 0), (0, 1), (1, 0), (1, 1)])).reshape(-1, 2)
    return float(len(points) / ConvexHull(np.unique(corners, axis=0)).volume)


def shadow_contrast(picture: NDArray[np.uint8]) -> float:
    """Grey below the dark blob against grey beside that strip, as a share: below 0 in a shadow, above 0 where brighter.

    The strip is as wide as the blob's middle half and as high as the blob, or to the lower edge, and begins a tenth of
    that height below it, clear of its soft edge. It is compared with half a blob's width beyond either side of the
    blob. 0 where there is no blob or no room.
    """
    blob = dark_blob(picture)
    if blob is None:
        return 0.0
    height, width = blob.rows.stop - blob.rows.start, blob.columns.stop - blob.columns.start
    top = blob.rows.stop + 1 + height // 10
    below = grey(picture)[top : top + height]
    strip = below[:, blob.columns.start + width // 4 : blob.columns.stop - width // 4]
    left = below[:, max(0, blob.columns.start - width // 2) : blob.columns.start]
    beside = np.hstack([left, below[:, blob.columns.stop : blob.columns.stop + width // 2]])
    if not strip.size or not beside.any():
        return 0.0
    return float(strip.mean() / beside.mean() - 1)


def _smoothed(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    plain = grey(picture)
    return np.asarray(gaussian_filter(plain, max(1.0, min(plain.shape) / 100)), dtype=np.float64)


def _largest(regions: NDArray[np.bool_]) -> Blob | None:
    labelled, count = label(regions)
    if not count:
        return None
    sizes = np.bincount(labelled.ravel())[1:]
    largest = int(sizes.argmax())
    if sizes[largest] < SMALLEST_BLOB * regions.size:
        return None
    rows, columns = find_objects(labelled)[largest]
    return Blob(labelled == largest + 1, rows, columns)


FEATURES: dict[str, Callable[[NDArray[np.uint8]], float]] = {
    measure.__name__: measure
    for measure in (
        mean_intensity,
        texture_contrast,
        redness,
        dark_blob_area,
        dark_blob_aspect,
        dark_blob_solidity,
        bright_blob_area,
        shadow_contrast,
    )
}
"""Every measure by name; each takes uint8 [h, w] or [h, w, 3] and gives one finite number."""
