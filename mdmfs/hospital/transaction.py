"""A transaction over ordered rows: what LMDB and the twin in memory have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.acls import AclTable
from mdmfs.hospital.catalogue.directories import DirectoryTable
from mdmfs.hospital.catalogue.feed import Feed as CatalogueFeed
from mdmfs.hospital.catalogue.made import RowsOfNames
from mdmfs.hospital.catalogue.namespace import RowsOfCatalogue
from mdmfs.hospital.ledger.collections import RowsOfRecords
from mdmfs.hospital.ledger.epochs import RowsOfEpochs
from mdmfs.hospital.ledger.losses import RowsOfLosses
from mdmfs.hospital.ledger.notices import RowsOfNotices
from mdmfs.hospital.ledger.outbox import RowsOfOutbox
from mdmfs.hospital.ledger.quarantine import RowsOfQuarantine
from mdmfs.hospital.ledger.series import RowsOfSeries
from mdmfs.hospital.replicas.records import PAGE, RowsOfReplicas
from mdmfs.hospital.rows import Rows
from mdmfs.hospital.tape.rows import RowsOfStages
from mdmfs.hospital.uidmap.instances import RowsOfInstances
from mdmfs.hospital.uidmap.subjects import RowsOfSubjects
from mdmfs.wire.formats import Format


def _keep_rows(_: Rows) -> None:
    """To 2: aliases, makers of directories and replicas are rows that a program before them would misread."""


def _list_leaving(rows: Rows) -> None:
    """To 3: the replicas that are to be taken away are listed besides."""
    replicas, last = RowsOfReplicas(rows), None
    while page := replicas.page(PAGE, last):
        for last in page:
            replicas.put(last)


STORE_FORMAT: Final[Format[Rows]] = Format("hospital's store", _keep_rows, _list_leaving)
STORE_MARK: Final = tables.FORMAT + b"store"
FEED_LENGTH: Final = 100_000


class RowsTransaction:
    """``Transaction`` over ordered rows; it remembers what it read, so each serves one act only."""

    def __init__(self, rows: Rows, *, random: Callable[[int], bytes], feed_length: int = FEED_LENGTH) -> None:
        self.subjects: Final = RowsOfSubjects(rows)
        self.uidmap: Final = RowsOfInstances(rows)
        shared = DirectoryTable(rows), AclTable(rows, random), CatalogueFeed(rows, feed_length)
        self.catalogue: Final = RowsOfCatalogue(rows, *shared)
        self.names: Final = RowsOfNames(rows, *shared)
        self.epochs: Final = RowsOfEpochs(rows, random)
        self.series: Final = RowsOfSeries(rows)
        self.outbox: Final = RowsOfOutbox(rows)
        self.quarantine: Final = RowsOfQuarantine(rows)
        self.notices: Final = RowsOfNotices(rows)
        self.records: Final = RowsOfRecords(rows)
        self.losses: Final = RowsOfLosses(rows)
        self.stages: Final = RowsOfStages(rows)
        self.replicas: Final = RowsOfReplicas(rows)
        self._rows = rows

    def begin_store(self, where: object, store: Format[Rows] = STORE_FORMAT) -> bool:
        """Make an empty store ready, or bring an older one one step further; tells whether there may be another step.

        ``where`` names the store in errors. Raises ``StoreError`` for one that this program cannot read.
        """
        found = self._rows.get(STORE_MARK)
        if found is None:
            self._rows.put(STORE_MARK, store.mark)
            self.catalogue.make_root()
            return False
        reached = store.advance(found, self._rows, where)
        if reached is not None:
            self._rows.put(STORE_MARK, reached)
        return reached is not None
