"""The audit log: each decision is a record on disk before a byte leaves; a journal, so that none can be taken back."""

from __future__ import annotations

import enum
import pathlib
import secrets
import time
from collections.abc import Iterator
from typing import Annotated, Final, NamedTuple

import msgspec

from mdmfs.daemon.formats import Format
from mdmfs.hospital.signing import SigningKey
from mdmfs.journal.chain import Head, Line
from mdmfs.journal.checkpoint import JOURNAL_ID_SIZE, Checkpoint
from mdmfs.journal.files import files_of, first_line, lines_of
from mdmfs.journal.journal import FILE_BYTES, Journal, Pending
from mdmfs.model.errors import StoreError

AUDIT_FORMAT: Final[Format[None]] = Format("audit log", oldest=2)
"""What is recorded is never written anew: a step changes nothing of it, and what follows is of the next format."""
_NONCE_SIZE: Final = 16


class Event(enum.StrEnum):
    """What happened."""

    BEGIN = "begin"
    """The log was begun."""
    FORMAT = "format"
    """What follows is of another format than what stands before."""
    SIGNER = "signer"
    """Another key signs the checkpoints of what follows."""
    RELEASE = "release"
    HEADER = "header"
    """The header of a file was let out, with what is read along with it, and no pixels to speak of."""
    CACHED_OPENS = "cached-opens"
    """A mount says that it has opened a file from its own cache, so many times."""
    REFUSAL = "refusal"
    STAGING = "staging"
    REPLICA = "replica"
    """A sealed object was put on a storage element, which the outcome names."""
    REPLICA_GONE = "replica-gone"
    """It was taken away there, and looked for in vain, or forgotten by hand, as the outcome says."""
    REGISTRATION = "registration"
    QUARANTINE = "quarantine"
    DESTRUCTION = "destruction"
    ROTATION = "rotation"
    RESPLIT = "resplit"
    REPAIR = "repair"
    WRONG_SHARE = "wrong-share"
    ACL = "acl"
    NAME = "name"
    """A user made, moved or removed a name, or said something of one."""
    MERGE = "merge"
    FORGETTING = "forgetting"
    """Who a subject was, is forgotten: the path names it."""
    LOSS = "loss"
    IDENTIFICATION = "identification"


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the log: pseudonymous, but complete enough to say who had what, when and why."""

    time: float
    """Seconds since the epoch."""
    event: Event
    dn: str = ""
    fqans: tuple[str, ...] = ()
    guid: str = ""
    uid: str = ""
    """The pseudonymous SOP Instance UID, as a reader sees it."""
    project: str = ""
    address: str = ""
    path: str = ""
    """The LFN, where a record speaks of a name."""
    outcome: str = ""
    """The deciding ACL entry; or the refusal's name and, where an entry decided, that."""
    purpose: str = ""
    """What for, if the caller said."""
    ahead: bool = False
    """Whether a mount asked for it before any program did."""
    count: int = 1
    """Of the instances that a record speaks of, or of opens."""
    signer: str = ""
    """Of the first record, and of one that says that it changes: the public key (Ed25519, hexadecimal digits) that
    signs the checkpoints of all that follow."""
    n: int = 0
    """The record's number; as it is read only, given when it is written."""
    format: int = 0
    """Of the first record, and of one that says that it changes: the format of all that follow."""


class _Told(msgspec.Struct):
    """What is read of a record of which the format is not known yet."""

    format: int = 0
    signer: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""


_TOLD: Final = msgspec.json.Decoder(_Told)


class _Timed(msgspec.Struct):
    """What is read of a record of which only the time is asked."""

    time: float


_TIMED: Final = msgspec.json.Decoder(_Timed)


class SignerOf(NamedTuple):
    """Whose signature checkpoints have, from a record on."""

    first: int
    public: bytes


