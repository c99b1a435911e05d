"""Snapshots: which files a query found at one moment, as they were; what has become of each is told, not changed."""

from __future__ import annotations

import re
from typing import Any, Final

import sqlalchemy as sa

from mdmfs.metadata.query.parse import refuse
from mdmfs.metadata.schema import Level
from mdmfs.metadata.store.finding import Reader
from mdmfs.metadata.store.tables import FROZEN, IMAGES, SERIES, SNAPSHOTS
from mdmfs.metadata.store.values import refuse_nul
from mdmfs.model.errors import MalformedMessageError, NoSuchFileError
from mdmfs.wire.messages.metadata import (
    MAX_PAGE,
    AskFrozen,
    AskFrozenSeries,
    CreateSnapshot,
    FrozenFile,
    FrozenPage,
    FrozenSeries,
    FrozenState,
    Snapshot,
    Snapshots,
)

MAX_SNAPSHOTS: Final = 1000
"""Of one author."""
MAX_FROZEN: Final = 1_000_000
"""Files of one snapshot."""
NONCE_SIZE: Final = 16
_KEPT: Final = ("name", "guid", "inode", "sha256", "policy", "chain", "class")
"""Columns of an image that are kept as they are."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def create(reader: Reader, asked: CreateSnapshot, author: str, now: float) -> Snapshot:
    """Freeze the images of all series that a query finds; raises ``MalformedQueryError``, ``MalformedMessageError``."""
    if not _NAME.fullmatch(asked.name):
        message = f"a snapshot is named by 1 to 64 letters, digits, and . _ - but at its begin, not {asked.name[:80]!r}"
        raise MalformedMessageError(message)
    if len(asked.nonce) != NONCE_SIZE:
        message = f"a nonce has {NONCE_SIZE} bytes"
        raise MalformedMessageError(message)
    query = reader.check(asked.query, Level.SERIES)
    if query.limit is not None:
        raise refuse(len(asked.query), "a snapshot takes all that a query finds: leave out limit")
    held = _row(reader, author, asked.name)
    if held is not None:
        if bytes(held.nonce) == asked.nonce and held.query == asked.query:
            return _told(reader, held)
        message = f"there is a snapshot {asked.name} already: drop it first, or take another name"
        raise MalformedMessageError(message)
    number = _begin(reader, asked, author, now)
    found = reader.compiler.frozen(query)
    parts = found.with_only_columns(
        sa.literal(number), SERIES.c.path, IMAGES.c["Size"], *(IMAGES.c[name] for name in _KEPT)
    ).limit(MAX_FROZEN + 1)
    count = reader.connection.execute(FROZEN.insert().from_select(["snapshot", "series", "size", *_KEPT], parts))
    if count.rowcount > MAX_FROZEN:
        message = f"a snapshot holds at most {MAX_FROZEN} files at one hospital: ask for less"
        raise MalformedMessageError(message)
    return _told(reader, _of(reader, author, asked.name))


def drop(connection: sa.Connection, author: str, name: str) -> bool:
    """Forget a snapshot; tells whether there was one. Raises ``MalformedMessageError``."""
    refuse_nul(name)
    mine = sa.select(SNAPSHOTS.c.id).where(SNAPSHOTS.c.author == author, SNAPSHOTS.c.name == name)
    connection.execute(FROZEN.delete().where(FROZEN.c.snapshot.in_(mine)))
    dropped = connection.execute(SNAPSHOTS.delete().where(SNAPSHOTS.c.author == author, SNAPSHOTS.c.name == name))
    return dropped.rowcount > 0


def snapshots_of(reader: Reader, author: str) -> Snapshots:
    """Give the snapshots of one author, by name."""
    rows = reader.connection.execute(
        sa.select(SNAPSHOTS).where(SNAPSHOTS.c.author == author).order_by(SNAPSHOTS.c.name)
    ).all()
    return Snapshots([_told(reader, row) for row in rows])


def frozen_series(reader: Reader, author: str, asked: AskFrozenSeries) -> FrozenSeries:
    """Give a page of the series of a snapshot; raises ``NoSuchFileError`` or ``MalformedMessageError``."""
    refuse_nul(asked.name, asked.after)
    number, limit = _of(reader, author, asked.name).id, min(max(asked.limit, 1), MAX_PAGE)
    series = sa.select(FROZEN.c.series).where(FROZEN.c.snapshot == number, FROZEN.c.series > asked.after)
    paths = list(
        reader.connection.execute(series.distinct().order_by(FROZEN.c.series).limit(limit + 1)).scalars().all()
    )
    return FrozenSeries(paths[:limit], is_last=len(paths) <= limit)


def frozen_page(reader: Reader, author: str, asked: AskFrozen) -> FrozenPage:
    """Give a page of the files of a snapshot, each with its state; raises as ``frozen_series``."""
    refuse_nul(asked.name, asked.series, *(asked.after or ()))
    number, limit = _of(reader, author, asked.name).id, min(max(asked.limit, 1), MAX_PAGE)
    rows = sa.select(FROZEN, _state(reader).label("state")).where(FROZEN.c.snapshot == number)
    if asked.series:
        rows = rows.where(FROZEN.c.series == asked.series)
    if asked.after:
        series, name = asked.after
        rows = rows.where(sa.or_(FROZEN.c.series > series, sa.and_(FROZEN.c.series == series, FROZEN.c.name > name)))
    found = reader.connection.execute(rows.order_by(FROZEN.c.series, FROZEN.c.name).limit(limit + 1)).mappings().all()
    return FrozenPage([_file(row) for row in found[:limit]], is_last=len(found) <= limit)


def _begin(reader: Reader, asked: CreateSnapshot, author: str, now: float) -> int:
    count = sa.select(sa.func.count()).select_from(SNAPSHOTS).where(SNAPSHOTS.c.author == author)
    if reader.connection.execute(count).scalar_one() >= MAX_SNAPSHOTS:
        message = f"there are {MAX_SNAPSHOTS} snapshots of this identity: drop some"
        raise MalformedMessageError(message)
    values = {"author": author, "name": asked.name, "query": asked.query, "created": now, "nonce": asked.nonce}
    return int(reader.connection.execute(SNAPSHOTS.insert().values(values).returning(SNAPSHOTS.c.id)).scalar_one())


def _row(reader: Reader, author: str, name: str) -> Any:  # noqa: ANN401 a row of a table of ours
    return reader.connection.execute(
        sa.select(SNAPSHOTS).where(SNAPSHOTS.c.author == author, SNAPSHOTS.c.name == name)
    ).first()


def _of(reader: Reader, author: str, name: str) -> Any:  # noqa: ANN401 a row of a table of ours
    row = _row(reader, author, name)
    if row is None:
        message = f"there is no snapshot {name} of this identity"
        raise NoSuchFileError(message, what_to_do="mdmfs snapshot list names those that there are")
    return row


def _told(reader: Reader, row: Any) -> Snapshot:  # noqa: ANN401 a row of a table of ours
    mine = FROZEN.c.snapshot == row.id
    policies = reader.connection.execute(sa.select(FROZEN.c.policy).where(mine).distinct()).scalars().all()
    states = sa.select(_state(reader).label("state")).select_from(FROZEN).where(mine).subquery()
    grouped = sa.select(states.c.state, sa.func.count()).group_by(states.c.state)
    counts = {state: count for state, count in reader.connection.execute(grouped)}  # noqa: C416 typed pairs
    return Snapshot(
        name=row.name,
        author=row.author,
        query=row.query,
        created=row.created,
        policies=sorted(bytes(policy) for policy in policies),
        files=sum(counts.values()),
        gone=sum(counts.values()) - counts.get(FrozenState.THERE.value, 0),
    )


def _state(reader: Reader) -> sa.ColumnElement[str]:
    """Say what has become of a file: first what the caller may not know stands behind one word.

    What has its name now, and he may not read, is not there.
    """
    image, series, other = IMAGES.alias(), SERIES.alias(), IMAGES.alias()
    here = sa.exists().where(image.c.guid == FROZEN.c.guid)
    denied = sa.exists().where(image.c.guid == FROZEN.c.guid, sa.not_(reader.compiler.readable(image)))
    shown = sa.exists().where(
        image.c.guid == FROZEN.c.guid, image.c.visible, series.c.id == image.c.series, series.c.visible
    )
    replaced = sa.exists().where(
        series.c.path == FROZEN.c.series,
        series.c.visible,
        reader.compiler.readable(series),
        other.c.series == series.c.id,
        other.c.name == FROZEN.c.name,
        other.c.visible,
        reader.compiler.readable(other),
    )
    return sa.case(
        (sa.or_(sa.not_(reader.compiler.readable(FROZEN)), denied), FrozenState.DENIED.value),
        (shown, FrozenState.THERE.value),
        (here, FrozenState.HIDDEN.value),
        (replaced, FrozenState.REPLACED.value),
        else_=FrozenState.GONE.value,
    )


def _file(row: Any) -> FrozenFile:  # noqa: ANN401 a row of a table of ours
    return FrozenFile(
        series=row["series"],
        name=row["name"],
        guid=bytes(row["guid"]),
        size=row["size"],
        sha256=bytes(row["sha256"]),
        policy=bytes(row["policy"]),
        state=FrozenState(row["state"]),
    )
