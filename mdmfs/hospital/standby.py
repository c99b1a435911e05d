"""Standing by: over one database one hospitald works, the others follow its rows, pass on who calls, and take over.

There is one at a time that recalls and numbers what has changed; so nothing is recalled twice, and a right that was
taken away is gone wherever one asks. Who follows may answer readers meanwhile (``beside``).
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from mdmfs.hospital.bell import Bell
from mdmfs.hospital.beside import answer_beside
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.opening import open_store, store_path
from mdmfs.hospital.transaction import RowStore, store_layout
from mdmfs.model.errors import ConfigurationError
from mdmfs.rows.copied import USUAL, Copied, Waiting
from mdmfs.rows.database import TakenError
from mdmfs.rows.following import Following
from mdmfs.wire.nursery import open_plain_nursery
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
) -> tuple[RowStore, trio.TaskStatus[Address]]:
    """Open the store, once no other daemon works on it; give to whom it has yet to be told that this one has started.

    Who stands by has started as soon as he passes on. Raises what ``open_store`` raises, and ``ConfigurationError``
    where this daemon could not take over from the other.
    """
    directory = configuration.path(configuration.hospital.directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not configuration.hospital.only_reads:
        try:
            return await trio.to_thread.run_sync(open_store, configuration), task_status
        except ConfigurationError as error:
            if not isinstance(error.__cause__, TakenError):
                raise
    takes_over = not configuration.hospital.only_reads
    url = configuration.hospital.store
    following = Following(store_path(configuration), store_layout(), url, waiting, takes_over=takes_over)
    try:
        return await _StandBy(configuration, following).wait(task_status), trio.TASK_STATUS_IGNORED
    except BaseException:
        following.close()
        raise


class _StandBy:
    def __init__(self, configuration: HospitalConfiguration, following: Following) -> None:
        self._configuration = configuration
        self._following = following
        self._leader: Address | None = None
        self._heeded = ""
        self._news = Bell()

    async def wait(self, task_status: trio.TaskStatus[Address]) -> RowStore:
        """Follow, and pass on, until it is this daemon's turn."""
        name = self._configuration.hospital.name
        engine: Copied | None = None
        is_listening = is_answering = False
        log.info("hospital stands by: another daemon works on its database", name=name)
        async with open_plain_nursery() as nursery:
            while engine is None:
                self._heed(await trio.to_thread.run_sync(self._following.announced))
                if self._heeded and not is_listening:
                    task_status.started(await self._pass_on(nursery))
                    is_listening = True
                has_gone = await trio.to_thread.run_sync(self._following.step)
                self._news.ring()
                if is_listening and not is_answering and self._following.version() >= 0:
                    await self._answer_readers(nursery)
                    is_answering = True
                if has_gone and not self._configuration.hospital.only_reads:
                    self._leader, self._heeded = None, ""
                    log.warning("the daemon that worked on the database is gone: taking over", name=name)
                    engine = await trio.to_thread.run_sync(self._following.take_over)
            nursery.cancel_scope.cancel()
        return RowStore(engine)

    async def _pass_on(self, nursery: trio.Nursery) -> Address:
        listen = functools.partial(relay, self._configuration.listen, lambda: self._leader)
        bound: Address = await nursery.start(listen, relay_key_of(self._configuration))
        return bound

    async def _answer_readers(self, nursery: trio.Nursery) -> None:
        address = self._configuration.reads
        if address is not None:
            args = self._configuration, self._following, self._news.next, lambda: self._leader, address
            await nursery.start(answer_beside, *args)

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
