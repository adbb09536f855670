"""An ECG drawn as it is printed: on millimetre paper at 25 mm/s and 10 mm/mV, straight into a pixel array.

A trace is one upright span of pixels per column, from the lowest to the highest value that falls into the column, so
that no peak gets lost at any scale. Drawing needs no plotting library; letters come from Pillow's built-in bitmap font.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qoq_data.clinical.leads import select_leads
from qoq_data.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

PAPER_RGB = (255, 250, 247)
FINE_RGB = (250, 222, 218)
HEAVY_RGB = (240, 176, 172)
INK_RGB = (22, 22, 34)

CALIBRATION_MV = 1.0
CALIBRATION_S = 0.2
_CALIBRATION_LEAD_MM = 2.0
_FINE_FROM_PIXELS_PER_MM = 3.0
MAX_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class PaperLayout:
    """Where things stand on the paper, in millimetres from the upper left corner.

    Every row of ``rows`` shows the same ``duration_s`` from the left; the leads of a row share it, one after the other
    in time, as a machine prints them: of four leads in ten seconds the second shows seconds 2.5 to 5.
    """

    rows: tuple[tuple[str, ...], ...]
    duration_s: float = 10.0
    pixels_per_mm: float = 4.0
    paper_speed_mm_per_s: float = 25.0
    gain_mm_per_mv: float = 10.0
    row_height_mm: float = 30.0
    margin_mm: float = 5.0
    has_calibration: bool = True
    has_labels: bool = True
    has_grid: bool = True
    trace_px: int = 2

    def __post_init__(self) -> None:
        sizes = (self.duration_s, self.pixels_per_mm, self.paper_speed_mm_per_s, self.gain_mm_per_mv)
        if not self.rows or not all(self.rows) or min(*sizes, self.row_height_mm, self.trace_px) <= 0:
            raise UsageError("an ECG paper needs rows with leads, and sizes above 0")
        if self.width_mm * self.height_mm * self.pixels_per_mm**2 > MAX_PIXELS:
            raise UsageError(f"an ECG paper of more than {MAX_PIXELS} pixels; lower pixels_per_mm")

    @property
    def calibration_mm(self) -> float:
        """Width that the calibration pulse takes to the left of the traces: the pulse and its two feet."""
        pulse_mm = CALIBRATION_S * self.paper_speed_mm_per_s
        return 2 * _CALIBRATION_LEAD_MM + pulse_mm if self.has_calibration else 0.0

    @property
    def trace_left_mm(self) -> float:
        return self.margin_mm + self.calibration_mm

    @property
    def width_mm(self) -> float:
        return self.trace_left_mm + self.duration_s * self.paper_speed_mm_per_s + self.margin_mm

    @property
    def height_mm(self) -> float:
        return 2 * self.margin_mm + len(self.rows) * self.row_height_mm

    @property
    def shape_px(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return round(self.height_mm * self.pixels_per_mm), round(self.width_mm * self.pixels_per_mm)

    def baseline_mm(self, row: int) -> float:
        """Height of 0 mV of a row, a little below its middle, since most waves point up."""
        return self.margin_mm + (row + 0.55) * self.row_height_mm


def standard_layout(pixels_per_mm: float = 4.0) -> PaperLayout:
    """Three rows of four leads, 2.5 s each, over a rhythm strip of lead II of 10 s."""
    rows = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"), ("II",))
    return PaperLayout(rows=rows, pixels_per_mm=pixels_per_mm)


def column_layout(lead_names: Sequence[str], duration_s: float = 10.0, pixels_per_mm: float = 4.0) -> PaperLayout:
    """One row for each lead, all of the same seconds."""
    rows = tuple((name,) for name in lead_names)
    return PaperLayout(rows=rows, duration_s=duration_s, pixels_per_mm=pixels_per_mm, row_height_mm=22.0)


def picture_layout(lead: str, width_px: int = 112, height_px: int = 112, duration_s: float = 2.5) -> PaperLayout:
    """One lead filling a small picture of exactly that size, without margin, calibration or letters."""
    pixels_per_mm = width_px / (duration_s * 25.0)
    return PaperLayout(
        rows=((lead,),),
        duration_s=duration_s,
        pixels_per_mm=pixels_per_mm,
        row_height_mm=height_px / pixels_per_mm,
        margin_mm=0.0,
        has_calibration=False,
        has_labels=False,
        trace_px=1,
    )


def draw_ecg_paper(
    millivolts: npt.NDArray[np.float32],
    sampling_frequency_hz: float,
    lead_names: Sequence[str],
    layout: PaperLayout,
) -> npt.NDArray[np.uint8]:
    """Picture [height, width, 3] of a signal [leads, samples] in millivolts; a gap (NaN) leaves the paper bare.

    A signal shorter than the layout leaves the rest bare, of a longer one the first seconds are drawn; a trace that
    leaves the paper is cut at its edge. Deterministic. Raises RecordError: LEAD_MISSING or LEAD_DUPLICATED for a lead
    that the layout shows.
    """
    picture = _background(layout).copy()
    speed = layout.paper_speed_mm_per_s * layout.pixels_per_mm / sampling_frequency_hz
    gain = np.float32(layout.gain_mm_per_mv * layout.pixels_per_mm)
    spans = []
    for row, names in enumerate(layout.rows):
        baseline_px = layout.baseline_mm(row) * layout.pixels_per_mm
        share_s = layout.duration_s / len(names)
        for column, lead in enumerate(select_leads(lead_names, names)):
            first = round(column * share_s * sampling_frequency_hz)
            last = min(round((column + 1) * share_s * sampling_frequency_hz), millivolts.shape[1])
            left_px = (layout.trace_left_mm + column * share_s * layout.paper_speed_mm_per_s) * layout.pixels_per_mm
            if first < last:
                spans.append(_spans(np.float32(baseline_px) - gain * millivolts[lead, first:last], left_px, speed))
    if spans:
        columns, tops, bottoms = (np.concatenate(parts) for parts in zip(*spans, strict=True))
        _ink(picture, columns, tops, bottoms, layout.trace_px)
    return picture


def _spans(
    y_px: npt.NDArray[np.float32], left_px: float, speed_px: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pixel columns that a trace crosses, and its first and last pixel row in each.

    A column holds the samples in it and the points where the joining lines cross its two sides, so neighbours meet.
    """
    # A millionth of a pixel keeps a sample that stands on a column's side from falling to its left by rounding.
    x_px = left_px + 1e-6 + speed_px * np.arange(y_px.size)
    first, last = int(x_px[0]), int(x_px[-1])
    sides = np.interp(np.arange(first, last + 2), x_px, y_px, left=np.nan, right=np.nan)
    lowest, highest = np.fmin(sides[:-1], sides[1:]), np.fmax(sides[:-1], sides[1:])
    sample_columns = x_px.astype(np.int64) - first
    starts = np.flatnonzero(np.diff(sample_columns, prepend=-1))
    filled = sample_columns[starts]
    lowest[filled] = np.fmin(lowest[filled], np.fmin.reduceat(y_px, starts))
    highest[filled] = np.fmax(highest[filled], np.fmax.reduceat(y_px, starts))
    drawn = np.flatnonzero(~np.isnan(lowest))
    tops, bottoms = np.floor(lowest[drawn]), np.floor(highest[drawn])
    limit = 1 << 24  # keeps an absurd voltage inside the integers; the picture's edge cuts it
    return (
        drawn + first,
        np.clip(tops, -limit, limit).astype(np.int64),
        np.clip(bottoms, -limit, limit).astype(np.int64),
    )


