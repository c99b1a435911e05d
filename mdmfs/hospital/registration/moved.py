"""Series whose patient has changed in the PACS: put away until the hospital says that both are one, or they are back.

A merge or a correction; from outside they look alike. What is put away keeps its keys and its place, and no name shows.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.ledger.records import QuarantineRecord, SeriesState
from mdmfs.hospital.metadata.outgoing import send_shown
from mdmfs.hospital.projects import Partial, Project
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.names import Guid


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
                send_shown(tx, series, is_visible=False)
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
            send_shown(tx, series)
    return len(shown)


def _state(tx: Transaction, guid: Guid) -> FileState | None:
    file = tx.catalogue.file(guid)
    return None if file is None else file.state
