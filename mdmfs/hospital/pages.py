"""Pages of what a store may have millions of: each is a look of its own, so that others have a turn in between."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.ledger.records import OutboxItem, QuarantineRecord, SeriesRecord, SeriesState
from mdmfs.hospital.store import Store, Transaction
from mdmfs.hospital.uidmap.records import SubjectRow
from mdmfs.model.subject import SubjectId

R = TypeVar("R")

PAGE: Final = 500
"""Looked at in one go: a few milliseconds."""
ITEMS: Final = 64
"""Of an outbox: each may hold the shares of a batch."""


def pages_of_files(store: Store, size: int = PAGE, *, after: int = 0) -> Iterator[list[FileRecord]]:
    """Give all files in the order of their inode numbers, those with higher ones than ``after``."""
    return _pages(store, lambda tx, last: tx.catalogue.files(after=last.inode if last else after, limit=size))


def pages_of_series(
    store: Store, size: int = PAGE, *, state: SeriesState | None = None
) -> Iterator[list[SeriesRecord]]:
    """Give all series, or those in a state."""
    return _pages(store, lambda tx, last: tx.series.page(size, last, state))


def pages_of_subjects(store: Store, size: int = PAGE, *, after: SubjectId | None = None) -> Iterator[list[SubjectRow]]:
    """Give all subjects, or those after one."""
    return _pages(store, lambda tx, last: tx.subjects.page(size, last.id if last else after))


def pages_of_quarantine(
    store: Store, size: int = PAGE, *, project: str | None = None
) -> Iterator[list[QuarantineRecord]]:
    """Give all that is refused, or what of a project is; those of a series come one after the other."""
    return _pages(store, lambda tx, last: tx.quarantine.page(size, last, project))


def pages_of_outbox(store: Store) -> Iterator[list[OutboxItem]]:
    """Give what is on its way, destination by destination."""
    for destination in store.read(lambda tx: tx.outbox.destinations()):
        yield from _pages(store, functools.partial(_items, destination=destination))


def _items(tx: Transaction, last: OutboxItem | None, destination: str) -> list[OutboxItem]:
    return tx.outbox.peek(destination, limit=ITEMS, after=last.number if last else 0)


def _pages(store: Store, look: Callable[[Transaction, R | None], list[R]]) -> Iterator[list[R]]:
    """Look for one page after another, each behind the last record of the one before, up to an empty one."""
    last: R | None = None
    while page := store.read(lambda tx: look(tx, last)):  # noqa: B023 read at once
        yield page
        last = page[-1]
