"""The shelf: where a keystore keeps its shares, ACLs and tombstones; the port, and the records that lie on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import msgspec

from mdmfs.model.names import Guid

RECORD_FORMAT: Final = 1

T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, array_like=True, kw_only=True, forbid_unknown_fields=True):
    """The root of all that is stored: MessagePack arrays, the format's version first."""

    format: int = RECORD_FORMAT


class KeyRecord(Record, frozen=True, kw_only=True):
    """One share, who registered it, and whom it may be given to."""

    owner: str
    """The hospital's DN, slash form: equal names have equal strings and no others do."""
    share: bytes
    """``mdmfs.sharing.shamir.Share.encode``."""
    aliases: tuple[tuple[bytes, ...], ...]
    """For each name of the file the ids of the owner's ACLs above it, outermost first, and last its own."""

    def __repr__(self) -> str:
        """Show no share."""
        return f"KeyRecord(owner={self.owner!r}, ...)"


class AclRecord(Record, frozen=True, kw_only=True):
    """An ACL under its owner's id."""

    version: int
    acl: bytes
    """``mdmfs.access.acl.Acl.encode``."""


class Tombstone(Record, frozen=True, kw_only=True):
    """That an owner destroyed a key: nothing of this owner is kept under the GUID ever again."""

    owner: str
    destroyed_at: float
    """Seconds since the epoch."""


class EpochRecord(Record, frozen=True, kw_only=True):
    """Up to which of its epochs an owner has told of its changes."""

    epoch: int
    mark: bytes


class WitnessRecord(Record, frozen=True, kw_only=True):
    """Where an owner's log was at an instant, signed by him."""

    journal: bytes
    number: int
    link: bytes
    when: float
    """Seconds since the epoch."""
    signature: bytes


class Page(Protocol):
    """The shelf as it was at one instant."""

    def key(self, guid: Guid) -> KeyRecord | None:
        """Give what is kept of a GUID, whoever owns it."""

    def acl(self, owner: str, acl_id: bytes) -> AclRecord | None:
        """Give an owner's ACL; ids of different owners never meet."""

    def tombstones(self, guid: Guid) -> list[Tombstone]:
        """Give the tombstones of a GUID, at most one for each owner."""

    def epoch(self, owner: str) -> EpochRecord | None:
        """Give up to where an owner's changes are known; None where none was ever told."""

    def witnesses(self, owner: str, journal: bytes, after: int, limit: int) -> list[WitnessRecord]:
        """Give an owner's checkpoints by log and number, those that come after a number of a log."""

    def signer(self, owner: str) -> bytes:
        """Give the public key that signs an owner's orders; empty where none is known."""

    def latest_witnesses(self, owner: str, journal: bytes, count: int) -> list[WitnessRecord]:
        """Give an owner's newest checkpoints of a log, the newest first."""


class Draft(Page, Protocol):
    """The shelf as it will be: what is put here is seen here at once, and by others once it is durable."""

    def put_key(self, guid: Guid, record: KeyRecord) -> None:
        """Keep a share, in place of one that is there."""

    def put_acl(self, owner: str, acl_id: bytes, record: AclRecord) -> None:
        """Keep an ACL, in place of one that is there."""

    def bury(self, guid: Guid, tombstone: Tombstone) -> None:
        """Set up a tombstone, in place of its owner's older one, and drop the key if that owner registered it."""

    def put_epoch(self, owner: str, record: EpochRecord) -> None:
        """Remember up to where an owner's changes are known, in place of what was remembered."""

    def put_signer(self, owner: str, public: bytes) -> None:
        """Remember whose key signs an owner's orders; empty forgets it."""

    def put_witness(self, owner: str, record: WitnessRecord) -> None:
        """Keep a checkpoint of an owner's log."""

    def drop_witness(self, owner: str, record: WitnessRecord) -> None:
        """Forget a checkpoint."""


class Shelf(Protocol):
    """Where records lie. Every method raises ``StoreError`` when it is damaged, ``OutOfSpaceError`` when it is full."""

    async def read(self, question: Callable[[Page], T], *, is_brief: bool = False) -> T:
        """Ask one page, in a thread; the page ends with the question.

        A brief question, of a few records, is asked on the calling thread: it takes less time than a thread's start.
        """

    async def write(self, change: Callable[[Draft], T]) -> T:
        """Make a change, in a thread, wholly or, if it raises, not at all; it is durable when this returns.

        A caller cancelled while it waits may find the change made or not made, but never half made.
        """
