"""Files as rows, in the order of their inode numbers, and by GUID: compact, with what many files share kept once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.directories import DirectoryTable
from mdmfs.hospital.catalogue.records import FileRecord, FileState, Place, Rendition
from mdmfs.hospital.rows import Interned, Stored, number_key
from mdmfs.model.errors import NoSuchFileError, StoreError
from mdmfs.model.names import Guid
from mdmfs.rows.port import Rows


class _Kind(msgspec.Struct, frozen=True, array_like=True):
    project: str
    policy: bytes
    engine_generation: int
    transfer_syntax: str


class _StoredFile(msgspec.Struct, frozen=True, array_like=True):
    guid: bytes
    kind: int
    acl: bytes
    """Empty where it is the one that the files of its directory share."""
    generation: int
    threshold: int
    key_check: bytes
    state: FileState
    """PENDING becomes VISIBLE once its directory is shown up to the file's inode number."""
    modified: float
    places: tuple[Place, ...]
    size: int
    header_length: int
    sha256: bytes
    header_sha256: bytes
    segment_sha256: bytes
    """Empty where the one segment is the whole file."""


_KINDS: Final = Stored(_Kind)
_ROWS: Final = Stored(_StoredFile)


class FileTable:
    """``f`` + inode number: the file. ``i`` + GUID: its inode number. ``k`` + number: what many files share.

    ``K`` + digest of what is shared: its number. Files lie in the order of registration, where LMDB fills its pages.
    That a series appears, its directory's row tells alone.
    """

    def __init__(self, rows: Rows, directories: DirectoryTable) -> None:
        self._rows = rows
        self._directories = directories
        self._interned = Interned(
            rows,
            numbers=tables.KIND_NUMBERS,
            values=tables.KINDS,
            counter=tables.COUNTERS + b"kind",
        )
        self._kinds: dict[int, _Kind] = {}
        self._numbers: dict[_Kind, int] = {}

    def find(self, guid: Guid) -> FileRecord | None:
        """Give a file, or None."""
        inode = self._rows.get(tables.INODES_OF_GUIDS + guid.octets)
        value = None if inode is None else self._rows.get(tables.FILES + inode)
        return None if value is None or inode is None else self._record(inode, _ROWS.decode(value), guid)

    def get(self, guid: Guid) -> FileRecord:
        """Give a file; raises ``NoSuchFileError``."""
        record = self.find(guid)
        if record is None:
            message = f"there is no file with the GUID {guid}"
            raise NoSuchFileError(message)
        return record

    def put(self, record: FileRecord) -> None:
        """Keep a file, in place of what was kept of it."""
        self._rows.put(tables.FILES + number_key(record.inode), _ROWS.encode(self._stored(record)))

    def admit(self, guid: Guid, inode: int) -> None:
        """Keep the inode number of a file that ``put`` is to follow for; raises ``StoreError`` if the GUID is known."""
        if not self._rows.add(tables.INODES_OF_GUIDS + guid.octets, number_key(inode)):
            message = f"GUID {guid} is registered already"
            raise StoreError(message)

    def at(self, inode: int) -> FileRecord:
        """Give the file with an inode number; raises ``StoreError``."""
        key = number_key(inode)
        value = self._rows.get(tables.FILES + key)
        if value is None:
            message = f"there is no file with inode number {inode}: restore the store from its backup"
            raise StoreError(message)
        return self._record(key, _ROWS.decode(value))

    def from_inode(self, after: int) -> Iterator[FileRecord]:
        """Go through the files after an inode number, in the order of their numbers."""
        for inode, value in self._rows.scan(tables.FILES, number_key(after + 1)):
            yield self._record(inode, _ROWS.decode(value))

    def _stored(self, record: FileRecord) -> _StoredFile:
        rendition = record.rendition
        kind = _Kind(record.project, rendition.policy, rendition.engine_generation, rendition.transfer_syntax)
        number = self._numbers.get(kind)
        if number is None:
            number = self._numbers[kind] = self._interned.number_of(_KINDS.encode(kind))
        is_shared = bool(record.places) and record.acl == self._directories.get(record.places[0].parent).file_acl
        return _StoredFile(
            record.guid.octets,
            number,
            b"" if is_shared else record.acl,
            record.generation,
            record.threshold,
            record.key_check,
            record.state,
            record.modified,
            record.places,
            rendition.size,
            rendition.header_length,
            rendition.sha256,
            rendition.header_sha256,
            b"" if rendition.segment_sha256 == rendition.sha256 else rendition.segment_sha256,
        )

    def _record(self, inode: bytes, stored: _StoredFile, guid: Guid | None = None) -> FileRecord:
        kind = self._kinds.get(stored.kind)
        if kind is None:
            kind = self._kinds[stored.kind] = _KINDS.decode(self._interned.value_of(stored.kind))
        number, acl, state = int.from_bytes(inode, "big"), stored.acl, stored.state
        if not acl or state is FileState.PENDING:
            directory = self._directories.get(stored.places[0].parent)
            acl = acl or directory.file_acl
            is_shown = state is FileState.PENDING and number <= directory.shown
            state = FileState.VISIBLE if is_shown else state
        rendition = Rendition(
            stored.size,
            stored.header_length,
            stored.sha256,
            stored.header_sha256,
            stored.segment_sha256 or stored.sha256,
            kind.policy,
            kind.engine_generation,
            kind.transfer_syntax,
        )
        return FileRecord(
            guid or Guid(stored.guid),
            number,
            kind.project,
            acl,
            stored.generation,
            stored.threshold,
            stored.key_check,
            state,
            stored.modified,
            stored.places,
            rendition,
        )
