"""Synthetic trees of CBIS-DDSM in both published layouts, with what is odd in the real set planted in them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical.boxes import scale_labels
from qoq_data.clinical.synthetic_dicom import uid_of, write_dicom
from qoq_data.sources._cbis_ddsm_tables import DENSITY, DESCRIPTORS, PATHS, TABLES, Kind
from qoq_data.sources._mammography import SERIES_HEADER, SERIES_TABLE, draw_mammogram, series_row
from qoq_data.sources._published_files import csv_bytes

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
_FULL, _MASK, _CROP = "full mammogram images", "ROI mask images", "cropped images"
_OTHER: Final[Mapping[Kind, Kind]] = {"mass": "calcification", "calcification": "mass"}
_BY_TURNS: Final = (2, 4, 3, 5, 4, 5, 3, 2)
_PATHOLOGY: Final = {2: "BENIGN_WITHOUT_CALLBACK", 4: "MALIGNANT", 5: "MALIGNANT"}
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "mass shape": ("OVAL", "IRREGULAR", "IRREGULAR-ARCHITECTURAL_DISTORTION", "NA"),
    "mass margins": ("CIRCUMSCRIBED", "SPICULATED", "ILL_DEFINED-SPICULATED", "NA"),
    "calc type": ("LUCENT_CENTERED", "PLEOMORPHIC", "PUNCTATE-PLEOMORPHIC", "NA"),
    "calc distribution": ("CLUSTERED", "SEGMENTAL", "CLUSTERED-LINEAR", "NA"),
}
_INFO_HEADER: Final = (
    "file_path", "image_path", "BitsAllocated", "BitsStored", "BodyPartExamined", "Columns", "InstanceNumber",
    "Laterality", "Modality", "PatientID", "PatientOrientation", "PhotometricInterpretation", "Rows",
    "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "StudyInstanceUID",
)  # fmt: skip
_META_HEADER: Final = (
    "SeriesInstanceUID", "StudyInstanceUID", "Modality", "SeriesDescription", "BodyPartExamined", "SeriesNumber",
    "Collection", "Visibility", "ImageCount",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Series:
    subject: str
    study: str
    uid: str
    description: str
    files: tuple[Pixels, ...]


@dataclass(slots=True)
class _Set:
    """Everything that is published: rows by table, and series."""

    rows: dict[str, list[dict[str, object]]] = field(default_factory=lambda: {name: [] for name in TABLES})
    series: list[_Series] = field(default_factory=list)


def write_tcia(folder: Path, seed: int, patients: int) -> None:
    """The tables and ``metadata.csv`` beside ``CBIS-DDSM/``, as the NBIA Data Retriever leaves it on Windows."""
    made = _make(seed, patients)
    _write_tables(folder, made)
    lines = []
    for one in made.series:
        study = f"08-29-2017-DDSM-NA-{one.study[-5:]}"
        below = f"CBIS-DDSM/{one.subject}/{study}/1.000000-{one.description}-{one.uid[-5:]}"
        lines.append(series_row(one.uid, one.subject, one.study, one.description, len(one.files), below))
        (folder / below).mkdir(parents=True)
        for number, pixels in enumerate(one.files, 1):
            (folder / below / f"1-{number}.dcm").write_bytes(_dicom(one, number, pixels))
    (folder / SERIES_TABLE).write_bytes(csv_bytes(SERIES_HEADER, lines))


def write_kaggle(folder: Path, seed: int, patients: int) -> None:
    """The same set as it is on Kaggle: ``csv/`` with the tables, and JPEGs by series below ``jpeg/``."""
    made = _make(seed, patients)
    _write_tables(folder / "csv", made)
    info: list[tuple[object, ...]] = []
    for place, one in enumerate(made.series):
        (folder / "jpeg" / one.uid).mkdir(parents=True)
        for number, pixels in enumerate(one.files, 1):
            name = f"{number}-{(37 * place) % 1000:03}"
            coded = io.BytesIO()
            eight_bit = (pixels >> 8 if pixels.dtype == np.uint16 else pixels).astype(np.uint8)
            Image.fromarray(eight_bit).save(coded, "JPEG", quality=95)
            (folder / "jpeg" / one.uid / f"{name}.jpg").write_bytes(coded.getvalue())
            bits = 8 * pixels.dtype.itemsize
            described = "" if place % 9 == 4 else one.description
            paths = (f"CBIS-DDSM/dicom/{one.uid}/{name}.dcm", f"CBIS-DDSM/jpeg/{one.uid}/{name}.jpg")
            _, _, _, side, orientation = one.subject.split("_")[:5]
            of_film = (bits, bits, "BREAST", pixels.shape[1], number, side[0], "MG", one.subject, orientation)
            info.append((*paths, *of_film, "MONOCHROME2", pixels.shape[0], described, one.uid, 1, one.study))
    meta = [
        (one.uid, one.study, "MG", one.description, "BREAST", 1, "CBIS-DDSM", 1, len(one.files)) for one in made.series
    ]
    (folder / "csv" / "dicom_info.csv").write_bytes(csv_bytes(_INFO_HEADER, info))
    (folder / "csv" / "meta.csv").write_bytes(csv_bytes(_META_HEADER, meta))


def _make(seed: int, patients: int) -> _Set:
    """A patient's mammograms by turns of mass and calcification; ``_views`` says what is planted where."""
    made = _Set()
    for patient in range(max(patients, 1)):
        for place, (view, lesions) in enumerate(_views(patient)):
            _add_view(made, np.random.default_rng([seed, patient, place]), seed, patient, view, lesions)
    return made


