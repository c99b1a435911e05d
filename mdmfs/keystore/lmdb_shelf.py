"""The shelf on LMDB: one environment, one large sparse map, every acknowledged change synced to disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

import lmdb
import msgspec
import trio

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
from mdmfs.model.errors import ConfigurationError, StoreError, again
from mdmfs.model.names import GUID_SIZE, Guid
from mdmfs.wire.backup import sync_directory
from mdmfs.wire.formats import Format

MAP_SIZE: Final = 2**38
"""Address space, not disk: the file grows with what is in it. Resizing a live map is where LMDB can go wrong."""
MAX_READERS: Final = 126
MAX_DATABASES: Final = 8
READING_THREADS: Final = 4
_ABOUT: Final = b"about"
_FORMAT_KEY: Final = b"format"
_OPEN_TO_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

T = TypeVar("T")
R = TypeVar("R", bound=Record)


class Rewriting(NamedTuple):
    """All of a shelf, in the transaction of one step to another format."""

    environment: Any
    transaction: Any


SHELF_FORMAT: Final[Format[Rewriting]] = Format("shelf")


@contextlib.asynccontextmanager
async def open_lmdb_shelf(directory: Path, shelf_format: Format[Rewriting] = SHELF_FORMAT) -> AsyncIterator[LmdbShelf]:
    """Open the shelf in a directory, which is made with mode 0700 if need be, and close it at the end.

    One of an older format is brought up to date; of a newer one nothing is changed.

    Raises ``ConfigurationError`` for a directory that others can enter, ``StoreError`` for one that holds no shelf that
    this program can read.
    """
    try:
        shelf = await trio.to_thread.run_sync(LmdbShelf, directory, shelf_format)
    except StoreError as error:
        unopened = f"{directory} cannot be opened"
        raise error.about(unopened) from error
    try:
        yield shelf
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(shelf.close)


class LmdbShelf:
    """``mdmfs.keystore.shelf.Shelf`` on LMDB.

    Writes that arrive while one is being synced are committed together by the next, each in a transaction nested in the
    common one: so a sync (some 0.7 ms) is shared, and a change that raises undoes itself alone.
    """

    def __init__(self, directory: Path, shelf_format: Format[Rewriting] = SHELF_FORMAT) -> None:
        """Open or make the environment; blocks. Whoever opens it calls ``close``."""
        _make_private(directory)
        self._directory = directory
        with _translating_errors(directory):
            self._environment = open_environment(directory)
        self._readers = trio.CapacityLimiter(READING_THREADS)
        self._turn = trio.Lock()
        self._waiting: list[_Change[Any]] = []
        try:
            with _translating_errors(directory):
                self._bring_up(shelf_format)
                self._databases = _Databases(self._environment)
            sync_directory(directory)
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the environment; nothing may be reading or writing any more."""
        self._environment.close()

    async def read(self, question: Callable[[Page], T], *, is_brief: bool = False) -> T:
        """See ``Shelf.read``."""
        if is_brief:
            await trio.lowlevel.checkpoint()
            return self._ask(question)
        return await trio.to_thread.run_sync(self._ask, question, limiter=self._readers)

    async def write(self, change: Callable[[Draft], T]) -> T:
        """See ``Shelf.write``."""
        mine = _Change(change)
        self._waiting.append(mine)
        try:
            async with self._turn:
                if not mine.is_over:
                    # shielded: the others' changes in this batch must not fall with this caller
                    with trio.CancelScope(shield=True):
                        batch, self._waiting = self._waiting, []
                        await trio.to_thread.run_sync(self._commit, batch)
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
        return mine.result()

    def _ask(self, question: Callable[[Page], T]) -> T:
        with _translating_errors(self._directory), self._environment.begin() as transaction:
            return question(_Transaction(transaction, self._databases))

    def _commit(self, batch: list[_Change[Any]]) -> None:
        try:
            with _translating_errors(self._directory), self._environment.begin(write=True) as transaction:
                for change in batch:
                    self._make(change, transaction)
        except Exception as error:  # noqa: BLE001 the thread boundary: every task of the batch must hear of it
            for change in batch:
                change.fail(error)

    def _make(self, change: _Change[Any], outer: Any) -> None:  # noqa: ANN401 lmdb has no types
        try:
            with _translating_errors(self._directory), self._environment.begin(write=True, parent=outer) as nested:
                change.make(_Transaction(nested, self._databases))
        except Exception as error:  # noqa: BLE001 the thread boundary: it is raised again in the task that waits for it
            change.fail(error)

    def _bring_up(self, shelf_format: Format[Rewriting]) -> None:
        """Claim a new shelf's format, or take each step of an older one in a transaction of its own."""
        about = self._environment.open_db(_ABOUT)
        with self._environment.begin(write=True) as transaction:
            mark = transaction.get(_FORMAT_KEY, db=about)
            if mark is None:
                mark = shelf_format.mark
                transaction.put(_FORMAT_KEY, mark, db=about)
        while mark is not None:
            with self._environment.begin(write=True) as transaction:
                mark = shelf_format.advance(mark, Rewriting(self._environment, transaction), "it")
                if mark is not None:
                    transaction.put(_FORMAT_KEY, mark, db=about)


