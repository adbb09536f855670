"""Brain MRI Images for Brain Tumor Detection: 253 pictures of heads in the folders ``no`` (98) and ``yes`` (155).

The copy that is read is jjprotube's on Kaggle, of a set by Navoneel Chakrabarty. Names end in .jpg, .JPG, .jpeg or
.png, and the archive holds both folders a second time under ``brain_tumor_dataset/``.

What the published conversion does, and what this source does instead:

* a walk through the archive finds every picture twice, and a random split then puts the two on two sides. Here the
  repeat is never an item: its listing is held against the first. A picture that stands in the repeat alone is a ledger
  line, one that stands in the first alone is an item, and ``statistics`` counts both;
* it shuffles pictures with a seed (202 and 51) and looks for no copies, though a picture may stand under several names.
  Here no split is official: groups are hashed, and pictures of the same content are one group;
* it names each record by its path, which is its answer. Here ids are digests of paths. A name that stands in both
  ``yes`` and ``no`` has no answer: neither folder is known to be right.

Not known: patients, hospitals, sequences and planes, who said yes or no and by what, and where the pictures are from:
by recollection they were gathered from the web, with text and arrows in some.

Licence: none is stated. Only ids may be passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from qoq_data.errors import Reason, RecordError
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
    FolderListing,
    folder_items,
    folder_rows,
    is_picture,
    list_class_folders,
)
from qoq_data.sources._drawn_scans import BRAIN_FEATURES, Brain, draw_brain, encoded

REPEAT = "brain_tumor_dataset"
FOLDERS = (ClassFolder("no", "no"), ClassFolder("yes", "yes"))
_SUFFIXES = (".jpg", ".JPG", ".jpeg", ".png")
_PAGE = "https://www.kaggle.com/datasets/jjprotube/brain-mri-images-for-brain-tumor-detection"
_TERMS = Licence("LicenseRef-Brain-Tumor-2", "No licence stated", _PAGE, Redistribution.IDS)

SPEC = SourceSpec(
    name="brain-tumor-2",
    title="Brain MRI Images for Brain Tumor Detection",
    domain=Domain.MRI,
    modality="brain MRI slice",
    homepage=_PAGE,
    citation="Chakrabarty N. Brain MRI Images for Brain Tumor Detection. Kaggle, 2019 "
    "(read from the copy by jjprotube)",
    licences={"media": _TERMS, "labels": _TERMS},
    access=Access.REGISTERED,
    access_steps=(
        f"Sign in at Kaggle, open {_PAGE} and fetch the archive.",
        f"Unpack it into an empty folder, which then holds no/, yes/ and {REPEAT}/. Give that folder as --raw.",
        "Count the pictures: no/ has 98 of them and yes/ 155.",
    ),
    identity_group="brain-tumor-2",
    grouping="No patient and no split is published, so groups are hashed and sides are kept apart by content alone: "
    "equal pictures and near copies, mirrored or turned too, stay together, while two different slices of one patient "
    "may stand on two sides.",
    versions=(SourceVersion("2019", 253, None),),
    expected_files=(
        *(ExpectedFile(f"{folder.path}/") for folder in FOLDERS),
        ExpectedFile(f"{REPEAT}/", required=False),
    ),
    tasks=(
        Task(
            "tumor",
            AnswerType.ONE,
            (
                "Does this MR picture of a head show a growth in the brain, or not?",
                "Judge this slice of cranial MRI: which of the two statements holds?",
                "You see one magnetic resonance slice of a brain. Which of these is true of it?",
                "Search this MR slice for an intracranial mass. What do you conclude?",
                "Which label does this MRI of the head deserve?",
            ),
            (Choice("no", "No Tumor"), Choice("yes", "Has Tumor")),
        ),
    ),
    published_items=253,
    inspectors=("picture_content",),
    rows_per_shard=128,
    bytes_per_row=40_000,
    skip_limit=0.05,  # 12 pictures: nothing is known of equal pictures in both folders, nor of lost ones
    synthetic=(SyntheticTask("tumor", BRAIN_FEATURES),),
)


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a picture of ``no`` and ``yes``, and one for the ledger a picture that only the repeat has.

    Raises ``LayoutError`` where one of the two folders is absent or empty.
    """
    listing = list_class_folders(tree, SPEC.name, FOLDERS)
    rows = folder_rows(listing, "tumor")
    lost = {folder: names for folder, names in _lost(tree, listing).items() if names}
    for row in folder_rows(FolderListing(lost, 0), "tumor"):
        detail = f"the picture stands in the repeat under {REPEAT}/ alone"
        rows.append(row | {"answer.tumor": None, "skip_reason": str(Reason.FILE_MISSING), "skip_detail": detail})
    both = _in_both(listing)
    for row in rows:
        if row["label_file"].rpartition("/")[2].lower() in both:
            detail = "a picture of the same name stands in the other folder"
            row |= {"answer.tumor": None, "skip_reason": str(Reason.LABEL_CONFLICT), "skip_detail": detail}
    return folder_items(rows, "tumor")


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """Pictures a folder, and where the repeat agrees with them and where not; sizes are compared, not bytes."""
    listing = list_class_folders(tree, SPEC.name, FOLDERS)
    repeated = [
        f"{folder.path}/{name}"
        for folder, names in listing.pictures.items()
        for name in sorted(set(names) & set(_repeat(tree, folder)))
    ]
    total = sum(map(len, listing.pictures.values()))
    repeats = sum(len(_repeat(tree, folder)) for folder in FOLDERS)
    other_size = sum(_size(tree, path) != _size(tree, f"{REPEAT}/{path}") for path in repeated)
    return listing.counts() | {
        "repeated_pictures": len(repeated),
        "repeated_pictures_of_another_size": other_size,
        "pictures_only_in_the_repeat": repeats - len(repeated),
        "pictures_not_in_the_repeat": total - len(repeated) if repeats else 0,
        "names_in_both_folders": len(_in_both(listing)),
    }


