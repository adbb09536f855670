"""The texts of a question's choices, and the forms under which an answer may name them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Vocabulary", "fold", "plain_text", "vocabulary_of"]

_JOINT: Final = "\x1f"
_TEX = re.compile(
    r"\\(?P<literal>[{}%&_#$])"
    r"|(?P<degree>\^?\s?\{?\\(?:circ|degree)(?![A-Za-z])\}?)"
    r"|(?P<newline>\\\\)"
    r"|(?P<blank>\\[ ,;:!>]|\\q?quad(?![A-Za-z])|~)"
    r"|\\(?:text|math)(?:bf|it|rm|sf|tt|normal|up|md|sc)?(?![A-Za-z])\s?"
    r"|\\(?:mbox|hbox|emph|underline|operatorname|boxed|displaystyle)(?![A-Za-z])\s?"
    r"|\\[()\[\]]|[{}$]"
)
_TEX_MARK = re.compile(r"[\\{}$~]")
_SEPARATOR = re.compile(r" ?([,;&\n]|(?<![\w-])and(?![\w-])) ?")
_NOTHING: Final = frozenset({"", "none", "none of the above", "none of these"})
_EDGES: Final = " .,:;!?*`'\"•-()[]{}"
_POSITION = re.compile(r"(?:(?:option|choice|answer)[ :]{0,2})?[(\[]?(?:([a-z])|([0-9]{1,4}))[)\]]?[.:]?")
_PREFIXED = re.compile(r"(?:(?:option|choice|answer) )?[(\[]?(?:([a-z])|([0-9]{1,4})) ?[)\].:-]{1,2} ?(.+)", re.DOTALL)
_BULLET = re.compile(r"[-•*] ")
_ONE_LETTER: Final = re.compile(r"(?<!\w)[A-Z](?!\w)")  # a small one is most often an article
_INTEGER: Final = re.compile(r"(?<![\w.])[0-9]{1,4}(?![\w.])")
_FOLDS: Final = str.maketrans(
    dict.fromkeys("‐‑‒–—−", "-")
    | dict.fromkeys("‘’‛′", "'")
    | dict.fromkeys("“”", '"')
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff")
)


def fold(text: str) -> str:
    """The text without differences of case, full-width forms, dashes, quotes and runs of blanks on a line."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_FOLDS))
    text = text.casefold()
    if "\n" not in text:
        return " ".join(text.split())
    return "\n".join(line for line in (" ".join(part.split()) for part in text.split("\n")) if line)


def plain_text(content: str) -> str:
    """Boxed content without its TeX, folded."""
    if _TEX_MARK.search(content) is not None:
        content = _TEX.sub(_tex_as_text, content)
    return fold(content)


def _tex_as_text(match: re.Match[str]) -> str:
    if match.lastgroup is None:
        return ""
    return match["literal"] or {"degree": "°", "newline": "\n", "blank": " "}[match.lastgroup]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A question's choices and the forms under which each is known; one of several pieces is joined by ``_JOINT``."""

    choices: tuple[str, ...]
    by_form: Mapping[str, int]
    by_stripped_form: Mapping[str, int]
    letters: Mapping[str, int]
    numbers: Mapping[str, int]
    most_pieces: int
    more_characters: int

    def read(self, plain: str) -> tuple[set[int], int]:
        """Positions of the choices that a ``plain_text`` names, and the number of distinct other texts among them."""
        parts = _SEPARATOR.split(plain)  # pieces, with the separators between them
        chosen: set[int] = set()
        extras: set[str] = set()
        start = 0
        while start < len(parts):
            for end in range(min(start + 2 * self.most_pieces - 1, len(parts)), start, -2):
                form = parts[start] if end == start + 1 else _JOINT.join(parts[start:end])
                position = self.by_form.get(form)
                if position is None:
                    position = self._find(form)
                if position is not None:
                    chosen.add(position)
                    start = end + 1
                    break
            else:
                if parts[start].strip(_EDGES):
                    extras.add(parts[start])
                start += 2
        return chosen, len(extras)

    @staticmethod
    def is_nothing(plain: str) -> bool:
        """Whether the text says that none of the choices is true, by words or by an empty list."""
        return plain.strip(_EDGES) in _NOTHING

    def _find(self, form: str) -> int | None:
        position = self._find_text(form)
        if position is not None:
            return position
        form = _BULLET.sub("", form).strip(" .*`'\"")
        bare = _POSITION.fullmatch(form)
        if bare is not None:
            return self.letters.get(bare[1]) if bare[1] else self.numbers.get(str(int(bare[2])))
        position, prefixed = self._find_text(form), _PREFIXED.fullmatch(form)
        if position is not None or prefixed is None:
            return position
        position = self._find_text(prefixed[3])
        # '1.' may merely number a list; a letter that names another choice than the text does is no answer.
        agrees = not prefixed[1] or position == ord(prefixed[1]) - ord("a")
        return position if agrees else None

    def _find_text(self, form: str) -> int | None:
        position = self.by_form.get(form)
        return self.by_stripped_form.get(form.strip(_EDGES)) if position is None else position


@lru_cache(maxsize=4096)
def vocabulary_of(choices: tuple[str, ...]) -> Vocabulary:
    """The vocabulary of a question; raises ``ValueError`` for no choices, an empty one, or two that read alike."""
    if not choices:
        raise ValueError("a question about choices has none")
    by_form: dict[str, int] = {}
    stripped: dict[str, int] = {}
    most_pieces = 1
    texts = [plain_text(choice).replace("\n", " ") for choice in choices]
    for i, text in enumerate(texts):
        parts = _SEPARATOR.split(text)
        form = _JOINT.join(parts)
        if not text or form in by_form:
            raise ValueError(f"choice {i + 1} is empty or reads like another one")
        most_pieces = max(most_pieces, len(parts) // 2 + 1)
        by_form[form] = i
        stripped.setdefault(form.strip(_EDGES), i)
    # 'HER2-' must not be read as 'HER2': where marks at the edges tell choices apart, they are left on.
    if len(stripped) < len(choices) or "" in stripped:
        stripped = {}
    letters, numbers = _positions(choices)
    more_characters = 2 * sum(map(len, choices))
    return Vocabulary(choices, by_form, stripped, letters, numbers, most_pieces, more_characters)


def _positions(choices: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """What can stand for a position: 'B' not where another choice is 'Type B', no number where one is 'Grade 2'.

    A number inside a choice makes them all doubtful, since the others are likely counted in it too.
    """
    letters = {chr(ord("a") + i): i for i in range(min(len(choices), 26))}
    numbers = {str(i + 1): i for i in range(len(choices))}
    for i, choice in enumerate(choices):
        for letter in _ONE_LETTER.findall(choice):
            if letters.get(letter.lower(), i) != i:
                del letters[letter.lower()]
    held = ((i, str(int(digits))) for i, choice in enumerate(choices) for digits in _INTEGER.findall(choice))
    return letters, {} if any(numbers.get(number, i) != i for i, number in held) else numbers
