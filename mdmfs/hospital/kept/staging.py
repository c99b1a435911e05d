"""Staging: the directory of sealed objects, while they are written and afterwards; ciphertext only, bounded.

A whole object is the file ``GUID.GENERATION``; one under way ends in ``.part`` and is dropped at the next start.
Nothing is synced: it can be recalled again, and after a restart of the machine, which may have lost what was not on
disk, staging begins empty.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Final

import trio

from mdmfs.daemon.formats import MARK, Format, bring_up_folder
from mdmfs.hospital.kept.staged import PART, SMALL_BYTES, StagedObject, StagingWriter
from mdmfs.model.errors import IntegrityError, MdmfsError, OutOfSpaceError, StoreError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import HEADER_SIZE

STAGING_FORMAT: Final[Format[pathlib.Path]] = Format(
    "staging directory", remedy=", or delete it: what it holds is recalled again"
)
HOT_BYTES: Final = 16 * 2**20
"""Of what was sealed last, in memory, of all objects together."""
LEFT_FREE: Final = 2**28
"""Of the disk, for the audit log and the stores beside it: what is staged can be recalled, and they stop everything.

Where there is less, as much as is staged: several files of one question must be there until each has been sent.
"""
LOOK_SECONDS: Final = 10.0
"""How often the disk is looked at: where the audit log has no room, nothing is staged for which others would go."""
_BOOT: Final = ".boot"
"""Ends the name of the file beside the directory which tells in which run of the machine the objects were written."""
_BOOT_ID: Final = pathlib.Path("/proc/sys/kernel/random/boot_id")
_NAME = re.compile(r"(?P<guid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(?P<generation>\d{1,10})", re.ASCII)


class Staging:
    """The directory of staged objects; the least recently used whole ones make room for new ones."""

    def __init__(
        self,
        directory: pathlib.Path,
        limit: int,
        *,
        boot: str | None = None,
        left_free: int = LEFT_FREE,
        staging_format: Format[pathlib.Path] = STAGING_FORMAT,
    ) -> None:
        """Open a directory, mode 0700, bounded to ``limit`` bytes; takes over what an earlier run completed.

        ``boot`` names the run of the machine; None asks Linux. For ``left_free`` bytes on its disk old objects make
        room. Raises ``StoreError``, also for one of a newer format.
        """
        self._left_free = left_free
        self._directory = directory
        self._limit = limit
        self._objects: collections.OrderedDict[Guid, StagedObject] = collections.OrderedDict()
        self._octets = 0
        """Of all objects."""
        self._arriving: set[StagedObject] = set()
        """Those that are being written."""
        self._hot: collections.OrderedDict[StagedObject, int] = collections.OrderedDict()
        """Objects of which something is in memory, those sealed last behind, and how many bytes."""
        self._hot_octets = 0
        self.is_pinned: Callable[[Guid], bool] = _nothing_is_pinned
        """Asked of a whole object before it makes room for another."""
        self.on_whole: Callable[[Guid], None] = _nobody_hears
        """Hears of each object once it is whole, whatever comes of that."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            bring_up_folder(staging_format, directory)
            self._take_over(boot or _BOOT_ID.read_text(encoding="ascii"))
        except OSError as error:
            message = f"the staging directory {directory} cannot be used: {error.strerror}"
            raise StoreError(message) from error

    @property
    def limit(self) -> int:
        """How many bytes it may hold."""
        return self._limit

    @property
    def octets(self) -> int:
        """How many bytes it holds."""
        return self._octets

    def find(self, guid: Guid, generation: int) -> StagedObject | None:
        """Give the object of this key generation, whole or on its way; None where nothing verified of it is there."""
        staged = self._objects.get(guid)
        if staged is None or staged.generation != generation or staged.has_failed or not staged.has_begun:
            return None
        self._objects.move_to_end(guid)
        return staged

    @contextlib.asynccontextmanager
    async def writing(
        self, guid: Guid, generation: int, size: int, *, is_awaited: bool = False
    ) -> AsyncIterator[StagingWriter]:
        """Stage a new object; leaving the context early or with an error drops it and fails its readers.

        A small one that ``is_awaited`` is read from memory, and written to the disk at the end of the context: should
        that be refused, whoever has it reads it all the same.

        It takes the place of an older one of the same file. Raises ``OutOfSpaceError`` where there is no room for it.
        """
        self.discard(guid)
        is_sent_before = is_awaited and size <= SMALL_BYTES
        if not is_sent_before and self._free() < size - self._octets:
            raise self._full()
        has_room = self._make_room(size)
        if not has_room and (self.is_pinned(guid) or not (is_sent_before or self._free() >= size)):
            raise self._full()  # before the first byte is sent; and what is pinned makes no room for others later
        staged = StagedObject(f"{self._directory}/{guid}.{generation}{PART}", guid, generation, size)
        writer = StagingWriter(staged, self._heat, is_awaited=is_awaited)
        self._keep(staged)
        self._arriving.add(staged)
        is_whole = False
        try:
            yield writer
            writer.refuse_unfinished()
            is_whole = True
            writer.complete()
        except BaseException as error:
            self._drop(staged)
            if not is_whole:
                staged.unwritten = None
            reason = error if isinstance(error, MdmfsError) else IntegrityError(f"the staging of {guid} was broken off")
            staged.fail(reason)
            raise
        finally:
            self._arriving.discard(staged)
            staged.settled.set()
            writer.close()
        self.on_whole(guid)

    def discard(self, guid: Guid) -> None:
        """Delete an object; whoever reads it finishes from the open file, or fails."""
        staged = self._objects.get(guid)
        if staged is not None:
            self._drop(staged)

    def _keep(self, staged: StagedObject) -> None:
        self.discard(staged.guid)
        self._objects[staged.guid] = staged
        self._octets += staged.size

    def _drop(self, staged: StagedObject) -> None:
        if self._objects.get(staged.guid) is staged:
            del self._objects[staged.guid]
            self._octets -= staged.size
        self._cool(staged)
        staged.is_discarded = True
        staged.path.unlink(missing_ok=True)

    def _heat(self, staged: StagedObject, begin: int, octets: memoryview) -> None:
        """Keep what was just sealed in memory, in place of what was there of this object or of those before."""
        self._cool(staged)
        while self._hot and self._hot_octets + len(octets) > HOT_BYTES:
            self._cool(next(iter(self._hot)))
        staged.hot = begin, octets
        self._hot[staged] = len(octets)
        self._hot_octets += len(octets)

    def _cool(self, staged: StagedObject) -> None:
        self._hot_octets -= self._hot.pop(staged, 0)
        staged.hot = None

    async def keep_room(self) -> None:
        """Let old objects go when others fill the disk, too, until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            with contextlib.suppress(MdmfsError, OSError):  # whoever stages something is told
                self._make_room(0)

    def known(self) -> list[tuple[Guid, int]]:
        """Name what it holds, by GUID and key generation."""
        return [(staged.guid, staged.generation) for staged in self._objects.values()]

    def retain(self, is_wanted: Callable[[Guid, int], bool]) -> None:
        """Drop the objects of which ``is_wanted`` says no, by GUID and key generation."""
        for staged in list(self._objects.values()):
            if not is_wanted(staged.guid, staged.generation):
                self._drop(staged)

    def _make_room(self, size: int) -> bool:
        """Let old objects go until so many bytes fit; tells whether they do, within what its disk has left."""
        if self._fits(size):
            return True
        if sum(staged.size for staged in self._arriving) + size > self._limit:
            message = f"staging holds at most {self._limit} bytes and all of it is in use; allow it more or try again"
            raise OutOfSpaceError(message)
        for staged in list(self._objects.values()):
            if self._fits(size):
                return True
            if staged not in self._arriving and not self.is_pinned(staged.guid):
                self._drop(staged)
        if self._octets + size > self._limit:
            message = f"staging holds at most {self._limit} bytes and all of it is in use or pinned; allow it more"
            raise OutOfSpaceError(message)
        return self._fits(size)

    def _full(self) -> OutOfSpaceError:
        full = OutOfSpaceError("the disk of staging has no room for it, whatever is let go")
        full.place = str(self._directory)
        return full

    def _fits(self, size: int) -> bool:
        staged = self._octets + size
        return staged <= self._limit and self._free() - size >= min(self._left_free, staged)

    def _free(self) -> int:
        """Tell how many bytes the disk has left for others than those that are on their way already."""
        try:
            disk = os.statvfs(self._directory)
        except OSError as error:
            failure = StoreError(f"the disk of staging cannot be looked at: {error.strerror}")
            failure.place = str(self._directory)
            raise failure from error
        return disk.f_bavail * disk.f_frsize - sum(staged.size - staged.written for staged in self._arriving)

    def _take_over(self, boot: str) -> None:
        """Find whole objects of this run of the machine, oldest first; drop everything else."""
        found = []
        mark = self._directory.with_name(self._directory.name + _BOOT)
        is_trusted = mark.exists() and mark.read_text(encoding="ascii", errors="replace") == boot
        for path in self._directory.iterdir():
            if path.name == MARK:
                continue
            match = _NAME.fullmatch(path.name)
            size = path.stat().st_size
            if match is None or size < HEADER_SIZE or not is_trusted:
                path.unlink()
                continue
            staged = StagedObject(str(path), Guid.parse(match["guid"]), int(match["generation"]), size)
            with path.open("rb") as file:
                staged.header = file.read(HEADER_SIZE)
            staged.advance(size)
            staged.settled.set()
            found.append((path.stat().st_mtime, staged))
        if not is_trusted:
            mark.write_text(boot, encoding="ascii")
        for _, staged in sorted(found, key=lambda pair: pair[0]):
            self._keep(staged)


def _nothing_is_pinned(_: Guid) -> bool:
    return False


def _nobody_hears(_: Guid) -> None:
    pass
