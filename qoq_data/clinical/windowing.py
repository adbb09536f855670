"""Grey windows: modality values to 256 levels, as PS3.3 C.11.2.1 says, and the presets of CT.

Everything is a function of values, not of pixels: applied to the values that a stored word can mean it gives a look-up
table, and a picture of any size is then one look-up a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float64]

DisplayWindow = Literal["soft_tissue", "lung", "bone", "brain", "subdural", "pulmonary_angiography"]

DISPLAY_WINDOWS: Final[Mapping[str, tuple[float, float]]] = {
    "soft_tissue": (40, 400),
    "lung": (-600, 1500),
    "bone": (480, 2500),
    "brain": (40, 80),
    "subdural": (75, 215),
    "pulmonary_angiography": (80, 700),
}
"""(centre, width) in HU. The one of pulmonary angiography is the window 700/80 (width 700, level 80) under which CT has
been published as pictures before; the others are those of common viewers."""

VoiFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
VOI_FUNCTIONS: Final[tuple[VoiFunction, ...]] = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True, slots=True)
class GreyWindow:
    """Centre and width in modality values, and how they are meant."""

    centre: float
    width: float
    function: VoiFunction = "LINEAR"

    @property
    def usable(self) -> bool:
        """A width of 1 or more for LINEAR (C.11.2.1.2.1), over 0 for the others."""
        return self.width >= 1 if self.function == "LINEAR" else self.width > 0

    def __str__(self) -> str:
        plain = f"{self.centre:g}/{self.width:g}"
        return plain if self.function == "LINEAR" else f"{plain} {self.function}"


def display_window(name: str) -> GreyWindow:
    """The preset of this name; raises ``KeyError`` for a name that is not in ``DISPLAY_WINDOWS``."""
    return GreyWindow(*DISPLAY_WINDOWS[name])


def display_text(name: str) -> str:
    """A preset as a row names it: ``soft tissue, 40/400``."""
    return f"{name.replace('_', ' ')}, {display_window(name)}"


def window_levels(values: NDArray[Any], window: GreyWindow) -> Levels:
    """Levels 0 to 255, not yet rounded, of modality values.

    LINEAR by C.11.2.1.2.1: black up to c - 0.5 - (w - 1) / 2, white over c - 0.5 + (w - 1) / 2. SIGMOID by
    C.11.2.1.3.1. LINEAR_EXACT by C.11.2.1.3.2: the same as LINEAR without its half and its one.
    """
    x = np.asarray(values, np.float64)
    if window.function == "SIGMOID":
        return np.asarray(255 / (1 + np.exp(np.clip(-4 * (x - window.centre) / window.width, -700, 700))), np.float64)
    shift = 1.0 if window.function == "LINEAR" else 0.0
    centre, width = window.centre - shift / 2, window.width - shift
    if width == 0:
        return np.where(x <= centre, 0.0, 255.0)
    return np.clip(((x - centre) / width + 0.5) * 255, 0, 255)


def range_levels(values: NDArray[Any], lowest: float, highest: float) -> Levels:
    """Levels 0 to 255, not yet rounded: ``lowest`` black, ``highest`` white; black where the two are the same."""
    x = np.asarray(values, np.float64)
    if highest <= lowest:
        return np.zeros(x.shape)
    return np.clip((x - lowest) * (255 / (highest - lowest)), 0, 255)


def table_levels(values: NDArray[Any], first: int, entries: NDArray[Any], bits: int) -> Levels:
    """Levels 0 to 255, not yet rounded, by a VOI LUT (C.11.2.1.1): its ends hold for all values beyond them."""
    places = np.clip(np.rint(np.asarray(values, np.float64)) - first, 0, len(entries) - 1).astype(np.intp)
    return np.asarray(np.clip(entries[places] * (255 / ((1 << bits) - 1)), 0, 255), np.float64)


def to_grey(levels: Levels, inverted: bool = False) -> NDArray[np.uint8]:
    """Levels rounded to 8 bits, half up, and then turned round where the lowest value is to be white."""
    grey = np.floor(levels + 0.5).astype(np.uint8)
    return 255 - grey if inverted else grey
