"""The hospital's store over ordered rows: what every engine and the twin in memory have in common."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Callable
from typing import Final, TypeVar

from mdmfs.daemon.formats import Format
from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.acls import AclTable
from mdmfs.hospital.catalogue.feed import RowsOfFeed
from mdmfs.hospital.catalogue.files import FileTable
from mdmfs.hospital.catalogue.made import RowsOfNames
from mdmfs.hospital.catalogue.namespace import RowsOfCatalogue
from mdmfs.hospital.catalogue.retiming import tell_times_of_images
from mdmfs.hospital.catalogue.rights import RowsOfAcls
from mdmfs.hospital.catalogue.tree import DirectoryTree
from mdmfs.hospital.ledger.collections import RowsOfRecords
from mdmfs.hospital.ledger.destructions import RowsOfDestructions
from mdmfs.hospital.ledger.epochs import RowsOfEpochs
from mdmfs.hospital.ledger.losses import RowsOfLosses
from mdmfs.hospital.ledger.notices import RowsOfNotices
from mdmfs.hospital.ledger.outbox import RowsOfOutbox
from mdmfs.hospital.ledger.quarantine import RowsOfQuarantine
from mdmfs.hospital.ledger.series import RowsOfSeries
from mdmfs.hospital.replicas.records import PAGE, ReplicaState, RowsOfReplicas
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.tape.rows import RowsOfStages
from mdmfs.hospital.uidmap.instances import RowsOfInstances
from mdmfs.hospital.uidmap.subjects import RowsOfSubjects, keep_merges_by_subject
from mdmfs.rows.port import Engine, Layout, Rows


def _keep_rows(_: Rows) -> None:
    """To 2: aliases, makers of directories and replicas are rows that a program before them would misread."""


def _list_leaving(rows: Rows) -> None:
    """To 3: the replicas that are to be taken away are listed besides; of all others nothing is written."""
    replicas, last = RowsOfReplicas(rows), None
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


class RowsTransaction:
    """``Transaction`` over ordered rows; it remembers what it read, so each serves one act only."""

    def __init__(
        self,
        rows: Rows,
        *,
        random: Callable[[int], bytes],
        feed_length: int = FEED_LENGTH,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rows = rows
        self.subjects: Final = RowsOfSubjects(rows)
        self.uidmap: Final = RowsOfInstances(rows)
        tree = DirectoryTree(rows)
        files, acls = FileTable(rows, tree.directories), AclTable(rows, random, clock)
        self.feed: Final = RowsOfFeed(rows, feed_length, random)
        self.catalogue: Final = RowsOfCatalogue(rows, tree, files, acls, self.feed)
        self.acls: Final = RowsOfAcls(rows, tree, files, acls, self.feed)
        self.names: Final = RowsOfNames(rows, tree, acls, self.feed)
        self.epochs: Final = RowsOfEpochs(rows, random)
        self.series: Final = RowsOfSeries(rows)
        self.outbox: Final = RowsOfOutbox(rows)
        self.quarantine: Final = RowsOfQuarantine(rows)
        self.destructions: Final = RowsOfDestructions(rows)
        self.notices: Final = RowsOfNotices(rows)
        self.records: Final = RowsOfRecords(rows)
        self.losses: Final = RowsOfLosses(rows)
        self.stages: Final = RowsOfStages(rows)
        self.replicas: Final = RowsOfReplicas(rows)
        self._counts = tree.directories.inodes, self.uidmap.places, self.catalogue.pending

    @property
    def version(self) -> int:
        """The number of the last commit that is seen."""
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
        fill=lambda rows: _make_root(RowsTransaction(rows, random=random)),
    )


def _make_root(tx: RowsTransaction) -> None:
    tx.catalogue.make_root()
    tx.finish()


class RowStore:
    """``Store`` over rows, whatever engine keeps them."""

    def __init__(
        self,
        engine: Engine,
        random: Callable[[int], bytes] = secrets.token_bytes,
        feed_length: int = FEED_LENGTH,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._view = functools.partial(RowsTransaction, random=random, feed_length=feed_length, clock=clock)

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """See ``Store.write``."""
        return await self._engine.write(lambda rows: self._finished(rows, act))

    def read(self, act: Callable[[Transaction], T]) -> T:
        """See ``Store.read``."""
        return self._engine.read(lambda rows: act(self._view(rows)))

    def _finished(self, rows: Rows, act: Callable[[Transaction], T]) -> T:
        tx = self._view(rows)
        result = act(tx)
        tx.finish()
        return result

    def version(self) -> int:
        """See ``Store.version``."""
        return self._engine.version()

    def refuse_stale(self) -> None:
        """See ``Engine.refuse_stale``."""
        self._engine.refuse_stale()

    async def announce(self, told: str) -> None:
        """See ``Engine.announce``."""
        await self._engine.announce(told)

    async def run(self) -> None:
        """See ``Engine.run``."""
        await self._engine.run()

    async def aclose(self) -> None:
        """See ``Store.aclose``."""
        await self._engine.aclose()
