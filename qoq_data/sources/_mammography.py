"""What sources of mammograms share: TCIA's table of series, what lies in its folders, the two views, media and rows.

The NBIA Data Retriever writes ``metadata.csv``, a row a series, beside the collection's folder. ``File Location`` says
where the series lies, as ``./CBIS-DDSM/...`` or ``.\\CMMD\\...`` by the system it was fetched on. The files' names are
the retriever's own (``1-1.dcm``, ``1-2.dcm``; ``000000.dcm`` by older ones) and say nothing, so folders are listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from qoq_data.errors import Reason, RecordError, TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.source import ITEM_COLUMNS, SKIP_COLUMNS, media_type
from qoq_data.sources._item_rows import refuse_rows

SERIES_TABLE: Final = "metadata.csv"
SERIES_COLUMNS: Final = ("Series UID", "Subject ID", "Number of Images", "File Location")
SERIES_HEADER: Final = (
    "Series UID", "Collection", "3rd Party Analysis", "Data Description URI", "Subject ID", "Study UID",
    "Study Description", "Study Date", "Series Description", "Manufacturer", "Modality", "SOP Class Name",
    "SOP Class UID", "Number of Images", "File Size", "File Location", "Download Timestamp",
)  # fmt: skip
"""Columns of ``metadata.csv`` in its order."""

SIDES: Final[Mapping[str, str]] = {"L": "left", "R": "right", "LEFT": "left", "RIGHT": "right"}
VIEWS: Final = ("CC", "MLO")
VIEW_OF_CODE: Final[Mapping[str, str]] = {"399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO"}
"""Codes of ViewCodeSequence (PS3.16 CID 4014), those of SNOMED CT and the older ones."""


@dataclass(frozen=True, slots=True)
class Series:
    """A row of ``metadata.csv``: ``folder`` is below the root, with slashes; ``images`` is how many files it counts."""

    subject: str
    folder: str
    images: int


def read_series(tree: Store) -> dict[str, Series]:
    """Series by their UID; raises ``LayoutError``, and ``TableError`` for a row that cannot be."""
    columns = dict.fromkeys(SERIES_COLUMNS, pl.String) | {"Number of Images": pl.Int64}
    location = pl.col("File Location").str.replace_all("\\", "/", literal=True).str.replace(r"^(\./)+", "")
    table = read_table(tree, SERIES_TABLE, columns).with_columns(location.str.strip_chars_end("/"))
    refuse_rows(
        table,
        SERIES_TABLE,
        {f"its {column} is blank": pl.col(column).is_null() for column in SERIES_COLUMNS}
        | {
            "its Number of Images is below 1": pl.col("Number of Images") < 1,
            "its File Location leads out of the raw folder": pl.col("File Location").str.contains(
                r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)|\x00"
            ),
        },
    )
    found: dict[str, Series] = {}
    for uid, subject, images, folder in table.select(SERIES_COLUMNS).iter_rows():
        series = Series(subject, folder, images)
        if found.setdefault(uid, series) != series:
            raise TableError(f"{SERIES_TABLE} has two rows of one Series UID that differ. Fetch it again.")
    return found


def series_files(tree: Store, series: Series) -> list[str]:
    """Paths of a series' DICOM files, by name; the folder is listed, and no file is opened.

    Raises ``RecordError`` (FILE_MISSING) where fewer lie there than the table counts.
    """
    names = [name for name in tree.names(series.folder) if name.lower().endswith(".dcm") and not name.startswith(".")]
    if len(names) < series.images:
        detail = f"its folder holds {len(names)} of the {series.images} files that {SERIES_TABLE} counts"
        raise RecordError(Reason.FILE_MISSING, detail, series.folder)
    return [f"{series.folder}/{name}" for name in names]


def medium(kind: str, path: str, part: str = "", role: str = "image", laterality: str | None = None) -> dict[str, Any]:
    """An entry of the ``media`` column of a mammogram, or of a mask on one."""
    return {"role": role, "kind": kind, "path": path, "part": part, "laterality": laterality}


def mammogram_schema(answers: Iterable[str], context: Iterable[str] = ()) -> pl.Schema:
    """Columns of an item table whose media say their side and whose answers are label keys."""
    return pl.Schema(
        {
            **ITEM_COLUMNS,
            "media": pl.List(media_type("laterality")),
            **{f"answer.{task}": pl.List(pl.String) for task in answers},
            **{f"context.{field}": pl.String for field in context},
            **dict.fromkeys(SKIP_COLUMNS, pl.String),
        }
    )


def skipped(reason: Reason, detail: str) -> dict[str, str]:
    """The two columns that set an item aside."""
    return {"skip_reason": str(reason), "skip_detail": detail}


def series_row(series: str, subject: str, study: str, description: str, images: int, folder: str) -> tuple[object, ...]:
    """A row of a synthetic ``metadata.csv``; ``folder`` as below the root, with slashes."""
    collection = folder.partition("/")[0]
    location = ".\\" + folder.replace("/", "\\")
    return (
        series, collection, "NO", "", subject, study, "NA", folder.split("/")[2][:10], description, "NA", "MG",
        "Digital Mammography X-Ray Image Storage - For Presentation", "1.2.840.10008.5.1.4.1.1.1.2", images, "1.00 MB",
        location, "2022-04-06T19:50:58.958",
    )  # fmt: skip


HEIGHT, WIDTH = 128, 96
"""Of a drawn mammogram."""

Drawing = tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]


def draw_mammogram(
    rng: np.random.Generator, side: str, view: str, tissue: float, lesions: Sequence[tuple[str, float]]
) -> Drawing:
    """A breast uint8 [rows, columns] of a ``tissue`` grey 0 to 1, and a mask a lesion: a kind and a radius in px.

    The chest wall is where it hangs by convention, at the left edge for a left breast; an MLO view has the muscle in
    its upper corner, and the far upper corner a lead marker. A mass is bright, a calcification many bright specks.
    """
    from scipy.ndimage import gaussian_filter  # here: it takes half a second that a list of sources spares

    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    coarse = gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), 6)
    grey = 255 * tissue * (1 + 0.1 * np.clip(coarse / coarse.std(), -2, 2))
    if view == "MLO":
        grey = np.where(x / (0.35 * WIDTH) + y / (0.3 * HEIGHT) < 1, 1.2 * grey, grey)
    grey = np.where(np.hypot(x / (0.82 * WIDTH), (y - HEIGHT / 2) / (0.46 * HEIGHT)) < 1, grey, 2.0)
    grey += gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), 0.7)
    grey[3:7, -8:-3] = 255
    masks = []
    for place, (kind, radius) in enumerate(lesions):
        centre_x = WIDTH * rng.uniform(0.24, 0.45)
        centre_y = HEIGHT * (0.5 + 0.46 * ((place + 1) / (len(lesions) + 1) - 0.5) + rng.uniform(-0.03, 0.03))
        mask = np.hypot((x - centre_x) / radius, (y - centre_y) / (0.8 * radius)) <= 1
        grey = np.where(mask & ((kind == "mass") | (rng.random(mask.shape) < 0.25)), 240, grey)
        masks.append(mask)
    pixels = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return (pixels, masks) if side == "left" else (pixels[:, ::-1].copy(), [mask[:, ::-1].copy() for mask in masks])
