"""The command line: daemons of each zone, the mount, administration; errors are one line and exit code 1."""

from __future__ import annotations

import pathlib
import sys
from typing import Final

import click

from mdmfs.cli.audit import audit
from mdmfs.cli.daemons import hospitald, keystored, metadatad
from mdmfs.cli.deidentify import deidentify_files
from mdmfs.cli.demonstration import demo
from mdmfs.cli.doctor import doctor
from mdmfs.cli.facl import getfacl, setfacl
from mdmfs.cli.find import find
from mdmfs.cli.harvest import harvest
from mdmfs.cli.identify import identify
from mdmfs.cli.initiation import init
from mdmfs.cli.keys import keys
from mdmfs.cli.logs import log_to_standard_error
from mdmfs.cli.mount import mount, umount
from mdmfs.cli.policy import policy
from mdmfs.cli.quarantine import quarantine
from mdmfs.cli.reconcile import reconcile, subject
from mdmfs.cli.record import record
from mdmfs.cli.renewal import rerender, withdraw
from mdmfs.cli.shelf import shelf
from mdmfs.cli.stage import stage
from mdmfs.cli.unseal import inspect, unseal
from mdmfs.cli.why import why
from mdmfs.model.errors import MdmfsError
from mdmfs.wire.outline import outline

LEVELS: Final = ("debug", "info", "warning", "error")

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=pathlib.Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mdmfs")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What is logged.")
def cli(log_level: str) -> None:
    """Medical images of hospital PACSs as files on grid worker nodes."""
    log_to_standard_error(log_level)


_COMMANDS: Final = (
    *(init, hospitald, keystored, harvest, reconcile, rerender, withdraw, subject, quarantine),
    *(keys, shelf, audit, doctor),
    *(mount, umount, getfacl, setfacl, why, stage, inspect, unseal),
    *(metadatad, find, record),
    *(policy, deidentify_files, demo),
)
subject.add_command(identify)
for _command in _COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Run the command; what mdmfs raises on purpose is told in one line, anything else by where it arose only."""
    try:
        cli()
    except MdmfsError as error:
        click.echo(f"mdmfs: {error}", err=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 the command line: a traceback's last line may quote a patient
        click.echo(f"mdmfs: this should not happen, please report it: {outline(error)}", err=True)
        sys.exit(70)
