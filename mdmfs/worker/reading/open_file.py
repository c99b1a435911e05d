"""One file that somebody has open: its ciphertext, what unseals it, and what was pushed into the page cache."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

import trio

from mdmfs.model.errors import AccessDeniedError, IntegrityError, MdmfsError, again
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import (
    last_chunk_range,
    sealed_range,
    sealed_size,
    whole_range,
)
from mdmfs.sealing.unseal import Unsealer
from mdmfs.wire.messages.files import Node
from mdmfs.worker.cache.ciphertext import Ciphertext, SupersededError
from mdmfs.worker.cache.kept import Seal
from mdmfs.worker.reading.headers import Beginning
from mdmfs.worker.reading.pages import Pages
from mdmfs.worker.reading.unsealing import (
    plain_arrived,
    sealed_end,
    unseal_at_once,
    unseal_into_buffer,
    unseal_range,
)

PIECE: Final = 256 * 2**10
"""Plaintext bytes pushed at once: they are still in the processor's cache when the kernel copies them. Between two
pieces a revocation is looked for."""

SHOWN_SECONDS: Final = 1.0
"""So long pages that were pushed for who opens a file next are taken to be there; a READ for one that went goes on into
the pixels."""

_reading = trio.CapacityLimiter(4)
_pushing = trio.CapacityLimiter(4)
"""Apart from the readers': a push may have to wait for a read of the same pages, so it must never hold its thread."""


