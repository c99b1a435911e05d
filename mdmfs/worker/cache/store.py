"""The cache: one folder of ciphertext under a limit, the files not opened for longest leave first. No fsck, ever.

``complete/GUID.GENERATION.THRESHOLD.SALT`` is a whole sealed object (``Kept``). Its time of modification says when it
was last opened. ``arriving/`` holds what is being fetched, each file locked by who writes it; what is not locked at the
start was left by a crash and goes. ``format`` tells the number of this format, ``account`` what all mounts take. None
of the objects is synced: what a power cut spoils fails its tags and is fetched anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog
import trio

from mdmfs.daemon.formats import Format, bring_up_folder
from mdmfs.daemon.process import NO_DESCRIPTOR
from mdmfs.model.errors import ConfigurationError, OutOfSpaceError, StoreError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import sealed_size
from mdmfs.worker.cache.arriving import READ_FLAGS, create_locked, drop_unlocked
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.cache.kept import Kept, KeptObjects, Seal
from mdmfs.worker.cache.room import ARRIVING, COMPLETE, Room, Turns, refused
from mdmfs.worker.memory import Memory

CACHE_FORMAT: Final[Format[Path]] = Format("cache of a mount", remedy=", or delete it: what it holds is fetched again")
SMALL: Final = 2**20
"""An object up to this size takes its space when it is written, all at once."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""What says that older objects should make room: of bytes, or of the number of files."""
_NO_FALLOCATE: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)

log = structlog.get_logger(__name__)


