"""The row: one question, its answer, its media and where all of it came from.

The schema stands here once, written out by hand, in arrow types and, as metadata in each shard, in the feature types
of ``datasets``, so that ``datasets.load_dataset`` decodes a corpus with no code of ours. Every shard of every source
carries it byte for byte.

Samples of a signal are a list of leads of ``int16``, as stored by the publisher's file; ``MISSING`` marks a gap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MISSING = -32768
"""The sample that says 'nothing was recorded here'; format 16's own code, given to every format's gaps."""


class Domain(StrEnum):
    """The clinical domain of a row; what training weighs and evaluation reports by."""

    ECG = "ecg"
    CHEST_XRAY = "chest_xray"
    MAMMOGRAPHY = "mammography"
    DERMATOLOGY = "dermatology"
    FUNDUS = "fundus"
    CT = "ct"
    ULTRASOUND = "ultrasound"
    MRI = "mri"
    PATHOLOGY = "pathology"
    EHR = "ehr"
    MULTIMODAL = "multimodal"


class Split(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class AnswerType(StrEnum):
    """One choice, any number of choices, or a number within the row's tolerance."""

    ONE = "one"
    SEVERAL = "several"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class View:
    """How one image of a row was taken: ``spacing_mm`` is (row, column) or empty when unknown."""

    view: str = ""
    index: int = 0
    spacing_mm: tuple[float, ...] = ()
    window: str = ""
    laterality: str = ""


@dataclass(frozen=True, slots=True)
class Signal:
    """One recording: ``samples`` int16 [leads, samples]; millivolts (or ``unit``) are samples x scale + offset."""

    lead_names: tuple[str, ...]
    sampling_frequency_hz: float
    unit: str
    samples: NDArray[np.int16]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    derived_leads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BoxOnImage:
    """A box in pixels of image ``image`` as stored: ``xyxy`` is half-open, so ``x1 - x0`` is its width.

    ``agreement`` is the share of readers who drew it, or None where there was one reader.
    """

    label: str
    image: int
    xyxy: tuple[int, int, int, int]
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class QualityFinding:
    """Something a reader of the row should know: a code, the lead or image it is about, and its size."""

    code: str
    where: str
    value: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """One input of a row: its role, its path below the source's root, its sha256, and what was taken of it."""

    role: str
    path: str
    sha256: str
    taken: str


@dataclass(frozen=True, slots=True)
class Media:
    """What rendering made of one item's files."""

    images: tuple[bytes, ...] = ()
    views: tuple[View, ...] = ()
    signals: tuple[Signal, ...] = ()
    boxes: tuple[BoxOnImage, ...] = ()
    masks: tuple[bytes, ...] = ()
    quality: tuple[QualityFinding, ...] = ()
    provenance: tuple[Provenance, ...] = ()


def _list(item: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("item", item))


_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_VIEW = pa.struct(
    [
        ("view", pa.string()),
        ("index", pa.int32()),
        ("spacing_mm", _list(pa.float64())),
        ("window", pa.string()),
        ("laterality", pa.string()),
    ]
)
_SIGNAL = pa.struct(
    [
        ("lead_names", _list(pa.string())),
        ("sampling_frequency_hz", pa.float64()),
        ("unit", pa.string()),
        ("samples", _list(_list(pa.int16()))),
        ("scale", _list(pa.float64())),
        ("offset", _list(pa.float64())),
        ("derived_leads", _list(pa.string())),
    ]
)
_BOX = pa.struct(
    [
        ("label", pa.string()),
        ("image", pa.int32()),
        ("xyxy", pa.list_(pa.field("item", pa.int32()), 4)),
        ("agreement", pa.float64()),
    ]
)
_QUALITY = pa.struct([("code", pa.string()), ("where", pa.string()), ("value", pa.float64())])
_PROVENANCE = pa.struct([("role", pa.string()), ("path", pa.string()), ("sha256", pa.string()), ("taken", pa.string())])

_FIELDS: tuple[tuple[str, pa.DataType], ...] = (
    ("id", pa.string()),
    ("source", pa.string()),
    ("source_version", pa.string()),
    ("domain", pa.string()),
    ("modality", pa.string()),
    ("task", pa.string()),
    ("split", pa.string()),
    ("patient", pa.string()),
    ("study", pa.string()),
    ("question", pa.string()),
    ("choices", _list(pa.string())),
    ("answer", _list(pa.string())),
    ("answer_type", pa.string()),
    ("tolerance", pa.float64()),
    ("context", pa.string()),
    ("images", _list(_IMAGE)),
    ("views", _list(_VIEW)),
    ("signals", _list(_SIGNAL)),
    ("boxes", _list(_BOX)),
    ("masks", _list(_IMAGE)),
    ("quality", _list(_QUALITY)),
    ("provenance", _list(_PROVENANCE)),
    ("licence", pa.string()),
    ("redistribution", pa.string()),
)


def _feature(arrow_type: pa.DataType) -> Any:
    """The ``datasets`` feature of an arrow type, in the JSON form that library writes into parquet."""
    if arrow_type.equals(_IMAGE):
        return {"_type": "Image"}
    if pa.types.is_struct(arrow_type):
        return {field.name: _feature(field.type) for field in arrow_type}
    if pa.types.is_fixed_size_list(arrow_type):
        return {"feature": _feature(arrow_type.value_type), "length": arrow_type.list_size, "_type": "List"}
    if pa.types.is_list(arrow_type):
        return {"feature": _feature(arrow_type.value_type), "_type": "List"}
    return {"dtype": {"double": "float64"}.get(str(arrow_type), str(arrow_type)), "_type": "Value"}


FEATURES_JSON = json.dumps({"info": {"features": {name: _feature(arrow_type) for name, arrow_type in _FIELDS}}})
SCHEMA = pa.schema(list(_FIELDS), metadata={"huggingface": FEATURES_JSON})
COLUMNS = tuple(SCHEMA.names)


def millivolts(signal: Mapping[str, Any]) -> NDArray[np.float32]:
    """One entry of a row's ``signals`` as millivolts, float32 [leads, samples], with gaps as NaN.

    Takes what ``datasets`` gives in any of its formats. Raises ``ValueError`` for a signal in another unit.
    """
    if isinstance(signal, pa.StructScalar):
        signal = signal.as_py()
    unit = str(signal["unit"])
    if unit != "mV":
        raise ValueError(f"the signal is in {unit!r} and not in mV")
    samples = np.array([np.asarray(lead) for lead in signal["samples"]])
    scale = np.asarray(signal["scale"], dtype=np.float64)[:, None]
    offset = np.asarray(signal["offset"], dtype=np.float64)[:, None]
    values = (samples * scale + offset).astype(np.float32)
    values[samples == MISSING] = np.nan
    return values
