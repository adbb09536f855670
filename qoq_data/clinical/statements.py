"""Statements of an ECG device, read phrase by phrase: what is asserted, what is hedged, what is denied.

A table of phrases decides everything. A statement is cut into the longest phrases of the table; findings take the
hedges and negations that stand in their clause. A statement with a single word that the table lacks is unknown as a
whole and gives nothing: half a sentence is a guess. Where a hedge concerns only how old an infarct is ('- possibly
acute'), the table holds it as a phrase of no weight.

What a statement adds to its record are marks, ``<task>.<assertion>.<label>`` and ``flag.<name>``: see
``statement_labels`` for what a record's marks answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_TOKEN = re.compile(r"[,;?]|:(?=\s|$)|(?:[^\s,;?:]|:(?!\s|$))+")
_FRAME = re.compile(r"^[*-]{2,}\s*|\s*[*-]{2,}$")
_STOP = re.compile(r"(?<=\w\w)\.(?=\s)")


class Assertion(StrEnum):
    """How a finding is stated. ``VARIANT``: stated, and said to be normal for this person."""

    ASSERTED = "asserted"
    HEDGED = "hedged"
    NEGATED = "negated"
    VARIANT = "variant"


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of the table: the task it answers (or ``flag``, ``verdict`` or none), its class, and why that class.

    ``text`` is its choice in the task; empty where it is stated too loosely to be a choice.
    """

    key: str
    text: str
    task: str
    class7: str
    why: str


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as read: each finding with how it is stated, or ``known`` False and no finding at all."""

    findings: tuple[tuple[str, Assertion], ...]
    known: bool = True


@dataclass(frozen=True, slots=True)
class Phrase:
    """A row of the table that is matched: its tokens, the findings it states, and how."""

    kind: str
    tokens: tuple[str, ...]
    findings: tuple[str, ...]
    assertion: str


def normalise(line: str) -> str:
    """A line of the device in the form in which it is compared.

    Lower case, single blanks, no closing period, no ``***`` or ``---`` around it; a leading ``- `` stays.
    """
    text = _FRAME.sub("", _FRAME.sub("", " ".join(line.lower().split())))
    return text.strip().rstrip(".").rstrip()


@dataclass(slots=True)
class _Reading:
    """A statement while it is read from left to right; ``clause`` is where the present clause's findings begin."""

    findings: list[tuple[str, Assertion]] = field(default_factory=list)
    clause: int = 0
    last: int = 0
    ahead: Assertion | None = None
    alternative: bool = False
    variant: bool = False
    says_something: bool = False

    def take(self, phrase: Phrase) -> None:
        kind = phrase.kind
        if kind == "phrase":
            self._state(phrase)
        elif kind in ("hedge", "negation"):
            self.ahead = Assertion.NEGATED if Assertion.NEGATED in (self.ahead, phrase.assertion) else Assertion.HEDGED
        elif kind in ("hedge_before", "comment"):
            self._hedge(self.clause if kind == "hedge_before" else 0)
        elif kind == "alternative":
            self._hedge(self.last)
            self.alternative = True
        elif kind == "close":
            self.clause, self.ahead = len(self.findings), None
        self.variant |= kind == "variant"
        self.says_something |= kind in ("phrase", "remark", "variant", "comment")

    def _state(self, phrase: Phrase) -> None:
        assertion = self.ahead or Assertion(phrase.assertion)
        if self.alternative and assertion is Assertion.ASSERTED:
            assertion = Assertion.HEDGED
        self.last, self.alternative = len(self.findings), False
        self.findings.extend((key, assertion) for key in phrase.findings)

    def _hedge(self, start: int) -> None:
        for index in range(start, len(self.findings)):
            key, assertion = self.findings[index]
            if assertion is Assertion.ASSERTED:
                self.findings[index] = (key, Assertion.HEDGED)

    def statement(self) -> Statement:
        stated = self.findings
        if self.variant:
            stated = [
                (key, Assertion.NEGATED if how is Assertion.NEGATED else Assertion.VARIANT) for key, how in stated
            ]
        return Statement(tuple(dict.fromkeys(stated)), known=self.says_something)


