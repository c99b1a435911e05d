"""Register one series: retrieve its instances, measure what each becomes, and remember it, so that it can appear whole.

Two commits. PENDING holds everything there is to know of an instance, the shares of its key among
it, in one transaction; a crash afterwards sends the same shares again. VISIBLE follows in ``deposit``, when enough
keystores have acknowledged and the PACS counted the same instances twice.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.catalogue.records import Rendition
from mdmfs.hospital.catalogue.times import time_of
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.pseudonyms import (
    DAYS_IN_WEEK,
    MAX_WEEKS_BACK,
    MIN_WEEKS_BACK,
    MINUTES_IN_DAY,
    UID_KEY_SIZE,
    PatientKey,
    Subject,
)
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.walk import Memory
from mdmfs.hospital.dicom.pacs import IncomingInstance, InstanceFound, SeriesFound
from mdmfs.hospital.hospital import Hospital, subject_of
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.kept.escrow import make_key, random_guid
from mdmfs.hospital.kept.headers import Beginning, KeptHeader
from mdmfs.hospital.kept.known import claim_of
from mdmfs.hospital.ledger.records import QuarantineRecord, SeriesRecord, SeriesState
from mdmfs.hospital.metadata.attributes import NO_ATTRIBUTES, Attributes, attributes_of
from mdmfs.hospital.outbox.deposit import show_deposited
from mdmfs.hospital.projects import Partial, Project
from mdmfs.hospital.registration.moved import put_away_moved
from mdmfs.hospital.registration.naming import SeriesNames, harmless, names_of, series_lfn
from mdmfs.hospital.registration.not_included import forget_not_included
from mdmfs.hospital.registration.remember import BEING_FORGOTTEN, Measured, remember, remember_refusal
from mdmfs.hospital.registration.series import arriving, is_of_another, is_stable
from mdmfs.hospital.registration.settled import is_half_anew, missing_of, rules_of
from mdmfs.hospital.release.outdated import keep_headers
from mdmfs.hospital.release.render import Admission, Admit, Rendering, measure
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import InstanceRecord, SeriesKey, SubjectRow
from mdmfs.model.errors import BusyError
from mdmfs.model.names import Lfn
from mdmfs.model.subject import SUBJECT_ID_OCTETS, SubjectId

BATCH: Final = 64
"""Instances in one transaction: what a crash can cost."""
LEAST_BATCH: Final = 32
"""Towards the end of a long series batches become shorter, so that little is left to do behind the last instance."""


class SeriesOutcome(NamedTuple):
    """What came of one series."""

    registered: int
    """Instances registered now."""
    known: int
    """Instances that were registered before."""
    refused: int
    octets: int
    """Of plaintext, registered now."""


async def register_series(
    found: SeriesFound,
    pacs_name: str,
    project: Project,
    hospital: Hospital,
    *,
    on_instance: Callable[[int], None],
    is_anew: bool = False,
) -> SeriesOutcome | None:
    """Register what is not yet registered of a series; None when the project does not include it.

    With ``is_anew`` what was registered or refused under another policy or engine is registered again, under its names.
    ``on_instance`` hears the size of each instance as it is done, 0 for one that was refused. Raises what the PACS and
    the store raise, ``AccessDeniedError`` once the project's last day is past, and ``BusyError`` while its subject is
    being forgotten; what was committed before stays, and a second call goes on from there.
    """
    project.refuse_over(hospital.clock())
    key = SeriesKey(project.name, found.study_uid, found.series_uid)
    async with hospital.turns.of(key.octets()):
        is_anew = is_anew or hospital.store.read(lambda tx: is_half_anew(tx, key, rules_of(project)))
        registration = Registration(key, pacs_name, project, hospital, is_anew=is_anew)
        return await _register_missing(found, registration, hospital, on_instance)


async def _register_missing(
    found: SeriesFound, registration: Registration, hospital: Hospital, on_instance: Callable[[int], None]
) -> SeriesOutcome | None:
    known, key = hospital.pacs[registration.pacs_name], registration.key
    is_begun = hospital.store.read(lambda tx: tx.series.get(key)) is not None
    instances = await known.pacs.find_instances(
        study_uid=found.study_uid, series_uid=found.series_uid, are_described=is_begun
    )
    missing = await missing_of(hospital.store, key, instances, registration.rules)
    registration.expected, registration.awaited = len(instances), len(missing)
    if missing:
        async with open_plain_nursery() as beside:
            try:
                async with arriving(known, found, instances, missing) as instances_arriving:
                    async for incoming in instances_arriving:
                        on_instance(await registration.take(incoming, beside))
                        if registration.is_foreign:
                            return None
            finally:
                await registration.flush()  # what came whole before the PACS failed is good, too
    left = await missing_of(hospital.store, key, instances, registration.rules)
    if not left:
        await _end(found, instances, registration, hospital)
    return registration.outcome(len(instances) - len(missing))


async def _end(
    found: SeriesFound, instances: Sequence[InstanceFound], registration: Registration, hospital: Hospital
) -> None:
    """Let a series appear, unless it still grows, or is another patient's in the PACS since its headers were read."""
    known, key, row = hospital.pacs[registration.pacs_name], registration.key, registration.row_of_series()
    of_study = await known.pacs.find_series(study_uid=found.study_uid)
    here = [it for it in of_study if it.series_uid == found.series_uid]
    if row is not None and is_of_another(here, row):
        await put_away_moved(hospital, key)
    elif await is_stable(known, found, instances, here):
        await hospital.store.write(lambda tx: complete_series(tx, key, registration.project, hospital))
        hospital.feed.bell.ring()
        hospital.outbox.ring()


