"""Every command, walked: its help fits a screen and shows an example that it would take; manual pages say the same."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from mdmfs.cli.examples import EXAMPLES
from mdmfs.cli.main import cli
from mdmfs.cli.reference import commands, reference, write

SCREEN = 40
CONTEXTS = {context.command_path: context for context in commands(cli)}
HEADING = re.compile(r"^ *Examples?:", re.MULTILINE)
EXAMPLE = re.compile(r"Examples?: +(mdmfs [^\n]*(?:\n +[^\n]+)*)")


def examples_of(context: click.Context) -> list[str]:
    """Find what its help shows."""
    return [re.sub(r"\s+", " ", found) for found in EXAMPLE.findall(context.get_help())]


@pytest.mark.parametrize("path", sorted(CONTEXTS))
def test_the_help_of_a_command_fits_a_screen_and_shows_an_example(path: str) -> None:
    """And says what it does."""
    context = CONTEXTS[path]
    told = context.get_help()
    assert len(told.splitlines()) <= SCREEN
    assert context.command.help
    assert examples_of(context), f"{path} has no example: see mdmfs/cli/examples.py"
    assert len(HEADING.findall(told)) == 1, f"{path} shows its examples twice: see mdmfs/cli/examples.py"


@pytest.mark.parametrize("typed", sorted(typed for typed in EXAMPLES if f"mdmfs {typed}" in CONTEXTS))
def test_an_example_is_of_a_command_and_names_its_options(typed: str) -> None:
    """What somebody copies is understood."""
    context = CONTEXTS[f"mdmfs {typed}"]
    words = shlex.split(EXAMPLES[typed])[len(typed.split()) :]
    known = {name for option in context.command.params for name in (*option.opts, *option.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= known
    needed = [one for one in context.command.params if isinstance(one, click.Argument) and one.required]
    assert len([word for word in words if not word.startswith("-")]) >= len(needed)


@pytest.mark.filterwarnings("ignore:'click.utils:DeprecationWarning")  # of click-man
def test_reference_and_manual_pages_hold_every_command(tmp_path: Path) -> None:
    """As ``./run install`` places them."""
    pytest.importorskip("click_man")
    write(tmp_path)
    text = reference()
    for path, context in CONTEXTS.items():
        assert f"## {path}\n" in text
        page = (tmp_path / f"{path.replace(' ', '-')}.1").read_text()
        assert ".SH SYNOPSIS" in page
        for option in context.command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(name.lstrip("-") in page.replace("\\-", "-") for name in option.opts), (path, option.opts)
