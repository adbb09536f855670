"""Raw clinical sources, as their publishers ship them, into one question-answer corpus."""

from __future__ import annotations

__version__ = "0.1.0"