def _ink(
    picture: npt.NDArray[np.uint8],
    columns: npt.NDArray[np.int64],
    tops: npt.NDArray[np.int64],
    bottoms: npt.NDArray[np.int64],
    trace_px: int,
) -> None:
    """Blacken the spans, each widened by ``trace_px - 1`` pixels down and to the right."""
    height, width = picture.shape[:2]
    tops, bottoms = np.maximum(tops, 0), np.minimum(bottoms + trace_px - 1, height - 1)
    inside = (tops <= bottoms) & (columns < width)
    columns, tops, bottoms = columns[inside], tops[inside], bottoms[inside]
    lengths = bottoms - tops + 1
    # Every pixel of every span: its span's first pixel, and as many rows down as it is pixels into the span.
    into_span = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.repeat(tops * width + columns, lengths) + into_span * width
    pixels = picture.reshape(-1).view("V3")
    ink = np.array(INK_RGB, np.uint8).view("V3")[0]
    pixels[places] = ink
    if trace_px > 1:
        room = np.repeat(width - 1 - columns, lengths)
        for shift in range(1, trace_px):
            pixels[places + np.minimum(room, shift)] = ink


@lru_cache(maxsize=8)
def _background(layout: PaperLayout) -> npt.NDArray[np.uint8]:
    """Paper with grid, calibration pulses, lead names and the ticks between leads, the same for every signal."""
    height, width = layout.shape_px
    paper = np.empty((height, width, 3), np.uint8)
    paper[:] = PAPER_RGB
    scale = layout.pixels_per_mm
    if layout.has_grid:
        if scale >= _FINE_FROM_PIXELS_PER_MM:
            _rule(paper, 1.0, scale, FINE_RGB)
        _rule(paper, 5.0, scale, HEAVY_RGB)
    for row, names in enumerate(layout.rows):
        baseline_px = layout.baseline_mm(row) * scale
        share_px = layout.duration_s / len(names) * layout.paper_speed_mm_per_s * scale
        left_px = layout.trace_left_mm * scale
        if layout.has_calibration:
            _draw_calibration(paper, layout, baseline_px)
        for column, name in enumerate(names):
            x_px = round(left_px + column * share_px)
            if column:
                tick_px = round(1.5 * scale)
                paper[round(baseline_px) - tick_px : round(baseline_px) + tick_px, x_px : x_px + 1] = INK_RGB
            if layout.has_labels:
                _stamp(
                    paper, name, x_px + round(scale), round(baseline_px - 0.45 * layout.row_height_mm * scale), scale
                )
    if layout.has_labels and layout.margin_mm * scale >= 11:
        text = f"{layout.paper_speed_mm_per_s:g} mm/s   {layout.gain_mm_per_mv:g} mm/mV"
        _stamp(paper, text, round(layout.margin_mm * scale), height - round(0.9 * layout.margin_mm * scale), scale)
    paper.setflags(write=False)
    return paper


