"""``mdmfs hospitald``, ``keystored`` and ``metadatad``: the daemons, in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import pathlib
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import click
import trio

from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.daemon import run_hospital
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.keystore.service import run_keystore
from mdmfs.metadata.configuration import MetadataConfiguration
from mdmfs.metadata.service import run_metadata
from mdmfs.wire.metrics import serving_metrics
from mdmfs.wire.nursery import open_plain_nursery
from mdmfs.wire.process import forbid_core_dumps
from mdmfs.wire.supervision import STOPPING, Supervisor, this_supervisor

_FILE = click.Path(exists=True, dir_okay=False, path_type=pathlib.Path)


@click.command()
@click.argument("configuration", type=_FILE)
def hospitald(configuration: pathlib.Path) -> None:
    """Serve a hospital's images to the grid."""
    settings = HospitalConfiguration.read(configuration)
    with serving_metrics(settings.hospital.metrics):
        run_until_told(run_hospital, settings)


@click.command()
@click.argument("configuration", type=_FILE)
def keystored(configuration: pathlib.Path) -> None:
    """Keep one share of each key."""
    settings = KeystoreConfiguration.read(configuration)
    with serving_metrics(settings.metrics):
        run_until_told(run_keystore, settings)


@click.command()
@click.argument("configuration", type=_FILE)
def metadatad(configuration: pathlib.Path) -> None:
    """Let a hospital's images be found by their attributes."""
    settings = MetadataConfiguration.read(configuration)
    with serving_metrics(settings.metrics):
        run_until_told(run_metadata, settings)


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
