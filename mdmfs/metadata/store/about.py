"""What the store remembers of itself: up to where the hospital's changes are known."""

from __future__ import annotations

from typing import Final

import msgspec
import sqlalchemy as sa

from mdmfs.metadata.store.tables import ABOUT
from mdmfs.wire.currency import NOTHING_KNOWN, KnownEpoch

_EPOCH: Final = "epoch"


def known_epoch(connection: sa.Connection) -> KnownEpoch:
    """Give up to where the changes are known."""
    found = connection.execute(sa.select(ABOUT.c.value).where(ABOUT.c.key == _EPOCH)).scalar()
    return NOTHING_KNOWN if found is None else KnownEpoch(*msgspec.msgpack.decode(bytes(found)))


def know_epoch(connection: sa.Connection, known: KnownEpoch) -> None:
    """Remember up to where the changes are known."""
    value = msgspec.msgpack.encode(tuple(known))
    if not connection.execute(ABOUT.update().where(ABOUT.c.key == _EPOCH).values(value=value)).rowcount:
        connection.execute(ABOUT.insert().values(key=_EPOCH, value=value))
