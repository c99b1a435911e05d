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

SECTIONS: Final = {
    "To read and share images": {
        "mount": "mount",
        "umount": "mount",
        "find": "find",
        "stage": "stage",
        "snapshot": "snapshot",
        "view": "view",
        "why": "why",
        "getfacl": "facl",
        "setfacl": "facl",
        "inspect": "unseal",
        "unseal": "unseal",
    },
    "A hospital": {
        "hospitald": "hospitald",
        "harvest": "harvest",
        "reconcile": "reconcile",
        "rerender": "renewal",
        "withdraw": "renewal",
        "quarantine": "quarantine",
        "names": "names",
        "subject": "subject",
        "record": "record",
        "replicas": "replicas",
        "keys": "keys",
        "audit": "audit",
        "policy": "policy",
        "deidentify": "deidentify",
    },
    "Keystores and metadata services": {"keystored": "keystored", "metadatad": "metadatad", "shelf": "shelf"},
    "Every site": {
        "init": "initiation",
        "doctor": "doctor",
        "top": "top",
        "backup": "backup",
        "restore": "backup",
        "migrate": "migrate",
        "demo": "demonstration",
    },
}
"""For whom commands are, and the module of each; docs/commands.md has the same sections."""
MODULES: Final = {name: module for section in SECTIONS.values() for name, module in section.items()}


class _Commands(click.Group):
    """Imports the module of a command when it is asked for: a worker's mount loads nothing of a hospital."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return sorted({*MODULES, *super().list_commands(ctx)})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them under those whom they are for."""
        width = formatter.width - 6 - max(map(len, MODULES))
        for title, names in SECTIONS.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl([(name, one.get_short_help_str(width)) for name, one in found if one])

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
