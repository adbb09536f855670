"""One row as a panel: where it comes from, its media, the question, the choices with the answer marked, its terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from qoq_data.record import AnswerType, Split
from qoq_data.view.lettering import Colour, blank, clip, drawable, line_height, width, wrap, write
from qoq_data.view.media import draw_image, draw_signal
from qoq_data.view.pick import SYNTHETIC

PANEL: Colour = (255, 255, 255)
_EDGE: Colour = (214, 219, 228)
_INK: Colour = (24, 29, 39)
_MUTED: Colour = (96, 104, 120)
_FAINT: Colour = (130, 138, 152)
_CHIP: Colour = (240, 243, 247)
_RIGHT: Colour = (18, 122, 72)
_RIGHT_PAPER: Colour = (219, 243, 229)
_WHITE: Colour = (255, 255, 255)
_SPLITS: Mapping[str, Colour] = {
    str(Split.TRAIN): (47, 103, 177),
    str(Split.VALIDATION): (164, 98, 10),
    str(Split.TEST): (134, 58, 150),
}
_GENERATED: Colour = (176, 42, 48)
_PAPER_VIEW = "ECG paper"
_MOST_PICTURES = 4
_GAP = 6


@dataclass(slots=True)
class _Cursor:
    """A panel while it is filled from top to bottom: ``pieces`` are pictures with their upper left corner."""

    width_px: int
    pieces: list[tuple[Image.Image, int, int]]
    y: int = 0

    def add(self, piece: Image.Image, x: int) -> None:
        self.pieces.append((piece, x, self.y))
        self.y += piece.height


def draw_panel(row: Mapping[str, Any], width_px: int) -> NDArray[np.uint8]:
    """A row as a picture [height, width_px, 3]; its height is what the row needs.

    ``row`` has the row's columns as ``pyarrow`` or ``datasets`` give them, images undecoded, and maybe ``SYNTHETIC``.
    """
    size = max(13, round(width_px / 44))
    margin = round(width_px * 0.03)
    inner = width_px - 2 * margin
    cursor = _Cursor(width_px, [], margin)
    cursor.add(_head(row, inner, size), margin)
    cursor.y += size // 2
    for picture in _media(row, inner):
        cursor.add(picture, margin + (inner - picture.width) // 2)
        cursor.y += _GAP
    cursor.y += size // 2
    cursor.add(_lines(row["question"], inner, round(size * 1.1), _INK, bold=True), margin)
    cursor.y += size // 3
    cursor.add(_answer(row, inner, size), margin)
    cursor.y += size // 2
    for text in _notes(row):
        cursor.add(_lines(text, inner, round(size * 0.84), _MUTED), margin)
    cursor.y += size // 3
    cursor.add(_foot(row, inner, round(size * 0.74)), margin)
    return _assemble(cursor, margin)


def _assemble(cursor: _Cursor, margin: int) -> NDArray[np.uint8]:
    image, draw = blank(cursor.width_px, cursor.y + margin, PANEL)
    for piece, x, y in cursor.pieces:
        image.paste(piece, (x, y))
    draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=_EDGE)
    return np.asarray(image)


def _head(row: Mapping[str, Any], inner: int, size: int) -> Image.Image:
    """Source and task to the left, split to the right, and before it whether the row was generated."""
    image, draw = blank(inner, round(size * 1.7), PANEL)
    middle = image.height / 2
    right = inner
    pills = [(drawable(row["split"]), _SPLITS.get(row["split"], _MUTED))]
    if row.get(SYNTHETIC):
        pills.append(("synthetic", _GENERATED))
    for text, colour in pills:
        left = right - width(text, size, bold=True) - size
        draw.rounded_rectangle((left, 0, right - 1, image.height - 1), radius=size * 0.4, fill=colour)
        write(draw, ((left + right) / 2, middle), text, size, _WHITE, bold=True, anchor="mm")
        right = left - size // 3
    name = clip(row["source"], size, right - size)
    write(draw, (0, middle), name, size, _INK, bold=True, anchor="lm")
    start = width(name, size, bold=True) + size // 2
    task = clip(f"· {row['task']}", size, max(size, right - size - start))
    write(draw, (start, middle), task, size, _MUTED, anchor="lm")
    return image


def _media(row: Mapping[str, Any], inner: int) -> list[Image.Image]:
    views = [view["view"] for view in row.get("views") or ()]
    pictures = []
    if _PAPER_VIEW not in views:
        for signal in (row.get("signals") or ())[:_MOST_PICTURES]:
            if signal["unit"] == "mV":
                pictures.append(Image.fromarray(draw_signal(signal, inner)))
            else:
                text = f"A signal in {signal['unit']}: it has no place on millimetre paper."
                pictures.append(_lines(text, inner, max(13, inner // 44), _MUTED))
    images = list(row.get("images") or ())
    each = inner if len(images) == 1 else (inner - _GAP) // 2
    drawn = []
    for index, image in enumerate(images[:_MOST_PICTURES]):
        boxes = [box for box in row.get("boxes") or () if box["image"] == index]
        drawn.append(Image.fromarray(draw_image(image["bytes"], boxes, each)))
    pictures += [_beside(drawn[first : first + 2]) for first in range(0, len(drawn), 2)]
    left_out = max(0, len(images) - _MOST_PICTURES) + max(0, len(row.get("signals") or ()) - _MOST_PICTURES)
    if left_out:
        pictures.append(_lines(f"and {left_out} more, not drawn", inner, max(13, inner // 54), _MUTED))
    return pictures


def _beside(pictures: Sequence[Image.Image]) -> Image.Image:
    if len(pictures) == 1:
        return pictures[0]
    wide = sum(picture.width for picture in pictures) + _GAP * (len(pictures) - 1)
    image, _ = blank(wide, max(picture.height for picture in pictures), PANEL)
    x = 0
    for picture in pictures:
        image.paste(picture, (x, (image.height - picture.height) // 2))
        x += picture.width + _GAP
    return image


def _lines(text: str, inner: int, size: int, colour: Colour, bold: bool = False) -> Image.Image:
    lines = wrap(text, size, inner - 2)
    image, draw = blank(inner, max(1, len(lines) * line_height(size)), PANEL)
    for number, line in enumerate(lines):
        write(draw, (1, number * line_height(size)), line, size, colour, bold=bold)
    return image


def _answer(row: Mapping[str, Any], inner: int, size: int) -> Image.Image:
    """Every choice as a chip, those of the answer in green with a tick; a number with its tolerance."""
    answer = list(row["answer"])
    if row["answer_type"] == str(AnswerType.NUMBER):
        tolerance = row.get("tolerance")
        shown = ", ".join(answer) + (f"  ± {tolerance:g}" if tolerance is not None else "")
        return _chips([(shown, True)], inner, size)
    return _chips([(choice, choice in answer) for choice in row["choices"]], inner, round(size * 0.88))


def _chips(texts: Sequence[tuple[str, bool]], inner: int, size: int) -> Image.Image:
    pad, high, gap = round(size * 0.6), round(size * 1.75), round(size * 0.45)
    placed: list[tuple[str, bool, int, int, int]] = []
    x = y = 0
    for text, right in texts:
        tick = size if right else 0
        shown = clip(text, size, inner - 2 * pad - tick - 2)
        wide = width(shown, size, bold=right) + 2 * pad + tick
        if x and x + wide > inner:
            x, y = 0, y + high + gap
        placed.append((shown, right, x, y, wide))
        x += wide + gap
    image, draw = blank(inner, y + high, PANEL)
    for shown, right, left, top, wide in placed:
        box = (left, top, left + wide - 1, top + high - 1)
        draw.rounded_rectangle(
            box, radius=high * 0.3, fill=_RIGHT_PAPER if right else _CHIP, outline=_RIGHT if right else _EDGE
        )
        if right:
            _tick(draw, left + pad, top + high / 2, size)
        start = left + pad + (size if right else 0)
        write(draw, (start, top + high / 2), shown, size, _RIGHT if right else _MUTED, bold=right, anchor="lm")
    return image


def _tick(draw: ImageDraw.ImageDraw, x: float, middle: float, size: int) -> None:
    points = [(x, middle), (x + size * 0.25, middle + size * 0.25), (x + size * 0.7, middle - size * 0.3)]
    draw.line(points, fill=_RIGHT, width=max(2, round(size / 8)), joint="curve")


def _notes(row: Mapping[str, Any]) -> list[str]:
    """What may be known when the question is asked, and the findings of quality."""
    notes = [f"Context: {row['context']}"] if row["context"] else []
    counts: dict[str, list[str]] = {}
    for finding in row.get("quality") or ():
        counts.setdefault(finding["code"].replace("_", " "), []).append(finding["where"])
    found = [f"{code} ({', '.join(filter(None, where))})" if any(where) else code for code, where in counts.items()]
    if found:
        notes.append(f"Findings: {'; '.join(found)}")
    return notes


def _foot(row: Mapping[str, Any], inner: int, size: int) -> Image.Image:
    """The row's id to the left, its licence and what may be passed on to the right."""
    terms = clip(f"{row['licence']} · {row['redistribution']}", size, inner * 6 // 10)
    row_id = clip(row["id"], size, inner - width(terms, size) - 2 * size)
    image, draw = blank(inner, round(size * 1.6), PANEL)
    base = image.height - size * 0.2
    write(draw, (0, base), row_id, size, _FAINT, anchor="ls")
    write(draw, (inner - 1, base), terms, size, _FAINT, anchor="rs")
    return image
