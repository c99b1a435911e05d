"""Headers on the worker: prefix objects by GUID, asked for in bursts, kept in memory as ciphertext, bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import trio

from mdmfs.model.names import Guid
from mdmfs.sealing.header import ObjectContext, Role
from mdmfs.sealing.layout import HEADER_SIZE, PAGE_SIZE, plain_size
from mdmfs.sealing.unseal import Unsealer
from mdmfs.wire.messages.files import MAX_HEADERS, SealedHeader
from mdmfs.worker.hospital import Hospital
from mdmfs.worker.keys.ring import Lock

MAX_BYTES: Final = 128 * 2**20
"""Some 6,000 headers of CT slices: who goes through a series again in the same order finds none of them, should it not
fit, since each was dropped for one of those behind it."""
ABSENT_SECONDS: Final = 60.0
"""For how long nobody asks again for what the hospital did not have."""


class Headers:
    """What the hospital gave; one question at a time, for all who wait."""

    def __init__(self, hospital: Hospital, *, limit: int = MAX_BYTES) -> None:
        """``limit`` is in bytes of ciphertext."""
        self._hospital = hospital
        self._limit = limit
        self._kept: OrderedDict[Guid, SealedHeader] = OrderedDict()
        self._octets = 0
        self._absent: dict[Guid, float] = {}
        self._turn = trio.Lock()

    async def find(self, guid: Guid, siblings: Sequence[Guid]) -> SealedHeader | None:
        """Give a file's prefix object, and have those of files that may be opened next; None where there is none.

        Raises what the hospital's answer raises.
        """
        async with self._turn:
            if self.lacks(guid):
                others = (other for other in siblings if self.lacks(other))
                await self._ask(list(dict.fromkeys([guid, *others]))[:MAX_HEADERS])
        found = self._kept.get(guid)
        if found is not None:
            self._kept.move_to_end(guid)
        return found

    def lacks(self, guid: Guid) -> bool:
        """Ask whether a file's prefix object is not here and may be had."""
        return guid not in self._kept and not self._is_absent(guid)

    async def find_ahead(self, guids: Sequence[Guid]) -> None:
        """Have those of files that may be opened next, unless somebody asks for others just now."""
        wanted = [guid for guid in guids if self.lacks(guid)]
        if wanted and not self._turn.locked():
            async with self._turn:
                await self._ask(wanted[:MAX_HEADERS])

    def held(self, guid: Guid) -> SealedHeader | None:
        """Give a file's prefix object that is here, and ask nobody."""
        return self._kept.get(guid)

    def forget(self, guid: Guid) -> None:
        """Drop what is kept of a file."""
        self._absent.pop(guid, None)
        found = self._kept.pop(guid, None)
        self._octets -= 0 if found is None else len(found.sealed)

    async def _ask(self, guids: list[Guid]) -> None:
        now = trio.current_time()
        for guid, found in zip(guids, await self._hospital.headers(guids), strict=True):
            self.forget(guid)
            if len(found.sealed) > HEADER_SIZE:
                self._kept[guid] = found
                self._octets += len(found.sealed)
            else:
                self._absent[guid] = now + ABSENT_SECONDS
        while self._octets > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._octets -= len(dropped.sealed)
        if len(self._absent) > self._limit // HEADER_SIZE:
            self._absent.clear()

    def _is_absent(self, guid: Guid) -> bool:
        return trio.current_time() < self._absent.get(guid, float("-inf"))


class Beginning:
    """The plaintext of a prefix object: a file's header with what is read along with it, and its last page."""

    def __init__(self, octets: memoryview, size: int) -> None:
        """Divide it as ``layout.prefix_pieces`` joined it, for a file of ``size`` bytes."""
        last = 0 if len(octets) == size else size - (size - 1) // PAGE_SIZE * PAGE_SIZE
        self.front = octets[: len(octets) - last]
        self.last = octets[len(octets) - last :]
        self._size = size

    def read(self, offset: int, length: int) -> bytes | None:
        """Read as from the file; None where the range is not all here."""
        end = min(offset + length, self._size)
        if end <= offset:
            return b""
        if end <= len(self.front):
            return bytes(self.front[offset:end])
        begin = self._size - len(self.last)
        return bytes(self.last[offset - begin : end - begin]) if offset >= begin else None


def lock_of(guid: Guid, header: SealedHeader) -> Lock:
    """Say what a key of this object must fit; raises ``ValueError`` for a length that no object has."""
    context = ObjectContext(Role.PREFIX, guid, header.generation, plain_size(len(header.sealed)))
    return Lock(context, header.sealed[:HEADER_SIZE], header.threshold)


def unseal(unsealer: Unsealer, header: SealedHeader, size: int) -> Beginning:
    """Unseal a prefix object of a file of ``size`` bytes; raises ``IntegrityError``."""
    return Beginning(unsealer.unseal(memoryview(header.sealed)[HEADER_SIZE:], 0), size)
