"""The command line: daemons of each zone, the mount, administration."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Final

import click
from click.shell_completion import CompletionItem

from mdmfs.cli.examples import show_examples
from mdmfs.cli.logs import log_to_standard_error
from mdmfs.cli.output import is_json, json_option, run, speak_json, usual_level

LEVELS: Final = ("debug", "info", "warning", "error")

SECTIONS: Final = {
    "To read and share images": {
        "mount": ("mount", "Show a hospital's images below a directory."),
        "umount": ("mount", "Unmount, and wait until the daemon has gone."),
        "find": ("find", "Find series or images by their attributes."),
        "stage": ("stage", "Bring files online before they are needed."),
        "snapshot": ("snapshot", "Freeze what a query finds as a directory of files."),
        "view": ("view", "Show a contact sheet of images."),
        "why": ("why", "Tell why a path can be read, or cannot, and what takes time."),
        "getfacl": ("facl", "Print who may do what with files and directories."),
        "setfacl": ("facl", "Change who may do what with files and directories."),
        "inspect": ("unseal", "Tell what a sealed object shows without its key."),
        "unseal": ("unseal", "Unseal a sealed object, where the keystores allow it."),
    },
    "A hospital": {
        "hospitald": ("hospitald", "Serve a hospital's images to the grid."),
        "harvest": ("harvest", "Register the images that a project includes."),
        "reconcile": ("reconcile", "Compare what is registered with what the PACSs have."),
        "rerender": ("renewal", "Make images anew under another policy or engine."),
        "withdraw": ("renewal", "Take files away at once and for ever."),
        "quarantine": ("quarantine", "See what is not released, and why."),
        "names": ("names", "See and remove the names and comments of users."),
        "subject": ("subject", "Follow merged patients, or ask who a subject is."),
        "record": ("record", "Keep records of subjects."),
        "replicas": ("replicas", "Tell what storage elements keep."),
        "keys": ("keys", "Verify, split anew, rotate and destroy keys."),
        "audit": ("audit", "Ask who read what; verify and export the audit log."),
        "policy": ("policy", "Digest and explain policies of de-identification."),
        "deidentify": ("deidentify", "De-identify files without PACS, keys or grid."),
    },
    "Keystores and metadata services": {
        "keystored": ("keystored", "Keep one share of each key."),
        "metadatad": ("metadatad", "Let a hospital's images be found by their attributes."),
        "shelf": ("shelf", "Let a hospital have another signing key."),
    },
    "Every site": {
        "init": ("initiation", "Write a configuration and check what it names."),
        "doctor": ("doctor", "Tell what is wrong with a site, and what soon will be."),
        "top": ("top", "Show what a daemon does just now."),
        "backup": ("backup", "Write the stores of a zone to a sealed file."),
        "restore": ("backup", "Put the stores of a backup back."),
        "migrate": ("migrate", "Move a store into PostgreSQL, or back."),
        "demo": ("demonstration", "Show a whole site at work on this machine."),
    },
}
"""For whom commands are, the module of each, and what it does: told here, so that nothing is imported to tell it.

docs/commands.md has the same sections."""
COMMANDS: Final = {name: told for section in SECTIONS.values() for name, told in section.items()}


class _Commands(click.Group):
    """Imports the module of a command when it is asked for: a worker's mount loads nothing of a hospital."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return sorted({*COMMANDS, *super().list_commands(ctx)})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 of click
        """List them under those whom they are for."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, does) for name, (_, does) in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, or an option."""
        found = [(name, does) for name, (_, does) in COMMANDS.items() if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=does) for name, does in found), *options]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find what was typed; where there is no such command, name the one that was probably meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(error.message + hint, error.ctx) from error

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give a command; None where there is none of that name."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module, does = COMMANDS[cmd_name]
            for command in vars(importlib.import_module(f"mdmfs.cli.{module}")).values():
                if isinstance(command, click.Command) and command.name == cmd_name:
                    self.add_command(command)
                    command.short_help = does
                    show_examples(command, cmd_name)
                    speak_json(command)
                    _tell_whole_sentences(command)
        return super().get_command(ctx, cmd_name)


def _tell_whole_sentences(command: click.Command) -> None:
    """Let the help of a group wrap what its commands do, in place of cutting it off."""
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        below.short_help = below.get_short_help_str(limit=sys.maxsize)


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
