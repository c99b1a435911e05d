"""The page cache of a kernel that keeps nothing."""

from __future__ import annotations

from collections.abc import Callable


class NoPages:
    """No page cache: every read comes to us."""

    def store(self, inode: int, offset: int, octets: memoryview) -> None:
        """Throw the bytes away."""

    def invalidate(self, inode: int, begin: int = 0, end: int | None = None) -> None:
        """Nothing is there."""

    def meanwhile(self, work: Callable[[], None], *, gives_way: bool = False) -> None:  # noqa: ARG002 nobody asks
        """See ``Pages``: nobody asks for anything."""
        work()


class BusyKernel(NoPages):
    """Requests wait all the time, until it rests."""

    def __init__(self) -> None:
        self._works: dict[Callable[[], None], None] = {}
        """What waits for a moment without requests."""

    def meanwhile(self, work: Callable[[], None], *, gives_way: bool = False) -> None:  # noqa: ARG002 nobody asks
        """See ``Pages``."""
        self._works[work] = None

    def rest(self) -> None:
        """Ask for nothing for a moment."""
        while self._works:
            work = next(iter(self._works))
            del self._works[work]
            work()

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """See ``Kernel``."""
