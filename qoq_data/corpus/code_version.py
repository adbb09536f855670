"""Version of the code that renders: a digest of the files that decide a shard's bytes, and of their libraries."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from qoq_data.source import Source

_PACKAGE = Path(__file__).resolve().parent.parent
_RENDERING = (
    "record.py",
    "licence.py",
    "formats/*.py",
    "clinical/*.py",
    "corpus/draws.py",
    "corpus/inspect.py",
    "corpus/questions.py",
    "corpus/render*.py",
    "corpus/shard*.py",
)
_LIBRARIES = ("numpy", "pillow", "polars", "pyarrow", "scipy", "wfdb")


@cache
def _shared_digest() -> str:
    digest = hashlib.sha256()
    for pattern in _RENDERING:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for library in _LIBRARIES:
        digest.update(f"{library} {version(library)}\0".encode())
    return digest.hexdigest()


def code_version(source: Source) -> str:
    """Hex digest that changes when anything changes that could change a byte of the source's shards."""
    digest = hashlib.sha256(_shared_digest().encode())
    folder, stem = source.module_file.parent, source.module_file.stem
    own = {source.module_file, *folder.glob(f"_{stem}*.py"), *(folder / "data").glob(f"{stem}*")}
    for path in sorted(own):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