def _repeat(tree: Store, folder: ClassFolder) -> list[str]:
    return [name for name in tree.names(f"{REPEAT}/{folder.path}") if is_picture(name)]


def _lost(tree: Store, listing: FolderListing) -> dict[ClassFolder, tuple[str, ...]]:
    return {folder: tuple(sorted(set(_repeat(tree, folder)) - set(listing.pictures[folder]))) for folder in FOLDERS}


def _in_both(listing: FolderListing) -> set[str]:
    no, yes = ({name.lower() for name in listing.pictures[folder]} for folder in FOLDERS)
    return no & yes


def _size(tree: Store, path: str) -> int | None:
    try:
        return tree.identity(path).size
    except RecordError:
        return None


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A tree of the published layout: a picture a patient, three of five with a lesion.

    From 12 patients on, one picture of ``yes`` stands a second time under another name, re-encoded; from 30 on, the
    repeat of both folders is there too.
    """
    count = max(patients, 5)
    homes = (folder, folder / REPEAT) if count >= 30 else (folder,)
    for place in range(count):
        label = "yes" if place % 5 < 3 else "no"
        look: Brain = "plain" if label == "no" else "hollow" if place % 2 else "solid"
        pixels = draw_brain(look, np.random.default_rng([seed, place]))
        suffix = _SUFFIXES[place // 5 % len(_SUFFIXES)]
        name = f"Y{place + 1}{suffix}" if label == "yes" else f"{place + 1} no{suffix}"
        files = {f"{label}/{name}": encoded(pixels, suffix)}
        if count >= 12 and place == 1:
            files[f"yes/Y{count + 1}.jpg"] = encoded(pixels, ".jpg", quality=75)
        for home in homes:
            for path, data in files.items():
                (home / path).parent.mkdir(parents=True, exist_ok=True)
                (home / path).write_bytes(data)
