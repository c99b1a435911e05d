"""A connection that does not wait without end: TCP tells of a host that is gone, not of a server that stands still."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from typing import Any, Final, TypeVar

import psycopg
import structlog

log = structlog.get_logger()

TOLD_AFTER: Final = 1 / 6
"""Of the patience, after which the log tells that there is a wait."""

T = TypeVar("T")


class Session(psycopg.Connection[Any]):
    """Breaks off with ``psycopg.OperationalError`` where the server says nothing for ``patience`` seconds."""

    patience = math.inf

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:  # noqa: ANN401 handed through
        """See ``psycopg.Connection.wait``, through which every answer comes."""
        return super().wait(self._impatient(gen), *args, **options)

    def _impatient(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """Hand through what psycopg waits for, and how it goes: ten times a second, with 0 for silence."""
        heard, is_told = time.monotonic(), False
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                silence = 0.0 if ready else time.monotonic() - heard
                if ready:
                    heard = time.monotonic()
                if silence > self.patience:
                    message = f"nothing was heard for {self.patience:.0f} s"
                    raise psycopg.OperationalError(message)
                if silence > self.patience * TOLD_AFTER and not is_told:
                    is_told = True
                    log.warning("the database does not answer, and is waited for", patience=self.patience)
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return] # what the generator gives
