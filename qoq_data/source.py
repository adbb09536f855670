"""The contract of a source: what one file in ``qoq_data/sources`` has to hold.

    SPEC                                    a SourceSpec
    scan(tree, options) -> pl.LazyFrame     a row an item, in the columns of ``ITEM_COLUMNS``; opens no medium
    synthesize(folder, seed, patients)      writes a miniature raw tree in the publisher's exact layout

and, where the general way does not do: ``Options`` (a subclass of SourceOptions), ``detect_version(tree) -> str``,
``tables(tree) -> tuple[str, ...]``, ``statistics(tree, options)`` and

    expand(items, facts, options) -> pl.DataFrame

which makes many items of one: from scanned items, and what the inspectors of the SPEC found about them, to the items
that are asked about. It is pure, and opens nothing. ``facts`` has a column ``item`` and a column
``<inspector>.<column>`` for each fact. What it returns is an item table too. Each scanned item is in it, as itself or
as any number of parts of it: a part's id is the item's, a slash, and what tells it from the others. Patient, group,
study and official side of a part are those of its item.

An item table has the fixed columns below and, beside them:

    answer.<task>     list of label keys (``one`` and ``several``) or a float (``number``); null: the item has no answer
    context.<field>   text that may be known when the question is asked; only fields in ``SPEC.context_fields``
    skip_reason       where it is not null the item goes to the skip ledger: a value of ``errors.Reason``
    skip_detail       one sentence for the ledger, without content
    boxes             boxes of the item's pictures that stand in the publisher's tables: ``BOXES_TYPE``
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from qoq_data.licence import Access, Licence
from qoq_data.record import AnswerType, Domain

if TYPE_CHECKING:
    from qoq_data.formats.storage import Store

MEDIA_TYPE = pl.Struct({"role": pl.String, "kind": pl.String, "path": pl.String, "part": pl.String})
"""One file of an item: its role in the row, its kind, its path below the root, and which part of it is meant."""

OPTIONAL_MEDIA_FIELDS: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "window": pl.Struct({"x0": pl.Int32, "y0": pl.Int32, "x1": pl.Int32, "y1": pl.Int32}),
    "slice": pl.Struct({"plane": pl.String, "index": pl.Int32}),
    "display": pl.String,
    "laterality": pl.String,
    "frame": pl.Int32,
}
"""Fields that an item table's media may have beside those of ``MEDIA_TYPE``, in this order; each may be null.

``window``, of an ``image``: the part of the upright picture, half-open, that is rendered as if it were the picture;
its masks and label maps are cut with it. ``slice``, of a ``volume``: which slice, as ``clinical.volumes`` counts them;
its ``volume_labels`` are cut there too. ``display``, of a ``dicom`` or ``volume``: a window of
``clinical.windowing.DISPLAY_WINDOWS`` that takes the place of the file's own. ``laterality``: left or right, where the
publisher's tables say so. ``frame``, of a ``dicom`` or a ``dicom_mask``: which frame of the file, counted from 0, where
it is not the first; a ``dicom_mask`` that is a DICOM segmentation has none, as it says itself which pictures its frames
are of.
"""


def media_type(*optional: str) -> pl.Struct:
    """The type of a medium with these of the optional fields."""
    return pl.Struct([*MEDIA_TYPE.fields, *(pl.Field(name, OPTIONAL_MEDIA_FIELDS[name]) for name in optional)])


MediaKind = Literal["wfdb", "image", "dicom", "volume", "mask", "label_map", "dicom_mask", "volume_labels"]
"""``image``, ``dicom`` (one frame) and ``volume`` (a slice of a NIfTI file) become pictures of the row; their ``part``
is the view. A mask or label map belongs to the last picture before it. The ``part`` of a ``mask`` and a ``dicom_mask``
is the name of its foreground, and in a DICOM segmentation the label of the segment that is meant; that of a
``label_map`` and of ``volume_labels`` says which values have which name, as in ``1=tumor;2=stroma``
(``clinical.label_maps``), and for ``volume_labels`` may end in the least volume of an instance, as in
``;least_mm3=20``. A scanned ``volume`` has a slice only where the source does not ``expand`` it."""

PICTURE_KINDS: tuple[MediaKind, ...] = ("image", "dicom", "volume")
MASK_KINDS: tuple[MediaKind, ...] = ("mask", "label_map", "dicom_mask", "volume_labels")

BOXES_TYPE = pl.List(
    pl.Struct(
        {
            "label": pl.String,
            "image": pl.Int32,
            **dict.fromkeys(("x0", "y0", "x1", "y1"), pl.Float64),
            "agreement": pl.Float64,
        }
    )
)
"""The optional column ``boxes``: what the publisher's tables draw, in pixels of a picture as it stands in its file.

