"""A journal that is written: a line is on disk when it is said to be, and those of one moment share one sync."""

from __future__ import annotations

import contextlib
import os
import pathlib
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import structlog
import trio

from mdmfs.journal.chain import BEGINNING, Head, append
from mdmfs.journal.durable import sync_directory
from mdmfs.journal.files import end_of, first_line, full_name
from mdmfs.model.errors import StoreError, again

FILE_BYTES: Final = 256 * 2**20
"""Of a file that is full."""

log: Any = structlog.get_logger("mdmfs.journal")


class Pending:
    """Lines on their way to the disk."""

    __slots__ = ("_event", "_failure", "bodies")

    def __init__(self, bodies: tuple[bytes, ...]) -> None:
        self.bodies = bodies
        self._event = trio.Event()
        self._failure: StoreError | None = None

    async def durable(self) -> None:
        """Wait until the lines are on disk; raises ``StoreError`` where they cannot be, and then none is there."""
        await self._event.wait()
        if self._failure:
            raise again(self._failure)

    def settle(self, failure: StoreError | None) -> None:
        """Tell how it ended."""
        self._failure = failure
        self._event.set()


class Journal:
    """One journal, with one writer. ``run`` writes; whoever opens it closes it."""

    def __init__(self, path: pathlib.Path, beginning: Callable[[], bytes], *, file_bytes: int = FILE_BYTES) -> None:
        """Open the journal, and begin a new one, whose first line ``beginning`` gives, where there is none.

        Raises ``StoreError``. What a crash has torn off at its end was never durable and is cut off.
        """
        self._path = path
        self._file_bytes = file_bytes
        self._waiting: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        """None ends ``run``'s thread."""
        try:
            self._head, self._whole = end_of(path)
            self._file = _open(path)
        except OSError as error:
            raise self._failed(error.strerror or "unknown error") from error
        if self._head == BEGINNING:
            failure = self._append([beginning()])
            if failure:
                self.close()
                raise failure

    @property
    def head(self) -> Head:
        """Where the journal is: the last line that is durable."""
        return self._head

    def write(self, *bodies: bytes) -> Pending:
        """Have JSON objects written, with the next ones; ``Pending.durable`` waits for them."""
        pending = Pending(bodies)
        self._waiting.put(pending)
        return pending

    async def run(self) -> None:
        """Write what is waiting, again and again, until cancelled, and then what still is.

        One thread does nothing else: to find one for each write took the loop half as long again as it now takes all.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_apart)
            try:
                await trio.sleep_forever()
            finally:
                self._waiting.put(None)

    def begin_file(self, body: bytes) -> None:
        """Write a line that begins a new file, before ``run`` runs; raises ``StoreError``, and then it is not there."""
        try:
            if self._whole:
                self._begin_next()
        except OSError as error:
            raise self._failed(error.strerror or "unknown error") from error
        failure = self._append([body])
        if failure:
            raise failure

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    async def _write_apart(self) -> None:
        loop, alone = trio.lowlevel.current_trio_token(), trio.CapacityLimiter(1)
        with trio.CancelScope(shield=True):  # or the thread would not begin at all, where the end comes before it
            await trio.to_thread.run_sync(self._write_all, loop, limiter=alone)

    def _write_all(self, loop: trio.lowlevel.TrioToken) -> None:
        for batch in self._batches():
            failure = self._append([body for pending in batch for body in pending.bodies])
            loop.run_sync_soon(_settle, batch, failure)

    def _batches(self) -> Iterator[Sequence[Pending]]:
        """Wait for what is to be written, each time for all that there is by then."""
        is_over = False
        while not is_over:
            found = [self._waiting.get(), *(self._waiting.get() for _ in range(self._waiting.qsize()))]
            is_over = None in found
            if batch := [pending for pending in found if pending is not None]:
                yield batch

    def _append(self, bodies: list[bytes]) -> StoreError | None:
        """Write all or nothing; give what went wrong."""
        head = self._head
        lines = []
        for body in bodies:
            line, head = append(head, body)
            lines.append(line)
        octets = b"".join(lines)
        try:
            if os.fstat(self._file).st_size != self._whole:
                os.ftruncate(self._file, self._whole)
            if os.write(self._file, octets) == len(octets):
                os.fdatasync(self._file)
                self._head, self._whole = head, self._whole + len(octets)
                self._turn_over()
                return None
            reason = "the disk is full"
        except OSError as error:
            reason = error.strerror or "unknown error"
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, self._whole)
        log.critical("the journal cannot be written", path=str(self._path), reason=reason)
        return self._failed(reason)

    def _turn_over(self) -> None:
        """Begin a new file where this one is full; where that fails, go on with this one."""
        if self._whole < self._file_bytes:
            return
        try:
            self._begin_next()
        except OSError as error:
            log.error("the journal goes on in a file that is full", path=str(self._path), reason=error.strerror)  # noqa: TRY400 the reason says it

    def _begin_next(self) -> None:
        """Put the file away and begin another; raises ``OSError``, and then this one goes on."""
        first = first_line(self._path)
        if first is None:
            return
        full = full_name(self._path, first.number)
        self._path.rename(full)
        try:
            file = _open(self._path)
        except OSError:
            full.rename(self._path)
            raise
        os.close(self._file)
        self._file, self._whole = file, 0

    def _failed(self, reason: str) -> StoreError:
        message = f"the journal cannot be written: {reason}; nothing is released without it"
        failure = StoreError(message, what_to_do="make room on its disk, or see to the file")
        failure.place = str(self._path)
        return failure


def _settle(batch: Sequence[Pending], failure: StoreError | None) -> None:
    for pending in batch:
        pending.settle(failure)


def _open(path: pathlib.Path) -> int:
    """Open for appending, and make the name durable; raises ``OSError``."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        sync_directory(path.parent)
    except OSError:
        os.close(file)
        raise
    return file
