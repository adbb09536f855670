"""Generated pictures whose label can be seen: a background of a stated tone and texture with spots drawn on it.

They stand for no real tissue. ``image_features`` measures what a scene sets: ``mean_intensity`` its brightness,
``redness`` its tint, ``texture_contrast`` its texture, ``dark_blob_*`` and ``bright_blob_area`` its largest spot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DARK, BRIGHT = 0.1, 1.0
"""Tones of spots that ``image_features`` tells from any background of 0.35 to 0.6 brightness."""


@dataclass(frozen=True, slots=True)
class Spot:
    """An ellipse, in shares of the picture: ``centre`` (x, y) of its sides, ``radii`` (across, down) of the shorter.

    ``spicules`` pulls its outline in and out by that share, ``arms`` times round. ``tone`` is its grey, 0 to 1.
    """

    centre: tuple[float, float]
    radii: tuple[float, float]
    tone: float = DARK
    spicules: float = 0.0
    arms: int = 11


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows. ``brightness`` (0 to 1) and ``tint`` (red, green, blue, as factors) are the background's.

    ``waves`` is the share by which its broad shading varies, ``texture`` the deviation of its grain as a share.
    """

    brightness: float
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    waves: float = 0.1
    texture: float = 0.08
    spots: tuple[Spot, ...] = ()


def draw_scene(
    scene: Scene, width: int, height: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """The picture, uint8 [height, width, 3], and a mask bool [height, width] a spot; the same for the same draws.

    Broad shading and grain come from ``rng``, so that no two pictures of a scene are near-duplicates of each other.
    """
    from scipy.ndimage import gaussian_filter, zoom  # here: it takes half a second that a list of sources spares

    coarse = rng.standard_normal((6, 6))
    shading = zoom(coarse, (height / 6, width / 6), order=1, mode="nearest", grid_mode=True)[:height, :width]
    tone = scene.brightness * (1 + scene.waves * np.clip(shading, -2, 2))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    side = min(width, height)
    masks = []
    for spot in scene.spots:
        across = (x + 0.5 - spot.centre[0] * width) / (spot.radii[0] * side)
        down = (y + 0.5 - spot.centre[1] * height) / (spot.radii[1] * side)
        mask = np.hypot(across, down) <= 1 + spot.spicules * np.sin(spot.arms * np.arctan2(down, across))
        tone = np.where(mask, spot.tone, tone)
        masks.append(mask)
    grain = gaussian_filter(rng.standard_normal((height, width)), 0.7)
    grained = tone * (1 + scene.texture * grain / grain.std())
    coloured = grained[..., None] * np.array(scene.tint) * 255
    return np.clip(np.rint(coloured), 0, 255).astype(np.uint8), masks
