"""``mdmfs hospitald``: the hospital's daemon."""

from __future__ import annotations

import pathlib

import click

from mdmfs.cli.arguments import FILE
from mdmfs.cli.daemons import run_until_told
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.daemon import run_hospital


@click.command()
@click.argument("configuration", type=FILE)
def hospitald(configuration: pathlib.Path) -> None:
    """Serve a hospital's images to the grid, in the foreground, until SIGTERM or Ctrl-C.

    CONFIGURATION, its projects, lists and policies are read at the start: restart it after a change.
    """
    settings = HospitalConfiguration.read(configuration)
    run_until_told(settings.hospital.metrics, run_hospital, settings)
