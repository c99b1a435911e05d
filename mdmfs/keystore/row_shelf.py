"""The shelf over ordered rows, whatever engine keeps them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio

from mdmfs.daemon.formats import Format
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.keystore.shelf import (
    RECORD_FORMAT,
    AclRecord,
    Draft,
    EpochRecord,
    KeyRecord,
    Page,
    Record,
    Tombstone,
    WitnessRecord,
)
from mdmfs.model.errors import StoreError
from mdmfs.model.names import Guid
from mdmfs.rows.copied import Copied
from mdmfs.rows.embedded import Embedded
from mdmfs.rows.following import open_in_turn
from mdmfs.rows.port import Engine, Layout, Rows

READING_THREADS: Final = 4
_KEYS: Final = b"k"
"""GUID -> KeyRecord."""
_ACLS: Final = b"a"
"""Owner, id -> AclRecord."""
_TOMBSTONES: Final = b"t"
"""GUID, owner -> Tombstone."""
_EPOCHS: Final = b"e"
"""Owner -> EpochRecord."""
_SIGNERS: Final = b"s"
"""Owner -> public key."""
_WITNESSES: Final = b"w"
"""Owner, id of a log, number -> WitnessRecord."""
_ABOUT: Final = b"!"
_TABLES: Final = {
    _KEYS: b"keys",
    _ACLS: b"acls",
    _TOMBSTONES: b"tombstones",
    _EPOCHS: b"epochs",
    _SIGNERS: b"signers",
    _WITNESSES: b"witnesses",
    _ABOUT: b"about",
}
SHELF_FORMAT: Final[Format[Rows]] = Format("shelf")

T = TypeVar("T")
R = TypeVar("R", bound=Record)


def shelf_layout(shelf_format: Format[Rows] = SHELF_FORMAT) -> Layout:
    """Give what a shelf is made of."""
    return Layout(
        what="shelf",
        holds="key shares",
        tables={byte[0]: name for byte, name in _TABLES.items()},
        ascending=frozenset(),
        mark=_ABOUT + b"format",
        format=shelf_format,
        fill=lambda _: None,
    )


@contextlib.asynccontextmanager
async def open_shelf(configuration: KeystoreConfiguration, *, stands_by: bool = False) -> AsyncIterator[RowShelf]:
    """Open the shelf where the configuration says: in LMDB, or in a database with a copy in LMDB.

    Who ``stands_by`` waits until no other daemon works on the database.

    Raises ``ConfigurationError`` and ``StoreError``, see ``open_lmdb_shelf`` and ``Copied.open_url``.
    """
    if not configuration.store:
        async with open_lmdb_shelf(configuration.directory) as shelf:
            yield shelf
        return
    directory, url = configuration.directory, configuration.store
    if stands_by:
        engine = await open_in_turn(directory, shelf_layout(), url)
    else:
        engine = await trio.to_thread.run_sync(Copied.open_url, directory, shelf_layout(), url)
    try:
        yield RowShelf(engine)
    finally:
        await engine.aclose()


@contextlib.asynccontextmanager
async def open_lmdb_shelf(directory: Path) -> AsyncIterator[RowShelf]:
    """Open the shelf in a directory, which is made with mode 0700 if need be, and close it at the end.

    One of an older format is brought up to date; of a newer one nothing is changed.

    Raises ``ConfigurationError`` for a directory that others can enter, ``StoreError`` for one that holds no shelf that
    this program can read.
    """
    engine = await trio.to_thread.run_sync(Embedded.open, directory, shelf_layout())
    try:
        yield RowShelf(engine)
    finally:
        await engine.aclose()


class RowShelf:
    """``mdmfs.keystore.shelf.Shelf`` over rows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._readers = trio.CapacityLimiter(READING_THREADS)

    async def read(self, question: Callable[[Page], T], *, is_brief: bool = False) -> T:
        """See ``Shelf.read``."""

        def ask() -> T:
            self._engine.refuse_stale()
            return self._engine.read(lambda rows: question(RowDraft(rows)))

        if is_brief:  # a turn of the loop before or after it would cost as much as the reading
            return ask()
        return await trio.to_thread.run_sync(ask, limiter=self._readers)

    async def write(self, change: Callable[[Draft], T]) -> T:
        """See ``Shelf.write``."""
        self._engine.refuse_stale()
        return await self._engine.write(lambda rows: change(RowDraft(rows)))

    async def run(self) -> None:
        """See ``Engine.run``."""
        await self._engine.run()


