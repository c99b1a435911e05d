"""The port of the hospital's store: one transaction over subjects, UID map, catalogue and the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from mdmfs.hospital.catalogue.port import Acls, Catalogue, Feed, Names
from mdmfs.hospital.ledger.port import (
    Destructions,
    Epochs,
    Losses,
    Notices,
    Outbox,
    Quarantine,
    Records,
    SeriesLedger,
)
from mdmfs.hospital.replicas.records import ReplicaRows
from mdmfs.hospital.tape.port import Stages
from mdmfs.hospital.uidmap.port import Subjects, UidMap

T = TypeVar("T")


class Transaction(Protocol):
    """One view of everything, unchanging but for what this transaction writes; of no use after its end."""

    @property
    def version(self) -> int:
        """The store's (``Store.version``), of the last commit that this view shows; of no use while writing."""

    @property
    def subjects(self) -> Subjects:
        """Who a subject is."""

    @property
    def uidmap(self) -> UidMap:
        """What a GUID stands for."""

    @property
    def catalogue(self) -> Catalogue:
        """The namespace."""

    @property
    def acls(self) -> Acls:
        """Who may use what is in the namespace."""

    @property
    def feed(self) -> Feed:
        """What changed in the namespace."""

    @property
    def names(self) -> Names:
        """What users make in the namespace."""

    @property
    def series(self) -> SeriesLedger:
        """The series under way."""

    @property
    def epochs(self) -> Epochs:
        """What every keystore must hear."""

    @property
    def outbox(self) -> Outbox:
        """What other zones have yet to get."""

    @property
    def quarantine(self) -> Quarantine:
        """What was refused."""

    @property
    def records(self) -> Records:
        """Which collections of records there are, and the keys of their sealed text."""

    @property
    def destructions(self) -> Destructions:
        """Which files are to go and have not all gone."""

    @property
    def notices(self) -> Notices:
        """What PACSs have told of."""

    @property
    def losses(self) -> Losses:
        """What PACSs no longer have."""

    @property
    def stages(self) -> Stages:
        """What is to be staged."""

    @property
    def replicas(self) -> ReplicaRows:
        """What is on storage elements."""


class Store(Protocol):
    """Everything that the hospital zone remembers."""

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Run ``act`` in a transaction of its own, off the event loop, and give what it gives, once that is on disk.

        An exception in it undoes all that it wrote, and comes out here; acts of other callers are not touched. Acts run
        one at a time, in the order of the calls. A call that has begun is not cancelled. Raises ``StoreError`` if the
        store is damaged, closed or of a newer format, ``OutOfSpaceError`` if it is full; nothing is half-written then.
        """

    def read(self, act: Callable[[Transaction], T]) -> T:
        """Run ``act`` on what is committed, on the calling thread; writing raises ``StoreError``.

        Iterators are used up inside ``act``, and nothing in it waits.
        """

    def version(self) -> int:
        """Give a number that rises with every commit: while it stays, everything that was read still holds.

        Take it before reading. Another program's commits count, too.
        """

    def refuse_stale(self) -> None:
        """Raise ``PeerUnreachableError`` where what is read here may no longer be true: nobody is to be told it."""

    async def run(self) -> None:
        """See to what the store has to see to; raises ``StoreError`` where it cannot go on."""

    async def aclose(self) -> None:
        """Wait for the writes that have begun, and close; whatever is called later raises ``StoreError``."""
