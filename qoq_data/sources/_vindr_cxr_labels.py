"""The 28 labels of VinDr-CXR, and what the readers of one film make of them together: an answer, and its boxes.

Everything here is about one film: pure functions of what stands in the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qoq_data.clinical.reader_boxes import MergedBox, ReaderBox, has_area, merge_reader_boxes
from qoq_data.errors import Reason

LOCAL = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation", "Edema",
    "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst", "Mediastinal shift",
    "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture",
    "Other lesion",
)  # fmt: skip
"""Findings that have a place on the film."""
OTHER_DISEASE, NO_FINDING = "Other disease", "No finding"
GLOBAL = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", OTHER_DISEASE, NO_FINDING)
"""What is said of the film as a whole."""
LABELS = (*LOCAL, *GLOBAL)
OTHER_NAMES: Mapping[str, str] = {"Other diseases": OTHER_DISEASE}
"""The tables of the training side say ``Other diseases``, those of the test side ``Other disease``."""

CHEXPERT: Mapping[str, str] = {
    "Aortic enlargement": "Enlarged Cardiomediastinum",
    "Enlarged PA": "Enlarged Cardiomediastinum",
    "Mediastinal shift": "Enlarged Cardiomediastinum",
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Clavicle fracture": "Fracture",
    "Rib fracture": "Fracture",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Infiltration": "Lung Opacity",
    "Lung Opacity": "Lung Opacity",
    "Lung cavity": "Lung Lesion",
    "Lung cyst": "Lung Lesion",
    "Nodule/Mass": "Lung Lesion",
    "Other lesion": "Lung Lesion",
    "Lung tumor": "Lung Lesion",
    "Pleural effusion": "Pleural Effusion",
    "Pleural thickening": "Pleural Other",
    "Pneumothorax": "Pneumothorax",
    "Pneumonia": "Pneumonia",
    NO_FINDING: "No Finding",
}
"""The published way into CheXpert's names; the seven labels that are not in it have none there."""

READERS = 3
Rule = Literal["majority", "any", "all"]
Kept = Literal["agreed", "all"]


@dataclass(frozen=True, slots=True)
class Film:
    """What the tables say of one film.

    ``stated`` has the labels of each reader; on the test side there is one, the consensus. ``unread`` is why its rows
    cannot be read as labels, empty where they can. ``placeless`` are the labels of rows of boxes that hold none.
    """

    image: str
    is_test: bool
    stated: Mapping[str, frozenset[str]]
    boxes: tuple[ReaderBox, ...] = ()
    placeless: tuple[str, ...] = ()
    unread: str = ""

    @property
    def votes(self) -> dict[str, int]:
        """How many readers state each label that any of them states, in the publisher's order."""
        counts = {label: sum(label in labels for labels in self.stated.values()) for label in LABELS}
        return {label: count for label, count in counts.items() if count}


@dataclass(frozen=True, slots=True)
class Answer:
    """``labels`` in the publisher's order, empty where readers agree on none; ``is_abnormal`` None where on neither.

    ``merged`` are all lesions; ``boxes`` those that the row keeps. ``refused`` is why there can be no row.
    """

    labels: tuple[str, ...]
    is_abnormal: bool | None
    merged: tuple[MergedBox, ...]
    boxes: tuple[MergedBox, ...]
    refused: tuple[Reason, str] | None = None


