"""Manual pages and a reference of all commands, made from the commands: ``python -m mdmfs.cli.reference FOLDER``."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import click

from mdmfs.cli.main import cli

WIDTH = 100


def commands(command: click.Command, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Give the context of every command that does something, in the order of their names."""
    name = command.name if parent else "mdmfs"
    context = click.Context(command, parent=parent, info_name=name, max_content_width=WIDTH)
    if not isinstance(command, click.Group):
        yield context
        return
    for each in sorted(command.list_commands(context)):
        below = command.get_command(context, each)
        if below is not None and not below.hidden:
            yield from commands(below, context)


def reference() -> str:
    """Give the help of every command as one page of Markdown."""
    pages = (f"## {context.command_path}\n\n```\n{context.get_help().rstrip()}\n```\n" for context in commands(cli))
    return "# Commands\n\nMade from the commands themselves.\n\n" + "\n".join(pages)


def write(folder: pathlib.Path) -> None:
    """Write ``commands.md`` and the manual pages (section 1) into a folder; needs click-man."""
    from click_man.core import write_man_pages  # type: ignore[import-untyped]  # noqa: PLC0415 of the build only

    (folder / "commands.md").write_text(reference(), encoding="utf-8")
    write_man_pages("mdmfs", cli, target_dir=str(folder))


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