class RowDraft:
    """``Page`` and, in a write transaction, ``Draft``."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def key(self, guid: Guid) -> KeyRecord | None:
        """See ``Page.key``."""
        return self._get(_KEYS + guid.octets, KeyRecord)

    def acl(self, owner: str, acl_id: bytes) -> AclRecord | None:
        """See ``Page.acl``."""
        return self._get(_ACLS + _digest(owner) + acl_id, AclRecord)

    def tombstones(self, guid: Guid) -> list[Tombstone]:
        """See ``Page.tombstones``."""
        return [_decode(octets, Tombstone) for _, octets in self._rows.scan(_TOMBSTONES + guid.octets)]

    def epoch(self, owner: str) -> EpochRecord | None:
        """See ``Page.epoch``."""
        return self._get(_EPOCHS + _digest(owner), EpochRecord)

    def witnesses(self, owner: str, journal: bytes, after: int, limit: int) -> list[WitnessRecord]:
        """See ``Page.witnesses``."""
        found = self._rows.scan(_WITNESSES + _digest(owner), journal + _number(after + 1))
        return [_decode(octets, WitnessRecord) for _, octets in itertools.islice(found, limit)]

    def signer(self, owner: str) -> bytes:
        """See ``Page.signer``."""
        return self._rows.get(_SIGNERS + _digest(owner)) or b""

    def put_signer(self, owner: str, public: bytes) -> None:
        """See ``Draft.put_signer``."""
        self._rows.put(_SIGNERS + _digest(owner), public)

    def latest_witnesses(self, owner: str, journal: bytes, count: int) -> list[WitnessRecord]:
        """See ``Page.latest_witnesses``."""
        found = self._rows.scan_back(_WITNESSES + _digest(owner) + journal)
        return [_decode(octets, WitnessRecord) for _, octets in itertools.islice(found, count)]

    def put_witness(self, owner: str, record: WitnessRecord) -> None:
        """See ``Draft.put_witness``."""
        self._put(_witness_key(owner, record), record)

    def drop_witness(self, owner: str, record: WitnessRecord) -> None:
        """See ``Draft.drop_witness``."""
        self._rows.delete(_witness_key(owner, record))

    def put_key(self, guid: Guid, record: KeyRecord) -> None:
        """See ``Draft.put_key``."""
        self._put(_KEYS + guid.octets, record)

    def put_acl(self, owner: str, acl_id: bytes, record: AclRecord) -> None:
        """See ``Draft.put_acl``."""
        self._put(_ACLS + _digest(owner) + acl_id, record)

    def bury(self, guid: Guid, tombstone: Tombstone) -> None:
        """See ``Draft.bury``."""
        self._put(_TOMBSTONES + guid.octets + _digest(tombstone.owner), tombstone)
        known = self.key(guid)
        if known is not None and known.owner == tombstone.owner:
            self._rows.delete(_KEYS + guid.octets)

    def put_epoch(self, owner: str, record: EpochRecord) -> None:
        """See ``Draft.put_epoch``."""
        self._put(_EPOCHS + _digest(owner), record)

    def _get(self, key: bytes, kind: type[R]) -> R | None:
        octets = self._rows.get(key)
        return None if octets is None else _decode(octets, kind)

    def _put(self, key: bytes, record: Record) -> None:
        self._rows.put(key, _ENCODER.encode(record))


_ENCODER: Final = msgspec.msgpack.Encoder()


def _decode(octets: bytes, kind: type[R]) -> R:
    try:
        record = msgspec.msgpack.decode(octets, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"a {kind.__name__} on the shelf is damaged, or of a newer format; restore the shelf from its backup"
        raise StoreError(message) from error
    if record.format != RECORD_FORMAT:
        message = (
            f"this program reads a {kind.__name__} of format {RECORD_FORMAT} only; use the one that wrote the shelf"
        )
        raise StoreError(message)
    return record


@functools.lru_cache(maxsize=256)
def _digest(owner: str) -> bytes:
    """Shorten a DN to 32 bytes: keys have 511 at most, DNs up to 4096."""
    return hashlib.sha256(owner.encode()).digest()


def _witness_key(owner: str, record: WitnessRecord) -> bytes:
    return _WITNESSES + _digest(owner) + record.journal + _number(record.number)


def _number(number: int) -> bytes:
    return number.to_bytes(8)
