"""Markdown by lines: tables whose cells cannot break out of them, and licence tables that both kinds of card show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from qoq_data.licence import Licence, Redistribution

REDISTRIBUTION_TEXT: Mapping[Redistribution, str] = {
    Redistribution.NONE: "nothing",
    Redistribution.IDS: "ids only: who wants the rows fetches the files and builds them",
    Redistribution.SAME_TERMS: "rows, under the same licence",
    Redistribution.OPEN: "rows, with the credit that the licence asks for",
}

_SPECIAL = re.compile(r"([\\|`*_<>\[\]])")


def plain(text: str) -> str:
    """Text from a table or a manifest as one line that Markdown shows as it stands."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def cell(value: str | int | float | None) -> str:
    """A table's cell, its text being Markdown already: numbers with thousands, an absent value as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(str(value).split()))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> Iterator[str]:
    """Lines of a table and a blank line; columns that hold numbers alone stand to the right. No row: no line."""
    kept = [tuple(row) for row in rows]
    if not kept:
        return
    numeric = [all(isinstance(value, int | float | None) for value in column) for column in zip(*kept, strict=True)]
    yield f"| {' | '.join(columns)} |"
    yield f"|{'|'.join('---:' if right else '---' for right in numeric)}|"
    for row in kept:
        yield f"| {' | '.join(map(cell, row))} |"
    yield ""


def licence_rows(licences: Mapping[str, Licence]) -> Iterator[tuple[str, str, str, str]]:
    """For each input: its role, the licence with its link, its identifier, and what may be passed on."""
    for role, one in licences.items():
        yield role, f"[{plain(one.title)}]({one.url})", f"`{one.identifier}`", REDISTRIBUTION_TEXT[one.redistribution]


def sentence(text: str) -> str:
    """The text with a capital in front and a period behind."""
    whole = text.strip()
    return whole[:1].upper() + whole[1:] + ("" if whole.endswith((".", "!", "?")) else ".")
