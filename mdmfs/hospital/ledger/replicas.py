"""What the hospital keeps of its replicas: where each is, of which sealing, and what is left to be taken away."""

from __future__ import annotations

import enum
import itertools
import math
from typing import Final

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.rows import Stored, digest_key
from mdmfs.model.names import Guid
from mdmfs.rows.port import Rows

PAGE: Final = 256
"""Looked at in one go: a few milliseconds, with what the store says of their files."""


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
    """When it is to go by itself, in seconds since the epoch; of a LEAVING one, until when it may yet appear."""
    state: ReplicaState


def leaving(replica: Replica) -> Replica:
    """Have it go; what is perhaps still on its way there is not taken for gone at the first look."""
    if replica.state is ReplicaState.LEAVING:
        return replica
    until = math.inf if replica.state is ReplicaState.COMING else 0.0
    return msgspec.structs.replace(replica, state=ReplicaState.LEAVING, until=until)


_ROWS: Final = Stored(Replica)


class ReplicaRows:
    """The replicas that are known, inside one transaction.

    ``z`` + GUID + digest of storage element and name: the replica. ``Z`` + digest of the storage element + the same:
    that it is to be taken away.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def put(self, replica: Replica) -> None:
        """Keep a replica, in place of what was kept of it."""
        self._rows.put(tables.REPLICAS + _key(replica), _ROWS.encode(replica))
        if replica.state is ReplicaState.LEAVING:
            self._rows.put(_leaving(replica.element) + _key(replica), b"")
        else:
            self._rows.delete(_leaving(replica.element) + _key(replica))

    def of(self, guid: Guid) -> list[Replica]:
        """Give the replicas of a file, in whatever state."""
        return [_ROWS.decode(value) for _, value in self._rows.scan(tables.REPLICAS + guid.octets)]

    def page(self, limit: int, after: Replica | None = None) -> list[Replica]:
        """Give some of all, in an order that does not change, from the one after another on."""
        rows = itertools.islice(self._rows.scan(tables.REPLICAS, _behind(after)), limit)
        return [_ROWS.decode(value) for _, value in rows]

    def leaving(self, element: str, limit: int, after: Replica | None = None) -> list[Replica]:
        """Give some of those that are to be taken away from a storage element, as ``page``; all others cost nothing."""
        keys = [key for key, _ in itertools.islice(self._rows.scan(_leaving(element), _behind(after)), limit)]
        values = [self._rows.get(tables.REPLICAS + key) for key in keys]
        return [_ROWS.decode(value) for value in values if value is not None]

    def remove(self, replica: Replica) -> None:
        """Forget a replica."""
        self._rows.delete(tables.REPLICAS + _key(replica))
        self._rows.delete(_leaving(replica.element) + _key(replica))


def _key(replica: Replica) -> bytes:
    return replica.guid + digest_key(replica.element, replica.name)


def _leaving(element: str) -> bytes:
    return tables.REPLICAS_LEAVING + digest_key(element)


def _behind(replica: Replica | None) -> bytes:
    return b"" if replica is None else _key(replica) + b"\0"
