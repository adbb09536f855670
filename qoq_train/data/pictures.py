"""A row's media as pictures: stored images decoded in their order, or its signals drawn on millimetre paper.

Nothing here stands in for a medium: what is missing or cannot be read in full raises ``RecordError``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from qoq_data.clinical.ecg_paper import (
    PaperLayout,
    column_layout,
    draw_ecg_paper,
    picture_layout,
    standard_layout,
)
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image import decode_image
from qoq_data.record import millivolts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from qoq_train.recipe import DataRecipe

_SINGLE_SECONDS = 2.5
_PAPER_MM_PER_S = 25.0


def stored_pictures(images: Sequence[Mapping[str, Any] | None]) -> tuple[Image.Image, ...]:
    """The ``images`` of a row at the size at which they are stored, 8-bit grey or RGB.

    Raises ``RecordError``: FILE_MISSING for an image without bytes, and what ``decode_image`` raises.
    """
    pictures = []
    for number, image in enumerate(images, start=1):
        data = image["bytes"] if image else None
        if not data:
            raise RecordError(Reason.FILE_MISSING, f"image {number} of {len(images)} has no bytes")
        try:
            pictures.append(decode_image(data, "").image)
        except RecordError as error:
            raise RecordError(error.reason, f"image {number} of {len(images)}: {error.detail}") from error
    return tuple(pictures)


def drawn_signals(signals: pa.ListScalar, recipe: DataRecipe) -> tuple[Image.Image, ...]:
    """The ``signals`` of a row, each a picture on paper as the recipe's ``ecg_`` keys say.

    Raises ``RecordError``: LEAD_MISSING or LEAD_DUPLICATED for a lead that the layout shows, UNIT_UNKNOWN for a signal
    that is no voltage, SIGNAL_ALL_MISSING for one of gaps alone, HEADER_MISMATCH for leads of unequal length.
    """
    return tuple(Image.fromarray(_drawn(signal, recipe)) for signal in signals.values or ())


def paper_layout(lead_names: Sequence[str], recipe: DataRecipe) -> PaperLayout:
    """Where the leads of a signal stand on paper; ``single`` is a square of the lead's first 2.5 seconds."""
    if recipe.ecg_layout == "3x4":
        return standard_layout(recipe.ecg_pixels_per_mm)
    if recipe.ecg_layout == "column":
        return column_layout(lead_names, pixels_per_mm=recipe.ecg_pixels_per_mm)
    side_px = round(_SINGLE_SECONDS * _PAPER_MM_PER_S * recipe.ecg_pixels_per_mm)
    return picture_layout(recipe.ecg_lead, side_px, side_px, _SINGLE_SECONDS)


def _drawn(signal: pa.StructScalar, recipe: DataRecipe) -> np.ndarray[Any, np.dtype[np.uint8]]:
    names = signal["lead_names"].as_py()
    leads = signal["samples"].values
    lengths = leads.value_lengths().to_numpy(zero_copy_only=False)
    if len(names) != len(leads) or (lengths != lengths[:1]).any():
        raise RecordError(Reason.HEADER_MISMATCH, f"{len(names)} leads of unequal length or without a name")
    # Straight from arrow's memory: as Python numbers, the samples of one ECG take longer than its drawing.
    samples = leads.flatten().to_numpy(zero_copy_only=False).reshape(len(names), -1)
    parts = {"unit": signal["unit"].as_py(), "samples": samples}
    try:
        values = millivolts(parts | {"scale": signal["scale"].as_py(), "offset": signal["offset"].as_py()})
    except ValueError as error:
        raise RecordError(Reason.UNIT_UNKNOWN, str(error)) from error
    if np.isnan(values).all():
        raise RecordError(Reason.SIGNAL_ALL_MISSING, "the signal holds no sample")
    rate_hz = float(signal["sampling_frequency_hz"].as_py())
    return draw_ecg_paper(values, rate_hz, names, paper_layout(names, recipe))
