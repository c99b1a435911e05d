"""``mdmfs shelf``: what a keystore's own people decide about its shelf."""

from __future__ import annotations

import pathlib

import click
import trio

from mdmfs.cli.arguments import FILE, parsed
from mdmfs.cli.output import tell
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.keystore.row_shelf import open_shelf
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.identity import Dn


@click.group()
def shelf() -> None:
    """See to the shelf of a keystore. CONFIGURATION is the keystore's."""


@shelf.command("forget-signer")
@click.argument("configuration", type=FILE)
@click.argument("dn")
def forget_signer(configuration: pathlib.Path, dn: str) -> None:
    """Let the hospital DN have a new signing key, when it lost the one that its orders were signed with.

    The next order brings the new one: speak with the hospital's people first. The keystore may run, unless its shelf is
    in a database.
    """
    settings, owner = KeystoreConfiguration.read(configuration), str(parsed(Dn.parse, dn))
    known = trio.run(_forget_signer, settings, owner)
    if not known:
        message = f"no signing key of {owner} is known here"
        raise ConfigurationError(message, what_to_do="give the DN of one of keystore.hospitals")
    forgotten = f"{owner}: the signing key {known.hex()} is forgotten; the next order brings another"
    tell({"hospital": owner, "forgotten": known.hex()}, forgotten)


async def _forget_signer(settings: KeystoreConfiguration, owner: str) -> bytes:
    async with open_shelf(settings) as opened:
        known = await opened.read(lambda page: page.signer(owner))
        await opened.write(lambda draft: draft.put_signer(owner, b""))
    return known
