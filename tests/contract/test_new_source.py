"""``new-source``: what it writes passes the contract as it is, in the repository's shape and in a user's package."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from qoq_data.contract import CHECKS
from qoq_data.contract.template import entry_point_lines, new_source
from qoq_data.errors import UsageError
from qoq_data.source import Source
from qoq_data.sources import ENTRY_POINT_GROUP, source_of

NAME = "my-hospital"


def repository(folder: Path) -> Path:
    (folder / "qoq_data" / "sources").mkdir(parents=True)
    (folder / "qoq_data" / "sources" / "__init__.py").touch()
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """The source as written for this repository, importable here and in workers under a name of its own."""
    [path] = new_source(NAME, repository(tmp_path_factory.mktemp("repository")), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        patch.setenv("PYTHONPATH", str(path.parent), prepend=":")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        yield source_of(module)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("check", CHECKS)
def test_what_is_written_passes_the_contract(check: str, written: Source, workplace: Path) -> None:
    CHECKS[check](written, workplace)


def test_its_place_in_the_repository(tmp_path: Path) -> None:
    folder = repository(tmp_path)
    [path] = new_source(NAME, folder, None)
    assert path == folder / "qoq_data" / "sources" / "my_hospital.py"
    assert "My hospital" in path.read_text()
    assert "tarting" not in path.read_text()


def test_in_a_package_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = new_source(NAME, tmp_path, "lab_x.sources")
    names = ["lab_x/__init__.py", "lab_x/sources/__init__.py", "lab_x/sources/my_hospital.py"]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [*names, "tests/test_my_hospital_contract.py"]
    monkeypatch.syspath_prepend(str(tmp_path))
    written_test = _run(paths[-1])
    assert written_test.my_hospital.SPEC.name == NAME
    assert written_test.CHECKS is CHECKS
    for name in [name for name in sys.modules if name.split(".")[0] == "lab_x"]:
        del sys.modules[name]


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_package_in_src_is_written_there_and_its_files_stay(tmp_path: Path) -> None:
    package = tmp_path / "src" / "lab_y"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("VERSION = 1\n")
    paths = new_source(NAME, tmp_path, "lab_y")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "src/lab_y/my_hospital.py",
        "tests/test_my_hospital_contract.py",
    ]
    assert (package / "__init__.py").read_text() == "VERSION = 1\n"


def test_the_entry_point_is_told(tmp_path: Path) -> None:
    lines = entry_point_lines(NAME, "lab_z")
    assert tomllib.loads(lines)["project"]["entry-points"][ENTRY_POINT_GROUP] == {NAME: "lab_z.my_hospital"}
    told = new_source(NAME, tmp_path, "lab_z")[-1].read_text()
    assert all(line in told for line in lines.splitlines())


@pytest.mark.parametrize(
    "name", ["", "My-Hospital", "my_hospital", "my hospital", "-a", "a-", "9lives", "a--b", "../a"]
)
def test_a_name_of_another_form_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lower case with dashes"):
        new_source(name, repository(tmp_path), None)


@pytest.mark.parametrize(("name", "said"), [("ptb-xl", "already"), ("class", "word of Python")])
def test_a_name_that_is_taken_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        new_source(name, repository(tmp_path), None)


@pytest.mark.parametrize("package", ["", "my-lab", "9lab", "lab.", "lab.class", "../lab"])
def test_a_package_that_cannot_be_imported_is_refused(package: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="import name"):
        new_source(NAME, tmp_path, package)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkout"):
        new_source(NAME, tmp_path, None)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path) -> None:
    test = tmp_path / "tests" / "test_my_hospital_contract.py"
    test.parent.mkdir()
    test.write_text("mine\n")
    with pytest.raises(UsageError, match=r"tests/test_my_hospital_contract\.py is there already"):
        new_source(NAME, tmp_path, "lab_w")
    assert test.read_text() == "mine\n"
    assert not (tmp_path / "lab_w").exists()