class Audit:
    """The hospital's audit log. ``run`` writes; ``record`` returns when its record is on disk."""

    def __init__(
        self,
        path: pathlib.Path,
        key: SigningKey,
        *,
        file_bytes: int = FILE_BYTES,
        audit_format: Format[None] = AUDIT_FORMAT,
    ) -> None:
        """Open the log, or begin one; raises ``StoreError``. One of a newer format is not written to."""
        self._key = key
        self.path = path
        """Where the log lies; older files of it lie beside."""
        mark = _mark_of(path) or audit_format.mark
        audit_format.number_of(mark, path)  # or it is refused
        self._journal = Journal(path, lambda: _encode(_beginning(key, audit_format.number)), file_bytes=file_bytes)
        try:
            self._bring_up(mark, audit_format)
            self._name_signer()
            self.id = id_of(path)
            """The journal's id."""
        except StoreError:
            self.close()
            raise

    @property
    def head(self) -> Head:
        """Where the log is: the last record that is durable."""
        return self._journal.head

    def checkpoint(self, now: float) -> Checkpoint:
        """Say where the log is, signed."""
        return self._key.sign_checkpoint(Checkpoint(self.id, self.head, now))

    async def record(self, *records: AuditRecord) -> None:
        """Wait until all records are durable. Raises ``StoreError``: then none is, and nothing may be let out."""
        await self.write(*records).durable()

    def write(self, *records: AuditRecord) -> Pending:
        """Begin to write records; ``Pending.durable`` is waited for before anything that they tell of is let out."""
        return self._journal.write(*map(_encode, records))

    def note(self, record: AuditRecord) -> None:
        """Have a record written with the next ones, for what nobody has to wait for."""
        self.write(record)

    async def run(self) -> None:
        """Write what is waiting, again and again, until cancelled."""
        await self._journal.run()

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    def _bring_up(self, mark: bytes, audit_format: Format[None]) -> None:
        """Begin a new file, whose first record says so, for what follows in a newer format."""
        while (reached := audit_format.advance(mark, None, self.path)) is not None:
            mark = reached
            changed = AuditRecord(time=time.time(), event=Event.FORMAT, format=int(mark))
            self._journal.begin_file(_encode(changed))

    def _name_signer(self) -> None:
        """Begin a new file, whose first record says so, where another key than before signs what follows."""
        known, public = signers_of(self.path), self._key.public
        if not known or known[-1].public != public:
            changed = AuditRecord(time=time.time(), event=Event.SIGNER, signer=public.hex())
            self._journal.begin_file(_encode(changed))


def id_of(path: pathlib.Path) -> bytes:
    """Give the id of the log there; raises ``StoreError``."""
    try:
        first = first_line(files_of(path)[0])
    except (OSError, IndexError) as error:
        message = f"there is no audit log {path}"
        raise StoreError(message) from error
    if first is None:
        message = f"the audit log {path} does not begin with a record"
        raise StoreError(message)
    return first.link[:JOURNAL_ID_SIZE]


def signers_of(path: pathlib.Path) -> list[SignerOf]:
    """Tell by whom checkpoints of the log there are signed, from the first one on; raises ``StoreError``."""
    found = []
    try:
        for file in files_of(path):
            first = first_line(file)
            told = _told(first).signer
            if first and told:
                found.append(SignerOf(first.number, bytes.fromhex(told)))
    except OSError as error:
        message = f"the audit log {path} cannot be read: {error.strerror}"
        raise StoreError(message) from error
    return found


def records_of(path: pathlib.Path) -> Iterator[AuditRecord]:
    """Go through the records of a log, oldest first; what is garbled is left out. Raises ``StoreError``."""
    for octets in lines_of(path):
        record = parse_record(octets)
        if record is not None:
            yield record


def parse_record(octets: bytes) -> AuditRecord | None:
    """Read a line; None for what is no record."""
    if Line.parse(octets) is None:
        return None
    try:
        return msgspec.json.decode(octets, type=AuditRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def time_of(octets: bytes) -> float | None:
    """Read when a line says that it was written, in seconds since the epoch; None where it says nothing."""
    try:
        return _TIMED.decode(octets).time
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _mark_of(path: pathlib.Path) -> bytes:
    """Find of which format the end of a log is, by the first record of its last file that tells; empty without one."""
    try:
        for file in reversed(files_of(path) if path.parent.exists() else []):
            told = _told(first_line(file)).format
            if told:
                return b"%d" % told
    except OSError:
        pass  # opening the journal tells of what cannot be read
    return b""


def _told(line: Line | None) -> _Told:
    """Read what the first record of a file tells of all that follow; of one that is none, nothing."""
    try:
        return _Told() if line is None else _TOLD.decode(line.hashed + b"}")
    except msgspec.DecodeError:
        return _Told()


def _beginning(key: SigningKey, number: int) -> AuditRecord:
    return AuditRecord(
        time=time.time(),
        event=Event.BEGIN,
        outcome=secrets.token_hex(_NONCE_SIZE),
        signer=key.public.hex(),
        format=number,
    )


def _encode(record: AuditRecord) -> bytes:
    return msgspec.json.encode(record)