def needed(rule: Rule, readers: int) -> int:
    """How many of so many readers make something so."""
    return {"any": 1, "majority": readers // 2 + 1, "all": readers}[rule]


def agreed_labels(stated: Sequence[frozenset[str]], rule: Rule) -> tuple[str, ...]:
    """Labels that enough readers state. ``No finding`` gives way to any other that is in the answer."""
    enough = needed(rule, len(stated))
    labels = tuple(label for label in LABELS if sum(label in one for one in stated) >= enough)
    return labels if labels == (NO_FINDING,) else tuple(label for label in labels if label != NO_FINDING)


def agreed_abnormality(stated: Sequence[frozenset[str]], rule: Rule) -> bool | None:
    """Whether enough readers state something other than ``No finding``, whatever it is; None where neither has enough.

    A reader who states nothing at all counts for neither.
    """
    enough = needed(rule, len(stated))
    if sum(bool(one - {NO_FINDING}) for one in stated) >= enough:
        return True
    return False if sum(NO_FINDING in one for one in stated) >= enough else None


def answer_of(film: Film, rule: Rule, least_overlap: float, kept: Kept) -> Answer:
    """The readers' labels and boxes merged."""
    refused = _refusal(film)
    if refused:
        return Answer((), None, (), (), refused)
    stated = tuple(film.stated.values())
    labels = agreed_labels(stated, rule)
    merged = _as_published(film.boxes) if film.is_test else merge_reader_boxes(film.boxes, least_overlap)
    enough = needed(rule, len(stated))
    boxes = merged if kept == "all" else tuple(box for box in merged if box.readers >= enough)
    if kept == "agreed" and not {box.label for box in boxes} <= set(labels):
        refused = (Reason.LABEL_CONFLICT, "readers agree on a box whose label they do not agree on")
    return Answer(labels, agreed_abnormality(stated, rule), merged, boxes, refused)


def _as_published(boxes: Sequence[ReaderBox]) -> tuple[MergedBox, ...]:
    """The boxes of the test side, each as it stands: there is one reading, and it is not judged by its overlaps."""
    return tuple(MergedBox(box.label, box.edges, 1, 1, is_chained=False) for box in sorted(boxes))


def _refusal(film: Film) -> tuple[Reason, str] | None:
    """The first of these that holds of a film: why there can be no row of it."""
    readers = len(film.stated)
    told = (
        (bool(film.unread), Reason.NO_LABEL, film.unread),
        (
            not film.is_test and readers != READERS,
            Reason.NO_LABEL,
            f"it has the labels of {readers} readers and not of {READERS}",
        ),
        (
            any(NO_FINDING in labels and len(labels) > 1 for labels in film.stated.values()),
            Reason.LABEL_CONFLICT,
            "a reader states No finding beside a finding",
        ),
        (
            any(box.label == NO_FINDING for box in film.boxes),
            Reason.LABEL_CONFLICT,
            "a box is drawn for No finding",
        ),
        (
            not {box.reader for box in film.boxes} <= film.stated.keys(),
            Reason.LABEL_CONFLICT,
            "a reader who gives it no labels draws on it",
        ),
        (
            not all(has_area(box.edges) for box in film.boxes),
            Reason.MASK_CONFLICT,
            "a box of its readers has no area",
        ),
        (
            any(label in LOCAL for label in film.placeless),
            Reason.MASK_MISSING,
            "a finding that has a place is listed without its box",
        ),
    )
    return next(((reason, detail) for holds, reason, detail in told if holds), None)


def chexpert_labels(labels: Sequence[str], order: Sequence[str]) -> tuple[str, ...]:
    """CheXpert's names for labels, each once and in that order; none where no label has one."""
    named = {CHEXPERT[label] for label in labels if label in CHEXPERT}
    return tuple(name for name in order if name in named)


def unstated_boxes(film: Film) -> int:
    """Boxes whose reader does not state their label."""
    return sum(box.label not in film.stated.get(box.reader, ()) for box in film.boxes)


def box_entry(box: MergedBox, readers: int) -> dict[str, str | int | float | None]:
    """An entry of the ``boxes`` column of an item table; the one consensus of the test side is no agreement."""
    x0, y0, x1, y1 = box.edges
    agreement = box.readers / readers if readers > 1 else None
    return {"label": box.label, "image": 0, "x0": x0, "y0": y0, "x1": x1, "y1": y1, "agreement": agreement}
