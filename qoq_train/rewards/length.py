"""What length is worth: the released code pays for it, so its preset does; ours does not."""

from __future__ import annotations


def released_length_reward(text: str) -> float:
    """A thousandth a character up to 600 characters, 1 beyond, as in the released code."""
    return 1.0 if len(text) > 600 else 0.001 * len(text)
