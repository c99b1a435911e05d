"""Standing by: over one database one hospitald works, the others follow its rows, pass on who calls, and take over.

There is one at a time that recalls and numbers what has changed; so nothing is recalled twice, and a right that was
taken away is gone wherever one asks. Who follows may answer readers meanwhile (``beside``).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.bell import Bell
from mdmfs.hospital.beside import answer_beside
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.opening import store_path
from mdmfs.hospital.store import Store, store_layout
from mdmfs.journal.durable import make_directory
from mdmfs.model.errors import ConfigurationError, using
from mdmfs.rows.copied import USUAL, Waiting
from mdmfs.rows.following import Following, open_in_turn
from mdmfs.wire.relay import relay, relay_key
from mdmfs.wire.stream import Address

log = structlog.get_logger()

KEYS: Final = ("outbox.key", "signing.key", "replicas.key")
"""What all daemons of one database have alike."""
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 compared, not bound


class Presence(msgspec.Struct, frozen=True):
    """What the daemon that works leaves in the database for those who stand by."""

    address: str
    """Where it listens."""
    keys: dict[str, str]
    """A digest of each of its keys, which are random."""


def presence(configuration: HospitalConfiguration) -> str:
    """Say where this daemon is, and which keys it has."""
    return msgspec.json.encode(Presence(told_as(configuration), _digests(configuration))).decode()


def told_as(configuration: HospitalConfiguration) -> str:
    """Say at which address others reach this daemon."""
    return str(configuration.public if configuration.listen.host in _EVERYWHERE else configuration.listen)


def relay_key_of(configuration: HospitalConfiguration) -> bytes:
    """Give the key by which another daemon's relay is known; empty where there is no other one."""
    if not configuration.hospital.store:
        return b""
    return relay_key(_file(configuration, "outbox.key").read_bytes())


async def open_or_stand_by(
    configuration: HospitalConfiguration, task_status: trio.TaskStatus[Address], waiting: Waiting = USUAL
) -> tuple[Store, trio.TaskStatus[Address]]:
    """Open the store, once no other daemon works on it; give to whom it has yet to be told that this one has started.

    Who stands by has started as soon as he passes on. Raises what ``LmdbStore.open`` and ``open_in_turn`` raise,
    ``UnusableFileError`` where the directory cannot be made, and ``ConfigurationError`` where this daemon could not
    take over from the other.
    """
    settings, path = configuration.hospital, store_path(configuration)
    with using(path.parent):
        make_directory(path.parent)
    if not settings.store:
        return await trio.to_thread.run_sync(LmdbStore.open, path), task_status
    async with contextlib.AsyncExitStack() as unless_taken:
        async with open_plain_nursery() as nursery:
            meanwhile = _Meanwhile(configuration, nursery, task_status)
            args = path, store_layout(), settings.store, waiting
            engine = await open_in_turn(*args, takes_over=not settings.only_reads, meanwhile=meanwhile)
            unless_taken.push_async_callback(engine.aclose)
            nursery.cancel_scope.cancel()
        unless_taken.pop_all()
    return Store(engine), trio.TASK_STATUS_IGNORED if meanwhile.is_listening else task_status


class _Meanwhile:
    """What a hospitald does that follows: it passes on who calls, and answers readers."""

    def __init__(
        self, configuration: HospitalConfiguration, nursery: trio.Nursery, task_status: trio.TaskStatus[Address]
    ) -> None:
        self._configuration = configuration
        self._nursery = nursery
        self._task_status = task_status
        self._leader: Address | None = None
        self._heeded = ""
        self._news = Bell()
        self.is_listening = self._is_answering = False

    async def __call__(self, following: Following, *, has_gone: bool) -> None:
        """See ``Meanwhile``."""
        self._news.ring()
        if has_gone:
            self._leader, self._heeded = None, ""
            return
        self._heed(await trio.to_thread.run_sync(following.announced))
        if self._heeded and not self.is_listening:
            self._task_status.started(await self._pass_on())
            self.is_listening = True
        if self.is_listening and not self._is_answering and following.version() >= 0:
            await self._answer_readers(following)
            self._is_answering = True

    async def _pass_on(self) -> Address:
        listen = functools.partial(relay, self._configuration.listen, lambda: self._leader)
        bound: Address = await self._nursery.start(listen, relay_key_of(self._configuration))
        return bound

    async def _answer_readers(self, following: Following) -> None:
        address = self._configuration.reads
        if address is not None:
            args = self._configuration, following, self._news.next, lambda: self._leader, address
            await self._nursery.start(answer_beside, *args)

    def _heed(self, told: str) -> None:
        """Note where the other one is; raises ``ConfigurationError`` where its keys are others."""
        if told == self._heeded:
            return
        try:
            other = msgspec.json.decode(told, type=Presence)
            address = Address.parse(other.address)
        except (msgspec.DecodeError, ConfigurationError):
            return
        own = _digests(self._configuration)
        differ = [name for name in KEYS if own.get(name) != other.keys.get(name)]
        if differ:
            message = f"the daemon at {address} works on the same database with other keys"
            folder = self._configuration.path(self._configuration.hospital.directory)
            raise ConfigurationError(message, what_to_do=f"copy its {', '.join(differ)} to {folder}, mode 0600")
        self._heeded = told
        self._leader = None if str(address) == told_as(self._configuration) else address
        if self._leader is None:
            log.warning("nothing is passed on: the daemon that works was last heard of at this one's address")


def _digests(configuration: HospitalConfiguration) -> dict[str, str]:
    files = {name: _file(configuration, name) for name in KEYS}
    return {
        name: hashlib.sha256(b"mdmfs " + name.encode() + b"\0" + path.read_bytes()).hexdigest()
        for name, path in files.items()
        if path.exists()
    }


def _file(configuration: HospitalConfiguration, name: str) -> Path:
    return configuration.path(configuration.hospital.directory) / name
