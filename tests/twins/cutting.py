"""A store whose power is cut at one of its writes: what a kill at any instant leaves, instant by instant."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mdmfs.hospital.store import Store, Transaction

T = TypeVar("T")


class PowerCutError(BaseException):
    """The machine is off: nothing after this runs."""


class CuttingStore:
    """A store whose power is cut at its n-th write, before or after it is on disk."""

    def __init__(self, store: Store, at: int, *, is_kept: bool) -> None:
        self._store = store
        self._left = at
        self._is_kept = is_kept
        self.writes = 0
        self.refuse_stale = store.refuse_stale

    @property
    def is_cut(self) -> bool:
        """Whether the power has gone."""
        return self._left <= 0

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Write, or not."""
        self._left -= 1
        self.writes += 1
        if not self.is_cut:
            return await self._store.write(act)
        if self._left == 0 and self._is_kept:
            await self._store.write(act)
        raise PowerCutError

    def read(self, act: Callable[[Transaction], T]) -> T:
        """Read."""
        return self._store.read(act)

    def version(self) -> int:
        """Give the number of the last commit."""
        return self._store.version()

    async def aclose(self) -> None:
        """Close."""
        await self._store.aclose()
