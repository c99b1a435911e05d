"""What holds for every test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from structlog.typing import EventDict, WrappedLogger


class _Noting(logging.Handler):
    """Notes what the logs tell of failures that nobody foresaw: the loops of services go on after them."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._faults = faults

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or ": incident " in record.getMessage():
            self._faults.append(self.format(record))

    def event(self, _logger: WrappedLogger, level: str, event: EventDict) -> EventDict:
        if level in {"error", "exception"} and ("incident" in event or event.get("exc_info")):
            self._faults.append(repr(event))
        return event


@pytest.fixture(autouse=True)
def faults() -> Iterator[list[str]]:
    """Fail a test in which something failed that nobody foresaw; one that means it takes these, and clears them."""
    noted: list[str] = []
    noting = _Noting(noted)
    logging.getLogger("mdmfs").addHandler(noting)
    structlog.configure(processors=[noting.event, *structlog.get_config()["processors"]])
    yield noted
    structlog.reset_defaults()  # also what a command has said that ran in this process
    logging.getLogger("mdmfs").removeHandler(noting)
    assert not noted, "\n".join(noted)