class StatementTable:
    """Findings and phrases of one family of devices, from the rows of its table.

    Columns: ``kind``, ``pattern``, ``finding``, ``assertion``, ``task``, ``class7``, ``source``, ``note``. Kinds:
    ``finding`` defines one (its choice text is the pattern, the reason of its class the note); ``phrase`` states some;
    ``hedge``, ``negation`` concern what follows in the clause, ``hedge_before`` what stands before, ``comment`` the
    line before, ``variant`` the whole statement, ``alternative`` its two neighbours; ``close`` ends a clause;
    ``remark`` states nothing; ``filler`` weighs nothing; ``abbreviation`` is written out (to ``finding``) beforehand.
    Raises ``ValueError`` for a table that contradicts itself.
    """

    def __init__(self, rows: Iterable[Mapping[str, str]]) -> None:
        self.findings: dict[str, Finding] = {}
        self._abbreviations: dict[str, str] = {}
        self._by_first_token: dict[str, list[Phrase]] = {}
        phrases: dict[tuple[str, ...], Phrase] = {}
        for row in rows:
            pattern, key = row["pattern"], row["finding"]
            if row["kind"] == "finding":
                self.findings[key] = Finding(key, pattern, row["task"], row["class7"], row["note"])
            elif row["kind"] == "abbreviation":
                self._abbreviations[pattern] = key
            else:
                tokens = tuple(_TOKEN.findall(pattern))
                if tokens in phrases:
                    raise ValueError(f"the phrase {pattern!r} stands twice in the table")
                phrases[tokens] = Phrase(row["kind"], tokens, tuple(filter(None, key.split(";"))), row["assertion"])
        undefined = sorted({key for phrase in phrases.values() for key in phrase.findings} - self.findings.keys())
        if undefined:
            raise ValueError(f"the finding {undefined[0]!r} is used in the table and not defined")
        for phrase in sorted(phrases.values(), key=lambda one: -len(one.tokens)):
            self._by_first_token.setdefault(phrase.tokens[0], []).append(phrase)
        self._choices: dict[str, tuple[tuple[str, str], ...]] = {}
        for one in self.findings.values():
            if one.text:
                self._choices[one.task] = (*self._choices.get(one.task, ()), (one.key, one.text))

    def choices(self, task: str) -> tuple[tuple[str, str], ...]:
        """Key and text of each finding that is a choice of a task, in the order of the table."""
        return self._choices.get(task, ())

    def continues(self, line: str) -> bool:
        """Whether a normalised line belongs to the line before it."""
        if line.startswith(("- ", "with ")):
            return True
        phrases = list(self._phrases(self._tokens(line)))
        return len(phrases) == 1 and phrases[0] is not None and phrases[0].kind == "comment"

    def classify(self, statement: str) -> Statement:
        """Read a normalised statement; its continuation lines are part of it."""
        reading = _Reading()
        for phrase in self._phrases(self._tokens(statement)):
            if phrase is None:
                return Statement((), known=False)
            reading.take(phrase)
        return reading.statement()

    def marks(self, statement: str) -> frozenset[str]:
        """What a statement adds to the sum of its record; ``flag.unknown`` for one that is not known."""
        read = self.classify(statement)
        if not read.known:
            return frozenset({"flag.unknown"})
        return frozenset(mark for key, assertion in read.findings for mark in self._marks_of(key, assertion))

    def all_marks(self) -> tuple[str, ...]:
        """Every mark that there is, sorted."""
        both = (Assertion.ASSERTED, Assertion.HEDGED)
        found = {mark for key in self.findings for assertion in both for mark in self._marks_of(key, assertion)}
        return tuple(sorted(found | {"flag.unknown"}))

    def _marks_of(self, key: str, assertion: Assertion) -> Iterator[str]:
        finding = self.findings[key]
        if assertion not in (Assertion.ASSERTED, Assertion.HEDGED):
            return
        if finding.task == "flag":
            yield f"flag.{key}"
        elif finding.task:
            yield f"{finding.task}.{assertion}.{key}"
        if finding.class7:
            yield f"class.{assertion}.{finding.class7}"

    def _tokens(self, text: str) -> list[str]:
        tokens = _TOKEN.findall(_STOP.sub(" .", text))
        return " ".join(self._abbreviations.get(token, token) for token in tokens).split()

    def _phrases(self, tokens: Sequence[str]) -> Iterator[Phrase | None]:
        position = 0
        while position < len(tokens):
            for phrase in self._by_first_token.get(tokens[position], ()):
                if tuple(tokens[position : position + len(phrase.tokens)]) == phrase.tokens:
                    position += len(phrase.tokens)
                    yield phrase
                    break
            else:
                yield None
                return
