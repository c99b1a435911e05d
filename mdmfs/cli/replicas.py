"""``mdmfs replicas``: what is on storage elements, and what could not be taken away there."""

from __future__ import annotations

import pathlib
import sys

import click

from mdmfs.cli.arguments import FILE
from mdmfs.cli.hospital import ask_each
from mdmfs.cli.output import note, tell
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.names import Guid
from mdmfs.wire.messages.administration import REPLICAS_PATH, AskReplicas, ReplicaUse


@click.command()
@click.argument("configuration", type=FILE)
@click.option("--forget", default="", metavar="ELEMENT", help="One that is no longer configured, and has nothing left.")
def replicas(configuration: pathlib.Path, forget: str) -> None:
    """Tell what storage elements keep of this hospital; exit code 1 where something is to go and has not gone.

    CONFIGURATION is the hospital's; its daemon must run, and tries again by itself.
    """
    [found] = ask_each(HospitalConfiguration.read(configuration), REPLICAS_PATH, [AskReplicas(forget)], ReplicaUse)
    for one in found.storage:
        told = {"element": one.element, "replicas": one.replicas, "size": one.size, "leaving": one.leaving}
        tell(told, f"{one.element}: {one.replicas} replicas, {one.size} bytes; {one.leaving} to be taken away")
    for left in found.left:
        guid = str(Guid(left.guid))
        note(f"  not gone yet: {left.surl} ({guid}): {left.reason}", surl=left.surl, guid=guid, reason=left.reason)
    if not found.storage:
        note("no [[storage]] is configured")
    sys.exit(1 if any(one.leaving for one in found.storage) else 0)
