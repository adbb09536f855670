"""Synthetic trees for the tests of the pipeline: written once, copied by whoever changes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.corpus.building import MODULES, source

PATIENTS = {"ptb-xl": 12, "busi": 12, "mimic-ecg": 6}


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The synthetic tree of a source, to be read only. PTB-XL is left with its 100 Hz records, which are small."""
    made: dict[str, Path] = {}

    def tree(name: str) -> Path:
        if name not in made:
            assert name in MODULES
            folder = tmp_path_factory.mktemp(name)
            source(name).synthesize(folder, 3, PATIENTS[name])
            shutil.rmtree(folder / "records500", ignore_errors=True)
            made[name] = folder
        return made[name]

    return tree


@pytest.fixture
def copied(pristine: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a source's synthetic tree that a test may spoil."""

    def tree(name: str) -> Path:
        return Path(shutil.copytree(pristine(name), tmp_path / f"raw-{name}"))

    return tree
