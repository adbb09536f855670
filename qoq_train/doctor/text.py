"""What the doctor found, as a table and as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qoq_train.doctor.phases import GIB

if TYPE_CHECKING:
    from qoq_train.doctor.diagnosis import Diagnosis


def memory_table(found: Diagnosis) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of memory by part and phase, in GiB, with the sum and what may be taken; no rows for none."""
    if not found.phases:
        return [], []
    parts = list(dict.fromkeys(name for phase in found.phases for name, _ in phase.parts))
    sizes = [dict(phase.parts) for phase in found.phases]
    rows = [[part, *(_gib(of.get(part)) for of in sizes)] for part in parts]
    rows.append(["all", *(_gib(phase.bytes) for phase in found.phases)])
    rows.append(["may be taken", *(_gib(found.usable) for _ in found.phases)])
    return ["part", *(phase.name for phase in found.phases)], rows


def diagnosis_json(found: Diagnosis) -> dict[str, Any]:
    """The whole as plain values, memory in bytes."""
    return {
        "healthy": found.is_healthy,
        "findings": [asdict(one) for one in found.findings],
        "memory": {
            "usable_bytes": found.usable,
            "phases": {phase.name: dict(phase.parts) | {"all": phase.bytes} for phase in found.phases},
        },
    }


def _gib(size: int | None) -> str:
    return "" if size is None else f"{size / GIB:.2f}"
