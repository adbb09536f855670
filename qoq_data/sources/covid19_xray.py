"""COVID-19 Detection X-Ray Dataset: chest films in four class folders, put together from two older collections.

Darshan Deshpande took films of Kermany's set (children in Guangzhou: normal, bacterial, viral) and of Cohen's
(COVID-19, figures of papers and web pages) and published ``NonAugmentedTrain``, ``TrainData`` and ``ValData``, each
with the folders ``Normal``, ``BacterialPneumonia``, ``ViralPneumonia`` and ``COVID-19``.

Which folder trains: ``NonAugmentedTrain`` holds the films as taken (``0.jpeg``). A page that mirrors the set says that
he then augmented them, and ``TrainData`` has names as Keras gives to augmented pictures (``_0_1465610.jpeg``). So
``NonAugmentedTrain`` is the train part. Where a tree has no such folder ``TrainData`` is, and the version says so: its
pictures may be turned, sheared or zoomed, several of one film among them. ``ValData`` is the test part, as in the
published conversion; no other test part exists, and validation is hashed out of the train part.

What the published conversion does, and what this source does instead:

* it walks ``TrainData`` and all below, and so trains on ``OversampledAugmentedCOVID-19/COVID-19`` as well: copies and
  augmentations of films that are there already (its 2,002 records hold them). Here an item is a picture directly in a
  class folder of the train part or of ``ValData``; what was left out is counted;
* it takes folders as the split and looks for no copies. Here pictures of the same content are one group, and one with
  a picture in ``ValData`` stands in the test part whole;
* it names a record by its path, which is its answer. Here ids are digests of paths.

Not known: patients, and which film is of which older set. COVID-19 films are mostly of adults and the others of
children, so that age, marks and frames tell the class as well as lungs do.

Licence: Kaggle's page says CC BY 4.0. That is Kermany's licence; Cohen's pictures each have their own, some of them
non-commercial or none. So only ids may be passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from qoq_data.errors import LayoutError
from qoq_data.formats.storage import Store
from qoq_data.licence import CC_BY_4, Access, Licence, Redistribution
from qoq_data.record import AnswerType, Domain
from qoq_data.source import Choice, ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask, Task
from qoq_data.sources._class_folders import (
    ClassFolder,
    FolderListing,
    folder_items,
    folder_rows,
    is_picture,
    list_class_folders,
)
from qoq_data.sources._drawn_scans import CHEST_FEATURES, Chest, draw_chest, encoded

CLASSES = {
    "Normal": "Normal",
    "BacterialPneumonia": "Bacterial pneumonia",
    "ViralPneumonia": "Viral pneumonia",
    "COVID-19": "COVID-19",
}
ORIGINALS, AUGMENTED, TEST = "NonAugmentedTrain", "TrainData", "ValData"
OVERSAMPLED = f"{AUGMENTED}/OversampledAugmentedCOVID-19"
_VERSIONS = {ORIGINALS: "films as taken", AUGMENTED: "augmented films"}
_LOOKS: Mapping[str, Chest] = {
    "Normal": "clear",
    "BacterialPneumonia": "patch",
    "ViralPneumonia": "grainy",
    "COVID-19": "hazy",
}
_PAGE = "https://www.kaggle.com/datasets/darshan1504/covid19-detection-xray-dataset"
_TERMS = Licence(
    "LicenseRef-COVID-19-Detection-X-Ray",
    "CC BY 4.0 on the page of the set, whose COVID-19 films each have terms of their own",
    _PAGE,
    Redistribution.IDS,
)

SPEC = SourceSpec(
    name="covid19-xray",
    title="COVID-19 Detection X-Ray Dataset",
    domain=Domain.CHEST_XRAY,
    modality="chest X-ray",
    homepage=_PAGE,
    citation="Deshpande D. COVID-19 Detection X-Ray Dataset. Kaggle, 2020. From: Kermany D, Zhang K, Goldbaum M. "
    "Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images. Mendeley Data, 2018; Cohen JP, Morrison P, "
    "Dao L. COVID-19 image data collection. arXiv:2003.11597, 2020",
    licences={"media": _TERMS, "labels": CC_BY_4},
    access=Access.REGISTERED,
    access_steps=(
        f"Sign in at Kaggle, open {_PAGE} and fetch the archive.",
        f"Unpack it into an empty folder, which then holds {ORIGINALS}/, {AUGMENTED}/ and {TEST}/. Give it as --raw.",
    ),
    identity_group="covid19-xray",
    grouping="No patient is published, so sides are kept apart by content alone: equal pictures and near copies, "
    f"mirrored or turned too, stay together and on the test side if one of them is in {TEST}, while two different "
    "films of one patient may stand on two sides.",
    versions=tuple(SourceVersion(name) for name in _VERSIONS.values()),
    expected_files=(
        *(ExpectedFile(f"{TEST}/{label}/") for label in CLASSES),
        *(ExpectedFile(f"{part}/{label}/", required=False) for part in (ORIGINALS, AUGMENTED) for label in CLASSES),
        ExpectedFile(f"{OVERSAMPLED}/", required=False),
    ),
    tasks=(
        Task(
            "pneumonia_type",
            AnswerType.ONE,
            (
                "Which of these does the chest film show?",
                "Read this radiograph of the chest and choose the category that fits best.",
                "What is your reading of the lungs on this frontal X-ray?",
                "Sort this chest radiograph into one of the categories.",
                "If there is an infection of the lungs on this film, of which sort is it?",
            ),
            tuple(Choice(label, text) for label, text in CLASSES.items()),
        ),
    ),
    published_items=2990,
    inspectors=("picture_content",),
    skip_limit=0.05,  # put together from two collections that share films: some may stand in two classes
    synthetic=(SyntheticTask("pneumonia_type", CHEST_FEATURES),),
)


def detect_version(tree: Store) -> str:
    """Which pictures the train part of a tree is."""
    return _VERSIONS[_train_part(tree)]


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a picture of the eight class folders; raises ``LayoutError`` where one of them is absent or empty."""
    return folder_items(folder_rows(_listing(tree), "pneumonia_type"), "pneumonia_type")


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """Pictures a folder, and those of ``TrainData`` that are no items: oversampled copies, and augmented films."""
    listing = _listing(tree)
    below = {
        part: sum(is_picture(path.rpartition("/")[2]) for path in tree.walk(part)) for part in (OVERSAMPLED, AUGMENTED)
    }
    read = sum(len(names) for folder, names in listing.pictures.items() if folder.path.startswith(f"{AUGMENTED}/"))
    return listing.counts() | {
        "oversampled_copies_left_out": below[OVERSAMPLED],
        "augmented_films_left_out": below[AUGMENTED] - below[OVERSAMPLED] - read,
    }


