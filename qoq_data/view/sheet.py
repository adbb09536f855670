"""A sheet of rows, to see at a glance what a corpus holds and whether its boxes sit where they should."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qoq_data.errors import UsageError
from qoq_data.formats.image import encode_image
from qoq_data.view.panel import draw_panel
from qoq_data.view.pick import pick_rows

__all__ = ["draw_sheet", "pick_rows", "sheet_png"]

WIDTH_PX = 2000
COLUMNS = 2
MAX_PIXELS = 120_000_000
_NARROWEST_PANEL = 240
_GROUND = (233, 237, 243)


def draw_sheet(
    rows: Sequence[Mapping[str, Any]], columns: int = COLUMNS, width_px: int = WIDTH_PX
) -> NDArray[np.uint8]:
    """The rows as panels in columns, [height, width_px, 3]; each goes under the column that is shortest so far.

    ``rows`` hold the columns of ``pick.COLUMNS`` as ``pyarrow``'s ``to_pylist`` or ``datasets`` without decoding give
    them. Deterministic. Raises ``UsageError`` for no row, a panel too narrow to read, or a sheet of more than
    ``MAX_PIXELS``.
    """
    if not rows:
        raise UsageError("There is no row to draw.")
    columns = min(columns, len(rows))
    gap = max(8, width_px // 80)
    panel = (width_px - gap * (columns + 1)) // columns if columns > 0 else 0
    if panel < _NARROWEST_PANEL:
        raise UsageError(f"A panel would be {panel} pixels wide, and below {_NARROWEST_PANEL} nothing can be read.")
    ends = [gap] * columns
    placed: list[tuple[NDArray[np.uint8], int, int]] = []
    for row in rows:
        picture = draw_panel(row, panel)
        column = ends.index(min(ends))
        placed.append((picture, ends[column], gap + column * (panel + gap)))
        ends[column] += picture.shape[0] + gap
        if max(ends) * width_px > MAX_PIXELS:
            raise UsageError(f"The sheet would have more than {MAX_PIXELS:,} pixels; draw fewer rows.")
    sheet = np.empty((max(ends), width_px, 3), np.uint8)
    sheet[:] = _GROUND
    for picture, y, x in placed:
        sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet


def sheet_png(rows: Sequence[Mapping[str, Any]], columns: int = COLUMNS, width_px: int = WIDTH_PX) -> bytes:
    """``draw_sheet`` as the bytes of a PNG file."""
    return encode_image(draw_sheet(rows, columns, width_px), "PNG")
