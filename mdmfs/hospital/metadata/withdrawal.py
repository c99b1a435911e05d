"""Withdrawal: with the last file of a subject go the records, by the end of the key that seals their text."""

from __future__ import annotations

from collections.abc import Iterable

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.store import Transaction
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId


def withdraw_records_of(tx: Transaction, guids: Iterable[Guid]) -> None:
    """Destroy the record keys of subjects of whom no file is left: keystores and metadata service hear of it."""
    instances = (tx.uidmap.resolve(guid) for guid in guids)
    for subject in {instance.subject for instance in instances if instance is not None}:
        keys = tx.records.keys_of(subject)
        if keys and not _has_files(tx, subject):
            for key in keys:
                tx.epochs.bury(Guid(key.guid))
                tx.records.drop_key(key)


def _has_files(tx: Transaction, subject: SubjectId) -> bool:
    mine = (series.key for series in tx.series.all() if series.subject == subject)
    files = (tx.catalogue.file(guid) for key in mine for guid, _ in tx.uidmap.of_series(key))
    return any(file is not None and file.state is not FileState.WITHDRAWN for file in files)
