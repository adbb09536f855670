"""The README says of every source what its SPEC says."""

from __future__ import annotations

from pathlib import Path

from qoq_data.licence import strictest
from qoq_data.source import SourceSpec
from qoq_data.sources import registry

README = Path(__file__).parent.parent / "README.md"


def line_of(spec: SourceSpec) -> str:
    licence, redistribution = strictest(spec.licences.values())
    items = spec.versions[0].items
    cells = (
        f"[`{spec.name}`](data_cards/{spec.name}.md)", spec.domain, spec.modality, spec.access, licence, redistribution,
        "" if items is None else f"{items:,}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def test_the_table_of_sources_is_that_of_the_registry() -> None:
    table = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("| [`")]
    assert sorted(table) == sorted(line_of(source.spec) for source in registry().values())
