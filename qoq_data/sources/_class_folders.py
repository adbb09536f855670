"""Sources that are folders of pictures, one a class: the label stands in the path, and nowhere else in the row."""

from __future__ import annotations

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
    """The sorted picture names of each folder, and how many other files stand in these folders or below them."""

    pictures: Mapping[ClassFolder, tuple[str, ...]]
    other_files: int

    def counts(self) -> dict[str, int]:
        """Pictures a folder, named as ``training_no_tumor_pictures``, and the files that are none."""
        found = {
            f"{folder.path.lower().replace('/', '_').replace('-', '_')}_pictures": len(names)
            for folder, names in self.pictures.items()
        }
        return found | {"files_that_are_no_picture": self.other_files}


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name; ``._a.jpg`` and the like are what a Mac leaves beside it."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def list_class_folders(tree: Store, source: str, folders: Sequence[ClassFolder]) -> FolderListing:
    """Pictures directly in each folder; raises ``LayoutError`` for a folder that is absent or holds none."""
    for folder in folders:
        if not tree.is_folder(folder.path):
            raise LayoutError(
                f"{source}: there is no folder {folder.path}/ in the raw folder. Is it a level too high or too low, "
                f"another source's, or not unpacked yet? Type: qoq-data doctor {source} --raw DIR"
            )
    pictures: dict[ClassFolder, tuple[str, ...]] = {}
    others = 0
    for folder in folders:
        names = [name for name in tree.names(folder.path) if is_picture(name)]
        if not names:
            raise LayoutError(f"{source}: {folder.path}/ holds no picture. Unpack the archive again.")
        pictures[folder] = tuple(names)
        others += sum(1 for _ in tree.walk(folder.path)) - len(names)
    return FolderListing(pictures, others)


def folder_rows(listing: FolderListing, task: str) -> list[dict[str, Any]]:
    """A row a picture for ``item_table``; its id is a digest of its path, since the path holds the answer.

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
                    "label_row": f"folder {folder.path}",
                    f"answer.{task}": [folder.label],
                }
            )
    return rows


def folder_items(rows: Sequence[Mapping[str, Any]], task: str) -> pl.LazyFrame:
    """Rows of ``folder_rows`` as an item table."""
    return item_table(rows, {task: pl.List(pl.String)})
