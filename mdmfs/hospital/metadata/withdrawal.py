"""Withdrawal: with the last file of a subject go the records, by the end of the key that seals their text."""

from __future__ import annotations

from collections.abc import Iterable

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import NoSuchFileError
from mdmfs.model.names import Guid, Lfn
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
    return has_files_of(tx, subject, known.lfn.parent.parent)


def has_files_of(tx: Transaction, subject: SubjectId, his: Lfn) -> bool:
    """Tell whether a file is left of a subject whose directory this is, whether it shows or not."""
    if tx.catalogue.has_files_below(his):
        return True
    try:
        directories = tx.catalogue.directories_below(his)
    except NoSuchFileError:  # no image of it ever had a name
        return False
    found = (tx.series.by_lfn(directory) for directory in directories)
    return any(it.subject == subject and has_files(tx, it.key) for it in found if it is not None)


def has_files(tx: Transaction, key: SeriesKey) -> bool:
    """Tell whether a file of a series is left, whether it shows or not."""
    files = (tx.catalogue.file(guid) for guid, _ in tx.uidmap.of_series(key))
    return any(file is not None and file.state is not FileState.WITHDRAWN for file in files)
