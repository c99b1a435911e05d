"""Which files a task on keys is about: some, a subject's, a project's, or all."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import UnknownNameError
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId


class Selection(NamedTuple):
    """At most one of the three is given; with none it is every file."""

    guids: tuple[Guid, ...] = ()
    subject: SubjectId | None = None
    project: str = ""

    @property
    def is_everything(self) -> bool:
        """Whether no file is left out."""
        return not (self.guids or self.subject or self.project)

    def pages(self, store: Store, size: int) -> Iterator[list[FileRecord]]:
        """Give the records, some or none at a time, so that others can have a turn in between.

        Raises ``UnknownNameError`` for what there is not.
        """
        guids = store.read(self._of_subject) if self.subject else list(self.guids)
        if guids:
            for start in range(0, len(guids), size):
                yield store.read(functools.partial(_records, guids=guids[start : start + size]))
            return
        after, found = 0, 0
        while page := store.read(functools.partial(page_of, after=after, limit=size)):
            mine = [file for file in page if self.project in {"", file.project}]
            yield mine
            after, found = page[-1].inode, found + len(mine)
        if self.project and not found:
            message = f"no file was ever registered in a project {self.project}"
            raise UnknownNameError(message)

    def _of_subject(self, tx: Transaction) -> list[Guid]:
        mine = [series.key for series in tx.series.all() if series.subject == self.subject]
        guids = [guid for key in mine for guid, _ in tx.uidmap.of_series(key)]
        if not guids:
            message = f"no file was ever registered of the subject {self.subject and self.subject.text}"
            raise UnknownNameError(message)
        return guids


def page_of(tx: Transaction, *, after: int, limit: int) -> list[FileRecord]:
    """Give some of all files, those with inode numbers above ``after``."""
    return tx.catalogue.files(after=after, limit=limit)


def _records(tx: Transaction, *, guids: Sequence[Guid]) -> list[FileRecord]:
    found = [tx.catalogue.file(guid) for guid in guids]
    unknown = [str(guid) for guid, file in zip(guids, found, strict=True) if file is None]
    if unknown:
        message = f"there is no file {unknown[0]}; nothing was done"
        raise UnknownNameError(message)
    return [file for file in found if file is not None]