class _Change(Generic[T]):
    """One caller's change and what came of it."""

    def __init__(self, change: Callable[[Draft], T]) -> None:
        self._change = change
        self._results: list[T] = []
        self._error: Exception | None = None

    @property
    def is_over(self) -> bool:
        return bool(self._results) or self._error is not None

    def make(self, draft: Draft) -> None:
        self._results.append(self._change(draft))

    def fail(self, error: Exception) -> None:
        self._error = self._error or error

    def result(self) -> T:
        if isinstance(self._error, StoreError):
            # one failed commit is told to many tasks, and an exception raised twice garbles its traceback
            raise again(self._error) from self._error
        if self._error is not None:
            raise self._error
        return self._results[0]


class _Databases:
    """The named databases of the environment."""

    def __init__(self, environment: Any) -> None:  # noqa: ANN401 lmdb has no types
        self.keys = environment.open_db(b"keys")
        """GUID -> KeyRecord."""
        self.acls = environment.open_db(b"acls")
        """Owner, id -> AclRecord."""
        self.tombstones = environment.open_db(b"tombstones")
        """GUID, owner -> Tombstone."""
        self.epochs = environment.open_db(b"epochs")
        """Owner -> EpochRecord."""
        self.signers = environment.open_db(b"signers")
        """Owner -> public key."""
        self.witnesses = environment.open_db(b"witnesses")
        """Owner, id of a log, number -> WitnessRecord."""


