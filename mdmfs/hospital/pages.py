"""Pages of what a store may have millions of: each is a look of its own, so that others have a turn in between."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Final

from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.ledger.records import OutboxItem, QuarantineRecord, SeriesRecord, SeriesState
from mdmfs.hospital.store import Store, Transaction
from mdmfs.hospital.uidmap.records import SubjectRow
from mdmfs.model.subject import SubjectId

PAGE: Final = 500
"""Looked at in one go: a few milliseconds."""
ITEMS: Final = 64
"""Of an outbox: each may hold the shares of a batch."""


def pages_of_files(store: Store, size: int = PAGE, *, after: int = 0) -> Iterator[list[FileRecord]]:
    """Give all files in the order of their inode numbers, those with higher ones than ``after``."""
    while page := store.read(functools.partial(_files, after=after, limit=size)):
        yield page
        after = page[-1].inode


def pages_of_series(
    store: Store, size: int = PAGE, *, state: SeriesState | None = None
) -> Iterator[list[SeriesRecord]]:
    """Give all series, or those in a state."""
    last: SeriesRecord | None = None
    while page := store.read(functools.partial(_series, after=last, limit=size, state=state)):
        yield page
        last = page[-1]


def pages_of_subjects(store: Store, size: int = PAGE, *, after: SubjectId | None = None) -> Iterator[list[SubjectRow]]:
    """Give all subjects, or those after one."""
    while page := store.read(functools.partial(_subjects, after=after, limit=size)):
        yield page
        after = page[-1].id


def pages_of_quarantine(
    store: Store, size: int = PAGE, *, project: str | None = None
) -> Iterator[list[QuarantineRecord]]:
    """Give all that is refused, or what of a project is; those of a series come one after the other."""
    last: QuarantineRecord | None = None
    while page := store.read(functools.partial(_refused, after=last, limit=size, project=project)):
        yield page
        last = page[-1]


def pages_of_outbox(store: Store, size: int = ITEMS) -> Iterator[list[OutboxItem]]:
    """Give what is on its way, destination by destination."""
    for destination in store.read(lambda tx: tx.outbox.destinations()):
        after = 0
        while page := store.read(functools.partial(_items, destination=destination, after=after, limit=size)):
            yield page
            after = page[-1].number


def _files(tx: Transaction, *, after: int, limit: int) -> list[FileRecord]:
    return tx.catalogue.files(after=after, limit=limit)


def _series(
    tx: Transaction, *, after: SeriesRecord | None, limit: int, state: SeriesState | None
) -> list[SeriesRecord]:
    return tx.series.page(limit, after, state)


def _subjects(tx: Transaction, *, after: SubjectId | None, limit: int) -> list[SubjectRow]:
    return tx.subjects.page(limit, after)


def _refused(
    tx: Transaction, *, after: QuarantineRecord | None, limit: int, project: str | None
) -> list[QuarantineRecord]:
    return tx.quarantine.page(limit, after, project)


def _items(tx: Transaction, *, destination: str, after: int, limit: int) -> list[OutboxItem]:
    return tx.outbox.peek(destination, limit=limit, after=after)
