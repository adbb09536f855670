"""BCSS: breast cancer slides of TCGA, one large region a patient, every pixel of it given one of 22 tissue codes.

151 regions (ROIs) of 151 patients at 0.25 µm a pixel, 1 to 126 million pixels each, outlined by students and
pathologists. An item that is asked about is a tile: a window of a ROI, laid over the rectangle of one
connected region of an asked tissue (224 to 1,024 pixels a side, neighbours share 128: the published figures).

What the published conversion does, and what this source does instead:

* it cuts a region's rectangle out and asks for the region's tissue, though the rectangle holds other tissue too and
  often mostly that. Here a tile is asked about where its tissue covers at least ``least_share`` of its annotated
  pixels and ``least_annotated`` of it is annotated; every other tile is a ledger line without a label;
* its one box is the rectangle that was cut out, and says nothing of where in the picture the tissue is. Here boxes
  are those of the asked tissue inside the tile;
* it draws 10 % of the other sites for validation, and does not say of what. A draw of tiles would put one ROI on both
  sides; here a whole patient is drawn;
* crops are named after their tissue code. Here neither the row's id nor its view says the tissue.

Sides are official: six sites (characters 5 and 6 of the name) are test, all others train; validation is hashed out of
train by patient, so that nothing of another site gets into test. Stain and scanner differ from site to site.

Codes: ``grouping: published`` asks codes 1 to 4 alone, as the published corpus does; lymphocytes are then all there is
of inflammation, and plasma cells or carcinoma in situ are other tissue. ``challenge`` joins 1, 19 and 20 to tumour
and 3, 10 and 11 to inflammation; that list is recalled and not read from the challenge's pages, so it is not the
default. Codes 0 (outside the ROI) and 7 (exclude) are not annotation: they count for no tissue and against none.

``meta/gtruth_codes.tsv`` is held against the codes that are written here: another meaning of a code is one error. The
pictures stand in ``images/``, or colour-normalised in ``rgbs_colorNormalized/``, which a browser may have numbered.
A ROI of more than 89 million pixels (2 are, by the table of bounds) is over the budget of the picture reader and goes
to the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from qoq_data.clinical.label_maps import names_text
from qoq_data.errors import Reason, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import CC0_1, Access
from qoq_data.record import AnswerType, Domain
from qoq_data.source import (
    SKIP_COLUMNS,
    Choice,
    ExpectedFile,
    SourceOptions,
    SourceSpec,
    SourceVersion,
    SyntheticTask,
    Task,
    media_type,
)
from qoq_data.sources._bcss_tree import (
    BOUNDS_TABLE,
    CODES,
    CODES_TABLE,
    check_codes,
    list_rois,
    place_of,
    read_bounds,
    slide_of,
    write_tree,
)
from qoq_data.sources._item_rows import image_medium, item_table

NOT_ANNOTATED = (0, 7)
TEST_SITES = ("OL", "LL", "E2", "EW", "GM", "S3")
GROUPINGS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "published": {"tumor": (1,), "stroma": (2,), "inflammatory": (3,), "necrosis": (4,)},
    "challenge": {"tumor": (1, 19, 20), "stroma": (2,), "inflammatory": (3, 10, 11), "necrosis": (4,)},
}


class Options(SourceOptions):
    """Recipe keys of BCSS.

    With ``least_share: 0`` and ``least_annotated: 0`` every tile is asked about, as the published corpus asks it.
    """

    grouping: Literal["published", "challenge"] = Field("published", description="which codes are an asked tissue")
    least_share: float = Field(0.5, ge=0, le=1, description="of a tile's annotated pixels, to be of its tissue")
    least_annotated: float = Field(0.5, ge=0, le=1, description="of a tile's pixels, to be annotated at all")


SPEC = SourceSpec(
    name="bcss",
    title="BCSS, Breast Cancer Semantic Segmentation",
    domain=Domain.PATHOLOGY,
    modality="histopathology, haematoxylin and eosin",
    homepage="https://github.com/PathologyDataScience/BCSS",
    citation="Amgad M, Elfandy H, Hussein H, et al. Structured crowdsourcing enables convolutional segmentation of "
    "histology images. Bioinformatics 35(18):3461-3467, 2019. doi:10.1093/bioinformatics/btz083",
    licences={"media": CC0_1, "labels": CC0_1},
    access=Access.OPEN,
    access_steps=(
        "Open https://github.com/PathologyDataScience/BCSS and follow its link to the 0.25 µm pictures and masks.",
        "Unpack so that one folder holds images/ (or rgbs_colorNormalized/ and its numbered siblings) and masks/.",
        "Copy the repository's meta/ (gtruth_codes.tsv, roiBounds.csv) beside them. Give that folder as --raw.",
    ),
    identity_group="tcga",
    grouping="The patient, the first 12 characters of a slide's name: all tiles of all its slides stay on one side, "
    "and the six official test sites are test.",
    versions=(SourceVersion("2019", 151, 151),),
    expected_files=(
        ExpectedFile("images/", other_names=("rgbs_colorNormalized/",)),
        ExpectedFile("masks/"),
        ExpectedFile(CODES_TABLE, columns=("label", "GT_code")),
        ExpectedFile(BOUNDS_TABLE, columns=("", "xmin", "ymin")),
    ),
    tasks=(
        Task(
            "tissue",
            AnswerType.ONE,
            (
                "Which kind of tissue makes up most of this histology tile of a breast cancer?",
                "This field was cut from a stained section of breast cancer. What tissue dominates it?",
                "Name the tissue class that best describes this microscopic field of breast carcinoma.",
                "Look at the cells and their architecture: which tissue class does this tile mainly show?",
                "Of the tissue classes offered, which one fills most of this stained breast cancer field?",
            ),
            (
                Choice("tumor", "Tumor"),
                Choice("stroma", "Stroma"),
                Choice("inflammatory", "Inflammatory"),
                Choice("necrosis", "Necrosis"),
            ),
        ),
    ),
    published_items=5264,
    inspectors=("label_regions",),
    rows_per_shard=128,
    bytes_per_row=250_000,
    skip_limit=0.03,  # of 151 ROIs 2 are over the budget of the picture reader; tiles without a label do not count
    synthetic=(SyntheticTask("tissue", ("mean_intensity", "redness", "texture_contrast")),),
)


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """A row a ROI, found by file names and the table of bounds; which tiles it has only its mask tells."""
    check_codes(tree)
    places = read_bounds(tree)
    pictures, masks, _ = list_rois(tree)
    if places.keys().isdisjoint(slide_of(name) for name in pictures):
        raise TableError(f"{BOUNDS_TABLE} has none of the slides in the folders: it is of another release.")
    names = {value: name for name, values in GROUPINGS[options.grouping].items() for value in values}
    rows: list[dict[str, Any]] = []
    for name in sorted(pictures.keys() | masks):
        absent = Reason.FILE_MISSING if name not in pictures else Reason.MASK_MISSING if name not in masks else None
        rows.append(_roi_row(name.removesuffix(".png"), pictures.get(name, f"images/{name}"), f"masks/{name}", names))
        if absent:
            what = "picture" if absent is Reason.FILE_MISSING else "mask"
            rows[-1] |= {"skip_reason": str(absent), "skip_detail": f"its {what} is not in the folders"}
    for slide in sorted(places.keys() - {slide_of(name) for name in pictures.keys() | masks}):
        lost = {"skip_reason": str(Reason.FILE_MISSING), "skip_detail": f"it stands in {BOUNDS_TABLE} alone"}
        rows.append(_roi_row(slide, f"images/{slide}.png", f"masks/{slide}.png", names) | lost)
    return item_table(rows, {"tissue": pl.List(pl.String)})


def _roi_row(roi: str, picture: str, mask: str, names: Mapping[int, str]) -> dict[str, Any]:
    regions = {"role": "mask", "kind": "label_map", "path": mask, "part": names_text(names)}
    return {
        "item": roi,
        "patient": roi[:12],
        "group": roi[:12],
        "study": slide_of(roi),
        "official_split": "test" if roi[5:7] in TEST_SITES else "train",
        "media": [image_medium(picture), regions],
        "label_file": mask,
        "label_row": "the whole mask",
    }


def expand(items: pl.DataFrame, facts: pl.DataFrame, options: Options) -> pl.DataFrame:
    """A row a tile of the regions of asked tissue; a ROI without such a region stays one row without an answer.

    A window that two tissues may claim (each half of it, or any where every tile is asked) has no answer: neither wins.
    """
    tissues = GROUPINGS[options.grouping]
    of_value = {value: tissue for tissue, values in tissues.items() for value in values}
    tiles = dict(facts.select("item", "label_regions.tiles").iter_rows())
    rows = []
    for roi in items.iter_rows(named=True):
        windows: dict[tuple[int, ...], dict[str, str]] = {}
        for tile in tiles[roi["item"]]:
            if (tissue := of_value.get(tile["value"])) is not None:
                corners = tuple(tile[corner] for corner in ("x0", "y0", "x1", "y1"))
                windows.setdefault(corners, {})[tissue] = _refusal(tile["counts"], tissues[tissue], options)
        unknown = any(one["value"] >= len(CODES) for tile in tiles[roi["item"]] for one in tile["counts"])
        if unknown or not windows:
            reason = Reason.MASK_CONFLICT if unknown else Reason.NO_LABEL
            detail = f"its mask has a code that is not in {CODES_TABLE}" if unknown else "it has no asked tissue"
            rows.append(roi | {"skip_reason": str(reason), "skip_detail": detail})
        else:
            rows += [_tile_row(roi, corners, claims, tissues) for corners, claims in sorted(windows.items())]
    skips = dict.fromkeys(SKIP_COLUMNS, pl.String())
    return pl.DataFrame(rows, schema=pl.Schema({**items.schema, "media": pl.List(media_type("window")), **skips}))


def _refusal(counts: list[dict[str, int]], values: tuple[int, ...], options: Options) -> str:
    """Why a tile is not asked about; blank where it is."""
    pixels = {one["value"]: one["pixels"] for one in counts}
    annotated = sum(count for value, count in pixels.items() if value not in NOT_ANNOTATED)
    if annotated < options.least_annotated * sum(pixels.values()):
        return f"less than {options.least_annotated:g} of the tile is annotated"
    if sum(pixels.get(value, 0) for value in values) < options.least_share * annotated:
        return f"its tissue covers less than {options.least_share:g} of what is annotated in the tile"
    return ""


def _tile_row(
    roi: Mapping[str, Any], corners: tuple[int, ...], claims: Mapping[str, str], tissues: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    x0, y0, x1, y1 = corners
    picture, mask = roi["media"]
    asked = sorted(tissue for tissue, refusal in claims.items() if not refusal)
    (tissue,) = asked if len(asked) == 1 else (None,)
    names = names_text(dict.fromkeys(tissues[tissue], tissue)) if tissue else mask["part"]
    refusal = "two tissues claim the same window" if asked else min(claims.values())
    return {
        **roi,
        "item": f"{roi['item']}/x{x0}-y{y0}-w{x1 - x0}-h{y1 - y0}",
        "media": [picture | {"window": {"x0": x0, "y0": y0, "x1": x1, "y1": y1}}, mask | {"part": names}],
        "label_row": f"what fills the window {x0},{y0} to {x1},{y1}",
        "answer.tissue": [tissue] if tissue else None,
        "skip_reason": None if tissue else str(Reason.LABEL_CONFLICT if asked else Reason.NO_LABEL),
        "skip_detail": None if tissue else refusal,
    }


def statistics(tree: Store, options: Options) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of what stands in the folders, and of what does not agree with the table of bounds."""
    pictures, masks, twice = list_rois(tree)
    places, names = read_bounds(tree), pictures.keys() | masks
    return {
        "rois": len(names),
        "rois_not_in_the_table": sum(slide_of(name) not in places for name in names),
        "rois_placed_elsewhere_in_the_table": sum(
            places.get(slide_of(name), place_of(name)) != place_of(name) for name in names
        ),
        "pictures_standing_twice": twice,
    }


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A ROI a patient, a quarter of it each tissue; see ``_bcss_tree``."""
    write_tree(folder, seed, patients)
