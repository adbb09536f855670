"""Sources that are folders of pictures, one a class: the label stands in the path, and nowhere else in the row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from qoq_data.errors import LayoutError
from qoq_data.formats.storage import Store
from qoq_data.sources._item_rows import image_medium, item_of_path, item_table

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Endings of pictures, in any letter case."""


@dataclass(frozen=True, slots=True)
class ClassFolder:
    """A folder below the root whose pictures all have one label; ``split`` where the publisher's layout gives one."""

    path: str
    label: str
    split: str | None = None


@dataclass(frozen=True, slots=True)
class FolderListing:
    """The picture names of each folder, in reading order, and how many other files stand beside them."""

    pictures: Mapping[ClassFolder, tuple[str, ...]]
    other_files: int


def list_class_folders(tree: Store, source: str, folders: Sequence[ClassFolder]) -> FolderListing:
    """Raises ``LayoutError`` for a folder that is absent or holds no picture."""
    absent = [folder.path for folder in folders if not tree.is_folder(folder.path)]
    if absent:
        found = ", ".join(tree.names()[:20]) or "nothing"
        raise LayoutError(f"{source}: there is no folder {absent[0]}/ in the raw folder, which holds {found}.")
    pictures: dict[ClassFolder, tuple[str, ...]] = {}
    others = 0
    for folder in folders:
        names = tree.names(folder.path)
        found_here = [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        others += sum(not name.endswith("/") for name in names) - len(found_here)
        if not found_here:
            raise LayoutError(f"{source}: {folder.path}/ holds no picture. Unpack the archive again.")
        pictures[folder] = tuple(sorted(found_here, key=natural_order))
    return FolderListing(pictures, others)


def folder_items(listing: FolderListing, task: str) -> pl.LazyFrame:
    """An item table with a row a picture; its id is a digest of its path, since the path holds the answer.

    Groups are the pictures themselves: a publisher of class folders gives no patient, so content alone joins them.
    """
    rows: list[dict[str, Any]] = []
    for folder, names in listing.pictures.items():
        for name in names:
            path = f"{folder.path}/{name}"
            item = item_of_path(path)
            rows.append(
                {
                    "item": item,
                    "group": f"picture:{item}",
                    "official_split": folder.split,
                    "media": [image_medium(path)],
                    "label_file": path,
                    "label_row": f"folder {folder.path.rpartition('/')[2]}",
                    f"answer.{task}": [folder.label],
                }
            )
    return item_table(sorted(rows, key=lambda row: row["item"]), {task: pl.List(pl.String)})


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key in which ``image (2)`` stands before ``image (10)``."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)
