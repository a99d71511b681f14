"""Fixtures that many tests share: where the project is, and the real data beside it, if any."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The project's root folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data and tokenizers beside the checkout; skips where there is none."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data" / "ko" / "train.csv").is_file():
        pytest.skip(f"no real data at {folder}: this test measures on it and nothing stands in")
    return folder
