"""Bring files online from another daemon of the same hospital, which alone asks the PACS: one recall for all."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from mdmfs.hospital.bell import Bell
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.kept.staged import StagingWriter
from mdmfs.hospital.kept.staging import Staging
from mdmfs.hospital.release.queue import PendingRecall, Source
from mdmfs.model.errors import BusyError, MdmfsError, PeerUnreachableError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import HEADER_SIZE
from mdmfs.wire.bundle import Bundle
from mdmfs.wire.client import Client
from mdmfs.wire.messages.files import MAX_BUNDLE, STAGED_PATH, AskBundle, SealedBeginning

BUNDLES: Final = 4
"""Asked for at once; one of them is kept for those who wait."""


class FromAnother:
    """``Bringing``, by another daemon; ``run`` works on it. What comes is staged here, under the same sealing."""

    def __init__(self, staging: Staging, other: Callable[[], Client], deadline: float) -> None:
        """``other`` gives the client of the moment, or raises; ``deadline`` is in seconds, for callers."""
        self.deadline: Final = deadline
        self._staging = staging
        self._other = other
        self._under_way: dict[Guid, PendingRecall] = {}
        self._waiting: dict[PendingRecall, None] = {}
        self._arrival = Bell()
        self._asked: Counter[bool] = Counter()
        """Bundles under way, by whether they are looked ahead for."""

    def begin(self, source: Source, *, is_ahead: bool = False) -> PendingRecall:
        """See ``Bringing``; the other one judges whether a look-ahead is polite."""
        recall = self._under_way.get(source.file.guid)
        if recall is None:
            recall = self._under_way[source.file.guid] = PendingRecall(source, is_ahead=is_ahead)
            self._waiting[recall] = None
        recall.is_ahead = recall.is_ahead and is_ahead
        recall.askers += 1
        self._arrival.ring()
        return recall

    def leave(self, recall: PendingRecall) -> None:
        """See ``Bringing``; what is under way goes on, so that a second open succeeds."""
        recall.askers -= 1
        if not recall.askers and recall.is_ahead and self._waiting.pop(recall, 1) is None:
            self._forget(recall)

    async def run(self) -> None:
        """Ask for what is waited for, many files in one question, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                arrival = self._arrival.next()
                taken = self._take()
                if taken:
                    is_ahead = taken[0].is_ahead
                    self._asked[is_ahead] += 1
                    nursery.start_soon(self._bring, taken, is_ahead)
                else:
                    await arrival.wait()
                    await trio.lowlevel.checkpoint()  # the siblings of the first come right behind it

    def _take(self) -> list[PendingRecall]:
        """Take those that somebody waits for, before look-aheads; none where no more is to be asked."""
        waited = [one for one in self._waiting if not one.is_ahead]
        is_full = self._asked.total() >= BUNDLES or (not waited and self._asked[True] >= BUNDLES - 1)
        taken = [] if is_full else (waited or list(self._waiting))[:MAX_BUNDLE]
        for recall in taken:
            del self._waiting[recall]
        return taken

    async def _bring(self, recalls: list[PendingRecall], is_ahead: bool) -> None:  # noqa: FBT001 of a task
        left = dict(enumerate(recalls))
        reason: MdmfsError = PeerUnreachableError("the daemon that works ended its answer before its end")
        try:
            asked = AskBundle([one.guid.octets for one in recalls], ahead=is_ahead)
            deadline = trio.current_time() + self.deadline
            async with self._other().ask_bundle(asked, path=STAGED_PATH, deadline=deadline) as bundle:
                await self._stage(left, bundle, is_ahead=is_ahead)
        except MdmfsError as error:
            reason = error
        except Exception as error:  # noqa: BLE001 the daemon goes on
            reason = MdmfsError(note_incident("a recall by the daemon that works", error))
        finally:
            self._asked[is_ahead] -= 1
            for recall in left.values():
                self._fail(recall, reason, was_ahead=is_ahead)
            self._arrival.ring()

    async def _stage(self, left: dict[int, PendingRecall], bundle: Bundle, *, is_ahead: bool) -> None:
        """Take files out of ``left`` as they come whole or fail: who asks again then begins anew."""
        arriving: dict[int, _Arriving] = {}
        try:
            while (said := await bundle.next()) is not None:
                place, event = said
                try:
                    if isinstance(event, MdmfsError):
                        raise event
                    if isinstance(event, SealedBeginning):
                        arriving[place] = await _Arriving.begun(self._staging, left[place], event)
                    elif place in arriving and await arriving[place].take(event.octets):
                        del arriving[place]
                        self._forget(left.pop(place))
                except MdmfsError as error:  # of this file alone
                    if place in arriving:
                        await arriving.pop(place).drop(error)
                    if place in left:
                        self._fail(left.pop(place), error, was_ahead=is_ahead)
        finally:
            for one in arriving.values():
                await one.drop(PeerUnreachableError("a sealed object was cut off on its way from the other daemon"))

    def _fail(self, recall: PendingRecall, error: MdmfsError, *, was_ahead: bool) -> None:
        """End a recall; but who has opened meanwhile what might not be looked ahead for is asked for himself."""
        if was_ahead and not recall.is_ahead and not recall.has_begun and isinstance(error, BusyError):
            self._waiting[recall] = None
            self._arrival.ring()
            return
        recall.fail(error)
        self._forget(recall)

    def _forget(self, recall: PendingRecall) -> None:
        if self._under_way.get(recall.guid) is recall:
            del self._under_way[recall.guid]


class _Arriving:
    """One sealed object on its way into staging."""

    def __init__(self, recall: PendingRecall, writer: StagingWriter, stack: contextlib.AsyncExitStack) -> None:
        self._recall = recall
        self._writer = writer
        self._stack = stack
        self._head = b""
        self._left = writer.staged.size

    @classmethod
    async def begun(cls, staging: Staging, recall: PendingRecall, sealed: SealedBeginning) -> _Arriving:
        stack = contextlib.AsyncExitStack()
        writing = staging.writing(recall.guid, sealed.generation, sealed.size)
        return cls(recall, await stack.enter_async_context(writing), stack)

    async def take(self, octets: memoryview) -> bool:
        """Write a piece; tells whether it was the last. Nobody sees any of it before its header is whole."""
        self._left -= len(octets)
        piece, self._head = self._head + bytes(octets), b""
        if not self._writer.staged.has_begun and len(piece) <= HEADER_SIZE and self._left:
            self._head = piece
            return False
        await self._writer.write(lambda: piece)
        self._recall.begin()
        if not self._left:
            await self._stack.aclose()
        return not self._left

    async def drop(self, reason: MdmfsError) -> None:
        """Have it dropped: whoever reads it fails."""
        await self._stack.__aexit__(type(reason), reason, reason.__traceback__)
