"""Questions to the audit log: who read a file or a patient's images, and what somebody read."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, Self

from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.kept.audit import AuditRecord, Event, records_of
from mdmfs.hospital.ledger.records import SeriesRecord
from mdmfs.hospital.pages import PAGE
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SubjectRow
from mdmfs.model.errors import MalformedNameError, NoSuchFileError
from mdmfs.model.identity import Dn
from mdmfs.model.names import Guid, Lfn
from mdmfs.model.subject import SubjectId

READINGS: Final = frozenset({Event.RELEASE, Event.HEADER, Event.CACHED_OPENS, Event.REFUSAL})


@dataclasses.dataclass(slots=True)
class Reader:
    """What one DN did with some files."""

    dn: str
    first: float
    last: float
    releases: int = 0
    ahead: int = 0
    """Of the releases, those that a mount asked for before any program did."""
    cached: int = 0
    """Opens from a mount's own cache, by its own word."""
    refusals: int = 0
    guids: set[str] = dataclasses.field(default_factory=set)
    purposes: set[str] = dataclasses.field(default_factory=set)

    @classmethod
    def of(cls, record: AuditRecord) -> Self:
        """Begin with a record."""
        return cls(record.dn, record.time, record.time)

    def note(self, record: AuditRecord) -> None:
        """Count a record."""
        self.first, self.last = min(self.first, record.time), max(self.last, record.time)
        self.releases += record.count * (record.event is Event.RELEASE)
        self.ahead += record.count * record.ahead
        self.cached += record.count * (record.event is Event.CACHED_OPENS)
        self.refusals += record.count * (record.event is Event.REFUSAL)
        self.guids.add(record.guid)
        if record.purpose:
            self.purposes.add(record.purpose)


def who(log: pathlib.Path, guids: Collection[Guid]) -> list[Reader]:
    """List who read these files, or was refused them, the latest last."""
    wanted = frozenset(map(str, guids))
    readers: dict[str, Reader] = {}
    for record in records_of(log):
        if record.event in READINGS and record.guid in wanted:
            readers.setdefault(record.dn, Reader.of(record)).note(record)
    return sorted(readers.values(), key=lambda reader: reader.last)


def what(log: pathlib.Path, dn: Dn) -> Iterator[AuditRecord]:
    """Go through everything that is on record of somebody, oldest first."""
    is_his: dict[str, bool] = {"": False}
    for record in records_of(log):
        if record.dn not in is_his:
            is_his[record.dn] = _is(record.dn, dn)
        if is_his[record.dn]:
            yield record


def files_below(tx: Transaction, path: str) -> list[Guid]:
    """Name the files that a GUID or an LFN stands for or stood for, in whatever state; those below a directory too.

    Raises ``NoSuchFileError``, ``MalformedNameError``.
    """
    try:
        guid = Guid.parse(path)
    except MalformedNameError:
        lfn = Lfn.parse(path)
        found = files_named(tx, lfn) or _of_series(tx, lambda series: is_below(series, lfn))
    else:
        found = [guid] if tx.catalogue.file(guid) else []
    if not found:
        message = f"no file was ever registered as {path} or below it"
        raise NoSuchFileError(message)
    return found


def files_of_patient(tx: Transaction, patient: PatientKey) -> list[Guid]:
    """Name all files of a patient, in all projects; without an issuer, of whoever has that number."""
    his = {row.id for row in subjects_of_patient(tx, patient)}
    return _of_series(tx, lambda series: series.subject in his)


def subjects_of_patient(tx: Transaction, patient: PatientKey) -> list[SubjectRow]:
    """List the subjects that are a patient, in all projects; without an issuer, whoever has that number."""
    found: list[SubjectRow] = []
    after: SubjectId | None = None
    while page := tx.subjects.page(PAGE, after):
        found += [it for it in page if it.patient_id == patient.patient_id and patient.issuer in {"", it.issuer}]
        after = page[-1].id
    return found


def names_of(tx: Transaction, guids: Iterable[str]) -> dict[str, str]:
    """Give the directory that each file was registered in, where it is known still."""
    names: dict[str, str] = {}
    for text in guids:
        instance = tx.uidmap.resolve(Guid.parse(text))
        series = None if instance is None else tx.series.get(instance.series)
        names[text] = "" if series is None else str(series.lfn)
    return names


def files_named(tx: Transaction, lfn: Lfn) -> list[Guid]:
    """Name the files that were ever made of the image that shows under a name; none where no image does."""
    node = tx.catalogue.look_up(lfn)
    if node is None or not node.guid:
        return []
    instance = tx.uidmap.resolve(Guid(node.guid))
    return tx.uidmap.guids_of(instance.project, instance.instance_uid) if instance else [Guid(node.guid)]


def is_below(series: SeriesRecord, lfn: Lfn) -> bool:
    """Tell whether a series is registered at or below a name."""
    return series.lfn.parts[: len(lfn.parts)] == lfn.parts


def _of_series(tx: Transaction, is_meant: Callable[[SeriesRecord], bool]) -> list[Guid]:
    meant = [series.key for series in tx.series.all() if is_meant(series)]
    return [guid for key in meant for guid, _ in tx.uidmap.of_series(key)]


def _is(text: str, dn: Dn) -> bool:
    try:
        return Dn.parse(text) == dn
    except MalformedNameError:
        return False
