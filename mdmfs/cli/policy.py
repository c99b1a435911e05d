"""``mdmfs policy``: what a project's approver signs."""

from __future__ import annotations

import pathlib

import click

from mdmfs.hospital.daemon import read_policy


@click.group()
def policy() -> None:
    """Policies of de-identification."""


@policy.command()
@click.argument("name")
def digest(name: str) -> None:
    """Print the digest of a shipped policy (strict, research) or of a file, for a project's [approval]."""
    source = str(pathlib.Path(name).absolute()) if "/" in name else name
    click.echo(read_policy(source).digest.hex())
