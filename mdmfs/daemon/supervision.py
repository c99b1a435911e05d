"""What a service manager is told: when a daemon serves, that it still lives, and when it ends (sd_notify(3)).

Without a service manager (no ``NOTIFY_SOCKET``) all of it does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import trio

from mdmfs.daemon.looks import next_look
from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.daemon.stalls import telling_stalls

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"
MICROSECONDS: Final = 1_000_000


BEAT_SECONDS: Final = 2.0
STALLED_SECONDS: Final = 15.0
"""Without a beat for so long, the event loop hangs."""


class Pulse:
    """Whether a daemon lives and serves, for whoever asks from another thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin alive, and not ready."""
        self._clock = clock
        self._beat = clock()
        self._has_started = False

    @property
    def is_alive(self) -> bool:
        """Whether the event loop turns, or has not begun to for long."""
        return self.silence < STALLED_SECONDS

    @property
    def is_ready(self) -> bool:
        """Whether it serves."""
        return self._has_started and self.is_alive

    @property
    def silence(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._beat

    def beat(self) -> None:
        """Say that the loop turns."""
        self._beat = self._clock()

    def start(self) -> None:
        """Say that it serves from now on."""
        self._has_started = True

    def stop(self) -> None:
        """Say that it is ending."""
        self._has_started = False


class Supervisor:
    """The service manager that started this process, if one did."""

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        """Read what it says of itself in the environment; ``pid`` is ours."""
        self.pulse: Final = Pulse()
        self._address = environment.get("NOTIFY_SOCKET", "")
        watched = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        self.patience: float | None = None
        """Seconds without a sign of life after which it ends us; None where it does not watch."""
        text = environment.get("WATCHDOG_USEC", "")
        if self._address and watched and text.isascii() and text.isdigit() and int(text) > 0:
            self.patience = int(text) / MICROSECONDS

    def tell(self, state: str) -> None:
        """Send one datagram; a manager that has gone, or takes no more just now, is no reason to fail."""
        if state == STOPPING:
            self.pulse.stop()
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
            try:
                sender.sendto(state.encode(), address)
            except OSError:
                return

    async def supervise(
        self,
        run: Callable[..., Awaitable[None]],
        *arguments: Any,  # noqa: ANN401 - passed on as they are
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Run a daemon to its end; from when it says that it has started, the manager hears that it serves and lives.

        Where its event loop hangs is told in the log.
        ``run`` takes a ``task_status``; ``ready`` is called when it has started. Raises what ``run`` raises.
        """
        async with open_plain_nursery() as nursery:

            async def serve(*, task_status: trio.TaskStatus[Any]) -> None:
                await run(*arguments, task_status=task_status)
                nursery.cancel_scope.cancel()

            nursery.start_soon(self._keep_beating)
            await nursery.start(serve)
            self.pulse.start()
            self.tell(READY)
            ready()
            nursery.start_soon(self._keep_telling)

    async def _keep_beating(self) -> None:
        with telling_stalls(lambda: self.pulse.silence):
            while True:
                self.pulse.beat()
                await next_look(BEAT_SECONDS)

    async def _keep_telling(self) -> None:
        """Give a sign of life from the event loop, twice as often as it must be: a loop that stalls gives none."""
        while self.patience is not None:
            self.tell(ALIVE)
            await trio.sleep(self.patience / 2)


def this_supervisor() -> Supervisor:
    """Give the one that started this process."""
    return Supervisor(os.environ, os.getpid())
