"""What the skin sources share: the five published classes, their terms, how cells are read, and a drawn lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from qoq_data.clinical.synthetic_image import BRIGHT, DARK, Scene, Spot, draw_scene
from qoq_data.errors import LayoutError, Reason
from qoq_data.formats.storage import Store
from qoq_data.source import ITEM_COLUMNS, SKIP_COLUMNS, Choice
from qoq_data.sources._item_rows import age_text

OLDEST = 120
SEXES = ("male", "female")
LESION_FEATURES = (
    "mean_intensity", "redness", "texture_contrast", "dark_blob_area", "dark_blob_aspect", "dark_blob_solidity",
    "bright_blob_area",
)  # fmt: skip


def five_classes(akiec: str) -> tuple[Choice, ...]:
    """The five published classes; ``akiec`` is what the fourth holds in the source, which its short name hides."""
    return (
        Choice("melanoma", "Melanoma"),
        Choice("nevus", "Nevus"),
        Choice("basal_cell_carcinoma", "Basal cell carcinoma"),
        Choice("akiec", akiec),
        Choice("other", "Other"),
    )


def first_table(tree: Store, source: str, paths: Sequence[str]) -> str:
    """The first of the paths that is there; raises ``LayoutError`` where none is."""
    found = next((path for path in paths if tree.exists(path)), None)
    if found is None:
        raise LayoutError(
            f"{source}: there is no table of labels in the raw folder, neither {' nor '.join(paths)}. "
            f"'qoq-data doctor {source}' looks at what is there."
        )
    return found


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where pictures lie: a path by file name, and how many names stand in more than one folder.

    A name that stands nowhere is looked for, and then missed, in the first folder that there is.
    """

    paths: Mapping[str, str]
    first_folder: str
    repeated: int

    def path_of(self, name: pl.Expr) -> pl.Expr:
        """The path of each file name of a column."""
        return name.replace_strict(self.paths, default=pl.concat_str(pl.lit(f"{self.first_folder}/"), name))


def find_pictures(tree: Store, source: str, folders: Sequence[str], suffix: str) -> Pictures:
    """Names ending in ``suffix`` in the folders that there are, each listed once, an earlier folder before a later.

    Raises ``LayoutError`` where there is none of the folders, or no picture in any.
    """
    present = [folder for folder in folders if tree.is_folder(folder)]
    if not present:
        raise LayoutError(
            f"{source}: there is no folder of pictures in the raw folder, neither {'/ nor '.join(folders)}/. "
            f"'qoq-data info {source}' says how to get it."
        )
    paths: dict[str, str] = {}
    repeated = 0
    for folder in present:
        for name in tree.names(folder):
            if name.endswith(suffix) and not name.startswith("."):
                repeated += name in paths
                paths.setdefault(name, f"{folder}/{name}")
    if not paths:
        raise LayoutError(f"{source}: no {suffix} file stands in {', '.join(present)}/. Unpack the archives there.")
    return Pictures(paths, present[0], repeated)


def stated(column: str) -> pl.Expr:
    """A cell's text, trimmed and in lower case; null where it is blank or says that it is not known."""
    text = pl.col(column).str.strip_chars().str.to_lowercase()
    return pl.when(~text.is_in(["unknown", "unk"])).then(text).alias(column)


def refused_context(age: str, sex: str, site: str, sites: Sequence[str]) -> dict[str, pl.Expr]:
    """What ``refuse_rows`` has to refuse of the three columns that a context is made of, sex and site as ``stated``."""
    return {
        f"{age} is no age of 0 to {OLDEST} years": ~pl.col(age).is_between(0, OLDEST),
        f"{sex} is neither male nor female nor unknown": ~pl.col(sex).is_in(SEXES),
        f"{site} is none of the publisher's sites": ~pl.col(site).is_in(sites),
    }


SetAside = tuple[Reason, str, pl.Expr]
"""Why some rows are for the ledger: the reason, a sentence without content, and which rows."""


def skin_items(table: pl.DataFrame, columns: Mapping[str, pl.Expr], set_aside: Sequence[SetAside]) -> pl.LazyFrame:
    """An item table with a row a picture; what comes first in ``set_aside`` counts.

    ``columns`` are those of an item table, but that ``path`` and, where masks are known, ``mask`` stand for the media,
    that answers are one key or null, and that ``context.age`` is in years.
    """
    names = (*ITEM_COLUMNS, *(name for name in columns if "." in name), *SKIP_COLUMNS)
    blank = pl.lit(None, dtype=pl.String)
    media = [_media_expression("image", columns["path"], "")]
    media += [_media_expression("mask", columns["mask"], "lesion")] if "mask" in columns else []
    made = {
        **{
            name: pl.when(key.is_not_null()).then(pl.concat_list(key))
            for name, key in columns.items()
            if "answer." in name
        },
        "context.age": age_text(columns["context.age"]),
        "media": pl.concat_list(media),
        "skip_reason": pl.coalesce(*(pl.when(found).then(pl.lit(str(why))) for why, _, found in set_aside), blank),
        "skip_detail": pl.coalesce(*(pl.when(found).then(pl.lit(detail)) for _, detail, found in set_aside), blank),
    }
    return table.lazy().select(made.get(name, columns.get(name, blank)).alias(name) for name in names)


def _media_expression(role: str, path: pl.Expr, part: str) -> pl.Expr:
    return pl.struct(
        pl.lit(role).alias("role"), pl.lit(role).alias("kind"), path.alias("path"), pl.lit(part).alias("part")
    )


@dataclass(frozen=True, slots=True)
class Look:
    """What tells a class in a drawn picture; ``radii`` are shares of the shorter side, ``tone`` is the lesion's."""

    radii: tuple[float, float]
    tone: float = DARK
    spicules: float = 0.0
    brightness: float = 0.5
    red: float = 1.1
    texture: float = 0.06


LOOKS: Mapping[str, Look] = {
    "melanoma": Look((0.30, 0.28), spicules=0.3),
    "nevus": Look((0.15, 0.15)),
    "basal_cell_carcinoma": Look((0.22, 0.20), tone=BRIGHT, brightness=0.4),
    "akiec": Look((0.20, 0.18), tone=0.42, red=1.5, texture=0.2),
    "squamous_cell_carcinoma": Look((0.16, 0.18), red=1.5, texture=0.2),
    "keratosis": Look((0.34, 0.16), brightness=0.6),
    "dermatofibroma": Look((0.13, 0.30), brightness=0.6),
    "vascular": Look((0.17, 0.16), red=1.7, brightness=0.4),
}


def draw_lesion(
    look: str, width: int, height: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Skin with one lesion of a look: uint8 [height, width, 3] and its mask, bool [height, width]."""
    seen = LOOKS[look]
    centre = (float(rng.uniform(0.42, 0.58)), float(rng.uniform(0.42, 0.58)))
    across, down = (radius * float(rng.uniform(0.9, 1.1)) for radius in seen.radii)
    spot = Spot(centre, (across, down), tone=seen.tone, spicules=seen.spicules, arms=int(rng.integers(7, 12)))
    scene = Scene(seen.brightness, (seen.red, 0.9, 0.8), waves=0.08, texture=seen.texture, spots=(spot,))
    picture, (mask,) = draw_scene(scene, width, height, rng)
    return picture, mask