def _rule(paper: npt.NDArray[np.uint8], every_mm: float, pixels_per_mm: float, colour: tuple[int, int, int]) -> None:
    height, width = paper.shape[:2]
    for axis, size in ((0, height), (1, width)):
        lines = np.floor(np.arange(0, size / pixels_per_mm, every_mm) * pixels_per_mm + 0.5).astype(np.int64)
        lines = lines[lines < size]
        if axis == 0:
            paper[lines] = colour
        else:
            paper[:, lines] = colour


def _draw_calibration(paper: npt.NDArray[np.uint8], layout: PaperLayout, baseline_px: float) -> None:
    """Pulse of 1 mV and 200 ms between two feet, in front of a row."""
    scale = layout.pixels_per_mm
    foot_px = layout.margin_mm * scale
    rise_px = foot_px + _CALIBRATION_LEAD_MM * scale
    fall_px = rise_px + CALIBRATION_S * layout.paper_speed_mm_per_s * scale
    top, base = int(baseline_px - CALIBRATION_MV * layout.gain_mm_per_mv * scale), int(baseline_px)
    left, rise, fall, right = int(foot_px), int(rise_px), int(fall_px), int(fall_px + _CALIBRATION_LEAD_MM * scale)
    thick = layout.trace_px
    top = max(top, 0)
    paper[base : base + thick, left : rise + thick] = INK_RGB
    paper[base : base + thick, fall:right] = INK_RGB
    paper[top : top + thick, rise : fall + thick] = INK_RGB
    paper[top : base + thick, rise : rise + thick] = INK_RGB
    paper[top : base + thick, fall : fall + thick] = INK_RGB


def _stamp(paper: npt.NDArray[np.uint8], text: str, x_px: int, y_px: int, pixels_per_mm: float) -> None:
    """Letters about 3 mm high with their upper left corner at that pixel, cut at the edges."""
    letters = _letters(text)
    times = max(1, round(3 * pixels_per_mm / letters.shape[0]))
    letters = letters.repeat(times, axis=0).repeat(times, axis=1)
    y_px, x_px = max(y_px, 0), max(x_px, 0)
    place = paper[y_px : y_px + letters.shape[0], x_px : x_px + letters.shape[1]]
    place[letters[: place.shape[0], : place.shape[1]]] = INK_RGB


@lru_cache(maxsize=64)
def _letters(text: str) -> npt.NDArray[np.bool_]:
    font = ImageFont.load_default_imagefont()
    left, top, right, bottom = font.getbbox(text)
    canvas = Image.new("1", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(canvas).text((-left, -top), text, fill=1, font=font)
    return np.asarray(canvas, dtype=np.bool_)
