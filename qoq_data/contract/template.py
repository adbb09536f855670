"""A source file to begin with: ``starting_source.py`` under the name asked for, which passes the contract as it is."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from qoq_data.errors import UsageError
from qoq_data.formats.new_file import storage_error
from qoq_data.sources import ENTRY_POINT_GROUP, registry

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PACKAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_START = Path(__file__).with_name("starting_source.py")

_TEST = '''"""The contract of the source {name}; its synthetic tree and corpora are made once for all checks.

``qoq-data`` finds the source by these lines of pyproject.toml:

{entry_point}"""

from pathlib import Path

import pytest
from qoq_data.contract import CHECKS
from qoq_data.sources import source_of

from {package} import {module}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("{name}")


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check: str, workplace: Path) -> None:
    CHECKS[check](source_of({module}), workplace)
'''


def new_source(name: str, folder: Path, package: str | None) -> list[Path]:
    """Write a source called ``name`` to fill in, and return the files written.

    Without a ``package``, ``folder`` is this repository: the file goes where its sources stand, and the tests of the
    contract find it there. With one, ``folder`` is the root of the user's own package: the module goes into it, a test
    of the contract beside it into ``tests``; ``entry_point_lines`` says what its pyproject.toml needs. Nothing is
    written when any of the files is there already. Raises ``UsageError``, and ``StorageError`` for a failed write.
    """
    module = _module_name(name)
    text = _source_text(name)
    if package is None:
        sources = folder / "qoq_data" / "sources"
        if not (sources / "__init__.py").is_file():
            raise UsageError(
                "This folder is no checkout of qoq-med. Run it at the checkout's root, or give --package for your own."
            )
        files = {sources / f"{module}.py": text}
    else:
        files = _package_files(name, module, folder, package, text)
    there = [path for path in files if path.exists()]
    if there:
        raise UsageError(f"{there[0].relative_to(folder)} is there already: choose another name, or move it away.")
    for path, content in files.items():
        _write(path, content, folder)
    return list(files)


def entry_point_lines(name: str, package: str) -> str:
    """The lines of a pyproject.toml by which ``qoq-data`` finds a source of the user's own package."""
    return f'[project.entry-points."{ENTRY_POINT_GROUP}"]\n{name} = "{package}.{_module_name(name)}"\n'


def _module_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"A source's name is lower case with dashes, like ptb-xl: {name!r} is not.")
    if name in registry():
        raise UsageError(f"There is a source {name!r} already: choose another name.")
    module = name.replace("-", "_")
    if keyword.iskeyword(module):
        raise UsageError(f"{name!r} is a word of Python itself: choose another name.")
    return module


def _source_text(name: str) -> str:
    text = _START.read_text(encoding="utf-8").replace("starting-source", name)
    return text.replace("Starting source", name.replace("-", " ").capitalize())


def _package_files(name: str, module: str, folder: Path, package: str, text: str) -> dict[Path, str]:
    if not _PACKAGE.fullmatch(package) or any(keyword.iskeyword(part) for part in package.split(".")):
        raise UsageError(f"{package!r} is no import name of a package, like my_sources or my_lab.sources.")
    parts = package.split(".")
    root = folder / "src" if (folder / "src" / parts[0]).is_dir() else folder
    files: dict[Path, str] = {}
    for depth in range(1, len(parts) + 1):
        begin = root.joinpath(*parts[:depth]) / "__init__.py"
        if not begin.exists():
            files[begin] = ""
    files[root.joinpath(*parts) / f"{module}.py"] = text
    lines = "".join(f"    {line}\n" for line in entry_point_lines(name, package).splitlines())
    test = _TEST.format(name=name, module=module, package=package, entry_point=lines)
    files[folder / "tests" / f"test_{module}_contract.py"] = test
    return files


def _write(path: Path, content: str, folder: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(content)
    except OSError as error:
        raise storage_error(error, str(path.relative_to(folder))) from error
