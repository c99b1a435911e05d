"""Forgetting: who a subject was, and of which images its files were, once all of them are destroyed; for ever.

What leads nowhere any more stays: GUIDs in the audit log, files that are withdrawn, tombstones of their keys.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import trio

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.metadata.withdrawal import destroy_text_keys, has_files
from mdmfs.hospital.pages import PAGE, pages_of_quarantine, pages_of_series, pages_of_subjects
from mdmfs.hospital.registration.merge import who_is_who
from mdmfs.hospital.release.audit import AuditRecord, Event
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey, SubjectRow
from mdmfs.model.errors import BusyError, UnknownNameError
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.administration import Forgotten

SECONDS: Final = 10.0
"""After so many no further subject is begun: whoever asks hears how far it is, and asks on."""
FILES_LEFT: Final = "files of it are left: have them destroyed first"
MAY_COME_AGAIN: Final = "its patient may be registered again: put him on the opt-out list, or let the project end"


@dataclasses.dataclass(frozen=True, slots=True)
class _Traces:
    """What leads to a patient beside the row of his subject."""

    series: list[SeriesKey] = dataclasses.field(default_factory=list)
    refusals: list[tuple[SeriesKey, str]] = dataclasses.field(default_factory=list)
    """Of images of series of which there may be no other, by their UIDs."""


async def forget_subjects(
    hospital: Hospital,
    subjects: Sequence[SubjectId] = (),
    project: str = "",
    after: SubjectId | None = None,
    *,
    is_dry: bool = False,
    at_once: int = PAGE,
) -> Forgotten:
    """Forget these subjects, or those of a project after one; tell of each how many files it had, or why it is kept.

    ``at_once`` subjects are gone through at most, and as many files forgotten in one transaction. Each subject is on
    record before. Its row goes last, so that the same call goes on after a kill. Raises ``UnknownNameError`` for a
    subject or a project of which there is nothing to forget.
    """
    rows = list(_rows_of(hospital, subjects, project, after))
    if not rows and after is None:
        message = f"no subject is known of a project {project}"
        raise UnknownNameError(message)
    traces = await _traces_of(hospital, rows)
    files: dict[str, int] = {}
    kept: dict[str, str] = {}
    until = trio.current_time() + SECONDS
    for number, row in enumerate(rows):
        if number == at_once or (number and trio.current_time() >= until):
            return Forgotten(files, kept, rows[number - 1].id.text)
        async with hospital.turns.of(who_is_who(row.project)):
            if why := await _why_kept(hospital, row, traces[row.id]):
                kept[row.id.text] = why
            else:
                files[row.id.text] = await _forget(hospital, row, traces[row.id], at_once, is_dry=is_dry)
    return Forgotten(files, kept)


def _rows_of(
    hospital: Hospital, subjects: Sequence[SubjectId], project: str, after: SubjectId | None
) -> Iterator[SubjectRow]:
    for subject in subjects:
        row = hospital.store.read(functools.partial(_row, subject=subject))
        if row is None:
            message = f"there is no subject sub-{subject}, or it is forgotten"
            raise UnknownNameError(message)
        yield row
    for page in () if subjects else pages_of_subjects(hospital.store, after=after):
        yield from (row for row in page if row.project == project)


async def _traces_of(hospital: Hospital, rows: Sequence[SubjectRow]) -> Mapping[SubjectId, _Traces]:
    traces = {row.id: _Traces() for row in rows}
    for page in pages_of_series(hospital.store):
        for series in page:
            if series.subject in traces:
                traces[series.subject].series.append(series.key)
        await trio.lowlevel.checkpoint()
    by_text = {subject.text: found for subject, found in traces.items()}
    for refusals in pages_of_quarantine(hospital.store):
        for refusal in refusals:
            if refusal.subject in by_text:
                by_text[refusal.subject].refusals.append((refusal.series, refusal.instance_uid))
        await trio.lowlevel.checkpoint()
    return traces


async def _why_kept(hospital: Hospital, row: SubjectRow, traces: _Traces) -> str:
    """Say why a subject cannot be forgotten; empty where it can.

    Who may be registered again would be, by the next harvest: what keeps withdrawn images away is forgotten, too.
    """
    for key in traces.series:
        if hospital.store.read(functools.partial(has_files, key=key)):
            return FILES_LEFT
        await trio.lowlevel.checkpoint()
    project, patient = hospital.projects.get(row.project), PatientKey(row.issuer, row.patient_id)
    if project is None or project.is_over(hospital.clock()):
        return ""
    keys = [*traces.series, *[key for key, _ in traces.refusals]]
    studies = {key.study_uid for key in keys} or {""}
    included = {study for study in studies if project.inclusion.holds(patient, study)}
    return "" if all(hospital.opted_out.may_mean(patient, study) for study in included) else MAY_COME_AGAIN


async def _forget(hospital: Hospital, row: SubjectRow, traces: _Traces, at_once: int, *, is_dry: bool) -> int:
    counts = [hospital.store.read(functools.partial(_count, key=key)) for key in traces.series]
    if is_dry:
        return sum(counts)
    record = AuditRecord(
        time=hospital.clock(), event=Event.FORGETTING, project=row.project, path=f"sub-{row.id}", count=sum(counts)
    )
    await hospital.audit.record(record)
    for key in traces.series:
        async with hospital.turns.of(key.octets()):  # an image may be on its way to registration
            while await hospital.store.write(functools.partial(_forget_some, key=key, at_once=at_once)):
                pass
    await hospital.store.write(functools.partial(_forget_who, subject=row.id, traces=traces))
    hospital.outbox.ring()
    return sum(counts)


def _forget_some(tx: Transaction, *, key: SeriesKey, at_once: int) -> bool:
    """Forget of which images some files of a series were, and the series with the last; True where more are left."""
    guids = [guid for guid, _ in itertools.islice(tx.uidmap.of_series(key), at_once)]
    if any(not _is_withdrawn(tx, guid) for guid in guids):
        message = "a file has come of a subject that is being forgotten: its project has not ended long enough"
        raise BusyError(message, what_to_do="wait for its end, and call it again")
    for guid in guids:
        tx.uidmap.untie(guid)
    if len(guids) == at_once:
        return True
    for refusal in tx.quarantine.of_series(key):
        tx.quarantine.remove(key, refusal.instance_uid)
    tx.outbox.drop_series(key.octets())  # for a keystore that is away: of destroyed keys it will ask for none
    tx.series.remove(key)
    return False


def _forget_who(tx: Transaction, *, subject: SubjectId, traces: _Traces) -> None:
    for key, instance_uid in traces.refusals:
        tx.quarantine.remove(key, instance_uid)
    destroy_text_keys(tx, subject)
    tx.subjects.delete(subject)


def _is_withdrawn(tx: Transaction, guid: Guid) -> bool:
    file = tx.catalogue.file(guid)
    return file is None or file.state is FileState.WITHDRAWN


def _row(tx: Transaction, *, subject: SubjectId) -> SubjectRow | None:
    return tx.subjects.by_id(subject)


def _count(tx: Transaction, *, key: SeriesKey) -> int:
    return tx.uidmap.count_of_series(key)
