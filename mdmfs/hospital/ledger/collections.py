"""Collections of records as rows: their schemas, and the keys of sealed text."""

from __future__ import annotations

from typing import Final

from mdmfs.hospital import tables
from mdmfs.hospital.ledger.records import CollectionRecord, TextKeyRecord
from mdmfs.hospital.rows import Stored, digest_key
from mdmfs.model.subject import SubjectId
from mdmfs.rows.port import Rows

_COLLECTIONS: Final = Stored(CollectionRecord)
_KEYS: Final = Stored(TextKeyRecord)
_SCHEMA: Final = tables.RECORDS + b"s"
_KEY: Final = tables.RECORDS + b"k"


class Records:
    """Collections of records, as they were last defined, and who has sealed text in them.

    ``p`` + ``s`` + digest of (project, name): the collection. ``p`` + ``k`` + subject + NUL + collection: the key of
    the subject's text in it.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def define(self, record: CollectionRecord) -> None:
        """Keep a collection's schema, in place of the one before."""
        self._rows.put(_SCHEMA + digest_key(record.project, record.name), _COLLECTIONS.encode(record))

    def collection(self, project: str, name: str) -> CollectionRecord | None:
        """Give a collection's schema, or None."""
        value = self._rows.get(_SCHEMA + digest_key(project, name))
        return None if value is None else _COLLECTIONS.decode(value)

    def all(self) -> list[CollectionRecord]:
        """Give every collection's schema, of all projects."""
        return [_COLLECTIONS.decode(value) for _, value in self._rows.scan(_SCHEMA)]

    def put_key(self, record: TextKeyRecord) -> None:
        """Keep what is known of the key of a subject's text in a collection."""
        self._rows.put(_KEY + _place(record.subject, record.collection), _KEYS.encode(record))

    def drop_key(self, record: TextKeyRecord) -> None:
        """Forget a key that is destroyed."""
        self._rows.delete(_KEY + _place(record.subject, record.collection))

    def key(self, subject: SubjectId, collection: str) -> TextKeyRecord | None:
        """Give it, or None."""
        value = self._rows.get(_KEY + _place(subject, collection))
        return None if value is None else _KEYS.decode(value)

    def keys_of(self, subject: SubjectId) -> list[TextKeyRecord]:
        """Give the keys of a subject's text in all collections."""
        return [_KEYS.decode(value) for _, value in self._rows.scan(_KEY + _place(subject, ""))]


def _place(subject: SubjectId, collection: str) -> bytes:
    return subject.text.encode() + b"\0" + collection.encode()
