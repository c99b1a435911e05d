"""``mdmfs metadatad``: the daemon of the metadata zone."""

from __future__ import annotations

import pathlib

import click

from mdmfs.cli.arguments import FILE
from mdmfs.cli.daemons import run_until_told
from mdmfs.metadata.configuration import MetadataConfiguration
from mdmfs.metadata.service import run_metadata


@click.command()
@click.argument("configuration", type=FILE)
def metadatad(configuration: pathlib.Path) -> None:
    """Let a hospital's images be found by their attributes, in the foreground, until SIGTERM or Ctrl-C.

    CONFIGURATION is read at the start: restart it after a change.
    """
    settings = MetadataConfiguration.read(configuration)
    run_until_told(settings.metrics, run_metadata, settings)
