"""Fetch several files that nobody has opened yet in one answer; who opens one of them meanwhile joins.

What does not come this way, although somebody waits for it by now, is fetched alone: that answer tells why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from mdmfs.model.errors import InstanceChangedError, MdmfsError, OutOfSpaceError, PeerUnreachableError
from mdmfs.sealing.layout import sealed_size
from mdmfs.wire.bundle import Event, Piece
from mdmfs.wire.messages.files import SealedBeginning
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.cache.kept import Seal
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.hospital.port import Hospital
from mdmfs.worker.reading.fetching import write_through
from mdmfs.worker.reading.open_file import OpenFile


class FetchingTogether:
    """The transfer of some files: each ends as a complete object in the cache, or is handed back."""

    def __init__(
        self,
        hospital: Hospital,
        cache: CiphertextCache,
        files: Sequence[OpenFile],
        on_begin: Callable[[OpenFile, Ciphertext, Seal], None],
        on_end: Callable[[OpenFile, MdmfsError | None], None],
    ) -> None:
        """``on_begin`` hears of each object that begins to arrive, ``on_end`` of each file once, and why it failed."""
        self._hospital = hospital
        self._cache = cache
        self._files = files
        self._on_begin = on_begin
        self._on_end = on_end
        self._left = dict(enumerate(files))
        """What has not ended, by its place in the question."""
        self._arriving: dict[int, tuple[Ciphertext, Seal]] = {}
        self._scope = trio.CancelScope()
        self.failure: MdmfsError | None = None
        """Why the first of those that failed did not come."""

    async def run(self) -> None:
        """Transfer until all have ended, or nobody waits for the rest; raises nothing that one file alone meets."""
        reason: MdmfsError = PeerUnreachableError("the transfer of several files was interrupted")
        try:
            with self._scope:
                await self._transfer()
        except MdmfsError as error:
            reason = error
        finally:
            for place in list(self._left):
                self._end(place, reason)

    def stop_unless_wanted(self) -> None:
        """Stop at once, unless somebody waits for one of them."""
        if not any(file.readers for file in self._left.values()):
            self._scope.cancel()

    def give_up(self) -> bool:
        """End what nobody has opened: its room is needed for what somebody waits for. Tells whether there was any."""
        places = [place for place in self._arriving if not self._left[place].is_wanted]
        for place in places:
            self._end(place, OutOfSpaceError("there is no room for what nobody has opened yet"))
        return bool(places)

    async def _transfer(self) -> None:
        await self._hospital.fetch_all([file.guid for file in self._files], self._hear)

    async def _hear(self, place: int, event: Event) -> None:
        if place in self._left:
            await self._hear_of_left(place, event)
            self.stop_unless_wanted()

    async def _hear_of_left(self, place: int, event: Event) -> None:
        file = self._left[place]
        if not file.readers:
            self._end(place, PeerUnreachableError(f"nobody waits for {file.guid} any more"))
            return
        try:
            match event:
                case Piece():
                    await self._take(place, event.octets)
                case SealedBeginning():
                    await self._begin(place, event)
                case MdmfsError():
                    self._end(place, event)
        except MdmfsError as error:
            if place in self._left:
                self._end(place, error)

    async def _begin(self, place: int, sealed: SealedBeginning) -> None:
        file = self._left[place]
        if sealed.size != sealed_size(file.size):
            message = f"{file.guid} is not of the size that its directory says; list the directory again"
            raise InstanceChangedError(message)
        ciphertext = await self._cache.receive(file.guid, sealed.size)
        seal = Seal(sealed.generation, sealed.threshold, sealed.salt)
        self._arriving[place] = ciphertext, seal
        file.adopt(ciphertext)
        self._on_begin(file, ciphertext, seal)

    async def _take(self, place: int, octets: memoryview) -> None:
        file, (ciphertext, seal) = self._left[place], self._arriving[place]
        with file.in_use():  # so that it stays open until it is kept, should its last reader leave meanwhile
            await write_through(ciphertext, octets, self._cache)
            if not ciphertext.is_complete or place not in self._left:
                return
            if file.is_spoiled:
                file.refuse_failed()
            self._cache.keep(ciphertext, seal)
        del self._arriving[place]
        self._end(place, None)

    def _end(self, place: int, error: MdmfsError | None) -> None:
        file = self._left.pop(place)
        arriving = self._arriving.pop(place, None)
        if arriving is not None:
            self._cache.abandon(arriving[0])
        if error is not None:
            self.failure = self.failure or error
        self._on_end(file, error)
