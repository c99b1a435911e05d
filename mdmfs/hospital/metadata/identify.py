"""The way back: who a subject is, told inside the hospital zone only, to two people who both may and both say why."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, NamedTuple

from mdmfs.access.acl import Right
from mdmfs.access.decide import decide
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SubjectRow
from mdmfs.model.errors import AccessDeniedError, MalformedMessageError, NoSuchFileError
from mdmfs.model.identity import Principal
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.records import Identified, Identify

WAIT_SECONDS: Final = 900.0
"""For how long a first question waits for the second person."""
MAX_WAITING: Final = 1000
MAX_PURPOSE: Final = 500


class _Question(NamedTuple):
    dn: str
    purpose: str
    until: float


class Identification:
    """Waits for a second person; what waits is forgotten with the process, and asked again."""

    def __init__(self, hospital: Hospital, networks: Sequence[str]) -> None:
        """Answer those only who ask from within these networks: the hospital's own."""
        self._hospital = hospital
        self._networks = [ipaddress.ip_network(one) for one in networks]
        self._waiting: dict[SubjectId, _Question] = {}

    async def identify(self, principal: Principal, asked: Identify, address: str) -> Identified:
        """Note the first question, answer the second; each is on record before anything is told.

        Raises ``AccessDeniedError``, for a subject that there is not as well, and ``MalformedMessageError`` without a
        purpose.
        """
        subject = SubjectId.parse(asked.subject)
        purpose = asked.purpose.strip()
        if not 0 < len(purpose) <= MAX_PURPOSE or not purpose.isprintable():
            message = f"say what for, in 1 to {MAX_PURPOSE} printable characters"
            raise MalformedMessageError(message)
        if not self._is_inside(address):
            await self._record(principal, subject, None, purpose, "refused: from outside", address)
            message = "who a subject is, is told inside the hospital's own network only"
            raise AccessDeniedError(message)
        now = self._hospital.clock()
        row = self._hospital.store.read(lambda tx: tx.subjects.by_id(subject))
        if row is None or not self._hospital.store.read(lambda tx: self._may(tx, principal, row, now)):
            await self._record(principal, subject, row, purpose, "refused", address)
            message = f"sub-{subject} is not known, or this identity has not the right i in its project"
            raise AccessDeniedError(message)
        first = self._waiting.get(subject)
        if first is None or first.until < now or first.dn == str(principal.dn):
            self._wait(subject, _Question(str(principal.dn), purpose, now + WAIT_SECONDS), now)
            await self._record(principal, subject, row, purpose, "waits for a second person", address)
            return Identified(is_pending=True)
        if first.purpose != purpose:
            await self._record(principal, subject, row, purpose, "refused: another purpose", address)
            message = "the first of the two gave another purpose: agree on one, word for word"
            raise AccessDeniedError(message)
        del self._waiting[subject]
        await self._record(principal, subject, row, purpose, f"told; first asked by {first.dn}", address)
        return Identified(False, row.patient_id, row.issuer, row.date_offset_days)  # noqa: FBT003 by its fields' order

    def _is_inside(self, address: str) -> bool:
        try:
            where = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(where in network for network in self._networks)

    def _may(self, tx: Transaction, principal: Principal, row: SubjectRow, now: float) -> bool:
        project = self._hospital.projects.get(row.project)
        if project is None:
            return False
        try:
            acl_ids = tx.acls.ids_of(project.lfn)
        except NoSuchFileError:
            return False
        found = tx.acls.find(acl_ids[0])
        return found is not None and decide(principal, found.acl, Right.IDENTIFY, now).allowed

    def _wait(self, subject: SubjectId, question: _Question, now: float) -> None:
        self._waiting = {known: one for known, one in self._waiting.items() if one.until >= now}
        if len(self._waiting) < MAX_WAITING:
            self._waiting[subject] = question

    async def _record(
        self, principal: Principal, subject: SubjectId, row: SubjectRow | None, purpose: str, outcome: str, address: str
    ) -> None:
        record = AuditRecord(
            time=self._hospital.clock(),
            event=Event.IDENTIFICATION,
            dn=str(principal.dn),
            fqans=tuple(str(fqan) for fqan in principal.fqans),
            project="" if row is None else row.project,
            path=f"sub-{subject}",
            address=address,
            outcome=outcome,
            purpose=purpose,
        )
        await self._hospital.audit.record(record)
