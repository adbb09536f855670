"""What is asked of CBIS-DDSM: the assessment, the pathology, what the abnormality is, and its descriptors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from qoq_data.record import AnswerType
from qoq_data.source import Choice, Task
from qoq_data.sources._cbis_ddsm_tables import VOCABULARY

_TEXTS: Final[Mapping[str, str]] = {
    "LYMPH_NODE": "Lymph node",
    "ILL_DEFINED": "Ill-defined",
    "LARGE_RODLIKE": "Large rod-like",
    "LUCENT_CENTER": "Lucent-centred",
    "FINE_LINEAR_BRANCHING": "Fine linear branching",
}


def _choices(column: str) -> tuple[Choice, ...]:
    return tuple(Choice(key, _TEXTS.get(key, key.replace("_", " ").capitalize())) for key in VOCABULARY[column])


TASKS: Final = (
    Task(
        "assessment",
        AnswerType.ONE,
        (
            "Which BI-RADS assessment category would you give this mammogram?",
            "Judge this film mammogram: what is its BI-RADS category?",
            "You read one view of a breast. State the BI-RADS assessment that its most suspicious finding calls for.",
            "What BI-RADS category fits the abnormality that this mammogram shows?",
            "How suspicious is this mammogram, as a BI-RADS assessment?",
        ),
        tuple(Choice(str(category), f"BI-RADS {category}") for category in range(1, 6)),
    ),
    Task(
        "pathology",
        AnswerType.ONE,
        (
            "Did the abnormality on this mammogram prove to be benign or malignant?",
            "Is there anything malignant in this mammogram, or is what it shows benign?",
            "What was the outcome for the finding in this film mammogram?",
            "Judge the lesion in this view of a breast: what did it turn out to be?",
            "Decide from this mammogram alone whether its finding is malignant or benign.",
        ),
        (Choice("benign", "Benign"), Choice("malignant", "Malignant")),
    ),
    Task(
        "abnormality",
        AnswerType.SEVERAL,
        (
            "What kind of abnormality does this mammogram show? Name each kind there is.",
            "Which kinds of finding can be seen in this view of a breast?",
            "Say what sort of abnormality stands out in this film mammogram; there may be more than one.",
            "Look through this mammogram and name the types of lesion in it.",
            "Of the kinds of finding offered, which are present in this mammogram?",
        ),
        (Choice("mass", "Mass"), Choice("calcification", "Calcification")),
    ),
    Task(
        "density",
        AnswerType.ONE,
        (
            "How dense is the breast in this mammogram?",
            "Which BI-RADS density category does the tissue of this breast belong to?",
            "Estimate the composition of this breast from its mammogram.",
            "Judge how much fibroglandular tissue this film mammogram shows.",
            "Which density category would you write down for this breast?",
        ),
        (
            Choice("1", "Almost entirely fat"),
            Choice("2", "Scattered fibroglandular densities"),
            Choice("3", "Heterogeneously dense"),
            Choice("4", "Extremely dense"),
        ),
    ),
    Task(
        "mass_shape",
        AnswerType.SEVERAL,
        (
            "This mammogram shows one mass. Which words describe its shape?",
            "How is the mass in this view of a breast shaped?",
            "Describe the form of the mass on this film with the terms offered.",
            "Which shape does the mass in this mammogram have?",
            "Choose the terms for shape that fit the mass seen here.",
        ),
        _choices("mass shape"),
        default=False,
    ),
    Task(
        "mass_margins",
        AnswerType.SEVERAL,
        (
            "This mammogram shows one mass. Which words describe its margins?",
            "How is the mass in this view of a breast bordered?",
            "Describe the edge of the mass on this film with the terms offered.",
            "What are the margins of the mass in this mammogram like?",
            "Choose the terms for margins that fit the mass seen here.",
        ),
        _choices("mass margins"),
        default=False,
    ),
    Task(
        "calc_type",
        AnswerType.SEVERAL,
        (
            "There are calcifications in this mammogram. Of which type are they?",
            "Which words describe the calcifications in this view of a breast?",
            "Name the morphology of the calcifications on this film with the terms offered.",
            "What do the calcifications in this mammogram look like?",
            "Choose the terms for type that fit the calcifications seen here.",
        ),
        _choices("calc type"),
        default=False,
    ),
    Task(
        "calc_distribution",
        AnswerType.SEVERAL,
        (
            "There are calcifications in this mammogram. How are they distributed?",
            "Which words describe where the calcifications lie to each other in this view of a breast?",
            "Name the distribution of the calcifications on this film with the terms offered.",
            "How are the calcifications in this mammogram spread out?",
            "Choose the terms for distribution that fit the calcifications seen here.",
        ),
        _choices("calc distribution"),
        default=False,
    ),
)
