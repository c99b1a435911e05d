"""What several caches may take of a disk together: those of one process, or all below a folder, of all mounts."""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import structlog
import trio

from mdmfs.daemon.process import MORE_DESCRIPTORS, NO_DESCRIPTOR
from mdmfs.model.errors import BusyError, MdmfsError, OutOfSpaceError
from mdmfs.worker.cache.account import Account
from mdmfs.worker.cache.arriving import drop_all_unlocked
from mdmfs.worker.cache.watch import FolderWatch

COMPLETE: Final = "complete"
ARRIVING: Final = "arriving"
BESIDE: Final = "hospitals"
"""Below it the caches of a mount that joins several hospitals, each in a folder of its own."""

EXTENT_THREADS: Final = 6
"""With fewer than three a disk rests while the next extent is asked for."""
READER_THREADS: Final = 4
LOOKS: Final = 20
LOOK_SECONDS: Final = 0.05
"""Between two looks whether another mount has counted."""

log = structlog.get_logger(__name__)


class Cache(Protocol):
    """What a room asks of a cache."""

    limit: int
    """In bytes, of a single object, too."""

    @property
    def used(self) -> int:
        """Bytes of ciphertext that it knows of."""

    @property
    def has_any(self) -> bool:
        """Whether there is a complete object."""

    def evict_one(self) -> bool:
        """Drop the object not opened for longest; False where none is left."""

    def forget(self, folder: Path, name: str) -> None:
        """Learn that an object is gone, if it is one of this cache."""

    def learn(self, folder: Path, name: str) -> None:
        """Learn that there is an object, if it is one of this cache and there was none."""

    def note_removed(self, folder: Path) -> None:
        """Learn that a folder has been removed, if it is one of this cache."""


class Turns:
    """Who may have a thread wait for the disk, whichever of the caches wants it: what a stuck disk holds is lost."""

    def __init__(self) -> None:
        self.files = trio.CapacityLimiter(1)
        """Asking for what follows in a directory."""
        self.extents = trio.CapacityLimiter(EXTENT_THREADS)
        self.readers = trio.CapacityLimiter(READER_THREADS)
        """Waiting for what somebody reads."""


class Room:
    """Room for the caches of one process: where one needs more, the fullest one lets go."""

    def __init__(self, limit: int, floor: int = 0) -> None:
        """``limit`` is in bytes; ``floor`` is how many are left free on the disk, whoever has filled it."""
        self.limit = limit
        self._floor = floor
        self.caches: set[Cache] = set()
        self.turns = Turns()

    @property
    def used(self) -> int:
        """Bytes of ciphertext on disk, of all caches."""
        return sum(cache.used for cache in self.caches)

    async def take(self, length: int, folder: Path) -> None:
        """Let objects go until there is room for so many bytes more, here and on the disk of a folder.

        Raises ``OutOfSpaceError`` where nothing is left to let go. Whoever takes room settles it, and gives it back.
        """
        await self._make(length, folder)

    def settle(self, length: int) -> None:
        """Know that so many bytes that were taken are a file now, which who counts sees, or will be none."""

    def give(self, length: int) -> None:
        """Take back so many bytes."""

    async def resize(self, limit: int, floor: int, folder: Path) -> None:
        """Hold to another limit and floor from now on; what is too much, and does not just arrive, goes."""
        self.limit, self._floor = limit, floor
        for cache in self.caches:
            cache.limit = limit
        with contextlib.suppress(OutOfSpaceError, OSError):
            await self._make(0, folder)

    async def let_go(self) -> bool:
        """Drop an object that was not opened for long; False where none is left."""
        fullest = max((cache for cache in self.caches if cache.has_any), key=lambda one: one.used, default=None)
        return fullest is not None and fullest.evict_one()

    def count(self) -> None:
        """Look what is there. In a thread; raises ``OSError``."""

    def watch(self, folder: Path) -> None:
        """Have the caches hear from now on what other mounts do in a folder, if there are any."""

    def hear(self) -> None:
        """Tell the caches what other mounts have done."""

    def close(self) -> None:
        """Nobody takes any room from here on."""

    async def _make(self, length: int, folder: Path, *, is_taken: bool = False) -> None:
        while self.used + (0 if is_taken else length) > self.limit:
            if not await self.let_go():
                message = f"the caches have room for {self.limit} bytes in all, and what arrives takes it"
                raise OutOfSpaceError(message)
        while self._floor and _free_bytes(folder) - length < self._floor:
            if not await self.let_go():
                message = (
                    f"{self._floor} bytes of the disk of {folder} are to stay free: make room there, or set cache.free"
                )
                raise OutOfSpaceError(message)


class _Old(NamedTuple):
    """An object, as it was when it was looked at."""

    opened: int
    """When last, in ns."""
    path: str
    length: int


