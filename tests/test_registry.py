"""Sources are found by their file or an entry point; a second of the same name is refused."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import qoq_data.sources as sources
from qoq_data.errors import UnknownNameError, UsageError
from qoq_data.sources import busi, get_source, registry, source_of

FOLDER = Path(sources.__file__).parent


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    registry.cache_clear()
    yield
    registry.cache_clear()


class Entry:
    """An installed package's entry point, as far as the registry looks at it."""

    def __init__(self, name: str, module: ModuleType) -> None:
        self.name = name
        self.module = module

    def load(self) -> ModuleType:
        return self.module


def module_like_busi(name: str, **changes: Any) -> ModuleType:
    module = ModuleType(f"another_package.{name}")
    module.__file__ = f"/nowhere/{name}.py"
    module.__dict__.update(SPEC=dataclasses.replace(busi.SPEC, name=name), scan=busi.scan, synthesize=busi.synthesize)
    module.__dict__.update(changes)
    return module


def install(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    entries = [Entry(module.__name__, module) for module in modules]
    monkeypatch.setattr(sources, "entry_points", lambda *, group: entries if group == "qoq_data.sources" else [])


def test_every_file_of_the_folder_is_a_source_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    files = {path for path in FOLDER.glob("*.py") if not path.name.startswith("_")}
    assert {source.module_file for source in registry().values()} == files
    assert all(source.name == name for name, source in registry().items())


def test_sources_are_sorted_and_cannot_be_changed_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, module_like_busi("aaa"))
    assert list(registry()) == sorted(registry())
    assert next(iter(registry())) == "aaa"
    with pytest.raises(TypeError):
        registry()["x"] = get_source("busi")  # type: ignore[index]


def test_a_source_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, module_like_busi("elsewhere"))
    assert get_source("elsewhere").scan is busi.scan


def test_two_sources_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, module_like_busi("busi"))
    with pytest.raises(UsageError, match="Two installed sources are named 'busi'"):
        registry()


def test_the_nearest_name_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(UnknownNameError, match=r"There is no source 'bsui'\. Did you mean 'busi'\?"):
        get_source("bsui")
    with pytest.raises(UnknownNameError, match="There are: aptos-2019, "):
        get_source("qqqqqqqq")


@pytest.mark.parametrize("name", ["", "../busi", "busi.py", "_ptb_xl_tree", "__init__", "Busi"])
def test_names_of_files_and_paths_are_no_sources(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(UnknownNameError):
        get_source(name)


def test_a_module_that_lacks_something_is_told_what() -> None:
    module = module_like_busi("short")
    del module.__dict__["scan"], module.__dict__["synthesize"]
    with pytest.raises(UsageError, match=r"another_package\.short has no scan, synthesize\."):
        source_of(module)
    with pytest.raises(UsageError, match="is no SourceSpec"):
        source_of(module_like_busi("odd", SPEC={"name": "odd"}))


def test_every_source_goes_to_a_worker_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    for source in registry().values():
        assert pickle.loads(pickle.dumps(source)).spec == source.spec  # noqa: S301 - our own bytes


def test_an_installed_package_needs_its_entry_point_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_source.py").write_text(
        "import dataclasses\nfrom qoq_data.sources.busi import SPEC as _SPEC, scan, synthesize\n"
        "SPEC = dataclasses.replace(_SPEC, name='theirs')\n",
        encoding="utf-8",
    )
    installed = tmp_path / "their_package-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n", encoding="utf-8")
    (installed / "entry_points.txt").write_text("[qoq_data.sources]\ntheirs = their_source\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert get_source("theirs").module_file == tmp_path / "their_source.py"
