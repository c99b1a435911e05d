"""The hospital's store, over ordered rows: one transaction over subjects, UID map, catalogue and the ledger."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Callable
from typing import Final, TypeVar

from mdmfs.daemon.formats import Format
from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.acls import AclTable
from mdmfs.hospital.catalogue.feed import Feed
from mdmfs.hospital.catalogue.files import FileTable
from mdmfs.hospital.catalogue.made import Names
from mdmfs.hospital.catalogue.namespace import Catalogue
from mdmfs.hospital.catalogue.retiming import tell_times_of_images
from mdmfs.hospital.catalogue.rights import Acls
from mdmfs.hospital.catalogue.tree import DirectoryTree
from mdmfs.hospital.ledger.collections import Records
from mdmfs.hospital.ledger.destructions import Destructions
from mdmfs.hospital.ledger.epochs import Epochs
from mdmfs.hospital.ledger.losses import Losses
from mdmfs.hospital.ledger.notices import Notices
from mdmfs.hospital.ledger.outbox import Outbox
from mdmfs.hospital.ledger.quarantine import Quarantine
from mdmfs.hospital.ledger.replicas import PAGE, ReplicaRows, ReplicaState
from mdmfs.hospital.ledger.series import SeriesLedger
from mdmfs.hospital.ledger.stages import Stages
from mdmfs.hospital.uidmap.instances import UidMap
from mdmfs.hospital.uidmap.subjects import Subjects, keep_merges_by_subject
from mdmfs.rows.port import Engine, Layout, Rows


def _keep_rows(_: Rows) -> None:
    """To 2: aliases, makers of directories and replicas are rows that a program before them would misread."""


def _list_leaving(rows: Rows) -> None:
    """To 3: the replicas that are to be taken away are listed besides; of all others nothing is written."""
    replicas, last = ReplicaRows(rows), None
    while page := replicas.page(PAGE, last):
        last = page[-1]
        for replica in page:
            if replica.state is ReplicaState.LEAVING:
                replicas.put(replica)


def _show_by_directory(_: Rows) -> None:
    """To 4: new files appear by their directory's row, which a program before would not see; what is there stays."""


def _list_leaving_by_element(rows: Rows) -> None:
    """To 5: the replicas that are to be taken away are listed by storage element."""
    for key, _ in list(rows.scan(tables.REPLICAS_LEAVING)):
        rows.delete(tables.REPLICAS_LEAVING + key)
    _list_leaving(rows)


STORE_FORMAT: Final[Format[Rows]] = Format(
    "hospital's store",
    _keep_rows,
    _list_leaving,
    _show_by_directory,
    _list_leaving_by_element,
    tell_times_of_images,
    keep_merges_by_subject,
)
STORE_MARK: Final = tables.FORMAT + b"store"
FEED_LENGTH: Final = 100_000

T = TypeVar("T")


class Transaction:
    """One view of everything, unchanging but for what this transaction writes.

    It remembers what it read, so each serves one act only, and is of no use after its end.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        random: Callable[[int], bytes],
        feed_length: int = FEED_LENGTH,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rows = rows
        self.subjects: Final = Subjects(rows)
        self.uidmap: Final = UidMap(rows)
        tree = DirectoryTree(rows)
        files, acls = FileTable(rows, tree.directories), AclTable(rows, random, clock)
        self.feed: Final = Feed(rows, feed_length, random)
        self.catalogue: Final = Catalogue(rows, tree, files, acls, self.feed)
        self.acls: Final = Acls(rows, tree, files, acls, self.feed)
        self.names: Final = Names(rows, tree, acls, self.feed)
        self.epochs: Final = Epochs(rows, random)
        self.series: Final = SeriesLedger(rows)
        self.outbox: Final = Outbox(rows)
        self.quarantine: Final = Quarantine(rows)
        self.destructions: Final = Destructions(rows)
        self.notices: Final = Notices(rows)
        self.records: Final = Records(rows)
        self.losses: Final = Losses(rows)
        self.stages: Final = Stages(rows)
        self.replicas: Final = ReplicaRows(rows)
        self._counts = tree.directories.inodes, self.uidmap.places, self.catalogue.pending

    @property
    def version(self) -> int:
        """The store's (``Store.version``), of the last commit that this view shows; of no use while writing."""
        return self._rows.version

    def finish(self) -> None:
        """Write what was counted, at the end of what was done: it changes with each file."""
        for counted in self._counts:
            counted.write()


def store_layout(
    random: Callable[[int], bytes] = secrets.token_bytes, store_format: Format[Rows] = STORE_FORMAT
) -> Layout:
    """Give what the hospital's store is made of."""
    return Layout(
        what="hospital's store",
        holds="patients",
        tables={name[0]: name for name in tables.ALL},
        ascending=frozenset(name[0] for name in tables.ASCENDING),
        mark=STORE_MARK,
        format=store_format,
        fill=lambda rows: _make_root(Transaction(rows, random=random)),
    )


def _make_root(tx: Transaction) -> None:
    tx.catalogue.make_root()
    tx.finish()


class Store:
    """Everything that the hospital zone remembers, whatever engine keeps its rows."""

    def __init__(
        self,
        engine: Engine,
        random: Callable[[int], bytes] = secrets.token_bytes,
        feed_length: int = FEED_LENGTH,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._view = functools.partial(Transaction, random=random, feed_length=feed_length, clock=clock)

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Run ``act`` in a transaction of its own, off the event loop, and give what it gives, once that is on disk.

        An exception in it undoes all that it wrote, and comes out here; acts of other callers are not touched. Acts run
        one at a time, in the order of the calls. A call that has begun is not cancelled. Raises ``StoreError`` if the
        store is damaged, closed or of a newer format, ``OutOfSpaceError`` if it is full; nothing is half-written then.
        """
        return await self._engine.write(lambda rows: self._finished(rows, act))

    def read(self, act: Callable[[Transaction], T]) -> T:
        """Run ``act`` on what is committed, on the calling thread; writing raises ``StoreError``.

        Iterators are used up inside ``act``, and nothing in it waits.
        """
        return self._engine.read(lambda rows: act(self._view(rows)))

    def _finished(self, rows: Rows, act: Callable[[Transaction], T]) -> T:
        tx = self._view(rows)
        result = act(tx)
        tx.finish()
        return result

    def version(self) -> int:
        """Give a number that rises with every commit: while it stays, everything that was read still holds.

        Take it before reading. Another program's commits count, too.
        """
        return self._engine.version()

    def refuse_stale(self) -> None:
        """Raise ``PeerUnreachableError`` where what is read here may no longer be true: nobody is to be told it."""
        self._engine.refuse_stale()

    async def announce(self, told: str) -> None:
        """See ``Engine.announce``."""
        await self._engine.announce(told)

    async def run(self) -> None:
        """See to what the store has to see to; raises ``StoreError`` where it cannot go on."""
        await self._engine.run()

    async def aclose(self) -> None:
        """Wait for the writes that have begun, and close; whatever is called later raises ``StoreError``."""
        await self._engine.aclose()
