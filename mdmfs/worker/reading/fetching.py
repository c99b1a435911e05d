"""Fetch one sealed object to disk, over as many answers as it takes; whoever reads it follows behind.

A stream that ends midway may have been cut by the hospital on purpose, because it found that the PACS holds something
else, or by a restart, or by the network. Only asking once more tells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
import trio
from prometheus_client import Counter

from mdmfs.model.errors import (
    InstanceChangedError,
    IntegrityError,
    MdmfsError,
    NoSuchFileError,
    OutOfSpaceError,
    PeerUnreachableError,
)
from mdmfs.sealing.layout import sealed_size
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.cache.kept import Seal
from mdmfs.worker.cache.store import FULL, SMALL, CiphertextCache
from mdmfs.worker.hospital.outage import OUTAGES, Outage
from mdmfs.worker.hospital.port import Beginning, Hospital, SealedDownload
from mdmfs.worker.memory import Memory
from mdmfs.worker.reading.open_file import OpenFile

QUESTION_SECONDS: Final = 0.001
"""After which a question has been sent."""
FIRST_WRITE: Final = 256 * 2**10
"""Little, so that the first reader need not wait for more than he wants, and the key is there before the end is."""
MAX_FRUITLESS: Final = 2
"""So many answers in a row may be cut without having brought more than was there."""

log = structlog.get_logger(__name__)

FETCHED: Final = Counter("mdmfs_fetched_bytes", "Ciphertext that came from hospitals and storage elements.")


class Fetching:
    """The transfer of one file, which ends with a complete object in the cache or with an error, never with a part."""

    def __init__(  # noqa: PLR0913 the parts that it works with
        self,
        hospital: Hospital,
        cache: CiphertextCache,
        file: OpenFile,
        on_begin: Callable[[Ciphertext, Seal], None],
        *,
        memory: Memory,
        patience: float,
        patience_once_begun: float,
    ) -> None:
        """``on_begin`` hears of each object that begins to arrive: another one when the hospital has sealed anew.

        ``patience`` is how many seconds it waits for a hospital that is away, before and after something has come.
        """
        self._hospital = hospital
        self._cache = cache
        self._file = file
        self._on_begin = on_begin
        self._memory = memory
        self._patience = patience
        self._patience_once_begun = patience_once_begun
        self._arriving: tuple[Ciphertext, Seal] | None = None
        self._made: Ciphertext | None = None
        """Where the bytes will go, if that was made while they were waited for."""
        self._making = trio.CancelScope()
        self._furthest = -1
        self._outage = Outage()
        """Since the last byte that was new."""
        self._fruitless = 0

    async def make_place(self) -> None:
        """Make the file of a small object while the hospital looks for it: a file system may need a millisecond.

        Whatever goes wrong is met again when there is an answer.
        """
        length = sealed_size(self._file.size)
        if length > SMALL:
            return
        with self._making:
            await trio.sleep(QUESTION_SECONDS)
            try:
                self._made = await self._cache.receive(self._file.guid, length)
            except MdmfsError as error:
                log.info("no place is made", guid=str(self._file.guid), reason=error.told_here)
            except Exception:
                log.exception("making a place failed unexpectedly", guid=str(self._file.guid))
            if self._making.cancel_called:
                self._drop_place()

    async def run(self) -> None:
        """Transfer; raises what the hospital's answer raises, or why it did not come whole."""
        try:
            while not await self._is_whole():
                pass
        except MdmfsError as error:
            self._abandon(error)
            raise
        except BaseException:
            self._abandon(PeerUnreachableError(f"the transfer of {self._file.guid} was interrupted; open it again"))
            raise

    def end(self) -> None:
        """Let go what was made for bytes that did not come, whether ``run`` has begun or not."""
        self._making.cancel()
        self._drop_place()

    async def _is_whole(self) -> bool:
        """Ask the hospital and take in what it answers; False where it has to be asked again.

        What is whole is kept at once: a storage element may send padding behind it, which nobody waits for.
        """
        is_answered = is_kept = False
        try:
            async with self._hospital.fetch(self._file.guid, beginning=self._beginning()) as download:
                is_answered = True
                ciphertext, seal = await self._place(download)
                with self._memory.window(ciphertext.length) as window:
                    await _receive(download, ciphertext, self._cache, self._memory, window)
                await self._keep(ciphertext, seal)
                is_kept = True
        except OUTAGES as error:
            if is_kept:
                return True
            await self._outlast(error, is_answered=is_answered)
            return False
        except NoSuchFileError as error:
            if self._arriving is None:
                raise
            message = f"{self._file.guid} was taken away while it was transferred"
            raise InstanceChangedError(message) from error
        return True

    async def _keep(self, ciphertext: Ciphertext, seal: Seal) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()  # whoever waits for its last bytes comes first
        if self._file.is_spoiled:
            self._file.refuse_failed()
        self._cache.keep(ciphertext, seal)
        self._arriving = None

    def _beginning(self) -> Beginning | None:
        """Say what is here already."""
        if self._arriving is None or not self._arriving[0].arrived:
            return None
        return Beginning(self._arriving[1].salt, self._arriving[0].arrived)

    async def _place(self, download: SealedDownload) -> tuple[Ciphertext, Seal]:
        """Find where the bytes go: behind those that are here, or into a new object that takes the place of the old."""
        if download.length != sealed_size(self._file.size):
            message = f"{self._file.guid} is not of the size that its directory says; list the directory again"
            raise InstanceChangedError(message)
        if self._arriving is not None and download.begin:
            return self._arriving
        if self._arriving is not None:
            self._cache.abandon(self._arriving[0])
            self._arriving = None
        self._making.cancel()
        ciphertext, self._made = self._made, None
        ciphertext = ciphertext or await self._receive_into(download.length)
        arriving = self._arriving = ciphertext, Seal(download.generation, download.threshold, download.salt)
        self._file.adopt(ciphertext)
        self._on_begin(*arriving)
        return arriving

    async def _receive_into(self, length: int) -> Ciphertext:
        """Make a place for what comes: on the disk, or, for a small object that it has no room for, in memory."""
        try:
            return await self._cache.receive(self._file.guid, length)
        except OutOfSpaceError as error:
            in_memory = Ciphertext(self._file.guid, "", -1, length=length, arrived=0)
            if length > SMALL or not in_memory.leave_disk(self._memory):
                raise
            log.info("read from memory, the cache has no room", guid=str(self._file.guid), reason=error.told_here)
            return in_memory

    async def _outlast(self, error: MdmfsError, *, is_answered: bool) -> None:
        """Wait before the hospital is asked again; raises where it has been long enough."""
        if self._arriving is None:
            patience = self._patience
        else:
            patience = self._patience_once_begun
            self._note_cut(self._arriving[0].arrived, is_answered=is_answered)
        if self._fruitless >= MAX_FRUITLESS:
            raise error
        if not is_answered and isinstance(error, PeerUnreachableError):
            self._file.note_hindrance()
        await self._outage.outlast(error, patience)

    def _note_cut(self, arrived: int, *, is_answered: bool) -> None:
        if arrived > self._furthest:
            self._furthest, self._fruitless, self._outage = arrived, 0, Outage()
        elif is_answered:
            self._fruitless += 1

    def _drop_place(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            self._cache.abandon(made)
            made.close()

    def _abandon(self, error: MdmfsError) -> None:
        if self._arriving is not None:
            self._cache.abandon(self._arriving[0])
            self._arriving[0].fail(error)


async def _receive(
    download: SealedDownload, ciphertext: Ciphertext, cache: CiphertextCache, memory: Memory, window: int
) -> None:
    """Take in all that is left of an object, so many bytes at once; what had come when the stream is cut stays."""
    room = memoryview(bytearray(window))
    while not ciphertext.is_complete:
        most = window if ciphertext.arrived else min(window, FIRST_WRITE)
        wanted = min(most, ciphertext.length - ciphertext.arrived)
        filled = 0
        try:
            while filled < wanted:
                count = await download.receive_into(room[filled:wanted])
                if not count:
                    message = f"the sealed object of {ciphertext.guid} ended before its end; open it again"
                    raise IntegrityError(message)
                filled += count
        except OUTAGES:
            await write_through(ciphertext, room[:filled], cache, memory)
            raise
        await write_through(ciphertext, room[:filled], cache, memory)


async def write_through(
    ciphertext: Ciphertext, octets: memoryview, cache: CiphertextCache, memory: Memory | None = None
) -> None:
    """Write to disk; where space could not be taken beforehand, older objects make room now.

    Of a small object the loop writes itself, and at once: to hand it to a thread and back takes longer. It goes on in
    ``memory``, where that is given, if nothing makes room.
    """
    FETCHED.inc(len(octets))
    while octets:
        try:
            if ciphertext.length <= SMALL:
                ciphertext.write(octets)
            else:
                await trio.to_thread.run_sync(ciphertext.write, octets)
        except OSError as error:
            has_room = error.errno in FULL and await cache.let_go()
            if not has_room and not (memory is not None and cache.move_out(ciphertext, memory)):
                message = f"the sealed object of {ciphertext.guid} cannot be written to the cache: {error.strerror}"
                full = OutOfSpaceError(message)
                full.place = ciphertext.path
                raise full from error
            if ciphertext.has_failed:
                return  # it has been given up itself
        else:
            ciphertext.note(len(octets))
            return
