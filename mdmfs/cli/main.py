"""The command line: daemons of each zone, the mount, administration."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from mdmfs.cli.examples import show_examples
from mdmfs.cli.logs import log_to_standard_error
from mdmfs.cli.output import is_json, json_option, run, speak_json, usual_level

LEVELS: Final = ("debug", "info", "warning", "error")

MODULES: Final = {
    "audit": "audit",
    "backup": "backup",
    "deidentify": "deidentify",
    "demo": "demonstration",
    "doctor": "doctor",
    "find": "find",
    "getfacl": "facl",
    "harvest": "harvest",
    "hospitald": "hospitald",
    "init": "initiation",
    "inspect": "unseal",
    "keys": "keys",
    "keystored": "keystored",
    "metadatad": "metadatad",
    "migrate": "migrate",
    "mount": "mount",
    "names": "names",
    "policy": "policy",
    "quarantine": "quarantine",
    "reconcile": "reconcile",
    "record": "record",
    "replicas": "replicas",
    "rerender": "renewal",
    "restore": "backup",
    "setfacl": "facl",
    "shelf": "shelf",
    "snapshot": "snapshot",
    "stage": "stage",
    "subject": "subject",
    "top": "top",
    "umount": "mount",
    "unseal": "unseal",
    "view": "view",
    "why": "why",
    "withdraw": "renewal",
}
"""The module of each command."""


class _Commands(click.Group):
    """Imports the module of a command when it is asked for: a worker's mount loads nothing of a hospital."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return sorted({*MODULES, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give a command; None where there is none of that name."""
        if cmd_name in MODULES and cmd_name not in self.commands:
            for command in vars(importlib.import_module(f"mdmfs.cli.{MODULES[cmd_name]}")).values():
                if isinstance(command, click.Command) and command.name == cmd_name:
                    self.add_command(command)
                    show_examples(command, cmd_name)
                    speak_json(command)
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mdmfs")
@click.option("--log-level", type=click.Choice(LEVELS), help="What is logged; info of a daemon, else warning.")
@click.pass_context
def cli(context: click.Context, log_level: str | None) -> None:
    """Medical images of hospital PACSs as files on grid worker nodes."""
    if os.environ.get("NO_COLOR"):
        context.color = False  # https://no-color.org
    log_to_standard_error(log_level or usual_level(context), is_json=is_json())


cli.params.append(json_option())


def main() -> None:
    """Run what was typed."""
    sys.exit(run(cli, sys.argv[1:]))
