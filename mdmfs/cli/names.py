"""``mdmfs names``: what users made of names beside the images, for the hospital's own people: seen, and removed."""

from __future__ import annotations

import pathlib
import time
from collections.abc import AsyncIterator

import click
import trio

from mdmfs.cli.arguments import FILE, parsed
from mdmfs.cli.hospital import ask, ask_each, asking
from mdmfs.cli.output import tell
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.names import (
    LIST_NAMES_PATH,
    MAX_NAMES,
    REMOVE_NAMES_PATH,
    ListNames,
    MadeName,
    MadeNames,
    RemovedNames,
    RemoveNames,
)


@click.group()
def names() -> None:
    """See and remove the names and comments of users. CONFIGURATION is the hospital's; its daemon must run."""


@names.command(name="list")
@click.argument("configuration", type=FILE)
@click.argument("lfn")
def list_(configuration: pathlib.Path, lfn: str) -> None:
    """List the collections, aliases and comments at and below LFN: when, by whom, and where an alias leads."""
    trio.run(_list, HospitalConfiguration.read(configuration), str(parsed(Lfn.parse, lfn)))


@names.command()
@click.argument("configuration", type=FILE)
@click.argument("lfn")
@click.option("--comments-only", is_flag=True, help="Leave collections and aliases.")
def remove(configuration: pathlib.Path, lfn: str, *, comments_only: bool) -> None:
    """Remove the collections, aliases and comments at and below LFN, at once. No image is touched."""
    question = RemoveNames(str(parsed(Lfn.parse, lfn)), comments_only)
    [gone] = ask_each(HospitalConfiguration.read(configuration), REMOVE_NAMES_PATH, [question], RemovedNames)
    told = {"names": gone.names, "comments": gone.comments}
    tell(told, f"removed: {gone.names} names, {gone.comments} comments")


async def _list(configuration: HospitalConfiguration, lfn: str) -> None:
    async for one in _all(configuration, lfn):
        tell({name: getattr(one, name) for name in one.__struct_fields__}, _line(one))


async def _all(configuration: HospitalConfiguration, lfn: str) -> AsyncIterator[MadeName]:
    async with asking(configuration) as client:
        skip = 0
        while True:
            found = (await ask(client, LIST_NAMES_PATH, ListNames(lfn, skip), MadeNames)).names
            for one in found:
                yield one
            if len(found) < MAX_NAMES:
                return
            skip += len(found)


def _line(one: MadeName) -> str:
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.modified))
    leads = f" -> {one.target}" if one.target else ""
    lost = "" if one.leads else " (nothing is there)"
    said = "".join(f"\n  comment: {line}" for line in one.comment.splitlines())
    return f"{day}  {one.maker or '-'}  {one.lfn}{leads}{lost}{said}"
