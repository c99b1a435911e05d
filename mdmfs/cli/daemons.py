"""How a daemon runs: in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from mdmfs.wire.nursery import open_plain_nursery
from mdmfs.wire.process import forbid_core_dumps
from mdmfs.wire.supervision import STOPPING, Supervisor, this_supervisor


def run_until_told(run: Callable[..., Awaitable[None]], *arguments: Any) -> None:  # noqa: ANN401 - passed on as they are
    """Run a daemon until SIGTERM or SIGINT, which end it in order."""
    forbid_core_dumps()
    trio.run(_run_until_signal, run, arguments)


async def _run_until_signal(run: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]) -> None:
    supervisor = this_supervisor()
    async with open_plain_nursery() as nursery:
        nursery.start_soon(_cancel_on_signal, nursery.cancel_scope, supervisor)
        await supervisor.supervise(run, *arguments)
        nursery.cancel_scope.cancel()


async def _cancel_on_signal(scope: trio.CancelScope, supervisor: Supervisor) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            supervisor.tell(STOPPING)
            scope.cancel()
