"""What the hospital keeps of its replicas: where each is, of which sealing, and what is left to be taken away."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.rows import Rows, Stored, digest_key
from mdmfs.model.names import Guid


class ReplicaState(enum.IntEnum):
    """Where a replica is in its life."""

    COMING = 1
    """It is being put: after a crash nobody knows how much of it is there."""
    THERE = 2
    LEAVING = 3
    """It is to be taken away, and is, or may be, still there."""


class Replica(msgspec.Struct, frozen=True, array_like=True):
    """One copy of one sealing of one file at one storage element."""

    guid: bytes
    element: str
    name: str
    """Under which the storage element keeps it."""
    generation: int
    """Of the key."""
    header: bytes
    """Of the sealing: salt and commitment."""
    size: int
    """Of the sealed object; what fills it up is not counted."""
    until: float
    """When it is to go by itself, in seconds since the epoch."""
    state: ReplicaState


class ReplicaRows(Protocol):
    """The replicas that are known, inside one transaction."""

    def put(self, replica: Replica) -> None:
        """Keep a replica, in place of what was kept of it."""

    def of(self, guid: Guid) -> list[Replica]:
        """Give the replicas of a file, in whatever state."""

    def all(self) -> Iterator[Replica]:
        """Give all of them, those of one file side by side."""

    def remove(self, replica: Replica) -> None:
        """Forget a replica."""


_ROWS: Final = Stored(Replica)


class RowsOfReplicas:
    """``ReplicaRows`` over ordered rows: ``z`` + GUID + digest of storage element and name."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def put(self, replica: Replica) -> None:
        """Keep a replica."""
        self._rows.put(_key(replica), _ROWS.encode(replica))

    def of(self, guid: Guid) -> list[Replica]:
        """Give the replicas of a file."""
        return [_ROWS.decode(value) for _, value in self._rows.scan(tables.REPLICAS + guid.octets)]

    def all(self) -> Iterator[Replica]:
        """Give all replicas."""
        return (_ROWS.decode(value) for _, value in self._rows.scan(tables.REPLICAS))

    def remove(self, replica: Replica) -> None:
        """Forget a replica."""
        self._rows.delete(_key(replica))


def _key(replica: Replica) -> bytes:
    return tables.REPLICAS + replica.guid + digest_key(replica.element, replica.name)
