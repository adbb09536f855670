"""What an item's table says of its media, typed: which file, of which kind, which part, and boxes drawn on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qoq_data.clinical.tiling import Window
from qoq_data.source import MediaKind


@dataclass(frozen=True, slots=True)
class MediaReference:
    """One entry of an item's ``media`` column; see ``qoq_data.source`` for its fields."""

    role: str
    kind: MediaKind
    path: str
    part: str
    window: Window | None = None
    slice: tuple[str, int] | None = None
    display: str = ""
    laterality: str = ""
    frame: int = 0

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> MediaReference:
        corners, cut = entry.get("window"), entry.get("slice")
        window = None
        if corners is not None and corners["x0"] is not None:
            window = (corners["x0"], corners["y0"], corners["x1"], corners["y1"])
        return cls(
            entry["role"],
            entry["kind"],
            entry["path"],
            entry["part"],
            window,
            (cut["plane"], cut["index"]) if cut is not None and cut["plane"] is not None else None,
            entry.get("display") or "",
            entry.get("laterality") or "",
            entry.get("frame") or 0,
        )


@dataclass(frozen=True, slots=True)
class GivenBox:
    """One entry of an item's ``boxes`` column: half-open edges in pixels of the picture as it stands in its file."""

    label: str
    image: int
    edges: tuple[float, float, float, float]
    agreement: float | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> GivenBox:
        edges = (entry["x0"], entry["y0"], entry["x1"], entry["y1"])
        return cls(entry["label"], entry["image"], edges, entry["agreement"])
