"""Withdrawal: with the last file of a subject go the records, by the end of the key that seals their text."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId


def withdraw_records_of(tx: Transaction, guids: Iterable[Guid]) -> None:
    """Destroy the record keys of subjects of whom no file is left: keystores and metadata service hear of it."""
    instances = (tx.uidmap.resolve(guid) for guid in guids)
    subjects = {instance.subject for instance in instances if instance is not None}
    keys = {subject: found for subject in subjects if (found := tx.records.keys_of(subject))}
    for subject in keys.keys() - _with_files(tx, keys.keys()):
        for key in keys[subject]:
            tx.epochs.bury(Guid(key.guid))
            tx.records.drop_key(key)


def _with_files(tx: Transaction, subjects: Collection[SubjectId]) -> set[SubjectId]:
    """Find those of whom a file is left, in one look through all series."""
    found: set[SubjectId] = set()
    for series in tx.series.all() if subjects else ():
        if series.subject in subjects and series.subject not in found and _has_files(tx, series.key):
            found.add(series.subject)
    return found


def _has_files(tx: Transaction, key: SeriesKey) -> bool:
    files = (tx.catalogue.file(guid) for guid, _ in tx.uidmap.of_series(key))
    return any(file is not None and file.state is not FileState.WITHDRAWN for file in files)
