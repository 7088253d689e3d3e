"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and inputs beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("real models are kept outside the repository and are not here")
    return SHARED
