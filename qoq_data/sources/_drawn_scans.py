"""Drawn chest films and brain slices whose class can be seen, for the synthetic trees of picture folders.

They are shapes and noise and stand for no disease: ``dark_blob_area`` tells clear lungs from hazy ones and hollow
lesions from solid ones, ``bright_blob_area`` how large a bright patch is, ``texture_contrast`` how grainy.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical.synthetic_image import BRIGHT, Scene, Spot, draw_scene

Chest = Literal["clear", "patch", "grainy", "hazy"]
Brain = Literal["plain", "hollow", "solid", "small"]
CHEST_FEATURES = ("dark_blob_area", "bright_blob_area", "texture_contrast")
BRAIN_FEATURES = ("dark_blob_area", "bright_blob_area")
_HAZE = 0.3


def draw_chest(look: Chest, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A film, uint8 [height, width, 3]: two lungs, dark or hazy, with a bright patch or coarse grain by its look."""
    tone = _HAZE if look == "hazy" else 0.05
    spots = [_spot(x, 0.5, (0.16, 0.34), tone, rng) for x in (0.27, 0.73)]
    if look == "patch":
        spots.append(_spot(float(rng.choice([0.27, 0.73])), rng.uniform(0.35, 0.7), (0.13, 0.13), BRIGHT, rng))
    texture = 0.3 if look == "grainy" else 0.06
    return _drawn(Scene(0.5, waves=0.2, texture=texture, spots=tuple(spots)), rng)


def draw_brain(look: Brain, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A slice, uint8 [height, width, 3]: two small dark ventricles, and a bright lesion unless it is ``plain``."""
    spots = [_spot(x, 0.45, (0.04, 0.1), 0.08, rng) for x in (0.42, 0.58)]
    x, y = float(rng.choice([0.28, 0.72])), rng.uniform(0.25, 0.7)
    if look == "small":
        spots.append(_spot(0.5, 0.75, (0.08, 0.08), BRIGHT, rng))
    elif look == "solid":
        spots.append(_spot(x, y, (0.19, 0.19), BRIGHT, rng))
    elif look == "hollow":
        outer = _spot(x, y, (0.24, 0.24), BRIGHT, rng, spicules=0.12)
        spots += [outer, Spot(outer.centre, (0.14, 0.14), 0.05)]
    return _drawn(Scene(0.4, waves=0.25, texture=0.08, spots=tuple(spots)), rng)


def encoded(pixels: NDArray[np.uint8], suffix: str, quality: int = 90) -> bytes:
    """A picture as a file of this suffix: PNG for ``.png``, in grey, else a JPEG of three channels."""
    if suffix.lower() == ".png":
        Image.fromarray(pixels).convert("L").save(file := io.BytesIO(), "PNG")
    else:
        Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", quality=quality)
    return file.getvalue()


def _spot(
    x: float, y: float, radii: tuple[float, float], tone: float, rng: np.random.Generator, spicules: float = 0.0
) -> Spot:
    """A spot near a place and of about a size: moved and stretched, so that no two pictures are alike."""
    dx, dy = rng.uniform(-0.04, 0.04, 2)
    across, down = rng.uniform(0.88, 1.12, 2)
    return Spot((x + dx, y + dy), (radii[0] * across, radii[1] * down), tone, spicules)


def _drawn(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    width, height = (int(side) for side in rng.integers(110, 171, 2))
    return draw_scene(scene, width, height, rng)[0]
