"""Recount: series that keystores were replaced under while they were registered show by what the keystores hold.

A series shows when enough keystores have acknowledged what was sent for it. Who came later was sent nothing for it but
shares when the keys were split anew; and who is configured no more acknowledges nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.records import SeriesRecord, SeriesState
from mdmfs.hospital.outbox.deposit import show_deposited
from mdmfs.hospital.store import Transaction
from mdmfs.model.names import Guid


def show_held(tx: Transaction, hospital: Hospital, holders: Mapping[Guid, Collection[str]]) -> None:
    """Show the series whose files enough keystores hold a right share of, of the pending files that were looked at.

    A series of which something is on its way yet is left alone: its acknowledgements will come.
    """
    for series in tx.series.all(SeriesState.DEPOSITING):
        kept = _kept(tx, hospital, series, holders)
        if kept is not None:
            tx.series.put(msgspec.structs.replace(series, acknowledged=kept))
            show_deposited(tx, series.key, hospital)


def _kept(
    tx: Transaction, hospital: Hospital, series: SeriesRecord, holders: Mapping[Guid, Collection[str]]
) -> dict[str, int] | None:
    """Count the shares of a series by keystore; None where that cannot be known, or not yet."""
    names = hospital.keystores.names
    if any(tx.outbox.remaining(series.key.octets(), name) for name in names):
        return None
    guids = [guid for guid, _ in tx.uidmap.of_series(series.key)]
    pending = [guid for guid in guids if (file := tx.catalogue.file(guid)) and file.state is FileState.PENDING]
    if not all(guid in holders for guid in pending):
        return None
    settled = len(guids) - len(pending)
    return {name: settled + sum(name in holders[guid] for guid in pending) for name in names}
