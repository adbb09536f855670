"""Version of the code that renders: a digest of the files that decide a shard's bytes, and of their libraries."""

from __future__ import annotations

import ast
import hashlib
import re
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
_DATA_NAME = re.compile(r"[a-z0-9_]+\.[a-z]+")
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


@cache
def files_of(module_file: Path) -> tuple[Path, ...]:
    """A source's file, the files beside it that it imports, and theirs, and the data files that any of them names."""
    folder = module_file.parent
    files, waiting = {module_file}, [module_file]
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop().read_bytes())):
            named = None
            if isinstance(node, ast.ImportFrom) and node.module:
                named = folder / f"{node.module.rpartition('.')[2]}.py"
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _DATA_NAME.fullmatch(node.value):
                named = folder / "data" / node.value
            if named is not None and named not in files and named.is_file():
                files.add(named)
                waiting += [named] if named.suffix == ".py" else []
    return tuple(sorted(files))


def code_version(source: Source) -> str:
    """Hex digest that changes when anything changes that could change a byte of the source's shards."""
    digest = hashlib.sha256(_shared_digest().encode())
    for path in files_of(source.module_file):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
