"""Open a file, in one page: fetch the ciphertext, collect the key, unseal, push the plaintext to where it is read.

However many readers wait for a file, it is fetched once, and the fetch goes on while one of them is left.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import secrets
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, TypeVarTuple

import structlog
import trio
from prometheus_client import Gauge

from mdmfs.model.errors import (
    IntegrityError,
    MdmfsError,
    PeerUnreachableError,
    RecallTimedOutError,
    TooFewSharesError,
)
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import HEADER_SIZE
from mdmfs.wire.messages import Node, NodeKind, SealedHeader
from mdmfs.worker import headers
from mdmfs.worker.cache.ciphertext import Ciphertext, SupersededError
from mdmfs.worker.cache.store import CiphertextCache, Seal
from mdmfs.worker.fetching import Fetching
from mdmfs.worker.hospital import Hospital
from mdmfs.worker.kept import KeptFiles
from mdmfs.worker.keys.ring import KeyRing, unlock_with
from mdmfs.worker.open_file import OpenFile, lock_of
from mdmfs.worker.opens import ASKED, Opens
from mdmfs.worker.outage import OUTAGES, Outage
from mdmfs.worker.pages import Pages
from mdmfs.worker.story import Story
from mdmfs.worker.together import FetchingTogether

WAITING: Final = Gauge("mdmfs_waiting_calls", "Calls of programs that wait for bytes or a key.", ["call"])
WHOLE: Final = 4 * 2**20
"""Files up to this size are pushed whole before open returns: that spares their readers all READs. For larger ones
pushing takes as long as answering, and cannot go on while their readers copy."""
AT_ONCE: Final = 2**20
"""Files up to this size are opened without a task or a thread where all that is needed is at hand: it takes less time
than to hand them over."""
AHEAD: Final = 8
"""So many files before the last one of a burst whose shares are held, the next ones are asked for."""
SOON: Final = 0.25
"""Seconds in which what is fetched ahead begins to arrive, unless the PACS is slow."""
PAGE: Final = mmap.PAGESIZE
MAX_STORIES: Final = 10_000
PATIENCE_WITH_KEYSTORES: Final = 120.0

Ts = TypeVarTuple("Ts")

_forgetting = trio.CapacityLimiter(64)
"""Apart from all others: each may wait for a read that waits for the lease, or for a thread."""
_beginning = trio.CapacityLimiter(4)
"""Of those that push headers: reads must not have to wait for what waits for them."""

log = structlog.get_logger(__name__)


class Opener:
    """Opens files and reads them, for one caller's credential."""

    def __init__(  # noqa: PLR0913 the parts that it works with
        self,
        hospital: Hospital,
        cache: CiphertextCache,
        keys: KeyRing,
        pages: Pages,
        nursery: trio.Nursery,
        *,
        deadline: float,
        patience: float = 0.0,
    ) -> None:
        """``deadline``: seconds that an open waits for its first bytes. The nursery outlives all open files.

        ``patience``: seconds for which a hospital that is away is asked again; the deadline does not run meanwhile.
        """
        self._hospital = hospital
        self._cache = cache
        self._keys = keys
        self._headers = headers.Headers(hospital)
        self._pages = pages
        self._nursery = nursery
        self._deadline = deadline
        self._patience = patience
        self._files: dict[int, OpenFile] = {}
        self._handles: Counter[int] = Counter()
        """How many the kernel has of each inode, of what is in ``_files`` or of what broke: it may be reading it."""
        self._kept = KeptFiles(self._leave)
        self._resident: set[int] = set()
        """Inodes whose pages were all pushed and not been asked for since."""
        self._paged: set[int] = set()
        """Inodes of which the kernel may have pages."""
        self.opens = Opens()
        """Those that the hospital did not see."""
        self._stories: OrderedDict[int, Story] = OrderedDict()
        """How the last open of each file went."""

    async def open(
        self, node: Node, siblings: Sequence[Node] = (), *, on_body: Callable[[], None] | None = None
    ) -> OpenFile:
        """Open a file: the hospital decides when it is asked for ciphertext, the keystores when for shares.

        ``siblings`` are files that may be opened next. ``on_body`` hears when more is asked for than the header, which
        may be now or at a read. Each call is ended with ``close``.
        """
        file = self.open_at_once(node, siblings, on_body=on_body)
        if file is not None:
            return file
        self._stories[node.inode] = Story(trio.current_time())
        if len(self._stories) > MAX_STORIES:
            self._stories.popitem(last=False)
        file = self._open(node, siblings, on_body)
        self._enter(file)
        try:
            await self._wait(file)
        except BaseException:
            self.close(file)
            raise
        if file.is_asked_for:
            ASKED.inc()
        else:
            self.opens.note(file.guid)
        file.is_asked_for = False
        return file

    def open_at_once(
        self,
        node: Node,
        siblings: Sequence[Node] = (),
        *,
        on_body: Callable[[], None] | None = None,
        is_in_order: bool = False,
    ) -> OpenFile | None:
        """Open a file as ``open``, where nothing has to be waited for; else None, and nothing is done.

        ``is_in_order``: the first of the siblings is probably opened next, and gets ready while this one is read.
        """
        following = _guids(siblings)
        if following and not self._keys.holds(following[min(AHEAD, len(following)) - 1]):
            self._nursery.start_soon(self._ask_ahead, self._keys.collect_ahead, following)
        self._paged.add(node.inode)
        self._kept.drop_outlived(node.inode)
        file = self._files.get(node.inode)
        if file is None and node.inode not in self._handles:
            file = self._open_pushing(node) or self._open_header(node)
        if file is None or not file.ready.is_set() or file.is_broken or file.guid.octets != node.guid:
            return None
        self._enter(file)
        file.on_body = file.on_body or on_body
        self.opens.note(file.guid)
        if not file.is_header_only:
            file.note_body()
        elif following and is_in_order:
            self._look_ahead(siblings, following)
        return file

    def _look_ahead(self, siblings: Sequence[Node], following: Sequence[Guid]) -> None:
        """Get ready for who goes through headers in order: push the next one, and ask for those that come soon."""
        self._nursery.start_soon(self._open_ahead, siblings[0])
        soon = following[min(AHEAD, len(following)) - 1]
        if self._headers.lacks(soon) and soon not in self._cache:
            self._nursery.start_soon(self._ask_ahead, self._headers.find_ahead, following)

    def open_again(self, node: Node) -> OpenFile | None:
        """Open a file that is open and at hand whole, or was a moment ago; else None, and nothing is done."""
        self._kept.drop_outlived(node.inode)
        file = self._files.get(node.inode)
        if file is None or not file.is_at_rest or not file.ready.is_set() or file.guid.octets != node.guid:
            return None
        self._enter(file)
        self.opens.note(file.guid)
        return file

    async def _open_ahead(self, node: Node) -> None:
        """Open a file that is probably opened next by its header, where that is at hand: while this one is read."""
        if node.kind is not NodeKind.FILE or node.inode in self._files or node.inode in self._handles:
            return
        until = self._keys.held_until(Guid(node.guid))
        if until <= trio.current_time():
            return
        self._paged.add(node.inode)
        try:
            file = self._open_header(node)
        except Exception:
            log.exception("opening ahead failed unexpectedly")
            return
        if file is not None:
            file.readers += 1
            self._kept.keep(file, until)

    def _open_pushing(self, node: Node) -> OpenFile | None:
        """Open a small file here and now, none of whose pages is there: None where something is not at hand, or right.

        Pushing holds up nobody: with no other handle of the file no READ of its pages is pending. With one, the loop
        would wait for ever for the READ that it is to answer itself.
        """
        guid = Guid(node.guid)
        if node.size > AT_ONCE or not self._keys.holds(guid):
            return None
        found = self._cache.open(guid, node.size)
        if found is None:
            return None
        file = OpenFile(node)
        file.adopt(found[0])
        with contextlib.suppress(IntegrityError):
            if self._push_at_once(file, *found):
                self._files[node.inode] = file
                return file
        file.close_if_unused()
        return None

    def _push_at_once(self, file: OpenFile, ciphertext: Ciphertext, seal: Seal) -> bool:
        unsealer = unlock_with(self._keys.fresh(file.guid, seal.threshold), lock_of(file, ciphertext, seal))
        if unsealer is None:
            return False
        file.sealed = ciphertext, seal
        file.take(ciphertext, unsealer)
        if not file.push_at_once(self._pages, is_resident=file.inode in self._resident):
            return False
        self._resident.add(file.inode)
        return True

    def _open_header(self, node: Node) -> OpenFile | None:
        """Open a file by its header here and now, where that and its shares are at hand, and its body is not."""
        guid = Guid(node.guid)
        header = None if guid in self._cache else self._headers.held(guid)
        answers = None if header is None else self._keys.fresh(guid, header.threshold)
        if header is None or answers is None:
            return None
        with contextlib.suppress(IntegrityError, ValueError):
            unsealer = unlock_with(answers, headers.lock_of(guid, header))
            if unsealer is not None:
                file = self._files[node.inode] = OpenFile(node)
                file.is_wanted = True
                file.begin_with(headers.unseal(unsealer, header, node.size), self._pages)
                file.ready.set()
                return file
        self._files.pop(node.inode, None)
        return None

    def _open(self, node: Node, siblings: Sequence[Node], on_body: Callable[[], None] | None) -> OpenFile:
        """Have a file brought, by whatever it takes; ``ready`` tells when it is there."""
        file = self._files.get(node.inode)
        if file is None or file.is_broken or file.guid.octets != node.guid:
            self._kept.drop(node.inode)
            file = self._files[node.inode] = OpenFile(node)
        file.on_body = file.on_body or on_body
        if not file.is_wanted:
            file.is_wanted = True
            self._nursery.start_soon(self._guard, file, self._bring, file, _guids(siblings))
        return file

    async def _ask_ahead(self, ask: Callable[[Sequence[Guid]], Awaitable[None]], following: Sequence[Guid]) -> None:
        """Ask for what is needed of files that may be opened next, whether this file stays open or not."""
        try:
            await ask(following)
        except MdmfsError as error:  # who opens them is told
            log.debug("nothing comes ahead", code=error.code)
        except Exception:
            log.exception("asking ahead failed unexpectedly")

    def story(self, node: Node) -> str:
        """Tell where the bytes of a file are, as the mount knows it, and how its last open went that had to wait."""
        places = []
        if node.inode in self._resident:
            places.append("page cache")
        if Guid(node.guid) in self._cache:
            places.append("cache of the mount, sealed")
        elif self.has(node):
            places.append("on its way to the cache")
        elif self._headers.held(Guid(node.guid)):
            places.append("its header in memory, sealed")
        where = ", ".join(places) or "not on this node"
        story = self._stories.get(node.inode)
        steps = "" if story is None else story.told()
        return f"bytes     {where}\nlast open {steps or 'all was at hand, or there was none'}"

    def _note(self, file: OpenFile, step: str) -> None:
        story = self._stories.get(file.inode)
        if story is not None:
            story.note(step, trio.current_time())

    def has(self, node: Node) -> bool:
        """Ask whether the ciphertext of a file is here, or on its way."""
        file = self._files.get(node.inode)
        return Guid(node.guid) in self._cache or (file is not None and not file.is_header_only)

    async def prefetch(self, nodes: Sequence[Node]) -> None:
        """Fetch the ciphertext of files that nobody has opened, in one answer; raises why one does not come.

        Cancelled, the transfer ends, but for those that somebody has opened meanwhile: they are his, then.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        held: dict[OpenFile, None] = {}
        for node in nodes:
            if not self.has(node):
                file = self._files.get(node.inode) or self._files.setdefault(node.inode, OpenFile(node))
                file.readers += 1
                file.fetching = trio.Event()
                held[file] = None
        if not held:
            return

        def end(file: OpenFile, error: MdmfsError | None) -> None:
            self._end_together(file, error)
            if file in held:
                del held[file]
                self._leave(file)

        fetching, ended = FetchingTogether(self._hospital, self._cache, [*held], self._begin, end), trio.Event()
        self._nursery.start_soon(self._run_together, fetching, ended)
        try:
            await ended.wait()
            if fetching.failure is not None:
                raise fetching.failure
        finally:
            for file in [*held]:
                del held[file]
                self._leave(file)
            fetching.stop_unless_wanted()

    async def _run_together(self, fetching: FetchingTogether, ended: trio.Event) -> None:
        try:
            await fetching.run()
        except Exception as error:
            log.exception("fetching ahead failed unexpectedly")
            fetching.failure = MdmfsError(f"fetching ahead failed: {type(error).__name__}")
        finally:
            ended.set()

    def _end_together(self, file: OpenFile, error: MdmfsError | None) -> None:
        """End what was fetched with others; where it did not come and somebody waits for it, it is fetched alone."""
        if file.fetching is not None:
            file.fetching.set()
        if error is not None and file.beginning is not None and not file.is_demanded:
            file.fetching = None  # nobody has read beyond its header
        elif error is not None and file.is_wanted and not file.is_broken:
            self._fetch(file)
        elif error is not None:
            file.fail(error)
            if self._files.get(file.inode) is file:
                del self._files[file.inode]

    async def _wait(self, file: OpenFile) -> None:
        with WAITING.labels("open").track_inprogress():
            is_there = await self._is_in_time(file, file.ready.wait)
        if not is_there:
            message = f"{file.guid} did not arrive within {self._deadline:g} s; the recall goes on, try again"
            raise RecallTimedOutError(message)
        file.refuse_failed()

    async def _is_in_time(self, file: OpenFile, wait: Callable[[], Awaitable[None]]) -> bool:
        """Wait for something of a file; False at the deadline, which begins anew when the hospital was away."""
        begun = trio.current_time()
        while trio.current_time() < (until := max(begun, file.hindered_at) + self._deadline):
            with trio.move_on_at(until):
                await wait()
                return True
        return False

    def _enter(self, file: OpenFile) -> None:
        if not self._kept.take(file):
            file.readers += 1
        self._handles[file.inode] += 1

    def close(self, file: OpenFile) -> None:
        """End one open; with the last one everything ends that worked for the file, or it is kept for a moment."""
        self._handles[file.inode] -= 1
        if not self._handles[file.inode]:
            del self._handles[file.inode]
        if file.readers == 1 and file.is_at_rest and file.size <= AT_ONCE and self._files.get(file.inode) is file:
            self._keep(file)
        else:
            self._leave(file)

    def _keep(self, file: OpenFile) -> None:
        """Keep a file at hand after its last close: no longer than its shares, of which none may be here any more."""
        until = self._keys.held_until(file.guid)
        if until <= trio.current_time() or file.ciphertext is None:
            self._leave(file)
            return
        file.ciphertext.note_kept()
        self._kept.keep(file, until)

    def expire(self) -> None:
        """Let go what was kept at hand long enough."""
        self._kept.expire()

    def let_go(self) -> None:
        """Let go all that nobody has open."""
        self._kept.clear()

    def _leave(self, file: OpenFile) -> None:
        if file.leave() and self._files.get(file.inode) is file:
            del self._files[file.inode]

    def read_at_once(self, file: OpenFile, offset: int, length: int) -> memoryview | None:
        """Read as ``read``, where neither bytes nor disk have to be waited for; else None.

        The view is good until the next step of the loop.
        """
        self._resident.discard(file.inode)
        octets = None if file.beginning is None else file.beginning.read(offset, length)
        if octets is not None:
            return memoryview(octets)
        with contextlib.suppress(IntegrityError):  # `read` meets it again, and mends it
            return file.read_at_once(offset, length)
        return None

    async def read(self, file: OpenFile, offset: int, length: int) -> bytes:
        """Give plaintext, short at the end of the file only; a damaged cache is mended by one fresh fetch."""
        self._resident.discard(file.inode)
        octets = None if file.beginning is None else file.beginning.read(offset, length)
        if octets is not None:
            return octets
        if file.is_header_only and not file.is_demanded:
            self._nursery.start_soon(self._guard, file, self._bring_body, file, (), None)
        file.is_demanded = True
        await self._wait_for_body(file)
        begun_with = file.ciphertext
        try:
            at_hand = file.read_at_once(offset, length) if file.size <= AT_ONCE else None
            return await file.read(offset, length) if at_hand is None else bytes(at_hand)
        except IntegrityError as error:
            await self._mend(file, begun_with, error)
            return await file.read(offset, length)

    async def _wait_for_body(self, file: OpenFile) -> None:
        """Wait until it can be read; what is not there within the deadline fails for all who have it open.

        The kernel repeats a READ that failed: it shall not wait as long again.
        """
        if file.sealed is not None or not file.is_demanded:
            await file.wait_until_taken()
            return
        with WAITING.labels("read").track_inprogress():
            is_there = await self._is_in_time(file, file.wait_until_taken)
        if not is_there:
            message = f"{file.guid} did not arrive within {self._deadline:g} s; the recall goes on, open it again"
            self._fail(file, RecallTimedOutError(message))
            file.refuse_failed()

    async def revoke(self, inode: int, guid: Guid | None) -> None:
        """Stop everyone who reads a file; who opens it next asks the hospital."""
        self.bar(inode, guid)
        # also where nobody has it open: its pages may still be there
        await self._forget_pages(inode)

    def bar(self, inode: int, guid: Guid | None) -> None:
        """Mark a file as one that nobody may read on."""
        self._resident.discard(inode)
        file = self._files.pop(inode, None)
        if file is not None:
            file.revoke()
        self._kept.drop(inode)
        if guid is not None:
            self._keys.forget(guid)
            self._cache.discard(guid)
            self._headers.forget(guid)

    def forget_shares(self) -> None:
        """Drop the shares that are held for what may be opened next, and what they have opened."""
        self._keys.forget_all()
        self._kept.clear()

    def forget(self, inode: int) -> None:
        """Know that the kernel has dropped an inode and its pages."""
        self._kept.drop(inode)
        self._resident.discard(inode)
        self._paged.discard(inode)

    def suspend(self) -> None:
        """Let all keys go, and no page come, until ``resume``; ciphertext stays, and what is fetched goes on."""
        self._keys.forget_all()
        self._resident.clear()
        for file in self._files.values():
            file.suspend()
        self._kept.clear()

    def resume(self) -> None:
        """Collect keys again for what is open: the keystores decide anew."""
        for file in list(self._files.values()):
            if file.is_suspended:
                file.resume()
                if file.is_wanted and file.sealed is not None:
                    self._nursery.start_soon(self._guard, file, self._unlock_again, file, *file.sealed)

    async def forget_pages(self, reads: Mapping[int, Collection[range]]) -> None:
        """Take back the pages of every file that was opened, around the reads of each that wait.

        What is taken back in one step waits for a read of any of it, so it is done piece by piece between those reads.
        """
        self._resident.clear()
        async with trio.open_nursery() as nursery:
            for inode in list(self._paged):
                for piece in pieces_between(reads.get(inode, ())):
                    nursery.start_soon(self._forget_pages, inode, piece)

    async def _forget_pages(self, inode: int, piece: tuple[int, int | None] | tuple[()] = ()) -> None:
        await trio.to_thread.run_sync(self._pages.invalidate, inode, *piece, limiter=_forgetting)

    async def _unlock_again(self, file: OpenFile, ciphertext: Ciphertext, seal: Seal) -> None:
        """Unlock what was open when the lease lapsed; keystores may come back later than the hospital."""
        give_up_at = trio.current_time() + PATIENCE_WITH_KEYSTORES
        while not file.is_suspended:
            try:
                await self._unlock(file, ciphertext, seal)
            except IntegrityError as error:  # the key was rotated meanwhile
                await self._mend(file, None, error)
                return
            except (TooFewSharesError, *OUTAGES):
                if trio.current_time() >= give_up_at:
                    raise
                await trio.sleep(1)
            else:
                return

    async def _bring(self, file: OpenFile, siblings: Sequence[Guid]) -> None:
        """Bring one file to its readers: from the cache, or else its header, or else all of it."""
        if file.guid not in self._cache and not await _is_arriving(file) and await self._bring_header(file, siblings):
            return
        await self._bring_body(file, siblings, self._push_first)
        self._note(file, "pushed to the kernel")
        file.ready.set()

    async def _bring_header(self, file: OpenFile, siblings: Sequence[Guid]) -> bool:
        """Bring what the hospital keeps of a file's header; False where the whole file has to be asked for.

        Whatever goes wrong here goes wrong there, too, and is told then.
        """
        self._nursery.start_soon(self._guard, file, self._prepare, file, siblings)
        try:
            header = await self._find_header(file, siblings)
            if header is None or file.arriving is not None:
                return False
            unsealer = await self._keys.unlock(headers.lock_of(file.guid, header), siblings)
            beginning = headers.unseal(unsealer, header, file.size)
        except PeerUnreachableError:
            raise  # there was no patience left, and the body is asked for at the same place
        except (MdmfsError, ValueError) as error:
            log.info("a header is not to be had by itself", guid=str(file.guid), reason=str(error))
            self._headers.forget(file.guid)
            return False
        await trio.to_thread.run_sync(file.begin_with, beginning, self._pages, limiter=_beginning)
        self._note(file, "header pushed to the kernel")
        file.ready.set()
        return True

    async def _find_header(self, file: OpenFile, siblings: Sequence[Guid]) -> SealedHeader | None:
        """Ask for a header until the hospital answers: that it is away is no reason to have a whole file recalled."""
        outage = Outage()
        while True:
            file.is_asked_for = self._headers.held(file.guid) is None
            try:
                return await self._headers.find(file.guid, siblings)
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
        found = self._cache.open(file.guid, file.size) if file.fetching is None else None
        if found is None:
            await self._bring_anew(file, siblings)
        else:
            file.adopt(found[0])
            try:
                await self._unlock(file, *found, siblings)
                await (file.check_end() if push is None else push(file))
            except IntegrityError as error:
                await self._mend(file, found[0], error)
            else:
                return
        if push is None:
            return
        begun_with = file.ciphertext
        try:
            await push(file)
        except IntegrityError as error:
            await self._mend(file, begun_with, error)
            await push(file)

    async def _bring_anew(self, file: OpenFile, siblings: Sequence[Guid] = ()) -> None:
        """Fetch; what arrives goes to disk while the shares are collected and the first readers read."""
        self._nursery.start_soon(self._guard, file, self._prepare, file, siblings)
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
            self._hospital,
            self._cache,
            file,
            begin,
            patience=self._patience,
            patience_once_begun=max(self._patience, self._deadline),
        )
        file.fetching, file.arriving = trio.Event(), None
        self._nursery.start_soon(self._run, file, fetching, file.fetching)
        return file.fetching

    async def _run(self, file: OpenFile, fetching: Fetching, ended: trio.Event) -> None:
        try:
            await self._guard(file, fetching.run)
        finally:
            ended.set()

    async def _prepare(self, file: OpenFile, siblings: Sequence[Guid]) -> None:
        with contextlib.suppress(MdmfsError):  # whoever unlocks the file is told
            await self._keys.prepare(file.guid, siblings=siblings)

    def _begin(self, file: OpenFile, ciphertext: Ciphertext, seal: Seal) -> None:
        """Unlock an object as soon as its header is here, if somebody has opened it."""
        self._note(file, "decided, recalled and begun to arrive")
        file.arriving = ciphertext, seal
        file.begun.set()
        if file.is_wanted:
            self._nursery.start_soon(self._guard, file, self._unlock, file, ciphertext, seal, ())

    async def _unlock(self, file: OpenFile, ciphertext: Ciphertext, seal: Seal, siblings: Sequence[Guid] = ()) -> None:
        """Open the object with its key, before anybody sees one of its bytes; one that was superseded is let be."""
        file.sealed = ciphertext, seal
        try:
            await ciphertext.wait_for(HEADER_SIZE)
        except SupersededError:
            return
        lock = lock_of(file, ciphertext, seal)
        file.take(ciphertext, await self._keys.unlock(lock, siblings))
        self._note(file, "key made of shares")

    async def _mend(self, file: OpenFile, damaged: Ciphertext | None, error: IntegrityError) -> None:
        """Replace an object that is not what was sealed by a fresh one, once for all who noticed.

        None where it was: its key has been rotated. One that the hospital has just sent is not asked for again.
        """
        async with file.repairing:
            if file.ciphertext is not damaged and file.ciphertext is not None:
                return
            self._cache.discard(file.guid)
            if damaged is not None and not damaged.is_from_cache and not self._hospital.doubt(file.guid):
                self._fail(file, error)
                raise error
            log.warning("what is in the cache is not sound and is fetched anew", guid=str(file.guid), reason=str(error))
            file.set_aside()
            file.fetching = None
            await self._bring_anew(file)

    def _fail(self, file: OpenFile, error: MdmfsError) -> None:
        """Tell all readers, and let the next open begin anew.

        Its pages go in the background: that waits for reads that are pending, and one of them may have called this.
        """
        file.fail(error)
        if self._files.get(file.inode) is file:
            del self._files[file.inode]
        self._resident.discard(file.inode)
        if file.is_spoiled:
            self._cache.discard(file.guid)
        if file.has_pushed:
            self._nursery.start_soon(self._forget_pages, file.inode)

    async def _push_first(self, file: OpenFile) -> None:
        """Push a small file whole, and prove the end of a larger one; a kernel that has all pages gets none again."""
        if file.size <= WHOLE and file.inode not in self._resident:
            await file.push(self._pages)
            self._resident.add(file.inode)
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
                self._fail(file, error)
            except Exception:
                incident = secrets.token_hex(4)
                log.exception("background work failed unexpectedly", guid=str(file.guid), incident=incident)
                self._fail(file, MdmfsError(f"{file.guid} cannot be read, see incident {incident} in the log"))


async def _is_arriving(file: OpenFile) -> bool:
    """Ask whether the body comes, of what is fetched ahead; where it does not come soon, its header may."""
    if file.fetching is not None:
        with trio.move_on_after(SOON):
            await file.begun.wait()
    return file.arriving is not None


def _guids(nodes: Sequence[Node]) -> list[Guid]:
    return [Guid(node.guid) for node in nodes if node.kind is NodeKind.FILE]


def pieces_between(reads: Collection[range]) -> Iterator[tuple[int, int | None]]:
    """Give the ranges of a file, at the edges of pages, that no read touches; the last one has no end."""
    begin = 0
    for read in sorted(reads, key=lambda read: read.start):
        end = read.start // PAGE * PAGE
        if end > begin:
            yield begin, end
        begin = max(begin, -(-read.stop // PAGE) * PAGE)
    yield begin, None
