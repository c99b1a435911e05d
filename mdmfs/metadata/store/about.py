"""What the store remembers of itself: up to where the hospital's changes are known, and how its rights stand."""

from __future__ import annotations

import os
from typing import Final

import msgspec
import sqlalchemy as sa

from mdmfs.metadata.store.tables import ABOUT
from mdmfs.wire.currency import NOTHING_KNOWN, KnownEpoch

_EPOCH: Final = "epoch"
_STAMP: Final = "rights"
_STAMP_SIZE: Final = 16
_VALUE: Final = sa.select(ABOUT.c.value).where(ABOUT.c.key == sa.bindparam("about"))


def known_epoch(connection: sa.Connection) -> KnownEpoch:
    """Give up to where the changes are known."""
    found = _held(connection, _EPOCH)
    return NOTHING_KNOWN if found is None else KnownEpoch(*msgspec.msgpack.decode(found))


def know_epoch(connection: sa.Connection, known: KnownEpoch) -> None:
    """Remember up to where the changes are known."""
    _hold(connection, _EPOCH, msgspec.msgpack.encode(tuple(known)))


def stamp_of_rights(connection: sa.Connection) -> bytes | None:
    """Give the stamp of classes and schema: what was read of them under the same one is what stands here."""
    return _held(connection, _STAMP)


def stamp_rights(connection: sa.Connection) -> None:
    """Stamp classes and schema anew, since they change; the stamp is random, as the transaction may yet be undone."""
    _hold(connection, _STAMP, os.urandom(_STAMP_SIZE))


def _held(connection: sa.Connection, key: str) -> bytes | None:
    found = connection.execute(_VALUE, {"about": key}).scalar()
    return None if found is None else bytes(found)


def _hold(connection: sa.Connection, key: str, value: bytes) -> None:
    if not connection.execute(ABOUT.update().where(ABOUT.c.key == key).values(value=value)).rowcount:
        connection.execute(ABOUT.insert().values(key=key, value=value))
