"""Series whose patient has changed in the PACS: put away until the hospital says that both are one, or they are back.

A merge or a correction; from outside they look alike. What is put away keeps its keys and its place, and no name shows.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Final

import msgspec
import trio

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.records import QuarantineRecord, SeriesState
from mdmfs.hospital.metadata.outgoing import send_shown
from mdmfs.hospital.pages import pages_of_series
from mdmfs.hospital.projects import Partial, Project
from mdmfs.hospital.release.audit import AuditRecord, Event
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey, SubjectRow
from mdmfs.model.errors import AccessDeniedError, ConfigurationError, UnknownNameError
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.administration import Merged

_HELD: Final = frozenset({Reason.MOVED_PATIENT, Reason.OTHER_PATIENT})


async def put_away_moved(hospital: Hospital, key: SeriesKey) -> int:
    """Take the names of a series away whose patient is another in the PACS; gives how many files have or had one.

    What does not show yet is held back: its keys may be on their way.
    """
    now = hospital.clock()

    def act(tx: Transaction) -> list[Guid]:
        visible, held_back = [], []
        for guid, instance in list(tx.uidmap.of_series(key)):
            state, is_held = _state(tx, guid), tx.quarantine.get(key, instance.instance_uid) is not None
            if state is FileState.VISIBLE:
                visible.append(guid)
            elif state is FileState.PENDING and not is_held:
                held_back.append(guid)
            else:
                continue
            if not is_held:
                tx.quarantine.put(_moved(key, instance.instance_uid, now))
        series = tx.series.get(key)
        if (visible or held_back) and series is not None:
            tx.catalogue.quarantine(visible)
            tx.series.put(msgspec.structs.replace(series, state=SeriesState.HIDDEN))
            if hospital.has_metadata:
                send_shown(tx, series.lfn, is_visible=False)
        return visible + held_back

    guids = await hospital.store.write(act)
    if guids:
        hospital.feed.bell.ring()
        hospital.outbox.ring()
        for guid in guids:
            hospital.discard(guid)
        outcome = Reason.MOVED_PATIENT.value
        await hospital.audit.record(
            AuditRecord(time=now, event=Event.QUARANTINE, project=key.project, outcome=outcome, count=len(guids))
        )
    return len(guids)


def _moved(key: SeriesKey, instance_uid: str, now: float) -> QuarantineRecord:
    return QuarantineRecord(
        project=key.project,
        study_uid=key.study_uid,
        series_uid=key.series_uid,
        instance_uid=instance_uid,
        reason=Reason.MOVED_PATIENT.value,
        tag="",
        when=now,
    )


async def restore(hospital: Hospital, key: SeriesKey, project: Project, reasons: Collection[Reason]) -> int:
    """Show a series again that was put away for these reasons; gives how many files have their names back."""
    is_held = hospital.store.read(lambda tx: any(it.reason in reasons for it in tx.quarantine.of_series(key)))
    if not is_held:
        return 0
    shown = await hospital.store.write(lambda tx: _restore(tx, key, project, reasons, hospital))
    if shown:
        hospital.feed.bell.ring()
        hospital.outbox.ring()
    return shown


def _restore(tx: Transaction, key: SeriesKey, project: Project, reasons: Collection[Reason], hospital: Hospital) -> int:
    """Forget why a series was put away, and show it unless it hides for another reason.

    What was held back before it had been shown waits for the next harvest, which counts it and looks at its keys. What
    is gone because a run that renders anew met another patient is for the next such run.
    """
    for record in tx.quarantine.of_series(key):
        guids = tx.uidmap.guids_of(key.project, record.instance_uid)
        if record.reason not in reasons or not guids:
            continue
        if _state(tx, guids[0]) is FileState.WITHDRAWN:
            tx.quarantine.put(msgspec.structs.replace(record, rules=b""))
        else:
            tx.quarantine.remove(key, record.instance_uid)
    left = {record.instance_uid for record in tx.quarantine.of_series(key)}
    series = tx.series.get(key)
    if series is None or (left and project.partial is Partial.HIDE):
        return 0
    shown = [
        guid
        for guid, instance in tx.uidmap.of_series(key)
        if _state(tx, guid) is FileState.QUARANTINED and instance.instance_uid not in left
    ]
    tx.catalogue.show(shown)
    is_pending = any(_state(tx, guid) is FileState.PENDING for guid, _ in tx.uidmap.of_series(key))
    if is_pending and series.state is SeriesState.HIDDEN:
        tx.series.put(msgspec.structs.replace(series, state=SeriesState.REGISTERING))
    elif shown:
        tx.series.put(msgspec.structs.replace(series, state=SeriesState.VISIBLE))
        if hospital.has_metadata:
            send_shown(tx, series.lfn)
    return len(shown)


async def merge_subjects(
    hospital: Hospital, project: Project, patient: PatientKey, into: PatientKey, *, is_dry: bool = False
) -> Merged:
    """Follow a hospital that has merged a patient into another one.

    The first one's images keep their pseudonym, their names and their bytes; what was put away because the PACS has
    them under the other one now is shown again. New images come under the other one's pseudonym where he has one in
    this project, else under this. Raises ``UnknownNameError`` for a patient that the project does not know,
    ``ConfigurationError`` for one that its inclusion list does not name, and ``AccessDeniedError`` for one that has
    opted out: a merge includes nobody.

    First the subject is the other patient, then its series are shown, each in a transaction of its own: a patient may
    have 100,000 images, and none shows under the wrong one. A call that was cut off is ended by the same one again.
    """
    name = project.name

    def find(tx: Transaction) -> tuple[SubjectRow, SubjectRow]:
        row = _subject_to_merge(tx, name, patient, into)
        return row, tx.subjects.find(name, into.issuer, into.patient_id) or row

    row, other = hospital.store.read(find)
    keys = await _series_of(hospital, row.id)
    _refuse_uninvited(hospital, project, patient, into, keys)
    if is_dry:
        held = [key for key in keys if hospital.store.read(functools.partial(_is_held, key=key))]
        return Merged(row.id.text, other.id.text, len(held))
    outcome = f"{row.id.text} continues as {other.id.text}"
    await hospital.audit.record(AuditRecord(time=hospital.clock(), event=Event.MERGE, project=name, outcome=outcome))

    def hand_over(tx: Transaction) -> None:
        subject = _subject_to_merge(tx, name, patient, into).id
        tx.subjects.begin_merge(name, patient.issuer, patient.patient_id, subject)
        tx.subjects.hand_over(subject, into.issuer, into.patient_id)

    await hospital.store.write(hand_over)
    shown = sum([bool(await restore(hospital, key, project, _HELD)) for key in keys])
    await hospital.store.write(lambda tx: tx.subjects.end_merge(name, patient.issuer, patient.patient_id))
    return Merged(row.id.text, other.id.text, shown)


def _subject_to_merge(tx: Transaction, project: str, patient: PatientKey, into: PatientKey) -> SubjectRow:
    """Find whose series are to be shown again; first the one that the same call has handed over and not ended."""
    asked = project, patient.issuer, patient.patient_id
    begun = tx.subjects.merging(*asked)
    if begun is not None and PatientKey(begun.issuer, begun.patient_id) == into:
        return begun
    row = tx.subjects.find(*asked)
    if row is None:
        message = f"project {project} knows no subject of the first patient: nothing to merge"
        raise UnknownNameError(message)
    return row


async def _series_of(hospital: Hospital, subject: SubjectId) -> list[SeriesKey]:
    keys: list[SeriesKey] = []
    for page in pages_of_series(hospital.store):
        keys += [series.key for series in page if series.subject == subject]
        await trio.lowlevel.checkpoint()
    return keys


def _is_held(tx: Transaction, *, key: SeriesKey) -> bool:
    return any(it.reason in _HELD for it in tx.quarantine.of_series(key))


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


def _state(tx: Transaction, guid: Guid) -> FileState | None:
    file = tx.catalogue.file(guid)
    return None if file is None else file.state
