"""Fixtures that every room's tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real datasets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("WEFT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real datasets are not at {folder}; set WEFT_SHARED_DATA to their folder")
    return folder
