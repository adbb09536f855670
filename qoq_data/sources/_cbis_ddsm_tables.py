"""The four tables of CBIS-DDSM: a row an abnormality, and what they say together of one mammogram.

Path cells name ``<subject>/<study>/<series>/<file>``; the last part is no file that anybody has, and in every second
column a line break follows it. So only the series is taken from them. Blank descriptors print ``NA`` or ``N/A``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import polars as pl

from qoq_data.errors import TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.sources._item_rows import refuse_rows
from qoq_data.sources._mammography import VIEWS

Kind = Literal["mass", "calcification"]
TABLES: Final[Mapping[str, tuple[Kind, str]]] = {
    "mass_case_description_train_set.csv": ("mass", "train"),
    "mass_case_description_test_set.csv": ("mass", "test"),
    "calc_case_description_train_set.csv": ("calcification", "train"),
    "calc_case_description_test_set.csv": ("calcification", "test"),
}
"""Of each table what it lists and its official side."""

DENSITY: Final[Mapping[Kind, str]] = {"mass": "breast_density", "calcification": "breast density"}
DESCRIPTORS: Final[Mapping[Kind, tuple[str, str]]] = {
    "mass": ("mass shape", "mass margins"),
    "calcification": ("calc type", "calc distribution"),
}
PATHS: Final = ("image file path", "cropped image file path", "ROI mask file path")

VOCABULARY: Final[Mapping[str, tuple[str, ...]]] = {
    "mass shape": (
        "ROUND", "OVAL", "LOBULATED", "IRREGULAR", "ARCHITECTURAL_DISTORTION", "ASYMMETRIC_BREAST_TISSUE",
        "FOCAL_ASYMMETRIC_DENSITY", "LYMPH_NODE",
    ),
    "mass margins": ("CIRCUMSCRIBED", "MICROLOBULATED", "OBSCURED", "ILL_DEFINED", "SPICULATED"),
    "calc type": (
        "SKIN", "VASCULAR", "COARSE", "LARGE_RODLIKE", "ROUND_AND_REGULAR", "LUCENT_CENTER", "EGGSHELL",
        "MILK_OF_CALCIUM", "DYSTROPHIC", "PUNCTATE", "AMORPHOUS", "PLEOMORPHIC", "FINE_LINEAR_BRANCHING",
    ),
    "calc distribution": ("DIFFUSELY_SCATTERED", "REGIONAL", "CLUSTERED", "LINEAR", "SEGMENTAL"),
}  # fmt: skip
_SPELLINGS: Final = {"LUCENT_CENTERED": "LUCENT_CENTER"}
_NONE: Final = ("NA", "N/A")
_PATHOLOGY: Final = {"BENIGN": "benign", "BENIGN_WITHOUT_CALLBACK": "benign", "MALIGNANT": "malignant"}


@dataclass(frozen=True, slots=True)
class Lesion:
    """A row of a table. ``described`` has its descriptors by column, each as the parts of a hyphenated cell.

    ``image``, ``crop`` and ``mask`` are UIDs of the series that its path cells name.
    """

    kind: Kind
    official_side: str
    number: int
    assessment: int
    pathology: str
    density: str | None
    described: Mapping[str, tuple[str, ...]]
    study: str
    image: str
    crop: str
    mask: str
    table: str


ViewKey = tuple[str, str, str]
"""Patient, side (LEFT or RIGHT) and view (CC or MLO) of a mammogram."""


def read_views(tree: Store, home: str = "") -> dict[ViewKey, list[Lesion]]:
    """Every mammogram's abnormalities, masses first and then by number; ``home`` is the tables' folder, with a slash.

    Raises ``LayoutError`` for a table that is absent, ``TableError`` for a row that is not as published.
    """
    views: dict[ViewKey, list[Lesion]] = {}
    for name, (kind, side) in TABLES.items():
        for key, lesion in _read_lesions(tree, home + name, kind, side):
            lesions = views.setdefault(key, [])
            if any((one.kind, one.number) == (kind, lesion.number) for one in lesions):
                raise TableError(f"{home}{name} has an abnormality of one mammogram twice. Fetch it again.")
            lesions.append(lesion)
    return {key: sorted(views[key], key=lambda one: (one.kind != "mass", one.number)) for key in sorted(views)}


def _read_lesions(tree: Store, path: str, kind: Kind, side: str) -> list[tuple[ViewKey, Lesion]]:
    density, described = DENSITY[kind], DESCRIPTORS[kind]
    keys = ("patient_id", "left or right breast", "image view", "abnormality type", "pathology", *PATHS)
    numbers = ("abnormality id", "assessment")
    columns = dict.fromkeys((*keys, density, *described), pl.String) | dict.fromkeys(numbers, pl.Int64)
    texts = [pl.col(name).str.strip_chars() for name, dtype in columns.items() if dtype == pl.String]
    table = read_table(tree, path, columns).with_columns(texts)
    refused = {f"its {name} is blank": pl.col(name).is_null() for name in (*keys, *numbers)}
    allowed: dict[str, list[str]] = {
        "left or right breast": ["LEFT", "RIGHT"],
        "image view": list(VIEWS),
        "abnormality type": [kind],
        "pathology": list(_PATHOLOGY),
        density: ["0", "1", "2", "3", "4"],
    }
    refused |= {f"its {name} is none of {', '.join(each)}": ~pl.col(name).is_in(each) for name, each in allowed.items()}
    refused["its assessment is not from 0 to 5"] = ~pl.col("assessment").is_between(0, 5)
    refused |= {f"its {name} is not of the form a/b/c/d": pl.col(name).str.count_matches("/") != 3 for name in PATHS}
    for name in described:
        known = [*VOCABULARY[name], *_SPELLINGS, *_NONE]
        words = pl.col(name).str.split("-").list.eval(pl.element().is_in(known))
        refused[f"its {name} has a word that is not known"] = ~words.list.all()
    refuse_rows(table, path, refused)
    return [_lesion(row, kind, side, path) for row in table.iter_rows(named=True)]


def _lesion(row: Mapping[str, Any], kind: Kind, side: str, path: str) -> tuple[ViewKey, Lesion]:
    image, crop, mask = (row[name].split("/") for name in PATHS)
    lesion = Lesion(
        kind=kind,
        official_side=side,
        number=row["abnormality id"],
        assessment=row["assessment"],
        pathology=_PATHOLOGY[row["pathology"]],
        density=row[DENSITY[kind]] if row[DENSITY[kind]] != "0" else None,
        described={name: _words(row[name]) for name in DESCRIPTORS[kind]},
        study=image[1],
        image=image[2],
        crop=crop[2],
        mask=mask[2],
        table=path,
    )
    return (row["patient_id"], row["left or right breast"], row["image view"]), lesion


def _words(cell: str | None) -> tuple[str, ...]:
    words = [] if cell is None or cell in _NONE else [_SPELLINGS.get(word, word) for word in cell.split("-")]
    return tuple(dict.fromkeys(word for word in words if word not in _NONE))


def official_side(lesions: Sequence[Lesion]) -> str:
    """The side of a mammogram: test where any of its abnormalities is in a test table."""
    return "test" if any(one.official_side == "test" for one in lesions) else "train"


def view_answers(lesions: Sequence[Lesion]) -> dict[str, list[str] | None]:
    """Answers by task of one mammogram from all abnormalities on it; None where the tables give none.

    The highest assessment is the mammogram's, and 0, an incomplete one, is no answer. It is malignant where any
    abnormality is. A descriptor is asked where there is exactly one abnormality of its kind.
    """
    highest = max(one.assessment for one in lesions)
    densities = {one.density for one in lesions}
    (density,) = densities if len(densities) == 1 else (None,)
    answers: dict[str, list[str] | None] = {
        "assessment": [str(highest)] if highest else None,
        "pathology": ["malignant" if any(one.pathology == "malignant" for one in lesions) else "benign"],
        "abnormality": list(dict.fromkeys(one.kind for one in lesions)),
        "density": [density] if density is not None else None,
    }
    for kind, columns in DESCRIPTORS.items():
        of_kind = [one for one in lesions if one.kind == kind]
        for column in columns:
            words = of_kind[0].described[column] if len(of_kind) == 1 else ()
            answers[column.replace(" ", "_")] = list(words) or None
    return answers
