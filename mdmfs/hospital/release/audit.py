"""The audit log: each decision is a record on disk before a byte leaves; records of one moment share one sync."""

from __future__ import annotations

import contextlib
import enum
import os
import pathlib
from typing import Final

import msgspec
import structlog
import trio

from mdmfs.hospital.durable import sync_directory
from mdmfs.model.errors import StoreError

log = structlog.get_logger()

AUDIT_FORMAT: Final = 1


class Event(enum.StrEnum):
    """What happened."""

    RELEASE = "release"
    REFUSAL = "refusal"
    REGISTRATION = "registration"
    QUARANTINE = "quarantine"
    DESTRUCTION = "destruction"
    ROTATION = "rotation"
    WRONG_SHARE = "wrong-share"
    ACL = "acl"


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the log: pseudonymous, but complete enough to say who had what, when and why."""

    time: float
    """Seconds since the epoch."""
    event: Event
    dn: str = ""
    fqans: tuple[str, ...] = ()
    guid: str = ""
    project: str = ""
    address: str = ""
    path: str = ""
    """The LFN, where a record speaks of a name."""
    outcome: str = ""
    """The deciding ACL entry, or the refusal's name."""
    count: int = 1
    """Of the instances that a record speaks of."""
    format: int = AUDIT_FORMAT


class Audit:
    """An append-only file of JSON lines. ``run`` writes; ``record`` returns when its record is on disk."""

    def __init__(self, path: pathlib.Path) -> None:
        """Open the log for appending; raises ``StoreError``."""
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._end_torn_line(path)
            sync_directory(path.parent)
        except OSError as error:
            message = f"the audit log {path} cannot be opened: {error.strerror}; nothing is released without it"
            raise StoreError(message) from error
        self._path = path
        self._waiting: list[tuple[bytes, _Durable]] = []
        self._arrival = trio.Event()

    async def record(self, *records: AuditRecord) -> None:
        """Wait until all records are durable. Raises ``StoreError``: then none is, and nothing may be let out."""
        durable = _Durable()
        lines = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        self._waiting.append((lines, durable))
        self._arrival.set()
        await durable.event.wait()
        if durable.failure is not None:
            message = f"the audit log {self._path} cannot be written: {durable.failure}; nothing is released without it"
            raise StoreError(message)

    def note(self, record: AuditRecord) -> None:
        """Have a record written with the next ones, for what nobody has to wait for."""
        self._waiting.append((msgspec.json.encode(record) + b"\n", _Durable()))
        self._arrival.set()

    async def run(self) -> None:
        """Write what is waiting, again and again, until cancelled."""
        while True:
            await self._arrival.wait()
            self._arrival = trio.Event()
            batch, self._waiting = self._waiting, []
            failure = await trio.to_thread.run_sync(self._append, b"".join(line for line, _ in batch))
            for _, durable in batch:
                durable.failure = failure
                durable.event.set()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _append(self, lines: bytes) -> str | None:
        """Write all or nothing; give what went wrong."""
        end = os.fstat(self._file).st_size
        try:
            is_whole = os.write(self._file, lines) == len(lines)
            if is_whole:
                os.fdatasync(self._file)
                return None
            reason = "the disk is full"
        except OSError as error:
            reason = error.strerror or "unknown error"
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, end)
        log.critical("audit log cannot be written", path=str(self._path), reason=reason)
        return reason

    def _end_torn_line(self, path: pathlib.Path) -> None:
        """End a line that a crash cut off, so that the next record stands on its own."""
        size = os.fstat(self._file).st_size
        if size == 0:
            return
        with path.open("rb") as file:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                os.write(self._file, b"\n")


class _Durable:
    """What a recorder waits for."""

    __slots__ = ("event", "failure")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.failure: str | None = None