class SharedRoom(Room):
    """Room below one folder for all mounts of a user: what none of them has opened for longest goes first."""

    def __init__(self, folder: Path, limit: int, floor: int = 0) -> None:
        """Nothing is touched before ``count``."""
        super().__init__(limit, floor)
        self._folder = folder
        self._account: Account | None = None
        self._oldest: list[_Old] = []
        """A heap of objects of all mounts. What has come since it was made is younger than all in it."""
        self._looking = trio.Lock()
        self._watch: FolderWatch | None = None

    @property
    def used(self) -> int:
        """Bytes of ciphertext on disk, of all mounts."""
        return 0 if self._account is None else self._account.total

    async def take(self, length: int, folder: Path) -> None:
        """See ``Room``; it is taken first, so that two mounts do not both count on the same room."""
        self._promise(length)
        self.give(-length)
        try:
            await self._make(length, folder, is_taken=True)
        except BaseException:
            self.settle(length)
            self.give(length)
            raise

    def settle(self, length: int) -> None:
        """See ``Room``."""
        self._promise(-length)

    def give(self, length: int) -> None:
        """See ``Room``."""
        if self._account is not None:
            self._account.add(-length)

    async def let_go(self) -> bool:
        """See ``Room``; what somebody has removed by hand is counted when nothing is left of what is known."""
        before = self.used
        async with self._looking:
            if self._drop_oldest():
                return True
            for _ in range(LOOKS):
                try:
                    if await trio.to_thread.run_sync(self._look):
                        break
                except OSError as error:
                    raise refused(self._folder, "counted", error) from error
                await trio.sleep(LOOK_SECONDS)
            return self._drop_oldest() or self.used < before

    def count(self) -> None:
        """See ``Room``: sums up what lies below the folder, and drops what nobody is writing any more."""
        if self._account is None or not self._account.is_in(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            before, self._account = self._account, Account(self._folder)
            if before is not None:
                self._account.promise(before.promised)  # who takes just now takes it of this one
                before.close()
        self._look()

    def watch(self, folder: Path) -> None:
        """See ``Room``; where the kernel refuses, what others fetch is fetched again."""
        try:
            self._watch = self._watch or FolderWatch()
            self._watch.add(folder)
        except OSError as error:
            log.info("what other mounts fetch is not heard of", folder=str(folder), reason=error.strerror)

    def hear(self) -> None:
        """See ``Room``."""
        if self._watch is None:
            return
        for folder, name, is_there in self._watch.news():
            for cache in self.caches:
                if is_there:
                    cache.learn(folder, name)
                else:
                    cache.forget(folder, name)
        while self._watch.lost:
            folder = self._watch.lost.pop()
            for cache in self.caches:
                cache.note_removed(folder)

    def close(self) -> None:
        """See ``Room``: others may have the place in the account."""
        if self._watch is not None:
            self._watch.close()
        if self._account is not None:
            self._account.close()
            self._account = None

    def _promise(self, length: int) -> None:
        if self._account is not None:
            self._account.promise(length)

    def _look(self) -> bool:
        """Look what may be let go, and count; False where another mount is just counting."""
        return self._account is None or self._account.correct(self._sum)

    def _sum(self) -> int:
        arriving = sum(length for cache in self._all_caches() for length in drop_all_unlocked(cache / ARRIVING))
        self._oldest = found = self._find()
        return sum(old.length for old in found) + arriving

    def _find(self) -> list[_Old]:
        found = [old for cache in self._all_caches() for old in _objects(cache / COMPLETE)]
        heapq.heapify(found)
        return found

    def _drop_oldest(self) -> bool:
        """Drop what was opened before all else; False where nothing is left of what is known."""
        oldest = self._oldest
        while oldest:
            old = oldest[0]
            try:
                opened = os.stat(old.path).st_mtime_ns  # noqa: PTH116 once for each object that goes
                if opened != old.opened:
                    heapq.heapreplace(oldest, old._replace(opened=opened))
                    continue
                os.unlink(old.path)  # noqa: PTH108 as above
            except OSError:
                # another mount has let it go
                heapq.heappop(oldest)
                continue
            heapq.heappop(oldest)
            self.give(old.length)
            gone = Path(old.path)
            for cache in self.caches:
                cache.forget(gone.parent, gone.name)
            return True
        return False

    def _all_caches(self) -> Iterator[Path]:
        yield self._folder
        with contextlib.suppress(FileNotFoundError):
            yield from (self._folder / BESIDE).iterdir()


def refused(cache: Path, what: str, error: OSError) -> MdmfsError:
    """Tell what a disk refused a cache, and whether that passes by itself."""
    message = f"the cache {cache} cannot be {what}: {error.strerror}"
    if error.errno in NO_DESCRIPTOR:
        return BusyError(message, what_to_do=MORE_DESCRIPTORS)
    return OutOfSpaceError(message)


def _objects(folder: Path) -> Iterator[_Old]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                yield _Old(status.st_mtime_ns, entry.path, status.st_size)


def _free_bytes(folder: Path) -> int:
    """Tell how much its user may still write there."""
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize
