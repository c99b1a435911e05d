"""Withdrawal: with the last file of a subject go the records, by the end of the key that seals their text."""

from __future__ import annotations

from collections.abc import Iterable

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId


def withdraw_records_of(tx: Transaction, guids: Iterable[Guid]) -> None:
    """Destroy the record keys of subjects of whom no file is left: keystores and metadata service hear of it."""
    instances = (tx.uidmap.resolve(guid) for guid in guids)
    series_of = {instance.subject: instance.series for instance in instances if instance is not None}
    for subject, series in series_of.items():
        if tx.records.keys_of(subject) and not _is_any_left(tx, subject, series):
            destroy_text_keys(tx, subject)


def destroy_text_keys(tx: Transaction, subject: SubjectId) -> None:
    """Destroy the keys that seal the text of a subject's records, and with them the records."""
    for key in tx.records.keys_of(subject):
        tx.epochs.bury(Guid(key.guid))
        tx.records.drop_key(key)


def _is_any_left(tx: Transaction, subject: SubjectId, one: SeriesKey) -> bool:
    """Ask whether a file is left of a subject, one of whose series this is: all are below the subject's directory."""
    known = tx.series.get(one)
    if known is None:
        return False
    his = known.lfn.parent.parent
    if tx.catalogue.has_files_below(his):
        return True
    found = (tx.series.by_lfn(directory) for directory in tx.catalogue.directories_below(his))
    return any(it.subject == subject and has_files(tx, it.key) for it in found if it is not None)


def has_files(tx: Transaction, key: SeriesKey) -> bool:
    """Tell whether a file of a series is left, whether it shows or not."""
    files = (tx.catalogue.file(guid) for guid, _ in tx.uidmap.of_series(key))
    return any(file is not None and file.state is not FileState.WITHDRAWN for file in files)
