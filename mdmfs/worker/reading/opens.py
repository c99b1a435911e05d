"""Opens that the hospital did not see, because all was at hand: counted here, reported with the next renewal."""

from __future__ import annotations

from typing import Final

import structlog
from prometheus_client import Counter

from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import MAX_REPORTED, CachedOpens, OpensReport

OPENS: Final = Counter("mdmfs_opens", "Opens of files, by whether all was at hand or somebody was asked.", ["way"])
AT_HAND: Final = OPENS.labels("at hand")
ASKED: Final = OPENS.labels("asked")
MAX_COUNTED: Final = 100_000
"""Files whose opens wait to be reported; those of more are not, which the log tells."""

log = structlog.get_logger(__name__)


class Opens:
    """Counts opens by file. A report is made again, under its number, until the hospital has written it down."""

    def __init__(self, room: int = MAX_COUNTED) -> None:
        self._counts: dict[Guid, int] = {}
        self._room = room
        self._number = 0
        self._told: OpensReport | None = None
        self._missed = 0
        """Opens for which there was no room."""

    def note(self, guid: Guid) -> None:
        """Count an open that nothing was asked of the hospital for."""
        AT_HAND.inc()
        if guid in self._counts or len(self._counts) < self._room:
            self._counts[guid] = self._counts.get(guid, 0) + 1
        else:
            self._missed += 1

    def report(self) -> OpensReport | None:
        """Give what is to be told next, the same again until it is ``heard``; None where there is nothing."""
        if self._told is None and self._counts:
            if self._missed:
                log.warning("opens were not reported: too many waited for that", opens=self._missed)
                self._missed = 0
            self._number += 1
            told = list(self._counts)[:MAX_REPORTED]
            self._told = OpensReport(self._number, [CachedOpens(guid.octets, self._counts.pop(guid)) for guid in told])
        return self._told

    def set_apart(self) -> list[OpensReport]:
        """Give all that was not heard, and begin anew: whoever opens from now on is another."""
        apart = []
        while (report := self.report()) is not None:
            apart.append(report)
            self._told = None
        return apart

    def heard(self, report: OpensReport | None) -> None:
        """Know that the hospital has written a report down."""
        if report is not None and self._told is report:
            self._told = None
