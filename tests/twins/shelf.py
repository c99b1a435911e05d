"""The shelf in memory: what ``mdmfs.keystore.shelf.Shelf`` promises, but for durability."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import TypeVar

import trio

from mdmfs.keystore.shelf import AclRecord, Draft, EpochRecord, KeyRecord, Page, Tombstone, WitnessRecord
from mdmfs.model.names import Guid

T = TypeVar("T")


@dataclasses.dataclass
class MemoryPage:
    """``Page`` and ``Draft`` over dictionaries."""

    keys: dict[Guid, KeyRecord] = dataclasses.field(default_factory=dict)
    acls: dict[tuple[str, bytes], AclRecord] = dataclasses.field(default_factory=dict)
    graves: dict[tuple[Guid, str], Tombstone] = dataclasses.field(default_factory=dict)
    epochs: dict[str, EpochRecord] = dataclasses.field(default_factory=dict)

    checkpoints: dict[tuple[str, bytes, int], WitnessRecord] = dataclasses.field(default_factory=dict)

    signers: dict[str, bytes] = dataclasses.field(default_factory=dict)

    def copied(self) -> MemoryPage:
        """Give a page that can be changed while this one is read."""
        return MemoryPage(*(copy.copy(getattr(self, field.name)) for field in dataclasses.fields(self)))

    def key(self, guid: Guid) -> KeyRecord | None:
        """See ``Page.key``."""
        return self.keys.get(guid)

    def acl(self, owner: str, acl_id: bytes) -> AclRecord | None:
        """See ``Page.acl``."""
        return self.acls.get((owner, acl_id))

    def tombstones(self, guid: Guid) -> list[Tombstone]:
        """See ``Page.tombstones``."""
        return [tombstone for (buried, _), tombstone in self.graves.items() if buried == guid]

    def epoch(self, owner: str) -> EpochRecord | None:
        """See ``Page.epoch``."""
        return self.epochs.get(owner)

    def witnesses(self, owner: str, journal: bytes, after: int, limit: int) -> list[WitnessRecord]:
        """See ``Page.witnesses``."""
        keys = sorted(key for key in self.checkpoints if key[0] == owner and key[1:] > (journal, after))
        return [self.checkpoints[key] for key in keys[:limit]]

    def signer(self, owner: str) -> bytes:
        """See ``Page.signer``."""
        return self.signers.get(owner, b"")

    def put_signer(self, owner: str, public: bytes) -> None:
        """See ``Draft.put_signer``."""
        self.signers[owner] = public

    def latest_witnesses(self, owner: str, journal: bytes, count: int) -> list[WitnessRecord]:
        """See ``Page.latest_witnesses``."""
        keys = sorted(key for key in self.checkpoints if key[:2] == (owner, journal))
        return [self.checkpoints[key] for key in keys[::-1][:count]]

    def put_witness(self, owner: str, record: WitnessRecord) -> None:
        """See ``Draft.put_witness``."""
        self.checkpoints[owner, record.journal, record.number] = record

    def drop_witness(self, owner: str, record: WitnessRecord) -> None:
        """See ``Draft.drop_witness``."""
        del self.checkpoints[owner, record.journal, record.number]

    def put_epoch(self, owner: str, record: EpochRecord) -> None:
        """See ``Draft.put_epoch``."""
        self.epochs[owner] = record

    def put_key(self, guid: Guid, record: KeyRecord) -> None:
        """See ``Draft.put_key``."""
        self.keys[guid] = record

    def put_acl(self, owner: str, acl_id: bytes, record: AclRecord) -> None:
        """See ``Draft.put_acl``."""
        self.acls[owner, acl_id] = record

    def bury(self, guid: Guid, tombstone: Tombstone) -> None:
        """See ``Draft.bury``."""
        self.graves[guid, tombstone.owner] = tombstone
        known = self.keys.get(guid)
        if known is not None and known.owner == tombstone.owner:
            del self.keys[guid]


class MemoryShelf:
    """A shelf that is empty again in the next process."""

    def __init__(self) -> None:
        self.page = MemoryPage()

    async def read(self, question: Callable[[Page], T], *, is_brief: bool = False) -> T:  # noqa: ARG002 the port's
        """See ``Shelf.read``."""
        await trio.lowlevel.checkpoint()
        return question(self.page)

    async def write(self, change: Callable[[Draft], T]) -> T:
        """See ``Shelf.write``."""
        await trio.lowlevel.checkpoint()
        draft = self.page.copied()
        result = change(draft)
        self.page = draft
        return result
