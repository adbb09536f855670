"""The parts of a data card that a person writes: named blocks, which a newly generated card takes over word for word.

<!-- by hand: judgement -->
…
<!-- end by hand -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from qoq_data.errors import UsageError

BLOCKS = ("judgement", "known-defects")
"""Every block that a card has."""

END = "<!-- end by hand -->"
_BEGIN = re.compile(r"<!-- by hand: ([^>]*?) -->")
_NEARLY = re.compile(r"<!--\s*(end\s+)?by\s+hand", re.IGNORECASE)


def begin(name: str) -> str:
    return f"<!-- by hand: {name} -->"


def read_blocks(text: str, card: str) -> Mapping[str, str]:
    """What stands in each block of a card, without the marks; ``card`` is what errors call it.

    Raises ``UsageError`` for a block that is not closed, not known or there twice, for an end without a beginning, and
    for a line that is nearly a mark: whatever it meant to keep would be lost.
    """
    found: dict[str, str] = {}
    name, kept, opened = "", list[str](), 0
    for number, line in enumerate(text.splitlines(), 1):
        match = _BEGIN.fullmatch(line.strip())
        if match:
            _check_begin(f"{card}, line {number}:", match[1], found, name, opened)
            name, opened, kept = match[1], number, []
        elif line.strip() == END:
            if not name:
                raise UsageError(f"{card}, line {number}: this ends a block that was not begun; remove it.")
            found[name] = "\n".join(kept).strip("\n")
            name = ""
        elif _NEARLY.search(line):
            raise UsageError(f"{card}, line {number}: a mark is a line of its own, like {begin(BLOCKS[0])} or {END}.")
        else:
            kept.append(line)
    if name:
        raise UsageError(f"{card}, line {opened}: the block {name!r} is not closed; write {END} after it.")
    return found


def _check_begin(where: str, name: str, found: Mapping[str, str], open_block: str, opened: int) -> None:
    if open_block:
        raise UsageError(f"{where} the block {open_block!r} of line {opened} is not closed; write {END} before this.")
    if name not in BLOCKS:
        raise UsageError(f"{where} there is no block {name!r}; a card has {' and '.join(BLOCKS)}.")
    if name in found:
        raise UsageError(f"{where} the block {name!r} stands twice; make them one.")


def block_lines(name: str, kept: Mapping[str, str]) -> list[str]:
    """A block with its marks and what a person wrote in it, nothing where no one has yet."""
    text = kept.get(name, "")
    return [begin(name), "", *text.strip("\n").splitlines(), "", END, ""] if text.strip() else [begin(name), END, ""]
