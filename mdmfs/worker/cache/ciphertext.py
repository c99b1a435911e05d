"""A sealed object on disk, whole or still growing: who wants bytes that have not arrived waits for them.

A small one may lie in memory instead, where the disk has no room.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio

from mdmfs.model.errors import IntegrityError, MdmfsError, again
from mdmfs.model.names import Guid
from mdmfs.worker.cache.extents import Extents
from mdmfs.worker.memory import Memory


class SupersededError(Exception):
    """Another transfer of the same object has begun: what is waited for comes with that one."""


class Ciphertext:
    """An open file of ciphertext. Reading is for worker threads, waiting for tasks; whoever opens it closes it.

    It is readable for as long as it is open, even when the cache has let it go meanwhile.
    """

    def __init__(self, guid: Guid, path: str, descriptor: int, *, length: int, arrived: int) -> None:
        self.guid = guid
        self.path = path
        self.length = length
        """Of the sealed object, in bytes."""
        self.is_from_cache = arrived == length
        """Whether it was complete when it was opened: damage is the disk's then, and another fetch may help."""
        self.ahead: Extents | None = None
        """What is read of it from the disk before it is wanted; for the loop alone."""
        self.read_to = 0
        """Where the last READ ended, by its plaintext."""
        self.run = 0
        """How many bytes were read in order until there, less those that were passed over."""
        self.breaks = 0
        """How often something was read ahead of it, and then somebody read elsewhere."""
        self.may_read_ahead = True
        """Whether nothing has shown that this cannot be, or is of no use."""
        self._descriptor = descriptor
        self._memory: Memory | None = None
        """The budget that it counts in, where it is in memory."""
        self._arrived = arrived
        self._failure: MdmfsError | None = None
        self._is_superseded = False
        self._news = trio.Event()

    @property
    def is_superseded(self) -> bool:
        """Whether readers are to wait for another object."""
        return self._is_superseded

    @property
    def is_on_disk(self) -> bool:
        """Whether it is a file, which takes room there."""
        return self._memory is None

    @property
    def has_failed(self) -> bool:
        """Whether it will never be whole."""
        return self._failure is not None

    @property
    def is_complete(self) -> bool:
        """Whether all of it is here."""
        return self._arrived == self.length

    @property
    def arrived(self) -> int:
        """How many bytes are here, from the begin on."""
        return self._arrived

    async def wait_for(self, end: int) -> None:
        """Wait until the bytes before ``end`` are here; raises the error of a fetch that ended before.

        ``SupersededError`` where they never will be, because the hospital has sealed the file anew.
        """
        while self._arrived < end:
            if self._is_superseded:
                raise SupersededError
            if self._failure is not None:
                raise again(self._failure) from self._failure
            await self._news.wait()

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes that have arrived, from the loop; ``IntegrityError`` where the disk no longer gives them."""
        extent = None if self.ahead is None else self.ahead.at(offset)
        if extent is not None and offset + length <= extent.end:
            return bytes(extent.view(offset, offset + length))
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with bytes that have arrived; ``IntegrityError`` where the disk no longer gives them."""
        reason = "it is shorter than it was"
        try:
            if os.preadv(self._descriptor, [buffer], offset) == len(buffer):
                return
        except OSError as error:
            reason = str(error.strerror)
        message = f"the cached ciphertext of {self.guid} cannot be read: {reason}"
        raise IntegrityError(message)

    def read_at_once(self, offset: int, buffer: memoryview) -> Sequence[memoryview] | None:
        """Give the bytes from an offset on, as many as the buffer has, in one piece or in several that follow.

        From the loop, without waiting for the disk; None where it would have to be waited for. The pieces are of the
        buffer, or of what was read ahead: good until the next step of the loop.
        """
        pieces, end = [], offset + len(buffer)
        while self.ahead is not None and offset < end and (extent := self.ahead.at(offset)) is not None:
            upto = min(end, extent.end)
            pieces.append(extent.view(offset, upto))
            offset = upto
        if offset < end:
            rest = buffer[: end - offset]
            try:
                flags = os.RWF_NOWAIT if self.is_on_disk else 0  # in memory there is nothing to wait for
                if os.preadv(self._descriptor, [rest], offset, flags) != len(rest):
                    return None
            except OSError:  # not in memory, or a file system that cannot tell
                return None
            pieces.append(rest)
        return pieces

    def is_in_memory(self) -> bool:
        """Ask whether it can probably be read without waiting for the disk: what lies between begin and end is there.

        What is read ahead comes in this order.
        """
        probe = memoryview(bytearray(1))
        return self.read_at_once(0, probe) is not None and self.read_at_once(self.length - 1, probe) is not None

    def leave_disk(self, memory: Memory) -> bool:
        """Have it in memory from now on, until it is closed; False where the budget has no room for it.

        Whoever reads it meanwhile finds the same bytes behind the same descriptor.
        """
        if not memory.take(self.length):
            return False
        try:
            held = os.memfd_create("ciphertext", os.MFD_CLOEXEC)
        except OSError:  # too many are open
            memory.give(self.length)
            return False
        self._memory = memory
        if self._descriptor < 0:
            self._descriptor = held
            return True
        os.pwrite(held, os.pread(self._descriptor, self._arrived, 0), 0)
        os.dup2(held, self._descriptor, inheritable=False)
        os.close(held)
        return True

    def write(self, octets: memoryview) -> None:
        """Append, in a worker thread, and tell nobody: ``note`` does, from a task. Raises ``OSError``."""
        offset = self._arrived
        while octets:
            count = os.pwrite(self._descriptor, octets, offset)
            octets, offset = octets[count:], offset + count

    def note(self, count: int) -> None:
        """Count bytes that were written, and wake who waits for them."""
        self._arrived += count
        self._tell()

    def fail(self, error: MdmfsError) -> None:
        """Say that no more bytes come, and why; the first reason stays."""
        self._failure = self._failure or error
        self.end_ahead()
        self._tell()

    def supersede(self) -> None:
        """Say that no more bytes come, because they come to another object."""
        self._is_superseded = True
        self.end_ahead()
        self._tell()

    def note_kept(self) -> None:
        """Know that it lies in the cache: damage is the disk's from now on."""
        self.is_from_cache = True

    def read_ahead(self, extents: Extents) -> None:
        """Take what is read ahead of who reads it; the kernel reads nothing ahead meanwhile."""
        self.ahead = extents
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def end_ahead(self) -> None:
        """Let go what was read ahead, and leave it to the kernel; a second time changes nothing."""
        if self.ahead is not None:
            self.ahead.close()
            self.ahead = None
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_NORMAL)

    def close(self) -> None:
        """Close the file; a second time changes nothing."""
        self.end_ahead()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        os.close(descriptor)
        if self._memory is not None:
            self._memory.give(self.length)

    @property
    def descriptor(self) -> int:
        """The open file, -1 once it is closed."""
        return self._descriptor

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()
