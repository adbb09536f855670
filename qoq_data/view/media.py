"""The media of a row as pictures of a given width: an image with its boxes on it, a signal on ECG paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from qoq_data.clinical.ecg_paper import INK_RGB, PaperLayout, column_layout, draw_ecg_paper, standard_layout
from qoq_data.clinical.leads import canonical_lead
from qoq_data.formats.image import decode_image
from qoq_data.record import millivolts
from qoq_data.view.lettering import Colour, drawable, width, write

BOX_COLOURS: tuple[Colour, ...] = ((255, 196, 0), (0, 200, 255), (255, 92, 138), (120, 230, 80), (196, 140, 255))
"""One a label, in the order in which labels first stand: bright, since what they lie on is mostly dark."""

_OUTLINE: Colour = (12, 14, 20)
_FRAME: Colour = (52, 58, 70)
_LEAD_NAME: Colour = (28, 62, 156)
_MOST_LEADS = 12
_MOST_SECONDS = 10.0
_FEWEST_SECONDS = 5.0
_TALLEST = 0.8
_TWELVE = frozenset(name for row in standard_layout().rows for name in row)


def draw_signal(signal: Mapping[str, Any], width_px: int) -> NDArray[np.uint8]:
    """A signal on millimetre paper, [height, width_px, 3], its first ten seconds.

    3 x 4 leads over a rhythm strip where all twelve are there for five seconds, else a row a lead. Raises
    ``ValueError`` for a signal that is not in millivolts.
    """
    values = millivolts(signal)
    names = tuple(signal["lead_names"])
    rate = float(signal["sampling_frequency_hz"])
    duration_s = min(_MOST_SECONDS, max(_FEWEST_SECONDS, values.shape[1] / rate))
    whole = {canonical_lead(name) for name in names} >= _TWELVE and values.shape[1] >= _FEWEST_SECONDS * rate
    layout = standard_layout() if whole else column_layout(names[:_MOST_LEADS])
    layout = replace(layout, duration_s=duration_s, has_labels=False, trace_px=2 if width_px >= 700 else 1)
    layout = replace(layout, pixels_per_mm=width_px / layout.width_mm)
    return _lettered(draw_ecg_paper(values, rate, names, layout), layout)


def _lettered(paper: NDArray[np.uint8], layout: PaperLayout) -> NDArray[np.uint8]:
    """The paper with its lead names and scale in letters as large as those round it."""
    picture = Image.fromarray(paper)
    draw = ImageDraw.Draw(picture)
    scale = layout.pixels_per_mm
    size = max(11, round(picture.width / 52))
    for row, names in enumerate(layout.rows):
        share_mm = layout.duration_s / len(names) * layout.paper_speed_mm_per_s
        y_px = (layout.baseline_mm(row) - 0.5 * layout.row_height_mm) * scale
        for column, name in enumerate(names):
            x_px = (layout.trace_left_mm + column * share_mm + 1.5) * scale
            write(draw, (x_px, y_px), drawable(name), size, _LEAD_NAME, bold=True)
    text = f"{layout.paper_speed_mm_per_s:g} mm/s   {layout.gain_mm_per_mv:g} mm/mV"
    at = layout.margin_mm * scale, picture.height - 0.25 * layout.margin_mm * scale
    write(draw, at, text, round(size * 0.85), INK_RGB, anchor="ls")
    return np.asarray(picture)


def draw_image(data: bytes, boxes: Sequence[Mapping[str, Any]], width_px: int) -> NDArray[np.uint8]:
    """A stored picture scaled to the width (to a height of 0.8 of it at most), with its boxes in their place.

    ``boxes`` are those of this picture, ``xyxy`` half-open in its pixels. Lines lie outside of what a box holds; a
    picture with boxes has a frame, on which the lines of those at its edge lie.
    """
    pixels = decode_image(data, "").pixels
    height, wide = pixels.shape[:2]
    line = max(2, round(width_px / 300))
    frame = line + 2 if boxes else 0
    room = width_px - 2 * frame
    scale = min(room / wide, _TALLEST * room / height)
    size = max(1, round(wide * scale)), max(1, round(height * scale))
    scaled = Image.fromarray(pixels).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (size[0] + 2 * frame, size[1] + 2 * frame), _FRAME)
    picture.paste(scaled, (frame, frame))
    draw = ImageDraw.Draw(picture)
    labels = list(dict.fromkeys(box["label"] for box in boxes))
    colours = [BOX_COLOURS[labels.index(box["label"]) % len(BOX_COLOURS)] for box in boxes]
    edges = [_edges(box["xyxy"], (size[0] / wide, size[1] / height), frame) for box in boxes]
    for colour, one in zip(colours, edges, strict=True):
        _outline(draw, one, line, colour)
    for colour, one, box in zip(colours, edges, boxes, strict=True):
        _tag(draw, one, box, colour, picture.size, width_px)
    return np.asarray(picture)


def _edges(xyxy: Sequence[int], scale: tuple[float, float], frame: int) -> tuple[int, int, int, int]:
    """First and last pixel column and row of a half-open box in the scaled picture: left, top, right, bottom."""
    x0, y0, x1, y1 = xyxy
    left, top = round(x0 * scale[0]), round(y0 * scale[1])
    right, bottom = max(left, round(x1 * scale[0]) - 1), max(top, round(y1 * scale[1]) - 1)
    return left + frame, top + frame, right + frame, bottom + frame


def _outline(draw: ImageDraw.ImageDraw, edges: tuple[int, int, int, int], line: int, colour: Colour) -> None:
    """A line round the box with a dark hair on either side, which tells it from whatever it lies on."""
    left, top, right, bottom = edges
    for grown, fill, thick in ((line + 2, _OUTLINE, line + 2), (line + 1, colour, line)):
        draw.rectangle((left - grown, top - grown, right + grown, bottom + grown), outline=fill, width=thick)


def _tag(
    draw: ImageDraw.ImageDraw,
    edges: tuple[int, int, int, int],
    box: Mapping[str, Any],
    colour: Colour,
    size: tuple[int, int],
    width_px: int,
) -> None:
    """The box's label above it, or below where there is no room, and inside the picture in any case."""
    letters = max(11, round(width_px / 52))
    text = drawable(box["label"])
    if box.get("agreement") is not None:
        text += f" {box['agreement']:.0%}"
    wide, high = width(text, letters, bold=True) + letters, round(letters * 1.5)
    line = max(2, round(width_px / 300))
    top = edges[1] - line - 2 - high
    if top < 0:
        top = min(edges[3] + line + 3, size[1] - high - 1)
    left = max(0, min(edges[0] - line - 1, size[0] - wide - 1))
    draw.rectangle((left, top, left + wide, top + high), fill=colour)
    write(draw, (left + wide / 2, top + high / 2), text, letters, _OUTLINE, bold=True, anchor="mm")
