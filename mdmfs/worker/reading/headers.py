"""Headers on the worker: prefix objects by GUID, asked for in bursts, kept in memory as ciphertext, bounded."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, NamedTuple

import trio

from mdmfs.model.names import Guid
from mdmfs.sealing.header import ObjectContext, Role
from mdmfs.sealing.layout import HEADER_SIZE, PAGE_SIZE, plain_size
from mdmfs.sealing.unseal import Unsealer
from mdmfs.wire.messages.files import MAX_HEADERS, SealedHeader
from mdmfs.worker.hospital.port import Hospital
from mdmfs.worker.keys.ring import Lock
from mdmfs.worker.memory import Held, Memory

ABSENT_SECONDS: Final = 60.0
"""For how long nobody asks again for what the hospital did not have."""


ITEM_BYTES: Final = 512
"""What keeping one takes beside its ciphertext."""
MAX_ABSENT: Final = 1_000_000


class _Kept(NamedTuple):
    header: SealedHeader
    held: Held


class Headers:
    """What the hospital gave; one question at a time, for all who wait.

    Who goes through a series again in the same order finds none of them, should they not all fit into memory: each was
    dropped for one of those behind it.
    """

    def __init__(self, hospital: Hospital, memory: Memory) -> None:
        self._hospital = hospital
        self._memory = memory
        self._kept: dict[Guid, _Kept] = {}
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
        return self.held(guid)

    def lacks(self, guid: Guid) -> bool:
        """Ask whether a file's prefix object is not here and may be had."""
        return guid not in self._kept and not self._is_absent(guid)

    @property
    def is_asking(self) -> bool:
        """Whether a question is under way, or waits."""
        return self._turn.locked()

    async def find_ahead(self, guids: Sequence[Guid]) -> None:
        """Have those of files that may be opened next, unless somebody asks for others just now."""
        wanted = [guid for guid in guids if self.lacks(guid)]
        if wanted and not self.is_asking:
            async with self._turn:
                await self._ask(wanted[:MAX_HEADERS])

    def held(self, guid: Guid) -> SealedHeader | None:
        """Give a file's prefix object that is here, and ask nobody."""
        found = self._kept.get(guid)
        if found is None:
            return None
        self._memory.touch(found.held)
        return found.header

    def spare(self, guid: Guid) -> None:
        """Know that a file's prefix object is kept unsealed: this one goes before all else, until it is used again."""
        found = self._kept.get(guid)
        if found is not None:
            self._memory.spare(found.held)

    def forget(self, guid: Guid) -> None:
        """Drop what is kept of a file."""
        self._absent.pop(guid, None)
        self._drop(guid)

    def forget_all(self) -> None:
        """Drop what is kept of all files."""
        for guid in list(self._kept):
            self._drop(guid)

    async def _ask(self, guids: list[Guid]) -> None:
        now = trio.current_time()
        answers = await self._hospital.headers(guids)
        for guid, found in reversed(list(zip(guids, answers, strict=True))):  # what was asked for first is dropped last
            self.forget(guid)
            if len(found.sealed) > HEADER_SIZE:
                octets = len(found.sealed) + ITEM_BYTES
                self._kept[guid] = _Kept(found, self._memory.hold(octets, functools.partial(self._drop, guid)))
            else:
                self._absent[guid] = now + ABSENT_SECONDS
        if len(self._absent) > MAX_ABSENT:
            self._absent.clear()

    def _drop(self, guid: Guid) -> None:
        kept = self._kept.pop(guid, None)
        if kept is not None:
            self._memory.release(kept.held)

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

    @property
    def octets(self) -> int:
        """How many it has."""
        return len(self.front) + len(self.last)

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
