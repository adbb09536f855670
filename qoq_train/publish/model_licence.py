"""Under which terms a base model came, read from its card, and what these let one pass on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

import yaml

from qoq_data.licence import Redistribution

if TYPE_CHECKING:
    from collections.abc import Mapping

CARD: Final = "README.md"
CARD_BYTES: Final = 1 << 20

_PERMISSIVE: Final = (
    "afl-3.0", "apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc-by-3.0", "cc-by-4.0", "cc0-1.0",
    "isc", "mit", "unlicense", "zlib",
)  # fmt: skip
_SAME_TERMS: Final = (
    "agpl-3.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "mpl-2.0",
)  # fmt: skip
MODEL_TERMS: Final[Mapping[str, Redistribution]] = MappingProxyType(
    dict.fromkeys(_PERMISSIVE, Redistribution.OPEN) | dict.fromkeys(_SAME_TERMS, Redistribution.SAME_TERMS)
)
"""What may be passed on of a model, by the Hub's names of licences. One that is not here has terms of its own, which
no program reads: they count as unknown."""


class ModelCards(Protocol):
    """Where cards of hosted models are read: ``huggingface_hub.HfApi`` is one."""

    def model_info(self, repo_id: str) -> Any:
        """The model's facts, its card's header among them as ``card_data``."""


@dataclass(frozen=True, slots=True)
class ModelLicence:
    """The licence of a model by the Hub's name of it, None where none was found, and where that was looked for."""

    identifier: str | None
    where: str

    @property
    def redistribution(self) -> Redistribution | None:
        """What may be passed on; None where it is not known."""
        return None if self.identifier is None else MODEL_TERMS.get(self.identifier)

    def __str__(self) -> str:
        return f"{self.identifier or 'no licence'} ({self.where})"


def folder_licence(folder: Path) -> ModelLicence:
    """The licence that the card of a model's folder names."""
    card = folder / CARD
    where = f"{CARD} of {folder.name}"
    if not card.is_file():
        return ModelLicence(None, f"{folder.name} has no {CARD}")
    with card.open("rb") as file:
        text = file.read(CARD_BYTES).decode("utf-8", errors="replace")
    return ModelLicence(_named(_header(text)), where)


def hosted_licence(name: str, cards: ModelCards) -> ModelLicence:
    """The licence that the card of a hosted model names; none where the host cannot be asked."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    unanswered: tuple[type[Exception], ...] = (HfHubHTTPError, HFValidationError, OSError, *transport_errors())
    try:
        header = cards.model_info(name).card_data
    except unanswered as error:
        return ModelLicence(None, f"the Hub could not be asked about {name} ({type(error).__name__})")
    return ModelLicence(_named(header), f"card of {name} on the Hub")


def model_licence(path: str, cards: ModelCards | None) -> ModelLicence:
    """The licence of a model by folder or hosted name; ``cards`` None asks no host."""
    if Path(path).is_dir():
        return folder_licence(Path(path))
    if cards is None:
        return ModelLicence(None, f"{path} is no folder here, and the Hub was not asked")
    return hosted_licence(path, cards)


def _header(text: str) -> Any:
    """The YAML header of a card, or None."""
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    try:
        end = next(number for number, line in enumerate(lines[1:], 1) if line.strip() == "---")
        return yaml.safe_load("\n".join(lines[1:end]))
    except (StopIteration, yaml.YAMLError, ValueError, RecursionError):
        return None


def _named(header: Any) -> str | None:
    """The licence of a header: one name, in lower case; several, or none, are none."""
    get = getattr(header, "get", None)
    found = get("license") if callable(get) else None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, str) or not found.strip():
        return None
    name = found.strip().lower()
    special = get("license_name") if callable(get) else None
    return f"other: {special}" if name == "other" and isinstance(special, str) else name


def transport_errors() -> tuple[type[Exception], ...]:
    """What the Hub's client lets through from the library below it, which has changed with its versions."""
    from huggingface_hub import errors  # noqa: F401 - it loads that library

    names = (("httpx2", "HTTPError"), ("httpx", "HTTPError"), ("requests", "RequestException"))
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)
