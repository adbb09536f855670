"""The skip ledger: a line for every item that is no row, with its reason. Nothing is dropped without one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from qoq_data.errors import Reason, RecordError, SkipLimitError


@dataclass(frozen=True, slots=True, order=True)
class Skip:
    """One line: which item of which source, why, and the path below the source's root that it is about."""

    source: str
    item: str
    reason: str
    path: str
    detail: str

    @classmethod
    def of(cls, source: str, item: str, error: RecordError) -> Skip:
        return cls(source, item, str(error.reason), error.path, error.detail)


def to_lines(skips: Iterable[Skip]) -> str:
    return "".join(json.dumps(asdict(skip), ensure_ascii=False) + "\n" for skip in sorted(skips))


def from_lines(text: str) -> list[Skip]:
    return [Skip(**json.loads(line)) for line in text.split("\n") if line]  # splitlines breaks at U+2028 too


def by_reason(skips: Iterable[Skip]) -> dict[str, int]:
    return dict(sorted(Counter(skip.reason for skip in skips).items()))


def check_skip_limit(source: str, skips: Iterable[Skip], items: int, limit: float) -> None:
    """Raise ``SkipLimitError`` when more of a source was skipped than its recipe allows.

    Items without any label count towards the ledger but not towards the limit: that the publisher did not label a
    record is no sign of a damaged tree.
    """
    counted = [skip for skip in skips if skip.reason != Reason.NO_LABEL]
    if items and len(counted) > limit * items:
        reasons = ", ".join(f"{count} {reason}" for reason, count in by_reason(counted).items())
        raise SkipLimitError(
            f"{source}: {len(counted)} of {items} items were skipped ({reasons}), more than the limit of {limit:g}. "
            "Finished shards are kept. 'qoq-data doctor' looks at the raw folder; "
            f"if this is what you have, raise skip_limit of {source} in the recipe."
        )
