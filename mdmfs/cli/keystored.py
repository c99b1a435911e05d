"""``mdmfs keystored``: a keystore's daemon."""

from __future__ import annotations

import pathlib

import click

from mdmfs.cli.arguments import FILE
from mdmfs.cli.daemons import run_until_told
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.keystore.service import run_keystore


@click.command()
@click.argument("configuration", type=FILE)
def keystored(configuration: pathlib.Path) -> None:
    """Keep one share of each key, in the foreground, until SIGTERM or Ctrl-C.

    CONFIGURATION is read at the start: restart it after a change.
    """
    settings = KeystoreConfiguration.read(configuration)
    run_until_told(settings.metrics, run_keystore, settings)
