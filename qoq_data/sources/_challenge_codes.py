"""SNOMED CT codes of the PhysioNet/CinC Challenges as answers: seven classes, and the rhythm.

``data/snomed_seven_class.csv`` has every code with our class, the published one of each map, and the reason where they
differ. One code has one class, whichever source it stands in.

* ``normal`` holds where sinus rhythm is the only code: the sets have no code that says a tracing is normal.
* The rhythm is asked where exactly one code names a rhythm, and that one is among the choices.
* An unknown code is not guessed. What known codes say stays true beside it, so their classes stay; but ``normal`` and
  the rhythm rest on nothing else being there, so these do not hold. ``statistics`` counts such codes.
* A record that nothing is known of has no answer, and is a ledger line and never a class.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from qoq_data.clinical.seven_class import SEVEN_CLASSES
from qoq_data.record import AnswerType
from qoq_data.source import Choice, SourceOptions, Task

SINUS_RHYTHM = "426783006"


def _rows(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / "data" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


CODES = {row["code"]: row for row in _rows("snomed_seven_class.csv")}
"""Each known code with its name, its class, what the published maps make of it, and why ours differs."""

RHYTHM_CODES = frozenset(code for code, row in CODES.items() if row["rhythm"])
"""Codes that name the rhythm of a recording, whether it is ever asked or not."""

Answers = tuple[list[str] | None, list[str] | None]
"""Seven classes and rhythm, each None where there is no answer."""


class Options(SourceOptions):
    """Recipe keys.

    ``seven_class: published`` gives each code the class that the published map of this source gives it, so what that
    map lacks or loses by letter case has none, and leaves normal beside the others; for comparison. ``unknown_code:
    no_label`` asks nothing of a record with a code outside the table; by default its other codes still answer.
    """

    seven_class: Literal["corrected", "published"] = "corrected"
    unknown_code: Literal["keep", "no_label"] = "keep"


def challenge_tasks(rhythms: Sequence[str]) -> tuple[Task, ...]:
    """The two tasks; the choices of the rhythm are these codes."""
    seven = Task(
        "seven_class",
        AnswerType.SEVERAL,
        (
            "Which kinds of finding are present in this twelve-lead recording?",
            "Assign this electrocardiogram to all the categories it belongs in.",
            "Considering rhythm, conduction, voltages and repolarisation, how is this tracing best described?",
            "What would a reader put down for this ECG? Give every category that applies.",
            "Look through all leads and list each type of finding you see.",
            "Under which headings should this recording be filed?",
        ),
        tuple(Choice(key, text) for key, text in SEVEN_CLASSES.items()),
    )
    rhythm = Task(
        "rhythm",
        AnswerType.ONE,
        (
            "Which rhythm is the heart in?",
            "Name the rhythm of this recording.",
            "From the P waves and the spacing of the beats, which rhythm do you read here?",
            "What is the underlying rhythm in these twelve leads?",
            "How would you label the rhythm of this electrocardiogram?",
        ),
        tuple(Choice(CODES[code]["abbreviation"], CODES[code]["name"].capitalize()) for code in rhythms),
    )
    return seven, rhythm


def answers_to(codes: frozenset[str], published_map: str, rhythms: Sequence[str], options: Options) -> Answers:
    """Answers of a record with these codes; ``rhythms`` are the codes that are choices of the rhythm."""
    known = codes & CODES.keys()
    if known != codes and options.unknown_code == "no_label":
        return None, None
    if options.seven_class == "published":
        seven = {name for code in known for name in published_classes(code, published_map)}
    else:
        seven = {CODES[code]["seven_class"] for code in known}
        if codes != {SINUS_RHYTHM}:
            seven.discard("normal")
    named = codes & RHYTHM_CODES
    is_asked = known == codes and len(named) == 1 and named <= set(rhythms)
    rhythm = [CODES[code]["abbreviation"] for code in named] if is_asked else None
    return [key for key in SEVEN_CLASSES if key in seven] or None, rhythm


def published_classes(code: str, published_map: str) -> list[str]:
    """What the published code makes of a code: one class, two, or none where the names differ in letter case."""
    row = CODES[code]
    if published_map in row["lost_by_case"].split("+"):
        return []
    return [name for name in row[f"published_{published_map}"].split("+") if name in SEVEN_CLASSES]
