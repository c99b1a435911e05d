"""The principals of a mount for many users: each proxy file of each uid is one, with all that serves him apart.

What tells them apart is the uid, the path of the proxy, its DN and the FQANs that it claims. A proxy that was renewed
with the same is taken over where it stands; another DN, or other FQANs, make another principal, who has seen nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, cast

import structlog
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.model.errors import (
    BusyError,
    ConfigurationError,
    MdmfsError,
    PeerTimedOutError,
    StaleNumberError,
)
from mdmfs.model.names import Lfn
from mdmfs.pki.certificate import UNREADABLE, Certificate
from mdmfs.pki.health import certificates_in
from mdmfs.pki.tls import Credential
from mdmfs.pki.voms import claims_of
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.callers.finder import Found, ProxyFile, UnfinishedProxyError, find_proxy
from mdmfs.worker.callers.numbers import MAX_PRINCIPALS, parse_number
from mdmfs.worker.callers.own_files import Directories, OwnFiles, OwnPages, RootOnly, principal_of_handle
from mdmfs.worker.callers.seat import Seat
from mdmfs.worker.memory import Memory
from mdmfs.worker.port import Files
from mdmfs.worker.serving import KernelCache, Serving, Site

MAX_LOOKS: Final = 4
"""Of one uid at once: a process may have a root that never answers, and that must not hold up anybody else."""
MAX_WAITING: Final = 400
"""Requests of one uid that wait for such a look: with as many opens as may wait, they leave tasks for everyone else."""
LOOK_SECONDS: Final = 5.0
WRITING_SECONDS: Final = 2.0
"""For somebody to write a proxy."""
WRITING_LOOKS: Final = 40
MAX_HOPELESS: Final = 4096
MAX_OF_UID: Final = 64
"""A job of a pool account has a proxy file of its own, and a node runs many of them."""
MAX_IN_ALL: Final = 512
IDLE_SECONDS: Final = 1800.0
"""After which a principal without anything open is served no more; he begins anew when he asks."""
SHORTEST_SECONDS: Final = 10.0
"""But not sooner, to make room for another."""
SWEEP_SECONDS: Final = 60.0
END_SECONDS: Final = 8.0

log = structlog.get_logger(__name__)


class Identity(NamedTuple):
    """What tells one principal from another."""

    uid: int
    path: str
    dn: str
    claims: frozenset[str]


class Arrival(NamedTuple):
    """A principal who asks for the first time, for whoever connects him."""

    identity: Identity
    credential: Callable[[], Credential]
    """That of the moment: a renewed proxy is another file."""


Connect = Callable[[Arrival, trio.Nursery, Path], Sequence[Site]]
"""Connects a principal for as long as the nursery stands, with the directory that is his for ciphertext."""
Finder = Callable[[int, int, Callable[[ProxyFile], bool]], Found]


class _Principal:
    """One who is served."""

    def __init__(self, identity: Identity, number: int, gid: int, found: Found) -> None:
        self.identity = identity
        self.state = found.file
        self.number = number
        self.gid = gid
        self.scope = trio.CancelScope()
        self.seat: Seat
        self.files: OwnFiles
        self.is_seated = False
        """Whether he has been served: then the log tells of a failure, and not he who let him in."""
        self.asked = trio.current_time()
        self._kept = _keep(found.octets or b"")

    def credential(self) -> Credential:
        """Give the proxy as it was last read: the file itself may change while it is used."""
        return Credential.of_proxy(Path(f"/proc/self/fd/{self._kept}"))

    def renew(self, octets: bytes) -> None:
        """Take a renewed proxy over."""
        before, self._kept = self._kept, _keep(octets)
        os.close(before)

    def close(self) -> None:
        """Let the proxy go."""
        os.close(self._kept)

    def is_idle(self, seconds: float) -> bool:
        """Ask whether nothing is open, and nothing was asked for so long."""
        return not self.files.handles and trio.current_time() >= self.asked + seconds


class Principals:
    """See ``Callers``. ``run`` serves; until then nobody is let in."""

    def __init__(  # noqa: PLR0913 what they share
        self,
        connect: Connect,
        kernel: KernelCache,
        root: Lfn,
        folder: Path,
        *,
        deadline: float,
        memory: Memory,
        finder: Finder = find_proxy,
    ) -> None:
        """``folder`` is for ciphertext, what is in it goes; ``memory`` is what all of them may take together."""
        self._connect = connect
        self._kernel = kernel
        self._root = root
        self._folder = folder
        self._deadline = deadline
        self._memory = memory
        self._finder = finder
        self._nursery: trio.Nursery
        self._directories = Directories()
        self._served: dict[Identity, _Principal] = {}
        self._by_number: dict[int, _Principal] = {}
        self._by_file: dict[ProxyFile, _Principal] = {}
        self._gone = trio.Event()
        self._count = 0
        self._hopeless: dict[ProxyFile, None] = {}
        """States of files that were waited for in vain: nobody waits for them again."""
        self._looks: dict[int, trio.CapacityLimiter] = {}
        self._arriving: dict[int, trio.Lock] = {}
        self._has_gone: Callable[[], bool] | None = None
        """Of the mount; None while there is one: who is let go meanwhile may have pages in the kernel."""
        self.doorman = Seat(cast("Files", RootOnly(root)), 0, 0)  # who asks for no more than the mount point

    # The port

    def at_once(self, uid: int, *, is_harmless: bool = False) -> Seat | None:  # noqa: ARG002 those of the port
        """Know nobody by his uid alone."""
        return None

    async def find(self, uid: int, gid: int, tid: int) -> Seat:
        """Find the seat of whoever asks, by his process's proxy; raises ``CredentialRefusedError``.

        Many renew a proxy by writing over it: for who asks meanwhile it is looked at again.
        """
        give_up_at = trio.current_time() + WRITING_SECONDS
        first: UnfinishedProxyError | None = None
        while True:
            try:
                return await self._find(uid, gid, tid)
            except UnfinishedProxyError as error:
                first = first or error
                if error.file in self._hopeless:
                    raise
                if trio.current_time() >= give_up_at:
                    if error.file is not None and error.file == first.file:
                        self._give_up(error.file)
                    raise
            await trio.sleep(WRITING_SECONDS / WRITING_LOOKS)

    def _give_up(self, file: ProxyFile) -> None:
        """Wait for nobody who would write this file, until it has changed."""
        if len(self._hopeless) >= MAX_HOPELESS:
            del self._hopeless[next(iter(self._hopeless))]
        self._hopeless[file] = None

    async def _find(self, uid: int, gid: int, tid: int) -> Seat:
        found = await self._look(uid, tid)
        known = self._by_file.get(found.file)
        if known is None:
            async with self._arriving.setdefault(uid, trio.Lock()):
                known = self._by_file.get(found.file) or await self._let_in(found, gid)
        known.asked = trio.current_time()
        return known.seat

    def of_handle(self, handle: int) -> Seat:
        """Give the seat at which a handle was opened."""
        known = self._by_number.get(principal_of_handle(handle))
        if known is None:
            message = "this handle's principal is served no more: open the file again"
            raise StaleNumberError(message)
        return known.seat

    def forget(self, inode: int, lookups: int) -> None:
        """Take lookups back: of a file from its principal, of a directory from all who have looked it up."""
        own = parse_number(inode)
        counts = self._directories.forget(inode, lookups) if own is None else {own.principal: lookups}
        for principal, count in counts.items():
            known = self._by_number.get(principal)
            if known is not None:
                known.files.forget(inode if own is None else own.inode, count)

    # Serving

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve whoever comes, until cancelled; what goes wrong with one ends only his part."""
        await CiphertextCache(self._folder, 0).destroy()
        try:
            await trio.to_thread.run_sync(functools.partial(self._folder.mkdir, mode=0o700, parents=True))
        except OSError as error:
            message = f"the cache {self._folder} cannot be used: {error.strerror}"
            raise ConfigurationError(message) from error
        async with open_plain_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                await trio.sleep(SWEEP_SECONDS)
                for known in list(self._served.values()):
                    if known.is_idle(IDLE_SECONDS):
                        self._let_go(known)
                self._looks = {uid: limiter for uid, limiter in self._looks.items() if limiter.borrowed_tokens}
                self._arriving = {uid: lock for uid, lock in self._arriving.items() if lock.locked()}

    async def end(self, has_gone: Callable[[], bool] | None) -> None:
        """Serve nobody any more, each having had his last word; ``has_gone`` as that of ``Mounted``."""
        self._has_gone = has_gone
        with trio.move_on_after(END_SECONDS):
            while self._by_number:
                for known in self._by_number.values():
                    known.scope.cancel()
                await self._gone.wait()

    async def _look(self, uid: int, tid: int) -> Found:
        """Find the caller's proxy, in a thread that may be left alone."""
        limiter = self._looks.setdefault(uid, trio.CapacityLimiter(MAX_LOOKS))
        if not limiter.available_tokens and limiter.statistics().tasks_waiting >= MAX_WAITING:
            message = f"{MAX_WAITING} requests of uid {uid} wait already until their proxies have been looked at"
            raise BusyError(message)
        with trio.move_on_after(LOOK_SECONDS):
            return await trio.to_thread.run_sync(
                self._finder, uid, tid, self._by_file.__contains__, limiter=limiter, abandon_on_cancel=True
            )
        message = f"the proxy of a process of uid {uid} could not be looked at within {LOOK_SECONDS:g} s"
        raise PeerTimedOutError(message)

    async def _let_in(self, found: Found, gid: int) -> _Principal:
        """Serve a proxy that was not seen in this state: one that was renewed, or a new principal."""
        if found.octets is None:
            message = f"the proxy {found.file.path!r} has just been replaced: try again"
            raise UnfinishedProxyError(message)
        identity = await trio.to_thread.run_sync(_identify, found)
        known = self._served.get(identity)
        if known is not None:
            self._by_file.pop(known.state, None)
            known.renew(found.octets)
            log.info("a proxy was renewed", uid=identity.uid, principal=known.number)
        else:
            self._make_room(identity.uid)
            known = await self._begin(identity, gid, found)
        known.state = found.file
        self._by_file[found.file] = known
        return known

    def _make_room(self, uid: int) -> None:
        """Let somebody go who has nothing open, where there are too many; raises ``BusyError``."""
        of_uid = [known for known in self._served.values() if known.identity.uid == uid]
        for those, limit in ((of_uid, MAX_OF_UID), (list(self._served.values()), MAX_IN_ALL)):
            idle = sorted((one for one in those if one.is_idle(SHORTEST_SECONDS)), key=lambda one: one.asked)
            if len(those) < limit:
                continue
            if not idle:
                message = f"{limit} proxies are in use at once; close something, or use fewer"
                raise BusyError(message)
            self._let_go(idle[0])
        if self._count + 1 >= MAX_PRINCIPALS:
            message = "this mount has numbered as many principals as it can: mount it anew"
            raise BusyError(message)

    async def _begin(self, identity: Identity, gid: int, found: Found) -> _Principal:
        self._count += 1
        known = _Principal(identity, self._count, gid, found)
        try:
            await self._nursery.start(self._serve, known)
        except BaseException:
            known.close()
            raise
        log.info("serving", uid=identity.uid, dn=identity.dn, principal=known.number)
        return known

    async def _serve(self, known: _Principal, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve one principal until his scope is cancelled; what goes wrong by then ends only his part."""
        folder = self._folder / str(known.number)
        sites: Sequence[Site] = ()
        try:
            async with open_plain_nursery() as connections:
                sites = self._connect(Arrival(known.identity, known.credential), connections, folder)
                with known.scope:
                    await self._serve_with(sites, known, task_status)
                connections.cancel_scope.cancel()
        except Exception as error:
            if not known.is_seated and isinstance(error, MdmfsError):
                raise
            log.exception("serving a principal failed unexpectedly", principal=known.number)
            if not known.is_seated:
                message = "this proxy cannot be served, see the log of the mount"
                raise MdmfsError(message) from error
        finally:
            if known.is_seated:
                self._by_number.pop(known.number, None)
                self._tell_gone()
                self._directories.leave(known.number)
                known.close()
            with trio.CancelScope(shield=True):
                for site in sites:
                    await site.cache.destroy()
                await CiphertextCache(folder, 0).destroy()

    async def _serve_with(self, sites: Sequence[Site], known: _Principal, task_status: trio.TaskStatus[None]) -> None:
        for site in sites:
            await site.cache.load()
        async with open_plain_nursery() as nursery:
            pages = OwnPages(self._kernel, known.number)
            serving = Serving(sites, self._root, pages, nursery, deadline=self._deadline, memory=self._memory)
            known.files = OwnFiles(serving.files, known.number, self._directories)
            known.seat = Seat(known.files, known.identity.uid, known.gid)
            self._served[known.identity] = self._by_number[known.number] = known
            serving.start()
            known.is_seated = True
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._part(known)  # the end takes seconds, and whoever comes meanwhile begins anew
                await serving.tell_last(self._has_gone)
                with trio.CancelScope(shield=True), trio.move_on_after(LOOK_SECONDS):
                    await serving.forget_pages()

    def _tell_gone(self) -> None:
        gone, self._gone = self._gone, trio.Event()
        gone.set()

    def _let_go(self, known: _Principal) -> None:
        """End his part; from now on he begins anew."""
        self._part(known)
        known.scope.cancel()

    def _part(self, known: _Principal) -> None:
        """Let nobody find him any more."""
        if self._served.get(known.identity) is known:
            del self._served[known.identity]
        if self._by_file.get(known.state) is known:
            del self._by_file[known.state]


def _keep(octets: bytes) -> int:
    """Keep a proxy in memory that has no name, for whoever wants a file."""
    kept = os.memfd_create("proxy", os.MFD_CLOEXEC)
    os.fchmod(kept, 0o600)
    with os.fdopen(os.dup(kept), "wb") as written:
        written.write(octets)
    return kept


def _identify(found: Found) -> Identity:
    """Read whose proxy it says to be; raises ``CredentialRefusedError`` where it is none."""
    try:
        certificates: Sequence[Certificate] = list(certificates_in(found.octets or b""))
        end_entity = next(one for one in certificates if not one.is_proxy)
        return Identity(found.file.uid, found.file.path, str(end_entity.subject), claims_of(certificates))
    except (MdmfsError, StopIteration, *UNREADABLE) as error:
        message = f"{found.file.path!r} is no proxy: make one anew"
        raise UnfinishedProxyError(message, found.file) from error