class Registration:
    """One series while its instances arrive, at most ``BATCH`` of them not yet remembered."""

    def __init__(self, key: SeriesKey, pacs_name: str, project: Project, hospital: Hospital, *, is_anew: bool) -> None:
        """Begin with a series; ``is_anew`` registers again what was registered or refused under other rules."""
        self.key: Final = key
        self.pacs_name: Final = pacs_name
        self.project: Final = project
        self.rules: Final = rules_of(project) if is_anew else None
        """Under which all of the series must be in the end; None where any will do."""
        self.expected = 0
        """How many instances the PACS counts."""
        self.awaited = 0
        """How many of them have not come."""
        self._hospital = hospital
        self._row: SubjectRow | None = None
        self._names: SeriesNames | None = None
        self._memory: Final = Memory()
        self._policy: Final = project.policy.digest
        self._batch: list[Measured] = []
        self._refusals: list[QuarantineRecord] = []
        self._turn: Final = trio.Lock()
        self._registered = self._refused = self._octets = 0
        self.is_foreign = False
        """Whether a header told that the project does not include this patient or study."""

    async def take(self, incoming: IncomingInstance, beside: trio.Nursery) -> int:
        """Measure one instance and give its size; 0 where it is refused, which is remembered with its reason.

        A full batch is remembered beside what arrives next; the batch after it waits for that.
        """
        self.awaited -= 1
        admission = _Admission(self._admit)
        rendering, beginning = Rendering(incoming, admission, memory=self._memory), Beginning()
        try:
            rendition = await measure(rendering, self._policy, beginning)
        except RefusedError as refused:
            if not self.is_foreign:
                self._refused += 1
                self._refusals.append(self._refusal(incoming.instance_uid, refused))
                await self._flush_full(beside)
            return 0
        header, subject = admission.admitted
        self._names = self._names or names_of(header, subject, rendering.deidentification.study_date)
        self._batch.append(self._measured(header, subject.id, rendering, rendition, beginning))
        await self._flush_full(beside)
        return rendition.size

    async def _flush_full(self, beside: trio.Nursery) -> None:
        if self._is_batch_full():
            await beside.start(self.flush)

    def _is_batch_full(self) -> bool:
        """Ask whether to remember what has come: all that fits, or some towards the end if that need not wait."""
        count, is_long = len(self._batch) + len(self._refusals), self._registered > 0
        is_enough = count >= max(LEAST_BATCH, self.awaited // 2) and not self._turn.locked()
        return count >= BATCH or (is_long and is_enough)

    async def flush(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Remember what was measured, names, ACLs, UIDs and shares, and what was refused: a batch in one transaction.

        One batch comes after the other: it has started when the one before is remembered, and this one taken.
        """
        async with self._turn:
            batch, self._batch = self._batch, []
            refusals, self._refusals = self._refusals, []
            task_status.started()
            if batch or refusals:
                await self._commit(batch, refusals)

    async def _commit(self, batch: list[Measured], refusals: list[QuarantineRecord]) -> None:
        now, project = self._hospital.clock(), self.project.name
        reasons = Counter(refusal.reason for refusal in refusals)
        records = [
            AuditRecord(time=now, event=Event.QUARANTINE, project=project, outcome=reason, count=count)
            for reason, count in reasons.items()
        ]
        lfn, batch = await self._hospital.store.write(lambda tx: self._remember(tx, batch, refusals))
        if batch:
            headers = [KeptHeader(it.guid, it.key.generation, it.key.sealed_beginning, it.origin) for it in batch]
            await keep_headers(self._hospital, headers)
            self._registered += len(batch)
            self._octets += sum(item.rendition.size for item in batch)
            self._hospital.outbox.ring()
            records.append(
                AuditRecord(time=now, event=Event.REGISTRATION, project=project, outcome=str(lfn), count=len(batch))
            )
        await self._hospital.audit.record(*records)

    def outcome(self, known: int) -> SeriesOutcome:
        """Tell what came of it."""
        return SeriesOutcome(self._registered, known, self._refused, self._octets)

    async def _admit(self, header: IdentifiedHeader) -> Admission:
        """Admit an instance by its header: included, not opted out, and of one patient in the whole series."""
        self.project.refuse_over(self._hospital.clock())
        patient = self._hospital.pacs[self.pacs_name].patient_of(header)
        study = self.key.study_uid
        if (header.study_instance, header.series_instance) != (study, self.key.series_uid):
            raise RefusedError(Reason.OTHER_INSTANCE)
        row = self._row or self.row_of_series()
        if row is not None and patient != PatientKey(row.issuer, row.patient_id):
            raise RefusedError(Reason.OTHER_PATIENT)
        if self._row is None:
            if self._hospital.opted_out.may_mean(patient, study) or not self.project.inclusion.holds(patient, study):
                self.is_foreign = True
                raise RefusedError(Reason.NOT_INCLUDED)
            self._row = row or await self._admit_patient(patient)
        return Admission(self.project.policy, subject_of(self._row))

    async def _admit_patient(self, patient: PatientKey) -> SubjectRow:
        def admit(tx: Transaction) -> SubjectRow:
            self.project.refuse_over(self._hospital.clock())
            name = self.project.name
            return tx.subjects.admit(name, patient.issuer, patient.patient_id, lambda: self._new_row(patient))

        return await self._hospital.store.write(admit)

    def row_of_series(self) -> SubjectRow | None:
        """Give the patient with whom an earlier run has begun the series; later instances must be his too."""

        def read(tx: Transaction) -> SubjectRow | None:
            series = tx.series.get(self.key)
            return None if series is None else tx.subjects.by_id(series.subject)

        return self._hospital.store.read(read)

    def _new_row(self, patient: PatientKey) -> SubjectRow:
        weeks = MIN_WEEKS_BACK + secrets.randbelow(MAX_WEEKS_BACK - MIN_WEEKS_BACK + 1)
        return SubjectRow(
            id=SubjectId.from_random(secrets.token_bytes(SUBJECT_ID_OCTETS)),
            project=self.project.name,
            issuer=patient.issuer,
            patient_id=patient.patient_id,
            date_offset_days=-DAYS_IN_WEEK * weeks,
            extra_minutes=secrets.randbelow(MINUTES_IN_DAY),
            uid_key=secrets.token_bytes(UID_KEY_SIZE),
            created=self._hospital.clock(),
        )

    def _measured(
        self,
        header: IdentifiedHeader,
        subject: SubjectId,
        rendering: Rendering,
        rendition: Rendition,
        beginning: Beginning,
    ) -> Measured:
        guid, known = random_guid(), self._hospital.pacs[self.pacs_name]
        instance = InstanceRecord(
            project=self.project.name,
            subject=subject,
            pacs=self.pacs_name,
            study_uid=header.study_instance,
            series_uid=header.series_instance,
            instance_uid=header.sop_instance,
            class_uid=header.sop_class,
            transfer_syntax=header.transfer_syntax,
        )
        octets = beginning.octets(rendition.size, rendition.header_length)
        key = make_key(guid, self._hospital.keystores.names, self._hospital.threshold, beginning=octets)
        claim = claim_of(known.patient_of(header), known.issuer, header.transfer_syntax)
        return Measured(
            guid=guid,
            number=harmless(header.instance_number, header),
            instance=instance,
            rendition=rendition,
            modified=time_of(rendering.deidentification.study_date),
            key=key,
            attributes=self._attributes(rendering.published_header),
            origin=rendering.origin(claim, rendition.size),
        )

    def _attributes(self, published: bytes) -> Attributes:
        return attributes_of(published) if self._hospital.has_metadata else NO_ATTRIBUTES

    def _remember(
        self, tx: Transaction, batch: list[Measured], refusals: list[QuarantineRecord]
    ) -> tuple[Lfn | None, list[Measured]]:
        """Remember refusals and a batch; gives the directory, and what was not withdrawn on its way.

        Nothing where the patient was forgotten meanwhile: nobody could lead back to him, or forget this. Nor while he
        is being forgotten, nor once the project is over, when he may be at any time.
        """
        self.project.refuse_over(self._hospital.clock())
        if self._row is not None:
            if self._hospital.forgetting[self._row.id]:
                raise BusyError(BEING_FORGOTTEN)
            if tx.subjects.by_id(self._row.id) is None:
                return None, []
        for refusal in refusals:
            remember_refusal(tx, refusal)
        return remember(tx, self._series(tx), batch, self._hospital) if batch else (None, batch)

    def _series(self, tx: Transaction) -> SeriesRecord:
        """Give the series as it is to be kept: at the first time with the name that it has from then on."""
        series = tx.series.get(self.key)
        if series is not None:
            return msgspec.structs.replace(series, state=SeriesState.REGISTERING, expected=self.expected)
        assert self._row is not None  # noqa: S101 whoever has measured has admitted
        assert self._names is not None  # noqa: S101 as above
        return SeriesRecord(
            project=self.project.name,
            study_uid=self.key.study_uid,
            series_uid=self.key.series_uid,
            pacs=self.pacs_name,
            subject=self._row.id,
            lfn=series_lfn(
                self.project.lfn, self._row.id, self._names, is_taken=lambda lfn: tx.series.by_lfn(lfn) is not None
            ),
            state=SeriesState.REGISTERING,
            expected=self.expected,
            acknowledged={},
            created=self._hospital.clock(),
        )

    def _refusal(self, instance_uid: str, refused: RefusedError) -> QuarantineRecord:
        return QuarantineRecord(
            project=self.project.name,
            study_uid=self.key.study_uid,
            series_uid=self.key.series_uid,
            instance_uid=instance_uid,
            reason=refused.reason.value,
            tag=refused.where,
            when=self._hospital.clock(),
            rules=rules_of(self.project),
            subject=self._row.id.text if self._row else "",
        )


class _Admission:
    """Admits a header, and remembers header and subject for the names."""

    def __init__(self, admit: Admit) -> None:
        self._admit = admit
        self._admitted: tuple[IdentifiedHeader, Subject] | None = None

    async def __call__(self, header: IdentifiedHeader) -> Admission:
        admission = await self._admit(header)
        self._admitted = header, admission.subject
        return admission

    @property
    def admitted(self) -> tuple[IdentifiedHeader, Subject]:
        if self._admitted is None:
            message = "nothing has been admitted yet"
            raise RuntimeError(message)
        return self._admitted


def complete_series(tx: Transaction, key: SeriesKey, project: Project, hospital: Hospital) -> None:
    """Say that all instances of a series are registered or refused; it appears as soon as its keys are deposited."""
    forget_not_included(tx, key.study_uid, key.series_uid)
    series = tx.series.get(key)
    if series is None:
        return
    refused = tx.quarantine.of_series(key)
    hides = refused if project.partial is Partial.HIDE else any(it.reason == Reason.MOVED_PATIENT for it in refused)
    tx.series.put(msgspec.structs.replace(series, state=SeriesState.HIDDEN if hides else SeriesState.DEPOSITING))
    show_deposited(tx, key, hospital)
