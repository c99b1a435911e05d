"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs_as_they_come() -> Iterator[None]:
    """Forget after each test how a command that it ran in this process wanted its logs."""
    yield
    structlog.reset_defaults()
