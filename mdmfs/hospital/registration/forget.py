"""Forgetting: who a subject was, and of which images its files were, once all of them are destroyed; for ever.

What leads nowhere any more stays: GUIDs in the audit log, files that are withdrawn, tombstones of their keys.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Final

import msgspec
import trio

from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.ledger.records import OutboxItem
from mdmfs.hospital.metadata.withdrawal import destroy_text_keys, has_files
from mdmfs.hospital.pages import PAGE, pages_of_outbox, pages_of_quarantine, pages_of_series, pages_of_subjects
from mdmfs.hospital.registration.merge import who_is_who
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey, SubjectRow
from mdmfs.model.errors import AccessDeniedError, BusyError, MdmfsError, UnknownNameError
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.administration import Forgotten

SECONDS: Final = 10.0
"""After so many no further subject is begun: whoever asks hears how far it is, and asks on."""
FILES_LEFT: Final = "files of it are left: have them destroyed first"
MAY_COME_AGAIN: Final = "its patient may be registered again: put him on the opt-out list, or let the project end"
NOT_KNOWN: Final = "it is not known, or was forgotten"


@dataclasses.dataclass(frozen=True, slots=True)
class _Traces:
    """What leads to a patient beside the row of his subject."""

    series: set[SeriesKey] = dataclasses.field(default_factory=set)
    refused: set[SeriesKey] = dataclasses.field(default_factory=set)
    """Of which images were refused; there may be no others."""
    waiting: dict[bytes, list[OutboxItem]] = dataclasses.field(default_factory=dict)
    """By series, what keystores that are away were to get: of destroyed keys they will ask for none. No payloads."""


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
    record before. Its row goes last, so that the same call goes on after a kill; what fails is told of the one that it
    failed with. Raises ``UnknownNameError`` for a project of which there is nothing to forget.
    """
    found = [*subjects] or await _subjects_of(hospital, project, after, at_once + 1)
    if not found and after is None:
        message = f"no subject is known of a project {project}"
        raise UnknownNameError(message)
    async with contextlib.nullcontext() if is_dry else _holding_off(hospital, found[:at_once]):
        now = hospital.clock()
        traces = await _traces_of(hospital, found[:at_once])
        told, until = Forgotten({}, {}), trio.current_time() + SECONDS
        for number, subject in enumerate(found):
            if number == at_once or (number and trio.current_time() >= until):
                return msgspec.structs.replace(told, after=found[number - 1].text)
            try:
                files = await _Forgetting(hospital, subject, traces[subject], now, at_once).run(is_dry=is_dry)
            except MdmfsError as error:
                told.kept[subject.text] = str(error)
                continue
            if files is not None:
                told.files[subject.text] = files
            elif subjects:
                told.kept[subject.text] = NOT_KNOWN
        return told


@contextlib.asynccontextmanager
async def _holding_off(hospital: Hospital, subjects: Sequence[SubjectId]) -> AsyncIterator[None]:
    """Let nothing of these subjects be registered for a block: it is looked for traces once."""
    forgetting = hospital.forgetting
    forgetting.update(subjects)
    try:
        await hospital.store.write(lambda _: None)  # behind that which did not know of it yet
        yield
    finally:
        forgetting -= Counter(subjects)


async def _subjects_of(hospital: Hospital, project: str, after: SubjectId | None, limit: int) -> list[SubjectId]:
    found: list[SubjectId] = []
    for page in pages_of_subjects(hospital.store, after=after):
        found += [row.id for row in page if row.project == project]
        if len(found) >= limit:
            break
        await trio.lowlevel.checkpoint()
    return found[:limit]


async def _traces_of(hospital: Hospital, subjects: Sequence[SubjectId]) -> Mapping[SubjectId, _Traces]:
    traces = {subject: _Traces() for subject in subjects}
    by_text = {subject.text: found for subject, found in traces.items()}
    by_series: dict[bytes, _Traces] = {}
    for page in pages_of_series(hospital.store):
        for series in page:
            if (found := traces.get(series.subject)) is not None:
                found.series.add(series.key)
                by_series[series.key.octets()] = found
        await trio.lowlevel.checkpoint()
    for refusals in pages_of_quarantine(hospital.store):
        for refusal in refusals:
            if (found := by_text.get(refusal.subject)) is not None:
                found.refused.add(refusal.series)
        await trio.lowlevel.checkpoint()
    for items in pages_of_outbox(hospital.store):
        for item in items:
            if (found := by_series.get(item.series)) is not None:
                found.waiting.setdefault(item.series, []).append(msgspec.structs.replace(item, payload=b""))
        await trio.lowlevel.checkpoint()
    return traces


