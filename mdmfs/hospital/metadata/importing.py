"""Importing: records of patients come in, records of subjects go on their way, sealed text under keys nobody keeps.

A subject's text in one collection has one key, made once and deposited at the keystores, which let those have it who
may read the collection; the hospital keeps none, and the metadata service never has one (docs/adr/0012).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
import trio

from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.hospital import Hospital, subject_of
from mdmfs.hospital.kept.escrow import (
    FIRST_GENERATION,
    Deposit,
    NewKey,
    key_entries,
    random_guid,
    split_key,
    verifier,
)
from mdmfs.hospital.ledger.records import DEPOSIT, CollectionRecord, TextKeyRecord
from mdmfs.hospital.metadata.attributes import AttributeValue
from mdmfs.hospital.metadata.defining import project_of_records, whole_collection
from mdmfs.hospital.metadata.outgoing import send_records, versions
from mdmfs.hospital.metadata.rows import RefusedRowError, Translated, translate
from mdmfs.hospital.metadata.withdrawal import has_files_of
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SubjectRow
from mdmfs.model.errors import BusyError, MalformedMessageError, TooFewSharesError, UnknownNameError
from mdmfs.model.names import GUID_SIZE, Guid, Lfn
from mdmfs.model.subject import SubjectId
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import SALT_SIZE
from mdmfs.sealing.seal import seal
from mdmfs.sharing.shamir import SECRET_SIZE
from mdmfs.wire.messages.metadata import PutRecords, RecordEntry
from mdmfs.wire.messages.records import ImportedRecords, ImportRecords, PatientRecord

DEADLINE: Final = 20.0
RETRY_SECONDS: Final = 0.2
BATCH: Final = 500
_AGAIN: Final = "import the file again: rows that were taken stay as they are"
_LABEL: Final = b"mdmfs record 1"


async def import_records(hospital: Hospital, asked: ImportRecords) -> ImportedRecords:
    """Take rows, each by itself; what is taken is durable when this returns, and on its way.

    Raises ``UnknownNameError`` for a project or collection that there is not, ``ConfigurationError`` where the hospital
    keeps no records, ``BusyError`` where the collection is defined anew or a subject goes meanwhile, and what
    collecting keys raises.
    """
    directory = project_of_records(hospital, asked.project)
    if len(asked.rows) > BATCH:
        message = f"at most {BATCH} rows at once"
        raise MalformedMessageError(message)
    collection = known_collection(hospital, asked.project, asked.collection)
    run = _Import(hospital, collection, directory)
    reasons = [run.take(row) for row in asked.rows]
    async with hospital.turns.of(("records", collection.project, collection.name)):
        await run.bring_keys()
        await hospital.store.write(run.send)
    hospital.outbox.ring()
    return ImportedRecords(reasons)


def known_collection(hospital: Hospital, project: str, name: str) -> CollectionRecord:
    """Give a collection whole; raises ``UnknownNameError``."""
    found = hospital.store.read(lambda tx: whole_collection(tx, project, name))
    if found is None:
        message = f"the project {project} has no collection {name}"
        raise UnknownNameError(message, what_to_do="define it first: mdmfs record define")
    return found


class _Taken(NamedTuple):
    row: SubjectRow
    guid: bytes
    translated: Translated


class _Import:
    """One batch of rows of one collection."""

    def __init__(self, hospital: Hospital, collection: CollectionRecord, directory: Lfn) -> None:
        """``directory`` is that of the project."""
        self._hospital = hospital
        self._collection = collection
        self._directory = directory
        self._taken: list[_Taken] = []
        self._keys: dict[SubjectId, TextKeyRecord] = {}
        self._found: dict[SubjectId, TextKeyRecord | None] = {}
        """What there was of them before."""
        self._new: list[NewKey] = []
        self._sealed: dict[bytes, bytes] = {}

    def take(self, patient: PatientRecord) -> str:
        """Take a row, or say why not."""
        key = PatientKey(patient.issuer, patient.patient_id)
        if self._hospital.opted_out.may_mean(key, ""):
            return "the patient has opted out"
        project = self._collection.project
        row = self._hospital.store.read(lambda tx: tx.subjects.find(project, key.issuer, key.patient_id))
        if row is None or not self._hospital.store.read(lambda tx: self._has_files(tx, row.id)):
            return "no image of this patient is registered in the project"
        try:
            translated = translate(patient.values, self._collection, key, subject_of(row))
        except RefusedRowError as refused:
            return str(refused)
        self._taken.append(_Taken(row, self._guid(row, translated.values), translated))
        return ""

    async def bring_keys(self) -> None:
        """Find or make the key of each subject, and seal the text."""
        by_subject: dict[SubjectId, list[_Taken]] = {}
        for one in self._taken:
            by_subject.setdefault(one.row.id, []).append(one)
        name = self._collection.name
        for subject, taken in by_subject.items():
            found = self._hospital.store.read(lambda tx, subject=subject: tx.records.key(subject, name))  # type: ignore[misc]
            self._found[subject] = found
            texts = [one for one in taken if one.translated.sealed]
            if found is None:
                self._make_key(subject, texts)
            else:
                self._keys[subject] = found
                if texts:
                    await self._seal_with_old_key(found, texts)

    def send(self, tx: Transaction) -> None:
        """Put everything on its way, in one transaction; raises ``BusyError`` if it no longer is what was asked for."""
        collection = self._collection
        if whole_collection(tx, collection.project, collection.name) != collection:
            message = f"the collection {collection.name} of {collection.project} has been defined anew meanwhile"
            raise BusyError(message, what_to_do=_AGAIN)
        for subject, found in self._found.items():
            is_there = tx.subjects.by_id(subject) is not None and self._has_files(tx, subject)
            if not is_there or tx.records.key(subject, collection.name) != found:
                message = f"a subject of these rows has gone meanwhile from {collection.project}, or its files have"
                raise BusyError(message, what_to_do=_AGAIN)
        inode = tx.catalogue.make_directories(Lfn.parse(collection.lfn))
        chain = tx.acls.ids_above(inode)
        acls = versions(tx, chain)
        for key in self._keys.values():
            tx.records.put_key(key)
        for keystore in self._hospital.keystores.names if self._new else ():
            entries = key_entries(self._new, keystore, {key.guid: [chain] for key in self._new})
            tx.outbox.push(keystore, DEPOSIT, b"", self._hospital.seal.seal(keystore, Deposit(acls, entries)))
        records = [
            RecordEntry(
                one.guid,
                one.row.id.text,
                one.translated.values,
                self._keys[one.row.id].guid,
                self._sealed.get(one.guid, b""),
            )
            for one in self._taken
        ]
        if records:
            send_records(tx, PutRecords(collection.project, collection.name, records))

    def _has_files(self, tx: Transaction, subject: SubjectId) -> bool:
        """Ask whether a file is left of a subject: with the last one its records have gone, for ever."""
        return has_files_of(tx, subject, self._directory / f"sub-{subject}")

    def _make_key(self, subject: SubjectId, texts: list[_Taken]) -> None:
        """Draw a key, seal what there is to seal, split the key, and forget it."""
        guid = random_guid()
        with FileKey.from_random(secrets.token_bytes(SECRET_SIZE)) as key:
            made = split_key(key, guid, self._hospital.keystores.names, self._hospital.threshold, FIRST_GENERATION)
            self._seal_all(key, guid.octets, texts)
        self._new.append(made)
        self._keys[subject] = TextKeyRecord(
            subject, self._collection.name, guid.octets, made.check, self._hospital.threshold
        )

    async def _seal_with_old_key(self, found: TextKeyRecord, texts: list[_Taken]) -> None:
        """Collect the key under the hospital's own DN; shares that were just made may still be on their way."""
        guid = Guid(found.guid)
        verify = verifier(guid, FIRST_GENERATION, found.check)
        deadline = trio.current_time() + DEADLINE
        while True:
            try:
                async with self._hospital.keystores.collecting([guid], deadline=deadline) as gathering:
                    with await gathering.key(guid, verify, threshold=found.threshold) as key:
                        self._seal_all(key, found.guid, texts)
                        return
            except TooFewSharesError:
                if trio.current_time() + RETRY_SECONDS > deadline:
                    raise
            await trio.sleep(RETRY_SECONDS)

    def _seal_all(self, key: FileKey, guid: bytes, texts: list[_Taken]) -> None:
        for one in texts:
            octets = msgspec.msgpack.encode(one.translated.sealed)
            context = ObjectContext(Role.BODY, Guid(guid), FIRST_GENERATION, len(octets))
            self._sealed[one.guid] = seal(octets, key, context, secrets.token_bytes(SALT_SIZE))

    def _guid(self, row: SubjectRow, values: Mapping[str, AttributeValue]) -> bytes:
        """Name a record by what makes it one, under the subject's own key: imported again, it is the same record."""
        named = self._collection.key or sorted(values)
        said = [self._collection.name, *((name, values.get(name)) for name in named)]
        digest = hmac.digest(row.uid_key, _LABEL + msgspec.msgpack.encode(said), "sha256")
        return Guid.from_random(digest[:GUID_SIZE]).octets
