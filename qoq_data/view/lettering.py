"""Letters for pictures: wrapped lines in the font that comes with Pillow, which no machine lacks.

That font holds little more than ASCII. What it lacks is written in letters that it has, and as a question mark where
there are none: a box in place of a letter tells a reader less.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_HELD = frozenset("±·…’°")
_INSTEAD = {
    "µ": "u",
    "μ": "u",
    "–": "-",
    "—": "-",
    "×": "x",
    "≥": ">=",
    "≤": "<=",
    "‘": "'",
    "“": '"',
    "”": '"',
    "ß": "ss",
}
_LONGEST = 2_000
BOLD = 0.4
"""Width in pixels of the stroke round letters that stand out; the font has one weight."""


def drawable(text: str) -> str:
    """The text in letters that the font has, on one line, cut when it is longer than a page could show."""
    joined = " ".join(text.split())
    if len(joined) > _LONGEST:
        joined = joined[:_LONGEST] + "…"
    return "".join(map(_drawable_letter, joined))


def _drawable_letter(letter: str) -> str:
    if letter in _HELD or " " <= letter <= "~":
        return letter
    if letter in _INSTEAD:
        return _INSTEAD[letter]
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if " " <= part <= "~")
    return plain or "?"


@lru_cache(maxsize=32)
def font(size_px: int) -> ImageFont.FreeTypeFont:
    found = ImageFont.load_default(size_px)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise ImportError("Pillow was built without FreeType: install it from its wheel.")
    return found


def width(text: str, size_px: int, bold: bool = False) -> int:
    """Pixels that a line of drawable text takes."""
    return round(font(size_px).getlength(text) + 2 * (BOLD if bold else 0))


def wrap(text: str, size_px: int, width_px: int) -> list[str]:
    """Lines that fit, broken at blanks, and inside a word only where the word alone is too wide."""
    lines: list[str] = []
    line = ""
    for word in drawable(text).split(" "):
        longer = f"{line} {word}" if line else word
        if width(longer, size_px) <= width_px:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while width(line, size_px) > width_px and len(line) > 1:
            fits = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or width(line[:n], size_px) <= width_px)
            lines.append(line[:fits])
            line = line[fits:]
    return [*lines, line] if line else lines


def clip(text: str, size_px: int, width_px: int) -> str:
    """The text, its middle left out where it is too wide: ids differ at both ends."""
    shown = drawable(text)
    if width(shown, size_px) <= width_px:
        return shown
    for kept in range(len(shown) - 1, 1, -1):
        shorter = f"{shown[: kept - kept // 2]}…{shown[len(shown) - kept // 2 :]}"
        if width(shorter, size_px) <= width_px:
            return shorter
    return "…"


def line_height(size_px: int) -> int:
    return round(size_px * 1.36)


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size_px: int,
    colour: Colour,
    bold: bool = False,
    anchor: str = "la",
) -> None:
    """Draw one line of drawable text; ``anchor`` is Pillow's."""
    draw.text(
        at, text, fill=colour, font=font(size_px), anchor=anchor, stroke_width=BOLD if bold else 0, stroke_fill=colour
    )


def blank(width_px: int, height_px: int, colour: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width_px, height_px), colour)
    return image, ImageDraw.Draw(image)