class CiphertextCache:
    """Objects by GUID. Its methods are short; those that touch many files run in a thread."""

    def __init__(
        self, folder: Path, limit: int, room: Room | None = None, cache_format: Format[Path] = CACHE_FORMAT
    ) -> None:
        """``limit`` is in bytes, for complete and arriving objects together; ``room`` is shared with other caches."""
        self._format = cache_format
        self._room = room
        if room is not None:
            room.caches.add(self)
        self.turns = Turns() if room is None else room.turns
        self._complete = folder / COMPLETE
        self._arriving = folder / ARRIVING
        self._folder = folder
        self.limit = limit
        self._used = 0
        self._kept = KeptObjects()
        self.on_full: Callable[[], bool] = _give_up_nothing
        """Gives up what is held for nobody who waits, where the disk is full; tells whether there was any."""
        self._is_removed = False
        """Whether somebody took the folders away under us."""
        self._making_anew = trio.Lock()

    @property
    def used(self) -> int:
        """Bytes of ciphertext on disk that this cache knows of."""
        return self._used

    @property
    def has_any(self) -> bool:
        """Whether there is a complete object."""
        return len(self._kept) > 0

    async def destroy(self) -> None:
        """Take the folder away, with all that is in it; nobody uses it any more."""
        if self._room is not None:
            self._room.caches.discard(self)
        await trio.to_thread.run_sync(shutil.rmtree, self._folder, True)  # noqa: FBT003 what cannot go stays

    def __contains__(self, guid: Guid) -> bool:
        return self._find(guid) is not None

    async def load(self) -> None:
        """Make the folders, drop what a crash left behind, and learn what is there.

        Raises ``ConfigurationError``, and ``StoreError`` for a cache of a newer format, of which nothing is dropped.
        """
        await trio.to_thread.run_sync(self._load)

    def open(self, guid: Guid, size: int) -> tuple[Ciphertext, Seal] | None:
        """Open the complete object of a file of ``size`` plaintext bytes; None where there is none of that size."""
        kept = self._find(guid)
        if kept is None:
            return None
        path = self._path(kept)
        try:
            descriptor = os.open(path, READ_FLAGS)
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR:
                self.discard(guid)
            return None
        length = os.fstat(descriptor).st_size
        if length != sealed_size(size):
            os.close(descriptor)
            self.discard(guid)
            return None
        with contextlib.suppress(OSError):  # then it leaves a little earlier
            os.utime(descriptor, ns=(time.time_ns(), time.time_ns()))
        self._kept.note_opened(kept)
        return Ciphertext(guid, path, descriptor, length=length, arrived=length), kept.seal

    def read_ahead(self, guids: Sequence[Guid]) -> None:
        """Have objects read from the disk into memory, as ciphertext; in a worker thread."""
        for guid in guids:
            self._see(guid, lambda descriptor: os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED))

    def read_in(self, guid: Guid, offset: int, length: int) -> None:
        """Have a part of an object read and wait until its last byte is there, in a worker thread."""

        def wait(descriptor: int) -> None:
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)
            os.pread(descriptor, 1, offset)
            os.pread(descriptor, 1, offset + length - 1)

        self._see(guid, wait)

    def _see(self, guid: Guid, use: Callable[[int], object]) -> None:
        """Have a look at an object, where it is; whatever goes wrong, who opens it is told."""
        kept = self._kept.get(guid)
        if kept is None:
            return
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path(kept), READ_FLAGS)
            try:
                use(descriptor)
            finally:
                os.close(descriptor)

    async def receive(self, guid: Guid, length: int) -> Ciphertext:
        """Make room and an empty file for an object on its way; raises ``OutOfSpaceError``, and ``BusyError``.

        It ends with ``keep`` or ``abandon``.
        """
        self.hear()
        if self._is_removed:
            await self._make_anew()
        if length > self.limit:
            message = f"the cache has room for {self.limit} bytes in all, the sealed object of {guid} needs {length}"
            raise OutOfSpaceError(message)
        await self._take(length)
        path = f"{self._arriving}/{secrets.token_hex(16)}"
        descriptor = -1
        try:
            try:
                descriptor = await self._create(path, length)
            finally:
                self._settle(length)
            if length > SMALL:
                await self._allocate(descriptor, length, guid)
        except BaseException as error:
            self._give(length)
            if descriptor >= 0:
                os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 as in `abandon`
            if isinstance(error, OSError):
                raise refused(self._folder, "written to", error) from error
            raise
        return Ciphertext(guid, path, descriptor, length=length, arrived=0)

    def keep(self, ciphertext: Ciphertext, seal: Seal) -> None:
        """Take a complete object in, in place of an older one; who reads one whose folder has been removed reads on.

        One in memory stays with who reads it. Where two mounts keep the same sealing in the same moment, both count it,
        see ``Account``.
        """
        if not ciphertext.is_on_disk:
            return
        self._remove(ciphertext.guid)
        kept = Kept.sealed(ciphertext.guid, seal, ciphertext.length)
        path = self._path(kept)
        is_there = os.path.exists(path)  # noqa: PTH110 another mount was sooner, with the same sealing
        try:
            os.rename(ciphertext.path, path)  # noqa: PTH104 as above, once for each slice that arrives
        except FileNotFoundError:
            self._is_removed = self._is_removed or not self._complete.is_dir()
            self._give(ciphertext.length)
            return
        except OSError as error:
            message = f"the sealed object of {ciphertext.guid} cannot be put into {self._complete}: {error.strerror}"
            raise OutOfSpaceError(message) from error
        fcntl.flock(ciphertext.descriptor, fcntl.LOCK_UN)
        if is_there and self._room is not None:
            self._room.give(ciphertext.length)
        ciphertext.path = path
        self._kept.put(kept)

    def abandon(self, ciphertext: Ciphertext) -> None:
        """Drop an object that did not arrive whole, or not as it was sealed."""
        if not ciphertext.is_on_disk:
            return
        self._drop_arriving(ciphertext)

    def move_out(self, ciphertext: Ciphertext, memory: Memory) -> bool:
        """Have a small object that arrives in memory, as the disk refuses it; False where there is no room either."""
        if ciphertext.length > SMALL or not ciphertext.is_on_disk or not ciphertext.leave_disk(memory):
            return False
        self._drop_arriving(ciphertext)
        return True

    def _drop_arriving(self, ciphertext: Ciphertext) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(ciphertext.path)  # noqa: PTH108 a path that is text, since each slice has two
        self._give(ciphertext.length)

    def discard(self, guid: Guid) -> None:
        """Drop the object of a GUID, where there is one; who has it open reads on."""
        self._remove(guid)

    def evict_one(self) -> bool:
        """Drop the object not opened for longest; False where none is left."""
        oldest = self._kept.oldest()
        if oldest is None:
            return False
        self._remove(oldest.guid)
        return True

    async def let_go(self) -> bool:
        """Make some room on a full disk, of all caches that share it; False where nothing is left to let go.

        What nobody waits for goes first, then what was not opened for longest.
        """
        return self.on_full() or (self.evict_one() if self._room is None else await self._room.let_go())

    def forget(self, folder: Path, name: str) -> None:
        """Learn that an object is gone from the disk, if it is one of this cache."""
        kept = self._kept.named(name) if folder == self._complete else None
        if kept is not None:
            self._kept.drop(kept)
            self._used -= kept.length

    def learn(self, folder: Path, name: str) -> None:
        """Learn that there is an object, if it is one of this cache and there was none of its GUID."""
        if self._kept.named(name) is not None or folder != self._complete:
            return  # mostly it was put there by this one
        told = Kept.named(name, 0)
        if told is not None and self._kept.get(told.guid) is None:
            with contextlib.suppress(OSError):
                self._learn(folder / name)

    def note_removed(self, folder: Path) -> None:
        """Learn that a folder has been removed, if it is one of this cache: it is made anew when it is needed."""
        self._is_removed = self._is_removed or folder == self._complete

    def hear(self) -> None:
        """Learn what others have done in the folder, or some of it."""
        if self._room is not None:
            self._room.hear()

    async def _make_anew(self) -> None:
        """Make the folders again that somebody took away: people clean up their caches, and a mount goes on."""
        async with self._making_anew:
            is_there = self._arriving.is_dir()
            if is_there and not self._is_removed:
                return  # another has done it meanwhile
            log.warning("the cache was removed, and is made anew", folder=str(self._folder))
            self._is_removed = False
            self._used -= self._kept.clear()
            arriving_nowhere = 0 if is_there else self._used
            try:
                await self.load()
            except (ConfigurationError, StoreError) as error:
                raise OutOfSpaceError(str(error)) from error
            if self._room is not None:
                self._room.give(-arriving_nowhere)  # it is given back when it ends, and is on no disk to be counted

    def _find(self, guid: Guid) -> Kept | None:
        """Look for an object: one that another mount has put here since, too."""
        kept = self._kept.get(guid)
        if kept is None:
            self.hear()
            kept = self._kept.get(guid)
        return kept

    def _give(self, length: int) -> None:
        self._used -= length
        if self._room is not None:
            self._room.give(length)

    async def _create(self, path: str, length: int) -> int:
        while True:
            try:
                return create_locked(path, length)
            except FileNotFoundError:
                await self._make_anew()
                return create_locked(path, length)
            except OSError as error:  # a quota may be one of files
                if error.errno not in FULL or not await self.let_go():
                    raise

    def _settle(self, length: int) -> None:
        """Count what was taken as an object of this cache: not before, or a cache that is made anew counts it twice."""
        self._used += length
        if self._room is not None:
            self._room.settle(length)

    async def _take(self, length: int) -> None:
        if self._room is None:
            self._make_alone(length)
            return
        try:
            await self._room.take(length, self._arriving)
        except FileNotFoundError:  # it was looked how much of the disk is free
            await self._make_anew()
            await self._room.take(length, self._arriving)

    def _make_alone(self, length: int) -> None:
        self._evict_down_to(self.limit - length)
        if self._used + length > self.limit:
            message = f"the cache has room for {self.limit} bytes in all, and what arrives takes it"
            raise OutOfSpaceError(message)

    def _evict_down_to(self, limit: int) -> None:
        while self._used > limit and self.evict_one():
            pass

    def _remove(self, guid: Guid) -> None:
        kept = self._kept.get(guid)
        if kept is None:
            return
        self._kept.drop(kept)
        try:
            os.unlink(self._path(kept))  # noqa: PTH108 as in `abandon`
        except OSError:
            self._used -= kept.length  # another mount has let it go, and given its room back; or it is no file any more
        else:
            self._give(kept.length)

    def _path(self, kept: Kept) -> str:
        return f"{self._complete}/{kept.name}"

    async def _allocate(self, descriptor: int, length: int, guid: Guid) -> None:
        """Take the space before the first byte comes: a disk that is full says so now."""
        while True:
            try:
                await trio.to_thread.run_sync(os.posix_fallocate, descriptor, 0, length)
            except OSError as error:
                if error.errno in _NO_FALLOCATE:
                    return
                if error.errno not in FULL or not await self.let_go():
                    message = f"there is no space for the sealed object of {guid} in {self._folder}: {error.strerror}"
                    raise OutOfSpaceError(message) from error
            else:
                return

    def _load(self) -> None:
        try:
            for folder in (self._folder, self._complete, self._arriving):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
            bring_up_folder(self._format, self._folder)
            for path in self._arriving.iterdir():
                drop_unlocked(path)
            if self._room is not None:
                self._room.watch(self._complete)
            # another mount of this user may let one go meanwhile
            found = sorted((status.st_mtime_ns, path) for path, status in _statuses(self._complete))
            for _, path in found:
                with contextlib.suppress(FileNotFoundError):
                    self._learn(path)
            if self._room is not None:
                self._room.count()
        except OSError as error:
            message = f"the cache {self._folder} cannot be used: {error.strerror}"
            raise ConfigurationError(message) from error
        self._evict_down_to(self.limit)
        log.info("cache opened", objects=len(self._kept), bytes=self._used)

    def _learn(self, path: Path) -> None:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return  # nothing of ours
        kept = Kept.named(path.name, status.st_size)
        if kept is None:
            path.unlink()
            return
        if self._kept.named(kept.name) is not None:
            return  # it was put there meanwhile
        self._remove(kept.guid)
        self._kept.put(kept)
        self._used += kept.length


def _give_up_nothing() -> bool:
    return False


def _statuses(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield path, path.lstat()
