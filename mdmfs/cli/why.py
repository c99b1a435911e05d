"""``mdmfs why``: who asks, what decides at each step of a path, who can be reached, where the bytes are."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Final

import click
import trio

from mdmfs.access.text import format_time
from mdmfs.cli.mounted import CONFIGURATION_OF_MOUNT, Place, find_place, open_hospital
from mdmfs.cli.output import tell
from mdmfs.daemon.configuration import KeystorePeer
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.messages.acls import WHY_PATH, AskWhy, Why, WhyStep
from mdmfs.wire.messages.keystores import COLLECT_PATH, Collect, Collected, Outcome
from mdmfs.wire.peers import open_client
from mdmfs.worker.attributes import WHY_ATTRIBUTE
from mdmfs.worker.callers.credential import own_credential

DEADLINE: Final = 10.0
_OUTCOMES: Final = {
    Outcome.DONE: "gives its share",
    Outcome.DENIED: "refuses its share to this identity",
    Outcome.UNKNOWN: "has no share of it",
    Outcome.DESTROYED: "has destroyed its share",
    Outcome.STALE: "has not heard from the hospital lately and gives no share",
}


@click.command()
@click.argument("path")
@click.option("--as", "dn", default="", metavar="DN", help="For somebody else; takes the right a on what PATH names.")
@click.option("--fqan", multiple=True, help="With --as: an FQAN that he has; may be given again and again.")
@CONFIGURATION_OF_MOUNT
def why(path: str, dn: str, fqan: tuple[str, ...], configuration: pathlib.Path | None) -> None:
    """Tell why PATH can be read, or cannot, and where time goes."""
    place = find_place(path, configuration)
    told = trio.run(_explain, place, AskWhy(str(place.lfn), dn, list(fqan)))
    if not dn and place.mountpoint is not None:
        told["mount"] = _of_mount(path)
    tell(told, *_lines(told))


async def _explain(place: Place, question: AskWhy) -> dict[str, Any]:
    """Ask the hospital, and each keystore for the caller; what nobody tells is left out."""
    async with contextlib.aclosing(open_hospital(place.configuration)) as client:
        why = await client.call(WHY_PATH, question, Why, deadline=trio.current_time() + DEADLINE)
    told: dict[str, Any] = {"identity": why.dn, "fqans": why.fqans, "steps": list(map(_step, why.steps))}
    if why.guid:
        told |= {"guid": str(Guid(why.guid)), "locality": why.locality}
    if why.pacs:
        told["pacs"] = why.pacs
    if not question.dn:
        credential = own_credential(place.configuration)
        told |= {"credential": str(credential.certificate_file), "until": format_time(why.not_after)}
        told["keystores"] = {
            peer.name: await _of_keystore(peer, place, why.guid) for peer in place.configuration.keystores
        }
    return told


def _step(step: WhyStep) -> dict[str, object]:
    return {"right": step.right, "lfn": step.lfn, "is_allowed": step.is_allowed, "reason": step.reason}


def _lines(told: dict[str, Any]) -> Iterator[str]:
    yield f"identity  {told['identity']}"
    yield from (f"          {fqan}" for fqan in told["fqans"])
    if "credential" in told:
        yield f"          from {told['credential']}, until {told['until']}"
    for step in told["steps"]:
        yield f"{'allowed ' if step['is_allowed'] else 'refused '}  {step['right']} {step['lfn']}  {step['reason']}"
    if "guid" in told:
        yield f"file      {told['guid']}, {told['locality']}"
    if "pacs" in told:
        yield f"PACS      {told['pacs']}"
    yield from (f"keystore  {name}: {answer}" for name, answer in told.get("keystores", {}).items())
    yield from told.get("mount", ())


async def _of_keystore(peer: KeystorePeer, place: Place, guid: bytes) -> str:
    """Ask a keystore for the share, as an open would; of a name that may not be known, only whether it answers."""
    configuration = place.configuration
    anchors = TrustAnchors(configuration.path(configuration.trust))
    client = open_client(peer.address, peer.dn, own_credential(configuration), anchors)
    async with contextlib.aclosing(client):
        try:
            question = Collect([guid] if guid else [])
            answer = await client.call(COLLECT_PATH, question, Collected, deadline=trio.current_time() + DEADLINE)
        except MdmfsError as error:
            return str(error)
    told = [_OUTCOMES.get(outcome, outcome.value) for outcome in answer.outcomes] or ["answers"]
    return told[0]


def _of_mount(path: str) -> list[str]:
    """Ask the mount where the bytes are and how its last open went; a directory has none."""
    try:
        return os.getxattr(path, WHY_ATTRIBUTE.decode()).decode().splitlines()
    except IsADirectoryError:
        return []
    except OSError as error:
        return [f"mount     {error.strerror}"]
