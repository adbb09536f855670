"""What the synthetic trees of several sources write alike: tables, and the publisher's list of checksums."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

CHECKSUMS = "SHA256SUMS.txt"


def csv_bytes(header: Iterable[object], rows: Iterable[Iterable[object]]) -> bytes:
    """A table as its publisher writes it: UTF-8, commas, newlines, quotes where they are needed."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def write_with_checksums(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their relative paths, and beside them PhysioNet's ``SHA256SUMS.txt`` of them all."""
    sums = "".join(f"{hashlib.sha256(data).hexdigest()} {path}\n" for path, data in sorted(files.items()))
    for path, data in {**files, CHECKSUMS: sums.encode()}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
