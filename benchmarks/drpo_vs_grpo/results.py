"""Finished runs as JSON lines: appended one by one and read back whole, so that a stopped benchmark goes on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qoq_data.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

Line = dict[str, Any]


def append(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append the lines at once, and only then return."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(dict(line), sort_keys=True) + "\n" for line in lines)
    with file.open("a", encoding="utf-8") as out:
        out.write(text)


def read(file: Path) -> list[Line]:
    """The lines of a file, none where there is none; a last line that was cut short is left out.

    Raises:
        UsageError: any other line is not a JSON object.
    """
    if not file.exists():
        return []
    texts = file.read_text(encoding="utf-8").split("\n")
    lines = []
    for number, text in enumerate(texts[:-1], start=1):  # behind the last newline stands nothing, or a cut line
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError(f"{file.name}, line {number}: not JSON. Take the line out, or another --out.") from error
        if not isinstance(line, dict):
            raise UsageError(f"{file.name}, line {number}: not a JSON object. Take it out, or another --out.")
        lines.append(line)
    if texts[-1]:
        file.write_text("\n".join(texts[:-1]) + ("\n" if texts[:-1] else ""), encoding="utf-8")
    return lines


def by_seed(lines: Sequence[Line], **wanted: Any) -> dict[int, Line]:
    """The runs that have all the wanted values, by seed; the last of a seed counts."""
    return {line["seed"]: line for line in lines if all(line.get(name) == value for name, value in wanted.items())}
