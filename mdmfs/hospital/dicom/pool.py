"""The few associations that one PACS is asked to bear: lent to one task at a time, kept for the next, then released."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime as dt
import secrets
from collections.abc import Callable
from typing import Final

import trio

from mdmfs.hospital.dicom.breaker import Breaker
from mdmfs.hospital.dicom.connection import Connection, open_connection
from mdmfs.hospital.dicom.move import Destination
from mdmfs.hospital.dicom.negotiation import MAX_STORAGE_CONTEXTS, STUDY_ROOT_GET, STUDY_ROOT_MOVE, Offer
from mdmfs.hospital.dicom.pacs import PacsAddress, Politeness, RetrievalService
from mdmfs.hospital.dicom.security import DicomTls
from mdmfs.model.errors import MdmfsError, PacsUnreachableError, RecallFailedError

_LONGEST_REST: Final = 15.0
"""Seconds between two looks at the clock on the wall."""


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pool is given by the hospital that it belongs to."""

    destination: Destination | None = None
    """Our own SCP; without one, C-GET is all there is."""
    tls: DicomTls | None = None
    now: Callable[[], dt.datetime] = dt.datetime.now
    """The hospital's own time."""
    random: Callable[[], float] = secrets.SystemRandom().random
    remembered: RetrievalService | None = None
    """By which service the PACS was found to give its images before."""
    remember: Callable[[RetrievalService], None] = lambda _: None
    """Hears by which service it does."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    connection: Connection
    since: float


class Pool:
    """At most ``politeness.max_associations`` associations at once, kept ones included; takers are served in turn.

    In clinical hours the limit is one. ``take`` and ``give_back`` come in pairs, whatever happens between them;
    ``give_back`` does not wait, so that it works in a task that is being cancelled.
    """

    def __init__(self, address: PacsAddress, politeness: Politeness, surroundings: Surroundings) -> None:
        self.address: Final = address
        self.politeness: Final = politeness
        self.destination: Final = surroundings.destination
        self.breaker: Final = Breaker(surroundings.random)
        self.retrieval = politeness.retrieval or surroundings.remembered
        """The service to retrieve by; None until it was negotiated."""
        if self.retrieval is RetrievalService.MOVE and self.destination is None:
            self.retrieval = None
        self._remember: Final = surroundings.remember
        self._tls: Final = surroundings.tls
        self._now: Final = surroundings.now
        self._places: Final = trio.CapacityLimiter(politeness.max_associations)
        self._loans: Final[dict[Connection, object]] = {}
        self._kept: Final[collections.deque[_Kept]] = collections.deque()  # never more than there are free places
        self._recorded: Final[dict[str, tuple[str, ...]]] = {}  # pairs asked for before, the latest last

    async def take(self, offer: Offer) -> Connection:
        """Borrow an association whose storage contexts for the classes of ``offer`` are those and no others.

        Raises ``PacsUnreachableError``; at once where the last attempts have failed.
        """
        self._heed_the_hours()
        loan = object()
        try:  # at once where there is a place: what else is to be done for a recall comes behind its request
            self._places.acquire_on_behalf_of_nowait(loan)
        except trio.WouldBlock:
            await self._places.acquire_on_behalf_of(loan)
        try:
            connection = self._pick(offer) or await self._open(offer)
        except BaseException:
            self._places.release_on_behalf_of(loan)
            raise
        self._loans[connection] = loan
        return connection

    def give_back(self, connection: Connection) -> None:
        """End a loan. Where the PACS still owes an answer the association is aborted: nobody waits for it any more."""
        if connection.has_timed_out:
            self.breaker.failed()
        if connection.is_idle:
            self.breaker.succeeded()
            connection.keep()
            self._kept.append(_Kept(connection, trio.current_time()))
        else:
            connection.abort()
        self._places.release_on_behalf_of(self._loans.pop(connection))
        self._heed_the_hours()

    def choose(self, connection: Connection) -> RetrievalService:
        """Say by which service to retrieve, and remember it: C-GET if the PACS has it.

        Raises ``RecallFailedError`` if there is C-MOVE only and no SCP of ours to move to.
        """
        if self.retrieval is None or not self._offers(connection, self.retrieval):
            has_move = self._offers(connection, RetrievalService.MOVE)
            only_move = has_move and not self._offers(connection, RetrievalService.GET)
            chosen = RetrievalService.MOVE if only_move else RetrievalService.GET
            self.retrieval = self.politeness.retrieval or chosen
            if self.politeness.retrieval is None and self._offers(connection, chosen):
                self._remember(chosen)
        if self.retrieval is RetrievalService.MOVE and self.destination is None:
            message = (
                f"{self.address}: it offers C-MOVE only, and there is nowhere to move to: configure [dicom] listen"
            )
            raise RecallFailedError(message)
        return self.retrieval

    def turn_to_move(self, connection: Connection) -> bool:
        """Say that the PACS refuses C-GET although it negotiated it; tells whether C-MOVE can be tried now."""
        can_move = self.destination is not None and self._offers(connection, RetrievalService.MOVE)
        if not can_move or self.retrieval is RetrievalService.MOVE or self.politeness.retrieval is not None:
            return False
        self.retrieval = RetrievalService.MOVE
        self._remember(self.retrieval)
        return True

    @staticmethod
    def _offers(connection: Connection, service: RetrievalService) -> bool:
        sop_class = STUDY_ROOT_GET if service is RetrievalService.GET else STUDY_ROOT_MOVE
        return connection.accepted.context_id(sop_class) is not None

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
        while self._kept and len(self._kept) > self._places.available_tokens:
            await self._kept.popleft().connection.release()
        if not self.breaker.let_through():
            wait = self.breaker.remaining()
            message = f"{self.address}: it failed several times and is left alone for {wait:.0f} s more"
            raise PacsUnreachableError(message)
        try:
            connection = await open_connection(self.address, self._widened(offer), self.politeness, self._tls)
        except MdmfsError:
            self.breaker.failed()
            raise
        except BaseException:
            self.breaker.abandoned()
            raise
        self.breaker.abandoned()  # an association is no answer yet: some PACSs accept and then hang
        return connection

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

    def today(self) -> dt.date:
        """Give the day in the hospital's own time."""
        return self._now().date()

    @property
    def is_clinical_hour(self) -> bool:
        """Whether people wait for the PACS at this hour."""
        hours = self.politeness.clinical_hours
        return hours is not None and hours.hold(self._now().time())

    def _heed_the_hours(self) -> None:
        limit = 1 if self.is_clinical_hour else self.politeness.max_associations
        if self._places.total_tokens != limit:
            self._places.total_tokens = limit

    async def release_idle(self) -> None:
        """Release associations that nobody has used for ``politeness.idle_seconds``, until cancelled.

        And those that are one too many when clinical hours begin.
        """
        while True:
            await trio.sleep(min(max(self.politeness.idle_seconds / 4, 0.01), _LONGEST_REST))
            self._heed_the_hours()
            while self._kept and (self._is_one_too_many() or self._has_idled()):
                if not await self._release_oldest():  # somebody is about to take it
                    break

    def _has_idled(self) -> bool:
        return self._kept[0].since + self.politeness.idle_seconds <= trio.current_time()

    def _is_one_too_many(self) -> bool:
        is_limited = self._places.total_tokens < self.politeness.max_associations
        return is_limited and len(self._kept) + self._places.borrowed_tokens > self._places.total_tokens

    async def aclose(self) -> None:
        """Release all that is kept; nothing is on loan any more."""
        while self._kept:
            with contextlib.suppress(MdmfsError):
                await self._kept.popleft().connection.release()

    async def _release_oldest(self) -> bool:
        """Release an association on a place that is held meanwhile; False if there is no free place."""
        loan = object()
        if not self._is_one_too_many():
            try:
                self._places.acquire_on_behalf_of_nowait(loan)
            except trio.WouldBlock:
                return False
        try:
            await self._kept.popleft().connection.release()
        finally:
            if loan in self._places.statistics().borrowers:
                self._places.release_on_behalf_of(loan)
        return True
