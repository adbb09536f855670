"""Whether a raw folder is the wrong one: a level too high, a level too low, or another source's."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qoq_data.formats.storage import Store
from qoq_data.source import Source, SourceSpec
from qoq_data.sources import registry

LEVELS_DOWN = 4
"""As deep as wget puts a PhysioNet release: physionet.org/files/<name>/<version>."""
FOLDERS_LOOKED_INTO = 200
_LEVELS_UP = 3


@dataclass(frozen=True, slots=True)
class WrongRoot:
    what: str
    where: str
    what_to_type: str


def missing_required(spec: SourceSpec, tree: Store, below: str = "") -> list[str]:
    """The required files and folders that are not there, in the order of the SPEC; a file is no folder."""
    prefix = f"{below}/" if below else ""
    return [
        file.path
        for file in spec.expected_files
        if file.required
        and not any(
            _is_there(tree, prefix + name.rstrip("/"), name.endswith("/")) for name in (file.path, *file.other_names)
        )
    ]


def wrong_root(source: Source, tree: Store) -> WrongRoot | None:
    """Where the source's files are instead, or whose files these are; None where neither can be told."""
    root = typed_root(tree)

    def again(name: str, place: str) -> str:
        return f"qoq-data doctor {name} --raw {shlex.quote(root + place)}"

    for below in _folders(tree):
        if not missing_required(source.spec, tree, below):
            what = "the folder is too high: the files stand below it"
            return WrongRoot(what, f"{below}/", again(source.name, f"/{below}"))
    if tree.folder is not None:
        for levels in range(1, _LEVELS_UP + 1):
            up = "/.." * levels
            if not missing_required(source.spec, Store(f"{tree.folder}{up}")):
                return WrongRoot("the folder is too low: the files stand above it", "", again(source.name, up))
    for other in registry().values():
        if other.name != source.name and not missing_required(other.spec, tree):
            return WrongRoot(f"these are the files of {other.spec.title} ({other.name})", "", again(other.name, ""))
    return None


def typed_root(tree: Store) -> str:
    """The root as a person may type it here; an absolute path is left for them to fill in, since reports get shared."""
    if tree.folder is None:
        return tree.address
    if not tree.folder.is_absolute():
        return str(tree.folder)
    try:
        return str(tree.folder.relative_to(Path.cwd()))
    except ValueError:
        return "DIR"


def _is_there(tree: Store, path: str, folder: bool) -> bool:
    return tree.is_folder(path) if folder else tree.exists(path) and not tree.is_folder(path)


def _folders(tree: Store) -> Iterator[str]:
    """Folders below the root, the nearest first, so many and so deep as is sensible."""
    level = [""]
    looked = 0
    for _ in range(LEVELS_DOWN):
        following: list[str] = []
        for folder in level:
            looked += 1
            if looked > FOLDERS_LOOKED_INTO:
                return
            names = [name.rstrip("/") for name in tree.names(folder) if name.endswith("/")]
            following += [f"{folder}/{name}" if folder else name for name in names[:FOLDERS_LOOKED_INTO]]
        yield from following
        level = following