def _views(patient: int) -> Iterator[tuple[str, list[tuple[Kind, str, int]]]]:
    """(view, (kind, official side, number) of each abnormality): several of one kind in every sixth patient.

    Every eighth has both kinds on one view, the first of them on both official sides; one patient has a view on each.
    """
    kind: Kind = "calcification" if patient % 2 else "mass"
    side = "test" if patient % 5 == 4 else "train"
    if patient == 11:
        yield "CC", [("mass", "train", 1)]
        yield "MLO", [("calcification", "test", 1)]
        return
    lesions = [(kind, side, number) for number in (range(1, 3) if patient % 6 == 2 else range(1, 2))]
    if patient % 8 == 3:
        other = _OTHER[kind]
        lesions.append((other, {"train": "test", "test": "train"}[side] if patient == 3 else side, 1))
    yield "CC", lesions
    if patient % 4 == 0:
        yield "MLO", lesions


def _add_view(
    made: _Set,
    rng: np.random.Generator,
    seed: int,
    patient: int,
    view: str,
    lesions: Sequence[tuple[Kind, str, int]],
) -> None:
    side = "LEFT" if patient % 4 < 2 else "RIGHT"
    assessment = 0 if patient % 12 == 10 else _BY_TURNS[patient // 2 % 8]
    drawn = [(kind, rng.uniform(7, 9) if kind == "mass" else rng.uniform(9, 11)) for kind, _, _ in lesions]
    pixels, masks = draw_mammogram(rng, side.lower(), view, 0.06 + 0.055 * (assessment or 3), drawn)
    copies: dict[Kind, _Series] = {}
    for place, ((kind, official, number), mask) in enumerate(zip(lesions, masks, strict=True)):
        half = "Training" if official == "train" else "Test"
        name = f"{kind[:4].capitalize()}-{half}_P_{patient + 1:05}_{side}_{view}"
        if kind not in copies:
            copies[kind] = _series(seed, name, _FULL, (pixels.astype(np.uint16) * 257,))
            made.series.append(copies[kind])
        apart = kind == "mass" and patient % 7 == 0
        files = _mask_file(mask, patient, place), _crop(pixels, mask)
        if apart:
            both = [_series(seed, f"{name}_{number}", *one) for one in ((_MASK, files[:1]), (_CROP, files[1:]))]
        else:
            together = _series(seed, f"{name}_{number}", _MASK, files if patient % 3 else files[::-1])
            both = [together, together]
        made.series += dict.fromkeys(both)
        of_lesion = assessment if place == 0 or assessment < 5 else 4
        made.rows[f"{kind[:4]}_case_description_{official}_set.csv"].append(
            {
                "patient_id": f"P_{patient + 1:05}",
                DENSITY[kind]: 0 if (kind, patient) == ("calcification", 9) else patient // 2 % 4 + 1,
                "left or right breast": side,
                "image view": view,
                "abnormality id": number,
                "abnormality type": kind,
                **{column: _WORDS[column][patient // 2 % 4] for column in DESCRIPTORS[kind]},
                "assessment": of_lesion,
                "pathology": _PATHOLOGY.get(of_lesion, "BENIGN"),
                "subtlety": patient % 5 + 1,
                **dict(zip(PATHS, _path_cells(copies[kind], both[1], both[0], kind, apart=apart), strict=True)),
            }
        )


def _series(seed: int, subject: str, description: str, files: tuple[Pixels, ...]) -> _Series:
    return _Series(
        subject, uid_of(f"study {seed} {subject}"), uid_of(f"{description} {seed} {subject}"), description, files
    )


def _path_cells(image: _Series, crop: _Series, mask: _Series, kind: Kind, *, apart: bool) -> tuple[str, str, str]:
    """As published: names swapped between the kinds, and a line break after every second cell."""
    names = ("000000.dcm", "000000.dcm") if apart else ("000000.dcm", "000001.dcm")
    of_crop, of_mask = names if kind == "mass" else names[::-1]
    cells = [
        f"{one.subject}/{one.study}/{one.uid}/{name}"
        for one, name in ((image, "000000.dcm"), (crop, of_crop), (mask, of_mask))
    ]
    cells[2 if kind == "mass" else 1] += "\n"
    return cells[0], cells[1], cells[2]


def _mask_file(mask: NDArray[np.bool_], patient: int, place: int) -> Pixels:
    """8 or 16 bits; one patient's first is scaled, and far on in a large tree one is of another aspect."""
    height, width = mask.shape
    if place == 0 and patient == 6:
        mask = scale_labels(mask, (width * 7 // 8, height * 7 // 8))
    elif place == 0 and patient == 38:
        mask = mask[:, : width - 8]
    return mask.astype(np.uint8) * 255 if patient % 4 < 2 else mask.astype(np.uint16) * 65535


def _crop(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Pixels:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    cut = pixels[max(0, rows[0] - 4) : rows[-1] + 5, max(0, columns[0] - 4) : columns[-1] + 5]
    return cut.astype(np.uint16) * 257


def _dicom(series: _Series, number: int, pixels: Pixels) -> bytes:
    parts = series.subject.split("_")
    attributes: dict[str, Any] = {
        "SeriesDescription": series.description,
        "PatientID": series.subject,
        "InstanceNumber": number,
        "Laterality": parts[3][0],
        "PatientOrientation": parts[4],
    }
    return write_dicom(
        pixels,
        study=series.study,
        series=series.uid,
        instance=f"{series.uid} {number}",
        kind="SC",
        attributes={**attributes, "Modality": "MG"},
    )


def _write_tables(folder: Path, made: _Set) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (kind, _) in TABLES.items():
        header = _header(kind)
        (folder / name).write_bytes(csv_bytes(header, ([row[column] for column in header] for row in made.rows[name])))


def _header(kind: Kind) -> Iterable[str]:
    return (
        "patient_id", DENSITY[kind], "left or right breast", "image view", "abnormality id", "abnormality type",
        *DESCRIPTORS[kind], "assessment", "pathology", "subtlety", *PATHS,
    )  # fmt: skip
