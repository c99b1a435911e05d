"""How a daemon runs: in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.daemon.process import allow_many_connections, collect_seldom, forbid_core_dumps
from mdmfs.daemon.supervision import STOPPING, Supervisor, this_supervisor
from mdmfs.wire.metrics import serving_metrics


def run_until_told(metrics: str, run: Callable[..., Awaitable[None]], *arguments: Any) -> None:  # noqa: ANN401 - passed on
    """Run a daemon until SIGTERM or SIGINT, which end it in order; ``metrics`` is where it tells how it does."""
    forbid_core_dumps()
    allow_many_connections()
    supervisor = this_supervisor()
    collect_seldom()
    with serving_metrics(metrics, supervisor.pulse):
        trio.run(_run_until_signal, supervisor, run, arguments)


async def _run_until_signal(
    supervisor: Supervisor, run: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]
) -> None:
    async with open_plain_nursery() as nursery:
        nursery.start_soon(_cancel_on_signal, nursery.cancel_scope, supervisor)
        await supervisor.supervise(run, *arguments)
        nursery.cancel_scope.cancel()


async def _cancel_on_signal(scope: trio.CancelScope, supervisor: Supervisor) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            supervisor.tell(STOPPING)
            scope.cancel()