@dataclasses.dataclass(frozen=True, slots=True)
class _Forgetting:
    """The forgetting of one subject."""

    hospital: Hospital
    subject: SubjectId
    traces: _Traces
    now: float
    """Before it was looked for traces: of a project that was over then none has come since."""
    at_once: int

    async def run(self, *, is_dry: bool) -> int | None:
        """Forget it, and tell how many files it had; None where it is not known. Raises an error that says why not.

        Nobody registers anything in its series meanwhile, and its patient stays the same one.
        """
        async with contextlib.AsyncExitStack() as turns:
            for key in self.traces.series:
                await turns.enter_async_context(self.hospital.turns.of(key.octets()))
            if (row := self._row()) is None:
                return None
            await turns.enter_async_context(self.hospital.turns.of(who_is_who(row.project)))
            if (row := self._row()) is None:  # as it was before the turn
                return None
            await self._refuse(row)
            read = self.hospital.store.read
            count = sum([read(functools.partial(_count, key=key)) for key in self.traces.series])
            if not is_dry:
                await self._forget(row, count)
            return count

    async def _refuse(self, row: SubjectRow) -> None:
        """Raise ``BusyError`` while a file is left, and ``AccessDeniedError`` where the patient may come again.

        He would be, by the next harvest: what keeps withdrawn images away is forgotten, too.
        """
        for key in self.traces.series:
            if self.hospital.store.read(functools.partial(has_files, key=key)):
                raise BusyError(FILES_LEFT)
            await trio.lowlevel.checkpoint()
        project, patient = self.hospital.projects.get(row.project), PatientKey(row.issuer, row.patient_id)
        if project is None or project.is_over(self.now):
            return
        studies = {key.study_uid for key in (*self.traces.series, *self.traces.refused)} or {""}
        included = {study for study in studies if project.inclusion.holds(patient, study)}
        if not all(self.hospital.opted_out.may_mean(patient, study) for study in included):
            raise AccessDeniedError(MAY_COME_AGAIN)

    async def _forget(self, row: SubjectRow, count: int) -> None:
        hospital = self.hospital
        record = AuditRecord(
            time=hospital.clock(), event=Event.FORGETTING, project=row.project, path=f"sub-{row.id}", count=count
        )
        await hospital.audit.record(record)
        for key in self.traces.series:
            forget_some = functools.partial(_forget_some, key=key, traces=self.traces, at_once=self.at_once)
            while await hospital.store.write(forget_some):
                pass
        await hospital.store.write(lambda tx: _forget_who(tx, row.id, self.traces.refused))
        hospital.outbox.ring()

    def _row(self) -> SubjectRow | None:
        return self.hospital.store.read(lambda tx: tx.subjects.by_id(self.subject))


def _forget_some(tx: Transaction, *, key: SeriesKey, traces: _Traces, at_once: int) -> bool:
    """Forget of which images some files of a series were, and the series with the last; True where more are left."""
    guids = [guid for guid, _ in itertools.islice(tx.uidmap.of_series(key), at_once)]
    for guid in guids:
        tx.uidmap.untie(guid)
    if len(guids) == at_once:
        return True
    for refusal in tx.quarantine.of_series(key):
        tx.quarantine.remove(key, refusal.instance_uid)
    for item in traces.waiting.get(key.octets(), ()):
        tx.outbox.drop(item.destination, [item.number])
    tx.series.remove(key)
    return False


def _forget_who(tx: Transaction, subject: SubjectId, refused: Collection[SeriesKey]) -> None:
    for key in refused:
        for refusal in tx.quarantine.of_series(key):
            if refusal.subject in {subject.text, ""}:  # some are refused before it is known whose they are
                tx.quarantine.remove(key, refusal.instance_uid)
    destroy_text_keys(tx, subject)
    tx.subjects.delete(subject)


def _count(tx: Transaction, *, key: SeriesKey) -> int:
    return tx.uidmap.count_of_series(key)
