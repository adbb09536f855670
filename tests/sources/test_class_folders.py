"""Class folders as items: what counts as a picture, what stands in the rows, and layouts that are refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from qoq_data.errors import LayoutError
from qoq_data.formats.storage import Store
from qoq_data.sources._class_folders import ClassFolder, folder_items, folder_rows, is_picture, list_class_folders

FOLDERS = (ClassFolder("Train/sick-lung", "sick", "train"), ClassFolder("well", "well"))


def tree_of(folder: Path, *names: str) -> Store:
    for name in ("Train/sick-lung/a (2).JPG", "well/a.png", *names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return Store(folder)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPG", "b.c.Jpeg", "a (1).png"])
def test_names_of_pictures(name: str) -> None:
    assert is_picture(name)


@pytest.mark.parametrize("name", ["a.gif", "Thumbs.db", ".jpg", "._a.jpg", "jpg", "a.jpg.txt", "folder.jpg/"])
def test_names_that_are_none(name: str) -> None:
    assert not is_picture(name)


def test_what_is_no_picture_is_counted_and_folders_below_are_not_read(tmp_path: Path) -> None:
    extra = ("well/Thumbs.db", "well/._a.png", "well/more/b.jpg", "Train/sick-lung/b.jpeg", "Train/stray.jpg")
    listing = list_class_folders(tree_of(tmp_path, *extra), "demo", FOLDERS)
    assert listing.pictures == {FOLDERS[0]: ("a (2).JPG", "b.jpeg"), FOLDERS[1]: ("a.png",)}
    assert listing.counts() == {
        "train_sick_lung_pictures": 2,
        "well_pictures": 1,
        "files_that_are_no_picture": 3,
    }


def test_a_row_has_a_digest_for_an_id_and_its_label_in_the_answer_alone(tmp_path: Path) -> None:
    rows = folder_rows(list_class_folders(tree_of(tmp_path), "demo", FOLDERS), "state")
    items = folder_items(rows, "state").collect()
    path = "Train/sick-lung/a (2).JPG"
    first = items.row(0, named=True)
    item = hashlib.sha256(path.encode()).hexdigest()[:16]
    assert {name: value for name, value in first.items() if value is not None} == {
        "item": item,
        "group": f"picture:{item}",
        "official_split": "train",
        "media": [{"role": "image", "kind": "image", "path": path, "part": ""}],
        "label_file": path,
        "label_row": "folder Train/sick-lung",
        "answer.state": ["sick"],
    }
    assert items["official_split"].to_list() == ["train", None]
    assert items["item"].n_unique() == items["group"].n_unique() == 2


def test_one_name_in_two_folders_is_two_items(tmp_path: Path) -> None:
    listing = list_class_folders(tree_of(tmp_path, "well/a (2).JPG"), "demo", FOLDERS)
    assert len({row["item"] for row in folder_rows(listing, "state")}) == 3


def test_an_absent_an_empty_and_a_renamed_folder_are_one_error_each(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    (tmp_path / "well" / "a.png").rename(tmp_path / "well" / "a.gif")
    with pytest.raises(LayoutError, match=r"^demo: well/ holds no picture\. Unpack"):
        list_class_folders(tree, "demo", FOLDERS)
    (tmp_path / "well").rename(tmp_path / "Well_")
    with pytest.raises(LayoutError, match=r"^demo: there is no folder well/ in the raw folder\.") as caught:
        list_class_folders(tree, "demo", FOLDERS)
    assert "qoq-data doctor demo" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_file_in_the_place_of_a_folder_is_an_absent_folder(tmp_path: Path) -> None:
    (tmp_path / "Train").mkdir()
    (tmp_path / "Train" / "sick-lung").write_bytes(b"<html>")
    with pytest.raises(LayoutError, match="no folder Train/sick-lung/"):
        list_class_folders(Store(tmp_path), "demo", FOLDERS)


def test_folders_in_a_bucket() -> None:
    tree = Store("memory://class-folders")
    for path in ("Train/sick-lung/a.jpg", "well/b.png"):
        tree.write(path, b"")
    assert [len(names) for names in list_class_folders(tree, "demo", FOLDERS).pictures.values()] == [1, 1]
