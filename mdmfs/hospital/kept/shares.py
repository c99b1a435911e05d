"""Shares: those of files that are recalled, and along with them those of siblings that come next.

What comes along is held for seconds and used once. No key is made of it before its file is sealed (docs/adr/0028).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, NamedTuple

import trio

from mdmfs.hospital.bell import Bell
from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.kept.escrow import verifier
from mdmfs.hospital.kept.strides import Strides
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey
from mdmfs.wire.keystores.answers import Answers
from mdmfs.wire.keystores.gathering import Gathering
from mdmfs.wire.keystores.keystores import Keystores

HOLD_SECONDS: Final = 5.0
MAX_HELD: Final = 1024
"""Files; the shares asked for longest ago make room."""


class _Held(NamedTuple):
    answers: Answers
    """What has come so far: it may be on its way."""
    until: float


class Shares:
    """What one hospital collects for its recalls; ``run`` drops what was held long enough."""

    def __init__(self, keystores: Keystores, strides: Strides, *, most: int = MAX_HELD) -> None:
        """Hold those of ``most`` files."""
        self._keystores = keystores
        self._most = most
        self._strides = strides
        self._held: dict[Guid, _Held] = {}
        """The oldest first."""
        self._news = Bell()

    @contextlib.asynccontextmanager
    async def collecting(
        self, files: Sequence[FileRecord], *, deadline: float, is_alone: bool
    ) -> AsyncIterator[Gathered]:
        """Ask keystores for the shares of files, unless they are held; in the block what comes is gathered.

        ``is_alone`` where somebody has opened the only one: then those that come next are asked for along with it.
        """
        held = {file.guid: answers for file in files if (answers := self._take(file)) is not None}
        guids = [file.guid for file in files if file.guid not in held]
        along = self._along(files[0], is_held=bool(held)) if is_alone else []
        try:
            if not guids:
                yield Gathered(self._keystores, held, None, deadline)
                return
            enough = max(file.threshold for file in files)
            collecting = self._keystores.collecting(guids, along=along, deadline=deadline, enough=enough)
            async with collecting as gathering:
                self._hold({guid: gathering.answers[guid] for guid in along})
                yield Gathered(self._keystores, held, gathering, deadline)
        finally:
            for answers in held.values():
                answers.forget()

    def drop(self, guid: Guid) -> None:
        """Hold nothing of a file that is gone or has another key, nor what is on its way."""
        held = self._held.pop(guid, None)
        if held is not None:
            held.answers.forget()

    def holds(self, guid: Guid) -> bool:
        """Ask whether shares of a file are held, or on their way."""
        return guid in self._held

    async def run(self) -> None:
        """Drop what was held long enough, for ever."""
        while True:
            news = self._news.next()
            if not self._held:
                await news.wait()
            else:
                await trio.sleep_until(next(iter(self._held.values())).until)
                self._expire()

    def _take(self, file: FileRecord) -> Answers | None:
        """Give what is held of a file, which is held no longer; None where it does not suffice."""
        held = self._held.get(file.guid)
        if held is None or trio.current_time() >= held.until or not held.answers.has(file.threshold):
            self.drop(file.guid)
            return None
        del self._held[file.guid]
        return held.answers

    def _along(self, file: FileRecord, *, is_held: bool) -> list[Guid]:
        return [guid for guid in self._strides.step(file, is_expected=is_held) if guid not in self._held]

    def _hold(self, answers: Mapping[Guid, Answers]) -> None:
        until = trio.current_time() + HOLD_SECONDS
        self._held.update({guid: _Held(found, until) for guid, found in answers.items()})
        while len(self._held) > self._most:
            self.drop(next(iter(self._held)))
        self._news.ring()

    def _expire(self) -> None:
        now = trio.current_time()
        while self._held and next(iter(self._held.values())).until <= now:
            self.drop(next(iter(self._held)))


class Gathered:
    """The shares of the files of one batch: those that were held, and those that come."""

    def __init__(
        self, keystores: Keystores, held: Mapping[Guid, Answers], gathering: Gathering | None, deadline: float
    ) -> None:
        self._keystores = keystores
        self._held = held
        self._gathering = gathering
        self._deadline = deadline

    async def key(self, file: FileRecord) -> FileKey:
        """Give the key of a file of the batch, proven by its check; the caller owns and closes it.

        Where what was held does not make it, all keystores are asked: one has lied, or the key is a new one. Raises as
        ``Gathering.key``.
        """
        verify = verifier(file.guid, file.generation, file.key_check)
        held = self._held.get(file.guid)
        if held is None and self._gathering is not None:
            return await self._gathering.key(file.guid, verify, threshold=file.threshold)
        key = None if held is None else held.find_key(verify)
        if key is not None:
            return key
        async with self._keystores.collecting([file.guid], deadline=self._deadline) as again:
            return await again.key(file.guid, verify, threshold=file.threshold)
