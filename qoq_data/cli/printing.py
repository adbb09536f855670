"""Tables and JSON on stdout, progress on stderr; plain text where the output is no terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def print_line(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """A table as wide as its content on a pipe, and fitted to the window on a terminal."""
    from rich.console import Console
    from rich.table import Table

    if title:
        print_line(title)
    if not sys.stdout.isatty():
        texts = [[_text(cell) for cell in row] for row in rows]
        widths = [max(len(line[i]) for line in [list(columns), *texts]) for i in range(len(columns))]
        for line in [list(columns), ["-" * width for width in widths], *texts]:
            print_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        is_number = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        table.add_column(column, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    Console().print(table)


def _text(cell: Any) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return "" if cell is None else str(cell)


@contextmanager
def row_progress(what: str) -> Iterator[Callable[[int, int, bool], None]]:
    """Calls with (done, total, reused) become a bar on stderr, or a line every tenth where that is no terminal."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total, _reused: bar.update(task, completed=done, total=total)
        return
    tenths = 0

    def plain(done: int, total: int, _reused: bool) -> None:
        nonlocal tenths
        if total and done * 10 // total > tenths:
            tenths = done * 10 // total
            sys.stderr.write(f"{what}: {done:,} of {total:,}\n")

    yield plain
