"""To and from a keystore: shares of keys, the ACLs they are given by, epochs and what it witnesses."""

from __future__ import annotations

import enum
from typing import Final

from mdmfs.wire.messages.message import Message

REGISTER_PATH: Final = "/v1/register"
COLLECT_PATH: Final = "/v1/collect"
UNREGISTER_PATH: Final = "/v1/unregister"
SET_ACLS_PATH: Final = "/v1/set-acls"
STATUS_PATH: Final = "/v1/status"
EPOCH_PATH: Final = "/v1/epoch"
CONFIRM_PATH: Final = "/v1/confirm"
CERTIFY_PATH: Final = "/v1/certify"
WITNESS_PATH: Final = "/v1/witness"
WITNESSED_PATH: Final = "/v1/witnessed"


class KeyEntry(Message, frozen=True):
    """One share for one keystore to keep, and whom it may be given to."""

    share: bytes
    """A share record (``mdmfs.sharing.shamir.Share``), which names its GUID."""
    aliases: list[list[bytes]]
    """For each name of the file the ids of the ACLs above it, outermost first, and last its own."""
    replaces: bytes = b""
    """The split id of the share of the same generation whose place this one takes; empty: of none."""

    def __repr__(self) -> str:
        """Show no share."""
        return "KeyEntry(...)"


class Outcome(enum.StrEnum):
    """What became of one entry of a batch."""

    DONE = "done"
    DENIED = "denied"
    UNKNOWN = "unknown"
    CONFLICT = "conflict"
    """Another share of the same generation, or a later one, is there and stays; for an ACL the same of its version."""
    DESTROYED = "destroyed"
    """A tombstone stands for this GUID."""
    STALE = "stale"
    """The keystore has not heard from the hospital since its start, or for too long, and decides nothing meanwhile."""


class Register(Message, frozen=True):
    """Keep these shares; from the hospital only."""

    entries: list[KeyEntry]


class Outcomes(Message, frozen=True):
    """What became of each entry of a batch, in its order."""

    outcomes: list[Outcome]


class Collect(Message, frozen=True):
    """Give the shares of these GUIDs."""

    guids: list[bytes]


class Collected(Message, frozen=True):
    """One outcome for each GUID asked for, in that order, and its share where the outcome is DONE, else empty bytes."""

    outcomes: list[Outcome]
    shares: list[bytes]

    def __repr__(self) -> str:
        """Show no share."""
        return f"Collected(outcomes={self.outcomes!r}, ...)"


class Unregister(Message, frozen=True):
    """Destroy the shares of these GUIDs for ever; from the hospital only."""

    guids: list[bytes]


class VersionedAcl(Message, frozen=True):
    """An ACL under its opaque id; a higher version replaces a lower one, never the other way round."""

    id: bytes
    version: int
    acl: bytes
    """``mdmfs.access.acl.Acl.encode``."""


class SetAcls(Message, frozen=True):
    """Know these ACLs; from the hospital only."""

    acls: list[VersionedAcl]


class AskStatus(Message, frozen=True):
    """Ask what is kept of these GUIDs; from the hospital only."""

    guids: list[bytes]


class KeyStatus(Message, frozen=True):
    """What a keystore keeps of one GUID."""

    outcome: Outcome
    generation: int = 0
    split_id: bytes = b""


class Statuses(Message, frozen=True):
    """One status for each GUID asked for, in that order."""

    statuses: list[KeyStatus]


class AskEpoch(Message, frozen=True):
    """Ask up to which of the hospital's epochs a keystore has heard everything; from the hospital only.

    The answer waits up to ``wait`` seconds while the keystore is current: one that was started again answers at once,
    or the connection breaks.
    """

    wait: float = 0.0


class EpochHeld(Message, frozen=True):
    """What a keystore knows of the hospital's changes."""

    epoch: int
    """0 where it was told of none."""
    mark: bytes
    """Of that epoch; empty with epoch 0. Another mark than the hospital's own shows that one of both was restored."""
    is_current: bool
    """Whether it gives shares."""
    nonce: bytes
    """For ``ConfirmEpoch``."""


class Certify(Message, frozen=True):
    """Certify that the shares of these GUIDs are destroyed; from the hospital only."""

    guids: list[bytes]


class Witness(Message, frozen=True):
    """Keep where the hospital's audit log is, as evidence (``mdmfs.journal.checkpoint``); from the hospital only."""

    journal: bytes
    """The log's id."""
    number: int
    link: bytes
    when: float
    signature: bytes
    """Of the hospital's signing key."""


class AskWitnessed(Message, frozen=True):
    """Ask for what is kept of the hospital's audit logs, those after a record of one; from the hospital only."""

    journal: bytes = b""
    after: int = 0


class Witnessed(Message, frozen=True):
    """Checkpoints by log and number; the next page is asked for after the last of these."""

    checkpoints: list[Witness]
    is_last: bool


class ConfirmEpoch(Message, frozen=True):
    """Say that the keystore has heard of every change up to an epoch, and that there is none after it."""

    epoch: int
    mark: bytes
    nonce: bytes
    """Of the answer to the question before."""
