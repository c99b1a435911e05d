"""``mdmfs policy``: what a project's approver signs, and what it does to a file."""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import click

from mdmfs.cli.arguments import FILE
from mdmfs.cli.deidentify import read_header, throw_away_subject
from mdmfs.cli.output import tell
from mdmfs.daemon.process import forbid_core_dumps
from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.deid.acceptance import accept
from mdmfs.hospital.deid.explain import Explained, explain
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.refusal import Reason, RefusedError


@click.group(name="policy")
def policy() -> None:
    """Policies of de-identification."""


@policy.command()
@click.argument("name")
def digest(name: str) -> None:
    """Print the digest of a shipped policy (strict, research) or of a file, for a project's [approval]."""
    told = _read(name).digest.hex()
    tell({"policy": name, "digest": told}, told)


@policy.command(name="explain")
@click.argument("file", type=FILE)
@click.option("--policy", "name", required=True, help="strict, research, or a file (with a / in it).")
def explain_file(file: pathlib.Path, name: str) -> None:
    """Print what becomes of each element of FILE, and which clause of PS3.15 says so; never a value."""
    forbid_core_dumps()
    chosen = _read(name)
    try:
        with file.open("rb") as stream:
            _, header = read_header(stream)
        refusal = None
        try:
            accept(header, chosen)
        except RefusedError as error:
            if error.reason is Reason.SOP_CLASS:
                raise
            refusal = error
        for explained in explain(header, chosen, throw_away_subject()):
            tell(_object(explained), _line(explained))
        if refusal is not None:
            raise refusal
    except RefusedError as error:
        tell({"refused": error.reason, "where": error.where}, str(error))
        sys.exit(1)


def _object(explained: Explained) -> dict[str, object]:
    return dataclasses.asdict(explained) | {"tag": _tag(explained)}


def _tag(explained: Explained) -> str:
    return f"({explained.tag >> 16:04x},{explained.tag & 0xFFFF:04x})"


def _line(explained: Explained) -> str:
    tag = _tag(explained)
    return f"{'  ' * explained.depth}{tag} {explained.keyword or '-':<40} {explained.effect:<8} {explained.clause}"


def _read(name: str) -> Policy:
    return read_policy(str(pathlib.Path(name).absolute()) if "/" in name else name)
