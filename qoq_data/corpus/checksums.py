"""The publisher's list of checksums: lines of a sha256 and a path, as ``sha256sum`` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from qoq_data.errors import Reason, RecordError
from qoq_data.formats.storage import Store

LIST_LIMIT = 1 << 30
_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(?:\./)?([^\r\n]+?)\r?")


@dataclass(frozen=True, slots=True)
class ChecksumList:
    """Digests by path below the root, and how many lines are none."""

    digests: dict[str, str]
    unreadable_lines: int


def read_checksums(tree: Store, path: str) -> ChecksumList:
    """The publisher's list; raises ``RecordError`` when it is absent or unreadable."""
    digests: dict[str, str] = {}
    unreadable = 0
    for line in tree.read(path, LIST_LIMIT).decode("utf-8", errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if match:
            digests[match[2]] = match[1].lower()
        elif line.strip():
            unreadable += 1
    return ChecksumList(digests, unreadable)


def disagreeing(tree: Store, digests: dict[str, str]) -> Iterator[tuple[str, RecordError]]:
    """The files that are absent, unreadable, or have other bytes than the publisher's, in the order of their paths."""
    for path, expected in sorted(digests.items()):
        try:
            if tree.sha256(path) != expected:
                detail = "other bytes than the publisher's: cut short, changed, or of another release"
                yield path, RecordError(Reason.CHECKSUM_MISMATCH, detail, path)
        except RecordError as error:
            yield path, error
