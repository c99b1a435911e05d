"""Settling: what becomes of new keys that were noted, and whose rotation was broken off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys import renewals
from mdmfs.hospital.ledger.records import OutboxItem
from mdmfs.model.errors import MdmfsError

log = structlog.get_logger()

LATE: Final = 60.0
"""Seconds in which a keystore may yet take new keys that were on their way when a rotation was broken off."""


class Settling:
    """The notes of a hospital, and since when it has looked at them."""

    def __init__(
        self, hospital: Hospital, settle: Callable[[int, Sequence[renewals.Renewal], bool], Awaitable[bool]]
    ) -> None:
        """Settle a note with ``settle``, as by ``Task.settle``: its number, the keys, whether that is certain."""
        self._hospital = hospital
        self._settle = settle
        self._since: dict[int, float] = {}
        """By the number of a note: when it was looked at first, by trio's clock."""

    async def go_on(self) -> bool:
        """Look at each note; False where keystores have yet to say what they have, or may take new keys yet."""
        is_settled = True
        for item in self._hospital.store.read(renewals.noted):
            try:
                is_settled &= await self._go_on_with(item)
            except MdmfsError as error:
                log.warning("a rotation that was broken off is not settled yet", reason=error.told_here)
                is_settled = False
        return is_settled

    async def _go_on_with(self, item: OutboxItem) -> bool:
        note, new, now = item.number, renewals.read_note(self._hospital, item), trio.current_time()
        is_certain = now >= self._since.setdefault(note, now) + LATE
        if not (await self._settle(note, new, is_certain) or is_certain):
            return False
        self._since.pop(note)
        log.warning("a rotation that was broken off is settled", files=len(new))
        return True
