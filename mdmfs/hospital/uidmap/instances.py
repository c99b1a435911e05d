"""The UID map as rows: what each GUID stands for, by GUID, by instance and by series."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mdmfs.hospital import tables
from mdmfs.hospital.rows import INTERNED_KEY_SIZE, Interned, Numbers, Stored, digest_key, interned_key, number_key
from mdmfs.hospital.uidmap.records import InstanceRecord, SeriesKey
from mdmfs.hospital.veil import Veiled
from mdmfs.model.errors import StoreError
from mdmfs.model.names import GUID_SIZE, Guid
from mdmfs.model.subject import SubjectId
from mdmfs.rows.port import Rows


class _Context(Veiled, frozen=True, array_like=True):
    """What the instances of a series have in common: kept once."""

    project: str
    subject: SubjectId
    pacs: str
    study_uid: str
    series_uid: str
    class_uid: str
    transfer_syntax: str


class _Instance(Veiled, frozen=True, array_like=True):
    guid: bytes
    packed_uid: bytes


_CONTEXTS: Final = Stored(_Context)
_INSTANCES: Final = Stored(_Instance)
_UID_TEXT: Final = re.compile(r"[0-9.]*")


class UidMap:
    """GUID to instance and back.

    ``n`` + context number + instance number: GUID and instance UID. These rows lie in the order of registration, where
    LMDB fills its pages; what lies in random order is small. ``g`` + GUID: the key of that row after ``n``.
    ``u`` + digest of (project, instance UID): GUIDs, newest first. ``c`` + context number: the context; ``C`` + digest
    of it: its number. ``m`` + ``SeriesKey.octets()`` + context number: nothing.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._interned = Interned(
            rows,
            numbers=tables.CONTEXT_NUMBERS,
            values=tables.CONTEXTS,
            counter=tables.COUNTERS + b"context",
        )
        self._contexts: dict[int, _Context] = {}
        self._numbers: dict[_Context, int] = {}
        self.places: Final = Numbers(rows, tables.COUNTERS + b"instance")

    def tie(self, guid: Guid, record: InstanceRecord) -> None:
        """Keep what a GUID stands for; again with the same record changes nothing.

        Raises ``StoreError`` if the GUID stands for something else.
        """
        number = self._number_of(_context_of(record))
        place = interned_key(number) + number_key(self.places.next())
        if not self._rows.add(tables.PLACES_OF_GUIDS + guid.octets, place):
            if self.resolve(guid) == record:
                return
            message = f"GUID {guid} already stands for another instance"
            raise StoreError(message)
        instance = _Instance(guid.octets, pack_uid(record.instance_uid))
        self._rows.put(tables.INSTANCES + place, _INSTANCES.encode(instance))
        key = _key_of_instance(record.project, record.instance_uid)
        if not self._rows.add(key, guid.octets):
            self._rows.put(key, guid.octets + (self._rows.get(key) or b""))

    def resolve(self, guid: Guid) -> InstanceRecord | None:
        """Give what a GUID stands for, or None."""
        place = self._rows.get(tables.PLACES_OF_GUIDS + guid.octets)
        return None if place is None else self._record(place, _INSTANCES.decode(self._at(place)))

    def guids_of(self, project: str, instance_uid: str) -> list[Guid]:
        """Give the GUIDs of an instance in a project, newest first."""
        octets = self._rows.get(_key_of_instance(project, instance_uid)) or b""
        return [Guid(octets[start : start + GUID_SIZE]) for start in range(0, len(octets), GUID_SIZE)]

    def untie(self, guid: Guid) -> bool:
        """Forget what a GUID stands for, and its context with the last GUID; False where it stood for nothing."""
        place = self._rows.get(tables.PLACES_OF_GUIDS + guid.octets)
        if place is None:
            return False
        record = self._record(place, _INSTANCES.decode(self._at(place)))
        key = _key_of_instance(record.project, record.instance_uid)
        left = [other.octets for other in self.guids_of(record.project, record.instance_uid) if other != guid]
        if left:
            self._rows.put(key, b"".join(left))
        else:
            self._rows.delete(key)
        self._rows.delete(tables.INSTANCES + place)
        self._forget_unused(_context_number(place), record.series)
        return self._rows.delete(tables.PLACES_OF_GUIDS + guid.octets)

    def of_series(self, series: SeriesKey) -> Iterator[tuple[Guid, InstanceRecord]]:
        """Go through the GUIDs of a series; nothing is written while this runs.

        Those of one class and transfer syntax come in the order in which they were tied.
        """
        for place, value in self._instances_of(series):
            instance = _INSTANCES.decode(value)
            yield Guid(instance.guid), self._record(place, instance)

    def count_of_series(self, series: SeriesKey) -> int:
        """Count the GUIDs of a series."""
        return sum(1 for _ in self._instances_of(series))

    def _instances_of(self, series: SeriesKey) -> Iterator[tuple[bytes, bytes]]:
        for number, _ in self._rows.scan(tables.CONTEXTS_OF_SERIES + series.octets()):
            for rest, value in self._rows.scan(tables.INSTANCES + number):
                yield number + rest, value

    def _at(self, place: bytes) -> bytes:
        value = self._rows.get(tables.INSTANCES + place)
        if value is None:
            message = "a GUID refers to an instance that is not in the store: restore the store from its backup"
            raise StoreError(message)
        return value

    def _number_of(self, context: _Context) -> int:
        if context not in self._numbers:
            number = self._numbers[context] = self._interned.number_of(_CONTEXTS.encode(context))
            series = SeriesKey(context.project, context.study_uid, context.series_uid)
            self._rows.put(tables.CONTEXTS_OF_SERIES + series.octets() + interned_key(number), b"")
        return self._numbers[context]

    def _record(self, place: bytes, instance: _Instance) -> InstanceRecord:
        number = _context_number(place)
        context = self._contexts.get(number)
        if context is None:
            context = self._contexts[number] = _CONTEXTS.decode(self._interned.value_of(number))
        return InstanceRecord(
            context.project,
            context.subject,
            context.pacs,
            context.study_uid,
            context.series_uid,
            unpack_uid(instance.packed_uid),
            context.class_uid,
            context.transfer_syntax,
        )

    def _forget_unused(self, number: int, series: SeriesKey) -> None:
        if next(self._rows.scan(tables.INSTANCES + interned_key(number)), None) is not None:
            return
        self._interned.forget(number)
        self._contexts.pop(number, None)
        self._numbers.clear()
        self._rows.delete(tables.CONTEXTS_OF_SERIES + series.octets() + interned_key(number))


def _context_of(record: InstanceRecord) -> _Context:
    return _Context(
        record.project,
        record.subject,
        record.pacs,
        record.study_uid,
        record.series_uid,
        record.class_uid,
        record.transfer_syntax,
    )


def pack_uid(uid: str) -> bytes:
    """Write a UID two characters to a byte; what is no UID (PS3.5 section 9.1) is kept as it is, after a byte 0xFF."""
    if not _UID_TEXT.fullmatch(uid):
        return b"\xff" + uid.encode()
    return bytes.fromhex(uid.replace(".", "a") + "f" * (len(uid) % 2))


def unpack_uid(octets: bytes) -> str:
    """Read what ``pack_uid`` wrote."""
    if octets[:1] == b"\xff":
        return octets[1:].decode()
    return octets.hex().replace("a", ".").rstrip("f")


def _context_number(place: bytes) -> int:
    return int.from_bytes(place[:INTERNED_KEY_SIZE], "big")


def _key_of_instance(project: str, instance_uid: str) -> bytes:
    return tables.GUIDS_OF_INSTANCE + digest_key(project, instance_uid)
