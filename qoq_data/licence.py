"""Licences as data, and the licence of a row: the strictest of its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Access(StrEnum):
    """What a person has to do before the publisher hands the files out."""

    OPEN = "open"
    REGISTERED = "registered"
    CREDENTIALED = "credentialed"
    OWN_AGREEMENT = "own agreement"


class Redistribution(StrEnum):
    """What may be passed on of a row, from nothing to everything."""

    NONE = "none"
    IDS = "ids"
    SAME_TERMS = "same-terms"
    OPEN = "open"


_STRICTEST_FIRST = (Redistribution.NONE, Redistribution.IDS, Redistribution.SAME_TERMS, Redistribution.OPEN)


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence as its text says.

    ``identifier`` is the SPDX identifier where there is one, else ``LicenseRef-…`` as SPDX asks.
    """

    identifier: str
    title: str
    url: str
    redistribution: Redistribution


CC_BY_3 = Licence(
    "CC-BY-3.0",
    "Creative Commons Attribution 3.0",
    "https://creativecommons.org/licenses/by/3.0/",
    Redistribution.OPEN,
)
CC_BY_4 = Licence(
    "CC-BY-4.0",
    "Creative Commons Attribution 4.0",
    "https://creativecommons.org/licenses/by/4.0/",
    Redistribution.OPEN,
)
CC_BY_NC_4 = Licence(
    "CC-BY-NC-4.0",
    "Creative Commons Attribution-NonCommercial 4.0",
    "https://creativecommons.org/licenses/by-nc/4.0/",
    Redistribution.SAME_TERMS,
)
CC_BY_NC_SA_4 = Licence(
    "CC-BY-NC-SA-4.0",
    "Creative Commons Attribution-NonCommercial-ShareAlike 4.0",
    "https://creativecommons.org/licenses/by-nc-sa/4.0/",
    Redistribution.SAME_TERMS,
)
CC0_1 = Licence(
    "CC0-1.0", "Creative Commons Zero 1.0", "https://creativecommons.org/publicdomain/zero/1.0/", Redistribution.OPEN
)
ODBL_1 = Licence(
    "ODbL-1.0",
    "Open Database License 1.0",
    "https://opendatacommons.org/licenses/odbl/1-0/",
    Redistribution.SAME_TERMS,
)
PHYSIONET_CREDENTIALED = Licence(
    "LicenseRef-PhysioNet-Credentialed-1.5.0",
    "PhysioNet Credentialed Health Data License 1.5.0",
    "https://physionet.org/about/licenses/physionet-credentialed-health-data-license-150/",
    Redistribution.NONE,
)
PHYSIONET_RESTRICTED = Licence(
    "LicenseRef-PhysioNet-Restricted-1.5.0",
    "PhysioNet Restricted Health Data License 1.5.0",
    "https://physionet.org/about/licenses/physionet-restricted-health-data-license-150/",
    Redistribution.NONE,
)


def strictest(licences: Iterable[Licence]) -> tuple[str, Redistribution]:
    """Licence expression and redistribution of something made from several inputs.

    Every licence of the inputs goes on holding, so the expression names each once, joined by SPDX's ``AND``, the
    strictest first and then by name. Redistribution is the strictest of all. Raises ``ValueError`` for no input:
    a row that comes from nothing has no licence.
    """
    distinct = sorted(set(licences), key=lambda one: (_STRICTEST_FIRST.index(one.redistribution), one.identifier))
    if not distinct:
        raise ValueError("a row has at least one input, and so at least one licence")
    return " AND ".join(dict.fromkeys(one.identifier for one in distinct)), distinct[0].redistribution