class _Transaction:
    """``Page`` and, in a write transaction, ``Draft``."""

    def __init__(self, transaction: Any, databases: _Databases) -> None:  # noqa: ANN401 lmdb has no types
        self._transaction = transaction
        self._databases = databases

    def key(self, guid: Guid) -> KeyRecord | None:
        """See ``Page.key``."""
        return self._get(self._databases.keys, guid.octets, KeyRecord)

    def acl(self, owner: str, acl_id: bytes) -> AclRecord | None:
        """See ``Page.acl``."""
        return self._get(self._databases.acls, _digest(owner) + acl_id, AclRecord)

    def tombstones(self, guid: Guid) -> list[Tombstone]:
        """See ``Page.tombstones``."""
        found = []
        with self._transaction.cursor(db=self._databases.tombstones) as cursor:
            is_there = cursor.set_range(guid.octets)
            while is_there and cursor.key()[:GUID_SIZE] == guid.octets:
                found.append(_decode(cursor.value(), Tombstone))
                is_there = cursor.next()
        return found

    def epoch(self, owner: str) -> EpochRecord | None:
        """See ``Page.epoch``."""
        return self._get(self._databases.epochs, _digest(owner), EpochRecord)

    def witnesses(self, owner: str, journal: bytes, after: int, limit: int) -> list[WitnessRecord]:
        """See ``Page.witnesses``."""
        prefix = _digest(owner)
        found: list[WitnessRecord] = []
        with self._transaction.cursor(db=self._databases.witnesses) as cursor:
            is_there = cursor.set_range(_witness_key(owner, journal, after + 1))
            while is_there and len(found) < limit and cursor.key().startswith(prefix):
                found.append(_decode(cursor.value(), WitnessRecord))
                is_there = cursor.next()
        return found

    def signer(self, owner: str) -> bytes:
        """See ``Page.signer``."""
        return bytes(self._transaction.get(_digest(owner), b"", db=self._databases.signers))

    def put_signer(self, owner: str, public: bytes) -> None:
        """See ``Draft.put_signer``."""
        self._transaction.put(_digest(owner), public, db=self._databases.signers)

    def latest_witnesses(self, owner: str, journal: bytes, count: int) -> list[WitnessRecord]:
        """See ``Page.latest_witnesses``."""
        prefix = _digest(owner) + journal
        found: list[WitnessRecord] = []
        with self._transaction.cursor(db=self._databases.witnesses) as cursor:
            is_there = cursor.prev() if cursor.set_range(prefix + b"\xff" * 9) else cursor.last()
            while is_there and len(found) < count and cursor.key().startswith(prefix):
                found.append(_decode(cursor.value(), WitnessRecord))
                is_there = cursor.prev()
        return found

    def put_witness(self, owner: str, record: WitnessRecord) -> None:
        """See ``Draft.put_witness``."""
        self._put(self._databases.witnesses, _witness_key(owner, record.journal, record.number), record)

    def drop_witness(self, owner: str, record: WitnessRecord) -> None:
        """See ``Draft.drop_witness``."""
        key = _witness_key(owner, record.journal, record.number)
        self._transaction.delete(key, db=self._databases.witnesses)

    def put_key(self, guid: Guid, record: KeyRecord) -> None:
        """See ``Draft.put_key``."""
        self._put(self._databases.keys, guid.octets, record)

    def put_acl(self, owner: str, acl_id: bytes, record: AclRecord) -> None:
        """See ``Draft.put_acl``."""
        self._put(self._databases.acls, _digest(owner) + acl_id, record)

    def bury(self, guid: Guid, tombstone: Tombstone) -> None:
        """See ``Draft.bury``."""
        self._put(self._databases.tombstones, guid.octets + _digest(tombstone.owner), tombstone)
        known = self.key(guid)
        if known is not None and known.owner == tombstone.owner:
            self._transaction.delete(guid.octets, db=self._databases.keys)

    def put_epoch(self, owner: str, record: EpochRecord) -> None:
        """See ``Draft.put_epoch``."""
        self._put(self._databases.epochs, _digest(owner), record)

    def _get(self, database: object, key: bytes, kind: type[R]) -> R | None:
        octets = self._transaction.get(key, db=database)
        return None if octets is None else _decode(octets, kind)

    def _put(self, database: object, key: bytes, record: Record) -> None:
        self._transaction.put(key, _ENCODER.encode(record), db=database)


_ENCODER: Final = msgspec.msgpack.Encoder()


@contextlib.contextmanager
def _translating_errors(directory: Path) -> Iterator[None]:
    """Tell of LMDB's errors without the paths in them: the message may travel to a peer, and where it was may not."""
    try:
        yield
    except lmdb.Error as error:
        message = f"the shelf failed ({type(error).__name__})"
        told = StoreError(message, what_to_do="see to the keystore's disk, or restore the shelf: mdmfs restore")
        told.place = str(directory)
        raise told from error
    except StoreError as error:
        error.place = error.place or str(directory)
        raise


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


def _digest(owner: str) -> bytes:
    """Shorten a DN to 32 bytes: LMDB's keys have 511 at most, DNs up to 4096."""
    return hashlib.sha256(owner.encode()).digest()


def _witness_key(owner: str, journal: bytes, number: int) -> bytes:
    return _digest(owner) + journal + number.to_bytes(8)


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        message = f"the directory {directory} cannot be used for a shelf: {error.strerror}"
        raise ConfigurationError(message) from error
    if found.st_mode & _OPEN_TO_OTHERS or found.st_uid != os.geteuid():
        message = f"the directory {directory} holds key shares: it must belong to this user, mode 0700 (chmod 700)"
        raise ConfigurationError(message)


def open_environment(directory: Path, *, is_read_only: bool = False) -> Any:  # noqa: ANN401 lmdb has no types
    """Open LMDB's environment in a directory; raises ``lmdb.Error``."""
    environment = lmdb.open(
        str(directory),
        map_size=MAP_SIZE,
        max_dbs=MAX_DATABASES,
        max_readers=MAX_READERS,
        mode=0o600,
        readonly=is_read_only,
        create=not is_read_only,
    )
    environment.reader_check()
    return environment
