"""The contract of every source in the registry: a new one is tested without an edit here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qoq_data.contract import CHECKS
from qoq_data.sources import registry


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A source's folder, the same for all its checks, which share the synthetic tree and the corpora in it."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
        return folders[name]

    return folder


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", registry())
def test_contract(name: str, check: str, workplace: Callable[[str], Path]) -> None:
    CHECKS[check](registry()[name], workplace(name))