def _train_part(tree: Store) -> str:
    """``LayoutError`` where there is neither; a part that is there but lacks a class is never replaced by the other."""
    for part in _VERSIONS:
        if tree.is_folder(part):
            return part
    raise LayoutError(
        f"{SPEC.name}: neither {ORIGINALS}/ nor {AUGMENTED}/ is in the raw folder. Is it a level too high or too low, "
        f"another source's, or not unpacked yet? Type: qoq-data doctor {SPEC.name} --raw DIR"
    )


def _listing(tree: Store) -> FolderListing:
    parts = ((_train_part(tree), "train"), (TEST, "test"))
    folders = [ClassFolder(f"{part}/{label}", label, split) for part, split in parts for label in CLASSES]
    return list_class_folders(tree, SPEC.name, folders)


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A tree of the published layout: a film a patient, each class in turn, every third of a class in ``ValData``.

    Each film of ``NonAugmentedTrain`` stands in ``TrainData`` zoomed, and three times so if it is of COVID-19. From 16
    patients on, a normal film of ``ValData`` stands in ``NonAugmentedTrain`` byte for byte, and a bacterial one
    mirrored and re-encoded.
    """
    count = max(patients, 2 * len(CLASSES))
    labels = tuple(CLASSES)
    for place in range(count):
        label, number = labels[place % len(labels)], place // len(labels)
        rng = np.random.default_rng([seed, place])
        pixels = draw_chest(_LOOKS[label], rng)
        if number % 3 == 1:
            suffix = (".jpeg", ".jpg", ".png")[number // 3 % 3]
            _write(folder, f"{TEST}/{label}/{number}{suffix}", pixels)
            if count >= 16 and number == 1 and label == "Normal":
                _write(folder, f"{ORIGINALS}/{label}/{count}.jpeg", pixels)
            if count >= 16 and number == 1 and label == "BacterialPneumonia":
                _write(folder, f"{ORIGINALS}/{label}/{count}.jpeg", pixels[:, ::-1].copy(), quality=75)
            continue
        _write(folder, f"{ORIGINALS}/{label}/{number}.jpeg", pixels)
        homes = [f"{AUGMENTED}/{label}", *([f"{OVERSAMPLED}/{label}"] * 2 if label == "COVID-19" else ())]
        for home in homes:
            edge = int(rng.integers(4, 12))
            _write(folder, f"{home}/_{number}_{rng.integers(10**7)}.jpeg", pixels[edge:-edge, edge:-edge].copy())


def _write(folder: Path, path: str, pixels: NDArray[np.uint8], quality: int = 90) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded(pixels, file.suffix, quality))
