"""Lies: that a keystore gave a share that contradicts the right key, for ever on record."""

from __future__ import annotations

from collections.abc import Callable

from mdmfs.hospital.kept.audit import Audit, AuditRecord, Event
from mdmfs.model.names import Guid
from mdmfs.wire.keystores.answers import OnLie


def recording_lies(audit: Audit, clock: Callable[[], float]) -> OnLie:
    """Give what ``Keystores`` tells of each lie."""

    def record(keystore: str, guid: Guid, reason: str) -> None:
        told = f"{keystore}: {reason}"
        audit.note(AuditRecord(time=clock(), event=Event.WRONG_SHARE, guid=str(guid), outcome=told))

    return record
