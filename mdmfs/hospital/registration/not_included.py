"""What PACSs told of and no project includes: one row a series, for a while, so that a forgotten line can be noticed.

It is of patients whom nobody asked for: nothing is known of an image, and nothing is kept longer than configured.
"""

from __future__ import annotations

import functools
from typing import Final

import structlog
import trio

from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.records import QuarantineRecord
from mdmfs.hospital.pages import pages_of_quarantine
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import MdmfsError

NO_PROJECT: Final = ""
INTERVAL: Final = 3600.0
"""Seconds between two looks for what is old."""

log = structlog.get_logger()


def remember_not_included(tx: Transaction, study_uid: str, series_uid: str, *, images: int, now: float) -> None:
    """Keep that no project includes a series of which so many images were told of; it may be told of in parts."""
    key = SeriesKey(NO_PROJECT, study_uid, series_uid)
    before = sum(record.images for record in tx.quarantine.of_series(key))
    forget_not_included(tx, study_uid, series_uid)
    tx.quarantine.put(
        QuarantineRecord(
            project=key.project,
            study_uid=study_uid,
            series_uid=series_uid,
            instance_uid="",
            reason=Reason.NOT_INCLUDED.value,
            tag="",
            when=now,
            images=max(images, before),
        )
    )


def forget_not_included(tx: Transaction, study_uid: str, series_uid: str) -> None:
    """Forget that no project included a series; an older version kept a row for each of its images."""
    key = SeriesKey(NO_PROJECT, study_uid, series_uid)
    for record in tx.quarantine.of_series(key):
        tx.quarantine.remove(key, record.instance_uid)


async def forget_old(hospital: Hospital, age: float) -> None:
    """Forget now and every hour what was told of ``age`` seconds ago or earlier, until cancelled."""
    while True:
        try:
            await sweep(hospital, age)
        except MdmfsError as error:
            log.error("what no project includes cannot be forgotten", reason=error.told_here)  # noqa: TRY400 the reason says it
        await trio.sleep(INTERVAL)


async def sweep(hospital: Hospital, age: float) -> None:
    """Forget what is old, a page at a time; what a clock that was ahead has dated is as old as it is far."""
    now = hospital.clock()
    for page in pages_of_quarantine(hospital.store, project=NO_PROJECT):
        old = [record for record in page if abs(now - record.when) >= age]
        if old:
            await hospital.store.write(functools.partial(_forget, old=old))
        await trio.lowlevel.checkpoint()


def _forget(tx: Transaction, *, old: list[QuarantineRecord]) -> None:
    for record in old:
        if tx.quarantine.get(record.series, record.instance_uid) == record:
            tx.quarantine.remove(record.series, record.instance_uid)
