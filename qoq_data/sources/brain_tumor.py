"""Brain Tumor Classification (MRI): brain slices in four class folders a side, put together from several sets.

Published as ``Training`` (826 glioma, 822 meningioma, 395 without tumour, 827 pituitary) and ``Testing`` (100, 115,
105 and 74 by recollection), JPEG of three equal channels, axial, coronal and sagittal mixed, many of them from Cheng's
set on Figshare. Class and side stand in the path only.

What the published conversion does, and what this source does instead:

* it takes the folders as the split and looks for no copies. Here the folders are the official sides too, but pictures
  of the same content are one group, and a group with a picture in ``Testing`` stands in the test part whole. 131 groups
  of byte-identical files are known, none across sides or classes; copies that are re-encoded were never counted;
* it names each record by its path, which is its answer (``glioma_tumor/gg (1).jpg``). Here ids are digests of paths;
* it says nothing of wrong labels. Part of the glioma pictures is wrongly labelled, for which a later merged set of
  others replaced them. Which ones is not published: they are kept as labelled, and the card says so.

Pictures are not what is directly in a class folder and ends in .jpg, .jpeg or .png: such files are counted.

Not known: patients. Cheng's set has 3,064 slices of 233 patients, so many slices here show one patient, and which is
not said. Slices of one patient may stand on two sides, in the publisher's split too.

Licence: MIT is what those wrote who put the set together; it does not say whose pictures they are. Only ids may be
passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from qoq_data.formats.storage import Store
from qoq_data.licence import Access, Licence, Redistribution
from qoq_data.record import AnswerType, Domain
from qoq_data.source import (
    Choice,
    ExpectedFile,
    SourceOptions,
    SourceSpec,
    SourceVersion,
    SyntheticTask,
    Task,
)
from qoq_data.sources._class_folders import (
    ClassFolder,
    folder_items,
    folder_rows,
    list_class_folders,
)
from qoq_data.sources._drawn_scans import BRAIN_FEATURES, Brain, draw_brain, encoded

CLASSES = {
    "no_tumor": "No Tumor",
    "glioma_tumor": "Glioma Tumor",
    "meningioma_tumor": "Meningioma Tumor",
    "pituitary_tumor": "Pituitary Tumor",
}
FOLDERS = tuple(
    ClassFolder(f"{part}/{label}", label, split)
    for part, split in (("Training", "train"), ("Testing", "test"))
    for label in CLASSES
)
_LOOKS: Mapping[str, Brain] = {
    "no_tumor": "plain",
    "glioma_tumor": "hollow",
    "meningioma_tumor": "solid",
    "pituitary_tumor": "small",
}
_STEMS = {
    "no_tumor": "image({})",
    "glioma_tumor": "gg ({})",
    "meningioma_tumor": "m ({})",
    "pituitary_tumor": "p ({})",
}
_PAGE = "https://www.kaggle.com/datasets/sartajbhuvaji/brain-tumor-classification-mri"
_MIT = Licence("MIT", "MIT License", "https://opensource.org/license/mit", Redistribution.OPEN)
_TERMS = Licence(
    "LicenseRef-Brain-Tumor-MRI",
    "MIT as stated by those who put the set together from pictures of others",
    _PAGE,
    Redistribution.IDS,
)

SPEC = SourceSpec(
    name="brain-tumor",
    title="Brain Tumor Classification (MRI)",
    domain=Domain.MRI,
    modality="brain MRI slice",
    homepage=_PAGE,
    citation="Bhuvaji S, Kadam A, Bhumkar P, Dedge S, Kanchan S. Brain Tumor Classification (MRI). Kaggle, 2020. "
    "doi:10.34740/KAGGLE/DSV/1183165",
    licences={"media": _TERMS, "labels": _MIT},
    access=Access.REGISTERED,
    access_steps=(
        f"Sign in at Kaggle, open {_PAGE} and fetch the archive.",
        "Unpack it into an empty folder, which then holds Training/ and Testing/. Give that folder as --raw.",
        "Count the pictures: Training/ has 2,870 of them and Testing/ 394.",
    ),
    identity_group="brain-tumor",
    grouping="No patient is published, so sides are kept apart by content alone: equal pictures and near copies, "
    "mirrored or turned too, stay together and on the test side if one of them is in Testing, while two different "
    "slices of one patient may stand on two sides.",
    versions=(SourceVersion("2020", 3264, None),),
    expected_files=tuple(ExpectedFile(f"{folder.path}/") for folder in FOLDERS),
    tasks=(
        Task(
            "tumor_type",
            AnswerType.ONE,
            (
                "Which of these fits the brain shown on this MR slice?",
                "Look at this magnetic resonance picture of a head. Which category describes what it shows?",
                "One slice of a cranial MRI is given. Choose the finding that it belongs to.",
                "How would you class this MR picture of the brain?",
                "Read the slice of brain MRI: is there a growth in it, and of which kind?",
            ),
            tuple(Choice(label, text) for label, text in CLASSES.items()),
        ),
    ),
    published_items=3264,
    inspectors=("picture_content",),
    bytes_per_row=30_000,
    skip_limit=0.02,  # byte-identical files in two classes would be skipped, and none are known
    synthetic=(SyntheticTask("tumor_type", BRAIN_FEATURES),),
)


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a picture of the eight class folders; raises ``LayoutError`` for one that is absent or empty."""
    return folder_items(folder_rows(list_class_folders(tree, SPEC.name, FOLDERS), "tumor_type"), "tumor_type")


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """Pictures a folder, and files in these folders that are none."""
    return list_class_folders(tree, SPEC.name, FOLDERS).counts()


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A tree of the published layout: a picture a patient, each class in turn, every third of a class in ``Testing``.

    From 16 patients on, one glioma picture of ``Testing`` stands there twice byte for byte, as in the real set, and one
    meningioma picture of ``Training`` stands in ``Testing`` re-encoded, as no one has ruled out.
    """
    labels = tuple(CLASSES)
    count = max(patients, 2 * len(labels))
    for place in range(count):
        label, number = labels[place % len(labels)], place // len(labels) + 1
        pixels = draw_brain(_LOOKS[label], np.random.default_rng([seed, place]))
        path = f"Testing/{label}/image({number})"
        _write(folder, path if number % 3 == 2 else f"Training/{label}/{_STEMS[label].format(number)}", pixels)
        if count >= 16 and (label, number) == ("glioma_tumor", 2):
            _write(folder, f"Testing/{label}/image", pixels)
        if count >= 16 and (label, number) == ("meningioma_tumor", 1):
            _write(folder, f"Testing/{label}/image({count})", pixels, quality=70)


def _write(folder: Path, path: str, pixels: NDArray[np.uint8], quality: int = 90) -> None:
    file = folder / f"{path}.jpg"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded(pixels, ".jpg", quality))
