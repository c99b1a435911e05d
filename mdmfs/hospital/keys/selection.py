"""Which files a task on keys is about: some, a subject's, a project's, what is left below a name, or all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self

from mdmfs.hospital.audit.questions import files_named, is_below
from mdmfs.hospital.catalogue.records import FileRecord, FileState
from mdmfs.hospital.ledger.records import DestructionRecord, SeriesRecord
from mdmfs.hospital.pages import pages_of_files, pages_of_series
from mdmfs.hospital.store import Store, Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import UnknownNameError
from mdmfs.model.names import Guid, Lfn
from mdmfs.model.subject import SubjectId


class Selection(NamedTuple):
    """At most one of the first four is given; with none it is every file."""

    guids: tuple[Guid, ...] = ()
    subject: SubjectId | None = None
    project: str = ""
    below: Lfn | None = None
    """A file or a directory: what is left of it, shown or not."""
    up_to: int = 0
    """The highest inode number when this was decided: later images are not meant. 0 where that does not matter."""

    @property
    def is_everything(self) -> bool:
        """Whether no file is left out."""
        return not (self.guids or self.subject or self.project or self.below is not None)

    @classmethod
    def of_record(cls, record: DestructionRecord) -> Self:
        """Read what is kept of it."""
        subject = SubjectId.parse(record.subject) if record.subject else None
        below = Lfn.parse(record.below) if record.below else None
        return cls(tuple(map(Guid, record.guids)), subject, record.project, below, record.up_to)

    @property
    def record(self) -> DestructionRecord:
        """Write it."""
        guids, below = [guid.octets for guid in self.guids], "" if self.below is None else str(self.below)
        return DestructionRecord(guids, self.subject.text if self.subject else "", self.project, below, self.up_to)

    def pages(self, store: Store, size: int) -> Iterator[list[FileRecord]]:
        """Give the records, some or none at a time, so that others can have a turn in between.

        Raises ``UnknownNameError`` for what there is not, but not where nothing is left below a name.
        """
        for page in self._pages(store, size):
            yield store.read(functools.partial(self._decided_on, page=page)) if self.up_to else page

    def _decided_on(self, tx: Transaction, *, page: Sequence[FileRecord]) -> list[FileRecord]:
        return [file for file in page if file.inode <= self.up_to or self._is_made_anew(tx, file)]

    def _is_made_anew(self, tx: Transaction, file: FileRecord) -> bool:
        """Tell whether the image of a later file had one already when this was decided."""
        instance = tx.uidmap.resolve(file.guid)
        guids = tx.uidmap.guids_of(instance.project, instance.instance_uid) if instance else []
        return any(one.inode <= self.up_to for guid in guids if (one := tx.catalogue.file(guid)))

    def _pages(self, store: Store, size: int) -> Iterator[list[FileRecord]]:
        if self.guids:
            yield from _records_of(store, self.guids, size)
        elif self.subject:
            pages = _of_series(store, lambda series: series.subject == self.subject, size)
            yield from _refuse_none(pages, f"of the subject {self.subject.text}")
        elif self.below is not None:
            yield from _left_below(store, self.below, size)
        elif self.project:
            of_all = pages_of_files(store, size)
            pages = ([file for file in page if file.project == self.project] for page in of_all)
            yield from _refuse_none(pages, f"in a project {self.project}")
        else:
            yield from pages_of_files(store, size)


def _left_below(store: Store, lfn: Lfn, size: int) -> Iterator[list[FileRecord]]:
    named = store.read(lambda tx: files_named(tx, lfn))
    pages = _records_of(store, named, size) if named else _of_series(store, lambda it: is_below(it, lfn), size)
    for page in pages:
        yield [file for file in page if file.state is not FileState.WITHDRAWN]


def _of_series(store: Store, is_meant: Callable[[SeriesRecord], bool], size: int) -> Iterator[list[FileRecord]]:
    for page in pages_of_series(store, size):
        yield []
        for series in filter(is_meant, page):
            guids = store.read(functools.partial(_guids_of, key=series.key))
            yield from _records_of(store, guids, size)


def _guids_of(tx: Transaction, *, key: SeriesKey) -> list[Guid]:
    return [guid for guid, _ in tx.uidmap.of_series(key)]


def _records_of(store: Store, guids: Sequence[Guid], size: int) -> Iterator[list[FileRecord]]:
    for start in range(0, len(guids), size):
        yield store.read(functools.partial(_records, guids=guids[start : start + size]))


def _records(tx: Transaction, *, guids: Sequence[Guid]) -> list[FileRecord]:
    found = [tx.catalogue.file(guid) for guid in guids]
    unknown = [str(guid) for guid, file in zip(guids, found, strict=True) if file is None]
    if unknown:
        message = f"there is no file {unknown[0]}; nothing was done"
        raise UnknownNameError(message)
    return [file for file in found if file is not None]


def _refuse_none(pages: Iterator[list[FileRecord]], whose: str) -> Iterator[list[FileRecord]]:
    is_any = False
    for page in pages:
        is_any = is_any or bool(page)
        yield page
    if not is_any:
        message = f"no file was ever registered {whose}"
        raise UnknownNameError(message)
