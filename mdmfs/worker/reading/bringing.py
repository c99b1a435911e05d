"""Bring files to those who opened them: from the cache, by their header, or from the hospital; mend what is damaged.

However many readers wait for a file, it is fetched once, and the fetch goes on while one of them is left.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVarTuple

import structlog
import trio

from mdmfs.model.errors import IntegrityError, MdmfsError, PeerUnreachableError, TooFewSharesError
from mdmfs.model.names import Guid
from mdmfs.sealing.header import ObjectContext, Role
from mdmfs.sealing.layout import HEADER_SIZE, SALT_SIZE
from mdmfs.sealing.unseal import Unsealer
from mdmfs.wire.messages.files import Node, SealedHeader
from mdmfs.worker.cache.ciphertext import Ciphertext, SupersededError
from mdmfs.worker.cache.kept import Seal
from mdmfs.worker.hospital.outage import OUTAGES, Outage
from mdmfs.worker.keys.ring import Lock
from mdmfs.worker.reading import headers
from mdmfs.worker.reading.fetching import Fetching
from mdmfs.worker.reading.open_file import OpenFile
from mdmfs.worker.reading.parts import Parts
from mdmfs.worker.reading.together import FetchingTogether

AT_ONCE: Final = 2**20
"""Files up to this size are opened without a task or a thread where all that is needed is at hand: it takes less time
than to hand them over."""
SOON: Final = 0.25
"""Seconds in which what is fetched ahead begins to arrive, unless the PACS is slow."""
PATIENCE_WITH_KEYSTORES: Final = 120.0

Ts = TypeVarTuple("Ts")

_beginning = trio.CapacityLimiter(4)
"""Of those that push headers: reads must not have to wait for what waits for them."""

log = structlog.get_logger(__name__)


class Bringer:
    """Brings what files need, in the background; readers wait for it, and are told when it fails."""

    def __init__(self, parts: Parts, *, deadline: float, patience: float) -> None:
        """See ``Opener``, which shares all of it."""
        self._parts = parts
        self._deadline = deadline
        self._patience = patience
        self._ahead: set[FetchingTogether] = set()

    def bring(self, file: OpenFile, siblings: Sequence[Guid]) -> None:
        """Have a file brought, by whatever it takes; ``ready`` tells when it is there."""
        self._parts.nursery.start_soon(self._guard, file, self._bring, file, siblings)

    def bring_body(self, file: OpenFile) -> None:
        """Have the rest brought of a file that was opened by its header."""
        self._parts.nursery.start_soon(self._guard, file, self._bring_body, file, (), None)

    def unlock_again(self, file: OpenFile) -> None:
        """Have the key of a file collected anew, if its object is here."""
        if file.is_wanted and file.sealed is not None:
            self._parts.nursery.start_soon(self._guard, file, self._unlock_again, file, *file.sealed)

    def is_on_its_way(self, inode: int) -> bool:
        """Tell whether the ciphertext of a file is being brought, or was."""
        file = self._parts.files.get(inode)
        return file is not None and not file.is_header_only

    async def prefetch(self, nodes: Sequence[Node]) -> None:
        """Fetch the ciphertext of files that nobody has opened, in one answer; raises why one does not come.

        Cancelled, the transfer ends, but for those that somebody has opened meanwhile: they are his, then.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        held: dict[OpenFile, None] = {}
        for node in nodes:
            if Guid(node.guid) not in self._parts.cache and not self.is_on_its_way(node.inode):
                self._parts.kept.drop(node.inode)  # it would hold a descriptor for as long as its shares
                file = self._parts.files.get(node.inode) or self._parts.files.setdefault(node.inode, OpenFile(node))
                file.readers += 1
                file.ahead += 1
                file.fetching = trio.Event()
                held[file] = None
        if not held:
            return

        def let_go(file: OpenFile) -> None:
            if file in held:
                del held[file]
                file.ahead -= 1
                self._parts.files.leave(file)

        def end(file: OpenFile, error: MdmfsError | None) -> None:
            self._end_together(file, error)
            let_go(file)

        fetching = FetchingTogether(self._parts.hospital, self._parts.cache, [*held], self._begin, end)
        ended = trio.Event()
        self._parts.nursery.start_soon(self._run_together, fetching, ended)
        try:
            await ended.wait()
            if fetching.failure is not None:
                raise fetching.failure
        finally:
            for file in [*held]:
                let_go(file)
            fetching.stop_unless_wanted()

    async def mend(self, file: OpenFile, damaged: Ciphertext | None, error: IntegrityError) -> None:
        """Replace an object that is not what was sealed by a fresh one, once for all who noticed.

        None where it was: its key has been rotated. One that the hospital has just sent is not asked for again.
        """
        async with file.repairing:
            if file.ciphertext is not damaged and file.ciphertext is not None:
                return
            self._parts.cache.discard(file.guid)
            if damaged is not None and not damaged.is_from_cache and not self._parts.hospital.doubt(file.guid):
                self.fail(file, error)
                raise error
            log.warning(
                "what is in the cache does not open, as after a rotation, and is fetched anew",
                guid=str(file.guid),
                reason=error.told_here,
            )
            file.set_aside()
            file.fetching = None
            await self._bring_anew(file)

    def fail(self, file: OpenFile, error: MdmfsError) -> None:
        """Tell all readers, and let the next open begin anew.

        Its pages go in the background: that waits for reads that are pending, and one of them may have called this.
        """
        file.fail(error)
        self._parts.files.drop(file)
        self._parts.pages.note_asked(file.inode)
        if file.is_spoiled:
            self._parts.cache.discard(file.guid)
        if file.has_pushed:
            self._parts.nursery.start_soon(self._parts.pages.take_back, file.inode)

    def give_up_ahead(self) -> bool:
        """Let no look-ahead take the room of what somebody reads; tells whether there was one."""
        return any(fetching.give_up() for fetching in list(self._ahead))

    async def _run_together(self, fetching: FetchingTogether, ended: trio.Event) -> None:
        self._ahead.add(fetching)
        try:
            await fetching.run()
        except Exception as error:
            log.exception("fetching ahead failed unexpectedly")
            fetching.failure = MdmfsError(f"fetching ahead failed: {type(error).__name__}")
        finally:
            self._ahead.discard(fetching)
            ended.set()

    def _end_together(self, file: OpenFile, error: MdmfsError | None) -> None:
        """End what was fetched with others; where it did not come and somebody waits for it, it is fetched alone."""
        if file.fetching is not None:
            file.fetching.set()
        if error is not None and file.beginning is not None and not file.is_demanded:
            file.fetching = file.arriving = file.sealed = None  # nobody has read beyond its header: as it was opened
            file.set_aside()
        elif error is not None and file.is_wanted and not file.is_broken:
            self._fetch(file)
        elif error is not None:
            file.fail(error)
            self._parts.files.drop(file)

    async def _bring(self, file: OpenFile, siblings: Sequence[Guid]) -> None:
        """Bring one file to its readers: from the cache, or else its header, or else all of it."""
        if (
            file.guid not in self._parts.cache
            and not await _is_arriving(file)
            and await self._bring_header(file, siblings)
        ):
            return
        await self._bring_body(file, siblings, self._push_first)
        self._parts.stories.note(file.inode, "pushed to the kernel", trio.current_time())
        await trio.lowlevel.checkpoint_if_cancelled()
        file.ready.set()

    async def _bring_header(self, file: OpenFile, siblings: Sequence[Guid]) -> bool:
        """Bring what the hospital keeps of a file's header; False where the whole file has to be asked for.

        Whatever goes wrong here goes wrong there, too, and is told then.
        """
        self._parts.nursery.start_soon(self._guard, file, self._prepare, file, siblings)
        try:
            header = await self._find_header(file, siblings)
            if header is None or file.arriving is not None:
                return False
            unsealer = await self._key(file, headers.lock_of(file.guid, header), siblings)
            beginning = headers.unseal(unsealer, header, file.size)
        except PeerUnreachableError:
            raise  # there was no patience left, and the body is asked for at the same place
        except (MdmfsError, ValueError) as error:
            log.info("a header is not to be had by itself", guid=str(file.guid), reason=str(error))
            self._parts.headers.forget(file.guid)
            return False
        await trio.to_thread.run_sync(file.begin_with, beginning, self._parts.pages.port, limiter=_beginning)
        self._parts.stories.note(file.inode, "header pushed to the kernel", trio.current_time())
        await trio.lowlevel.checkpoint_if_cancelled()
        file.ready.set()
        return True

    async def _find_header(self, file: OpenFile, siblings: Sequence[Guid]) -> SealedHeader | None:
        """Ask for a header until the hospital answers: that it is away is no reason to have a whole file recalled."""
        outage = Outage()
        while True:
            file.is_asked_for = self._parts.headers.held(file.guid) is None
            try:
                return await self._parts.headers.find(file.guid, siblings)
            except OUTAGES as error:
                if isinstance(error, PeerUnreachableError):
                    file.note_hindrance()
                await outage.outlast(error, self._patience)

    async def _bring_body(
        self,
        file: OpenFile,
        siblings: Sequence[Guid],
        push: Callable[[OpenFile], Awaitable[None]] | None,
    ) -> None:
        """Bring all of a file, from the cache where it is there and sound, and push what is pushed before open returns.

        Who reads beyond a header has READs pending already, and nothing is pushed.
        """
        file.note_body()
        found = self._parts.cache.open(file.guid, file.size) if file.fetching is None else None
        if found is None:
            await self._bring_anew(file, siblings)
        else:
            file.adopt(found[0])
            try:
                await self._unlock(file, *found, siblings)
                await (file.check_end() if push is None else push(file))
            except IntegrityError as error:
                await self.mend(file, found[0], error)
            else:
                return
        if push is None:
            return
        begun_with = file.ciphertext
        try:
            await push(file)
        except IntegrityError as error:
            await self.mend(file, begun_with, error)
            await push(file)

    async def _bring_anew(self, file: OpenFile, siblings: Sequence[Guid] = ()) -> None:
        """Fetch; what arrives goes to disk while the shares are collected and the first readers read."""
        if not self._parts.keys.holds(file.guid):
            self._parts.nursery.start_soon(self._guard, file, self._prepare, file, siblings)
        if file.fetching is None:
            self._fetch(file)
        elif file.arriving is not None:
            self._begin(file, *file.arriving)
        await file.wait_until_taken()

    def _fetch(self, file: OpenFile) -> trio.Event:
        """Begin to fetch, and give what is set at the end."""
        file.is_asked_for = not file.ready.is_set()
        begin = functools.partial(self._begin, file)
        fetching = Fetching(
            self._parts.hospital,
            self._parts.cache,
            file,
            begin,
            memory=self._parts.memory,
            patience=self._patience,
            patience_once_begun=max(self._patience, self._deadline),
        )
        file.fetching, file.arriving = trio.Event(), None
        self._parts.nursery.start_soon(self._run, file, fetching, file.fetching)
        self._parts.nursery.start_soon(fetching.make_place)
        return file.fetching

    async def _run(self, file: OpenFile, fetching: Fetching, ended: trio.Event) -> None:
        try:
            await self._guard(file, fetching.run)
        finally:
            fetching.end()
            ended.set()

    async def _prepare(self, file: OpenFile, siblings: Sequence[Guid]) -> None:
        with contextlib.suppress(MdmfsError):  # whoever unlocks the file is told
            await self._parts.keys.prepare(file.guid, siblings=siblings)

    def _begin(self, file: OpenFile, ciphertext: Ciphertext, seal: Seal) -> None:
        """Unlock an object as soon as its header is here, if somebody has opened it."""
        self._parts.stories.note(file.inode, "decided, recalled and begun to arrive", trio.current_time())
        file.arriving = ciphertext, seal
        file.begun.set()
        if file.is_wanted:
            self._parts.nursery.start_soon(self._guard, file, self._unlock, file, ciphertext, seal, ())

    async def _unlock(self, file: OpenFile, ciphertext: Ciphertext, seal: Seal, siblings: Sequence[Guid] = ()) -> None:
        """Open the object with its key, before anybody sees one of its bytes; one that was superseded is let be."""
        if ciphertext.is_superseded:
            return
        file.sealed = ciphertext, seal
        try:
            await ciphertext.wait_for(HEADER_SIZE)
        except SupersededError:
            return
        unsealer = await self._key(file, lock_of(file, ciphertext, seal), siblings)
        if file.is_wanted:
            file.take(ciphertext, unsealer)
        self._parts.stories.note(file.inode, "key made of shares", trio.current_time())

    async def _key(self, file: OpenFile, lock: Lock, siblings: Sequence[Guid]) -> Unsealer:
        file.lacks_key = True
        try:
            return await self._parts.keys.unlock(lock, siblings)
        finally:
            file.lacks_key = False

    async def _unlock_again(self, file: OpenFile, ciphertext: Ciphertext, seal: Seal) -> None:
        """Unlock what was open when the lease lapsed; keystores may come back later than the hospital."""
        give_up_at = trio.current_time() + PATIENCE_WITH_KEYSTORES
        while not file.is_suspended:
            try:
                await self._unlock(file, ciphertext, seal)
            except IntegrityError as error:  # the key was rotated meanwhile
                await self.mend(file, None, error)
                return
            except (TooFewSharesError, *OUTAGES):
                if trio.current_time() >= give_up_at:
                    raise
                await trio.sleep(1)
            else:
                return

    async def _push_first(self, file: OpenFile) -> None:
        """Push a small file whole, and prove the end of a larger one; a kernel that has all pages gets none again.

        That spares its readers all READs. For larger ones pushing takes as long as answering, and cannot go on while
        their readers copy.
        """
        if file.size <= self._parts.memory.pushed and not self._parts.pages.has_whole(file.inode):
            if file.size > AT_ONCE or not await file.push_when_whole(
                self._parts.pages.port, may_hold_up=lambda: file.inode not in self._parts.handles
            ):
                await file.push(self._parts.pages.port)
            self._parts.pages.note_whole(file.inode)
        elif file.is_complete:
            await file.check_end()

    async def _guard(self, file: OpenFile, work: Callable[[*Ts], Awaitable[None]], *parts: *Ts) -> None:
        """Run background work for a file: whatever goes wrong is told to its readers, and ends no other's mount."""
        if not file.readers:
            return  # the last one left before it could begin
        with file.working():
            try:
                await work(*parts)
            except MdmfsError as error:
                self.fail(file, error)
            except Exception:
                incident = secrets.token_hex(4)
                log.exception("background work failed unexpectedly", guid=str(file.guid), incident=incident)
                self.fail(file, MdmfsError(f"{file.guid} cannot be read, see incident {incident} in the log"))


async def _is_arriving(file: OpenFile) -> bool:
    """Ask whether the body comes, of what is fetched ahead; where it does not come soon, its header may."""
    if file.fetching is not None:
        with trio.move_on_after(SOON):
            await file.begun.wait()
    return file.arriving is not None


def lock_of(file: OpenFile, ciphertext: Ciphertext, seal: Seal) -> Lock:
    """Say what a key of this object must fit; its header must be here. Raises ``IntegrityError`` for another one."""
    header = ciphertext.read(0, HEADER_SIZE)
    if header[:SALT_SIZE] != seal.salt:
        message = f"the sealed object of {file.guid} does not begin with the salt that was announced"
        raise IntegrityError(message)
    return Lock(ObjectContext(Role.BODY, file.guid, seal.generation, file.size), header, seal.threshold)
