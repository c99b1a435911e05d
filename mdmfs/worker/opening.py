"""Open a file, in one page: what is at hand is opened here and now, all else is brought; then it is read and closed."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

import structlog
import trio
from prometheus_client import Gauge

from mdmfs.model.errors import (
    IntegrityError,
    MdmfsError,
    PeerTimedOutError,
    RecallTimedOutError,
    TooFewSharesError,
)
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.reading.at_hand import AtHand
from mdmfs.worker.reading.bringing import AT_ONCE, Bringer
from mdmfs.worker.reading.open_file import OpenFile
from mdmfs.worker.reading.opens import ASKED, Opens
from mdmfs.worker.reading.parts import Parts
from mdmfs.worker.reading.slow_disk import LARGEST

WAITING: Final = Gauge("mdmfs_waiting_calls", "Calls of programs that wait for bytes or a key.", ["call"])
GIVE_WAY: Final = 0.002
"""Seconds in which who opens here and there asks for the bytes that he wants, before anything is asked for ahead."""
AHEAD: Final = 16
"""So many files before the last one of a burst whose shares are held, the next ones are asked for."""

log = structlog.get_logger(__name__)


class Opener:
    """Opens files and reads them, for one caller's credential."""

    def __init__(
        self,
        parts: Parts,
        *,
        deadline: float,
        patience: float = 0.0,
        may_push: Callable[[int], bool] = lambda _: True,
    ) -> None:
        """``deadline``: seconds that an open waits for its first bytes.

        ``patience``: seconds for which a hospital that is away is asked again; the deadline does not run meanwhile.
        ``may_push``: whether pages of an inode may be put to the kernel before anybody opens it.
        """
        self._parts = parts
        self._deadline = deadline
        self._at_hand = AtHand(self._parts, may_push=may_push)
        self._bringer = Bringer(self._parts, deadline=deadline, patience=patience)
        self.opens = Opens()
        """Those that the hospital did not see."""

    def make_room(self) -> bool:
        """Let go what takes room on the disk and nobody has open: what is kept whole has descriptors, too.

        Tells whether there was anything.
        """
        were_kept = self._parts.kept.clear_whole()
        return self._bringer.give_up_ahead() or were_kept

    async def open(
        self,
        node: Node,
        siblings: Sequence[Node] = (),
        *,
        on_body: Callable[[], None] | None = None,
        is_in_order: bool = False,
    ) -> OpenFile:
        """Open a file: the hospital decides when it is asked for ciphertext, the keystores when for shares.

        ``siblings`` are files that may be opened next. ``on_body`` hears when more is asked for than the header, which
        may be now or at a read. ``is_in_order``: see ``open_at_once``. Each call is ended with ``close``.
        """
        file = self.open_at_once(node, siblings, on_body=on_body, is_in_order=is_in_order)
        if file is None and self._at_hand.lies_on_disk(node):
            await self._parts.disk.wait_for(Guid(node.guid), node.size, 0, node.size)
            file = self.open_at_once(node, siblings, on_body=on_body, is_in_order=is_in_order)
        if file is not None:
            return file
        self._parts.stories.begin(node.inode, trio.current_time())
        file = self._open(node, siblings, on_body)
        self._count_in(file)
        try:
            await self._wait(file)
        except BaseException:
            self._parts.files.leave(file)
            raise
        self._parts.handles[file.inode] += 1
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
        soon = self._expect(siblings, is_in_order=is_in_order)
        self._parts.pages.note_some(node.inode)
        self._parts.kept.drop_outlived(node.inode)
        file = self._parts.files.get(node.inode)
        if file is None and node.inode not in self._parts.handles:
            file = self._at_hand.open(node)
        else:
            self._at_hand.show(node)
        if file is None or not file.ready.is_set() or file.is_broken or file.guid.octets != node.guid:
            return None
        self._enter(file)
        self._look_ahead(file, siblings, soon, on_body)
        return file

    def _expect(self, siblings: Sequence[Node], *, is_in_order: bool) -> Node | None:
        """Get shares of what is probably opened next, and have it read from a slow disk.

        Gives the last of what comes soon, for who goes through files in order.
        """
        soon = _last_file(siblings[:AHEAD])
        keys = self._parts.keys
        if soon is not None and not keys.holds(Guid(soon.guid)) and not (is_in_order and keys.is_asking):
            after = 0.0 if is_in_order else GIVE_WAY
            self._parts.nursery.start_soon(self._ask_ahead, keys.collect_ahead, _guids(siblings), after)
        self._parts.disk.note_open(siblings)
        return soon if is_in_order else None

    def _look_ahead(
        self, file: OpenFile, siblings: Sequence[Node], soon: Node | None, on_body: Callable[[], None] | None
    ) -> None:
        """Get ready for who goes through files in order: push the next one, and ask for headers that come soon."""
        file.on_body, is_header_only = file.on_body or on_body, file.is_header_only
        if not is_header_only:
            file.note_body()
        if soon is None:
            return
        self._at_hand.open_ahead(siblings[0], is_header_only=is_header_only)
        headers = self._parts.headers
        guid = Guid(soon.guid)
        is_lacking = is_header_only and not self._has_unsealed_header(soon) and headers.lacks(guid)
        if is_lacking and not headers.is_asking and guid not in self._parts.cache:
            self._parts.nursery.start_soon(self._ask_ahead, headers.find_ahead, self._sealed(siblings))

    def _sealed(self, nodes: Sequence[Node]) -> list[Guid]:
        """Name those files whose headers may be needed."""
        return _guids([node for node in nodes if not self._has_unsealed_header(node)])

    def _has_unsealed_header(self, node: Node) -> bool:
        file = self._parts.files.get(node.inode)
        return file is not None and file.beginning is not None

    def open_again(self, node: Node) -> OpenFile | None:
        """Open a file that is open already, was a moment ago or was opened ahead, and at hand; else give None.

        That is all that its reader waits for; ``follow`` is to be called afterwards.
        """
        self._parts.kept.drop_outlived(node.inode)
        file = self._parts.files.get(node.inode)
        if file is None or file.guid.octets != node.guid or not file.ready.is_set():
            return None
        if not file.is_at_rest and not (file.is_shown and file.rests_on_header):
            return None
        if file not in self._parts.kept and not self._parts.keys.holds(file.guid):
            return None  # its close may be left to do: then nobody has it open, and it goes with its shares
        self._enter(file)
        return file

    def follow(
        self, file: OpenFile, siblings: Sequence[Node], *, on_body: Callable[[], None] | None, is_in_order: bool
    ) -> None:
        """Get ready for what comes after a file that was opened by ``open_again``, see ``open``."""
        self._look_ahead(file, siblings, self._expect(siblings, is_in_order=is_in_order), on_body)

    def _open(self, node: Node, siblings: Sequence[Node], on_body: Callable[[], None] | None) -> OpenFile:
        """Have a file brought, by whatever it takes; ``ready`` tells when it is there."""
        file = self._parts.files.get(node.inode)
        if file is None or file.is_broken or file.guid.octets != node.guid:
            self._parts.kept.drop(node.inode)
            file = self._parts.files[node.inode] = OpenFile(node)
        file.on_body = file.on_body or on_body
        if not file.is_wanted:
            file.is_wanted = True
            self._bringer.bring(file, self._sealed(siblings))
        return file

    async def _ask_ahead(
        self, ask: Callable[[Sequence[Guid]], Awaitable[None]], following: Sequence[Guid], after: float = 0.0
    ) -> None:
        """Ask for what is needed of files that may be opened next, whether this file stays open or not."""
        if after:
            await trio.sleep(after)
        try:
            await ask(following)
        except MdmfsError as error:  # who opens them is told
            log.debug("nothing comes ahead", code=error.code)
        except Exception:
            log.exception("asking ahead failed unexpectedly")

    def story(self, node: Node) -> str:
        """Tell where the bytes of a file are, as the mount knows it, and how its last open went that had to wait."""
        places = []
        if self._parts.pages.has_whole(node.inode):
            places.append("page cache")
        if Guid(node.guid) in self._parts.cache:
            places.append("cache of the mount, sealed")
        elif self.has(node):
            places.append("on its way to the cache")
        elif self._parts.headers.held(Guid(node.guid)):
            places.append("its header in memory, sealed")
        where = ", ".join(places) or "not on this node"
        steps = self._parts.stories.told(node.inode) or "all was at hand, or there was none"
        return f"bytes     {where}\nlast open {steps}"

    def has(self, node: Node) -> bool:
        """Ask whether the ciphertext of a file is here, or on its way."""
        return Guid(node.guid) in self._parts.cache or self._bringer.is_on_its_way(node.inode)

    async def prefetch(self, nodes: Sequence[Node]) -> None:
        """Fetch the ciphertext of files that nobody has opened, see ``Bringer.prefetch``."""
        await self._bringer.prefetch(nodes)

    async def _wait(self, file: OpenFile) -> None:
        with WAITING.labels("open").track_inprogress():
            is_there = await self._is_in_time(file, file.ready.wait)
        if not is_there:
            raise self._too_late(file)
        file.refuse_failed()

    def _too_late(self, file: OpenFile) -> MdmfsError:
        if file.lacks_key:
            message = f"the keystores did not answer for the key of {file.guid} within {self._deadline:g} s"
            return PeerTimedOutError(message, what_to_do=TooFewSharesError.what_to_do)
        message = f"{file.guid} did not arrive within {self._deadline:g} s; the recall goes on, open it again"
        return RecallTimedOutError(message)

    async def _is_in_time(self, file: OpenFile, wait: Callable[[], Awaitable[None]]) -> bool:
        """Wait for something of a file; False at the deadline, which begins anew when the hospital was away."""
        begun = trio.current_time()
        while trio.current_time() < (until := max(begun, file.hindered_at) + self._deadline):
            with trio.move_on_at(until):
                await wait()
                return True
        return False

    def _enter(self, file: OpenFile) -> None:
        self._count_in(file)
        self.opens.note(file.guid)
        self._parts.handles[file.inode] += 1

    def _count_in(self, file: OpenFile) -> None:
        if not self._parts.kept.take(file):
            file.readers += 1

    def close(self, file: OpenFile) -> None:
        """End one open; with the last one everything ends that worked for the file, or it is kept for a moment."""
        self._parts.handles[file.inode] -= 1
        if not self._parts.handles[file.inode]:
            del self._parts.handles[file.inode]
        is_small = (file.is_at_rest and file.size <= AT_ONCE) or file.rests_on_header
        if file.readers == 1 and is_small and self._parts.files.get(file.inode) is file:
            self._keep(file)
        else:
            self._parts.files.leave(file)

    def _keep(self, file: OpenFile) -> None:
        """Keep a file at hand after its last close: no longer than its shares, of which none may be here any more."""
        if not self._parts.keys.holds(file.guid):
            self._parts.files.leave(file)
            return
        file.note_kept()
        self._parts.kept.keep(file, self._parts.keys.held_until(file.guid))
        if file in self._parts.kept:
            self._parts.headers.spare(file.guid)

    def expire(self) -> None:
        """Let go what was kept at hand, or read ahead, long enough."""
        self._parts.kept.expire()
        self._parts.disk.expire()

    def let_go(self) -> None:
        """Let go all that takes of the mount's memory, and the shares: nobody is served here any more."""
        self._parts.keys.forget_all()
        self._parts.kept.clear()
        self._parts.disk.let_go()
        self._parts.headers.forget_all()

    def read_at_once(self, file: OpenFile, offset: int, length: int) -> memoryview | None:
        """Read as ``read``, where neither bytes nor disk have to be waited for; else None.

        The view is good until the next step of the loop.
        """
        self._parts.pages.note_asked(file.inode)
        octets = None if file.beginning is None else file.beginning.read(offset, length)
        if octets is not None:
            return memoryview(octets)
        if file.size > LARGEST and file.ciphertext is not None:
            self._parts.disk.note_read(file.ciphertext, offset, length)
        with contextlib.suppress(IntegrityError):  # `read` meets it again, and mends it
            return file.read_at_once(offset, length)
        return None

    async def read(self, file: OpenFile, offset: int, length: int) -> bytes:
        """Give plaintext, short at the end of the file only; a damaged cache is mended by one fresh fetch."""
        self._parts.pages.note_asked(file.inode)
        octets = None if file.beginning is None else file.beginning.read(offset, length)
        if octets is not None:
            return octets
        if file.is_header_only and not file.is_demanded:
            self._bringer.bring_body(file)
        file.is_demanded = True
        await self._wait_for_body(file)
        begun_with, is_on_disk = file.ciphertext, file.is_at_rest
        if is_on_disk and begun_with is not None:
            self._parts.disk.note_slow()
            if file.size > LARGEST:
                self._parts.disk.note_missed(begun_with, file.size, offset, length)
            await self._parts.disk.wait_for(file.guid, file.size, offset, length, begun_with)
        try:
            return await file.read(offset, length, may_hold_up=is_on_disk or file.size <= AT_ONCE)
        except IntegrityError as error:
            await self._bringer.mend(file, begun_with, error)
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
            self._bringer.fail(file, self._too_late(file))
            file.refuse_failed()

    async def revoke(self, inode: int, guid: Guid | None) -> None:
        """Stop everyone who reads a file; who opens it next asks the hospital."""
        self.bar(inode, guid)
        # also where nobody has it open: its pages may still be there
        await self._parts.pages.take_back(inode)

    def bar(self, inode: int, guid: Guid | None) -> None:
        """Mark a file as one that nobody may read on."""
        self._parts.pages.note_asked(inode)
        file = self._parts.files.pop(inode, None)
        if file is not None:
            file.revoke()
        self._parts.kept.drop(inode)
        if guid is not None:
            self._parts.keys.forget(guid)
            self._parts.cache.discard(guid)
            self._parts.headers.forget(guid)

    def forget_shares(self) -> None:
        """Drop the shares that are held for what may be opened next, and what they have opened."""
        self._parts.keys.forget_all()
        self._parts.kept.clear()

    def forget(self, inode: int) -> None:
        """Know that the kernel has dropped an inode and its pages."""
        self._parts.kept.drop(inode)
        self._parts.pages.forget(inode)

    def suspend(self) -> None:
        """Let all keys go, and no page come, until ``resume``; ciphertext stays, and what is fetched goes on."""
        self._parts.keys.forget_all()
        self._parts.pages.forget_whole()
        for file in self._parts.files.values():
            file.suspend()
        self._parts.kept.clear()

    def resume(self) -> None:
        """Collect keys again for what is open: the keystores decide anew."""
        for file in list(self._parts.files.values()):
            if file.is_suspended:
                file.resume()
                self._bringer.unlock_again(file)

    async def forget_pages(self, reads: Mapping[int, Collection[range]]) -> None:
        """Take back the pages of every file that was opened, around the reads of each that wait."""
        await self._parts.pages.take_all_back(reads)


def _last_file(nodes: Sequence[Node]) -> Node | None:
    return next((node for node in reversed(nodes) if node.kind is NodeKind.FILE), None)


def _guids(nodes: Sequence[Node]) -> list[Guid]:
    return [Guid(node.guid) for node in nodes if node.kind is NodeKind.FILE]