``image`` counts the item's pictures from 0; edges are half-open and may be fractions; ``agreement`` is the share of
readers who drew it, null where there was one. A box that reaches out of its picture is cut there, which is a finding.
"""

ITEM_COLUMNS: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "item": pl.String,
    "patient": pl.String,
    "group": pl.String,
    "study": pl.String,
    "official_split": pl.String,
    "media": pl.List(MEDIA_TYPE),
    "label_file": pl.String,
    "label_row": pl.String,
}
"""Fixed columns of an item table.

``item`` is unique and stable. ``patient`` is null where the publisher gives none; ``group`` never is: it is the
patient, or the closest thing to one. ``label_file`` and ``label_row`` say where the answers stand.
"""

SKIP_COLUMNS = ("skip_reason", "skip_detail")
"""Optional columns of an item table, both or none."""


class SourceOptions(BaseModel):
    """Recipe keys of one source; a source with its own keys subclasses this."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """A label's key in the item table and its text in the row."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Task:
    """A question family with its vocabulary.

    ``wordings`` are ways to ask the same thing, in words of our own; which one a row gets follows from its id.
    ``tolerance`` is absolute and in the unit that the wordings name; only numbers have one. ``fact`` names a measured
    value of the inspect step (``<inspector>.<column>``) where the answer is not in the publisher's tables.
    ``default`` is False for a task that a recipe has to ask for by name.
    """

    name: str
    answer_type: AnswerType
    wordings: tuple[str, ...]
    choices: tuple[Choice, ...] = ()
    tolerance: float | None = None
    fact: str = ""
    default: bool = True


@dataclass(frozen=True, slots=True)
class SourceVersion:
    """A release of the source and its publisher's counts, where stated."""

    name: str
    items: int | None = None
    patients: int | None = None


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    """A file or folder (``path`` ends in ``/``) of the published layout, relative to the root.

    ``columns`` are the columns of a table that the source reads; ``other_names`` are names under which the same file
    is found too.
    """

    path: str
    required: bool = True
    columns: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SyntheticTask:
    """Which measured features show a task's labels in the synthetic medium.

    ``features`` are names of ``qoq_data.clinical.ecg_features.FEATURES`` or ``image_features.FEATURES``.
    """

    task: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Everything there is to know about a source without its files.

    ``licences`` maps an input's role (``media``, ``labels``) to its licence. ``identity_group`` names the numbering in
    which patients of several sources are the same people. ``grouping`` says in a sentence what keeps splits apart.
    ``published_items`` is the count of the paper's Table 6, shown beside the publisher's own. ``bytes_per_row`` is
    what a stored row weighs about, for ``--dry-run``. ``burned_in_text`` says what may be written into the pixels.
    """

    name: str
    title: str
    domain: Domain
    modality: str
    homepage: str
    citation: str
    licences: Mapping[str, Licence]
    access: Access
    access_steps: tuple[str, ...]
    identity_group: str
    grouping: str
    versions: tuple[SourceVersion, ...]
    expected_files: tuple[ExpectedFile, ...]
    tasks: tuple[Task, ...]
    context_fields: tuple[str, ...] = ()
    published_items: int | None = None
    checksums_file: str | None = None
    inspectors: tuple[str, ...] = ()
    rows_per_shard: int = 512
    bytes_per_row: int = 100_000
    skip_limit: float = 0.02
    synthetic: tuple[SyntheticTask, ...] = field(default=())
    burned_in_text: str = ""

    def task(self, name: str) -> Task:
        return next(task for task in self.tasks if task.name == name)


@dataclass(frozen=True, slots=True)
class Source:
    """A source file as the frame holds it."""

    spec: SourceSpec
    scan: Callable[[Store, Any], pl.LazyFrame]
    synthesize: Callable[[Path, int, int], None]
    module_file: Path
    options_model: type[SourceOptions] = SourceOptions
    detect_version: Callable[[Store], str] | None = None
    statistics: Callable[[Store, Any], Mapping[str, int]] | None = None
    expand: Callable[[pl.DataFrame, pl.DataFrame, Any], pl.DataFrame] | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    def version(self, tree: Store) -> str:
        """The release found in a raw tree; the first of the SPEC where the files do not tell."""
        return self.detect_version(tree) if self.detect_version else self.spec.versions[0].name
