"""Merges: follow a hospital that has made two of its patients one.

First the subject is the other patient, then its series are shown, each in a transaction of its own: a patient may have
100,000 images, and none shows under the wrong one. What a kill or a full disk broke off goes on by itself.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator
from typing import Final

import structlog
import trio

from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.pages import pages_of_series, pages_of_subjects
from mdmfs.hospital.projects import Project
from mdmfs.hospital.registration.moved import put_away_moved, restore
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey, SubjectRow
from mdmfs.model.errors import AccessDeniedError, ConfigurationError, MdmfsError, UnknownNameError
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.administration import Merged

log = structlog.get_logger()

INTERVAL: Final = 600.0
"""Seconds between two looks for merges that were broken off."""
_HELD: Final = frozenset({Reason.MOVED_PATIENT, Reason.OTHER_PATIENT})


async def merge_subjects(
    hospital: Hospital, project: Project, patient: PatientKey, into: PatientKey, *, is_dry: bool = False
) -> Merged:
    """Follow a hospital that has merged a patient into another one.

    The first one's images keep their pseudonym, their names and their bytes, also those under pseudonyms that earlier
    merges gave him; what was put away because the PACS has them under the other one now is shown again. New images come
    under the other one's pseudonym where he has one in this project, else under this. Raises ``UnknownNameError`` for a
    patient that the project does not know, ``ConfigurationError`` for one that its inclusion list does not name, and
    ``AccessDeniedError`` for one that has opted out: a merge includes nobody.
    """
    async with hospital.turns.of(who_is_who(project.name)):
        subjects = await _subjects_of(hospital, project, patient)
        keys = await series_of(hospital, {row.id for row in subjects})
        _refuse_uninvited(hospital, project, patient, into, keys)
        other = hospital.store.read(lambda tx: tx.subjects.find(project.name, into.issuer, into.patient_id))
        told = subjects[0].id.text, (other or subjects[0]).id.text
        if is_dry:
            held = [key for key in keys if hospital.store.read(functools.partial(_is_held, key=key))]
            return Merged(*told, len(held))
        await _record(hospital, project, subjects, told[1])
        await hospital.store.write(functools.partial(_hand_over, subjects=subjects, into=into))
        return Merged(*told, sum([await _end_merge(hospital, row.id) for row in subjects]))


async def take_up_merges(hospital: Hospital) -> None:
    """Go on with merges that were broken off, by a kill or a full disk; now and every ten minutes."""
    while True:
        with _logging_failure():
            for subject in hospital.store.read(lambda tx: tx.subjects.merging()):
                with _logging_failure():  # and try the others
                    await _take_up(hospital, subject)
        await trio.sleep(INTERVAL)


@contextlib.contextmanager
def _logging_failure() -> Iterator[None]:
    try:
        yield
    except MdmfsError as error:
        log.error("a merge cannot be ended", reason=error.told_here)  # noqa: TRY400 the reason says it


async def series_of(hospital: Hospital, subjects: Collection[SubjectId]) -> list[SeriesKey]:
    """List the series of subjects."""
    keys: list[SeriesKey] = []
    for page in pages_of_series(hospital.store):
        keys += [series.key for series in page if series.subject in subjects]
        await trio.lowlevel.checkpoint()
    return keys


def who_is_who(project: str) -> tuple[str, str]:
    """Name the turn of whoever changes which patient a subject of a project is."""
    return "who is who", project


async def _subjects_of(hospital: Hospital, project: Project, patient: PatientKey) -> list[SubjectRow]:
    """List the subjects that are a patient, the one under whom his new images come first."""
    name, found = project.name, list[SubjectRow]()
    for page in pages_of_subjects(hospital.store):
        found += [row for row in page if row.project == name and PatientKey(row.issuer, row.patient_id) == patient]
        await trio.lowlevel.checkpoint()
    if not found:
        message = f"project {name} knows no subject of the first patient: nothing to merge"
        raise UnknownNameError(message, what_to_do="a merge that was broken off goes on by itself, within ten minutes")
    first = hospital.store.read(lambda tx: tx.subjects.find(name, patient.issuer, patient.patient_id))
    return sorted(found, key=lambda row: row != first)


async def _record(hospital: Hospital, project: Project, subjects: Collection[SubjectRow], continues: str) -> None:
    now = hospital.clock()
    outcomes = [f"{row.id.text} continues as {continues}" for row in subjects]
    await hospital.audit.record(
        *[AuditRecord(time=now, event=Event.MERGE, project=project.name, outcome=outcome) for outcome in outcomes]
    )


def _hand_over(tx: Transaction, *, subjects: Collection[SubjectRow], into: PatientKey) -> None:
    for row in subjects:
        tx.subjects.begin_merge(row.id)
        tx.subjects.hand_over(row.id, into.issuer, into.patient_id)


async def _take_up(hospital: Hospital, subject: SubjectId) -> None:
    row = hospital.store.read(lambda tx: tx.subjects.by_id(subject))
    if row is not None and row.project in hospital.projects:
        async with hospital.turns.of(who_is_who(row.project)):
            if subject in hospital.store.read(lambda tx: tx.subjects.merging()):
                log.warning("a merge that was broken off goes on", project=row.project)
                await _end_merge(hospital, subject)


async def _end_merge(hospital: Hospital, subject: SubjectId) -> int:
    """Show the series of a subject that was handed over, and tell how many are shown again.

    They are listed anew, and what is not included is put away: it may have come since that was looked at, and lists may
    be others since a kill.
    """
    row = hospital.store.read(lambda tx: tx.subjects.by_id(subject))
    shown = 0
    if row is not None:
        project, patient = hospital.projects[row.project], PatientKey(row.issuer, row.patient_id)
        for key in await series_of(hospital, {subject}):
            if _is_invited(hospital, project, patient, key):
                shown += bool(await restore(hospital, key, project, _HELD))
            else:
                await put_away_moved(hospital, key)
    await hospital.store.write(lambda tx: tx.subjects.end_merge(subject))
    return shown


def _is_held(tx: Transaction, *, key: SeriesKey) -> bool:
    return any(it.reason in _HELD for it in tx.quarantine.of_series(key))


def _is_invited(hospital: Hospital, project: Project, patient: PatientKey, key: SeriesKey) -> bool:
    is_out = hospital.opted_out.may_mean(patient, key.study_uid)
    return project.inclusion.holds(patient, key.study_uid) and not is_out


def _refuse_uninvited(
    hospital: Hospital, project: Project, patient: PatientKey, into: PatientKey, keys: Collection[SeriesKey]
) -> None:
    if any(hospital.opted_out.may_mean(one, key.study_uid) for one in (patient, into) for key in keys):
        message = "one of the two patients has opted out: his images are not shown again"
        raise AccessDeniedError(message, what_to_do="leave this merge out of the list")
    if not all(project.inclusion.holds(into, key.study_uid) for key in keys):
        message = (
            f"the inclusion list of project {project.name} names neither the patient to merge into nor all studies: "
            "have it approved, add the line, restart hospitald"
        )
        raise ConfigurationError(message)
