"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout; users do not have it."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data beside the checkout ({SHARED.name}/ is absent)")
    return SHARED
