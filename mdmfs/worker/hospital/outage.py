"""A hospital that is away, as somebody sees it who asks for one file: asked again, until there is no patience left."""

from __future__ import annotations

from typing import Final

import trio

from mdmfs.model.errors import MdmfsError, PeerTimedOutError, PeerUnreachableError
from mdmfs.model.pauses import pause_after

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0
"""Seconds before the hospital is asked again, doubled each time; the first time it is asked at once."""

OUTAGES: Final = (PeerUnreachableError, PeerTimedOutError)
"""What a hospital that is started again looks like."""


class Outage:
    """One outage, from the first question that was not answered."""

    def __init__(self) -> None:
        """Nothing has gone wrong yet."""
        self._questions = 0
        self._begun = 0.0

    async def outlast(self, error: MdmfsError, patience: float) -> None:
        """Wait before the hospital is asked again; raises the error once that has lasted ``patience`` seconds."""
        now = trio.current_time()
        if not self._questions:
            self._begun = now
        if now >= self._begun + patience:
            raise error
        await trio.sleep(pause_after(self._questions, FIRST_PAUSE, LONGEST_PAUSE) if self._questions else 0)
        self._questions += 1
