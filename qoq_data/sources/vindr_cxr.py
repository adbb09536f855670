"""VinDr-CXR 1.0.0: 18,000 frontal chest films of two hospitals in Hanoi, labelled and boxed by radiologists.

Each of 15,000 training films was read by three of 17 radiologists on their own, each of 3,000 test films by five in
consensus. 22 labels have a place and a box, 6 are of the film as a whole. Labels, and boxes, are merged by the rule of
the recipe (``readers``); two readers' boxes of one label are of one lesion where they overlap by ``least_overlap``,
and the merged box has the median of the readers' edges and the share of readers who drew it as its ``agreement``
(``clinical.reader_boxes``). On the test side boxes stand as published, without an agreement.

What the published conversion does, and what this source does instead:

* it pairs films in the order of the folder with labels in the order of the table, which has three rows a film, so that
  nearly every label is another film's. Here rows are joined to films by ``image_id``, and all three are read;
* it never turns MONOCHROME1 round, so that such films stay negatives. Here the reader of DICOM files does;
* it gives labels CheXpert's names. Seven have none there and are dropped (calcification, emphysema, ILD, fibrosis,
  COPD, tuberculosis, other disease), and films with nothing else go without a word. Here the vocabulary is the
  publisher's 28 names; CheXpert's are a second task, which a recipe asks for by name;
* it takes names out of a set, in no fixed order. Here answers have the order of the choices.

The training table says ``Other diseases`` and the test table ``Other disease``; both are one label. Downloads cut short
were seen, without pixels or transfer syntax: each is a line of the ledger. A film whose readers' tables contradict each
other is one too.

No patient is published, so films are kept apart by their content alone. The publisher's script leaves 25 tags in a
file, no modality or UID among them; what stood in a VOI LUT is lost, and a film without a window is seen from its
smallest to its largest value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from pydantic import Field

from qoq_data.formats.storage import Store
from qoq_data.licence import PHYSIONET_CREDENTIALED, Access
from qoq_data.record import AnswerType, Domain
from qoq_data.source import (
    BOXES_TYPE,
    ITEM_COLUMNS,
    SKIP_COLUMNS,
    Choice,
    ExpectedFile,
    SourceOptions,
    SourceSpec,
    SourceVersion,
    SyntheticTask,
    Task,
)
from qoq_data.sources._chexpert_labels import FINDINGS as CHEXPERT_NAMES
from qoq_data.sources._chexpert_labels import KEYS as CHEXPERT_KEYS
from qoq_data.sources._published_files import CHECKSUMS
from qoq_data.sources._vindr_cxr_labels import (
    LABELS,
    LOCAL,
    Film,
    Kept,
    Rule,
    answer_of,
    box_entry,
    chexpert_labels,
    unstated_boxes,
)
from qoq_data.sources._vindr_cxr_tables import EDGES, HEADINGS, SIDES, boxes_path, film_path, labels_path, read_films
from qoq_data.sources._vindr_cxr_tree import write_tree

_PAGE = "https://physionet.org/content/vindr-cxr/1.0.0/"
KEYS = {label: label.lower().replace("/", "_").replace(" ", "_") for label in LABELS}


class Options(SourceOptions):
    """Recipe keys of VinDr-CXR.

    ``readers: majority`` is the default: what one of three says against two is in doubt, and what all three say leaves
    out much of what is faint. ``any`` is for finding everything that was seen, ``all`` for films that
    nobody doubts; under it many films have no answer, so that a build needs a higher ``skip_limit``. ``No finding``
    gives way under ``any`` to whatever another reader names. With ``boxes: agreed`` a row has the boxes that as many
    readers drew as its labels ask for, so that no box stands against the answer; a label on which readers agree, at
    different places, then has none. ``all`` keeps every lesion that anyone drew, each with its agreement. On the test
    side there is one reading, and all of it stands.
    """

    readers: Rule = Field("majority", description="how many of three readers make a label, and a box, so")
    least_overlap: float = Field(
        0.5, gt=0, le=1, description="intersection over union from which two readers' boxes are of one lesion"
    )
    boxes: Kept = Field("agreed", description="which lesions have a box in the row")


SPEC = SourceSpec(
    name="vindr-cxr",
    title="VinDr-CXR, chest X-rays with radiologists' annotations",
    domain=Domain.CHEST_XRAY,
    modality="chest X-ray",
    homepage=_PAGE,
    citation="Nguyen HQ, Pham HH, Le LT, Dao M, Lam K. VinDr-CXR: An open dataset of chest X-rays with radiologist "
    "annotations (version 1.0.0). PhysioNet, 2021. doi:10.13026/3akn-b287. Nguyen HQ, Lam K, Le LT, et al. VinDr-CXR: "
    "An open dataset of chest X-rays with radiologist's annotations. Scientific Data 9:429, 2022. "
    "doi:10.1038/s41597-022-01498-w",
    licences={"media": PHYSIONET_CREDENTIALED, "labels": PHYSIONET_CREDENTIALED},
    access=Access.CREDENTIALED,
    access_steps=(
        f"Become a credentialed user of PhysioNet, do the CITI course, and sign the agreement on {_PAGE}.",
        "wget -r -N -c -np --user NAME --ask-password https://physionet.org/files/vindr-cxr/1.0.0/",
        f"Check it: 'qoq-data doctor vindr-cxr --checksums' compares it with {CHECKSUMS}: files cut short were seen.",
        "Point --raw at the folder that holds train/, test/ and annotations/.",
    ),
    identity_group="vindr-cxr",
    grouping="No patient is published, so sides are kept apart by content alone: films of equal pixels and near copies "
    "stay together, while two films of one person may stand on two sides. The publisher's train and test are kept.",
    versions=(SourceVersion("1.0.0", 18_000, None),),
    expected_files=(
        ExpectedFile(labels_path("train"), columns=("image_id", "rad_id", *HEADINGS["train"])),
        ExpectedFile(labels_path("test"), columns=("image_id", *HEADINGS["test"])),
        ExpectedFile(boxes_path("train"), columns=("image_id", "rad_id", "class_name", *EDGES)),
        ExpectedFile(boxes_path("test"), columns=("image_id", "class_name", *EDGES)),
        *(ExpectedFile(f"{side}/") for side in SIDES),
        *(
            ExpectedFile(name, required=False)
            for name in (CHECKSUMS, "LICENSE.txt", "supplemental_file_DICOM_tags.pdf")
        ),
    ),
    tasks=(
        Task(
            "findings",
            AnswerType.SEVERAL,
            (
                "A frontal film of the chest. Which entries of the list hold for it? Choose every one that does.",
                "Read this chest X-ray as a radiologist would and select all listed findings and diagnoses.",
                "What can be seen, or has to be suspected, on this radiograph of the chest? Several may be right.",
                "Go through the list and name everything that this frontal chest X-ray shows.",
                "Several radiologists looked at this chest film. What did they find? Pick all fitting entries.",
            ),
            tuple(Choice(KEYS[label], label) for label in LABELS),
        ),
        Task(
            "abnormality",
            AnswerType.ONE,
            (
                "Is there anything on this chest X-ray that a radiologist would report?",
                "Would you put this frontal chest film aside as unremarkable, or not?",
                "Judge this radiograph of the chest as a whole.",
                "At a first look: does this chest X-ray need a closer one?",
                "One word on this film of the chest, please: how is it?",
            ),
            (Choice("normal", "Normal"), Choice("abnormal", "Abnormal")),
        ),
        Task(
            "chexpert_findings",
            AnswerType.SEVERAL,
            (
                "Which of these holds for this frontal chest X-ray? Name all that do.",
                "Describe this film of the chest with entries of the list, as many as are needed.",
                "Select each entry that a report of this chest radiograph would state.",
                "You are shown a frontal chest X-ray. Which of the listed findings are on it?",
                "Look at this chest film and choose from the list whatever it shows.",
            ),
            tuple(Choice(CHEXPERT_KEYS[name], name) for name in CHEXPERT_NAMES),
            default=False,  # for comparison with what was published: a third of the labels is coarsened or lost in it
        ),
    ),
    published_items=18_000,
    checksums_file=CHECKSUMS,
    inspectors=("picture_content",),
    skip_limit=0.02,  # under the default rules every film has an answer: what is left is files cut short, and conflicts
    synthetic=(
        SyntheticTask("findings", ("mean_intensity", "bright_blob_area", "dark_blob_area", "dark_blob_aspect")),
    ),
    burned_in_text="Marks of side, and what else is not known: the publisher keeps no tag that would say.",
)


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """A row a film, in the order of sides and ids; no film is looked for. Raises ``SourceError``."""
    answers = {f"answer.{task.name}": pl.List(pl.String) for task in SPEC.tasks}
    schema = {**ITEM_COLUMNS, **answers, **dict.fromkeys(SKIP_COLUMNS, pl.String), "boxes": BOXES_TYPE}
    return pl.LazyFrame([_row(film, options) for film in read_films(tree)], schema=schema)


def _row(film: Film, options: Options) -> dict[str, object]:
    side = "test" if film.is_test else "train"
    answer = answer_of(film, options.readers, options.least_overlap, options.boxes)
    reason, detail = answer.refused or (None, None)
    votes = ", ".join(f"{label} {count}/{len(film.stated)}" for label, count in film.votes.items())
    as_chexpert = [CHEXPERT_KEYS[name] for name in chexpert_labels(answer.labels, CHEXPERT_NAMES)]
    judged = None if answer.is_abnormal is None else ["abnormal" if answer.is_abnormal else "normal"]
    return {
        "item": film.image,
        "group": film.image,
        "official_split": side,
        "media": [{"role": "image", "kind": "dicom", "path": film_path(side, film.image), "part": "PA"}],
        "label_file": labels_path(side),
        "label_row": f"image_id={film.image}: {'consensus' if film.is_test else votes or 'nothing stated'}",
        "answer.findings": [KEYS[label] for label in answer.labels] or None,
        "answer.abnormality": judged,
        "answer.chexpert_findings": as_chexpert or None,
        "skip_reason": reason and str(reason),
        "skip_detail": detail,
        "boxes": [box_entry(box, len(film.stated)) for box in answer.boxes],
    }


def statistics(tree: Store, options: Options) -> Mapping[str, int]:
    """Counts of what readers agree on, of what becomes of their boxes, and of what the tables do not say alike."""
    counts: Counter[str] = Counter()
    for film in read_films(tree):
        answer = answer_of(film, options.readers, options.least_overlap, options.boxes)
        counts["films_test" if film.is_test else "films_train"] += 1
        counts["films_refused"] += answer.refused is not None
        counts["boxes_whose_reader_does_not_state_their_label"] += unstated_boxes(film)
        counts["boxes_drawn"] += len(film.boxes)
        counts["rows_of_findings_without_a_box"] += sum(label in LOCAL for label in film.placeless)
        counts["boxes_kept"] += len(answer.boxes)
        if answer.refused is not None:
            counts["boxes_drawn_on_refused_films"] += len(film.boxes)
            continue
        counts["films_without_an_agreed_label"] += not answer.labels
        counts["films_agreed_abnormal"] += answer.is_abnormal is True
        counts["films_agreed_normal"] += answer.is_abnormal is False
        counts["films_all_of_whose_readers_state_the_same"] += len(set(film.stated.values())) == 1
        counts["lesions"] += len(answer.merged)
        counts["lesions_joined_by_a_chain"] += sum(box.is_chained for box in answer.merged)
        counts["lesions_drawn_twice_by_one_reader"] += sum(box.drawn > box.readers for box in answer.merged)
        for box in () if film.is_test else answer.merged:
            counts[f"lesions_of_{box.readers}_readers"] += 1
    return dict(sorted(counts.items()))


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A film a patient, three readers each on the training side who do not always agree; see ``_vindr_cxr_tree``."""
    write_tree(folder, seed, patients)
