"""Free callers who are to end while they wait: FUSE tells nobody, so their state is looked at ten times a second."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from mdmfs.model.errors import InterruptedCallError

POLL_SECONDS: Final = 0.1
_SIGKILL: Final = 1 << signal.SIGKILL - 1
_ENDING: Final = sum(1 << number - 1 for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT))
_PENDING: Final = (b"SigPnd:\t", b"ShdPnd:\t")
_CAUGHT: Final = b"SigCgt:\t"
_BLOCKED: Final = b"SigBlk:\t"
_DIGITS: Final = 16
_STATUS_SIZE: Final = 8192


class SignalWatch:
    """Knows who waits; ``run`` looks at them."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._waiting: dict[trio.CancelScope, int] = {}
        self._arrival = trio.Event()

    @contextlib.contextmanager
    def interruptible(self, pid: int) -> Iterator[None]:
        """Raise ``InterruptedCallError`` out of this block once its caller has been killed, or told to end.

        Any fatal signal becomes a pending SIGKILL (complete_signal, Linux kernel/signal.c); an ignored one does not.
        One of those that tell a program to end, and that it handles itself (Python that of Ctrl-C, rsync all of them),
        waits for the call to return. Others that it handles are none of ours: few programs expect EINTR for a
        timer, or for the SIGHUP that has a daemon read its configuration.
        """
        with trio.CancelScope() as scope:
            self._waiting[scope] = pid
            self._arrival.set()
            try:
                yield
            finally:
                del self._waiting[scope]
        if scope.cancelled_caught:
            message = "the caller was killed, or told to end, while it waited"
            raise InterruptedCallError(message)

    async def run(self) -> None:
        """Look at all who wait, for ever; while nobody does, do nothing."""
        while True:
            if not self._waiting:
                self._arrival = trio.Event()
                await self._arrival.wait()
            await trio.sleep(POLL_SECONDS)
            for scope, pid in list(self._waiting.items()):
                if self._is_to_end(pid):
                    scope.cancel()

    def _is_to_end(self, pid: int) -> bool:
        # hundreds may wait, and this is done for each of them ten times a second: no file object, no pattern
        try:
            descriptor = os.open(f"{self._proc}/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # gone altogether, or in another PID namespace: then its deadline ends the wait
            return False
        try:
            status = os.read(descriptor, _STATUS_SIZE)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        pending = _signals(status, _PENDING[0]) | _signals(status, _PENDING[1])
        if pending & _SIGKILL:
            return True
        return bool(pending & _ENDING and pending & _ENDING & _signals(status, _CAUGHT) & ~_signals(status, _BLOCKED))


def _signals(status: bytes, name: bytes) -> int:
    """Read a set of signals, which proc(5) writes as 16 hexadecimal digits; empty where it does not."""
    begin = status.find(name) + len(name)
    try:
        return int(status[begin : begin + _DIGITS], 16) if begin >= len(name) else 0
    except ValueError:
        return 0
