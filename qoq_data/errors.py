"""Every error the package raises, drawn as one tree.

    QoQError
    ├── UsageError              what was asked for cannot be done as asked (exit 2)
    │   ├── UnknownNameError    no source, recipe, task or record of that name
    │   ├── RecipeError         the recipe's problems, all of them at once
    │   └── MissingExtraError   an optional package is not installed
    ├── SourceError             the raw tree is not what its publisher ships; stops the build
    │   ├── LayoutError         a file or folder is absent, or the tree is another source's
    │   └── TableError          a table lacks a column, is not text, or holds a bad cell
    ├── RecordError             one item cannot be right: a line in the skip ledger, never a row
    ├── BuildError              the build as a whole cannot go on
    │   ├── SkipLimitError      more items were skipped than the recipe allows
    │   ├── SplitError          a group would stand on two sides
    │   ├── CorpusLockedError   another build is writing into the same folder
    │   └── StorageError        no space, no permission, or the store failed
    └── CorpusError             a built corpus is unfinished, or does not agree with its manifest

Messages say what failed, where (source, path relative to its root, record), why, and what to do next. They never
hold a cell's content, a token or an absolute home path.
"""

from __future__ import annotations

from enum import StrEnum


class QoQError(Exception):
    """Base of every error of this package; its text is one clean paragraph for a person."""

    exit_code = 1


class UsageError(QoQError):
    exit_code = 2


class UnknownNameError(UsageError):
    pass


class RecipeError(UsageError):
    """A recipe's problems, all at once."""

    def __init__(self, where: str, problems: list[str]) -> None:
        self.where = where
        self.problems = problems
        super().__init__(f"{where} has {len(problems)} problem(s):\n" + "\n".join(f"  - {p}" for p in problems))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[str, list[str]]]:
        return type(self), (self.where, self.problems)


class MissingExtraError(UsageError):
    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.parts = (package, extra, purpose)
        super().__init__(f"{purpose} needs {package}, which is not installed. Type: pip install 'qoq-med[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        return type(self), self.parts


class SourceError(QoQError):
    pass


class LayoutError(SourceError):
    pass


class TableError(SourceError):
    pass


class Reason(StrEnum):
    """Why an item is a line in the skip ledger and not a row: a closed list."""

    FILE_MISSING = "file_missing"
    FILE_TRUNCATED = "file_truncated"
    FILE_UNREADABLE = "file_unreadable"
    PATH_OUTSIDE_ROOT = "path_outside_root"
    HEADER_INVALID = "header_invalid"
    HEADER_MISMATCH = "header_mismatch"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    FORMAT_UNSUPPORTED = "format_unsupported"
    MULTI_SEGMENT = "multi_segment"
    UNEQUAL_SAMPLING = "unequal_sampling"
    OVER_BUDGET = "over_budget"
    UNIT_UNKNOWN = "unit_unknown"
    LEAD_MISSING = "lead_missing"
    LEAD_DUPLICATED = "lead_duplicated"
    SIGNAL_ALL_MISSING = "signal_all_missing"
    SAMPLES_OUT_OF_RANGE = "samples_out_of_range"
    SIGNAL_TOO_SHORT = "signal_too_short"
    IMAGE_FORMAT_NOT_ALLOWED = "image_format_not_allowed"
    IMAGE_UNDECODABLE = "image_undecodable"
    MASK_MISSING = "mask_missing"
    MASK_SHAPE_MISMATCH = "mask_shape_mismatch"
    MASK_CONFLICT = "mask_conflict"
    NO_LABEL = "no_label"
    LABEL_CONFLICT = "label_conflict"
    WITHDRAWN = "withdrawn"
    READER_CRASHED = "reader_crashed"


class RecordError(QoQError):
    """One item cannot be right. ``detail`` names numbers and file names of the publisher's layout, never content."""

    def __init__(self, reason: Reason, detail: str, path: str = "") -> None:
        self.reason = reason
        self.detail = detail
        self.path = path
        super().__init__(f"{path + ': ' if path else ''}{detail} ({reason})")

    def __reduce__(self) -> tuple[type[RecordError], tuple[Reason, str, str]]:
        return type(self), (self.reason, self.detail, self.path)


class BuildError(QoQError):
    pass


class SkipLimitError(BuildError):
    pass


class SplitError(BuildError):
    pass


class CorpusLockedError(BuildError):
    pass


class StorageError(BuildError):
    pass


class CorpusError(QoQError):
    pass
