"""Help says in whole sentences what there is, and loads no zone to say it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import click
import pytest
from click.testing import CliRunner

from mdmfs.cli.main import COMMANDS, cli
from mdmfs.cli.output import invite
from mdmfs.model.errors import ConfigurationError

LOADED = """
import json, sys
from mdmfs.cli.main import cli
from mdmfs.cli.output import run
from mdmfs.cli.main import main
status = run(cli, sys.argv[1:])
zones = ("mdmfs.hospital", "mdmfs.keystore", "mdmfs.metadata", "mdmfs.worker", "pydicom")
print(json.dumps([status, sorted(name for name in sys.modules if name in zones)]))
"""


def loaded(*typed: str, **variables: str) -> list[str]:
    """Run a command, and tell which zones were loaded for it."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *typed], capture_output=True, text=True, check=True, env=variables
    )
    return list(json.loads(done.stdout.splitlines()[-1])[1])


def groups(command: click.Command, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Give the context of every group."""
    if isinstance(command, click.Group):
        context = click.Context(command, parent=parent, info_name=command.name, terminal_width=78)
        yield context
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from groups(below, context)


def test_what_each_command_does_is_told_in_a_whole_sentence() -> None:
    """None is cut off; of the first page each has one line of a narrow terminal."""
    for context in groups(cli):
        lines = context.get_help().splitlines()[1:]
        assert [line for line in lines if line.endswith("...")] == []
    lines = cli.get_help(click.Context(cli, terminal_width=78)).splitlines()
    assert {line.split()[0] for line in lines if line.startswith("  ") and line.endswith(".")} >= COMMANDS.keys()


def test_a_query_may_be_left_out_only_where_attributes_are_listed() -> None:
    """The one that finds everything is written: by a slip nobody lists a country."""
    done = CliRunner().invoke(cli, ["find"])
    assert done.exit_code == 2
    assert "'' finds everything" in done.output
    done = CliRunner().invoke(cli, ["find", "--schema", "--at", "/"])
    assert isinstance(done.exception, ConfigurationError)
    assert "/ is not on a mount" in str(done.exception)


class Terminal(io.StringIO):
    """Where somebody sits."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize(("source", "told"), [(Terminal(), "the patient:\n"), (io.StringIO(), "")])
def test_who_sits_at_a_terminal_is_told_what_is_read_from_it(
    source: TextIO, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that waits in silence looks as if it hung; a pipe needs no word."""
    invite(source, "the patient:")
    assert capsys.readouterr() == ("", told)


def test_help_loads_no_zone() -> None:
    """The first thing that is typed takes no time."""
    assert loaded("-h") == []


def test_a_name_is_completed_without_loading_what_it_names() -> None:
    """A shell asks at each Tab."""
    found = cli.shell_complete(click.Context(cli), "s")
    assert [one.value for one in found] == ["stage", "snapshot", "setfacl", "subject", "shelf"]
    assert [one.value for one in cli.shell_complete(click.Context(cli), "--j")] == ["--json"]


def test_a_slip_in_a_command_names_the_one_that_was_meant() -> None:
    """And nothing where none is like it."""
    assert "Did you mean stage?" in CliRunner().invoke(cli, ["statge"]).output
    assert "Did you mean" not in CliRunner().invoke(cli, ["xyzzy"]).output


@pytest.mark.parametrize(("table", "zones"), [("trust = 1", ["mdmfs.worker"]), ("[keystore]", ["mdmfs.keystore"])])
def test_a_doctor_loads_the_zone_that_he_looks_at(
    tmp_path: pytest.TempPathFactory, table: str, zones: list[str]
) -> None:
    """A worker node's has nothing of a hospital."""
    file = f"{tmp_path}/x.toml"
    with open(file, "w") as output:  # noqa: PTH123 a plain file
        output.write(table)
    assert loaded("doctor", file) == zones
