"""Where the files of CBIS-DDSM are in either of its two layouts, and which of a series' files is the mask.

TCIA: ``metadata.csv`` says in which folder a series lies. Kaggle: ``csv/dicom_info.csv`` has a row a picture, which was
turned into a JPEG under ``jpeg/<series>/``. Crop and mask of an abnormality lie in one series, or in one each; neither
their names nor their order tells which is which. The mask is as large as the mammogram, and the crop is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import polars as pl

from qoq_data.errors import LayoutError, Reason, RecordError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.source import MediaKind
from qoq_data.sources._cbis_ddsm_tables import Lesion
from qoq_data.sources._item_rows import refuse_rows
from qoq_data.sources._mammography import SERIES_TABLE, medium, read_series, series_files

COLLECTION: Final = "CBIS-DDSM"
KAGGLE_TABLE: Final = "csv/dicom_info.csv"
KAGGLE_PICTURES: Final = "jpeg"
WHOLE: Final = 0.75
"""A file both of whose sides reach this share of the mammogram's is no crop: scaled masks were seen down to 0.87."""

Size = tuple[int, int]
"""Rows and columns."""


@dataclass(frozen=True, slots=True)
class Release:
    """One of the two layouts. ``home`` is the tables' folder, with a slash; ``files_of`` lists a series by its UID.

    ``sizes`` has the size of every file where a table says it, and is empty where only the files do.
    """

    name: Literal["TCIA", "Kaggle"]
    home: str
    picture: MediaKind
    mask: MediaKind
    files_of: Callable[[str], list[str]]
    sizes: Mapping[str, Size]


def release_name(tree: Store) -> Literal["TCIA", "Kaggle"]:
    """Which layout a raw tree has."""
    return "Kaggle" if tree.exists(KAGGLE_TABLE) and not tree.exists(SERIES_TABLE) else "TCIA"


def find_release(tree: Store) -> Release:
    """The layout of a raw tree; raises ``LayoutError`` and ``TableError``."""
    return _kaggle(tree) if release_name(tree) == "Kaggle" else _tcia(tree)


def _tcia(tree: Store) -> Release:
    series = read_series(tree)
    if not tree.is_folder(COLLECTION):
        raise LayoutError(f"cbis-ddsm: {COLLECTION}/ is not in the raw folder, where {SERIES_TABLE} stands beside it.")

    def files_of(uid: str) -> list[str]:
        if uid not in series:
            raise RecordError(Reason.FILE_MISSING, f"a series of it is not in {SERIES_TABLE}", f"{COLLECTION}/{uid}")
        return series_files(tree, series[uid])

    return Release("TCIA", "", "dicom", "dicom_mask", files_of, {})


def _kaggle(tree: Store) -> Release:
    columns = dict.fromkeys(("SeriesInstanceUID", "image_path"), pl.String) | dict.fromkeys(
        ("Rows", "Columns"), pl.Float64
    )
    table = read_table(tree, KAGGLE_TABLE, columns)
    name = pl.col("image_path").str.split("/").list.last()
    odd = ~name.str.contains(r"^[^\\/.][^\\/]*\.jpe?g$") | ~pl.col("SeriesInstanceUID").str.contains(r"^[0-9.]+$")
    refuse_rows(
        table,
        KAGGLE_TABLE,
        {f"its {column} is blank": pl.col(column).is_null() for column in columns}
        | {"its image_path or its SeriesInstanceUID is of another form": odd},
    )
    if not tree.is_folder(KAGGLE_PICTURES):
        raise LayoutError(f"cbis-ddsm: {KAGGLE_PICTURES}/ is not in the raw folder, where csv/ stands beside it.")
    of_series: dict[str, list[str]] = {}
    sizes: dict[str, Size] = {}
    for uid, file, rows, width in table.select("SeriesInstanceUID", name, "Rows", "Columns").sort(pl.all()).iter_rows():
        path = f"{KAGGLE_PICTURES}/{uid}/{file}"
        of_series.setdefault(uid, []).append(path)
        sizes[path] = (int(rows), int(width))

    def files_of(uid: str) -> list[str]:
        if uid not in of_series:
            path = f"{KAGGLE_PICTURES}/{uid}"
            raise RecordError(Reason.FILE_MISSING, f"a series of it is not in {KAGGLE_TABLE}", path)
        return of_series[uid]

    return Release("Kaggle", "csv/", "image", "mask", files_of, sizes)


def candidates(release: Release, lesions: Sequence[Lesion], view: str, side: str) -> list[dict[str, Any]]:
    """Media of a mammogram before its masks are known: its picture under each kind of abnormality, then their files.

    A file that is crop or mask has the role ``<kind> <number>`` of its abnormality. Raises ``RecordError``.
    """
    media = []
    for uid in dict.fromkeys(one.image for one in lesions):
        files = release.files_of(uid)
        if len(files) != 1:
            detail = f"the mammogram's series has {len(files)} files, not one"
            raise RecordError(Reason.HEADER_MISMATCH, detail, files[0])
        media.append(medium(release.picture, files[0], view, laterality=side))
    for lesion in lesions:
        for uid in dict.fromkeys((lesion.crop, lesion.mask)):
            role = f"{lesion.kind} {lesion.number}"
            media += [medium(release.picture, path, lesion.kind, role) for path in release.files_of(uid)]
    return media


def settled(media: Sequence[Mapping[str, Any]], sizes: Mapping[str, Size], kind: MediaKind) -> list[dict[str, Any]]:
    """Media of a mammogram: its picture and a mask of this ``kind`` an abnormality, out of ``candidates``.

    Raises ``RecordError``: HEADER_MISMATCH where the picture stands under both kinds in two sizes, MASK_MISSING and
    MASK_CONFLICT as ``mask_among``.
    """
    unknown = next((one["path"] for one in media if one["path"] not in sizes), None)
    if unknown is not None:
        raise RecordError(Reason.HEADER_MISMATCH, "a file of it came after the headers were read", unknown)
    pictures = [one for one in media if one["role"] == "image"]
    if len({sizes[one["path"]] for one in pictures}) != 1:
        detail = "the mammogram stands in the tables of both kinds, and its two files differ in size"
        raise RecordError(Reason.HEADER_MISMATCH, detail, pictures[0]["path"])
    of_lesion: dict[tuple[str, str], dict[str, Size]] = {}
    for one in media:
        if one["role"] != "image":
            of_lesion.setdefault((one["role"], one["part"]), {})[one["path"]] = sizes[one["path"]]
    full = sizes[pictures[0]["path"]]
    masks = [medium(kind, mask_among(full, files), label, "mask") for (_, label), files in of_lesion.items()]
    return [dict(pictures[0]), *masks]


def mask_among(full: Size, files: Mapping[str, Size]) -> str:
    """Path of the mask among an abnormality's files: the one of the mammogram's size, else the one that is no crop.

    Raises ``RecordError``: MASK_MISSING where none is, MASK_CONFLICT where several are. That it has two values is seen
    when it is decoded.
    """
    same = [path for path, size in files.items() if size == full]
    whole = same or [
        path
        for path, size in files.items()
        if all(side >= WHOLE * of_full for side, of_full in zip(size, full, strict=True))
    ]
    if len(whole) == 1:
        return whole[0]
    if not whole:
        detail = f"none of the {len(files)} files of an abnormality is as large as the mammogram"
        raise RecordError(Reason.MASK_MISSING, detail, next(iter(files)))
    detail = f"{len(whole)} of the {len(files)} files of an abnormality are as large as the mammogram: no mask is told"
    raise RecordError(Reason.MASK_CONFLICT, detail, whole[0])
