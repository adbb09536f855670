"""What several rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of real, openly licensed files; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("QOQ_REALDATA", REPOSITORY.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip("real files are absent: set QOQ_REALDATA to their folder")
    return folder