class OpenFile:
    """One file, however many readers have it open. It ends when the last has gone and no thread works on it."""

    def __init__(self, node: Node) -> None:
        self.guid = Guid(node.guid)
        self.inode = node.inode
        self.size = node.size
        self.readers = 0
        self.ahead = 0
        """How many of them only have it fetched ahead."""
        self.ready = trio.Event()
        """Set when it can be read, or has failed."""
        self.is_wanted = False
        """Whether it is unlocked as soon as it can be: somebody has opened it, or probably opens it next. Until then
        it is fetched ahead, and stays sealed."""
        self.is_asked_for = False
        """Whether the hospital was asked for it, and has that on record, for one open that has not been counted."""
        self.arriving: tuple[Ciphertext, Seal] | None = None
        """What the fetch that goes on brings."""
        self.begun = trio.Event()
        """Set when something has begun to arrive."""
        self.fetching: trio.Event | None = None
        """Set when the fetch has ended; None where there was none."""
        self.repairing = trio.Lock()
        self.beginning: Beginning | None = None
        """Its header with what is read along with it, where that is all that was asked for when it was opened."""
        self.is_demanded = False
        """Whether somebody has read beyond it, and the body was asked for."""
        self.on_body: Callable[[], None] | None = None
        """Hears, once, that more is read of it than its header."""
        self._failure: MdmfsError | None = None
        self._hindered_at = float("-inf")
        self._users = 0
        self._works: set[trio.CancelScope] = set()
        self._ciphertext: Ciphertext | None = None
        self._unsealer: Unsealer | None = None
        self._taken = trio.Event()
        """Set while there is a sealed object with its unsealer, and for ever when it has failed."""
        self._adopted: list[Ciphertext] = []
        self.sealed: tuple[Ciphertext, Seal] | None = None
        """What was unlocked last, or is being."""
        self.lacks_key = False
        """Whether the keystores are what is waited for: the header of its sealed object is here."""
        self.is_suspended = False
        """Whether the lease has lapsed: there is no key, and no page comes."""
        self.has_pushed = False
        """Whether there may be pages of it."""
        self._shown_at = float("-inf")
        """When its header was pushed since it was closed last, on the system's monotonic clock: by a thread, maybe."""

    @property
    def ciphertext(self) -> Ciphertext | None:
        """The sealed object in use."""
        return self._ciphertext

    @property
    def is_in_memory(self) -> bool:
        """Whether its sealed object takes a window of the budget, as the disk had no room for it."""
        return any(not ciphertext.is_on_disk for ciphertext in self._adopted)

    @property
    def is_header_only(self) -> bool:
        """Whether it is open and nothing but its header was asked for."""
        return self.ready.is_set() and self.fetching is None and self.sealed is None and not self.is_broken

    @property
    def rests_on_header(self) -> bool:
        """Whether its header can be read, nothing but that was asked for, nothing works on it, and it holds no file."""
        is_idle = not self._is_barred and not self._works and not self._adopted
        return self.is_header_only and self.beginning is not None and is_idle

    @property
    def header_end(self) -> int:
        """Up to which byte its header can be read, with what comes along, if nobody has read beyond; else 0."""
        if self.beginning is None or self.is_demanded or not self.is_header_only:
            return 0
        return len(self.beginning.front)

    @property
    def is_shown(self) -> bool:
        """Whether its header was pushed since it was closed last, and so lately that its pages are probably there."""
        return time.monotonic() < self._shown_at + SHOWN_SECONDS

    def note_kept(self) -> None:
        """Know that nobody has it open: damage is the disk's from now on, and a header is pushed anew.

        Who opens it next says what hears of its body: what heard until now knows a whole directory.
        """
        self._shown_at, self.on_body = float("-inf"), None
        if self._ciphertext is not None:
            self._ciphertext.note_kept()

    def note_body(self) -> None:
        """Know that its body is wanted."""
        heard, self.on_body = self.on_body, None
        if heard is not None:
            heard()

    @property
    def is_complete(self) -> bool:
        """Whether all of the sealed object is here."""
        return self._ciphertext is not None and self._ciphertext.is_complete

    @property
    def is_at_rest(self) -> bool:
        """Whether it can be read, all of it is here, and nothing works on it."""
        return self.is_complete and self._unsealer is not None and not self._is_barred and not self._works

    @property
    def hindered_at(self) -> float:
        """When it was last known, on trio's clock, that it could not come whatever the PACS did."""
        return trio.current_time() if self.is_suspended else self._hindered_at

    def note_hindrance(self) -> None:
        """Know that the hospital is away: who waits gives it his whole deadline when it is back."""
        self._hindered_at = trio.current_time()

    @property
    def is_broken(self) -> bool:
        """Whether an open must begin anew."""
        return self._failure is not None

    @property
    def is_spoiled(self) -> bool:
        """Whether its ciphertext is not worth keeping: it is not what was sealed, or nobody may read it."""
        return isinstance(self._failure, IntegrityError | AccessDeniedError)

    @property
    def _is_barred(self) -> bool:
        """Whether no page may come any more."""
        return self._failure is not None or self.is_suspended

    def adopt(self, ciphertext: Ciphertext) -> None:
        """Read this object as soon as it is unlocked, and none from before; it is closed when nobody can be reading."""
        self.set_aside()
        self._adopted.append(ciphertext)

    def set_aside(self) -> None:
        """Let readers wait for the next object: this one is damaged, or there is a newer one."""
        self._ciphertext = self._unsealer = None
        if self._taken.is_set() and self._failure is None:
            self._taken = trio.Event()
        for older in self._adopted:
            older.supersede()

    def take(self, ciphertext: Ciphertext, unsealer: Unsealer) -> None:
        """Read this object, with this unsealer, from now on; unless a newer one has been adopted meanwhile."""
        if ciphertext is self._adopted[-1] and not ciphertext.is_superseded and not self.is_suspended:
            self._ciphertext, self._unsealer = ciphertext, unsealer
            self._taken.set()

    def suspend(self) -> None:
        """Let the key go, and let readers wait until there is one again."""
        self.is_suspended = True
        self._ciphertext = self._unsealer = self.beginning = None
        if self._taken.is_set() and self._failure is None:
            self._taken = trio.Event()

    def resume(self) -> None:
        """Take a key again."""
        self.note_hindrance()
        self.is_suspended = False

    def lock(self) -> None:
        """Let the key go, and all that it opened: who had it open has left, and it is only fetched ahead any more."""
        for scope in self._works:
            scope.cancel()
        self.is_wanted = self.is_demanded = False
        self._ciphertext = self._unsealer = self.beginning = self.sealed = None
        if self._failure is None:
            self.ready, self._taken = trio.Event(), trio.Event()

    async def wait_until_taken(self) -> None:
        """Wait until it can be read; raises what made it unreadable."""
        while self._ciphertext is None and self._failure is None:
            await self._taken.wait()
        self.refuse_failed()

    def fail(self, error: MdmfsError) -> None:
        """Let every reader know that there is nothing more to read; the first reason stays."""
        self._failure = self._failure or error
        for ciphertext in self._adopted:
            ciphertext.fail(self._failure)
        self._taken.set()
        self.ready.set()

    def revoke(self) -> None:
        """Mark it, before anything else: who waits gets EACCES, and no push brings a page back."""
        self._unsealer = self.beginning = None
        self.fail(AccessDeniedError(f"the right to read {self.guid} has been withdrawn"))

    def refuse_failed(self) -> None:
        """Raise what made it unreadable, as an exception of its own for each reader."""
        if self._failure is not None:
            raise again(self._failure) from self._failure

    async def read(self, offset: int, length: int, *, may_hold_up: bool = False) -> bytes:
        """Give plaintext, short at the end of the file only; waits for ciphertext that is still on its way.

        With ``may_hold_up`` the loop itself reads what has come, where the disk has not to be waited for: whoever waits
        for a small file would wait for a thread besides.
        """
        piece = sealed_range(self.size, offset, length)
        if not piece.chunks:
            return b""
        with self.in_use():
            ciphertext, unsealer = await self._arrived(piece.offset + piece.length)
            at_hand = self.read_at_once(offset, length) if may_hold_up else None
            if at_hand is not None:
                return bytes(at_hand)
            plain = await trio.to_thread.run_sync(unseal_range, ciphertext, unsealer, piece, limiter=_reading)
            self.refuse_failed()
            return plain

    def read_at_once(self, offset: int, length: int) -> memoryview | None:
        """Read from the loop what is in memory; None where anything has to be waited for. Raises ``IntegrityError``.

        To hand this to a thread takes as long as to do it. The view is of a buffer that serves the next call.
        """
        ciphertext, unsealer = self._ciphertext, self._unsealer
        piece = sealed_range(self.size, offset, length)
        if ciphertext is None or unsealer is None or ciphertext.arrived < piece.offset + piece.length:
            return None
        octets = unseal_at_once(ciphertext, unsealer, piece) if piece.chunks else None
        return None if octets is None else octets[piece.skip : piece.skip + piece.plain_length]

    async def check_end(self) -> None:
        """Prove by the last chunk that the object is whole; raises ``IntegrityError``."""
        with self.in_use():
            last = last_chunk_range(self.size)
            ciphertext, unsealer = await self._arrived(last.offset + last.length)
            if unseal_at_once(ciphertext, unsealer, last) is None:  # a disk that is stuck may have all threads
                await trio.to_thread.run_sync(unseal_range, ciphertext, unsealer, last, limiter=_reading)

    def push_at_once(self, pages: Pages, *, is_resident: bool) -> bool:
        """Push a small file whole, from the loop, where its ciphertext is in memory; False where it is not.

        Nobody else may have it open: then no READ of its pages is pending for which a push would have to wait. Where
        the kernel has the pages, only the end is proven. Raises ``IntegrityError``.
        """
        ciphertext, unsealer = self._ciphertext, self._unsealer
        piece = last_chunk_range(self.size) if is_resident else whole_range(self.size)
        if ciphertext is None or unsealer is None:
            return False
        octets = unseal_at_once(ciphertext, unsealer, piece)
        if octets is None:
            return False
        if octets and not is_resident:
            self.has_pushed = True
            pages.store(self.inode, 0, octets)
        self.is_wanted = True
        self.ready.set()
        return True

    async def push_when_whole(self, pages: Pages, *, may_hold_up: Callable[[], bool]) -> bool:
        """Push a small file as ``push_at_once``, when the last of it has arrived; False where that must not be."""
        with self.in_use():
            await self._arrived(sealed_size(self.size))
            return may_hold_up() and self.push_at_once(pages, is_resident=False)

    def begin_with(self, beginning: Beginning, pages: Pages) -> None:
        """Have its header read, with what is read along with it, and push it; from a thread, or before it is open.

        Each time: the kernel drops pages without a word, and its READ of one goes beyond the header, into the pixels.
        That of the last page ends with it: the few who read it ask.
        """
        self.has_pushed, self._shown_at = True, time.monotonic()
        if not self._is_barred:
            self.beginning = beginning
            pages.store(self.inode, 0, beginning.front)
        if self._is_barred:
            self.beginning = None
            pages.invalidate(self.inode)

    async def push(self, pages: Pages) -> None:
        """Unseal all of it and put it into the page cache, as it arrives."""
        self.has_pushed = True
        begin = 0
        with self.in_use():
            while begin < self.size and not self._failure:
                wanted = sealed_end(self.size, begin, min(PIECE, self.size - begin))
                source = await self._arrived(wanted)
                end = self.size if source[0].is_complete else min(self.size, plain_arrived(source[0].arrived))
                begin = await trio.to_thread.run_sync(self._push_there, pages, source, begin, end, limiter=_pushing)

    def _push_there(self, pages: Pages, source: tuple[Ciphertext, Unsealer], begin: int, end: int) -> int:
        """Push what has arrived, piece by piece, in a worker thread; the mark is looked at around each piece."""
        ciphertext, unsealer = source
        while begin < end and not self._is_barred:
            piece = sealed_range(self.size, begin, min(PIECE, end - begin))
            plain = unseal_into_buffer(ciphertext, unsealer, piece)
            if not self._is_barred:
                pages.store(self.inode, begin, plain[: piece.plain_length])
            begin += piece.plain_length
        if self._is_barred:
            # it came during the last piece: who invalidated then may have been too early
            pages.invalidate(self.inode)
        return begin

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the ciphertext open while a task or thread works on it."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self.close_if_unused()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Work for the readers in this block: it is cancelled when the last of them leaves."""
        with self.in_use(), trio.CancelScope() as scope:
            self._works.add(scope)
            try:
                yield
            finally:
                self._works.discard(scope)

    def leave(self) -> bool:
        """Count a reader out; True for the last, with whom all work ends."""
        self.readers -= 1
        if self.readers:
            return False
        for scope in self._works:
            scope.cancel()
        self.close_if_unused()
        return True

    def close_if_unused(self) -> None:
        """Close the ciphertext once there is neither reader nor thread."""
        if self.readers or self._users:
            return
        for ciphertext in self._adopted:
            ciphertext.close()
        self._adopted.clear()
        self._unsealer = None

    async def _arrived(self, end: int) -> tuple[Ciphertext, Unsealer]:
        """Wait for the sealed bytes before ``end``, of whichever object brings them; raises why they do not come."""
        while True:
            await self.wait_until_taken()
            ciphertext, unsealer = self._ciphertext, self._unsealer
            if ciphertext is None or unsealer is None:
                message = f"{self.guid} is read after it was closed"
                raise MdmfsError(message)
            with contextlib.suppress(SupersededError):
                await ciphertext.wait_for(end)
                self.refuse_failed()
                return ciphertext, unsealer


class OpenFiles(dict[int, OpenFile]):
    """The files that are open, or fetched for somebody, by inode."""

    def drop(self, file: OpenFile) -> None:
        """Let the next open begin anew, unless it has."""
        if self.get(file.inode) is file:
            del self[file.inode]

    def leave(self, file: OpenFile) -> None:
        """Count a reader out; with the last one everything ends that worked for the file."""
        if file.leave():
            self.drop(file)
        elif file.readers == file.ahead:
            file.lock()
