"""Free callers that were killed while they wait: FUSE tells nobody, so their state is looked at ten times a second."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from mdmfs.model.errors import InterruptedCallError

POLL_SECONDS: Final = 0.1
_SIGKILL: Final = 0x100
_PENDING: Final = re.compile(r"^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$", re.MULTILINE)


class SignalWatch:
    """Knows who waits; ``run`` looks at them."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._waiting: dict[trio.CancelScope, int] = {}

    @contextlib.contextmanager
    def interruptible(self, pid: int) -> Iterator[None]:
        """Raise ``InterruptedCallError`` out of this block once its caller has been killed.

        Any fatal signal becomes a pending SIGKILL (complete_signal, Linux kernel/signal.c); an ignored one does not.
        """
        with trio.CancelScope() as scope:
            self._waiting[scope] = pid
            try:
                yield
            finally:
                del self._waiting[scope]
        if scope.cancelled_caught:
            message = "the caller was killed while it waited"
            raise InterruptedCallError(message)

    async def run(self) -> None:
        """Look at all who wait, for ever."""
        while True:
            await trio.sleep(POLL_SECONDS)
            for scope, pid in list(self._waiting.items()):
                if self._is_killed(pid):
                    scope.cancel()

    def _is_killed(self, pid: int) -> bool:
        try:
            status = (self._proc / str(pid) / "status").read_text()
        except OSError:
            # gone altogether, or in another PID namespace: then its deadline ends the wait
            return False
        return any(int(bits, 16) & _SIGKILL for bits in _PENDING.findall(status))
