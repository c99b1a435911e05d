"""The few associations that one PACS is asked to bear: lent to one task at a time, kept for the next, then released."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from typing import Final

import trio

from mdmfs.hospital.dicom.connection import Connection, open_connection
from mdmfs.hospital.dicom.negotiation import MAX_STORAGE_CONTEXTS, Offer
from mdmfs.hospital.dicom.pacs import PacsAddress, Politeness


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    connection: Connection
    since: float


class Pool:
    """At most ``politeness.max_associations`` associations at once, kept ones included; takers are served in turn.

    ``take`` and ``give_back`` come in pairs, whatever happens between them; ``give_back`` does not wait, so that it
    works in a task that is being cancelled.
    """

    def __init__(self, address: PacsAddress, politeness: Politeness) -> None:
        self.address: Final = address
        self.politeness: Final = politeness
        self._places: Final = trio.Semaphore(politeness.max_associations)
        self._kept: Final[collections.deque[_Kept]] = collections.deque()  # never more than there are free places
        self._recorded: Final[dict[str, tuple[str, ...]]] = {}  # pairs asked for before, the latest last

    async def take(self, offer: Offer) -> Connection:
        """Borrow an association whose storage contexts for the classes of ``offer`` are those and no others.

        Raises ``PacsUnreachableError``.
        """
        await self._places.acquire()
        try:
            return self._pick(offer) or await self._open(offer)
        except BaseException:
            self._places.release()
            raise

    def give_back(self, connection: Connection) -> None:
        """End a loan. Where the PACS still owes an answer the association is aborted: nobody waits for it any more."""
        if connection.is_idle:
            connection.keep()
            self._kept.append(_Kept(connection, trio.current_time()))
        else:
            connection.abort()
        self._places.release()

    def _pick(self, offer: Offer) -> Connection | None:
        """Find the association used last that will do; drop those that the PACS has ended."""
        for kept in reversed(tuple(self._kept)):
            if kept.connection.has_ended():
                self._kept.remove(kept)
                kept.connection.abort()
            elif all(kept.connection.offer.get(class_uid) == syntaxes for class_uid, syntaxes in offer.items()):
                self._kept.remove(kept)
                return kept.connection
        return None

    async def _open(self, offer: Offer) -> Connection:
        # The place that we hold stands for the association that is released here, then for the new one.
        while len(self._kept) > self._places.value:
            await self._kept.popleft().connection.release()
        return await open_connection(self.address, self._widened(offer), self.politeness)

    def _widened(self, offer: Offer) -> Offer:
        """Add the pairs asked for lately, so that the association serves the next request as well.

        A class is never offered in more transfer syntaxes than its request names: a PACS would choose, and convert.
        """
        for class_uid in offer:
            self._recorded.pop(class_uid, None)
        room = MAX_STORAGE_CONTEXTS - sum(map(len, offer.values()))
        latest = list(reversed(self._recorded.items()))[:room]
        self._recorded.update((class_uid, syntaxes) for class_uid, syntaxes in offer.items() if len(syntaxes) == 1)
        return dict(offer) | dict(latest)

    async def release_idle(self) -> None:
        """Release associations that nobody has used for ``politeness.idle_seconds``, until cancelled."""
        while True:
            await trio.sleep(max(self.politeness.idle_seconds / 4, 0.01))
            while self._kept and self._kept[0].since + self.politeness.idle_seconds <= trio.current_time():
                with contextlib.suppress(trio.WouldBlock):  # somebody is about to take it
                    await self._release_oldest()
                    continue
                break

    async def aclose(self) -> None:
        """Release all that is kept; nothing is on loan any more."""
        while self._kept:
            await self._release_oldest()

    async def _release_oldest(self) -> None:
        self._places.acquire_nowait()  # there is one for each that is kept
        try:
            await self._kept.popleft().connection.release()
        finally:
            self._places.release()
